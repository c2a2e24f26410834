//! The watch over client connections: ends those that are too slow.
//!
//! Pingora has no idle timeout after a connection's first request, none for the whole of a header section and none
//! for writes. Timers for each would cost every request; here a connection notes by a plain store what it is waiting
//! for since when, and one task looks at all of them four times a second.
//!
//! A client that moves a byte now and then is as slow as one that moves none. So beside the pauses, what moves is counted
//! ([`Pace`]): over each time limit's worth of waiting for the client, it must be as much as the least rates ask for. Time
//! that is spent on the origin is not the client's.

use std::future::{Future, poll_fn};
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

/// The most that one look takes for time that has been waited since the one before: a process that was stopped for a while
/// has not waited for anybody.
const LONGEST_TICK: u32 = 1000;

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
    calmed: [AtomicU64; Abuse::ALL.len()],
}

/// For what a connection of HTTP/2 is ended with ENHANCE_YOUR_CALM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// More streams reset than may be (`limits.http2.resets`).
    Resets,
    /// More control frames than may be (`limits.http2.control_frames`).
    ControlFrames,
    /// Most of its requests come to nothing, because the client gives them up.
    GivenUp,
    /// Its requests are malformed.
    Malformed,
    /// What the framing itself sees: CONTINUATION or empty DATA without end, header lists beyond all measure, streams that
    /// are reset before they are looked at.
    Framing,
}

impl Abuse {
    pub const ALL: [Abuse; 5] = [Abuse::Resets, Abuse::ControlFrames, Abuse::GivenUp, Abuse::Malformed, Abuse::Framing];

    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Abuse::Resets => "resets",
            Abuse::ControlFrames => "control-frames",
            Abuse::GivenUp => "given-up",
            Abuse::Malformed => "malformed",
            Abuse::Framing => "framing",
        }
    }
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
    /// There is more to come of a request's body.
    body: AtomicBool,
    /// A read of it waits for the client.
    reading: AtomicBool,
    /// Of the bodies of requests.
    received: Pace,
    sent: Pace,
    expired: AtomicBool,
    /// It was for the body of a request, which came too slowly.
    slow_body: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

/// How much moves one way, over the time for which the client is waited for.
///
/// Whether it is waited for is looked at once a tick, which then counts as a whole: over a window of many ticks, that comes
/// to the time itself.
#[derive(Default)]
struct Pace {
    /// Bytes; added to by the connection's task alone.
    moved: AtomicU64,
    /// What it was at the begin of the window. This and what follows belong to the watch's task.
    before: AtomicU64,
    /// Milliseconds of the window so far.
    waited: AtomicU32,
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
    /// For what comes before HTTP: TLS or a PROXY header, which have timeouts of their own.
    Arriving = 3,
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
            calmed: Default::default(),
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

    /// How many connections of HTTP/2 have been ended for this.
    pub fn calmed(&self, why: Abuse) -> u64 {
        self.calmed[why as usize].load(Ordering::Relaxed)
    }

