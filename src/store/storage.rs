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
use pingora_cache::key::{CacheHashKey, HashBinary};
use pingora_cache::storage::streaming_write::U64WriteId;
use pingora_cache::storage::{
    HandleHit, HandleMiss, HitHandler, MissFinishType, MissHandler, PurgeOutcome, PurgeTarget, Storage,
};
use pingora_cache::trace::SpanHandle;
use pingora_cache::{CacheKey, CacheMeta, PurgeType};

use super::failures::Failures;
use super::fill::{Fill, Reader, Written};
use super::key::{AlreadyHashed, ObjectKey};
use super::memory::MemoryTier;
use super::object::{Head, Object, Record, UrlMark};
use super::uncacheable::Uncacheable;
use crate::config::model;

const SHARDS: usize = 16;

/// Resources that share a sequence: the more, the fewer fills are given up for somebody else's invalidation.
const SEQUENCES: usize = 4096;

/// All that is stored. One for the life of the process.
pub struct Store {
    memory: MemoryTier,
    fills: [Mutex<HashMap<ObjectKey, Arc<Fill>, AlreadyHashed>>; SHARDS],
    /// Fills whose own reader has not come yet. Another fill of the same key may be the one that is found by it.
    starting: Mutex<HashMap<u64, Arc<Fill>>>,
    next_id: AtomicU64,
    sequences: Box<[AtomicU64]>,
    urls: Box<[AtomicU64]>,
    running: AtomicUsize,
    /// Bytes that the fills hold, and what they may.
    held: Arc<AtomicU64>,
    held_max: u64,
    uncacheable: Uncacheable,
    failures: Failures,
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
            starting: Mutex::default(),
            next_id: AtomicU64::new(1),
            sequences: (0..SEQUENCES).map(|_| AtomicU64::new(0)).collect(),
            urls: (0..=usize::from(u16::MAX)).map(|_| AtomicU64::new(0)).collect(),
            running: AtomicUsize::new(0),
            held: Arc::default(),
            // One object must always fit, however small the tier is.
            held_max: (config.size / 2).max(config.max_object),
            uncacheable: Uncacheable::default(),
            failures: Failures::default(),
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

