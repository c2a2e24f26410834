//! The watch over client connections: ends those that are too slow.
//!
//! Pingora has no idle timeout after a connection's first request, none for the whole of a header section and none
//! for writes. Timers for each would cost every request; here a connection notes by a plain store what it is waiting
//! for since when, and one task looks at all of them four times a second.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use atomic_waker::AtomicWaker;

use crate::config::model::Limits;

/// How often the connections are looked at: the accuracy of the timeouts.
const TICK: Duration = Duration::from_millis(250);

/// Independent lists, so that workers seldom meet at a lock when connections open and close.
const SHARDS: usize = 16;

/// All client connections of the process.
pub struct Watch {
    started: Instant,
    /// Milliseconds since `started`, as of the last tick.
    now: AtomicU32,
    limits: ArcSwap<Limits>,
    shards: [Mutex<slab::Slab<Arc<State>>>; SHARDS],
    next_shard: AtomicUsize,
    open: AtomicUsize,
    ended: AtomicU64,
}

/// A connection's entry in the watch; dropping it takes the connection off the list.
pub struct Watched {
    state: Arc<State>,
    watch: Arc<Watch>,
    shard: usize,
    index: usize,
}

/// A connection's entry in the watch, for who serves it without having it in hand.
pub struct Handle {
    state: Arc<State>,
    watch: Arc<Watch>,
}

struct State {
    phase: AtomicU8,
    /// When the phase began.
    since: AtomicU32,
    /// Since when a write has been waiting; 0: none is.
    write_since: AtomicU32,
    expired: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// For a request: `idle_timeout`.
    Idle = 0,
    /// For the rest of a header section: `header_timeout`.
    Header = 1,
    /// A request is being served; its own timeouts apply.
    Busy = 2,
}

impl Watch {
    /// A watch with these limits; [`Watch::run`] makes it look.
    pub fn new(limits: Limits) -> Arc<Watch> {
        Arc::new(Watch {
            started: Instant::now(),
            now: AtomicU32::new(1),
            limits: ArcSwap::from_pointee(limits),
            shards: std::array::from_fn(|_| Mutex::default()),
            next_shard: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
        })
    }

    /// New limits, from the next tick on; for open connections too.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// Client connections that are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether one connection more is within the limit.
    pub fn has_room(&self) -> bool {
        self.open() < self.limits.load().connections
    }

