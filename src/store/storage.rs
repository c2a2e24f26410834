//! Pingora's `Storage` over the memory tier and the fills on their way into it.

use std::any::Any;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use pingora::{Error, ErrorType, Result};
use pingora_cache::key::CacheHashKey;
use pingora_cache::storage::streaming_write::U64WriteId;
use pingora_cache::storage::{
    HandleHit, HandleMiss, HitHandler, MissFinishType, MissHandler, PurgeOutcome, PurgeTarget, Storage,
};
use pingora_cache::trace::SpanHandle;
use pingora_cache::{CacheKey, CacheMeta, PurgeType};

use super::fill::{Fill, Reader, Written};
use super::key::{AlreadyHashed, ObjectKey};
use super::memory::MemoryTier;
use super::object::{Head, Object};
use super::uncacheable::Uncacheable;
use crate::config::model;

const SHARDS: usize = 16;

/// All that is stored. One for the life of the process.
pub struct Store {
    memory: MemoryTier,
    fills: [Mutex<HashMap<ObjectKey, Arc<Fill>, AlreadyHashed>>; SHARDS],
    next_id: AtomicU64,
    running: AtomicUsize,
    /// Bytes that the fills hold, and what they may.
    held: Arc<AtomicU64>,
    held_max: u64,
    uncacheable: Uncacheable,
    rejected: [AtomicU64; Rejection::ALL.len()],
}

/// Why something that may be stored is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Larger than the tier takes.
    TooLarge,
    /// The fills in progress hold as much memory as they may.
    Fills,
}

impl Rejection {
    pub const ALL: [Rejection; 2] = [Rejection::TooLarge, Rejection::Fills];

    /// A stable word, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Rejection::TooLarge => "too-large",
            Rejection::Fills => "fills",
        }
    }
}

