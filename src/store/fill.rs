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

/// How long the writer pauses for each of its chunks while what is being written to its own client ends.
const TURN: Duration = Duration::from_millis(5);

/// The longest pause of a writer that is far ahead.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Bytes ahead, beyond the window, that cost the writer a millisecond for each of its chunks.
const AHEAD_PER_MS: u64 = 4 * 1024;

/// The most, in bytes, that such a response may hold, and the most that it may grow by where it held more when it turned
/// out too large. It takes a client that reads nothing for minutes to get there.
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
    /// Bytes that all fills hold together, and what they may: a body that takes them beyond is passed on but not kept.
    held: Arc<AtomicU64>,
    held_max: u64,
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
    /// What it may hold then; only ever falls.
    cap: u64,
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
    /// How far it was behind when the response turned out too large, or has been at least since: that much it may be.
    behind: u64,
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
    /// A fill that nobody reads yet. `max`: the largest body that is kept; `held`: what all fills hold, and what they
    /// may.
    pub fn new(
        id: u64,
        key: ObjectKey,
        head: Arc<Head>,
        expected: Option<u64>,
        max: u64,
        (held, held_max): (Arc<AtomicU64>, u64),
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
                cap: u64::MAX,
                readers: Vec::new(),
            }),
            changed: Notify::new(),
            held,
            held_max,
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
            let all = self.held.fetch_add(data.len() as u64, Ordering::Relaxed) + data.len() as u64;
            state.chunks.push_back(data);
            let outgrown = (len > self.max || all > self.held_max) && !state.oversize;
            if outgrown {
                state.outgrow();
            }
            if state.oversize {
                state.drop_laggards();
                if state.readers.is_empty() {
                    return fail("nobody reads a response that is too large to keep");
                }
                self.let_go(&mut state);
                if state.held > state.cap {
                    return fail("nobody takes a response that is too large to keep");
                }
                state.cap = state.cap.min(state.held + MAX_HELD).max(MAX_HELD);
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

    /// The response has turned out too large to keep.
    pub fn is_oversize(&self) -> bool {
        self.lock().oversize
    }

    /// How long the writer should pause so as not to run away from its readers. Never, for what is kept anyway.
    ///
    /// While its own client is still being served, that sets the pace: writing to it comes before taking more. Until what
    /// is being written to it beside the writer has ended (`writing`), the writer goes on slowly.
    pub fn pause(&self, writing: bool) -> Option<Duration> {
        let state = self.lock();
        if !state.oversize {
            return None;
        }
        if state.readers.iter().any(|reader| reader.own) {
            return writing.then_some(TURN);
        }
        let fastest = state.readers.iter().map(|r| r.offset).max().unwrap_or(state.len);
        let ahead = (state.len - fastest).saturating_sub(WINDOW);
        (ahead > 0).then(|| Duration::from_millis(1 + ahead / AHEAD_PER_MS).min(MAX_PAUSE))
    }

    /// A new reader, from the first byte on; `None` where that is no longer to be had, or the fill has failed.
    pub fn follow(self: &Arc<Fill>, id: u64) -> Option<Reader> {
        self.reader(id, false)
    }

    /// The reader of the client whose request feeds this fill. As any other, but it never fails before the writer is
    /// done: an error would end the request, and the fill with it, which others may follow.
    pub fn follow_own(self: &Arc<Fill>, id: u64) -> Option<Reader> {
        self.reader(id, true)
    }

    fn reader(self: &Arc<Fill>, id: u64, own: bool) -> Option<Reader> {
        let mut state = self.lock();
        // Looked at and entered under one lock: in between, the first chunks could go.
        if state.phase == Phase::Failed || state.oversize {
            return None;
        }
        state.readers.push(Position { reader: id, chunk: 0, offset: 0, own, behind: 0 });
        drop(state);
        Some(Reader { fill: self.clone(), id, own, joined: BytesMut::new() })
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
    /// From now on, chunks go as soon as every reader has them. What is held until now, each reader may still have.
    fn outgrow(&mut self) {
        self.oversize = true;
        self.cap = self.held + MAX_HELD;
        let fastest = self.fastest();
        self.readers.iter_mut().for_each(|reader| reader.behind = fastest - reader.offset);
    }

    fn drop_laggards(&mut self) {
        let fastest = self.fastest();
        self.readers.retain_mut(|reader| {
            let behind = fastest - reader.offset;
            let kept = behind <= MAX_LAG.max(reader.behind + WINDOW);
            reader.behind = reader.behind.min(behind);
            kept
        });
    }

    fn fastest(&self) -> u64 {
        self.readers.iter().map(|r| r.offset).max().unwrap_or(0)
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
#[path = "fill_tests.rs"]
mod tests;
