//! The memory tier: whole objects, bounded in bytes, found without decoding anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};
use smallvec::SmallVec;

use super::key::{AlreadyHashed, ObjectId};
use super::object::Object;
use crate::config::model;

/// An object size for which the policy's own tables are dimensioned; wrong by a factor of ten costs nothing.
const TYPICAL_OBJECT: u64 = 8 * 1024;

/// A shard must hold several of the largest objects, else they would throw each other out.
const LARGEST_PER_SHARD: u64 = 8;

const MAX_SHARDS: u64 = 64;

/// Objects in memory. A lookup takes one shard's lock for reading; the policy (Clock-PRO with a ghost list, of the
/// S3-FIFO family) keeps what is asked for again when a scan passes through.
pub struct MemoryTier {
    cache: Cache<ObjectId, Arc<Object>, Weight, AlreadyHashed, Evictions>,
    evictions: Evictions,
    max_object: u64,
}

/// The figures of the memory tier.
#[derive(Clone, Copy, Debug)]
pub struct MemoryUsage {
    pub objects: u64,
    pub bytes: u64,
    pub capacity: u64,
    pub evictions: u64,
}

impl MemoryTier {
    /// An empty tier.
    pub fn new(config: model::MemoryTier) -> MemoryTier {
        let fit = (config.size / (config.max_object.max(1).saturating_mul(LARGEST_PER_SHARD))).clamp(1, MAX_SHARDS);
        // Rounded down: the crate rounds up.
        let shards = 1 << fit.ilog2();
        let options = OptionsBuilder::new()
            .weight_capacity(config.size)
            .estimated_items_capacity(usize::try_from(config.size / TYPICAL_OBJECT).unwrap_or(usize::MAX).max(16))
            .shards(shards)
            .build();
        let evictions = Evictions { count: Arc::default(), on_used: Arc::default() };
        let lifecycle = evictions.clone();
        let cache = match options {
            Ok(options) => Cache::with_options(options, Weight, AlreadyHashed::default(), lifecycle),
            // Only a missing capacity is an error, and both are given.
            Err(_) => Cache::with(16, config.size, Weight, AlreadyHashed::default(), lifecycle),
        };
        MemoryTier { cache, evictions, max_object: config.max_object }
    }

    /// The object under a key, and note that it was asked for.
    pub fn get(&self, id: &ObjectId) -> Option<Arc<Object>> {
        self.cache.get(id)
    }

    /// The object under a key, without a trace.
    pub fn peek(&self, id: &ObjectId) -> Option<Arc<Object>> {
        self.cache.peek(id)
    }

    /// Stores an object in place of what was there.
    pub fn insert(&self, id: ObjectId, object: Arc<Object>) {
        self.cache.insert(id, object);
    }

    /// Stores an object where there is none; whether it did.
    pub fn insert_new(&self, id: ObjectId, object: &Arc<Object>) -> bool {
        let there = self.cache.get_or_insert_with(&id, || Ok::<_, std::convert::Infallible>(object.clone()));
        there.is_ok_and(|there| Arc::ptr_eq(&there, object))
    }

    /// Takes this very object out, if it is what is there.
    pub fn remove_this(&self, id: &ObjectId, object: &Arc<Object>) {
        self.cache.remove_if(id, |there| Arc::ptr_eq(there, object));
    }

    /// Puts another object in the place of this very one, if it is what is there, and nothing else comes meanwhile.
    pub fn replace_this(&self, id: &ObjectId, object: &Arc<Object>, other: &Arc<Object>) {
        if self.cache.remove_if(id, |there| Arc::ptr_eq(there, object)).is_some() {
            self.insert_new(*id, other);
        }
    }

    /// Whether there was one.
    pub fn remove(&self, id: &ObjectId) -> bool {
        self.cache.remove(id).is_some()
    }

    /// The largest body that is kept, in bytes.
    pub fn max_object(&self) -> u64 {
        self.max_object
    }

    /// Whether a body of so many bytes may be kept: where there is no such tier, not even an empty one.
    pub fn takes(&self, len: u64) -> bool {
        self.cache.capacity() > 0 && len <= self.max_object
    }

    /// Whether so many bytes more would throw nothing out.
    pub fn has_room(&self, weight: u64) -> bool {
        self.cache.weight() + weight <= self.cache.capacity()
    }

    /// Who is told of objects that had to go though they had been of use.
    pub fn on_used_evicted(&self, told: impl Fn(&ObjectId) + Send + Sync + 'static) {
        let _ = self.evictions.on_used.set(Arc::new(told));
    }

    /// All that is here, as far as nothing changes meanwhile.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, Arc<Object>)> {
        self.cache.iter()
    }

    pub fn usage(&self) -> MemoryUsage {
        MemoryUsage {
            objects: self.cache.len() as u64,
            bytes: self.cache.weight(),
            capacity: self.cache.capacity(),
            evictions: self.evictions.count.load(Ordering::Relaxed),
        }
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<ObjectId, Arc<Object>> for Weight {
    fn weight(&self, _: &ObjectId, object: &Arc<Object>) -> u64 {
        object.weight()
    }
}

/// What is done about an object that had to go though it had been of use since anybody looked.
type OnEvict = Arc<dyn Fn(&ObjectId) + Send + Sync>;

/// Objects that had to go, told of once this is dropped: the tier's lock has been given back by then, under which
/// nobody may be called who could want to look into the tier.
#[derive(Default)]
struct Evicted {
    used: SmallVec<[ObjectId; 4]>,
    told: Option<OnEvict>,
}

impl Drop for Evicted {
    fn drop(&mut self) {
        if let Some(told) = &self.told {
            self.used.iter().for_each(|id| told(id));
        }
    }
}

#[derive(Clone)]
struct Evictions {
    count: Arc<AtomicU64>,
    on_used: Arc<OnceLock<OnEvict>>,
}

impl Lifecycle<ObjectId, Arc<Object>> for Evictions {
    type RequestState = Evicted;

    fn on_evict(&self, evicted: &mut Evicted, id: ObjectId, object: Arc<Object>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if object.was_hit_lately()
            && let Some(told) = self.on_used.get()
        {
            evicted.used.push(id);
            evicted.told.get_or_insert_with(|| told.clone());
        }
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
