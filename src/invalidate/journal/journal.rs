//! The journal's thread, and what is given to it.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ack::{Ack, Unwritten};
use super::format::{MAX_RECORD, Record, weight};
use super::medium::{File, Medium};
use super::writer::{Hooks, MAX_WAITING, MAX_WAITING_BYTES, Pending, Start, State, Status, TOO_LARGE, Writer};
use crate::invalidate::{Entry, Selector};

/// How often a file that fails is tried again, and one that is idle is looked at.
const TICK: Duration = Duration::from_secs(1);

/// A journal that is being written. Dropping it ends its thread once what waits is written, without waiting for that;
/// see [`Journal::shut`].
pub struct Journal {
    core: Arc<Core>,
    status: Arc<Status>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Core {
    queue: Mutex<Queue>,
    /// There is something to do.
    wake: Condvar,
    /// Locked before whatever the hooks lock, and before the queue.
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    bytes: usize,
    /// Something has been placed without the thread, which is to sync it.
    placed: bool,
    closed: bool,
}

/// Whether a selector of an entry is to be kept.
type Keep = Box<dyn FnMut(&Entry, &Selector) -> bool + Send>;

enum Job {
    Write(Pending),
    Compact { compacted: u64, keep: Keep, ack: Ack },
    Swept { floor: u64, pending: Pending },
}

impl Journal {
    /// Continues what has been read, or begins a file, which is durable once this returns. Then, in either case, so is
    /// all that has been read.
    ///
    /// # Errors
    /// Of the medium or of starting a thread; `InvalidData` where the file is not the one that was read, or is another
    /// ledger's.
    pub fn open(medium: impl Medium, start: Start, hooks: Hooks) -> io::Result<Journal> {
        Journal::open_with(Box::new(medium), start, hooks, TICK)
    }

    pub(super) fn open_with(
        medium: Box<dyn Medium>,
        start: Start,
        hooks: Hooks,
        tick: Duration,
    ) -> io::Result<Journal> {
        let status = Arc::new(Status::default());
        let writer = Mutex::new(Writer::open(medium, start, hooks, status.clone())?);
        let core = Arc::new(Core { queue: Mutex::default(), wake: Condvar::new(), writer });
        let of_thread = core.clone();
        let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || of_thread.run(tick))?;
        Ok(Journal { core, status, thread: Mutex::new(Some(thread)) })
    }

    /// Whether an entry would be taken. Only other entries change that for the worse.
    #[cfg(test)]
    pub fn has_room(&self, entry: &Entry) -> bool {
        self.core.queue().has_room(weight(entry))
    }

    /// Has an entry written. The ack is told once it is durable, or at once that it is not going to be; or that it
    /// could not be written yet, and that is then tried until it can, or until the journal begins anew above it.
    pub fn append(&self, entry: Arc<Entry>, ack: Ack) {
        if weight(&entry) > MAX_RECORD {
            return ack.tell(Err(Unwritten::Refused(TOO_LARGE)));
        }
        self.give(Job::Write(Pending { record: Record::Entry { entry, late: false }, ack }));
    }

    /// Has it written that sequences up to that one may have been given out.
    pub fn reserve(&self, upto: u64, ack: Ack) {
        self.give(Job::Write(Pending { record: Record::Reserve(upto), ack }));
    }

    /// Has it written that every object on this disk has been checked against all entries up to that sequence. Refused
    /// where the journal has begun anew since [`floor`](Journal::floor) was as given, which is to be asked before the
    /// first object is checked.
    pub fn swept(&self, sequence: u64, floor: u64, ack: Ack) {
        self.give(Job::Swept { floor, pending: Pending { record: Record::Swept(sequence), ack } });
    }

