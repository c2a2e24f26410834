//! The thread that writes.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Pace;
use super::buffers::{Batch, Buffers};
use super::sink::Sink;

/// A pipe or terminal that is full for the moment is not in trouble; it is asked again soon.
const NOT_YET: Duration = Duration::from_millis(10);

/// Owns the sink; runs until it is asked to stop.
pub struct Writer<S> {
    buffers: Arc<Buffers>,
    sink: S,
    pace: Pace,
    /// The batch that is being written, and how much of it is.
    current: Option<(Batch, usize)>,
    /// When to try to write again; `None` while writing works.
    retry_at: Option<Instant>,
    /// When to open the file again; `None` while there is no reason to.
    reopen_at: Option<Instant>,
    /// The trouble has been told.
    reported: bool,
}

impl<S: Sink> Writer<S> {
    pub fn new(buffers: Arc<Buffers>, sink: S, pace: Pace) -> Writer<S> {
        Writer { buffers, sink, pace, current: None, retry_at: None, reopen_at: None, reported: false }
    }

    pub fn run(mut self) {
        let mut sweep_at = Instant::now() + self.pace.flush;
        let mut stop = None;
        loop {
            // In trouble the workers' buffers may as well fill up where they are.
            let next = self.retry_at.unwrap_or(sweep_at);
            let until = [self.reopen_at, stop].into_iter().flatten().fold(next, Instant::min);
            let work = self.buffers.wait(until, self.retry_at.is_none(), stop.is_some());
            stop = work.stop;
            if let Some(batch) = work.batch {
                // A batch is wanted only after the one before it is written.
                self.current = Some((batch, 0));
            }

            let now = Instant::now();
            if work.reopen || self.reopen_at.is_some_and(|at| at <= now) {
                self.reopen(now);
            }
            if self.retry_at.is_none_or(|at| at <= now) {
                self.write(now);
            }
            if (now >= sweep_at && self.retry_at.is_none()) || stop.is_some() {
                let swept = self.buffers.sweep(stop.is_some());
                sweep_at = now + self.pace.flush;
                let complete = swept && self.current.is_none() && self.buffers.is_idle();
                if stop.is_some_and(|deadline| complete || Instant::now() >= deadline) {
                    break;
                }
            }
        }
        self.buffers.end(self.current.map(|(batch, _)| batch));
    }

    fn reopen(&mut self, now: Instant) {
        match self.sink.reopen() {
            Ok(elsewhere) => {
                self.reopen_at = None;
                // Whatever could not be written before can be tried at once.
                self.retry_at = None;
                if let (true, Some((batch, offset))) = (elsewhere, &mut self.current) {
                    // The old file ends within a line; the new one gets that line whole.
                    *offset = batch.lines[..*offset].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                }
            }
            Err(error) => {
                self.reopen_at = Some(now + self.pace.retry);
                self.failed("opened", &error);
            }
        }
    }

    /// Writes what is left of the current batch.
    fn write(&mut self, now: Instant) {
        let outcome = match &mut self.current {
            Some((batch, offset)) => write_all(&mut self.sink, &batch.lines, offset),
            None => Ok(()),
        };
        match outcome {
            Ok(()) => {
                self.retry_at = None;
                if let Some((batch, _)) = self.current.take() {
                    self.buffers.written(batch);
                    self.recovered();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.retry_at = Some(now + NOT_YET),
            Err(error) => {
                // The second time in a row the file itself may be at fault: a stale handle, a disk that was replaced.
                if self.retry_at.is_some() {
                    self.reopen_at.get_or_insert(now);
                }
                self.retry_at = Some(now + self.pace.retry);
                self.failed("written", &error);
            }
        }
    }

    /// Says so once, however long it lasts: the log must not fill the other log.
    fn failed(&mut self, what: &str, error: &io::Error) {
        self.buffers.failed();
        if !self.reported {
            self.reported = true;
            log::error!("access log: {} cannot be {what}: {error}; the attempt is repeated", self.sink.name());
        }
    }

    fn recovered(&mut self) {
        if self.reported && self.reopen_at.is_none() {
            self.reported = false;
            let dropped = self.buffers.stats().dropped;
            log::info!("access log: {} is written again; {dropped} records dropped so far", self.sink.name());
        }
    }
}

fn write_all(sink: &mut impl Sink, lines: &[u8], offset: &mut usize) -> io::Result<()> {
    while *offset < lines.len() {
        match sink.write(&lines[*offset..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => *offset += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
