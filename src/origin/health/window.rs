//! What has become of a server's requests lately, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a window is cut into: as the oldest part leaves it, the rest stays.
const PARTS: u64 = 10;

/// A part's two counters are 24 bits each; 16 bits say which part it is.
const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// The sum of latencies is 48 bits of microseconds, nine years.
const SUM_BITS: u32 = 48;
const SUM_MAX: u64 = (1 << SUM_BITS) - 1;

/// Requests, failures and latencies within a sliding window of time. Each part of it is overwritten by the first request
/// of the part that takes its place.
#[derive(Debug, Default)]
pub(super) struct Window {
    counts: [AtomicU64; PARTS as usize],
    latencies: [AtomicU64; PARTS as usize],
}

/// Sums over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Including failures.
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// Of all requests but the failures, in microseconds.
    latency: u64,
}

impl Window {
    /// Counts a request that was answered after so long, or (`None`) that failed. `now` and `window`: in milliseconds.
    pub(super) fn add(&self, window: u64, now: u64, answered: Option<Duration>) {
        let (slot, tag) = part(window, now);
        let (Some(counts), Some(latencies)) = (self.counts.get(slot), self.latencies.get(slot)) else { return };
        let one = if answered.is_some() { 1 } else { 1 | 1 << COUNT_BITS };
        update(counts, tag, |sums| {
            // What is full stays as it is: a rate needs no more than sixteen million.
            if sums & COUNT_MAX == COUNT_MAX { sums } else { sums + one }
        });
        if let Some(latency) = answered {
            let micros = u64::try_from(latency.as_micros()).unwrap_or(SUM_MAX);
            update(latencies, tag, |sum| sum.saturating_add(micros).min(SUM_MAX));
        }
    }

    pub(super) fn totals(&self, window: u64, now: u64) -> Totals {
        let width = width(window);
        let mut totals = Totals::default();
        for age in 0..PARTS {
            let Some(then) = now.checked_sub(age * width) else { break };
            let (slot, tag) = part(window, then);
            let (Some(counts), Some(latencies)) = (self.counts.get(slot), self.latencies.get(slot)) else { continue };
            let (counts, latency) = (counts.load(Ordering::Relaxed), latencies.load(Ordering::Relaxed));
            if counts >> SUM_BITS == tag {
                totals.requests += counts & COUNT_MAX;
                totals.failures += (counts >> COUNT_BITS) & COUNT_MAX;
            }
            if latency >> SUM_BITS == tag {
                totals.latency = totals.latency.saturating_add(latency & SUM_MAX);
            }
        }
        totals
    }

    pub(super) fn clear(&self) {
        for counter in self.counts.iter().chain(&self.latencies) {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

impl Totals {
    pub(super) fn answered(&self) -> u64 {
        self.requests.saturating_sub(self.failures)
    }

    /// Of the requests that were answered; `None`: none was.
    pub(super) fn mean_latency(&self) -> Option<Duration> {
        self.latency.checked_div(self.answered()).map(Duration::from_micros)
    }
}

/// Of each part, in milliseconds.
fn width(window: u64) -> u64 {
    (window / PARTS).max(1)
}

/// Where the part of a time is kept, and what tells it from others that are kept there.
fn part(window: u64, time: u64) -> (usize, u64) {
    let number = time / width(window);
    // The remainder is below 10.
    ((number % PARTS) as usize, number & 0xffff)
}

/// Changes the sums of a part; those of an earlier one that are still there count as zero.
fn update(counter: &AtomicU64, tag: u64, change: impl Fn(u64) -> u64) {
    let next = |value: u64| {
        let sums = if value >> SUM_BITS == tag { value & SUM_MAX } else { 0 };
        Some(tag << SUM_BITS | change(sums))
    };
    // Never refuses, so it cannot fail.
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: u64 = 10_000;

    fn totals(requests: u64, failures: u64, latency: u64) -> Totals {
        Totals { requests, failures, latency }
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten_part_by_part() {
        let window = Window::default();
        window.add(WINDOW, 500, None);
        window.add(WINDOW, 1500, Some(Duration::from_millis(30)));
        window.add(WINDOW, 1600, Some(Duration::from_millis(10)));
        assert_eq!(window.totals(WINDOW, 1999), totals(3, 1, 40_000));
        assert_eq!(window.totals(WINDOW, 1999).mean_latency(), Some(Duration::from_millis(20)));
        assert_eq!(window.totals(WINDOW, 9_999), totals(3, 1, 40_000));
        assert_eq!(window.totals(WINDOW, 10_000), totals(2, 0, 40_000));
        assert_eq!(window.totals(WINDOW, 11_000), Totals::default());
        // The place of an old part is taken.
        window.add(WINDOW, 10_400, None);
        assert_eq!(window.totals(WINDOW, 10_400), totals(3, 1, 40_000));
        window.clear();
        assert_eq!(window.totals(WINDOW, 10_400), Totals::default());
        assert_eq!(Totals::default().mean_latency(), None);
    }

    #[test]
    fn counters_that_are_full_stay_full() {
        let window = Window::default();
        let (slot, tag) = part(WINDOW, 0);
        window.counts[slot].store((tag << SUM_BITS) | (COUNT_MAX - 1), Ordering::Relaxed);
        window.add(WINDOW, 0, Some(Duration::MAX));
        window.add(WINDOW, 0, Some(Duration::MAX));
        window.add(WINDOW, 0, None);
        assert_eq!(window.totals(WINDOW, 0), totals(COUNT_MAX, 0, SUM_MAX));
    }

    proptest! {
        #[test]
        fn no_time_and_no_window_is_too_odd(
            steps in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<Option<u64>>()), 0..40),
        ) {
            let window = Window::default();
            for (length, now, latency) in steps {
                window.add(length, now, latency.map(Duration::from_micros));
                let totals = window.totals(length, now);
                prop_assert!(totals.requests >= 1 && totals.failures <= totals.requests);
            }
        }

        /// Against a list of all that has happened.
        #[test]
        fn all_of_the_window_is_counted_and_nothing_older(
            events in proptest::collection::vec((0u64..3_000, any::<bool>()), 1..100),
        ) {
            let window = Window::default();
            let (mut now, mut all) = (0, Vec::new());
            for (pause, failed) in events {
                now += pause;
                window.add(WINDOW, now, (!failed).then_some(Duration::ZERO));
                all.push((now, failed));
                let first = (now / 1000).saturating_sub(9);
                let within: Vec<_> = all.iter().filter(|(time, _)| time / 1000 >= first).collect();
                let failures = within.iter().filter(|(_, failed)| *failed).count();
                prop_assert_eq!(window.totals(WINDOW, now), totals(within.len() as u64, failures as u64, 0));
            }
        }
    }
}
