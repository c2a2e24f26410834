//! Writing to the file, without the thread that does it: a group of records is placed, synced and settled.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use log::warn;

use super::ack::{Ack, Unwritten};
use super::format::{self, Base, Header, Record, SLOTS_AT};
use super::medium::{File, Medium};
use super::read::{Known, Summary, Unreadable, committed, header};
use super::replace::{Fresh, NotReplaced, Replacement};
use crate::invalidate::{Entry, Selector};

/// Records, and bytes of them, that may wait: for the thread, and for a disk that fails.
pub const MAX_WAITING: usize = 4096;
pub const MAX_WAITING_BYTES: usize = 64 << 20;

/// Bytes that go into one write, unless a single record has more.
const WRITE_BYTES: usize = 8 << 20;

pub const BEGUN_ANEW: &str = "the ledger on this disk has begun anew";
pub const TOO_LARGE: &str = "its selectors are too many or too long for the ledger";

/// How a journal begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The ledger's.
    pub id: u64,
    pub from: Begin,
    /// Another process may be writing to the file.
    pub shared: bool,
}

/// What is in the file.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    /// Nothing that is of use: whatever there is is replaced.
    New(Base),
    /// What has been read.
    Continue(Summary),
}

/// What the journal asks and tells its owner. Both are called with the journal locked: they must not call it.
pub struct Hooks {
    /// The highest sequence that an entry has been given which is to be in the file.
    pub last: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Another process has appended that. An entry may come twice.
    pub foreign: Box<dyn Fn(Entry) + Send + Sync>,
}

/// What can be seen from outside.
#[derive(Default)]
pub struct Status {
    pub behind: AtomicBool,
    pub floor: AtomicU64,
    pub length: AtomicU64,
    pub durable: AtomicU64,
    pub reserved: AtomicU64,
    pub file: RwLock<Option<Arc<dyn File>>>,
}

/// A record that is to be written, and who wants to know.
pub struct Pending {
    pub record: Record,
    pub ack: Ack,
}

/// What is to be synced, without the writer being held meanwhile.
pub struct Flush {
    pub file: Arc<dyn File>,
    /// Where what was placed ends, what is known by then, and how many records of ours are among it.
    end: u64,
    known: Known,
    count: usize,
    epoch: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Well,
    /// What was placed last may not be in the file: it waits in the backlog.
    Behind,
    /// The file is whole, but its name may not be on the disk.
    Unpublished,
    /// Something is missing for good: a file begins anew, above all of it.
    Lost,
}

pub struct Writer {
    pub(super) medium: Box<dyn Medium>,
    pub(super) hooks: Hooks,
    pub(super) status: Arc<Status>,
    pub(super) state: State,
    pub(super) header: Header,
    /// What the records up to `length` say.
    pub(super) known: Known,
    /// Where the next record goes.
    pub(super) length: u64,
    /// The same as far as it is durable.
    pub(super) synced_known: Known,
    pub(super) synced: u64,
    /// The next commit slot.
    pub(super) slot: usize,
    /// The last one may not be durable.
    slot_written: bool,
    /// What was placed and is not durable.
    pub(super) unsynced: VecDeque<Pending>,
    /// What is to be placed once the file is well; nobody waits for it any more.
    pub(super) backlog: VecDeque<Record>,
    backlog_bytes: usize,
    /// The highest sequence, and the highest reservation, that has been asked for.
    pub(super) seen: u64,
    pub(super) reserved: u64,
    /// Another process writes to the file too.
    pub(super) shared: bool,
    /// The file's lock is held for longer than a group.
    pub(super) held: bool,
    /// Rises when what was placed is not in the file any more.
    epoch: u64,
    /// What is wrong.
    pub(super) why: String,
}

