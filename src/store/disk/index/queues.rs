//! The queues of the eviction policy: doubly linked lists through the entries.

use super::slots::{Entry, NONE, Slots};

/// Which of the queues an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// New entries, until they reach its old end.
    Probation,
    /// Entries that were touched while on probation, or came back soon after they had been evicted.
    Main,
    /// Entries that a walk over the directory has found and of which nothing else is known yet.
    Found,
}

/// An end of a queue.
#[derive(Clone, Copy)]
pub enum End {
    New,
    /// The one at which entries are evicted.
    Old,
}

/// All entries, each in one queue.
pub struct Queues {
    slots: Slots,
    /// By the number of the [`Queue`].
    lists: [List; 3],
    /// Where the paging stands: the queue, and the entry that comes next or [`NONE`].
    page: Option<(Queue, u32)>,
}

#[derive(Clone, Copy)]
struct List {
    newest: u32,
    oldest: u32,
    len: usize,
    units: u64,
}

impl Queues {
    pub fn new() -> Queues {
        let empty = List { newest: NONE, oldest: NONE, len: 0, units: 0 };
        Queues { slots: Slots::new(), lists: [empty; 3], page: None }
    }

    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    pub fn entry(&self, slot: u32) -> &Entry {
        &self.slots[slot]
    }

    pub fn len(&self) -> usize {
        self.lists.iter().map(|list| list.len).sum()
    }

    pub fn units(&self) -> u64 {
        self.lists.iter().map(|list| list.units).sum()
    }

    pub fn units_in(&self, queue: Queue) -> u64 {
        self.lists[queue as usize].units
    }

    pub fn oldest(&self, queue: Queue) -> Option<u32> {
        Some(self.lists[queue as usize].oldest).filter(|slot| *slot != NONE)
    }

    /// Adds an entry, whatever its links and its queue say. `None` when there is no slot left.
    pub fn add(&mut self, entry: Entry, queue: Queue, end: End) -> Option<u32> {
        let slot = self.slots.take(entry)?;
        self.link(slot, queue, end);
        Some(slot)
    }

    /// Takes an entry out for good.
    pub fn remove(&mut self, slot: u32) -> Entry {
        self.unlink(slot);
        let entry = self.slots[slot];
        self.slots.give_back(slot);
        entry
    }

    pub fn transfer(&mut self, slot: u32, queue: Queue, end: End) {
        self.unlink(slot);
        self.link(slot, queue, end);
    }

    /// Returns what they were.
    pub fn set_units(&mut self, slot: u32, units: u32) -> u32 {
        let entry = &mut self.slots[slot];
        let old = std::mem::replace(&mut entry.units, units);
        if let Some(queue) = entry.queue {
            let total = &mut self.lists[queue as usize].units;
            *total = *total - u64::from(old) + u64::from(units);
        }
        old
    }

    pub fn set_frequency(&mut self, slot: u32, frequency: u8) {
        self.slots[slot].frequency = frequency;
    }

    pub fn set_walk(&mut self, slot: u32, walk: u16) {
        self.slots[slot].walk = walk;
    }

    /// Puts the paging before the first entry.
    pub fn rewind(&mut self) {
        self.page = Some((Queue::Found, self.lists[Queue::Found as usize].newest));
    }

    /// The next entry in the order of paging: queue by queue, in each from the new end to the old. An entry that moves
    /// goes to a place behind the paging or to one still to come, so the paging ends.
    pub fn next(&mut self) -> Option<u32> {
        loop {
            let (queue, slot) = self.page?;
            if slot != NONE {
                self.page = Some((queue, self.slots[slot].older));
                return Some(slot);
            }
            // Entries move towards `Main`: in this order they are rather met twice than missed.
            let following = match queue {
                Queue::Found => Some(Queue::Probation),
                Queue::Probation => Some(Queue::Main),
                Queue::Main => None,
            };
            self.page = following.map(|queue| (queue, self.lists[queue as usize].newest));
        }
    }

    fn link(&mut self, slot: u32, queue: Queue, end: End) {
        let list = &mut self.lists[queue as usize];
        let entry = &mut self.slots[slot];
        (entry.newer, entry.older) = match end {
            End::New => (NONE, std::mem::replace(&mut list.newest, slot)),
            End::Old => (std::mem::replace(&mut list.oldest, slot), NONE),
        };
        entry.queue = Some(queue);
        list.len += 1;
        list.units += u64::from(entry.units);
        let (newer, older) = (entry.newer, entry.older);
        match end {
            End::New if older != NONE => self.slots[older].newer = slot,
            End::New => list.oldest = slot,
            End::Old if newer != NONE => self.slots[newer].older = slot,
            End::Old => list.newest = slot,
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Entry { newer, older, units, queue, .. } = self.slots[slot];
        let Some(queue) = queue else { return };
        let list = &mut self.lists[queue as usize];
        list.len -= 1;
        list.units -= u64::from(units);
        match newer {
            NONE => list.newest = older,
            newer => self.slots[newer].older = older,
        }
        match older {
            NONE => list.oldest = newer,
            older => self.slots[older].newer = newer,
        }
        if let Some((_, next)) = &mut self.page
            && *next == slot
        {
            *next = older;
        }
    }
}

#[cfg(test)]
impl Queues {
    /// Panics unless links, lengths and units agree. Returns how many entries there are.
    pub fn check(&self) -> usize {
        for queue in [Queue::Probation, Queue::Main, Queue::Found] {
            let list = self.lists[queue as usize];
            let (mut slot, mut newer, mut len, mut units) = (list.newest, NONE, 0, 0);
            while slot != NONE {
                let entry = self.slots[slot];
                assert_eq!((entry.queue, entry.newer), (Some(queue), newer));
                (newer, slot, len, units) = (slot, entry.older, len + 1, units + u64::from(entry.units));
                assert!(len <= self.slots.count(), "a ring");
            }
            assert_eq!((list.oldest, list.len, list.units), (newer, len, units));
        }
        let live = (0..self.slots.count() as u32).filter(|slot| self.slots[*slot].queue.is_some()).count();
        assert_eq!(live, self.len());
        live
    }
}
