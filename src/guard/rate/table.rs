//! Debts by key, in memory that is bounded whatever the number of keys.
//!
//! A debt is a moment: when the key will have paid for all that it has had (the theoretical arrival time of the generic
//! cell rate algorithm). A moment that has passed is no debt, and the same as having no entry.
//!
//! **Where the memory ends.** The table is a set of small sets; a key's hash, which is made with a secret, says which one is
//! its own. A new key takes the place of an entry whose debt is over. Where each of the others is in debt, the entry with the
//! least debt goes, and the set's *floor* rises to what has gone. Until the floor has passed, who is not in the set is taken
//! to owe what the floor says, or what it would owe with its bucket empty if that is less. Two things follow.
//!
//! - *Nobody gets rid of a debt by being evicted.* What a key that has gone owes is at most the floor, since the floor rose
//!   to it and only ever rises, and at most its empty bucket. So it comes back with no less than it had: what is allowed with
//!   evictions is never more than what would be allowed without. An attacker with any number of addresses gains nothing.
//! - *Nobody is locked out.* A stranger owes at most an empty bucket, which another key's slower limit cannot exceed. The
//!   floor rises only by what goes, which is the least of its set, and only where a request was let through for it: requests
//!   that are refused change nothing. So a set that is full lets through as many requests as its entries' own limits do
//!   together, for whoever comes; and when the flood ends, the last stranger's debt does so an empty bucket later.
//!
//! A floor needs a set full of keys that are in debt at one time, not of keys: the keys of a flood that is within a limit of
//! 10 a second are free again after 100 ms.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Entries of a set. With the floor, they fill four cache lines.
const WAYS: usize = 15;

/// Sets under one lock, which are allocated together, when the first of them is used: a page.
const SETS: usize = 16;

/// Bytes of a full table.
pub const CAPACITY: usize = 32 * 1024 * 1024;

/// A point in time: whole nanoseconds, and a fraction of one as a numerator. Its denominator is the number of requests of
/// the limit that the entry belongs to, so that the time for one request is exact at any rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub ns: u64,
    pub part: u32,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    groups: Box<[Mutex<Group>]>,
    evicted: AtomicU64,
    allocated: AtomicUsize,
}

type Group = Option<Box<[Set; SETS]>>;

#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set {
    /// In nanoseconds: what the evicted owe at most.
    floor: u64,
    entries: [Entry; WAYS],
}

/// What a key owes. Zeroes are an entry that was never used: its debt was over before anything began.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    ns: u64,
    part: u32,
    /// What tells the key from others of its set: with the number of the set, 49 bits of its hash. That two keys share an
    /// entry, and so a limit, is a matter of chance, and of none worth having: a thousandth of a millionth for each new key.
    mark: u32,
}

impl Table {
    /// A table of this many bytes at most, rounded up to a power of two of pages. None are taken before they are used.
    pub fn new(bytes: usize) -> Table {
        let groups = (bytes / size_of::<[Set; SETS]>()).max(1).next_power_of_two();
        Table {
            groups: (0..groups).map(|_| Mutex::default()).collect(),
            evicted: AtomicU64::new(0),
            allocated: AtomicUsize::new(0),
        }
    }

    /// Bytes that are in use.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.groups) + self.allocated.load(Ordering::Relaxed) * size_of::<[Set; SETS]>()
    }

    /// How many entries that were in debt have made room for others.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Lets `charge` see what a key owes, and notes what it owes from then on; `None` changes nothing.
    ///
    /// `now` is in nanoseconds. `empty` is what a key with an empty bucket owes: the most that is assumed of a stranger.
    pub fn charge<T>(
        &self,
        hash: u64,
        now: u64,
        empty: Moment,
        charge: impl FnOnce(Moment) -> (Option<Moment>, T),
    ) -> T {
        let mut group = lock(self.group(hash));
        let group = group.get_or_insert_with(|| {
            self.allocated.fetch_add(1, Ordering::Relaxed);
            Box::default()
        });
        let (set, mark) = (set(group, hash), hash as u32);
        if let Some(entry) = set.entries.iter_mut().find(|entry| entry.mark == mark) {
            let (owes, said) = charge(entry.owes());
            if let Some(owes) = owes {
                entry.set(owes);
            }
            return said;
        }
        let stranger = if set.floor > now { Moment { ns: set.floor, part: 0 }.min(empty) } else { Moment::default() };
        let (owes, said) = charge(stranger);
        if let Some(owes) = owes
            && let Some(least) = set.entries.iter_mut().min_by_key(|entry| entry.owes())
        {
            if least.owes() > (Moment { ns: now, part: 0 }) {
                // Rounded up: what a part is of goes with the entry.
                set.floor = set.floor.max(least.ns.saturating_add(u64::from(least.part > 0)));
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
            *least = Entry { ns: owes.ns, part: owes.part, mark };
        }
        said
    }

    /// Lets `change` see what a key owes, if it has an entry, and notes what it makes of that.
    pub fn change(&self, hash: u64, change: impl FnOnce(Moment) -> Moment) {
        let mut group = lock(self.group(hash));
        let Some(group) = &mut *group else { return };
        let mark = hash as u32;
        if let Some(entry) = set(group, hash).entries.iter_mut().find(|entry| entry.mark == mark) {
            entry.set(change(entry.owes()));
        }
    }

    /// By bits 36 and up. The number of groups is a power of two.
    fn group(&self, hash: u64) -> &Mutex<Group> {
        &self.groups[(hash >> 36) as usize & (self.groups.len() - 1)]
    }
}

impl Entry {
    fn owes(&self) -> Moment {
        Moment { ns: self.ns, part: self.part }
    }

    fn set(&mut self, owes: Moment) {
        (self.ns, self.part) = (owes.ns, owes.part);
    }
}

/// By bits 32 to 35; those below are the mark.
fn set(group: &mut [Set; SETS], hash: u64) -> &mut Set {
    &mut group[(hash >> 32) as usize % SETS]
}

/// A thread that panicked while it held the lock left nothing half done that matters: one debt, of one key.
fn lock(group: &Mutex<Group>) -> MutexGuard<'_, Group> {
    group.lock().unwrap_or_else(PoisonError::into_inner)
}
