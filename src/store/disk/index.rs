//! What is on one disk, in memory: the name, the size and the place in the eviction order of each object.
//!
//! The index does no I/O and knows no clock. It stands behind one lock, so each call is short: nothing grows by copying
//! what is there but one small hash table of many, and work over all entries is done in steps.
//!
//! # Eviction
//! A policy of the S3-FIFO class, bounded in units of 4 KiB. A new entry comes to the new end of *probation*. What is
//! evicted comes from the old end of probation while that holds more than a tenth of all units, else from the old end of
//! *main*. An entry that was touched is not evicted when its turn comes: from probation it moves to main, in main it
//! starts again at the new end, which uses up one touch. So a scan passes through probation and leaves main alone.
//! Fingerprints of what probation lost are kept ([`ghosts`]); what comes back soon goes to main at once.
//!
//! # After an unclean end
//! Nothing is known, and the caller walks over the directory while traffic already inserts:
//! 1. [`Index::begin_walk`];
//! 2. [`Index::walked`] for each file. A [`Walked::New`] one is counted and evictable at once, before all others and in
//!    no particular order. The caller keeps its id with the file's time of modification;
//! 3. once the walk is whole, [`Index::unwalked`] until `None`: drops the entries whose files are gone;
//! 4. [`Index::settle`] with the ids kept, *newest first*, in pieces, without the lock in between: they come to the old
//!    end of probation in that order. What has not been settled yet is evicted first, so the order is right throughout.
//!
//! A file that is evicted between the walk's look at it and the call of `walked` leaves an entry without a file. It
//! counts until its turn to be evicted, at which the caller finds that the file is gone.
//!
//! # Snapshot
//! [`Index::begin_pages`] and [`Index::page`] hand out all entries, newest first within each queue; [`Index::restore`]
//! takes them in that order, each older than all that is there. Only the ghosts are not part of it: after a restart, an
//! object evicted before comes back to probation, not to main. While it is being restored, the index knows the newest
//! entries of a queue only: ask for victims when it is done.

mod ghosts;
mod lookup;
mod queues;
mod slots;

pub use queues::Queue;

use ghosts::Ghosts;
use lookup::Lookup;
use queues::{End, Queues};
use slots::{Entry, NONE};

use crate::store::key::ObjectId;

/// The most touches that an entry is credited with.
pub const MAX_FREQUENCY: u8 = 3;

/// The most entries that one call of [`Index::victim`] spares.
pub const MAX_CHANCES: usize = 64;

/// Probation keeps one of so many units.
const PROBATION_SHARE: u64 = 10;

/// The objects on one disk.
pub struct Index {
    queues: Queues,
    lookup: Lookup,
    ghosts: Ghosts,
    /// The number of the walk that is under way or was the last.
    walk: u16,
    /// The next slot that [`Index::unwalked`] looks at, or `None` when it is through.
    sweep: Option<u32>,
}

/// What a file that the walk came upon was to the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    New,
    Known,
    /// Known with another size: the one that it had.
    Resized(u32),
}

/// An entry as a snapshot keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    pub id: ObjectId,
    /// Of 4 KiB.
    pub units: u32,
    /// Touches, at most [`MAX_FREQUENCY`].
    pub frequency: u8,
    pub queue: Queue,
}

impl Index {
    /// An empty index.
    pub fn new() -> Index {
        Index { queues: Queues::new(), lookup: Lookup::new(), ghosts: Ghosts::new(), walk: 0, sweep: None }
    }

