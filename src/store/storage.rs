//! Pingora's `Storage` over the tiers, and the fills on their way into them.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::{Error, ErrorType, Result};
use pingora_cache::key::CacheHashKey;
use pingora_cache::storage::streaming_write::U64WriteId;
use pingora_cache::storage::{HandleMiss, HitHandler, MissFinishType, MissHandler, PurgeOutcome, PurgeTarget, Storage};
use pingora_cache::trace::SpanHandle;
use pingora_cache::{CacheKey, CacheMeta, PurgeType};

use super::fill::{Fill, Filled, Reader, Written};
use super::key::ObjectKey;
use super::object::Head;
use super::reading::{Followed, Whole};
use super::store::{Rejection, Store};
use crate::http_cache::Tiers;

/// In the extensions of a cache key: what the key was made of, and where its route keeps responses.
#[derive(Clone)]
pub struct Looked {
    pub text: Bytes,
    pub tiers: Tiers,
}

impl Store {
    fn followed(
        &self,
        fill: &Arc<Fill>,
        follow: fn(&Arc<Fill>, u64) -> Option<Reader>,
    ) -> Option<(CacheMeta, HitHandler)> {
        let reader = self.follow(fill, follow)?;
        Some((fill.head.meta(), Box::new(Followed::new(reader))))
    }
}

#[async_trait]
impl Storage for Store {
    async fn lookup(&'static self, key: &CacheKey, _: &SpanHandle) -> Result<Option<(CacheMeta, HitHandler)>> {
        let object_key = ObjectKey::of(key);
        // A fill in progress is newer than what is stored.
        if let Some(followed) = self.filling(&object_key).and_then(|fill| self.followed(&fill, Fill::follow)) {
            return Ok(Some(followed));
        }
        let Some(looked) = key.extensions.get::<Looked>() else { return Ok(None) };
        let object = self.find(object_key, &looked.text, looked.tiers).await;
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
        Ok(fill.and_then(|fill| self.followed(&fill, Fill::follow_own)))
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
        Ok(if self.remove(&key).await { PurgeOutcome::Purged(None) } else { PurgeOutcome::NotFound })
    }

    async fn update_meta(&'static self, key: &CacheKey, meta: &CacheMeta, _: &SpanHandle) -> Result<bool> {
        Ok(self.freshen(&ObjectKey::of(key), meta).await)
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
        self.fill.wait_for_room().await;
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<MissFinishType> {
        let len = Writer::finish(*self).await?;
        Ok(MissFinishType::Created(usize::try_from(len).unwrap_or(usize::MAX)))
    }

    fn streaming_write_tag(&self) -> Option<&[u8]> {
        Some(self.id.as_bytes())
    }
}

impl Writer {
    pub(super) fn new(store: &'static Store, fill: Arc<Fill>) -> Writer {
        let id = fill.id.into();
        Writer { store, fill, id, ended: false }
    }

    /// What is being filled.
    pub fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

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

    /// The body is complete: stores the object and says how many bytes of it there are. Who follows it learns of its end
    /// when it is stored: so what a client has had whole is there to stay.
    ///
    /// # Errors
    /// The body is shorter than was announced.
    pub async fn finish(mut self) -> Result<u64> {
        let (key, store) = (self.fill.key, self.store);
        let len = match self.fill.filled().await? {
            Filled::Passed => 0,
            Filled::Whole(body) => {
                let len = body.len() as u64;
                // First stored, then forgotten as a fill: in between, it is found as either.
                store.settle(key, self.fill.head.with_length(len), body).await;
                len
            }
            Filled::Spilled(spill, len) => {
                let head = store.admitted(self.fill.head.with_length(len)).map(Arc::new);
                let latest = |head: &Arc<Head>| !store.peek(&key).is_some_and(|other| head.is_older_than(&other.head));
                let Some(head) = head.filter(latest) else {
                    self.end(true);
                    return Ok(0);
                };
                let current = store.currency(&head);
                spill.commit(head, len, current).await;
                // What is in memory is of before.
                if let Some(before) = store.memory().peek(&key.id())
                    && before.head.record.id < self.fill.id
                {
                    store.memory().remove(&key.id());
                }
                len
            }
        };
        self.end(true);
        Ok(len)
    }

    /// The same where nobody waits for the disk: what goes to memory is there at once.
    pub fn finish_aside(mut self) {
        match self.fill.body() {
            Ok(Some(body)) => {
                let head = self.fill.head.with_length(body.len() as u64);
                tokio::spawn(self.store.settle(self.fill.key, head, body));
                self.end(true);
            }
            Ok(None) => _ = tokio::spawn(self.finish()),
            Err(_) => {}
        }
    }

    fn end(&mut self, complete: bool) {
        self.ended = true;
        self.store.ended(&self.fill);
        self.fill.end(complete);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.ended {
            self.end(false);
        }
    }
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
