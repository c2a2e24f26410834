//! A response that is still coming: one writer, any number of readers that follow it from its first byte.
//!
//! What is small stays in memory until it is whole. What is larger goes to the disk while it comes, if there is one, so
//! that memory holds no more than a window of it: readers behind the window read the file. What can be kept nowhere
//! passes through in such a window.

mod reader;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use pingora::{Error, ErrorType, Result};
use tokio::sync::Notify;

pub use reader::Reader;

use super::disk::{Disk, Spill};
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

/// Chunks below this size are copied: a few bytes can be a slice of a read buffer of 64 KiB.
const COPY_BELOW: usize = 16 * 1024;

/// Bytes up to which a response waits in memory to be whole, where there is a disk for what is larger: what the memory
/// tier keeps, within these bounds.
const SPILL_ABOVE: std::ops::RangeInclusive<u64> = 256 * 1024..=1024 * 1024;

/// Bytes that are on the disk already and stay in memory all the same, for readers that are close behind.
const CLOSE_BEHIND: u64 = 128 * 1024;

/// Bytes that may wait to be written to the disk before the writer has to wait too.
const BACKLOG: u64 = 384 * 1024;

/// Bytes that may wait where the writer cannot: beyond, the response is not stored.
const FAR_BEHIND: u64 = 16 * BACKLOG;

/// A write of this many bytes at once, at most.
const WRITE_AT_ONCE: u64 = 256 * 1024;

/// A disk that takes less than [`LEAST_PACE`] bytes in this time is not waited for: the response goes on unstored.
const PATIENCE: Duration = Duration::from_secs(2);
const LEAST_PACE: u64 = 2 * 1024 * 1024;

/// Where a response may be kept.
pub struct Room {
    /// The largest body that the memory tier keeps; 0: none.
    pub memory: u64,
    /// The disk that its key belongs to, and the largest body that it keeps.
    pub disk: Option<(Arc<Disk>, u64)>,
    /// Bytes that all fills hold together, and what they may: a body that takes them beyond goes to the disk early, or
    /// is passed on but not kept.
    pub held: Arc<AtomicU64>,
    pub held_max: u64,
}

impl Room {
    fn spill_above(&self) -> u64 {
        spill_above(self.memory)
    }
}

/// Bytes of a body above which it goes to the disk while it comes, if the memory tier keeps so many of one.
pub fn spill_above(memory: u64) -> u64 {
    memory.clamp(*SPILL_ABOVE.start(), *SPILL_ABOVE.end())
}

/// A fill in progress.
pub struct Fill {
    pub id: u64,
    pub key: ObjectKey,
    pub head: Arc<Head>,
    /// What Content-Length announced.
    expected: Option<u64>,
    room: Room,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    chunks: VecDeque<Chunk>,
    /// Bytes received so far.
    len: u64,
    held: u64,
    phase: Phase,
    /// Too large to keep: chunks go as soon as every reader has them.
    oversize: bool,
    /// What it may hold then; only ever falls.
    cap: u64,
    readers: Vec<Position>,
    spill: Option<Spilling>,
}

struct Chunk {
    /// Where in the body it ends.
    end: u64,
    bytes: Bytes,
}

/// A body on its way to the disk.
struct Spilling {
    spill: Arc<Spill>,
    /// Bytes from the body's start that the file has.
    flushed: u64,
    writing: bool,
    /// It will not be stored; what the file has can still be read.
    failed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Complete,
    Failed,
}

struct Position {
    reader: u64,
    offset: u64,
    own: bool,
    /// How far it was behind when the response turned out too large, or has been at least since: that much it may be.
    behind: u64,
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

/// What a fill has come to.
pub enum Filled {
    /// The body in one piece of its own.
    Whole(Bytes),
    /// It is in this file.
    Spilled(Arc<Spill>, u64),
    /// It is not to be kept.
    Passed,
}

impl Fill {
    /// A fill that nobody reads yet.
    pub fn new(id: u64, key: ObjectKey, head: Arc<Head>, expected: Option<u64>, room: Room) -> Fill {
        Fill {
            id,
            key,
            head,
            expected,
            room,
            state: Mutex::new(State {
                chunks: VecDeque::new(),
                len: 0,
                held: 0,
                phase: Phase::Running,
                oversize: false,
                cap: u64::MAX,
                readers: Vec::new(),
                spill: None,
            }),
            changed: Notify::new(),
        }
    }