    pub fn len(&self) -> usize {
        self.queues.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sum of all entries' units of 4 KiB.
    pub fn units(&self) -> u64 {
        self.queues.units()
    }

    /// The bytes that the index has allocated, itself included. An allocator may round them up.
    pub fn memory(&self) -> usize {
        size_of::<Index>() + self.queues.slots().memory() + self.lookup.memory() + self.ghosts.memory()
    }

    /// Adds an object of so many units of 4 KiB as the newest. If it is there already, its size is replaced and the old
    /// one returned; it keeps its touches and its queue, in which it is the newest then. (In an index of 2³² - 1 entries
    /// a new object finds no room and is left out.)
    pub fn insert(&mut self, id: ObjectId, units: u32) -> Option<u32> {
        let Some(slot) = self.find(&id) else {
            let queue = if self.ghosts.recall(lookup::hash(&id)) { Queue::Main } else { Queue::Probation };
            self.add(Saved { id, units, frequency: 0, queue }, End::New, self.walk);
            return None;
        };
        let queue = match self.queues.entry(slot).queue {
            Some(Queue::Main) => Queue::Main,
            _ => Queue::Probation,
        };
        self.queues.transfer(slot, queue, End::New);
        self.queues.set_walk(slot, self.walk);
        Some(self.queues.set_units(slot, units))
    }

    /// The units of an object.
    pub fn get(&self, id: ObjectId) -> Option<u32> {
        self.find(&id).map(|slot| self.queues.entry(slot).units)
    }

    /// Notes that an object was asked for so many times. Whether it is there.
    pub fn touch(&mut self, id: ObjectId, times: u8) -> bool {
        let Some(slot) = self.find(&id) else { return false };
        let frequency = self.queues.entry(slot).frequency.saturating_add(times);
        self.queues.set_frequency(slot, frequency.min(MAX_FREQUENCY));
        true
    }

    /// Sets the units of an object, which keeps its place. Returns what they were.
    pub fn resize(&mut self, id: ObjectId, units: u32) -> Option<u32> {
        let slot = self.find(&id)?;
        // A walk that is under way may still hold the old size.
        self.queues.set_walk(slot, self.walk);
        Some(self.queues.set_units(slot, units))
    }

    /// Forgets an object. Returns its units.
    pub fn remove(&mut self, id: ObjectId) -> Option<u32> {
        let slot = self.lookup.remove(&id, self.queues.slots())?;
        Some(self.queues.remove(slot).units)
    }

    /// Takes out the object that is to be evicted next, with its units. `None` when there is none at all.
    ///
    /// `used` is asked once for each entry whose turn it is: whether the caller knows of a use that [`Index::touch`] was
    /// not told of. It counts as one touch. When [`MAX_CHANCES`] entries have been spared, the next goes, touched or not.
    pub fn victim(&mut self, mut used: impl FnMut(ObjectId) -> bool) -> Option<(ObjectId, u32)> {
        for _ in 0..MAX_CHANCES {
            let (slot, queue) = self.candidate()?;
            let Entry { id, frequency, .. } = *self.queues.entry(slot);
            let frequency = frequency.saturating_add(u8::from(used(id))).min(MAX_FREQUENCY);
            if frequency == 0 {
                break;
            }
            let left = if queue == Queue::Main { frequency - 1 } else { 0 };
            self.queues.set_frequency(slot, left);
            self.queues.transfer(slot, Queue::Main, End::New);
        }
        let (slot, queue) = self.candidate()?;
        let id = self.queues.entry(slot).id;
        if queue != Queue::Main {
            self.ghosts.remember(lookup::hash(&id));
        }
        Some((id, self.remove(id)?))
    }

    /// Begins a walk over the directory: from now on, what is not walked, inserted or resized is [`Index::unwalked`].
    pub fn begin_walk(&mut self) {
        self.walk = self.walk.wrapping_add(1);
        self.sweep = Some(0);
    }

    /// Notes that the walk came upon a file of so many units. An entry that was inserted or resized since the walk began
    /// keeps its size, which is the newer knowledge.
    pub fn walked(&mut self, id: ObjectId, units: u32) -> Walked {
        let Some(slot) = self.find(&id) else {
            self.add(Saved { id, units, frequency: 0, queue: Queue::Found }, End::New, self.walk);
            return Walked::New;
        };
        let entry = self.queues.entry(slot);
        if entry.walk == self.walk || entry.units == units {
            self.queues.set_walk(slot, self.walk);
            return Walked::Known;
        }
        self.queues.set_walk(slot, self.walk);
        Walked::Resized(self.queues.set_units(slot, units))
    }

    /// One step after a walk that was whole: looks at `steps` places and takes out the entries there that the walk did
    /// not come upon. Returns them, or `None` when there was nothing left to look at.
    pub fn unwalked(&mut self, steps: usize) -> Option<Vec<ObjectId>> {
        let from = self.sweep?;
        let count = self.queues.slots().count();
        if from as usize >= count {
            self.sweep = None;
            return None;
        }
        // There are fewer than 2^32 slots.
        let to = (from as usize).saturating_add(steps.max(1)).min(count) as u32;
        self.sweep = Some(to);
        let missed = |slot: &u32| {
            let entry = self.queues.entry(*slot);
            entry.queue.is_some() && entry.walk != self.walk
        };
        let gone: Vec<ObjectId> = (from..to).filter(missed).map(|slot| self.queues.entry(slot).id).collect();
        for id in &gone {
            self.remove(*id);
        }
        Some(gone)
    }

    /// The objects in `count` places from this one on, and the place after them; `None` at the end. Each object keeps its
    /// place for as long as it is there.
    pub fn places(&self, from: u32, count: usize) -> Option<(Vec<ObjectId>, u32)> {
        let all = self.queues.slots().count();
        if from as usize >= all {
            return None;
        }
        // There are fewer than 2^32 slots.
        let to = (from as usize).saturating_add(count.max(1)).min(all) as u32;
        let entries = (from..to).map(|slot| self.queues.entry(slot));
        Some((entries.filter(|entry| entry.queue.is_some()).map(|entry| entry.id).collect(), to))
    }

    /// Gives the objects that a walk has found their places: each comes to the old end of probation, so the newest is to
    /// be given first. Those that have left [`Queue::Found`] by other ways are left where they are.
    pub fn settle(&mut self, newest_first: &[ObjectId]) {
        for id in newest_first {
            if let Some(slot) = self.find(id)
                && self.queues.entry(slot).queue == Some(Queue::Found)
            {
                self.queues.transfer(slot, Queue::Probation, End::Old);
            }
        }
    }

    /// Begins handing out all entries, page by page. One paging at a time: another begun ends the one before.
    pub fn begin_pages(&mut self) {
        self.queues.rewind();
    }

    /// The next `max` entries, which is at least one; none at the end. Each queue from its new end to its old.
    ///
    /// The index may change between the pages. Entries that stay where they are come once. New ones may be left out;
    /// those that [`Index::insert`] replaces or [`Index::victim`] spares may be missed or come twice. So a snapshot is
    /// known to be whole only when neither was called meanwhile.
    pub fn page(&mut self, max: usize) -> Vec<Saved> {
        let mut page = Vec::with_capacity(max.clamp(1, self.len().max(1)));
        while page.len() < max.max(1)
            && let Some(slot) = self.queues.next()
        {
            let Entry { id, units, frequency, queue, .. } = *self.queues.entry(slot);
            // Only free slots are in no queue, and those are not met.
            page.extend(queue.map(|queue| Saved { id, units, frequency, queue }));
        }
        page
    }

    /// Adds an entry of a snapshot as the oldest of its queue. One that is there already is left as it is: it is newer.
    pub fn restore(&mut self, saved: Saved) {
        if self.find(&saved.id).is_none() {
            let frequency = saved.frequency.min(MAX_FREQUENCY);
            // Hearsay: a walk that is under way has yet to confirm it.
            self.add(Saved { frequency, ..saved }, End::Old, self.walk.wrapping_sub(1));
        }
    }

    fn find(&self, id: &ObjectId) -> Option<u32> {
        self.lookup.find(id, self.queues.slots())
    }

    /// Adds an entry that is not there yet.
    fn add(&mut self, new: Saved, end: End, walk: u16) {
        let Saved { id, units, frequency, queue } = new;
        let entry = Entry { id, units, newer: NONE, older: NONE, walk, frequency, queue: None };
        if let Some(slot) = self.queues.add(entry, queue, end) {
            self.lookup.insert(slot, self.queues.slots());
            self.ghosts.fit(self.len());
        }
    }

    /// The entry whose turn it is, and its queue.
    fn candidate(&self) -> Option<(u32, Queue)> {
        let oldest = |queue| self.queues.oldest(queue).map(|slot| (slot, queue));
        let probation_is_full = self.queues.units_in(Queue::Probation) > self.units() / PROBATION_SHARE;
        let (first, second) = match probation_is_full {
            true => (Queue::Probation, Queue::Main),
            false => (Queue::Main, Queue::Probation),
        };
        oldest(Queue::Found).or_else(|| oldest(first)).or_else(|| oldest(second))
    }
}

impl Default for Index {
    fn default() -> Index {
        Index::new()
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
