//! Which resources have lately turned out to be uncacheable.
//!
//! Whoever asks for such a one does not wait for others who ask the same: the answer could not be shared. Varnish calls
//! it hit-for-miss. Where it has been so several times, the next requests are not even offered to the cache for a
//! while, which spares them its machinery.
//!
//! A fixed table of words without a lock: two resources that fall on the same slot forget each other, which costs one
//! collapsed request.

use std::sync::atomic::{AtomicU64, Ordering};

use pingora_cache::key::HashBinary;

const SLOTS: usize = if cfg!(test) { 1 << 8 } else { 1 << 16 };

/// How long it is remembered, in seconds.
const REMEMBERED: u64 = 120;

/// So many times in a row make it a habit.
const HABIT: u64 = 3;

/// How long a habit is taken for granted, in seconds: then one request is offered to the cache again.
const GRANTED: u64 = 2;

/// A slot holds a part of the key, how often in a row (2 bits), and the second of the last time (22 bits: the clock
/// starts with the process and goes round after 48 days, where the worst is that a mark is taken for a fresh one).
const COUNT_SHIFT: u32 = 22;
const TIME_MASK: u64 = (1 << COUNT_SHIFT) - 1;
const TAG_MASK: u64 = !((1 << (COUNT_SHIFT + 2)) - 1);

/// The table; half a MiB.
pub struct Uncacheable {
    slots: Box<[AtomicU64]>,
}

/// What to expect of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// That its answer can be shared.
    Cacheable,
    /// That it cannot: waiting for another request is in vain.
    Uncacheable,
    /// That it cannot, as always: the cache has nothing to do with it.
    Never,
}

impl Default for Uncacheable {
    fn default() -> Uncacheable {
        Uncacheable { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Uncacheable {
    /// Remembers that an answer could not be shared; `now` in seconds since the process began.
    pub fn mark(&self, key: &HashBinary, now: u64) {
        let (slot, tag) = self.place(key);
        let count = match slot.load(Ordering::Relaxed) {
            word if word & TAG_MASK == tag && age(word, now) <= REMEMBERED => count(word),
            _ => 0,
        };
        let word = tag | ((count + 1).min(HABIT) << COUNT_SHIFT) | (now & TIME_MASK);
        slot.store(word, Ordering::Relaxed);
    }

    /// Forgets a resource: it has become cacheable.
    pub fn clear(&self, key: &HashBinary) {
        let (slot, tag) = self.place(key);
        if slot.load(Ordering::Relaxed) & TAG_MASK == tag {
            slot.store(0, Ordering::Relaxed);
        }
    }

    /// What is remembered of a resource.
    pub fn expect(&self, key: &HashBinary, now: u64) -> Expect {
        let (slot, tag) = self.place(key);
        match slot.load(Ordering::Relaxed) {
            word if word & TAG_MASK != tag || count(word) == 0 || age(word, now) > REMEMBERED => Expect::Cacheable,
            word if count(word) >= HABIT && age(word, now) <= GRANTED => Expect::Never,
            _ => Expect::Uncacheable,
        }
    }

    fn place(&self, key: &HashBinary) -> (&AtomicU64, u64) {
        let high = u64::from_ne_bytes(std::array::from_fn(|i| key[i]));
        let low = u64::from_ne_bytes(std::array::from_fn(|i| key[8 + i]));
        (&self.slots[(high % SLOTS as u64) as usize], low & TAG_MASK)
    }
}

fn count(word: u64) -> u64 {
    (word & !TAG_MASK) >> COUNT_SHIFT
}

fn age(word: u64, now: u64) -> u64 {
    now.wrapping_sub(word & TIME_MASK) & TIME_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_for_its_time_and_forgets() {
        let (table, a, b) = (Uncacheable::default(), [7; 16], [9; 16]);
        assert_eq!(table.expect(&a, 100), Expect::Cacheable);
        table.mark(&a, 100);
        assert_eq!(table.expect(&a, 100), Expect::Uncacheable);
        assert_eq!(table.expect(&a, 100 + REMEMBERED), Expect::Uncacheable);
        assert_eq!(table.expect(&a, 101 + REMEMBERED), Expect::Cacheable);
        assert_eq!(table.expect(&b, 100), Expect::Cacheable);
        table.clear(&a);
        assert_eq!(table.expect(&a, 100), Expect::Cacheable);
    }

    #[test]
    fn a_habit_is_granted_for_a_moment_only() {
        let (table, a) = (Uncacheable::default(), [7; 16]);
        for now in [10, 11, 12] {
            assert_ne!(table.expect(&a, now), Expect::Never);
            table.mark(&a, now);
        }
        assert_eq!(table.expect(&a, 12 + GRANTED), Expect::Never);
        assert_eq!(table.expect(&a, 13 + GRANTED), Expect::Uncacheable);
        table.mark(&a, 13 + GRANTED);
        assert_eq!(table.expect(&a, 13 + GRANTED), Expect::Never, "once more confirms it");
        table.clear(&a);
        assert_eq!(table.expect(&a, 13 + GRANTED), Expect::Cacheable);
    }

    #[test]
    fn keys_on_one_slot_are_told_apart() {
        let table = Uncacheable::default();
        let (mut a, mut b) = ([1; 16], [1; 16]);
        (a[15], b[15]) = (1, 2);
        table.mark(&a, 5);
        assert_eq!((table.expect(&a, 5), table.expect(&b, 5)), (Expect::Uncacheable, Expect::Cacheable));
    }
}
