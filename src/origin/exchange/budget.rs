//! How many requests may be tried again.
//!
//! Where an origin fails, each request that is tried again is one more for servers that have enough to do: without a
//! bound, an outage is multiplied. Retries are a share of the requests, counted over the last ten seconds, and a few each
//! second that an origin with little traffic may always have.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::config::model::Retry;

/// Seconds that are looked at, the current one included.
const WINDOW: u64 = 10;

/// A second's word: its number (24 bits), the requests that began in it and the retries (20 bits each, saturating).
const COUNT_BITS: u32 = 20;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const SECOND_BITS: u32 = 24;

/// The budget of one origin, without a lock.
#[derive(Debug)]
pub(in crate::origin) struct Budget {
    began: Instant,
    /// By second, in turn.
    seconds: [AtomicU64; WINDOW as usize],
    /// Percent of the requests.
    share: u64,
    /// Retries a second.
    floor: u64,
}

impl Budget {
    pub(in crate::origin) fn new(retry: &Retry) -> Budget {
        Budget {
            began: Instant::now(),
            seconds: [const { AtomicU64::new(0) }; WINDOW as usize],
            share: u64::from(retry.budget),
            floor: u64::from(retry.budget_floor),
        }
    }

    /// A request begins.
    pub(in crate::origin) fn request(&self, now: Instant) {
        self.count(self.second(now), |(requests, retries)| (requests + 1, retries));
    }

    /// Whether a request may be tried again, which then counts.
    pub(in crate::origin) fn retry(&self, now: Instant) -> bool {
        let second = self.second(now);
        if self.left_at(second) == 0 {
            return false;
        }
        // Two at once may both find the last one: the bound is exceeded by no more than there are threads.
        self.count(second, |(requests, retries)| (requests, retries + 1));
        true
    }

    /// Retries that may be made now.
    pub(in crate::origin) fn left(&self, now: Instant) -> u64 {
        self.left_at(self.second(now))
    }

    fn left_at(&self, second: u64) -> u64 {
        let (mut requests, mut retries) = (0, 0);
        for slot in &self.seconds {
            let word = Word::of(slot.load(Ordering::Relaxed));
            if word.age(second) < WINDOW {
                requests += word.requests;
                retries += word.retries;
            }
        }
        (requests * self.share / 100 + self.floor * WINDOW).saturating_sub(retries)
    }

    fn count(&self, second: u64, add: impl Fn((u64, u64)) -> (u64, u64)) {
        let slot = &self.seconds[(second % WINDOW) as usize];
        let counted = |word: u64| {
            let word = Word::of(word);
            // What is left of ten seconds ago makes room.
            let before = if word.age(second) == 0 { (word.requests, word.retries) } else { (0, 0) };
            let (requests, retries) = add(before);
            Some(Word { second, requests: requests.min(COUNT_MAX), retries: retries.min(COUNT_MAX) }.pack())
        };
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }

    /// From 1, so that an empty slot is of no second that is looked at.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() + WINDOW
    }
}

struct Word {
    second: u64,
    requests: u64,
    retries: u64,
}

impl Word {
    fn of(word: u64) -> Word {
        Word { second: word >> (2 * COUNT_BITS), requests: word >> COUNT_BITS & COUNT_MAX, retries: word & COUNT_MAX }
    }

    fn pack(&self) -> u64 {
        let second = self.second & ((1 << SECOND_BITS) - 1);
        second << (2 * COUNT_BITS) | self.requests << COUNT_BITS | self.retries
    }

    /// Seconds from this one to `now`; the numbers go round after half a year.
    fn age(&self, now: u64) -> u64 {
        now.wrapping_sub(self.second) & ((1 << SECOND_BITS) - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn budget(share: u32, floor: u32) -> Budget {
        Budget::new(&Retry { budget: share, budget_floor: floor, ..Retry::usual() })
    }

    #[test]
    fn retries_are_a_share_of_the_requests() {
        let (budget, now) = (budget(20, 0), Instant::now());
        assert!(!budget.retry(now), "nothing has been asked yet");
        (0..100).for_each(|_| budget.request(now));
        assert_eq!(budget.left(now), 20);
        assert_eq!((0..100).filter(|_| budget.retry(now)).count(), 20);
        assert_eq!(budget.left(now), 0);
    }

    #[test]
    fn a_few_are_always_allowed() {
        let (budget, now) = (budget(20, 3), Instant::now());
        assert_eq!((0..100).filter(|_| budget.retry(now)).count(), 30, "three a second over ten seconds");
        assert_eq!((0..100).filter(|_| budget.retry(now + Duration::from_secs(9))).count(), 0);
        assert_eq!((0..100).filter(|_| budget.retry(now + Duration::from_secs(10))).count(), 30);
    }

    #[test]
    fn what_was_ten_seconds_ago_counts_no_more() {
        let (budget, now) = (budget(50, 0), Instant::now());
        (0..100).for_each(|_| budget.request(now));
        assert_eq!(budget.left(now + Duration::from_secs(9)), 50);
        assert_eq!(budget.left(now + Duration::from_secs(10)), 0);
        // The slot of then is used again, from nothing.
        budget.request(now + Duration::from_secs(10));
        budget.request(now + Duration::from_secs(10));
        assert_eq!(budget.left(now + Duration::from_secs(10)), 1);
    }

    #[test]
    fn without_a_budget_nothing_is_tried_again() {
        let (budget, now) = (budget(0, 0), Instant::now());
        (0..100).for_each(|_| budget.request(now));
        assert!(!budget.retry(now));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_far_is_borne() {
        let (budget, now) = (budget(100, 1), Instant::now());
        for _ in 0..(2 * COUNT_MAX) {
            budget.request(now);
        }
        assert!(budget.retry(now));
        assert!(budget.retry(now + Duration::from_secs(400 * 24 * 3600)));
        assert!(budget.retry(now));
    }

    proptest! {
        #[test]
        fn no_ten_seconds_have_more_retries_than_they_may(
            share in 0u32..150, floor in 0u32..4, steps in proptest::collection::vec((0u64..3, 0usize..20, 0usize..20), 1..60)
        ) {
            let budget = budget(share, floor);
            let (mut at, mut log) = (0u64, Vec::new());
            for (pause, requests, tries) in steps {
                at += pause;
                let now = budget.began + Duration::from_secs(at);
                (0..requests).for_each(|_| budget.request(now));
                let retried = (0..tries).filter(|_| budget.retry(now)).count();
                log.push((at, requests, retried));
                let recent = log.iter().filter(|(second, ..)| at - second < WINDOW);
                let (asked, again) = recent.fold((0, 0), |(a, b), (_, r, t)| (a + r, b + t));
                // What was asked may leave the window before what was tried again does.
                prop_assert!(retried == 0 || again as u64 <= asked as u64 * u64::from(share) / 100 + u64::from(floor) * WINDOW);
            }
        }
    }
}