    /// Has the file written anew, with the selectors alone that are to be kept, and entries without any left out; what
    /// is appended meanwhile waits for that. Entries up to `compacted` may be missing from now on (it never falls; 0
    /// where nothing is left out but what others say too). Refused while the file is shared or not well. After an error
    /// the file is as it was, and it is not tried again.
    pub fn compact(&self, compacted: u64, keep: impl FnMut(&Entry, &Selector) -> bool + Send + 'static, ack: Ack) {
        self.give(Job::Compact { compacted, keep: Box::new(keep), ack });
    }

    /// Something that is in force is not in the file, or may not be.
    pub fn is_behind(&self) -> bool {
        self.status.behind.load(Ordering::Acquire)
    }

    /// What was stored on this disk when the ledger stood below this sequence cannot be vouched for after a restart; 0:
    /// all can, as far as this process knows.
    pub fn floor(&self) -> u64 {
        self.status.floor.load(Ordering::Acquire)
    }

    /// Of the file, in bytes.
    pub fn length(&self) -> u64 {
        self.status.length.load(Ordering::Acquire)
    }

    /// The highest sequence of an entry that is durable here.
    pub fn durable(&self) -> u64 {
        self.status.durable.load(Ordering::Acquire)
    }

    /// Sequences up to this may be given out, as far as is durable here.
    pub fn reserved(&self) -> u64 {
        self.status.reserved.load(Ordering::Acquire)
    }

    /// Another process begins to write to the file, or does so no more. It is to be said in the one that was there
    /// before the other one opens the file. What is written before it returns is written without a lock.
    pub fn share(&self, shared: bool) {
        self.core.writer().share(shared);
    }

    /// Hands on what another process has appended, before it returns. True where there was something. Costs one system
    /// call where there is nothing new.
    ///
    /// # Errors
    /// Of the medium, or since the journal is not well: what the other process has appended is unknown.
    pub fn catch_up(&self) -> io::Result<bool> {
        let file = self.status.file.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(stat) = file.map(|file| file.stat()).transpose()?
            && stat.linked
            && stat.length == self.length()
        {
            return Ok(false);
        }
        let mut writer = self.core.writer();
        if !writer.file()?.stat()?.linked {
            writer.tick();
        }
        writer.catch_up()
    }

    /// Takes the file's lock, for which other processes and the journal's own thread wait, and hands on what another
    /// process has appended: no sequence is given out by anybody else until the guard goes.
    ///
    /// # Errors
    /// Of the medium, or since the journal is not well.
    pub fn exclusive(&self) -> io::Result<Exclusive<'_>> {
        let mut writer = self.core.writer();
        writer.tick();
        let file = writer.file()?;
        let mut guard = Exclusive { core: &self.core, file, writer };
        guard.file.lock()?;
        guard.writer.held = true;
        guard.writer.catch_up()?;
        match guard.file.is_current()? {
            true => Ok(guard),
            false => Err(io::Error::other("the ledger's file is being replaced")),
        }
    }

    /// Writes what waits, and ends. What comes afterwards is refused. Blocks; on a disk that hangs, for as long as it
    /// does.
    pub fn shut(&self) {
        self.core.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // If it has panicked it has told that everybody.
            let _ = thread.join();
        }
    }

    fn give(&self, job: Job) {
        let refused = {
            let mut queue = self.core.queue();
            let bytes = job.weight();
            match (queue.closed, queue.has_room(bytes)) {
                (true, _) => Some(("the ledger is shut", job)),
                (false, false) => Some(("more waits to be written than can wait", job)),
                (false, true) => {
                    queue.bytes += bytes;
                    queue.jobs.push(job);
                    None
                }
            }
        };
        match refused {
            None => self.core.wake.notify_one(),
            Some((why, job)) => job.into_ack().tell(Err(Unwritten::Refused(why))),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.core.close();
    }
}

/// The file's lock, held. The sequence of an entry is to be determined after it was taken.
pub struct Exclusive<'a> {
    core: &'a Core,
    file: Arc<dyn File>,
    writer: MutexGuard<'a, Writer>,
}

