//! All that is stored, in memory and on disks, and what is on its way there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use pingora_cache::CacheMeta;
use pingora_cache::key::HashBinary;

use super::disk::{Disk, Disks, Wanted};
use super::failures::Failures;
use super::fill::{Fill, Reader, Room, spill_above};
use super::key::{AlreadyHashed, ObjectId, ObjectKey};
use super::memory::MemoryTier;
use super::object::{Body, Head, Object};
use super::sketch::Sketch;
use super::storage::Writer;
use super::uncacheable::Uncacheable;
use crate::config::model;
use crate::http_cache::{Policy, Tiers};

const SHARDS: usize = 16;

/// What fills may hold in memory at least, where a disk takes what is large: a window for each of many.
const HELD_WITH_DISK: u64 = 128 * 1024 * 1024;

/// How long the end of a response that is not stored waits for the removal of what was there before.
const REMOVED_SOON: Duration = Duration::from_millis(250);

/// All that is stored. One for the life of the process.
pub struct Store {
    memory: Arc<MemoryTier>,
    disks: Arc<Disks>,
    fills: [Mutex<HashMap<ObjectKey, Arc<Fill>, AlreadyHashed>>; SHARDS],
    /// Fills whose own reader has not come yet. Another fill of the same key may be the one that is found by it.
    starting: Mutex<HashMap<u64, Arc<Fill>>>,
    next_id: AtomicU64,
    /// The heads of all fills in progress, by their numbers.
    running: Mutex<HashMap<u64, Arc<Head>>>,
    /// Bytes that the fills hold, and what they may.
    held: Arc<AtomicU64>,
    held_max: u64,
    uncacheable: Uncacheable,
    failures: Failures,
    sketch: Sketch,
    rejected: [AtomicU64; Rejection::ALL.len()],
}

/// Why something that may be stored is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Larger than any tier takes.
    TooLarge,
    /// The fills in progress hold as much memory as they may.
    Fills,
    /// It has not been asked for often enough (`after`).
    Seldom,
    /// It has tags by which it could not be purged.
    Tags,
}

impl Rejection {
    pub const ALL: [Rejection; 4] = [Rejection::TooLarge, Rejection::Fills, Rejection::Seldom, Rejection::Tags];

    /// A stable word, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Rejection::TooLarge => "too-large",
            Rejection::Fills => "fills",
            Rejection::Seldom => "seldom",
            Rejection::Tags => "tags",
        }
    }
}

