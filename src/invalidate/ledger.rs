//! The ledger: all purges in one order, and what they make of what is stored.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::entry::{By, Entry};
use super::marks::{Marks, Verdict};
use super::selector::Selector;
use super::subject::Subject;
use crate::http_cache::{Tags, Timestamp};

/// A sequence that no purge comes after: what began then counts as purged.
pub const NEVER: u64 = u64::MAX;

/// Entries that are kept to be shown.
const RECENT: usize = 1000;

/// Selectors of an entry that are kept to be shown.
pub const SHOWN: usize = 20;

/// All purges. What is stored is compared with those that are later than itself.
pub struct Ledger {
    /// Which ledger this is: the sequences of another mean nothing here.
    id: AtomicU64,
    /// The sequence of the latest entry that is in force.
    head: AtomicU64,
    /// Entries up to this one may have been forgotten: what has not been compared with them since cannot be.
    forgotten: AtomicU64,
    marks: Marks,
    order: Mutex<Order>,
    counts: [AtomicU64; By::ALL.len()],
    selectors: AtomicU64,
}

/// What changes with each entry.
#[derive(Default)]
struct Order {
    recent: VecDeque<Recent>,
}

/// An entry, as far as it is shown.
#[derive(Clone, Debug)]
pub struct Recent {
    pub sequence: u64,
    pub at: Timestamp,
    pub soft: bool,
    pub by: By,
    /// The first of them, at most [`SHOWN`].
    pub selectors: Box<[Selector]>,
    /// How many there are.
    pub count: usize,
}

/// An entry that is in force.
#[must_use]
pub struct Appended {
    pub sequence: u64,
    pub at: Timestamp,
}

impl Ledger {
    /// A ledger that does not outlast the process.
    pub fn new() -> Ledger {
        Ledger {
            id: AtomicU64::new(random()),
            head: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
            marks: Marks::default(),
            order: Mutex::default(),
            counts: Default::default(),
            selectors: AtomicU64::new(0),
        }
    }

    /// A ledger that several in one test can be.
    #[cfg(test)]
    pub fn with_id(id: u64) -> Ledger {
        Ledger { id: AtomicU64::new(id), ..Ledger::new() }
    }

    /// Which ledger this is.
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Acquire)
    }

    /// The sequence of the latest entry: what begins now comes after all that it has.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// What purges later than `since` make of something with that cache key and these tags.
    pub fn verdict(&self, key: &[u8], tags: &Tags, since: u64) -> Verdict {
        if since == NEVER || since < self.forgotten.load(Ordering::Acquire) {
            return Verdict::Dead;
        }
        self.marks.verdict(Subject::new(key, tags), since)
    }

    /// Puts a purge in force.
    pub fn append(&self, selectors: Box<[Selector]>, soft: bool, by: By) -> Appended {
        self.append_after(|| (), selectors, soft, by)
    }

    /// The same, after a look at how things are just before it.
    pub fn append_after(&self, look: impl FnOnce(), selectors: Box<[Selector]>, soft: bool, by: By) -> Appended {
        let mut order = self.order();
        look();
        let (sequence, at) = (self.head() + 1, Timestamp::from(SystemTime::now()));
        let entry = Arc::new(Entry { sequence, at, soft, by, selectors });
        self.apply(&mut order, &entry);
        self.counts[by as usize - 1].fetch_add(1, Ordering::Relaxed);
        self.selectors.fetch_add(entry.selectors.len() as u64, Ordering::Relaxed);
        Appended { sequence, at }
    }

    /// The latest entries, the latest first.
    pub fn recent(&self, limit: usize) -> Vec<Recent> {
        self.order().recent.iter().rev().take(limit).cloned().collect()
    }

    /// Forgets entries up to a sequence with which all that is stored has been compared.
    pub fn forget(&self, upto: u64) {
        self.forgotten.fetch_max(upto, Ordering::AcqRel);
        self.marks.forget(upto);
    }

    /// Bytes of its longest copy on a disk.
    pub fn length(&self) -> u64 {
        0
    }

    /// Has its copies on the disks written anew without what is not needed any more, where that is worth it.
    pub fn compact(&self, _: bool) {}

    /// Whether anything but single URLs has been purged since.
    pub fn is_wide_since(&self, since: u64) -> bool {
        self.marks.is_wide_since(since)
    }

    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Entries since the process began, by where they came from.
    pub fn entries(&self, by: By) -> u64 {
        self.counts[by as usize - 1].load(Ordering::Relaxed)
    }

    /// Selectors in them.
    pub fn selectors(&self) -> u64 {
        self.selectors.load(Ordering::Relaxed)
    }

    fn apply(&self, order: &mut Order, entry: &Entry) {
        let soft = entry.soft.then_some(entry.at);
        entry.selectors.iter().for_each(|selector| self.marks.note(selector, entry.sequence, soft));
        // Last: who sees this sequence sees all its marks.
        self.head.fetch_max(entry.sequence, Ordering::AcqRel);
        if order.recent.len() == RECENT {
            order.recent.pop_front();
        }
        order.recent.push_back(Recent {
            sequence: entry.sequence,
            at: entry.at,
            soft: entry.soft,
            by: entry.by,
            selectors: entry.selectors.iter().take(SHOWN).cloned().collect(),
            count: entry.selectors.len(),
        });
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger::new()
    }
}

/// A number that no other ledger has.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((SystemTime::now(), std::process::id()))
}