impl Store {
    /// An empty store; lives as long as the process, which is what Pingora's cache wants of a storage.
    pub fn leak(config: model::MemoryTier) -> &'static Store {
        Box::leak(Box::new(Store {
            memory: MemoryTier::new(config),
            fills: std::array::from_fn(|_| Mutex::default()),
            next_id: AtomicU64::new(1),
            running: AtomicUsize::new(0),
            held: Arc::default(),
            // One object must always fit, however small the tier is.
            held_max: (config.size / 2).max(config.max_object),
            uncacheable: Uncacheable::default(),
            rejected: Default::default(),
        }))
    }

    pub fn memory(&self) -> &MemoryTier {
        &self.memory
    }

    /// Which resources have lately been uncacheable.
    pub fn uncacheable(&self) -> &Uncacheable {
        &self.uncacheable
    }

    /// Counts what was not admitted.
    pub fn reject(&self, why: Rejection) {
        self.rejected[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often that has been.
    pub fn rejected(&self, why: Rejection) -> u64 {
        self.rejected[why as usize].load(Ordering::Relaxed)
    }

    /// Fills in progress.
    pub fn fills_running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Bytes that fills in progress hold, apart from the memory tier's own.
    pub fn fill_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    fn fills(&self, key: &ObjectKey) -> MutexGuard<'_, HashMap<ObjectKey, Arc<Fill>, AlreadyHashed>> {
        let shard = usize::from(key.primary[0]) % SHARDS;
        self.fills[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn filling(&self, key: &ObjectKey) -> Option<Arc<Fill>> {
        self.fills(key).get(key).filter(|fill| fill.can_be_followed()).cloned()
    }

    /// Nobody new finds this fill from now on.
    fn forget(&self, fill: &Fill) {
        let mut fills = self.fills(&fill.key);
        if fills.get(&fill.key).is_some_and(|current| current.id == fill.id) {
            fills.remove(&fill.key);
        }
    }

    fn follow(&self, fill: &Arc<Fill>, follow: fn(&Arc<Fill>, u64) -> Reader) -> (CacheMeta, HitHandler) {
        let reader = follow(fill, self.next_id.fetch_add(1, Ordering::Relaxed));
        (fill.head.meta(), Box::new(Followed { reader, skip: 0, left: None }))
    }
}

#[async_trait]
impl Storage for Store {
    async fn lookup(&'static self, key: &CacheKey, _: &SpanHandle) -> Result<Option<(CacheMeta, HitHandler)>> {
        let key = ObjectKey::of(key);
        // A fill in progress is newer than what is stored.
        if let Some(fill) = self.filling(&key) {
            return Ok(Some(self.follow(&fill, Fill::follow)));
        }
        Ok(self.memory.get(&key).map(|object| (object.head.meta(), Box::new(Whole::new(object)) as HitHandler)))
    }

    async fn lookup_streaming_write(
        &'static self,
        key: &CacheKey,
        tag: Option<&[u8]>,
        trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let Some(tag) = tag else { return self.lookup(key, trace).await };
        let id = U64WriteId::try_from(tag).map(u64::from).ok();
        let fill = self.fills(&ObjectKey::of(key)).get(&ObjectKey::of(key)).filter(|f| Some(f.id) == id).cloned();
        Ok(fill.map(|fill| self.follow(&fill, Fill::follow_own)))
    }

    async fn get_miss_handler(&'static self, key: &CacheKey, meta: &CacheMeta, _: &SpanHandle) -> Result<MissHandler> {
        let Some(head) = Head::of(meta) else {
            return Error::e_explain(ErrorType::InternalError, "a response to store without its facts");
        };
        if self.held.load(Ordering::Relaxed) >= self.held_max {
            self.reject(Rejection::Fills);
            return Error::e_explain(ErrorType::InternalError, "fills in progress hold as much memory as they may");
        }
        let key = ObjectKey::of(key);
        let expected = head.response.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let max = self.memory.max_object();
        let fill = Arc::new(Fill::new(id, key, Arc::new(head), expected, max, self.held.clone()));
        self.fills(&key).insert(key, fill.clone());
        self.running.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Writer { store: self, fill, id: id.into(), ended: false }))
    }

    async fn purge(&'static self, target: PurgeTarget<'_>, _: PurgeType, _: &SpanHandle) -> Result<PurgeOutcome> {
        let key = target.key();
        let key = ObjectKey { primary: key.primary_bin(), variance: key.variance_bin() };
        Ok(if self.memory.remove(&key) { PurgeOutcome::Purged(None) } else { PurgeOutcome::NotFound })
    }

    async fn update_meta(&'static self, key: &CacheKey, meta: &CacheMeta, _: &SpanHandle) -> Result<bool> {
        let key = ObjectKey::of(key);
        let (Some(object), Some(head)) = (self.memory.peek(&key), Head::of(meta)) else { return Ok(false) };
        self.memory.insert(key, Arc::new(Object::new(Arc::new(head), object.body.clone())));
        Ok(true)
    }

    fn support_streaming_partial_write(&self) -> bool {
        true
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

/// The writer of a fill. Dropped before its end, it has failed.
struct Writer {
    store: &'static Store,
    fill: Arc<Fill>,
    id: U64WriteId,
    ended: bool,
}

#[async_trait]
impl HandleMiss for Writer {
    async fn write_body(&mut self, data: Bytes, _: bool) -> Result<()> {
        if self.fill.write(data)? == Written::Outgrown {
            self.store.forget(&self.fill);
            self.store.reject(Rejection::TooLarge);
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<MissFinishType> {
        let Some(body) = self.fill.body()? else {
            self.end(true);
            return Ok(MissFinishType::Created(0));
        };
        let object = Arc::new(Object::new(Arc::new(self.fill.head.with_length(body.len())), body));
        let weight = object.weight();
        // First stored, then forgotten as a fill: in between, it is found as either.
        self.store.memory.insert(self.fill.key, object);
        self.end(true);
        Ok(MissFinishType::Created(usize::try_from(weight).unwrap_or(usize::MAX)))
    }

    fn streaming_write_tag(&self) -> Option<&[u8]> {
        Some(self.id.as_bytes())
    }
}

impl Writer {
    fn end(&mut self, complete: bool) {
        self.ended = true;
        self.store.forget(&self.fill);
        self.fill.end(complete);
        self.store.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.ended {
            self.end(false);
        }
    }
}

/// A hit on a fill in progress.
pub struct Followed {
    reader: Reader,
    /// Bytes to pass over before the next that are wanted.
    skip: u64,
    /// Bytes wanted from there on; `None`: all.
    left: Option<u64>,
}

impl Followed {
    /// The fill that is followed.
    pub fn fill(&self) -> &Arc<Fill> {
        self.reader.fill()
    }
}

#[async_trait]
impl HandleHit for Followed {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        while self.left != Some(0) {
            let Some(mut piece) = self.reader.read().await? else { break };
            let len = piece.len() as u64;
            let passed = self.skip.min(len);
            self.skip -= passed;
            let wanted = self.left.unwrap_or(u64::MAX).min(len - passed);
            if let Some(left) = &mut self.left {
                *left -= wanted;
            }
            if wanted > 0 {
                // Both are within the piece's length, which is a usize.
                return Ok(Some(piece.split_to((passed + wanted) as usize).split_off(passed as usize)));
            }
        }
        Ok(None)
    }

    async fn finish(self: Box<Self>, _: &'static (dyn Storage + Sync), _: &CacheKey, _: &SpanHandle) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        true
    }

    /// Only forward: several ranges are cut out of the whole by Pingora's filter.
    fn can_seek_multipart(&self) -> bool {
        false
    }

    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        let Some(len) = end.map_or(Some(None), |end| end.checked_sub(start).map(Some)) else {
            return Error::e_explain(ErrorType::InternalError, "a range that ends before it begins");
        };
        (self.skip, self.left) = (start as u64, len.map(|len| len as u64));
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}

/// A hit on a whole object.
struct Whole {
    object: Arc<Object>,
    range: Option<Range<usize>>,
}

impl Whole {
    fn new(object: Arc<Object>) -> Whole {
        let range = Some(0..object.body.len());
        Whole { object, range }
    }
}

#[async_trait]
impl HandleHit for Whole {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        Ok(self.range.take().filter(|range| !range.is_empty()).map(|range| self.object.body.slice(range)))
    }

    async fn finish(self: Box<Self>, _: &'static (dyn Storage + Sync), _: &CacheKey, _: &SpanHandle) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        true
    }

    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        let len = self.object.body.len();
        let end = end.unwrap_or(len).min(len);
        if start > end {
            return Error::e_explain(ErrorType::InternalError, "a range that begins after the end of the object");
        }
        self.range = Some(start..end);
        Ok(())
    }

    fn get_eviction_weight(&self) -> usize {
        usize::try_from(self.object.weight()).unwrap_or(usize::MAX)
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}
