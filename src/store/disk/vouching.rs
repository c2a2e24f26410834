//! What a disk's copy of the ledger can vouch for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::Disk;
use super::format::Decoded;
use crate::invalidate::{Ledger, NEVER};

/// The ledger, as far as what is on one disk is concerned.
pub struct Vouching {
    ledger: Arc<Ledger>,
    /// All that is on the disk has been compared with the ledger up to this sequence.
    swept: AtomicU64,
    /// What began before this sequence cannot be compared any more.
    floor: AtomicU64,
}

impl Vouching {
    pub fn new(ledger: &Arc<Ledger>) -> Vouching {
        Vouching { ledger: ledger.clone(), swept: AtomicU64::new(0), floor: AtomicU64::new(0) }
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    pub fn swept(&self) -> u64 {
        self.swept.load(Ordering::Acquire)
    }

    /// All that is on the disk has been compared with the ledger up to that entry. Whether that is written down. Blocks.
    pub fn has_swept(&self, upto: u64) -> bool {
        self.swept.fetch_max(upto, Ordering::AcqRel);
        true
    }

    pub fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }
}

impl Disk {
    /// All that is on the disk has been compared with the ledger up to this sequence.
    pub fn swept(&self) -> u64 {
        self.vouching.swept()
    }

    /// What began before this entry of the ledger, which is about to be forgotten, counts as purged.
    pub fn give_up_before(&self, sequence: u64) {
        self.vouching.floor.fetch_max(sequence, Ordering::AcqRel);
        self.close_all();
    }

    /// Says since when a head that has been read has to be compared with the ledger. What began in another ledger's order,
    /// or before what is known here, cannot be.
    pub(super) fn vouch(&self, Decoded { head, state }: &mut Decoded) {
        let (swept, floor) = (self.vouching.swept(), self.vouching.floor());
        if state.layout.ledger() != self.vouching.ledger.id() || head.record.began < floor {
            head.record.began = NEVER;
        } else {
            head.set_checked(swept);
        }
    }
}