    /// Takes the next bytes of the body.
    ///
    /// # Errors
    /// The body is longer than announced, or it cannot be kept and nobody reads it any more, or not for minutes.
    pub fn write(self: &Arc<Fill>, data: Bytes) -> Result<Written> {
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
            let all = self.room.held.fetch_add(data.len() as u64, Ordering::Relaxed) + data.len() as u64;
            state.chunks.push_back(Chunk { end: len, bytes: data });
            let full = all > self.room.held_max;
            self.spill_if_due(&mut state, full);
            let outgrown = !state.oversize && self.outgrows(&state, full);
            if outgrown {
                state.outgrow();
                state.spill_is_over();
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
        self.flush();
        self.changed.notify_waiters();
        Ok(written)
    }

    /// Begins to use the disk, if it is time to.
    fn spill_if_due(&self, state: &mut State, full: bool) {
        let Some((disk, max)) = &self.room.disk else { return };
        let size = self.expected.unwrap_or(state.len).max(state.len);
        let due = size > self.room.spill_above() || full;
        if due && state.spill.is_none() && !state.oversize && size <= *max {
            let spill = Spill::begin(disk, self.key, &self.head, self.expected);
            state.spill = Some(Spilling { spill, flushed: 0, writing: false, failed: false });
        }
    }

    /// Whether the body goes to the disk while it comes, as far as is known by now.
    fn spills(&self) -> bool {
        let Some((_, max)) = &self.room.disk else { return false };
        let due = self.expected.is_some_and(|expected| expected > self.room.spill_above() && expected <= *max);
        let state = self.lock();
        (due || state.spill.is_some()) && !state.oversize
    }

    /// Whether there is no tier left that would keep it.
    fn outgrows(&self, state: &State, full: bool) -> bool {
        match (&state.spill, &self.room.disk) {
            (Some(spilling), Some((_, max))) => spilling.failed || state.len > *max,
            (None, Some((_, max))) => state.len > self.room.memory.max(self.room.spill_above().min(*max)) || full,
            _ => state.len > self.room.memory || full,
        }
    }

    /// Has what waits for the disk written there, unless that is under way.
    fn flush(self: &Arc<Fill>) {
        let mut state = self.lock();
        let State { chunks, spill, oversize, .. } = &mut *state;
        let Some(spilling) = spill.as_mut().filter(|s| !s.writing && !s.failed && !*oversize) else { return };
        let from = spilling.flushed;
        let first = chunks.partition_point(|chunk| chunk.end <= from);
        let mut pieces = Vec::new();
        let mut to = from;
        for chunk in chunks.iter().skip(first) {
            if to > from && chunk.end - from > WRITE_AT_ONCE {
                break;
            }
            pieces.push(chunk.bytes.clone());
            to = chunk.end;
        }
        if pieces.is_empty() {
            return;
        }
        spilling.writing = true;
        let spill = spilling.spill.clone();
        drop(state);
        let fill = self.clone();
        spill.append(from, pieces, move |result| fill.flushed(to, result.is_ok()));
    }

    /// A write to the disk has ended.
    fn flushed(self: Arc<Fill>, to: u64, well: bool) {
        {
            let mut state = self.lock();
            let Some(spilling) = &mut state.spill else { return };
            spilling.writing = false;
            if well {
                spilling.flushed = to;
                self.let_go(&mut state);
            } else {
                spilling.failed = true;
                spilling.spill.over();
            }
        }
        if well {
            self.flush();
        }
        self.changed.notify_waiters();
    }

    /// Waits while the disk has too much to write. One that does not keep a least pace is given up.
    pub async fn wait_for_room(&self) {
        let (mut since, mut flushed) = (Instant::now(), None);
        loop {
            let changed = self.changed.notified();
            let left = {
                let mut state = self.lock();
                let (len, oversize) = (state.len, state.oversize);
                let Some(spilling) = state.spill.as_mut().filter(|s| !s.failed && !oversize) else { return };
                if len - spilling.flushed <= BACKLOG {
                    return;
                }
                let left = PATIENCE.saturating_sub(since.elapsed());
                let before = *flushed.get_or_insert(spilling.flushed);
                if spilling.flushed - before >= LEAST_PACE {
                    (since, flushed) = (Instant::now(), Some(spilling.flushed));
                } else if left.is_zero() {
                    spilling.failed = true;
                    spilling.spill.too_slow();
                    return;
                }
                left.max(Duration::from_millis(1))
            };
            let _ = tokio::time::timeout(left, changed).await;
        }
    }

    /// Whether far more waits for the disk than a writer that can wait would let it.
    pub fn is_far_behind(&self) -> bool {
        let state = self.lock();
        let flushed = state.spill.as_ref().filter(|spilling| !spilling.failed).map(|spilling| spilling.flushed);
        flushed.is_some_and(|flushed| state.len - flushed > FAR_BEHIND)
    }

    /// Waits until all that has come is on the disk, if it is to be there; whether it is.
    async fn settle(&self) -> bool {
        let (mut since, mut before) = (Instant::now(), 0);
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                let (len, oversize) = (state.len, state.oversize);
                let Some(spilling) = state.spill.as_mut().filter(|s| !s.failed && !oversize) else { return false };
                if spilling.flushed == len {
                    return true;
                }
                if spilling.flushed != before {
                    (since, before) = (Instant::now(), spilling.flushed);
                } else if since.elapsed() >= PATIENCE {
                    spilling.failed = true;
                    spilling.spill.too_slow();
                    return false;
                }
            }
            let _ = tokio::time::timeout(PATIENCE, changed).await;
        }
    }