impl Store {
    /// A store; lives as long as the process, which is what Pingora's cache wants of a storage.
    pub fn leak(config: model::MemoryTier, disks: Disks) -> &'static Store {
        let (memory, disks) = (Arc::new(MemoryTier::new(config)), Arc::new(disks));
        if !disks.is_empty() {
            // What serves from memory is of use on the disk too, though nobody reads it there.
            let used = memory.clone();
            disks.on_eviction(move |id| used.peek(&id).is_some_and(|object| object.was_hit_lately()));
            let told = disks.clone();
            memory.on_used_evicted(move |id| told.touch(id));
        }
        // One object must always fit, however small the tier is.
        let held_max = (config.size / 2).max(config.max_object);
        Box::leak(Box::new(Store {
            held_max: if disks.is_empty() { held_max } else { held_max.max(HELD_WITH_DISK) },
            memory,
            disks,
            fills: std::array::from_fn(|_| Mutex::default()),
            starting: Mutex::default(),
            // Numbers go on rising over restarts: what is on a disk has one from before.
            next_id: AtomicU64::new(micros_since_epoch().max(1)),
            running: Mutex::default(),
            held: Arc::default(),
            uncacheable: Uncacheable::default(),
            failures: Failures::default(),
            sketch: Sketch::default(),
            rejected: Default::default(),
        }))
    }

    pub fn memory(&self) -> &MemoryTier {
        &self.memory
    }

    pub fn disks(&self) -> &Arc<Disks> {
        &self.disks
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
        self.running().len()
    }

    /// Bytes that fills in progress hold in memory, apart from the memory tier's own.
    pub fn fill_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Another process takes the disks over. Blocks.
    pub fn hand_over(&self) {
        self.credit_hits();
        self.disks.hand_over();
    }

    /// The end: what there is on the disks is written down, in the order in which it would go. Blocks.
    pub fn shut(&self) {
        self.credit_hits();
        self.disks.shut();
    }

    /// What was of use in memory was of use on the disk.
    fn credit_hits(&self) {
        if self.disks.is_empty() {
            return;
        }
        for (id, object) in self.memory.iter() {
            if object.was_hit_lately() {
                self.disks.touch(&id);
            }
        }
    }

    // ---- what is stored

    /// What is stored under a key, in either tier; `text`: the key's own.
    pub async fn find(&self, key: ObjectKey, text: &[u8], tiers: Tiers) -> Option<Arc<Object>> {
        let id = key.id();
        let object = match self.memory.get(&id) {
            Some(object) => object,
            None => self.find_on_disk(key, text, tiers).await?,
        };
        self.usable(&id, object)
    }

    async fn find_on_disk(&self, key: ObjectKey, text: &[u8], tiers: Tiers) -> Option<Arc<Object>> {
        let id = key.id();
        let disk = self.disks.of(&id)?;
        let object = disk.find(id, Wanted { text, variance: key.variance, tiers }).await?;
        // What has been purged need not be read.
        let object = self.usable(&id, object)?;
        self.promote(id, disk, object).await
    }

    /// Takes a copy into memory of what is small, and either finds room there or is not asked for the first time.
    async fn promote(&self, id: ObjectId, disk: &Disk, object: Arc<Object>) -> Option<Arc<Object>> {
        let Body::Disk(file) = &object.body else { return Some(object) };
        let len = file.len();
        if !object.head.record.tiers.memory || !self.memory.takes(len) {
            return Some(object);
        }
        if object.hits() == 0 && !self.memory.has_room(object.weight() + len) {
            return Some(object);
        }
        let Ok(body) = file.read(0..len).await else {
            return None;
        };
        let copy = Arc::new(Object::new(object.head.clone(), Body::Memory(body)).succeeding(&object));
        // Another response, or another head for this one, may have come meanwhile: that is what counts.
        if !self.memory.insert_new(id, &copy) {
            return self.memory.get(&id);
        }
        if !disk.has_still(&id, &object) {
            self.memory.remove_this(&id, &copy);
            return None;
        }
        // The one in memory answers from now on: the file need not stay open.
        disk.close(&id);
        Some(copy)
    }

    /// What can be found under a key without waiting: in memory, or open on a disk.
    pub fn peek(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        let id = key.id();
        self.memory.peek(&id).or_else(|| self.disks.of(&id)?.peek(&id))
    }

    /// Takes an object out of both tiers. Once it has returned, nobody finds it; the future is done when the disk has
    /// forgotten it too.
    pub fn remove(&self, key: &ObjectKey) -> impl Future<Output = bool> + Send + use<> {
        let id = key.id();
        let was = self.memory.remove(&id);
        let gone = self.disks.of(&id).map(|disk| disk.remove(id));
        async move {
            match gone {
                Some(gone) => gone.await | was,
                None => was,
            }
        }
    }

    /// Whether a body of so many bytes can be kept in one of the tiers.
    pub fn takes(&self, len: u64, key: &ObjectKey, tiers: Tiers) -> bool {
        let room = self.room(key, tiers);
        len <= room.memory || room.disk.is_some_and(|(_, max)| len <= max)
    }

    /// Whether the request with this key is the one from which on its route stores the response, `now` in milliseconds
    /// since the process began. Counts it.
    pub fn is_asked_often(&self, key: &HashBinary, policy: &Policy, now: u64) -> bool {
        policy.after <= 1 || self.sketch.count(key, policy.within, now) >= u32::from(policy.after)
    }

    fn room(&self, key: &ObjectKey, tiers: Tiers) -> Room {
        let disk = if tiers.disk { self.disks.of(&key.id()).filter(|disk| disk.admits()) } else { None };
        let memory = if tiers.memory { self.memory.max_object() } else { 0 };
        // Of a disk that has got stuck, the next large response need not find that out anew.
        let largest = |disk: &Disk| match disk.is_stuck() {
            true => disk.max_object().min(spill_above(memory)),
            false => disk.max_object(),
        };
        Room {
            memory,
            disk: disk.map(|disk| (disk.clone(), largest(disk))),
            held: self.held.clone(),
            held_max: self.held_max,
        }
    }

    /// Gives a stored object another head, as a validation has it. Once it has returned, the object has it; the future
    /// is done when the disk has it too, and says whether the object was still there.
    pub fn freshen(&'static self, key: &ObjectKey, meta: &CacheMeta) -> impl Future<Output = bool> + Send + use<> {
        let (key, id) = (*key, key.id());
        let head = Head::of(meta).and_then(|head| self.admitted(head)).map(Arc::new);
        // Another request may have stored something else meanwhile: the validation was not about that.
        let found = head.zip(self.peek(&key)).filter(|(head, object)| object.head.record.id == head.record.id);
        let there = found.is_some();
        let written = found.and_then(|(head, object)| {
            if let Body::Memory(_) = object.body {
                let fresh = Object::new(head.clone(), object.body.clone()).succeeding(&object);
                self.memory.insert(id, Arc::new(fresh));
            }
            let disk = self.disks.of(&id).filter(|_| head.record.tiers.disk)?;
            let current = self.currency(&head);
            Some(disk.freshen(id, head, current))
        });
        async move {
            if let Some(written) = written {
                written.await;
            }
            there
        }
    }

    // ---- fills

    fn fills(&self, key: &ObjectKey) -> MutexGuard<'_, HashMap<ObjectKey, Arc<Fill>, AlreadyHashed>> {
        let shard = usize::from(key.primary[0]) % SHARDS;
        self.fills[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn starting(&self) -> MutexGuard<'_, HashMap<u64, Arc<Fill>>> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The heads of the fills in progress, by their numbers.
    pub(super) fn running(&self) -> MutexGuard<'_, HashMap<u64, Arc<Head>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for one more fill.
    pub fn has_room(&self) -> bool {
        self.fill_bytes() < self.held_max
    }

    /// The fill of a key in progress, if it may be followed.
    pub(super) fn filling(&self, key: &ObjectKey) -> Option<Arc<Fill>> {
        let fill = self.fills(key).get(key).cloned();
        // What a soft purge has made stale is fetched anew rather than followed.
        fill.filter(|fill| self.is_current(&fill.head))
    }

    /// Nobody new finds this fill from now on.
    pub(super) fn forget(&self, fill: &Fill) {
        let mut fills = self.fills(&fill.key);
        if fills.get(&fill.key).is_some_and(|current| current.id == fill.id) {
            fills.remove(&fill.key);
        }
    }

    /// Begins to store a response. Whoever asks for it from now on follows it.
    pub fn fill(&'static self, key: ObjectKey, head: Head) -> Writer {
        let writer = self.fill_aside(key, head);
        self.fills(&key).insert(key, writer.fill().clone());
        writer
    }

    /// Begins to store a response that nobody finds until it is whole.
    pub fn fill_aside(&'static self, key: ObjectKey, mut head: Head) -> Writer {
        let expected = head.response.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let id = self.next_id();
        head.record.id = id;
        let room = self.room(&key, head.record.tiers);
        let fill = Arc::new(Fill::new(id, key, Arc::new(head), expected, room));
        self.running().insert(id, fill.head.clone());
        Writer::new(self, fill)
    }

    /// A fill is over.
    pub(super) fn ended(&self, fill: &Fill) {
        self.starting().remove(&fill.id);
        self.forget(fill);
        self.running().remove(&fill.id);
    }

    pub(super) fn follow(&self, fill: &Arc<Fill>, follow: fn(&Arc<Fill>, u64) -> Option<Reader>) -> Option<Reader> {
        follow(fill, self.next_id())
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps a whole response in the tiers that are its: in memory at once; the future is done when the disk has it, or
    /// has had its chance.
    pub(super) fn settle(
        &'static self,
        key: ObjectKey,
        head: Head,
        body: Bytes,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (mut stored, mut removed) = (None, None);
        let (id, len) = (key.id(), body.len() as u64);
        let object = self.admitted(head).map(|head| Arc::new(Object::new(Arc::new(head), Body::Memory(body))));
        let latest =
            |object: &Arc<Object>| !self.peek(&key).is_some_and(|other| object.head.is_older_than(&other.head));
        if let Some(object) = object.filter(latest) {
            let (tiers, of_key) = (object.head.record.tiers, self.disks.of(&id));
            let disk = of_key.filter(|disk| tiers.disk && disk.accepts() && len <= disk.max_object());
            if tiers.memory && self.memory.takes(len) {
                self.memory.insert(id, object.clone());
            } else if disk.is_some() {
                // What was there before is not to answer any more.
                self.memory.remove(&id);
            }
            match disk {
                Some(disk) => {
                    let current = self.currency(&object.head);
                    stored = Some(disk.store(id, object, current));
                }
                // What is there is of before.
                None => removed = of_key.map(|disk| disk.remove(id)),
            }
        }
        async move {
            if let Some(stored) = stored {
                stored.await;
            }
            if let Some(removed) = removed {
                // The end of the response waits for it, but not for a disk that does not get on.
                let _ = tokio::time::timeout(REMOVED_SOON, removed).await;
            }
        }
    }
}

fn micros_since_epoch() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX / 2)
}
