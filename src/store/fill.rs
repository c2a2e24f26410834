//! A response that is still coming: one writer, any number of readers that follow it from its first byte.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::{Error, ErrorType, Result};
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::key::ObjectKey;
use super::object::Head;

/// How far, in bytes, a reader of a response too large to keep may be behind the fastest one. Beyond, it is dropped:
/// what it has not read yet would have to be kept for it alone.
pub const MAX_LAG: u64 = 4 * 1024 * 1024;

/// How far, in bytes, the writer of such a response may be ahead of its fastest reader before it is slowed down, once
/// the client that it began with has left.
const WINDOW: u64 = 1024 * 1024;

/// The longest pause of a writer that is far ahead.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Bytes ahead, beyond the window, that cost the writer a millisecond for each of its chunks.
const AHEAD_PER_MS: u64 = 4 * 1024;

/// The most, in bytes, that such a response may hold. It takes a client that reads nothing for minutes to get there.
const MAX_HELD: u64 = 12 * 1024 * 1024;

/// How much the writer's own reader is given at once. Both run in one task, taking turns, and the writer takes several
/// chunks a turn: a reader that took one would fall ever further behind.
const AT_ONCE: usize = 512 * 1024;

/// Chunks below this size are copied: a few bytes can be a slice of a read buffer of 64 KiB.
const COPY_BELOW: usize = 16 * 1024;

/// A fill in progress.
pub struct Fill {
    pub id: u64,
    pub key: ObjectKey,
    pub head: Arc<Head>,
    /// What Content-Length announced.
    expected: Option<u64>,
    /// A body above this size is passed on but not kept.
    max: u64,
    state: Mutex<State>,
    changed: Notify,
    /// Bytes that all fills hold together.
    held: Arc<AtomicU64>,
}

struct State {
    chunks: VecDeque<Bytes>,
    /// How many chunks have been let go at the front.
    gone: usize,
    /// Bytes received so far.
    len: u64,
    held: u64,
    phase: Phase,
    /// Too large to keep: chunks go as soon as every reader has them.
    oversize: bool,
    readers: Vec<Position>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Complete,
    Failed,
}

struct Position {
    reader: u64,
    chunk: usize,
    offset: u64,
    own: bool,
}

/// One who follows a fill.
pub struct Reader {
    fill: Arc<Fill>,
    id: u64,
    /// It serves the client whose request feeds the fill.
    own: bool,
    /// Where it joins the chunks that it is given at once.
    joined: BytesMut,
}

/// How a write went.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// Kept, so far.
    Kept,
    /// This write has made the response too large to keep.
    Outgrown,
    /// It was too large before.
    Passed,
}

impl Fill {
    /// A fill that nobody reads yet. `max`: the largest body that is kept.
    pub fn new(
        id: u64,
        key: ObjectKey,
        head: Arc<Head>,
        expected: Option<u64>,
        max: u64,
        held: Arc<AtomicU64>,
    ) -> Fill {
        Fill {
            id,
            key,
            head,
            expected,
            max,
            state: Mutex::new(State {
                chunks: VecDeque::new(),
                gone: 0,
                len: 0,
                held: 0,
                phase: Phase::Running,
                oversize: false,
                readers: Vec::new(),
            }),
            changed: Notify::new(),
            held,
        }
    }

    /// Takes the next bytes of the body.
    ///
    /// # Errors
    /// The body is longer than announced, or it cannot be kept and nobody reads it any more, or not for minutes.
    pub fn write(&self, data: Bytes) -> Result<Written> {
        if data.is_empty() {
            return Ok(Written::Kept);
        }
        let data = if data.len() < COPY_BELOW { Bytes::copy_from_slice(&data) } else { data };
        let written = {
            let mut state = self.lock();
            let len = state.len + data.len() as u64;
            if self.expected.is_some_and(|expected| len > expected) {
                return fail("the origin sent more than its Content-Length");
            }
            state.len = len;
            state.held += data.len() as u64;
            self.held.fetch_add(data.len() as u64, Ordering::Relaxed);
            state.chunks.push_back(data);
            let outgrown = len > self.max && !state.oversize;
            state.oversize |= outgrown;
            if state.oversize {
                state.drop_laggards();
                if state.readers.is_empty() {
                    return fail("nobody reads a response that is too large to keep");
                }
                self.let_go(&mut state);
                if state.held > MAX_HELD {
                    return fail("nobody takes a response that is too large to keep");
                }
            }
            match (outgrown, state.oversize) {
                (true, _) => Written::Outgrown,
                (false, true) => Written::Passed,
                (false, false) => Written::Kept,
            }
        };
        self.changed.notify_waiters();
        Ok(written)
    }

