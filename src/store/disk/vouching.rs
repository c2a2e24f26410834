//! A disk's copy of the ledger, and what can be vouched for by it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use log::warn;

use super::disk::{Disk, Phase};
use super::format::Decoded;
use super::health::Kind;
use super::space::units;
use crate::invalidate::journal::{Ack, Journal, Summary, Unreadable};
use crate::invalidate::{Ledger, NEVER};

/// How long a disk may take to write down that it has been compared with the ledger.
const PATIENCE: Duration = Duration::from_secs(30);

/// The ledger, as far as what is on one disk is concerned.
pub struct Vouching {
    ledger: Arc<Ledger>,
    /// The disk's own copy, once it can be written to.
    journal: ArcSwapOption<Journal>,
    /// The disk's own copy has been read, or is known not to be there.
    known: AtomicBool,
    /// No other process appends to it any more, but what one has appended could not be read.
    disowned: AtomicBool,
    /// Some of what is on the disk may be of no use at all.
    unsure: AtomicBool,
    /// All that is on the disk has been compared with the ledger up to this sequence.
    swept: AtomicU64,
    /// What began before this sequence cannot be compared any more.
    floor: AtomicU64,
}

impl Vouching {
    pub fn new(ledger: &Arc<Ledger>) -> Vouching {
        Vouching {
            ledger: ledger.clone(),
            journal: ArcSwapOption::empty(),
            known: AtomicBool::new(false),
            disowned: AtomicBool::new(false),
            unsure: AtomicBool::new(false),
            swept: AtomicU64::new(0),
            floor: AtomicU64::new(0),
        }
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Whether it is known what can be vouched for: before, nothing on the disk can be used.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// Whether what begins now could be compared after a restart: its sequence will not be given out again.
    pub fn is_sound(&self) -> bool {
        let journal = self.journal.load();
        journal.as_ref().is_some_and(|journal| {
            let is_whole = !journal.is_behind() && self.ledger.is_whole(journal);
            is_whole && journal.reserved() >= self.ledger.own_head()
        })
    }

    pub fn swept(&self) -> u64 {
        self.swept.load(Ordering::Acquire)
    }

    /// The state of the copy, to be asked before the first object is compared.
    pub fn epoch(&self) -> u64 {
        self.journal.load().as_ref().map_or(0, |journal| journal.floor())
    }

    /// All that is on the disk has been compared with the ledger up to that entry, since the copy was in that state.
    /// Whether that is written down. Blocks.
    pub fn has_swept(&self, upto: u64, epoch: u64) -> bool {
        let Some(journal) = self.journal.load_full() else { return false };
        let (told, telling) = mpsc::channel();
        journal.swept(upto, epoch, Ack::new(move |written| _ = told.send(written.is_ok())));
        let written = telling.recv_timeout(PATIENCE) == Ok(true);
        if written {
            self.unsure.store(false, Ordering::Release);
            self.swept.fetch_max(upto, Ordering::AcqRel);
        }
        written
    }

    /// Whether some of what is on the disk may be of no use, whatever has been purged: it has not been looked for yet.
    pub fn is_unsure(&self) -> bool {
        self.unsure.load(Ordering::Acquire)
    }

    /// The copy, which has been shut, is not needed any more.
    #[cfg(test)]
    pub fn close(&self) {
        self.journal.store(None);
        self.ledger.close();
    }

    fn vouches_for(&self, swept: u64) {
        let forgotten = self.ledger.forgotten();
        self.unsure.store(swept == 0 || swept < forgotten, Ordering::Release);
        self.swept.store(swept, Ordering::Release);
        // What has been forgotten since it was last compared concerns all that is older.
        self.floor.store(if swept < forgotten { forgotten } else { 0 }, Ordering::Release);
        self.known.store(true, Ordering::Release);
    }
}

impl Disk {
    /// Takes note of what there is of the ledger on the disk, and goes on with it. Blocks.
    pub(super) fn join_ledger(&self, found: Result<Summary, Unreadable>) {
        let ledger = self.vouching.ledger();
        let summary = match found {
            Err(Unreadable::Io(e)) => return self.failed(Kind::Read, &e),
            found => found.ok().filter(|summary| summary.id == ledger.id()),
        };
        self.vouching.vouches_for(summary.map_or(0, |summary| summary.swept));
        match ledger.attach(self.io.clone(), summary, self.phase() == Phase::Standby) {
            Ok(journal) => self.vouching.journal.store(Some(journal)),
            Err(e) => self.failed(Kind::Write, &e),
        }
    }

    /// Sees to what could not be done before, and to the room that the copy takes. Blocks.
    pub(super) fn keep_ledger(&self) {
        if self.vouching.disowned.load(Ordering::Acquire) {
            self.own_ledger();
        }
        if let Some(journal) = &*self.vouching.journal.load() {
            return self.space.lock().set_ledger(units(journal.length()));
        }
        if self.phase() != Phase::Away && self.health.may_read() && self.health.may_write() {
            let ledger = self.vouching.ledger();
            // Where nothing has been purged yet, and no disk was there at the start, it is this disk's.
            let found = match ledger.is_untouched() {
                true => ledger.load(&[&self.io]).pop(),
                false => Some(ledger.take_in(&self.io)),
            };
            if let Some(found) = found {
                self.join_ledger(found);
            }
        }
    }

    /// Another folder is in the place of the one before: nobody knows what what is there has been compared with.
    pub(super) fn distrust(&self) {
        if self.vouching.is_known() {
            self.vouching.vouches_for(0);
        }
    }

    /// No other process appends to the ledger any more.
    pub(super) fn own_ledger(&self) {
        let owned = self.vouching.ledger().share(false);
        self.vouching.disowned.store(owned.is_err(), Ordering::Release);
        if let Err(e) = owned {
            self.failed(Kind::Read, &e);
        }
    }

    /// Writes what waits for the copy, and closes it. Blocks.
    pub(super) fn leave_ledger(&self) {
        if let Some(journal) = &*self.vouching.journal.load() {
            journal.shut();
        }
    }

    /// All that is on the disk has been compared with the ledger up to this sequence.
    pub fn swept(&self) -> u64 {
        self.vouching.swept()
    }

    /// What began before this entry of the ledger, which is about to be forgotten, counts as purged.
    pub fn give_up_before(&self, sequence: u64) {
        if self.vouching.swept() < sequence {
            self.vouching.floor.fetch_max(sequence, Ordering::AcqRel);
            self.vouching.unsure.store(true, Ordering::Release);
            self.close_all();
            warn!("{}: what is older than the ledger's entry {sequence} is given up", self.path().display());
        }
    }

    /// Says since when a head that has been read has to be compared with the ledger. What began in another ledger's order,
    /// or before what is known here, cannot be.
    /// `swept`: what all had been compared with before it was read.
    pub(super) fn vouch(&self, Decoded { head, state }: &mut Decoded, swept: u64) {
        // Another folder may have come meanwhile.
        let (swept, floor) = (self.vouching.swept().min(swept), self.vouching.floor.load(Ordering::Acquire));
        if state.layout.ledger() != self.vouching.ledger.id() || head.record.began < floor {
            head.record.began = NEVER;
        } else {
            head.set_checked(swept);
        }
    }
}
