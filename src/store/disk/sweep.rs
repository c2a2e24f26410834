//! Comparing all that is on a disk with the ledger, beside the traffic: what has been purged makes room, and what the
//! ledger has can be forgotten once everything has been compared with it.
//!
//! The keeper's thread does a slice of it in each of its rounds. What is stored meanwhile has been compared when it was.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use log::info;

use super::disk::{Disk, Phase, folder_of};
use super::finding::{Opened, Unopened};
use super::format::FIRST_READ;
use super::health::Kind;
use crate::store::key::ObjectId;
use crate::store::object::Head;

/// How long a slice may take, of each second.
const SLICE: Duration = Duration::from_millis(400);

/// Places of the index that are looked at under one lock, and before anybody else is thought of: some tenths of a second
/// on a slow disk.
const PLACES: usize = 16;

/// After the last purge of more than single URLs, so long nothing else may come for a sweep to begin.
const QUIET: Duration = Duration::from_secs(2);

/// A sweep begins so long after such a purge at the latest, and so long after the one before at the earliest.
const LATEST: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(30);

/// What single URLs take is small: until there are so many selectors, or for so long, they may wait.
const FEW: u64 = 10_000;
const LATEST_OF_URLS: Duration = Duration::from_secs(3600);

/// How far the sweeps have come.
#[derive(Default)]
pub struct Sweeps {
    under_way: Option<Sweep>,
    ended: Option<Instant>,
    /// The latest entry when that was last looked at, and since when it has been that.
    seen: Option<(u64, Instant)>,
    /// Since when there has been something to sweep for.
    waiting: Option<Instant>,
    /// How many selectors there had been when the last sweep began.
    counted: u64,
}

struct Sweep {
    /// Entries up to this one are what is compared with.
    target: u64,
    /// The state of the ledger's copy before the first object was compared.
    epoch: u64,
    /// The next place of the index.
    next: u32,
    began: Instant,
    removed: u64,
    staled: u64,
}

impl Disk {
    /// Goes on with a sweep, or begins one if it is time to. Blocks, but not for long.
    pub(super) fn sweep(self: &Arc<Disk>, sweeps: &mut Sweeps) {
        if !self.can_sweep() {
            return;
        }
        if sweeps.under_way.is_none() && sweeps.is_due(self, Instant::now()) {
            self.begin_sweep(sweeps);
        }
        let slice = Instant::now();
        while sweeps.under_way.is_some() && slice.elapsed() < SLICE {
            // Whoever reads for a client comes first.
            if self.pool.reads().queued > 0 || self.is_stopped() {
                return;
            }
            self.sweep_places(sweeps, PLACES);
        }
    }

    pub(super) fn can_sweep(&self) -> bool {
        self.phase() == Phase::Ready && self.vouching.is_sound() && self.health.may_read() && self.health.may_write()
    }

    pub(super) fn begin_sweep(&self, sweeps: &mut Sweeps) {
        self.keeper.put_back.store(false, Ordering::Relaxed);
        let (epoch, target) = (self.vouching.epoch(), self.vouching.ledger().head());
        sweeps.under_way = Some(Sweep { target, epoch, next: 0, began: Instant::now(), removed: 0, staled: 0 });
    }

    /// Goes on with the sweep by so many places of the index, or ends it where there are no more.
    pub(super) fn sweep_places(self: &Arc<Disk>, sweeps: &mut Sweeps, count: usize) {
        let Some(sweep) = &mut sweeps.under_way else { return };
        let Some((ids, next)) = self.space.lock().index.places(sweep.next, count) else {
            return self.end_sweep(sweeps);
        };
        for id in ids {
            let Err(e) = self.compare(id, sweep) else { continue };
            self.failed(Kind::Read, &e);
            if e.raw_os_error() == Some(libc::EIO) && self.health.may_read() {
                // What cannot be read is of no use, and one bad block is not to keep all else from being compared.
                self.take_out(id);
                continue;
            }
            // From the beginning, when the disk is well again.
            (sweeps.under_way, sweeps.ended) = (None, Some(Instant::now()));
            return;
        }
        sweep.next = next;
    }