    /// The whole body, in one piece of its own, if it is to be kept. Readers find its end after [`Fill::end`].
    ///
    /// # Errors
    /// The body is shorter than announced.
    pub fn body(&self) -> Result<Option<Bytes>> {
        let state = self.lock();
        if self.expected.is_some_and(|expected| state.len != expected) {
            return fail("the origin sent less than its Content-Length");
        }
        if state.oversize {
            return Ok(None);
        }
        let mut body = BytesMut::with_capacity(state.len as usize);
        state.chunks.iter().for_each(|chunk| body.extend_from_slice(chunk));
        Ok(Some(body.freeze()))
    }

    /// Nothing more will come: because the body is `complete`, or because the writer has failed.
    pub fn end(&self, complete: bool) {
        {
            let mut state = self.lock();
            if state.phase == Phase::Running {
                state.phase = if complete { Phase::Complete } else { Phase::Failed };
            }
        }
        self.changed.notify_waiters();
    }

    /// Whether one who comes now gets the body from its first byte.
    pub fn can_be_followed(&self) -> bool {
        let state = self.lock();
        state.phase != Phase::Failed && !state.oversize
    }

    /// The response has turned out too large to keep.
    pub fn is_oversize(&self) -> bool {
        self.lock().oversize
    }

    /// How long the writer should pause so as not to run away from its readers. Never, for what is kept anyway; nor
    /// while it has a reader of its own, which would have to pause with it.
    pub fn pause(&self) -> Option<Duration> {
        let state = self.lock();
        if state.readers.iter().any(|reader| reader.own) {
            return None;
        }
        let fastest = state.readers.iter().map(|r| r.offset).max().unwrap_or(state.len);
        let ahead = (state.len - fastest).saturating_sub(WINDOW);
        (state.oversize && ahead > 0).then(|| Duration::from_millis(1 + ahead / AHEAD_PER_MS).min(MAX_PAUSE))
    }

    /// A new reader, at the first byte that is still there.
    pub fn follow(self: &Arc<Fill>, id: u64) -> Reader {
        self.reader(id, false)
    }

    /// The reader of the client whose request feeds this fill. As any other, but it never fails before the writer is
    /// done: an error would end the request, and the fill with it, which others may follow.
    pub fn follow_own(self: &Arc<Fill>, id: u64) -> Reader {
        self.reader(id, true)
    }

    fn reader(self: &Arc<Fill>, id: u64, own: bool) -> Reader {
        let mut state = self.lock();
        let chunk = state.gone;
        let offset = state.len - state.chunks.iter().map(|c| c.len() as u64).sum::<u64>();
        state.readers.push(Position { reader: id, chunk, offset, own });
        drop(state);
        Reader { fill: self.clone(), id, own, joined: BytesMut::new() }
    }

    /// The client whose request feeds this fill has left: it is nobody to keep anything for.
    pub fn own_reader_left(&self) {
        let mut state = self.lock();
        state.readers.retain(|reader| !reader.own);
        if state.oversize {
            self.let_go(&mut state);
        }
    }

    /// What there is to be had now; `None`: nothing yet. The writer's own reader gets several chunks, joined in `joined`.
    fn look(&self, id: u64, joined: Option<&mut BytesMut>) -> Option<Result<Option<Bytes>>> {
        let mut pieces = SmallVec::<[Bytes; 8]>::new();
        let mut state = self.lock();
        let State { chunks, gone, phase, readers, oversize, .. } = &mut *state;
        let Some(position) = readers.iter_mut().find(|r| r.reader == id) else {
            let waits = joined.is_some() && *phase == Phase::Running;
            return (!waits).then(|| fail("too slow a reader of a response that is too large to keep"));
        };
        let at_once = if joined.is_some() { AT_ONCE } else { 0 };
        let mut len = 0;
        for chunk in chunks.iter().skip(position.chunk.saturating_sub(*gone)) {
            if !pieces.is_empty() && len + chunk.len() > at_once {
                break;
            }
            len += chunk.len();
            pieces.push(chunk.clone());
        }
        if pieces.is_empty() {
            return match phase {
                Phase::Complete => Some(Ok(None)),
                Phase::Failed => Some(fail("the fill that this response follows has failed")),
                Phase::Running => None,
            };
        }
        position.chunk += pieces.len();
        position.offset += len as u64;
        if *oversize {
            self.let_go(&mut state);
        }
        drop(state);
        let Some(joined) = joined.filter(|_| pieces.len() > 1) else { return Some(Ok(pieces.pop())) };
        // The same room again and again, since what it held last has been sent.
        joined.reserve(AT_ONCE);
        pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
        Some(Ok(Some(joined.split().freeze())))
    }

