//! A disk's threads: all I/O that may wait for the disk is done here, never on a worker.
//!
//! Reads and writes have threads and queues of their own, so that writes that are stuck hold up no read. A full queue
//! is an answer at once: whoever asks goes on without the disk.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::oneshot;

/// The threads of one disk, of which each starts when it is needed: none where the disk is not used. Once the pool is
/// dropped they end, after what is queued.
pub struct Pool {
    reads: Lane,
    writes: Lane,
}

/// Why a job has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// The queue is full: the job has not been and will not be done. That is load, and says nothing of the disk's
    /// health.
    Full,
    /// It has not ended in time. Whether it is done is open.
    TimedOut,
    /// It panicked, or no thread could be started for it.
    Gone,
}

impl PoolError {
    /// For a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            PoolError::Full => "full",
            PoolError::TimedOut => "timed_out",
            PoolError::Gone => "gone",
        }
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PoolError::Full => "the disk's queue is full",
            PoolError::TimedOut => "the disk does not answer in time",
            PoolError::Gone => "the disk's thread is gone",
        })
    }
}

impl std::error::Error for PoolError {}

impl From<PoolError> for io::Error {
    fn from(error: PoolError) -> io::Error {
        let kind = match error {
            PoolError::Full => io::ErrorKind::ResourceBusy,
            PoolError::TimedOut => io::ErrorKind::TimedOut,
            PoolError::Gone => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// What a kind of job has on it now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs that wait for a thread.
    pub queued: usize,
    /// Jobs that are being done.
    pub running: usize,
}

impl Pool {
    /// With at most so many threads for reads and for writes (one at least), whose names begin with that one, and so
    /// many jobs (one at least) in the queue of each.
    pub fn new(name: &str, readers: usize, writers: usize, queue: usize) -> Pool {
        Pool {
            reads: Lane::new(format!("{name}-r"), readers, queue),
            writes: Lane::new(format!("{name}-w"), writers, queue),
        }
    }

    /// Does a job that only looks. Once nobody waits for it, because the time limit has passed or the future is
    /// dropped, it is not begun any more; if it has begun it ends on its thread, and its result is dropped there.
    pub async fn read<T: Send + 'static>(
        &self,
        limit: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let (sender, receiver) = oneshot::channel();
        self.reads.submit(move || {
            if !sender.is_closed() {
                let _ = sender.send(job());
            }
        })?;
        within(limit, receiver).await
    }

    /// Does a job that changes something: from the call on, whether or not anybody waits for it.
    pub fn write<T: Send + 'static, J: FnOnce() -> T + Send + 'static>(
        &self,
        limit: Duration,
        job: J,
    ) -> impl Future<Output = Result<T, PoolError>> + Send + use<T, J> {
        let (sender, receiver) = oneshot::channel();
        let submitted = self.writes.submit(move || {
            let _ = sender.send(job());
        });
        async move {
            submitted?;
            within(limit, receiver).await
        }
    }

    /// Has a job done that nobody waits for. Never blocks; after an error it will not be done.
    pub fn try_write(&self, job: impl FnOnce() + Send + 'static) -> Result<(), PoolError> {
        self.writes.submit(job)
    }

    /// The reads at this moment.
    pub fn reads(&self) -> Load {
        self.reads.load()
    }

    /// The writes at this moment.
    pub fn writes(&self) -> Load {
        self.writes.load()
    }

    /// Its threads end.
    #[cfg(test)]
    pub fn end(&self) {
        for lane in [&self.reads, &self.writes] {
            lane.shared.ended.store(true, Ordering::Relaxed);
            for _ in 0..lane.started.load(Ordering::Relaxed) {
                let _ = lane.sender.try_send(Box::new(|| ()));
            }
        }
    }

    /// Waits, blocking, until there is no job left, at most until that time; whether it was so.
    pub fn drain(&self, deadline: Instant) -> bool {
        // Both are waited for, the writes first: they are what would be lost.
        let writes = self.writes.shared.drain(deadline);
        self.reads.shared.drain(deadline) && writes
    }
}

async fn within<T>(limit: Duration, receiver: oneshot::Receiver<T>) -> Result<T, PoolError> {
    match tokio::time::timeout(limit, receiver).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) => Err(PoolError::Gone),
        Err(_) => Err(PoolError::TimedOut),
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads of one kind of job, and their queue.
struct Lane {
    name: String,
    limit: usize,
    sender: Sender<Job>,
    /// For the threads that have yet to start.
    receiver: Receiver<Job>,
    started: AtomicUsize,
    shared: Arc<Shared>,
}

impl Lane {
    fn new(name: String, threads: usize, queue: usize) -> Lane {
        let (sender, receiver) = bounded(queue.max(1));
        Lane { name, limit: threads.max(1), sender, receiver, started: AtomicUsize::new(0), shared: Arc::default() }
    }

    fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), PoolError> {
        // Counted before it can be done; a job that is not taken is dropped, and its count with it.
        let pending = Pending::new(&self.shared);
        self.start()?;
        let job: Job = Box::new(move || pending.run(job));
        self.sender.try_send(job).map_err(|_| PoolError::Full)
    }

    /// Starts a thread if all that have been started have something to do. Threads that the process had before it
    /// became a daemon would be lost: another reason to start none ahead.
    fn start(&self) -> Result<(), PoolError> {
        let one_more = |started| {
            (started < self.limit && started < self.shared.pending.load(Ordering::Relaxed)).then_some(started + 1)
        };
        let Ok(started) = self.started.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) else {
            return Ok(());
        };
        let (receiver, shared) = (self.receiver.clone(), self.shared.clone());
        let thread = thread::Builder::new().name(format!("{}{started}", self.name));
        match thread.spawn(move || receiver.iter().take_while(|_| !shared.has_ended()).for_each(run)) {
            Ok(_) => Ok(()),
            Err(_) => {
                self.started.fetch_sub(1, Ordering::Relaxed);
                // The others will do.
                if started == 0 { Err(PoolError::Gone) } else { Ok(()) }
            }
        }
    }

    fn load(&self) -> Load {
        Load { queued: self.sender.len(), running: self.shared.running.load(Ordering::Relaxed) }
    }
}

/// A job that panics has reported itself through the process's hook; its thread goes on.
fn run(job: Job) {
    let _ = catch_unwind(AssertUnwindSafe(job));
}

/// What the threads tell of themselves.
#[derive(Default)]
struct Shared {
    /// Jobs that are queued or being done.
    pending: AtomicUsize,
    running: AtomicUsize,
    /// The threads are to end, though the pool is still there.
    #[cfg(test)]
    ended: std::sync::atomic::AtomicBool,
    /// Told when nothing is pending any more.
    idle: Condvar,
    lock: Mutex<()>,
}

impl Shared {
    #[cfg(test)]
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    #[cfg(not(test))]
    fn has_ended(&self) -> bool {
        false
    }

    fn drain(&self, deadline: Instant) -> bool {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = deadline.saturating_duration_since(Instant::now());
        let busy = |_: &mut ()| self.pending.load(Ordering::Acquire) > 0;
        let (_guard, _) = self.idle.wait_timeout_while(guard, wait, busy).unwrap_or_else(PoisonError::into_inner);
        self.pending.load(Ordering::Acquire) == 0
    }
}

/// A job as it is counted, from before it is queued until it has ended in whatever way.
struct Pending {
    shared: Arc<Shared>,
}

impl Pending {
    fn new(shared: &Arc<Shared>) -> Pending {
        shared.pending.fetch_add(1, Ordering::Relaxed);
        Pending { shared: shared.clone() }
    }

    fn run(self, job: impl FnOnce()) {
        let _running = Running::new(&self.shared);
        job();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.shared.pending.fetch_sub(1, Ordering::Release) == 1 {
            // Whoever drains looks with the lock held: without it he could miss this between looking and waiting.
            drop(self.shared.lock.lock());
            self.shared.idle.notify_all();
        }
    }
}

/// A job that is being done.
struct Running<'a>(&'a Shared);

impl Running<'_> {
    fn new(shared: &Shared) -> Running<'_> {
        shared.running.fetch_add(1, Ordering::Relaxed);
        Running(shared)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