impl Writer {
    /// # Errors
    /// Of the medium; `InvalidData` where the file is another than has been read, or another ledger's.
    pub fn open(medium: Box<dyn Medium>, start: Start, hooks: Hooks, status: Arc<Status>) -> io::Result<Writer> {
        let fresh = match &start.from {
            Begin::New(base) => {
                // Of two processes, the other may be making one.
                if !start.shared {
                    medium.discard()?;
                }
                let made = Replacement::begin(&*medium, start.id, *base).map(|made| made.finish(&*medium));
                match made? {
                    Ok(fresh) => fresh,
                    Err(NotReplaced::Kept(error) | NotReplaced::Unsettled(_, error)) => return Err(error),
                }
            }
            Begin::Continue(summary) => {
                let file: Arc<dyn File> = Arc::from(medium.open()?);
                let header = header(&*file).map_err(unusable)?;
                if (header.id, header.id, header.salt) != (start.id, summary.id, summary.salt) {
                    return Err(unusable(Unreadable::Corrupt("it is another ledger".to_owned())));
                }
                let base = Base { compacted: summary.compacted, reserved: summary.reserved, swept: summary.swept };
                let known = Known { begun: true, head: summary.head, base };
                Fresh { file, header, known, length: summary.length }
            }
        };
        let mut writer = Writer {
            medium,
            hooks,
            status,
            state: State::Well,
            header: fresh.header,
            known: fresh.known,
            length: fresh.length,
            synced_known: fresh.known,
            synced: fresh.length,
            slot: 0,
            slot_written: false,
            unsynced: VecDeque::new(),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            seen: 0,
            reserved: 0,
            shared: start.shared,
            held: false,
            epoch: 0,
            why: String::new(),
        };
        writer.take(fresh);
        if let Begin::Continue(summary) = start.from {
            writer.go_on(&summary)?;
        }
        Ok(writer)
    }

    /// Goes on behind what has been read. A process that was killed may have left it in the page cache alone, and after
    /// a sync that failed it may be there without being written ever: it is written again.
    fn go_on(&mut self, summary: &Summary) -> io::Result<()> {
        let file = self.file()?;
        let (_, slot) = committed(&*file, self.header.seed()).map_err(unusable)?;
        self.slot = 1 - slot;
        self.locked(|writer| {
            if !writer.shared {
                writer.cut()?;
                writer.medium.discard()?;
            }
            writer.redo(summary.committed)
        })?;
        file.sync()?;
        // Who gave it its name may have been killed before that was durable.
        self.medium.sync_folder()?;
        self.settled();
        self.commit()
    }

    /// Places records at the file's end, or, where that is impossible, lets them wait and tells so. [`Writer::flush`]
    /// makes them durable.
    pub fn place(&mut self, group: impl IntoIterator<Item = Pending>) {
        let mut group: VecDeque<Pending> = group.into_iter().collect();
        for pending in &group {
            match &pending.record {
                Record::Entry { entry, .. } => self.seen = self.seen.max(entry.sequence),
                Record::Reserve(upto) => self.reserved = self.reserved.max(*upto),
                Record::Base(_) | Record::Swept(_) => {}
            }
        }
        if self.state == State::Well {
            match self.file().and_then(|file| file.is_current()) {
                Ok(true) => {}
                Ok(false) if self.shared => {
                    self.fail("another process has begun it anew".to_owned(), []);
                    // With the lock of the one file one is not to write to the other.
                    if !self.held {
                        self.recover();
                    }
                }
                Ok(false) => return self.lose("its file is not there any more".to_owned(), group),
                Err(error) => return self.fail(error.to_string(), group),
            }
        }
        let placed = match self.state {
            State::Well => self.locked(|writer| writer.append(&mut group)),
            _ => return self.postpone(group),
        };
        if let Err(error) = placed {
            self.fail(error.to_string(), group);
        }
    }

    /// Places that the disk has been swept, unless the file has begun anew since the floor was that.
    pub fn swept(&mut self, floor: u64, pending: Pending) {
        if floor != self.status.floor.load(Ordering::Acquire) {
            return pending.ack.tell(Err(Unwritten::Refused(BEGUN_ANEW)));
        }
        self.place([pending]);
    }

    /// What is to be synced: what has been placed and, if it is `all`, the commit slot too.
    pub fn flush(&self, all: bool) -> Option<Flush> {
        if self.state != State::Well || (self.unsynced.is_empty() && !(all && self.slot_written)) {
            return None;
        }
        let (end, known, count, epoch) = (self.length, self.known, self.unsynced.len(), self.epoch);
        Some(Flush { file: self.file().ok()?, end, known, count, epoch })
    }