    /// Lets go of the chunks that every reader has had.
    fn let_go(&self, state: &mut State) {
        let needed = state.readers.iter().map(|r| r.chunk).min().unwrap_or(usize::MAX);
        while state.gone < needed
            && let Some(chunk) = state.chunks.pop_front()
        {
            state.gone += 1;
            state.held -= chunk.len() as u64;
            self.held.fetch_sub(chunk.len() as u64, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        let held = self.lock().held;
        self.held.fetch_sub(held, Ordering::Relaxed);
    }
}

impl State {
    fn drop_laggards(&mut self) {
        let fastest = self.readers.iter().map(|r| r.offset).max().unwrap_or(0);
        self.readers.retain(|reader| fastest - reader.offset <= MAX_LAG);
    }
}

impl Reader {
    /// The next bytes; `None` at the end of a whole body.
    ///
    /// # Errors
    /// The writer has failed, or this reader was dropped for being too slow: what it has had is not the whole body.
    pub async fn read(&mut self) -> Result<Option<Bytes>> {
        let Reader { fill, id, own, joined } = self;
        loop {
            // Before the look: a change in between wakes it.
            let changed = fill.changed.notified();
            if let Some(found) = fill.look(*id, own.then_some(&mut *joined)) {
                return found;
            }
            changed.await;
        }
    }

    /// What is being read.
    pub fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.fill.lock();
        state.readers.retain(|r| r.reader != self.id);
        if state.oversize {
            self.fill.let_go(&mut state);
        }
    }
}

fn fail<T>(why: &'static str) -> Result<T> {
    Error::e_explain(ErrorType::InternalError, why)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use futures_util::FutureExt;
    use pingora::http::ResponseHeader;
    use pingora_cache::CacheMeta;

    use super::*;
    use crate::http_cache::{Policy, RequestDirectives, RequestFacts, Timestamp, storability};
    use crate::store::Record;

    fn fill(expected: Option<u64>, max: u64) -> Arc<Fill> {
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.insert_header("Cache-Control", "max-age=60").unwrap();
        let now = Timestamp::from(SystemTime::now());
        let request = RequestFacts::new(&http::Method::GET, &response.headers, &RequestDirectives::default(), now);
        let stored = storability(&request, response.status, &response.headers, &Policy::default(), now).unwrap();
        let mut meta = CacheMeta::new(SystemTime::now(), SystemTime::now(), 0, 0, response);
        meta.extensions_mut().insert(Record { facts: stored.facts, key: Bytes::new() });
        let key = ObjectKey::primary([1; 16]);
        Arc::new(Fill::new(1, key, Arc::new(Head::of(&meta).unwrap()), expected, max, Arc::default()))
    }

    fn bytes(len: usize) -> Bytes {
        Bytes::from(vec![b'x'; len])
    }

    /// What a reader can have without waiting.
    fn now(reader: &mut Reader) -> Option<Result<Option<Bytes>>> {
        reader.read().now_or_never()
    }

    #[tokio::test]
    async fn readers_get_all_from_the_first_byte_whenever_they_come() {
        let fill = fill(Some(6), 100);
        let mut early = fill.follow(1);
        assert!(now(&mut early).is_none(), "nothing is there yet");
        fill.write(Bytes::from_static(b"abc")).unwrap();
        assert_eq!(early.read().await.unwrap().unwrap(), "abc");
        let mut late = fill.follow(2);
        fill.write(Bytes::from_static(b"def")).unwrap();
        assert_eq!(fill.body().unwrap().unwrap(), "abcdef");
        fill.end(true);
        assert_eq!(early.read().await.unwrap().unwrap(), "def");
        assert!(early.read().await.unwrap().is_none());
        assert_eq!(late.read().await.unwrap().unwrap(), "abc");
        assert_eq!(late.read().await.unwrap().unwrap(), "def");
        assert!(late.read().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let fill = fill(None, 100);
        let mut reader = fill.follow(1);
        let waiting = tokio::spawn(async move { reader.read().await });
        tokio::task::yield_now().await;
        fill.write(Bytes::from_static(b"a")).unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().unwrap(), "a");
    }

    #[tokio::test]
    async fn a_failed_writer_is_an_error_never_an_end() {
        let fill = fill(None, 100);
        let mut reader = fill.follow(1);
        fill.write(Bytes::from_static(b"a")).unwrap();
        fill.end(false);
        assert!(!fill.can_be_followed());
        assert_eq!(reader.read().await.unwrap().unwrap(), "a");
        assert!(reader.read().await.is_err());
        fill.end(true);
        assert!(reader.read().await.is_err(), "what has failed stays failed");
    }

    #[test]
    fn a_length_that_is_not_kept_is_an_error() {
        let short = fill(Some(5), 100);
        short.write(bytes(4)).unwrap();
        assert!(short.body().is_err());
        let long = fill(Some(5), 100);
        assert!(long.write(bytes(6)).is_err());
    }

    #[tokio::test]
    async fn what_outgrows_the_tier_goes_through_a_window() {
        let held = Arc::new(AtomicU64::new(0));
        let base = fill(None, 10);
        let fill = Arc::new(Fill::new(2, base.key, base.head.clone(), None, 100_000, held.clone()));
        let (mut fast, slow) = (fill.follow(1), fill.follow(2));
        assert_eq!(fill.write(bytes(64 * 1024)).unwrap(), Written::Kept);
        assert_eq!(fill.write(bytes(64 * 1024)).unwrap(), Written::Outgrown);
        assert!(!fill.can_be_followed() && fill.body().unwrap().is_none());
        // The slow reader holds everything back until it is too far behind.
        let mut most = 0;
        for _ in 0..200 {
            assert_eq!(fill.write(bytes(64 * 1024)).unwrap(), Written::Passed);
            while let Some(Ok(Some(_))) = now(&mut fast) {}
            assert!(fill.pause().is_none(), "a reader keeps up");
            most = most.max(held.load(Ordering::Relaxed));
        }
        assert!(most <= MAX_LAG + 3 * 64 * 1024, "{most} bytes held");
        assert!(held.load(Ordering::Relaxed) <= 64 * 1024, "what all have read is let go");
        let mut slow = slow;
        assert!(slow.read().await.is_err(), "dropped, and told so");
        drop(fast);
        drop(slow);
        assert!(fill.write(bytes(1)).is_err(), "nobody wants it");
        drop(fill);
        assert_eq!(held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn the_writers_own_reader_gets_several_chunks_at_once() {
        let fill = fill(None, 100 * 64 * 1024);
        let (mut own, mut other) = (fill.follow_own(1), fill.follow(2));
        for _ in 0..10 {
            fill.write(bytes(64 * 1024)).unwrap();
        }
        fill.end(true);
        for len in [AT_ONCE, 2 * 64 * 1024] {
            assert_eq!(own.read().await.unwrap().unwrap().len(), len);
        }
        assert!(own.read().await.unwrap().is_none());
        assert_eq!(other.read().await.unwrap().unwrap().len(), 64 * 1024, "others share the chunks as they are");
    }

    #[tokio::test]
    async fn the_writers_own_reader_fails_only_when_the_writer_is_done() {
        let fill = fill(None, 10);
        let (mut own, mut other) = (fill.follow_own(1), fill.follow(2));
        for _ in 0..80 {
            fill.write(bytes(64 * 1024)).unwrap();
            assert!(other.read().await.unwrap().is_some());
        }
        assert!(now(&mut own).is_none(), "it waits");
        fill.end(true);
        assert!(own.read().await.is_err());
        assert!(other.read().await.unwrap().is_none());
    }

    #[test]
    fn what_nobody_takes_ends() {
        let abandoned = fill(None, 10);
        let _own = abandoned.follow_own(1);
        abandoned.write(bytes(64 * 1024)).unwrap();
        abandoned.own_reader_left();
        assert!(abandoned.write(bytes(1)).is_err());
        let stalled = fill(None, 10);
        let _own = stalled.follow_own(1);
        let taken = (0..1000).take_while(|_| stalled.write(bytes(64 * 1024)).is_ok()).count() as u64;
        assert_eq!(taken, MAX_HELD / (64 * 1024));
    }

    #[test]
    fn what_is_kept_is_written_to_its_end_without_readers() {
        let fill = fill(None, 1024 * 1024);
        drop(fill.follow_own(1));
        fill.own_reader_left();
        for _ in 0..16 {
            assert_eq!(fill.write(bytes(64 * 1024)).unwrap(), Written::Kept);
        }
        assert_eq!(fill.body().unwrap().unwrap().len(), 1024 * 1024);
    }

    #[test]
    fn a_writer_far_ahead_is_slowed_down_in_proportion() {
        let fill = fill(None, 10);
        let (_reader, own) = (fill.follow(1), fill.follow_own(2));
        fill.write(bytes(2 * 1024 * 1024)).unwrap();
        assert!(fill.pause().is_none(), "its own reader would pause with it");
        drop(own);
        let mut last = Duration::ZERO;
        for _ in 0..40 {
            fill.write(bytes(64 * 1024)).unwrap();
            let pause = fill.pause().unwrap_or_default();
            assert!(pause >= last && pause <= MAX_PAUSE);
            last = pause;
        }
        assert!(last > Duration::from_millis(50), "{last:?}");
    }
}
