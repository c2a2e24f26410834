//! The way from the workers to the writer: a buffer for every few threads, and a bounded queue of full ones.
//!
//! Locks are taken in the order shard, queue. None is held while a file is touched.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use super::stamp::Stamp;
use super::{Pace, Stats};
use crate::observe::metrics::{Counter, shard_count, thread_number};

/// Empty buffers kept for the next use. After a burst the others are freed.
const SPARES: usize = 64;

/// Everything that workers and writer share.
#[derive(Debug)]
pub struct Buffers {
    pace: Pace,
    shards: Box<[Apart]>,
    queue: Mutex<Queue>,
    /// The writer has something to do.
    work: Condvar,
    /// The writer has ended.
    ended: Condvar,
    written: Counter,
    dropped: Counter,
    errors: Counter,
}

/// Lines that travel together, the last one whole.
#[derive(Debug, Default)]
pub struct Batch {
    pub lines: Vec<u8>,
    pub records: u64,
}

/// What the writer woke up for; nothing of it when only the time came.
#[derive(Debug, Default)]
pub struct Work {
    pub batch: Option<Batch>,
    pub reopen: bool,
    /// Until when to write what is left.
    pub stop: Option<Instant>,
}

/// On lines of its own, so that threads with different shards do not slow each other down.
#[derive(Debug)]
#[repr(align(128))]
struct Apart(Mutex<Shard>);

#[derive(Debug)]
struct Shard {
    batch: Batch,
    stamp: Stamp,
    /// The writer will not come again.
    closed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    full: VecDeque<Batch>,
    /// The capacity of the batches in `full` and of the one that is being written. Not their length: small batches
    /// hold as much memory as large ones.
    bytes: usize,
    spare: Vec<Vec<u8>>,
    reopen: bool,
    stop: Option<Instant>,
    /// `Some` once the writer has ended: whether it wrote everything.
    end: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    Drop,
    Keep,
}

/// For the workers.
impl Buffers {
    pub fn new(pace: Pace) -> Buffers {
        let shard = || {
            let batch = Batch { lines: Vec::with_capacity(capacity(pace)), records: 0 };
            Apart(Mutex::new(Shard { batch, stamp: Stamp::new(), closed: false }))
        };
        Buffers {
            pace,
            shards: (0..shard_count()).map(|_| shard()).collect(),
            queue: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            written: Counter::default(),
            dropped: Counter::default(),
            errors: Counter::default(),
        }
    }

    /// Lets `format` append one line to the calling thread's buffer.
    pub fn append(&self, format: impl FnOnce(&mut Vec<u8>, &mut Stamp)) {
        let mut shard = self.shard();
        if shard.closed {
            self.dropped.add(1);
            return;
        }
        let Shard { batch, stamp, .. } = &mut *shard;
        format(&mut batch.lines, stamp);
        batch.records += 1;
        if batch.lines.len() >= self.pace.hand_over {
            self.hand_over(batch, WhenFull::Drop);
        }
    }

    pub fn ask_reopen(&self) {
        lock(&self.queue).reopen = true;
        self.work.notify_one();
    }

    /// The earliest deadline counts.
    pub fn ask_stop(&self, deadline: Instant) {
        let mut queue = lock(&self.queue);
        queue.stop = Some(queue.stop.map_or(deadline, |earlier| earlier.min(deadline)));
        self.work.notify_one();
    }

