//! Requests in flight, by key.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key::KeyHash;
use crate::config::model::ConcurrencyLimit;

/// A power of two: workers seldom meet at a lock.
const SHARDS: usize = 64;

/// Entries that a shard keeps room for.
const KEPT: usize = 64;

/// How many requests of each key are in flight, under all concurrency limits of the process.
///
/// What is kept is bounded by the requests in flight: a key that has none has no entry.
#[derive(Debug)]
pub struct Places {
    shards: [Mutex<Shard>; SHARDS],
}

/// A key's hash is one already.
type Shard = HashMap<u64, u32, BuildHasherDefault<AsIs>>;

/// A request's place, which is free again when this is dropped.
#[derive(Debug)]
#[must_use = "the request counts as in flight only while this lives"]
pub struct Place {
    places: Arc<Places>,
    key: u64,
}

impl Places {
    pub fn new() -> Places {
        Places { shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// Takes a place; `None` where as many requests of the key are in flight as may be.
    pub fn enter(self: &Arc<Self>, limit: &ConcurrencyLimit, key: KeyHash) -> Option<Place> {
        let mut shard = self.shard(key.0);
        let taken = shard.entry(key.0).or_default();
        if *taken >= limit.requests.max(1) {
            return None;
        }
        *taken = taken.saturating_add(1);
        drop(shard);
        Some(Place { places: self.clone(), key: key.0 })
    }

    /// Keys that have requests in flight.
    pub fn keys(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        // By other bits than those that the map goes by.
        lock(&self.shards[(key >> 32) as usize % SHARDS])
    }
}

impl Default for Places {
    fn default() -> Self {
        Places::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.places.shard(self.key);
        let Some(taken) = shard.get_mut(&self.key) else { return };
        *taken = taken.saturating_sub(1);
        if *taken == 0 {
            shard.remove(&self.key);
            // What a flood has made it grow to is given back, in steps that are far enough apart to cost nothing.
            if shard.capacity() > KEPT.max(shard.len() * 8) {
                let kept = KEPT.max(shard.len() * 2);
                shard.shrink_to(kept);
            }
        }
    }
}

/// No hash at all.
#[derive(Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::KeyPart;

    fn limit(requests: u32) -> ConcurrencyLimit {
        let status = StatusCode::TOO_MANY_REQUESTS;
        ConcurrencyLimit { name: "a".into(), key: vec![KeyPart::ClientIp], requests, status }
    }

    #[test]
    fn a_place_is_free_again_when_it_is_left() {
        let (places, limit) = (Arc::new(Places::new()), limit(2));
        let one = places.enter(&limit, KeyHash(1)).expect("a place");
        let two = places.enter(&limit, KeyHash(1)).expect("a second place");
        assert!(places.enter(&limit, KeyHash(1)).is_none());
        let other = places.enter(&limit, KeyHash(2)).expect("others have places of their own");
        drop(one);
        let three = places.enter(&limit, KeyHash(1)).expect("the place that was left");
        assert_eq!(places.keys(), 2);
        drop((two, three, other));
        assert_eq!(places.keys(), 0);
    }

    #[test]
    fn a_place_can_be_left_anywhere() {
        fn is_free<T: Send + Sync + 'static>() {}
        is_free::<Place>();
    }

    #[test]
    fn a_flood_leaves_no_memory_behind() {
        let (places, limit) = (Arc::new(Places::new()), limit(1));
        let taken: Vec<_> = (0..100_000u64)
            .map(|n| places.enter(&limit, KeyHash(n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).expect("a place"))
            .collect();
        assert_eq!(places.keys(), 100_000);
        drop(taken);
        let capacity: usize = places.shards.iter().map(|shard| lock(shard).capacity()).sum();
        assert!(capacity <= SHARDS * KEPT * 2, "room for {capacity}");
    }

    #[test]
    fn never_more_than_allowed_whoever_comes_from_where() {
        const MOST: u32 = 3;
        let (places, limit, inside) = (Arc::new(Places::new()), limit(MOST), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let Some(place) = places.enter(&limit, KeyHash(7)) else { continue };
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < MOST);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(place);
                    }
                });
            }
        });
        assert_eq!(places.keys(), 0);
    }

    proptest! {
        /// As a plain list of what is in flight would say.
        #[test]
        fn places_are_counted_exactly(steps in prop::collection::vec((0..4u64, any::<bool>()), 0..200)) {
            let (places, limit) = (Arc::new(Places::new()), limit(3));
            let mut inside: Vec<Vec<Place>> = (0..4).map(|_| Vec::new()).collect();
            for (key, enters) in steps {
                let of_key = &mut inside[key as usize];
                if enters {
                    let place = places.enter(&limit, KeyHash(key));
                    prop_assert_eq!(place.is_some(), of_key.len() < 3);
                    of_key.extend(place);
                } else {
                    of_key.pop();
                }
                prop_assert_eq!(places.keys(), inside.iter().filter(|places| !places.is_empty()).count());
            }
        }
    }
}