    /// What has become of it.
    pub fn settle(&mut self, flush: Flush, synced: io::Result<()>) {
        if flush.epoch != self.epoch {
            return;
        }
        if let Err(error) = synced {
            return self.fail(error.to_string(), []);
        }
        self.slot_written = false;
        let grown = flush.end > self.synced;
        (self.synced, self.synced_known) = (flush.end, flush.known);
        self.show();
        let committed = if grown { self.commit() } else { Ok(()) };
        for pending in self.unsynced.drain(..flush.count.min(self.unsynced.len())) {
            pending.ack.tell(Ok(()));
        }
        if let Err(error) = committed {
            self.fail(error.to_string(), []);
        }
    }

    /// Places, syncs and settles, in one.
    pub fn flush_now(&mut self, all: bool) {
        if let Some(flush) = self.flush(all) {
            let synced = flush.file.sync();
            self.settle(flush, synced);
        }
    }

    /// Writes the file anew with the selectors that are to be kept. Until it returns, nothing is appended.
    pub fn compact(&mut self, compacted: u64, keep: impl FnMut(&Entry, &Selector) -> bool, ack: Ack) {
        self.flush_now(false);
        if self.shared {
            return ack.tell(Err(Unwritten::Refused("another process writes to the ledger's file")));
        }
        if self.state != State::Well {
            return ack.tell(Err(Unwritten::Refused("the ledger's file is not well")));
        }
        match self.file().and_then(|file| file.is_current()) {
            Ok(true) => {}
            Ok(false) => {
                self.lose("its file is not there any more".to_owned(), []);
                return ack.tell(Err(Unwritten::Refused("the ledger's file is not there any more")));
            }
            Err(error) => return ack.tell(Err(Unwritten::Failed(error.to_string()))),
        }
        ack.tell(self.rewrite(compacted, keep).map_err(|error| Unwritten::Failed(error.to_string())));
    }

    /// A file with the same in the place of this one. What was placed must be durable.
    pub(super) fn rewrite(&mut self, compacted: u64, keep: impl FnMut(&Entry, &Selector) -> bool) -> io::Result<()> {
        let file = self.file()?;
        let Base { compacted: already, reserved, swept } = self.known.base;
        let base = Base { compacted: already.max(compacted), reserved: reserved.max(self.known.head), swept };
        let made = Replacement::begin(&*self.medium, self.header.id, base).and_then(|mut made| {
            made.copy(&*file, self.header.seed(), self.length, keep)?;
            Ok(made)
        });
        let error = match made.map(|made| made.finish(&*self.medium)) {
            Ok(Ok(fresh)) => {
                self.take(fresh);
                return Ok(());
            }
            Ok(Err(NotReplaced::Unsettled(fresh, error))) => {
                self.take(fresh);
                self.state = State::Unpublished;
                self.fail(error.to_string(), []);
                return Err(error);
            }
            Ok(Err(NotReplaced::Kept(error))) | Err(error) => error,
        };
        // It is removed at the next start, or replaced by the next attempt.
        let _ = self.medium.discard();
        Err(error)
    }

    /// Another process writes to the file from now on, or does so no more.
    pub fn share(&mut self, shared: bool) {
        self.shared = shared;
    }

    /// Encodes and writes. After an error, what is left in the group has not been looked at.
    pub(super) fn append(&mut self, group: &mut VecDeque<Pending>) -> io::Result<()> {
        let (file, seed) = (self.file()?, self.header.seed());
        let (mut at, mut buffer) = (self.length, Vec::new());
        while let Some(mut pending) = group.pop_front() {
            if let Record::Entry { entry, late } = &mut pending.record {
                *late = entry.sequence <= self.known.head;
            }
            let before = buffer.len();
            let taken = match pending.record.encode(seed, &mut buffer) {
                true => self.known.follow(&pending.record),
                false => Err(TOO_LARGE),
            };
            match taken {
                Ok(()) => self.unsynced.push_back(pending),
                Err(why) => {
                    buffer.truncate(before);
                    pending.ack.tell(Err(Unwritten::Refused(why)));
                }
            }
            if buffer.len() >= WRITE_BYTES || (group.is_empty() && !buffer.is_empty()) {
                let written = file.write(at, &buffer);
                if written.is_err() && self.shared {
                    // The other one need not find half of it.
                    let _ = file.truncate(self.length);
                }
                written?;
                at += buffer.len() as u64;
                buffer.clear();
            }
        }
        self.length = at;
        self.show();
        Ok(())
    }

