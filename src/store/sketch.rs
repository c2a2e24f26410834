//! How often a resource has been asked for of late.
//!
//! Much of what a site is asked for is asked for once. A route may therefore store a response only from the second
//! request within an hour on, or the third: what nobody asks for again then takes no place in a tier and no write to
//! a disk. This is the count behind that choice, for all routes in one table.
//!
//! The table has a fixed size (4 MiB, taken with the first request that is counted) and no lock. A key belongs to a
//! bucket, one cache line of 16 entries, and is known there by 11 more bits of its hash. It errs in either direction,
//! and both are harmless: a count too high stores too early, one too low stores later.
//!
//! - *Too high*, because another key of the bucket has the same 11 bits: 0.7 % of new keys when a million others have
//!   been counted, and never more than 0.8 %, as a bucket has 16 entries and `16 / 2^11` is that.
//! - *Too high*, because requests before the window count: up to two windows back (see [`Sketch::count`]).
//! - *Too high*, because the entry's time has come round: after 16 to 32 windows, and only where nobody has counted in
//!   its bucket in the meantime.
//! - *Too low*, because a key was displaced: 16 other keys of its bucket have been counted after it. Of keys that come
//!   back after 400,000 others this happens to 0.06 %, after 500,000 to 0.5 %, after 700,000 to 8 %, after 1,000,000
//!   to 46 %. Where there is more than that within a window, the table's size is what bounds it.
//!
//! Nothing sweeps the table. An entry holds the time of its last request, and whoever counts in its bucket frees it
//! when its window is over.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pingora_cache::key::HashBinary;

const BUCKETS: usize = 1 << 16;

/// Entries of a bucket: a cache line.
const WAYS: usize = 16;

/// An entry, from its highest bit: what tells the key from others of its bucket (11 bits), the scale of its time (4),
/// the tick of its last request (10), the requests of that request's block (3), and those of this block and the one
/// before it (4). An entry without requests is free.
const FREE: u32 = 0;
const TOTAL_MASK: u32 = 15;
const CURRENT_SHIFT: u32 = 4;
const CURRENT_MASK: u32 = 7;
const TIME_SHIFT: u32 = 7;
const TIME_MASK: u32 = 1023;
const SCALE_SHIFT: u32 = 17;
const SCALE_MASK: u32 = 15;
/// The key's bits and the scale: an entry is of a key and a scale.
const NAME_MASK: u32 = !0 << SCALE_SHIFT;

/// A tick is a power of two of milliseconds such that a window has 32 to 64 of them, and at least 2^8: windows below
/// eight seconds have fewer.
const LEAST_SCALE: u32 = 8;
const WINDOW_TICKS: u32 = 64;
const LONGEST_WINDOW: u64 = (1 << (LEAST_SCALE + SCALE_MASK + 6)) - 1;

/// So many ticks behind an entry's time, a request counts as one of the same moment: threads that count at once have
/// not read the clock at once. Times come round after 1024 ticks, so more would be taken from what is past.
const AHEAD: u32 = 8;

/// Counts requests by key. Nothing is allocated until the first is counted.
#[derive(Default)]
pub struct Sketch {
    buckets: OnceLock<Box<[Bucket]>>,
}

#[derive(Default)]
#[repr(align(64))]
struct Bucket([AtomicU32; WAYS]);

impl Sketch {
    /// Counts go no further than this.
    #[cfg(test)]
    pub const MAX: u32 = TOTAL_MASK;

    /// Counts a request, and says how many there have been within the window, this one included: 1 to [`TOTAL_MASK`].
    ///
    /// The count is 1 where the request before this is longer ago than the window (and 3 to 6 % of it, or half a second
    /// if that is more), so that 2 is exact. Above, time is cut into blocks as long as the window, and what counts are
    /// the requests of this block and of the one before: all that the window has, and some that are up to two windows
    /// old. Where a block has had seven requests or more, some of the block before it may be among them too.
    ///
    /// `now_ms`: milliseconds since any moment, the same for all calls. Windows end at 6 days; longer ones count as
    /// that. A key that is counted with windows of different length has a count for each, unless they are similar.
    pub fn count(&self, key: &HashBinary, within: Duration, now_ms: u64) -> u32 {
        let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| key[at + i]));
        // Names of variants have the first half in common, and only the second to themselves.
        let hash = half(0) ^ half(8);
        let buckets = self.buckets.get_or_init(|| (0..BUCKETS).map(|_| Bucket::default()).collect());
        buckets[hash as usize % BUCKETS].count(&Request::new((hash >> 32) as u32, within, now_ms))
    }
}