    /// How many connections have been ended for being too slow.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Puts a new connection on the list.
    pub fn add(self: &Arc<Watch>) -> Watched {
        let state = Arc::new(State {
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU32::new(self.next_tick()),
            write_since: AtomicU32::new(0),
            expired: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        });
        let shard = self.next_shard.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let index = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner).insert(state.clone());
        self.open.fetch_add(1, Ordering::Relaxed);
        Watched { state, watch: self.clone(), shard, index }
    }

    /// Looks at all connections, again and again, until dropped.
    pub async fn run(self: Arc<Watch>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look(u32::try_from(self.started.elapsed().as_millis()).unwrap_or(u32::MAX).max(1));
        }
    }

    /// Ends every connection that has asked nothing for as long as `idle`.
    ///
    /// For a process that drains. A client that is about to send its next request on a kept connection would lose
    /// it if the connection ended right now, so those in use are left to be ended by their next response.
    pub fn end_idle(&self, idle: Duration) {
        let (now, idle) = (self.now(), idle.as_millis() as u64);
        self.each(|state| {
            if state.phase.load(Ordering::Relaxed) == Phase::Idle as u8
                && u64::from(now.saturating_sub(state.since.load(Ordering::Relaxed))) >= idle
            {
                state.expire();
            }
        });
    }

    /// A tick: ends what has waited too long at `now`.
    fn look(&self, now: u32) {
        self.now.store(now, Ordering::Relaxed);
        let limits = self.limits.load();
        let [idle, header, write] =
            [limits.idle_timeout, limits.header_timeout, limits.write_timeout].map(|d| d.as_millis() as u64);
        self.each(|state| {
            let for_ms = |since: u32| u64::from(now.saturating_sub(since));
            let waited = for_ms(state.since.load(Ordering::Relaxed));
            let too_slow = match state.phase.load(Ordering::Relaxed) {
                p if p == Phase::Idle as u8 => waited > idle,
                p if p == Phase::Header as u8 => waited > header,
                _ => false,
            };
            let writing = state.write_since.load(Ordering::Relaxed);
            if (too_slow || (writing != 0 && for_ms(writing) > write)) && state.expire() {
                self.ended.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    fn each(&self, f: impl Fn(&State)) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|(_, state)| f(state));
        }
    }

    /// As of the last tick.
    fn now(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    /// Where something begins now: since the last tick knows less, no sooner than the next one, so that a timeout may
    /// be late by a tick but is never early.
    fn next_tick(&self) -> u32 {
        self.now().saturating_add(TICK.as_millis() as u32)
    }
}

impl State {
    fn enter(&self, phase: Phase, watch: &Watch) {
        self.since.store(watch.next_tick(), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }

    /// Whether it was this call that ended it.
    fn expire(&self) -> bool {
        let first = !self.expired.swap(true, Ordering::AcqRel);
        self.reader.wake();
        self.writer.wake();
        first
    }
}

impl Watched {
    /// The header section of a request has come: from here on its own timeouts apply.
    pub fn request_began(&self) {
        self.state.enter(Phase::Busy, &self.watch);
    }

    /// The response is through.
    pub fn request_ended(&self) {
        self.state.enter(Phase::Idle, &self.watch);
    }

    /// The same entry, for somebody else.
    pub fn handle(&self) -> Handle {
        Handle { state: self.state.clone(), watch: self.watch.clone() }
    }

    /// A further entry in the same watch.
    pub fn another(&self) -> Watched {
        self.watch.add()
    }

    /// The watch has ended this connection.
    pub fn expired(&self) -> bool {
        self.state.is_expired()
    }

    pub(super) fn read_some(&self) {
        if self.state.phase.load(Ordering::Relaxed) == Phase::Idle as u8 {
            self.state.enter(Phase::Header, &self.watch);
        }
    }

    /// To be returned where a read would block.
    pub(super) fn read_blocked<T>(&self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.state.reader.register(cx.waker());
        self.pending()
    }

    /// To be returned where a write would block.
    pub(super) fn write_blocked<T>(&self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if self.state.write_since.load(Ordering::Relaxed) == 0 {
            self.state.write_since.store(self.watch.next_tick(), Ordering::Relaxed);
        }
        self.state.writer.register(cx.waker());
        self.pending()
    }

    pub(super) fn write_moved(&self) {
        if self.state.write_since.load(Ordering::Relaxed) != 0 {
            self.state.write_since.store(0, Ordering::Relaxed);
        }
    }

    fn pending<T>(&self) -> Poll<io::Result<T>> {
        match self.expired() {
            true => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client is too slow"))),
            false => Poll::Pending,
        }
    }
}

impl Handle {
    /// As [`Watched::request_began`].
    pub fn request_began(&self) {
        self.state.enter(Phase::Busy, &self.watch);
    }

    /// As [`Watched::request_ended`].
    pub fn request_ended(&self) {
        self.state.enter(Phase::Idle, &self.watch);
    }

    /// As [`Watched::expired`].
    pub fn expired(&self) -> bool {
        self.state.is_expired()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut shard = self.watch.shards[self.shard].lock().unwrap_or_else(PoisonError::into_inner);
        shard.try_remove(self.index);
        self.watch.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_never_early() {
        let watch = Watch::new(Limits {
            header_count: 100,
            header_size: 1024,
            uri_length: 1024,
            body_size: None,
            idle_timeout: Duration::from_millis(200),
            header_timeout: Duration::from_secs(1),
            body_timeout: Duration::from_secs(1),
            write_timeout: Duration::from_secs(1),
            connections: 10,
            connections_per_address: None,
            body_min_rate: None,
            send_min_rate: None,
            http2: crate::config::model::Http2Limits { streams: 128, resets: 1000, control_frames: 1000 },
        });
        watch.look(1000);
        let idle = watch.add();
        // The next tick: it may have come a moment ago.
        watch.look(1250);
        assert!(!idle.expired());
        watch.look(1450);
        assert!(!idle.expired());
        watch.look(1451);
        assert!(idle.expired());
        // Nor is another phase's time counted.
        let busy = watch.add();
        busy.read_some();
        watch.look(2500);
        assert!(!busy.expired());
        busy.request_began();
        watch.look(90_000);
        busy.request_ended();
        watch.look(90_200);
        assert!(!busy.expired());
    }
}
