//! The access log: one line for each request, written without ever making a request wait.
//!
//! A worker formats its record into a buffer that it shares with hardly anybody. Full buffers, and every buffer a few
//! times a second, go through a bounded queue to one thread, the only one that touches the file. Where the file does
//! not keep up, records are dropped and counted, and traffic goes on.
//!
//! Lines are in the order of their requests only roughly: buffers fill side by side. Each line says its time.

mod buffers;
mod escape;
mod format;
mod record;
mod sink;
mod stamp;
mod writer;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::model;
use crate::observe::metrics::{Samples, table};
use buffers::Buffers;
pub use record::Record;
use sink::{LogFile, Sink, Stdout};
pub use stamp::rfc3339;
use writer::Writer;

/// An access log that is open, and the thread that writes it.
///
/// To be started after the process has forked for the last time: threads do not survive a fork.
#[derive(Debug)]
pub struct AccessLog {
    format: model::LogFormat,
    buffers: Arc<Buffers>,
}

/// What became of the records so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records that the file has taken.
    pub written: u64,
    /// Records given up.
    pub dropped: u64,
    /// Failed attempts to write or open the file.
    pub errors: u64,
}

/// How the log trades memory, delay and work. One value in practice; tests choose smaller ones.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// A buffer this full is handed over, in bytes.
    hand_over: usize,
    /// Most bytes that wait to be written: what a disk may stall without loss.
    queue: usize,
    /// A record waits at most about this long before it is handed over, however idle the edge is.
    flush: Duration,
    /// Between two attempts on a file that fails.
    retry: Duration,
}

const PACE: Pace =
    Pace { hand_over: 60 << 10, queue: 32 << 20, flush: Duration::from_millis(200), retry: Duration::from_secs(1) };

/// How long a log that is dropped without [`AccessLog::shutdown`] still tries to write what it holds.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl AccessLog {
    /// Opens the file (and creates it, and the directories above it, where they are missing) and starts the thread.
    ///
    /// # Errors
    /// Where the file cannot be opened or the thread not be started. Later failures are reported once in the
    /// process's log, are counted, and pass by themselves.
    pub fn start(config: &model::AccessLog) -> io::Result<AccessLog> {
        match &config.path {
            model::LogPath::Stdout => AccessLog::with(config.format, Stdout::new()?, PACE),
            model::LogPath::File(path) => AccessLog::with(config.format, LogFile::open(path.clone())?, PACE),
        }
    }

    /// Logs a request. Never waits for the file, and allocates nothing once its buffers are warm.
    pub fn log(&self, record: &Record<'_>) {
        self.buffers.append(|lines, stamp| format::append(self.format, lines, stamp, record));
    }

    /// Opens the file again by its name, for log rotation. Every line goes whole into the old file or the new one;
    /// records that are logged after this go into the new one. Where it cannot be opened the old one goes on, and
    /// the attempt is repeated.
    pub fn reopen(&self) {
        self.buffers.ask_reopen();
    }

    /// Writes all that has been logged, and ends. Records that are logged afterwards are dropped and counted.
    ///
    /// Blocks the calling thread, at most for `wait`. Returns whether nothing was lost on the way out.
    pub fn shutdown(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        self.buffers.ask_stop(deadline);
        self.buffers.wait_for_end(deadline)
    }

    pub fn stats(&self) -> Stats {
        self.buffers.stats()
    }

    /// The log's part of a scrape; see [`Metrics::register`](crate::observe::metrics::Metrics::register).
    pub fn sample(&self, out: &mut Samples) {
        let stats = self.stats();
        out.set(&table::LOG_WRITTEN, &[], stats.written as f64);
        out.set(&table::LOG_DROPPED, &[], stats.dropped as f64);
        out.set(&table::LOG_ERRORS, &[], stats.errors as f64);
    }

    fn with(format: model::LogFormat, sink: impl Sink, pace: Pace) -> io::Result<AccessLog> {
        let buffers = Arc::new(Buffers::new(pace));
        let writer = Writer::new(Arc::clone(&buffers), sink, pace);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run())?;
        Ok(AccessLog { format, buffers })
    }
}

impl Drop for AccessLog {
    /// Does not wait: the last owner may be a worker.
    fn drop(&mut self) {
        self.buffers.ask_stop(Instant::now() + LAST_WORDS);
    }
}

#[cfg(test)]
mod tests;