    /// For which resources the origin has lately failed.
    pub fn failures(&self) -> &Failures {
        &self.failures
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

    fn starting(&self) -> MutexGuard<'_, HashMap<u64, Arc<Fill>>> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for one more fill.
    pub fn has_room(&self) -> bool {
        self.fill_bytes() < self.held_max
    }

    /// How often a resource has been invalidated. What was asked for before the latest time is not stored: it may
    /// describe what was before.
    pub fn sequence(&self, primary: &HashBinary) -> u64 {
        self.sequence_of(primary).load(Ordering::Acquire)
    }

    /// How often a URL has been invalidated, for what is stored under more than that. URLs on the same slot share their
    /// fate, which costs those a fetch.
    pub fn url_mark(&self, url: &HashBinary) -> UrlMark {
        let slot = u16::from_ne_bytes([url[0], url[1]]);
        UrlMark { slot, count: self.urls[usize::from(slot)].load(Ordering::Acquire) }
    }

    /// Whether what is stored may still be used, as far as its URL is concerned.
    pub fn is_usable(&self, record: &Record) -> bool {
        record.url.is_none_or(|mark| self.urls[usize::from(mark.slot)].load(Ordering::Acquire) == mark.count)
    }

    /// Makes what is stored of a resource, in all its variants, unusable, and whatever is on its way; and so whatever is
    /// stored under its URL and more.
    pub fn invalidate(&self, primary: HashBinary, url: &HashBinary) {
        self.urls[usize::from(self.url_mark(url).slot)].fetch_add(1, Ordering::AcqRel);
        // First the sequence: a fill that ends meanwhile looks at it after it has stored.
        self.sequence_of(&primary).fetch_add(1, Ordering::AcqRel);
        // The other variants belong to the primary: without it, or with a later one, they are not used.
        self.memory.remove(&ObjectKey::primary(primary));
    }

    fn sequence_of(&self, primary: &HashBinary) -> &AtomicU64 {
        let word = u64::from_ne_bytes(std::array::from_fn(|i| primary[i]));
        &self.sequences[(word % SEQUENCES as u64) as usize]
    }

    fn is_current(&self, key: &ObjectKey, head: &Head) -> bool {
        self.sequence(&key.primary) == head.record.began && self.is_usable(&head.record)
    }

    fn filling(&self, key: &ObjectKey) -> Option<Arc<Fill>> {
        self.fills(key).get(key).filter(|fill| self.is_current(key, &fill.head)).cloned()
    }

    /// Nobody new finds this fill from now on.
    fn forget(&self, fill: &Fill) {
        let mut fills = self.fills(&fill.key);
        if fills.get(&fill.key).is_some_and(|current| current.id == fill.id) {
            fills.remove(&fill.key);
        }
    }

    /// Stores an object, unless its resource has been invalidated since it was asked for.
    fn keep(&self, key: ObjectKey, object: Object) {
        if !self.is_current(&key, &object.head) {
            return;
        }
        let object = Arc::new(object);
        self.memory.insert(key, object.clone());
        // Again: else an invalidation between the look and the insertion would be lost.
        if !self.is_current(&key, &object.head) {
            self.memory.remove(&key);
        }
    }

    /// Gives a stored object another head, as a validation has it; whether the object was still there.
    pub fn freshen(&self, key: &ObjectKey, meta: &CacheMeta) -> bool {
        let (Some(object), Some(head)) = (self.memory.peek(key), Head::of(meta)) else { return false };
        // Another request may have stored something else meanwhile: the validation was not about that.
        if object.head.record.id != head.record.id {
            return false;
        }
        self.keep(*key, Object::new(Arc::new(head), object.body.clone()));
        true
    }

    /// Begins to store a response. Whoever asks for it from now on follows it.
    pub fn fill(&'static self, key: ObjectKey, head: Head) -> Writer {
        let writer = self.fill_aside(key, head);
        self.fills(&key).insert(key, writer.fill.clone());
        writer
    }

    /// Begins to store a response that nobody finds until it is whole.
    pub fn fill_aside(&'static self, key: ObjectKey, mut head: Head) -> Writer {
        let expected = head.response.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let max = self.memory.max_object();
        head.record.id = id;
        let fill = Arc::new(Fill::new(id, key, Arc::new(head), expected, max, (self.held.clone(), self.held_max)));
        self.running.fetch_add(1, Ordering::Relaxed);
        Writer { store: self, fill, id: id.into(), ended: false }
    }

    fn follow(
        &self,
        fill: &Arc<Fill>,
        follow: fn(&Arc<Fill>, u64) -> Option<Reader>,
    ) -> Option<(CacheMeta, HitHandler)> {
        let reader = follow(fill, self.next_id.fetch_add(1, Ordering::Relaxed))?;
        Some((fill.head.meta(), Box::new(Followed { reader, skip: 0, left: None })))
    }
}

#[async_trait]
impl Storage for Store {
    async fn lookup(&'static self, key: &CacheKey, _: &SpanHandle) -> Result<Option<(CacheMeta, HitHandler)>> {
        let key = ObjectKey::of(key);
        // A fill in progress is newer than what is stored.
        if let Some(followed) = self.filling(&key).and_then(|fill| self.follow(&fill, Fill::follow)) {
            return Ok(Some(followed));
        }
        let object = self.memory.get(&key).filter(|object| self.is_usable(&object.head.record));
        Ok(object.map(|object| (object.head.meta(), Box::new(Whole::new(object)) as HitHandler)))
    }

    async fn lookup_streaming_write(
        &'static self,
        key: &CacheKey,
        tag: Option<&[u8]>,
        trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let Some(tag) = tag else { return self.lookup(key, trace).await };
        let fill = U64WriteId::try_from(tag).ok().and_then(|id| self.starting().remove(&u64::from(id)));
        Ok(fill.and_then(|fill| self.follow(&fill, Fill::follow_own)))
    }