    /// All of the body has come: what it is now. Readers find its end after [`Fill::end`].
    ///
    /// # Errors
    /// The body is shorter than announced.
    pub async fn filled(&self) -> Result<Filled> {
        self.check_length()?;
        if self.settle().await {
            let state = self.lock();
            if let Some(spilling) = &state.spill {
                return Ok(Filled::Spilled(spilling.spill.clone(), state.len));
            }
        }
        self.body().map(|body| body.map_or(Filled::Passed, Filled::Whole))
    }

    /// The whole body, in one piece of its own, if that is in memory.
    ///
    /// # Errors
    /// The body is shorter than announced.
    pub fn body(&self) -> Result<Option<Bytes>> {
        self.check_length()?;
        let state = self.lock();
        if state.oversize || state.spill.is_some() {
            return Ok(None);
        }
        let mut body = BytesMut::with_capacity(usize::try_from(state.len).unwrap_or(0));
        state.chunks.iter().for_each(|chunk| body.extend_from_slice(&chunk.bytes));
        Ok(Some(body.freeze()))
    }

    fn check_length(&self) -> Result<()> {
        let len = self.lock().len;
        if self.expected.is_some_and(|expected| len != expected) {
            return fail("the origin sent less than its Content-Length");
        }
        Ok(())
    }

    /// Nothing more will come: because the body is `complete`, or because the writer has failed.
    pub fn end(&self, complete: bool) {
        {
            let mut state = self.lock();
            if state.phase == Phase::Running {
                state.phase = if complete { Phase::Complete } else { Phase::Failed };
            }
            state.spill_is_over();
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
        let fastest = if state.readers.is_empty() { state.len } else { state.fastest() };
        let ahead = state.len.saturating_sub(fastest).saturating_sub(WINDOW);
        (ahead > 0).then(|| Duration::from_millis(1 + ahead / AHEAD_PER_MS).min(MAX_PAUSE))
    }

    /// The client whose request feeds this fill has left: it is nobody to keep anything for.
    pub fn own_reader_left(&self) {
        let mut state = self.lock();
        state.readers.retain(|reader| !reader.own);
        self.let_go(&mut state);
    }

    /// Lets go of chunks: of what cannot be kept, those that every reader has had; of what goes to the disk, those that
    /// are there, but for the latest while somebody reads close behind.
    fn let_go(&self, state: &mut State) {
        let needed = state.readers.iter().map(|r| r.offset).min().unwrap_or(u64::MAX);
        let flushed = state.spill.as_ref().filter(|s| !s.failed).map(|spilling| spilling.flushed);
        while let Some(chunk) = state.chunks.front() {
            let goes = match (state.oversize, flushed) {
                (true, _) => chunk.end <= needed,
                (false, Some(flushed)) => chunk.end <= flushed && (chunk.end <= needed || state.held > CLOSE_BEHIND),
                (false, None) => false,
            };
            if !goes {
                return;
            }
            let len = chunk.bytes.len() as u64;
            state.chunks.pop_front();
            state.held -= len;
            self.room.held.fetch_sub(len, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        let held = self.lock().held;
        self.room.held.fetch_sub(held, Ordering::Relaxed);
    }
}

impl State {
    fn spill_is_over(&self) {
        if let Some(spilling) = &self.spill {
            spilling.spill.over();
        }
    }

    /// From now on, chunks go as soon as every reader has them. What is held until now, each reader may still have.
    fn outgrow(&mut self) {
        self.oversize = true;
        self.cap = self.held + MAX_HELD;
        let fastest = self.fastest();
        self.readers.iter_mut().for_each(|reader| reader.behind = fastest.saturating_sub(reader.offset));
    }

    fn drop_laggards(&mut self) {
        let fastest = self.fastest();
        self.readers.retain_mut(|reader| {
            let behind = fastest.saturating_sub(reader.offset);
            let kept = behind <= MAX_LAG.max(reader.behind + WINDOW);
            reader.behind = reader.behind.min(behind);
            kept
        });
    }

    /// Of those who wait for a part that has not come yet, none is ahead of what has.
    fn fastest(&self) -> u64 {
        self.readers.iter().map(|r| r.offset.min(self.len)).max().unwrap_or(0)
    }
}

fn fail<T>(why: &'static str) -> Result<T> {
    Error::e_explain(ErrorType::InternalError, why)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
