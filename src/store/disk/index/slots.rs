//! Where the entries live: in chunks of a fixed size, so that growing never moves what is there.

use std::ops;

use super::queues::Queue;
use crate::store::key::ObjectId;

/// No slot: the end of a list.
pub const NONE: u32 = u32::MAX;

/// Entries in a chunk, which then is 128 KiB: little enough to be allocated under a lock.
const CHUNK: usize = 4096;

/// What the index knows of one object.
#[derive(Clone, Copy)]
pub struct Entry {
    pub id: ObjectId,
    pub units: u32,
    /// The neighbour towards the new end of its queue, or [`NONE`].
    pub newer: u32,
    /// The neighbour towards the old end, or [`NONE`]; in a free slot the next free one.
    pub older: u32,
    /// The last walk over the directory that has seen it, or during which it was inserted.
    pub walk: u16,
    pub frequency: u8,
    /// `None` only in a free slot.
    pub queue: Option<Queue>,
}

const _: () = assert!(size_of::<Entry>() == 32);

/// The entries by number. A number stays the same for as long as its entry is there. Memory is not given back: what is
/// free is used again.
pub struct Slots {
    chunks: Vec<Vec<Entry>>,
    free: u32,
}

impl Slots {
    pub fn new() -> Slots {
        Slots { chunks: Vec::new(), free: NONE }
    }

    /// A slot for an entry, or `None` when all numbers are taken: four thousand million entries.
    pub fn take(&mut self, entry: Entry) -> Option<u32> {
        if self.free != NONE {
            let slot = self.free;
            self.free = self[slot].older;
            self[slot] = entry;
            return Some(slot);
        }
        let slot = u32::try_from(self.count()).ok().filter(|slot| *slot != NONE)?;
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks.last_mut()?.push(entry);
        Some(slot)
    }

    pub fn give_back(&mut self, slot: u32) {
        let next = self.free;
        let entry = &mut self[slot];
        entry.queue = None;
        entry.older = next;
        self.free = slot;
    }

    /// How many slots there are, free ones included: their numbers are those below it.
    pub fn count(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// In bytes.
    pub fn memory(&self) -> usize {
        self.chunks.capacity() * size_of::<Vec<Entry>>() + self.chunks.len() * CHUNK * size_of::<Entry>()
    }
}

// A slot's number never comes from outside the index, so it is always in range.
impl ops::Index<u32> for Slots {
    type Output = Entry;

    fn index(&self, slot: u32) -> &Entry {
        &self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }
}

impl ops::IndexMut<u32> for Slots {
    fn index_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }
}
