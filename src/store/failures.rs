//! When the origin last failed for a resource: whoever was waiting for that answer has it, rather than asking again one
//! after the other.
//!
//! A fixed table of words without a lock, like that of the uncacheable: two resources that fall on the same slot forget
//! each other, which costs one request to the origin.

use std::sync::atomic::{AtomicU64, Ordering};

use pingora_cache::key::HashBinary;

const SLOTS: usize = if cfg!(test) { 1 << 6 } else { 1 << 12 };

/// A slot holds a part of the key and the millisecond of the failure, of which 40 bits last for 34 years.
const TIME_MASK: u64 = (1 << 40) - 1;

/// The table; 32 KiB.
pub struct Failures {
    slots: Box<[AtomicU64]>,
}

impl Default for Failures {
    fn default() -> Failures {
        Failures { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Failures {
    /// Remembers a failure; `now` in milliseconds since the process began.
    pub fn mark(&self, key: &HashBinary, now: u64) {
        let (slot, tag) = self.place(key);
        slot.store(tag | (now & TIME_MASK), Ordering::Relaxed);
    }

    /// Whether the origin has failed after that time.
    pub fn since(&self, key: &HashBinary, time: u64) -> bool {
        let (slot, tag) = self.place(key);
        let word = slot.load(Ordering::Relaxed);
        word != 0 && word & !TIME_MASK == tag && word & TIME_MASK > time & TIME_MASK
    }

    fn place(&self, key: &HashBinary) -> (&AtomicU64, u64) {
        let high = u64::from_ne_bytes(std::array::from_fn(|i| key[i]));
        let low = u64::from_ne_bytes(std::array::from_fn(|i| key[8 + i]));
        (&self.slots[(high % SLOTS as u64) as usize], low & !TIME_MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_for_those_who_asked_before_it() {
        let failures = Failures::default();
        let (a, b) = ([1; 16], [2; 16]);
        assert!(!failures.since(&a, 0));
        failures.mark(&a, 500);
        assert!(failures.since(&a, 400) && failures.since(&a, 499));
        assert!(!failures.since(&a, 500) && !failures.since(&b, 400));
    }

    #[test]
    fn of_two_on_one_slot_the_later_counts() {
        let failures = Failures::default();
        let (mut a, mut b) = ([0; 16], [0; 16]);
        (a[15], b[15]) = (1, 2);
        failures.mark(&a, 5);
        failures.mark(&b, 6);
        assert!(failures.since(&b, 5) && !failures.since(&a, 0));
    }
}