impl Bucket {
    fn count(&self, request: &Request) -> u32 {
        loop {
            let (slot, word) = self.slot_for(request);
            let counted = request.counted(word);
            // A key that is asked for all the time is written once a tick.
            if counted == word
                || slot.compare_exchange_weak(word, counted, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                return counted & TOTAL_MASK;
            }
        }
    }

    /// The entry of the request's key, else the first that is free, else the one that has waited longest for its window;
    /// and what it holds. Threads that meet a key at once choose the same, so that it gets one entry.
    fn slot_for(&self, request: &Request) -> (&AtomicU32, u32) {
        let [first, ..] = &self.0;
        let mut victim = (first, FREE);
        let mut waited = None;
        for slot in &self.0 {
            let mut word = slot.load(Ordering::Relaxed);
            if word != FREE && age(word, request.now_ms) > WINDOW_TICKS {
                // Else it would look young again when its time has come round.
                let freed = slot.compare_exchange(word, FREE, Ordering::Relaxed, Ordering::Relaxed);
                word = freed.map_or_else(|now| now, |_| FREE);
            }
            if request.is_of(word) {
                return (slot, word);
            }
            let age = if word == FREE { u32::MAX } else { age(word, request.now_ms) };
            if waited.is_none_or(|longest| age > longest) {
                (victim, waited) = ((slot, word), Some(age));
            }
        }
        victim
    }
}

/// A request that is to be counted.
struct Request {
    /// The bits of an entry under [`NAME_MASK`].
    name: u32,
    now_ms: u64,
    /// The time in ticks.
    now: u64,
    /// The window in ticks, rounded up: 1 to [`WINDOW_TICKS`].
    window: u32,
}

impl Request {
    fn new(tag: u32, within: Duration, now_ms: u64) -> Request {
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).clamp(1, LONGEST_WINDOW);
        let scale = (within.ilog2() + 1).saturating_sub(WINDOW_TICKS.ilog2()).max(LEAST_SCALE);
        let name = ((tag << 4) | (scale - LEAST_SCALE)) << SCALE_SHIFT;
        Request { name, now_ms, now: now_ms >> scale, window: within.div_ceil(1 << scale) as u32 }
    }

    fn is_of(&self, word: u32) -> bool {
        word != FREE && word & NAME_MASK == self.name
    }

    /// What an entry that held `word` holds after this request.
    fn counted(&self, word: u32) -> u32 {
        let time = self.now as u32 & TIME_MASK;
        let age = age(word, self.now_ms);
        if !self.is_of(word) || age > self.window {
            return self.word(time, 1, 1);
        }
        let (total, current) = (word & TOTAL_MASK, (word >> CURRENT_SHIFT) & CURRENT_MASK);
        let block = |tick: u64| tick / u64::from(self.window);
        // At most the next: no block is shorter than the window.
        let (before, current) = match block(self.now.saturating_sub(u64::from(age))) == block(self.now) {
            true => (total, current + 1),
            // As many as the block had, and where there was no room to count them, those before it as well.
            false if current == CURRENT_MASK => (total, 1),
            false => (current, 1),
        };
        // The clock of another thread may be ahead.
        let time = if age == 0 { (word >> TIME_SHIFT) & TIME_MASK } else { time };
        self.word(time, current.min(CURRENT_MASK), (before + 1).min(TOTAL_MASK))
    }

    fn word(&self, time: u32, current: u32, total: u32) -> u32 {
        self.name | (time << TIME_SHIFT) | (current << CURRENT_SHIFT) | total
    }
}