    /// Puts a new connection on the list.
    pub fn add(self: &Arc<Watch>) -> Watched {
        let state = Arc::new(State {
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU32::new(self.next_tick()),
            write_since: AtomicU32::new(0),
            body: AtomicBool::new(false),
            reading: AtomicBool::new(false),
            received: Pace::default(),
            sent: Pace::default(),
            expired: AtomicBool::new(false),
            slow_body: AtomicBool::new(false),
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

    /// Ends every connection that has asked nothing for as long as `idle`, or has been so long at its handshake.
    ///
    /// For a process that drains. A client that is about to send its next request on a kept connection would lose
    /// it if the connection ended right now, so those in use are left to be ended by their next response.
    pub fn end_idle(&self, idle: Duration) {
        let (now, idle) = (self.now(), idle.as_millis() as u64);
        self.each(|state| {
            if [Phase::Idle as u8, Phase::Arriving as u8].contains(&state.phase.load(Ordering::Relaxed))
                && u64::from(now.saturating_sub(state.since.load(Ordering::Relaxed))) >= idle
            {
                state.expire();
            }
        });
    }

    /// A tick: ends what has waited too long at `now`.
    fn look(&self, now: u32) {
        let tick = now.saturating_sub(self.now.swap(now, Ordering::Relaxed)).min(LONGEST_TICK);
        let limits = self.limits.load();
        let [idle, header, write, body] =
            [limits.idle_timeout, limits.header_timeout, limits.write_timeout, limits.body_timeout]
                .map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        self.each(|state| {
            let for_ms = |since: u32| u64::from(now.saturating_sub(since));
            let waited = for_ms(state.since.load(Ordering::Relaxed));
            let too_slow = match state.phase.load(Ordering::Relaxed) {
                p if p == Phase::Idle as u8 => waited > idle,
                p if p == Phase::Header as u8 => waited > header,
                _ => false,
            };
            let writing = state.write_since.load(Ordering::Relaxed);
            let takes_little =
                writing != 0 && limits.send_min_rate.is_some_and(|rate| state.sent.is_slow(tick, write, rate));
            let sends_little = state.reading.load(Ordering::Relaxed)
                && limits.body_min_rate.is_some_and(|rate| state.received.is_slow(tick, body, rate));
            if sends_little {
                state.slow_body.store(true, Ordering::Relaxed);
            }
            let too_slow = too_slow || sends_little || takes_little || (writing != 0 && for_ms(writing) > write);
            if too_slow && state.expire() {
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

impl Pace {
    fn add(&self, bytes: usize) {
        // One task adds, so nothing is lost between the two.
        self.moved.store(self.moved.load(Ordering::Relaxed).wrapping_add(bytes as u64), Ordering::Relaxed);
    }

    /// Begins a window.
    fn restart(&self) {
        self.before.store(self.moved.load(Ordering::Relaxed), Ordering::Relaxed);
        self.waited.store(0, Ordering::Relaxed);
    }

    /// The client has been waited for `tick` milliseconds more: whether that ends a window of at least `window` in which
    /// less than `rate` bytes a second have moved.
    fn is_slow(&self, tick: u32, window: u64, rate: u64) -> bool {
        let waited = self.waited.load(Ordering::Relaxed).saturating_add(tick);
        self.waited.store(waited, Ordering::Relaxed);
        if u64::from(waited) < window.max(1) {
            return false;
        }
        let moved = self.moved.load(Ordering::Relaxed).wrapping_sub(self.before.load(Ordering::Relaxed));
        self.restart();
        u128::from(moved) * 1000 < u128::from(rate) * u128::from(waited)
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
    /// Something comes before HTTP, with a timeout of its own, until [`Watched::request_ended`]. What it comes to; `None`: the
    /// watch has ended the connection.
    pub async fn arriving<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.state.enter(Phase::Arriving, &self.watch);
        tokio::select! {
            done = work => Some(done),
            _ = poll_fn(|cx| self.read_blocked::<()>(cx)) => None,
        }
    }

    /// The header section of a request has come: from here on its own timeouts apply. `body`: one follows.
    pub fn request_began(&self, body: bool) {
        if body {
            self.state.received.restart();
        }
        self.state.body.store(body, Ordering::Relaxed);
        self.state.enter(Phase::Busy, &self.watch);
    }

    /// The request's body has come to its end.
    pub fn body_ended(&self) {
        self.state.body.store(false, Ordering::Relaxed);
        self.state.reading.store(false, Ordering::Relaxed);
    }

    /// The response is through.
    pub fn request_ended(&self) {
        self.body_ended();
        self.state.enter(Phase::Idle, &self.watch);
    }

    /// The watch has ended this connection since a request's body came too slowly.
    pub fn had_slow_body(&self) -> bool {
        self.state.slow_body.load(Ordering::Relaxed)
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

    /// So many bytes have come.
    pub(super) fn read_some(&self, bytes: usize) {
        if self.state.body.load(Ordering::Relaxed) {
            self.state.received.add(bytes);
            self.state.reading.store(false, Ordering::Relaxed);
        }
        if self.state.phase.load(Ordering::Relaxed) == Phase::Idle as u8 {
            self.state.enter(Phase::Header, &self.watch);
        }
    }

    /// To be returned where a read would block.
    pub(super) fn read_blocked<T>(&self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if self.state.body.load(Ordering::Relaxed) {
            self.state.reading.store(true, Ordering::Relaxed);
        }
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

    /// So many bytes have been taken.
    pub(super) fn write_moved(&self, bytes: usize) {
        self.state.sent.add(bytes);
        if self.state.write_since.load(Ordering::Relaxed) != 0 {
            self.state.write_since.store(0, Ordering::Relaxed);
        }
    }

    /// So many bytes have been taken while no write was looked at; `waits`: there are more to be.
    pub(super) fn write_given(&self, bytes: usize, waits: bool) {
        self.state.sent.add(bytes);
        if self.state.write_since.load(Ordering::Relaxed) != 0 {
            self.state.write_since.store(if waits { self.watch.next_tick() } else { 0 }, Ordering::Relaxed);
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

    /// The limits that are in force now.
    pub fn limits(&self) -> Limits {
        **self.watch.limits.load()
    }

    /// Milliseconds since some moment of the process's begin, as of the last tick.
    pub fn now(&self) -> u32 {
        self.watch.now()
    }

    /// The connection is being ended for what its client does to HTTP/2.
    pub fn calmed(&self, why: Abuse) {
        self.watch.calmed[why as usize].fetch_add(1, Ordering::Relaxed);
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

    const LIMITS: Limits = Limits {
        header_count: 100,
        header_size: 1024,
        uri_length: 1024,
        body_size: None,
        idle_timeout: Duration::from_millis(200),
        header_timeout: Duration::from_secs(1),
        body_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_secs(2),
        connections: 10,
        connections_per_address: None,
        body_min_rate: Some(100),
        send_min_rate: Some(1000),
        http2: crate::config::model::Http2Limits { streams: 128, resets: 1000, control_frames: 1000 },
    };

    fn context() -> Context<'static> {
        Context::from_waker(std::task::Waker::noop())
    }

    /// One tick after the other, for so many; the tick at which the connection was ended.
    fn ticks(watch: &Watch, watched: &Watched, count: u32, each: impl Fn()) -> Option<u32> {
        (1..=count).find(|_| {
            each();
            watch.look(watch.now() + 250);
            watched.expired()
        })
    }

    #[test]
    fn a_client_that_takes_a_little_now_and_then_is_too_slow() {
        let watch = Watch::new(LIMITS);
        let drip = |watched: &Watched, bytes| {
            watched.write_moved(bytes);
            assert!(watched.write_blocked::<()>(&mut context()).is_pending());
        };
        let watched = watch.add();
        watched.request_began(false);
        // As fast as it must be.
        assert_eq!(ticks(&watch, &watched, 80, || drip(&watched, 250)), None);
        // One byte less a second.
        assert_eq!(ticks(&watch, &watched, 80, || drip(&watched, 249)), Some(8));
        assert!(!watched.had_slow_body());
        assert_eq!(watch.ended(), 1);
    }

    #[test]
    fn only_time_that_is_spent_on_the_client_counts() {
        let watch = Watch::new(LIMITS);
        let watched = watch.add();
        watched.request_began(true);
        // The origin gives little, and the client takes all of it at once; it sends little, and nobody reads it.
        let idle = || {
            watched.write_moved(1);
            watched.read_some(1);
        };
        assert_eq!(ticks(&watch, &watched, 100, idle), None);
        let drip = |bytes| {
            watched.read_some(bytes);
            assert!(watched.read_blocked::<()>(&mut context()).is_pending());
        };
        assert_eq!(ticks(&watch, &watched, 80, || drip(25)), None);
        // Once the body is over, the client is only watched for leaving.
        watched.body_ended();
        assert!(watched.read_blocked::<()>(&mut context()).is_pending());
        assert_eq!(ticks(&watch, &watched, 80, || ()), None);
        // The next body is another.
        watched.request_began(true);
        assert_eq!(ticks(&watch, &watched, 80, || drip(24)), Some(8));
        assert!(watched.had_slow_body());
    }

    #[test]
    fn a_timeout_is_never_early() {
        let watch = Watch::new(LIMITS);
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
        busy.read_some(1);
        watch.look(2500);
        assert!(!busy.expired());
        busy.request_began(false);
        watch.look(90_000);
        busy.request_ended();
        watch.look(90_200);
        assert!(!busy.expired());
    }
}