    /// What was placed since the last sync is to be written again, and what is left of a group waits too.
    pub(super) fn fail(&mut self, why: String, group: impl IntoIterator<Item = Pending>) {
        if !self.status.behind.swap(true, Ordering::AcqRel) {
            warn!("{}: what is purged is in force, but not durable: {why}", self.medium.name());
        }
        self.why = why;
        if self.state == State::Well {
            self.state = State::Behind;
            self.set_file(None);
        }
        self.epoch += 1;
        (self.length, self.known) = (self.synced, self.synced_known);
        self.slot_written = false;
        let unsynced = std::mem::take(&mut self.unsynced);
        self.postpone(unsynced.into_iter().chain(group));
    }

    /// Lets records wait until the file is well, and tells so.
    fn postpone(&mut self, group: impl IntoIterator<Item = Pending>) {
        for Pending { record, ack } in group {
            // A file that begins anew begins above all that there has been.
            if self.state != State::Lost {
                self.backlog_bytes = self.backlog_bytes.saturating_add(record.weight());
                self.backlog.push_back(record);
            }
            ack.tell(Err(Unwritten::Failed(self.why.clone())));
        }
        if self.backlog.len() > MAX_WAITING || self.backlog_bytes > MAX_WAITING_BYTES {
            self.lose("more has come than can wait".to_owned(), []);
        }
    }

    pub(super) fn take_backlog(&mut self) -> VecDeque<Record> {
        self.backlog_bytes = 0;
        std::mem::take(&mut self.backlog)
    }

    /// States in the file how much of it is durable. While there are two processes, the last one is to do that.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        if self.shared {
            return Ok(());
        }
        let bytes = format::slot(self.synced, self.header.seed());
        let at = SLOTS_AT[self.slot & 1];
        self.file()?.write(at, &bytes)?;
        self.slot = 1 - (self.slot & 1);
        self.slot_written = true;
        Ok(())
    }

    /// All that has been placed is durable.
    pub(super) fn settled(&mut self) {
        (self.synced, self.synced_known) = (self.length, self.known);
        self.show();
    }

    /// Goes on with another file, all of which is durable.
    pub(super) fn take(&mut self, fresh: Fresh) {
        self.header = fresh.header;
        (self.known, self.length) = (fresh.known, fresh.length);
        self.slot = 0;
        self.slot_written = false;
        self.epoch += 1;
        self.set_file(Some(fresh.file));
        let Known { head, base, .. } = self.known;
        self.seen = self.seen.max(head).max(base.compacted);
        self.reserved = self.reserved.max(base.reserved);
        self.settled();
    }

    pub(super) fn file(&self) -> io::Result<Arc<dyn File>> {
        let file = self.status.file.read().unwrap_or_else(PoisonError::into_inner).clone();
        file.ok_or_else(|| io::Error::other(self.why.clone()))
    }

    pub(super) fn set_file(&self, file: Option<Arc<dyn File>>) {
        *self.status.file.write().unwrap_or_else(PoisonError::into_inner) = file;
    }

    pub(super) fn show(&self) {
        let Known { head, base, .. } = self.synced_known;
        self.status.length.store(self.length, Ordering::Release);
        // What is missing below its beginning is as good as purged.
        self.status.durable.fetch_max(head.max(base.compacted), Ordering::AcqRel);
        self.status.reserved.fetch_max(base.reserved, Ordering::AcqRel);
    }
}

pub(super) fn unusable(why: Unreadable) -> io::Error {
    match why {
        Unreadable::Io(error) => error,
        Unreadable::Missing => io::ErrorKind::NotFound.into(),
        Unreadable::Corrupt(why) => io::Error::new(io::ErrorKind::InvalidData, why),
    }
}
