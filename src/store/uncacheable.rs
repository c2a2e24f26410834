//! Which resources have lately turned out to be uncacheable.
//!
//! Whoever asks for such a one does not wait for others who ask the same: the answer could not be shared. Varnish
//! calls it hit-for-miss. A fixed table of words without a lock: two resources that fall on the same slot forget
//! each other, which costs one collapsed request.

use std::sync::atomic::{AtomicU64, Ordering};

use pingora_cache::key::HashBinary;

const SLOTS: usize = 1 << 16;

/// How long it is remembered, in seconds.
const REMEMBERED: u64 = 120;

/// The lower bits of a slot hold the second at which it expires, the others a part of the key.
const TIME_BITS: u32 = 24;

/// The table; half a MiB.
pub struct Uncacheable {
    slots: Box<[AtomicU64]>,
}

impl Default for Uncacheable {
    fn default() -> Uncacheable {
        Uncacheable { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Uncacheable {
    /// Remembers a resource from now on; `now` in seconds of any clock that only goes forward.
    pub fn mark(&self, key: &HashBinary, now: u64) {
        let (slot, tag) = self.place(key);
        slot.store(tag | ((now + REMEMBERED) & TIME_MASK), Ordering::Relaxed);
    }

    /// Forgets a resource: it has become cacheable.
    pub fn clear(&self, key: &HashBinary) {
        let (slot, tag) = self.place(key);
        if slot.load(Ordering::Relaxed) & !TIME_MASK == tag {
            slot.store(0, Ordering::Relaxed);
        }
    }

    /// Whether a resource is remembered.
    pub fn contains(&self, key: &HashBinary, now: u64) -> bool {
        let (slot, tag) = self.place(key);
        let word = slot.load(Ordering::Relaxed);
        // The difference is taken in the few bits there are: right while the process is younger than their range
        // of half a year, and for a remembered resource at worst too short after it.
        word & !TIME_MASK == tag && word != 0 && ((word & TIME_MASK).wrapping_sub(now) & TIME_MASK) <= REMEMBERED
    }

    fn place(&self, key: &HashBinary) -> (&AtomicU64, u64) {
        let high = u64::from_ne_bytes(std::array::from_fn(|i| key[i]));
        let low = u64::from_ne_bytes(std::array::from_fn(|i| key[8 + i]));
        (&self.slots[(high % SLOTS as u64) as usize], low & !TIME_MASK)
    }
}

const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_for_its_time_and_forgets() {
        let (table, a, b) = (Uncacheable::default(), [7; 16], [9; 16]);
        assert!(!table.contains(&a, 100));
        table.mark(&a, 100);
        assert!(table.contains(&a, 100) && table.contains(&a, 100 + REMEMBERED));
        assert!(!table.contains(&a, 101 + REMEMBERED) && !table.contains(&b, 100));
        table.mark(&a, 200);
        table.clear(&a);
        assert!(!table.contains(&a, 200));
    }

    #[test]
    fn keys_on_one_slot_are_told_apart() {
        let table = Uncacheable::default();
        let (mut a, mut b) = ([1; 16], [1; 16]);
        (a[15], b[15]) = (1, 2);
        table.mark(&a, 5);
        assert!(table.contains(&a, 5) && !table.contains(&b, 5));
    }
}