    /// Whether the writer ended by then and had written everything.
    pub fn wait_for_end(&self, deadline: Instant) -> bool {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(complete) = queue.end {
                return complete;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.ended.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub fn stats(&self) -> Stats {
        Stats { written: self.written.value(), dropped: self.dropped.value(), errors: self.errors.value() }
    }

    /// The calling thread's shard, or another one that is free: two threads may have the same, and the writer looks
    /// in from time to time. Waits only where all are taken.
    fn shard(&self) -> MutexGuard<'_, Shard> {
        let first = thread_number();
        let mask = self.shards.len() - 1; // the length is a power of two
        for step in 0..self.shards.len() {
            match self.shards[(first + step) & mask].0.try_lock() {
                Ok(shard) => return shard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        lock(&self.shards[first & mask].0)
    }

    /// Moves a batch to the queue. Returns whether it is empty now.
    fn hand_over(&self, batch: &mut Batch, when_full: WhenFull) -> bool {
        let mut queue = lock(&self.queue);
        // A batch that is larger than the whole queue by itself still has its turn when nothing else waits.
        if queue.bytes > 0 && queue.bytes + batch.lines.capacity() > self.pace.queue {
            drop(queue);
            if when_full == WhenFull::Keep {
                return false;
            }
            self.dropped.add(batch.records);
            batch.lines.clear();
            batch.records = 0;
            return true;
        }
        let spare = queue.spare.pop();
        let lines = spare.unwrap_or_else(|| Vec::with_capacity(capacity(self.pace)));
        let full = std::mem::replace(batch, Batch { lines, records: 0 });
        queue.bytes += full.lines.capacity();
        queue.full.push_back(full);
        drop(queue);
        self.work.notify_one();
        true
    }
}

/// For the writer.
impl Buffers {
    /// Waits until there is work, at most until `until`. A batch counts as work if the writer `wants` one; a request
    /// to stop, unless it already `stops`.
    pub fn wait(&self, until: Instant, wants: bool, stops: bool) -> Work {
        let mut queue = lock(&self.queue);
        loop {
            let mut work = Work { reopen: std::mem::take(&mut queue.reopen), stop: queue.stop, batch: None };
            // The file is opened again before anything else is written: what was logged later goes to the new one.
            if wants && !work.reopen {
                work.batch = queue.full.pop_front();
            }
            let left = until.saturating_duration_since(Instant::now());
            if work.reopen || work.batch.is_some() || (work.stop.is_some() && !stops) || left.is_zero() {
                return work;
            }
            queue = self.work.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Moves what the shards hold to the queue, as far as there is room. With `close`, they take nothing more.
    /// Returns whether all are empty.
    pub fn sweep(&self, close: bool) -> bool {
        self.shards.iter().fold(true, |empty, shard| {
            let mut shard = lock(&shard.0);
            shard.closed |= close;
            let moved = shard.batch.records == 0 || self.hand_over(&mut shard.batch, WhenFull::Keep);
            empty && moved
        })
    }

    /// A batch is in the file.
    pub fn written(&self, mut batch: Batch) {
        self.written.add(batch.records);
        let mut queue = lock(&self.queue);
        queue.bytes -= batch.lines.capacity();
        // A line may be longer than any buffer: such a one is not kept.
        if queue.spare.len() < SPARES && batch.lines.capacity() <= capacity(self.pace) {
            batch.lines.clear();
            queue.spare.push(batch.lines);
        }
    }

    /// An attempt to write or open failed.
    pub fn failed(&self) {
        self.errors.add(1);
    }

    pub fn is_idle(&self) -> bool {
        lock(&self.queue).full.is_empty()
    }

    /// The writer ends; `left` is what it was writing. Whatever has not been written is dropped.
    pub fn end(&self, left: Option<Batch>) {
        let mut lost = left.map_or(0, |batch| batch.records);
        for shard in &self.shards {
            let mut shard = lock(&shard.0);
            shard.closed = true;
            lost += std::mem::take(&mut shard.batch).records;
        }
        let mut queue = lock(&self.queue);
        lost += queue.full.drain(..).map(|batch| batch.records).sum::<u64>();
        queue.spare = Vec::new();
        self.dropped.add(lost);
        queue.end = Some(lost == 0);
        self.ended.notify_all();
    }
}

/// A buffer's size: room for the line that makes it full.
fn capacity(pace: Pace) -> usize {
    pace.hand_over + (4 << 10)
}

/// A thread that panicked while it held the lock left at worst a line that is cut short.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
