//! Counters that many threads add to at once without waiting for each other's cache lines.
//!
//! Each thread adds to one of a few shards; a scrape, which is rare, sums them up.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// More shards than this cost memory and bring little: the threads that share one seldom meet.
const MAX_SHARDS: usize = 16;

/// Upper bounds of the histograms' buckets in microseconds: from a hit in memory to a request that is in trouble.
pub const BUCKETS_MICROS: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 60_000_000,
];

/// One `T` for each shard, far enough apart that no two share a cache line.
#[derive(Debug)]
pub struct Sharded<T>(Box<[Apart<T>]>);

// 128: x86-64 fetches lines of 64 bytes in pairs, and some aarch64 cores have lines of 128.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

impl<T: Default> Sharded<T> {
    pub fn new() -> Sharded<T> {
        Sharded((0..shard_count()).map(|_| Apart::default()).collect())
    }

    /// The calling thread's shard.
    #[inline]
    pub fn mine(&self) -> &T {
        // The length is a power of two.
        &self.0[thread_number() & (self.0.len() - 1)].0
    }

    /// Adds up one figure over all shards.
    ///
    /// Wrapping, since a gauge may be raised on one thread and lowered on another: one shard's figure may be
    /// "negative", the sum is right.
    pub fn sum(&self, figure: impl Fn(&T) -> u64) -> u64 {
        self.0.iter().fold(0u64, |sum, shard| sum.wrapping_add(figure(&shard.0)))
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|shard| &shard.0)
    }
}

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Sharded::new()
    }
}

/// Something that only grows. Reading it is for scrapes and tests.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// For gauges that are the sum of several counters; see [`Sharded::sum`].
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Durations by size. The sum is kept in whole microseconds, so that observing needs no compare-and-swap loop.
#[derive(Debug, Default)]
pub struct Durations {
    /// One count for each of [`BUCKETS_MICROS`], and one for what is longer; not cumulative.
    buckets: [Counter; BUCKETS_MICROS.len() + 1],
    micros: Counter,
}

impl Durations {
    #[inline]
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MICROS.iter().position(|bound| micros <= *bound).unwrap_or(BUCKETS_MICROS.len());
        self.buckets[bucket].add(1);
        self.micros.add(micros);
    }
}

/// Durations by size as they were counted at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Upper bounds of the buckets, in microseconds.
    pub bounds: &'static [u64],
    /// For each bound: how many took at most that long.
    pub cumulative: Vec<u64>,
    pub count: u64,
    pub seconds: f64,
}

impl Distribution {
    /// Adds up the durations that `figure` picks from each shard.
    pub fn of<T: Default>(shards: &Sharded<T>, figure: impl Fn(&T) -> &Durations) -> Distribution {
        let count = |bucket: usize| shards.sum(|shard| figure(shard).buckets[bucket].value());
        let counts: [u64; BUCKETS_MICROS.len() + 1] = std::array::from_fn(count);
        Distribution::new(&BUCKETS_MICROS, &counts, shards.sum(|shard| figure(shard).micros.value()))
    }

    /// From the count of each bucket, of which there is one more than there are bounds: for what took longer than all.
    /// Both, and the sum of all durations, are in microseconds.
    pub fn new(bounds: &'static [u64], counts: &[u64], micros: u64) -> Distribution {
        let mut count = 0;
        let mut up_to = |bucket: &u64| {
            count += bucket;
            count
        };
        let mut cumulative: Vec<_> = counts.iter().map(&mut up_to).collect();
        cumulative.truncate(bounds.len());
        Distribution { bounds, cumulative, count, seconds: micros as f64 / 1e6 }
    }

    /// Adds what another one counted, which has the same bounds.
    pub fn merge(&mut self, other: &Distribution) {
        debug_assert_eq!(self.bounds, other.bounds, "the bounds of one metric");
        for (mine, theirs) in self.cumulative.iter_mut().zip(&other.cumulative) {
            *mine += theirs;
        }
        self.count += other.count;
        self.seconds += other.seconds;
    }
}

/// A power of two near the number of cores.
pub(crate) fn shard_count() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.next_power_of_two().min(MAX_SHARDS)
}

/// A small number that tells threads apart, given out in the order in which they first ask.
#[inline]
pub(crate) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    const UNKNOWN: usize = usize::MAX;
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(UNKNOWN) };
    }
    MINE.with(|mine| {
        if mine.get() == UNKNOWN {
            mine.set(NEXT.fetch_add(1, Relaxed));
        }
        mine.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_threads() {
        let cells: Sharded<Counter> = Sharded::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| cells.mine().add(3)));
            }
        });
        assert_eq!(cells.sum(Counter::value), 24_000);
    }

    #[test]
    fn a_gauge_may_be_lowered_on_another_thread() {
        let cells: Sharded<Counter> = Sharded::new();
        cells.mine().add(2);
        std::thread::scope(|scope| {
            scope.spawn(|| cells.mine().sub(1));
        });
        assert_eq!(cells.sum(Counter::value), 1);
    }

    #[test]
    fn a_duration_counts_in_its_bucket_and_in_every_longer_one() {
        let durations: Sharded<Durations> = Sharded::new();
        for micros in [0, 250, 251, 60_000_000, 60_000_001] {
            durations.mine().observe(Duration::from_micros(micros));
        }
        let got = Distribution::of(&durations, |d| d);
        assert_eq!(got.cumulative[..3], [2, 3, 3]);
        assert_eq!(got.cumulative[15], 4);
        assert_eq!(got.count, 5);
        assert!((got.seconds - 120.000502).abs() < 1e-6, "{}", got.seconds);
    }
}