/// How long ago the entry's last request was, in ticks of its own.
fn age(word: u32, now_ms: u64) -> u32 {
    let scale = LEAST_SCALE + ((word >> SCALE_SHIFT) & SCALE_MASK);
    let age = ((now_ms >> scale) as u32).wrapping_sub(word >> TIME_SHIFT) & TIME_MASK;
    if age > TIME_MASK - AHEAD { 0 } else { age }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const HOUR_MS: u64 = 3_600_000;

    /// Spread as SHA-256 would.
    fn key(n: u64) -> HashBinary {
        let mut hash = [0; 16];
        for (half, word) in hash.chunks_mut(8).zip([2 * n, 2 * n + 1]) {
            let word = (word ^ (word >> 30)).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let word = (word ^ (word >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let word = (word ^ (word >> 32)).wrapping_mul(0x94D0_49BB_1331_11EB);
            half.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes());
        }
        hash
    }

    /// The length of a tick for a window, in milliseconds.
    fn tick(within_ms: u64) -> u64 {
        (within_ms / 32).max(256)
    }

    #[test]
    fn nothing_is_allocated_before_the_first_request() {
        let sketch = Sketch::default();
        assert!(sketch.buckets.get().is_none());
        sketch.count(&key(1), HOUR, 0);
        assert_eq!(sketch.buckets.get().map(|table| size_of_val(&**table)), Some(4 << 20));
    }

    #[test]
    fn counts_up_to_the_most_and_no_further() {
        let sketch = Sketch::default();
        for n in 1..=40 {
            assert_eq!(sketch.count(&key(1), HOUR, 5), n.min(Sketch::MAX));
        }
        assert_eq!(sketch.count(&key(2), HOUR, 5), 1, "another key");
    }

    #[test]
    fn the_second_within_the_window_is_exact() {
        for within_ms in [1_000, 10_000, 60_000, HOUR_MS, 24 * HOUR_MS] {
            let within = Duration::from_millis(within_ms);
            for start in (0..50).map(|n| 1_700_000_000_000 + n * within_ms / 17) {
                let second_after = |gap: u64| {
                    let sketch = Sketch::default();
                    sketch.count(&key(1), within, start);
                    sketch.count(&key(1), within, start + gap)
                };
                assert_eq!(second_after(within_ms), 2, "{within_ms} from {start}");
                assert_eq!(second_after(within_ms + 2 * tick(within_ms)), 1, "{within_ms} from {start}");
                assert_eq!(second_after(10 * within_ms), 1, "{within_ms} from {start}");
            }
        }
    }

    #[test]
    fn what_is_asked_for_now_and_then_does_not_add_up() {
        let sketch = Sketch::default();
        let counts = (0..100).map(|n| sketch.count(&key(1), HOUR, n * HOUR_MS * 9 / 10));
        assert_eq!(counts.max(), Some(3), "two hours have no more");
    }

    #[test]
    fn windows_of_different_length_have_counts_of_their_own() {
        let sketch = Sketch::default();
        assert_eq!(sketch.count(&key(1), HOUR, 0), 1);
        assert_eq!(sketch.count(&key(1), Duration::from_secs(10), 0), 1);
        assert_eq!(sketch.count(&key(1), HOUR, 0), 2);
        assert_eq!(sketch.count(&key(1), Duration::from_secs(10), 20_000), 1);
        assert_eq!(sketch.count(&key(1), HOUR, 20_000), 3);
    }

    #[test]
    fn no_window_is_too_short_or_too_long() {
        for (n, within) in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX].into_iter().enumerate() {
            let sketch = Sketch::default();
            for now in [0, u64::MAX] {
                sketch.count(&key(n as u64), within, now);
                assert!(sketch.count(&key(n as u64), within, now) >= 2);
            }
        }
    }

    #[test]
    fn variants_are_told_apart() {
        let sketch = Sketch::default();
        let (first, mut second) = (key(1), key(1));
        second[12] ^= 1;
        assert_eq!((sketch.count(&first, HOUR, 0), sketch.count(&second, HOUR, 0)), (1, 1));
    }

    #[test]
    fn a_clock_slightly_behind_loses_nothing() {
        let sketch = Sketch::default();
        let now = 10 * HOUR_MS;
        for (n, behind) in (1..=6).zip([0, 1, 900, 3, 1500, 0]) {
            assert_eq!(sketch.count(&key(1), Duration::from_secs(10), now - behind), n);
        }
    }

    #[test]
    fn what_is_over_is_freed_by_whoever_counts_next_to_it() {
        let (first, mut second) = (key(1), key(1));
        second[5] ^= 1;
        let round = u64::from(TIME_MASK + 1) << 16;
        let returns = |meanwhile: u64| {
            let sketch = Sketch::default();
            sketch.count(&first, HOUR, 0);
            sketch.count(&second, HOUR, meanwhile);
            sketch.count(&first, HOUR, round)
        };
        assert_eq!((returns(2 * HOUR_MS), returns(10 * HOUR_MS)), (1, 1));
        assert_eq!(returns(0), 2, "a round of ticks looks like none, which is why they are freed");
    }

    #[test]
    fn threads_lose_no_request() {
        let sketch = Sketch::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..5_000 {
                        sketch.count(&key(n), HOUR, 7);
                    }
                });
            }
        });
        let counts: Vec<u32> = (0..5_000).map(|n| sketch.count(&key(n), HOUR, 7)).collect();
        assert!(counts.iter().all(|count| *count >= 5));
        assert!(counts.iter().filter(|count| **count > 5).count() < 5, "but for keys that look the same");
    }

    #[test]
    fn a_million_keys_are_told_from_new_ones_and_half_a_million_remembered() {
        let sketch = Sketch::default();
        let again = |keys: std::ops::Range<u64>, now| {
            let all = keys.end - keys.start;
            let seen = keys.filter(|n| sketch.count(&key(*n), HOUR, now) > 1).count();
            seen as f64 / all as f64
        };
        let spread = |n: u64| n * HOUR_MS / 2_000_000;
        let falsely = (0..500_000).filter(|n| sketch.count(&key(*n), HOUR, spread(*n)) > 1).count();
        assert!(falsely < 2_500, "{falsely} of the first half million");
        let remembered = again(0..10_000, spread(500_000));
        assert!(remembered > 0.985, "{remembered}");
        for n in 500_000..1_000_000 {
            sketch.count(&key(n), HOUR, spread(n));
        }
        let falsely = again(2_000_000..2_100_000, spread(1_000_000));
        println!("of 10,000 keys {remembered} remembered after 490,000 others; of 100,000 new {falsely} thought known");
        assert!(falsely < 0.01, "{falsely}");
        // An hour later all are new again, but for what the requests themselves bring.
        let later = again(3_000_000..3_010_000, spread(1_000_000) + 2 * HOUR_MS);
        assert!(later < 0.001, "{later}");
    }

    proptest! {
        #[test]
        fn holds_to_the_window(
            within_ms in prop_oneof![1_000..60_000_u64, 60_000..6 * 24 * HOUR_MS],
            start in 0..2_000_000_000_000_u64,
            // In hundredths of the window.
            gaps in prop::collection::vec(prop_oneof![4 => 0..30_u64, 2 => 30..110_u64, 1 => 110..1200_u64], 1..60),
        ) {
            let sketch = Sketch::default();
            let (mut now, mut times) = (start, Vec::new());
            for gap in gaps {
                now += gap * within_ms / 100;
                times.push(now);
                let count = sketch.count(&key(9), Duration::from_millis(within_ms), now);
                let since = |age: u64| times.iter().filter(|time| now - **time <= age).count() as u32;
                prop_assert!(count >= since(within_ms).min(Sketch::MAX), "{count} at {now} of {times:?}");
                if count < 7 {
                    prop_assert!(count <= since(2 * within_ms + 4 * tick(within_ms)), "{count} at {now} of {times:?}");
                }
            }
        }

        #[test]
        fn counts_are_in_range(requests in prop::collection::vec((0..4_u64, any::<u64>(), any::<u64>()), 1..50)) {
            let sketch = Sketch::default();
            for (n, within, now) in requests {
                let count = sketch.count(&key(n), Duration::from_millis(within), now);
                prop_assert!((1..=Sketch::MAX).contains(&count));
            }
        }
    }
}