impl Exclusive<'_> {
    /// Writes an entry to the file; the ack is told once it is durable, or that it is not.
    ///
    /// # Errors
    /// It is not in the file, so that another process may give the same sequence to another entry. It is tried again
    /// as after [`Journal::append`].
    pub fn place(&mut self, entry: Arc<Entry>, ack: Ack) -> io::Result<()> {
        if weight(&entry) > MAX_RECORD {
            ack.tell(Err(Unwritten::Refused(TOO_LARGE)));
            return Err(io::Error::new(io::ErrorKind::InvalidInput, TOO_LARGE));
        }
        self.writer.place([Pending { record: Record::Entry { entry, late: false }, ack }]);
        match self.writer.state {
            State::Well => Ok(()),
            _ => Err(io::Error::other(self.writer.why.clone())),
        }
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        self.writer.held = false;
        if let Err(error) = self.file.unlock() {
            // Closing the file does it.
            self.writer.fail(error.to_string(), []);
        }
        self.core.queue().placed = true;
        self.core.wake.notify_one();
    }
}

impl Core {
    fn run(&self, tick: Duration) {
        let _closed = Closing(self);
        let mut next = Instant::now() + tick;
        loop {
            let (jobs, closed) = self.wait(next);
            self.work(jobs);
            if closed {
                let mut writer = self.writer();
                writer.recover();
                writer.flush_now(true);
                return;
            }
            if Instant::now() >= next {
                self.writer().tick();
                self.flush(true);
                next = Instant::now() + tick;
            }
        }
    }

    /// Waits for something to do, at most until that time. True where there will be no more.
    fn wait(&self, until: Instant) -> (Vec<Job>, bool) {
        let mut queue = self.queue();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if !queue.jobs.is_empty() || queue.placed || queue.closed || left.is_zero() {
                queue.bytes = 0;
                queue.placed = false;
                return (std::mem::take(&mut queue.jobs), queue.closed);
            }
            queue = self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All that has come is one group, but for compactions, which are done in their turn.
    fn work(&self, jobs: Vec<Job>) {
        let mut group = Vec::new();
        for job in jobs {
            match job {
                Job::Write(pending) => group.push(pending),
                Job::Swept { floor, pending } => {
                    // What comes before it may make the journal begin anew.
                    self.group(std::mem::take(&mut group));
                    self.writer().swept(floor, pending);
                }
                Job::Compact { compacted, keep, ack } => {
                    self.group(std::mem::take(&mut group));
                    self.writer().compact(compacted, keep, ack);
                }
            }
        }
        self.group(group);
    }

    fn group(&self, group: Vec<Pending>) {
        if !group.is_empty() {
            self.writer().place(group);
        }
        self.flush(false);
    }

    fn flush(&self, all: bool) {
        // A worker that catches up does not wait for the disk.
        let Some(flush) = self.writer().flush(all) else { return };
        let synced = flush.file.sync();
        self.writer().settle(flush, synced);
    }

    fn close(&self) {
        self.queue().closed = true;
        self.wake.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the thread ends, however it does, nobody waits for it.
struct Closing<'a>(&'a Core);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let jobs = {
            let mut queue = self.0.queue();
            queue.closed = true;
            std::mem::take(&mut queue.jobs)
        };
        drop(jobs);
        let unsynced = std::mem::take(&mut self.0.writer().unsynced);
        drop(unsynced);
    }
}

impl Queue {
    fn has_room(&self, bytes: usize) -> bool {
        self.jobs.len() < MAX_WAITING && self.bytes.saturating_add(bytes) <= MAX_WAITING_BYTES
    }
}

impl Job {
    fn weight(&self) -> usize {
        match self {
            Job::Write(pending) | Job::Swept { pending, .. } => pending.record.weight(),
            Job::Compact { .. } => 0,
        }
    }

    fn into_ack(self) -> Ack {
        match self {
            Job::Write(pending) | Job::Swept { pending, .. } => pending.ack,
            Job::Compact { ack, .. } => ack,
        }
    }
}