    async fn get_miss_handler(&'static self, key: &CacheKey, meta: &CacheMeta, _: &SpanHandle) -> Result<MissHandler> {
        let Some(head) = Head::of(meta) else {
            return Error::e_explain(ErrorType::InternalError, "a response to store without its facts");
        };
        let writer = self.fill(ObjectKey::of(key), head);
        self.starting().insert(writer.fill.id, writer.fill.clone());
        Ok(Box::new(writer))
    }

    async fn purge(&'static self, target: PurgeTarget<'_>, _: PurgeType, _: &SpanHandle) -> Result<PurgeOutcome> {
        let key = target.key();
        let key = ObjectKey { primary: key.primary_bin(), variance: key.variance_bin() };
        Ok(if self.memory.remove(&key) { PurgeOutcome::Purged(None) } else { PurgeOutcome::NotFound })
    }

    async fn update_meta(&'static self, key: &CacheKey, meta: &CacheMeta, _: &SpanHandle) -> Result<bool> {
        Ok(self.freshen(&ObjectKey::of(key), meta))
    }

    fn support_streaming_partial_write(&self) -> bool {
        true
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

/// The writer of a fill. Dropped before its end, it has failed.
pub struct Writer {
    store: &'static Store,
    fill: Arc<Fill>,
    id: U64WriteId,
    ended: bool,
}

#[async_trait]
impl HandleMiss for Writer {
    async fn write_body(&mut self, data: Bytes, _: bool) -> Result<()> {
        self.write(data)?;
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<MissFinishType> {
        let weight = Writer::finish(*self)?;
        Ok(MissFinishType::Created(usize::try_from(weight).unwrap_or(usize::MAX)))
    }

    fn streaming_write_tag(&self) -> Option<&[u8]> {
        Some(self.id.as_bytes())
    }
}

impl Writer {
    /// Adds to the body.
    ///
    /// # Errors
    /// The body is longer than was announced, or the fill holds more than it may.
    pub fn write(&mut self, data: Bytes) -> Result<Written> {
        let written = self.fill.write(data)?;
        if written == Written::Outgrown {
            self.store.forget(&self.fill);
            self.store.reject(Rejection::TooLarge);
        }
        Ok(written)
    }

    /// The body is complete: stores the object and says how many bytes it takes.
    ///
    /// # Errors
    /// The body is shorter than was announced.
    pub fn finish(mut self) -> Result<u64> {
        let Some(body) = self.fill.body()? else {
            self.end(true);
            return Ok(0);
        };
        let object = Object::new(Arc::new(self.fill.head.with_length(body.len())), body);
        let weight = object.weight();
        // First stored, then forgotten as a fill: in between, it is found as either.
        if !self.store.memory.peek(&self.fill.key).is_some_and(|other| object.is_older_than(&other)) {
            self.store.keep(self.fill.key, object);
        }
        self.end(true);
        Ok(weight)
    }

    fn end(&mut self, complete: bool) {
        self.ended = true;
        self.store.starting().remove(&self.fill.id);
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

/// A hit is given out in pieces of this size, in bytes: the time limit of writing to a client is for each.
const PIECE: usize = 64 * 1024;

/// A hit on a whole object.
pub struct Whole {
    object: Arc<Object>,
    range: Option<Range<usize>>,
}

impl Whole {
    fn new(object: Arc<Object>) -> Whole {
        let range = Some(0..object.body.len());
        Whole { object, range }
    }

    /// The object that was hit.
    pub fn object(&self) -> &Arc<Object> {
        &self.object
    }
}

#[async_trait]
impl HandleHit for Whole {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        let Some(range) = self.range.take().filter(|range| !range.is_empty()) else { return Ok(None) };
        let piece = range.start..range.end.min(range.start + PIECE);
        self.range = Some(piece.end..range.end);
        Ok(Some(self.object.body.slice(piece)))
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

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
