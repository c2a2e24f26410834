//! How Pingora's cache reads a hit: of a fill in progress, and of a whole object in either tier.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::{Error, ErrorType, Result};
use pingora_cache::CacheKey;
use pingora_cache::storage::{HandleHit, Storage};
use pingora_cache::trace::SpanHandle;

use super::fill::{Fill, Reader};
use super::object::{Body, Object};

/// A hit on a fill in progress.
pub struct Followed {
    reader: Reader,
    /// Bytes to pass over before the next that are wanted.
    skip: u64,
    /// Bytes wanted from there on; `None`: all.
    left: Option<u64>,
}

impl Followed {
    /// A hit on all of it, until [`HandleHit::seek`] says otherwise.
    pub fn new(reader: Reader) -> Followed {
        Followed { reader, skip: 0, left: None }
    }

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
        let start = start as u64;
        self.skip = if self.reader.seek(start) { 0 } else { start };
        self.left = len.map(|len| len as u64);
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
pub const PIECE: u64 = 64 * 1024;

/// A hit on a whole object.
pub struct Whole {
    object: Arc<Object>,
    /// What is still to be given out.
    range: Range<u64>,
}

impl Whole {
    pub fn new(object: Arc<Object>) -> Whole {
        let range = 0..object.body.len();
        Whole { object, range }
    }

    /// The object that was hit.
    pub fn object(&self) -> &Arc<Object> {
        &self.object
    }

    /// The next piece of a part of an object's body, which is taken off `range`; `None` at its end. Whoever stops waiting
    /// for it loses nothing.
    ///
    /// # Errors
    /// The disk cannot be read, or what it gives is not what was stored.
    pub async fn next(object: &Object, range: &mut Range<u64>) -> Result<Option<Bytes>> {
        if range.is_empty() {
            return Ok(None);
        }
        let piece = range.start..range.end.min(range.start + PIECE);
        let bytes = match &object.body {
            // Within the body, whose length is a usize.
            Body::Memory(bytes) => bytes.slice(piece.start as usize..piece.end as usize),
            Body::Disk(file) => file.read(piece.clone()).await?,
        };
        range.start = piece.end;
        Ok(Some(bytes))
    }
}

#[async_trait]
impl HandleHit for Whole {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        Whole::next(&self.object, &mut self.range).await
    }

    async fn finish(self: Box<Self>, _: &'static (dyn Storage + Sync), _: &CacheKey, _: &SpanHandle) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        true
    }

    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        let len = self.object.body.len();
        let (start, end) = (start as u64, end.map_or(len, |end| (end as u64).min(len)));
        if start > end {
            return Error::e_explain(ErrorType::InternalError, "a range that begins after the end of the object");
        }
        self.range = start..end;
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