    /// Compares one object with the ledger.
    fn compare(self: &Arc<Disk>, id: ObjectId, sweep: &mut Sweep) -> io::Result<()> {
        let opened = match self.open_settled(id) {
            Ok(opened) => opened,
            Err(Unopened::Missing) => return Ok(()),
            // It has not been compared: what reads otherwise the next time must not be there.
            Err(Unopened::Defect(defect, culprit)) => {
                self.remove_file(id, culprit.inode, Some(defect));
                return Ok(());
            }
            Err(Unopened::Io(e)) => return Err(e),
        };
        let head = &opened.decoded.head;
        let record = &head.record;
        let verdict = self.vouching.ledger().verdict(&record.key, &record.tags, head.since());
        match verdict.apply(record.facts, SystemTime::now().into()) {
            None => {
                sweep.removed += 1;
                self.remove_file(id, opened.stat.inode, None);
            }
            Some(facts) if facts != record.facts => {
                sweep.staled += 1;
                self.make_stale(id, opened.stat.inode, head.with_facts(facts))?;
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Opens an object's file when nobody is in the middle of giving it another head.
    fn open_settled(&self, id: ObjectId) -> Result<Opened, Unopened> {
        match self.open_head(id, FIRST_READ) {
            Err(Unopened::Defect(..)) => {
                let _alone = self.file_lock(&id);
                self.open_head(id, FIRST_READ)
            }
            opened => opened,
        }
    }

    /// Writes down that an object is stale: the ledger will not say so for ever.
    fn make_stale(self: &Arc<Disk>, id: ObjectId, inode: u64, head: Head) -> io::Result<()> {
        let head = Arc::new(head);
        // Once it has been validated or replaced, it is another.
        let written = self.freshen_blocking(id, &head, &|| true);
        if let Err(why) = written {
            self.refused(&id, why);
            self.remove_file(id, inode, None);
        }
        Ok(())
    }

    /// Waits until what has been removed is gone for good, and what is stale is so for good.
    fn sync(&self, staled: u64) -> io::Result<()> {
        if staled > 0 {
            // All at once: one by one, a disk that has to seek would take days.
            return self.io.sync_all();
        }
        for byte in 0..=255_u8 {
            if self.space.lock().has_folder(byte) {
                self.io.sync_names(&folder_of(byte))?;
            }
        }
        Ok(())
    }

    /// All has been looked at.
    fn end_sweep(self: &Arc<Disk>, sweeps: &mut Sweeps) {
        let Some(Sweep { target, epoch, began, removed, staled, .. }) = sweeps.under_way.take() else { return };
        sweeps.ended = Some(Instant::now());
        // What could not be removed is there still, and found by the next process.
        let put_back = self.keeper.put_back.swap(false, Ordering::Relaxed);
        let passed_over = self.keeper.unlisted.lock().unwrap_or_else(PoisonError::into_inner).has_passed_over();
        if put_back || passed_over || !self.later().is_empty() || self.space.lock().is_removing() {
            return;
        }
        // A crash of the machine must not bring back what has been removed: the ledger may not know of it by then.
        if let Err(e) = self.sync(staled) {
            return self.failed(Kind::Write, &e);
        }
        if !self.vouching.has_swept(target, epoch) {
            return;
        }
        if removed > 0 || staled > 0 {
            let path = self.path().display();
            info!(
                "{path}: compared with the ledger in {:?}: {removed} objects removed, {staled} stale",
                began.elapsed()
            );
        }
    }
}

impl Sweeps {
    #[cfg(test)]
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    fn is_due(&mut self, disk: &Disk, now: Instant) -> bool {
        let ((last, count), swept) = (disk.vouching.ledger().lasting(), disk.vouching.swept());
        let unsure = disk.vouching.is_unsure();
        if last <= swept && !unsure {
            (self.seen, self.waiting) = (None, None);
            return false;
        }
        let waiting = now - *self.waiting.get_or_insert(now);
        let quiet = match self.seen {
            Some((seen, since)) if seen == last => now - since,
            _ => {
                self.seen = Some((last, now));
                Duration::ZERO
            }
        };
        if self.ended.is_some_and(|ended| now - ended < PAUSE) {
            return false;
        }
        let due = match unsure || disk.vouching.ledger().is_wide_since(swept) {
            true => quiet >= QUIET || waiting >= LATEST,
            false => count - self.counted >= FEW || waiting >= LATEST_OF_URLS,
        };
        if due {
            (self.seen, self.waiting, self.counted) = (None, None, count);
        }
        due
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
