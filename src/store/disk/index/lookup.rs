//! From an object's name to its slot.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::slots::Slots;
use crate::store::key::{AlreadyHashed, ObjectId};

/// Tables over which the entries are spread. Each grows by itself: at a million objects 250 entries are placed anew at
/// once, not a million.
const SHARDS: usize = 4096;

/// Which bits of the hash choose the shard. The tables use the lowest and the highest seven.
const SHARD_SHIFT: u32 = 40;

/// Hash tables of slot numbers. The names are in the slots.
pub struct Lookup {
    shards: Box<[HashTable<u32>]>,
    /// Bytes allocated by the shards.
    allocated: usize,
}

impl Lookup {
    pub fn new() -> Lookup {
        Lookup { shards: std::iter::repeat_with(HashTable::new).take(SHARDS).collect(), allocated: 0 }
    }

    pub fn find(&self, id: &ObjectId, slots: &Slots) -> Option<u32> {
        let hash = hash(id);
        self.shards[shard(hash)].find(hash, |slot| slots[*slot].id == *id).copied()
    }

    /// Adds a slot whose name is not there yet.
    pub fn insert(&mut self, slot: u32, slots: &Slots) {
        let hash = hash(&slots[slot].id);
        let table = &mut self.shards[shard(hash)];
        let before = table.allocation_size();
        table.insert_unique(hash, slot, |slot| self::hash(&slots[*slot].id));
        self.allocated = self.allocated - before + table.allocation_size();
    }

    pub fn remove(&mut self, id: &ObjectId, slots: &Slots) -> Option<u32> {
        let hash = hash(id);
        let found = self.shards[shard(hash)].find_entry(hash, |slot| slots[*slot].id == *id).ok()?;
        Some(found.remove().0)
    }

    /// In bytes.
    pub fn memory(&self) -> usize {
        self.shards.len() * size_of::<HashTable<u32>>() + self.allocated
    }
}

/// A name's 64 bits of hash.
pub fn hash(id: &ObjectId) -> u64 {
    AlreadyHashed::default().hash_one(id)
}

/// Always in range.
fn shard(hash: u64) -> usize {
    (hash >> SHARD_SHIFT) as usize % SHARDS
}

#[cfg(test)]
impl Lookup {
    pub fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }

    /// What `memory` keeps count of, counted.
    pub fn allocated(&self) -> usize {
        assert_eq!(self.allocated, self.shards.iter().map(HashTable::allocation_size).sum::<usize>());
        self.allocated
    }
}
