//! Connections that may be used one for another: made by the same settings, to the same server.

mod sweep;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Instant;

use tokio::runtime::Handle;

use self::sweep::Sweeper;
use super::flight::{Flight, Takeoff};
use super::{Fresh, closed_at_once};
use crate::config::model::OriginHttp;
use crate::origin::endpoint::Endpoint;
use crate::origin::wire::counts::{Counts, Idle};
use crate::origin::wire::dial::{Dialer, Protocol, Settings};
use crate::origin::wire::h1::H1Conn;
use crate::origin::wire::h2::H2Client;
use crate::origin::wire::io::Io;
use crate::origin::wire::message::WireError;
use crate::origin::wire::request::Wire;

pub(in crate::origin::wire) struct Group {
    settings: Arc<Settings>,
    /// Of the newest dialer with these settings.
    sequence: AtomicU64,
    endpoint: Endpoint,
    /// What the certificate is verified for, where nothing else is configured.
    server: Box<str>,
    counts: Arc<Counts>,
    state: Mutex<State>,
}

/// What [`Group::take`] has found.
#[expect(clippy::large_enum_variant, reason = "it is there for a moment: to allocate would take longer than to move")]
pub(super) enum Taken {
    Wire(Wire),
    /// A connection is to be made, for the request alone as far as is known.
    Nothing,
    /// A connection is to be made, and others may wait for it.
    Takeoff(Takeoff),
    /// A connection is being made that has a place left.
    Flight(Flight),
}

/// Locked for moments: nothing is awaited, connected or closed meanwhile.
struct State {
    /// Other settings are in force, or the server is gone: nothing is kept any more.
    retired: bool,
    /// What the server has spoken last, or must speak.
    speaks: Option<Protocol>,
    /// Of HTTP/1.1, the one that was used last at the end.
    kept: VecDeque<Kept>,
    /// Of HTTP/2. The first that have a place left are used, so that the others come to rest.
    shared: Vec<Shared>,
    flights: Vec<Joined>,
    /// Requests at once on a connection of HTTP/2, at least 1, as was last seen.
    streams: usize,
    /// Identifies flights and shared connections.
    next_id: u64,
    /// Somebody looks after what is unused.
    swept: bool,
}

/// An unused connection of HTTP/1.1, without buffers.
struct Kept {
    conn: H1Conn<Io>,
    since: Instant,
    _idle: Idle,
}

struct Shared {
    id: u64,
    client: H2Client,
    /// Requests that have a place on it.
    taken: usize,
    /// A request has left it.
    has_answered: bool,
    /// Since when it is not used, where it is not.
    idle: Option<(Instant, Idle)>,
}

/// A flight, and how many wait for it.
struct Joined {
    id: u64,
    flight: Flight,
    waiting: usize,
}

impl Group {
    pub(super) fn new(dialer: &Dialer, endpoint: &Endpoint, server: &str, counts: &Arc<Counts>) -> Arc<Group> {
        let settings = dialer.settings().clone();
        let speaks = match (settings.http, settings.tls.is_some()) {
            (OriginHttp::Http1, _) | (OriginHttp::Auto, false) => Some(Protocol::H1),
            (OriginHttp::Http2, _) => Some(Protocol::H2),
            (OriginHttp::Auto, true) => None,
        };
        let state = State {
            retired: false,
            speaks,
            kept: VecDeque::new(),
            shared: Vec::new(),
            flights: Vec::new(),
            streams: settings.streams,
            next_id: 0,
            swept: false,
        };
        Arc::new(Group {
            settings,
            sequence: AtomicU64::new(dialer.sequence()),
            endpoint: endpoint.clone(),
            server: server.into(),
            counts: counts.clone(),
            state: Mutex::new(state),
        })
    }

    /// Whether its connections are such as `dialer` would make.
    pub(super) fn serves(&self, dialer: &Dialer, endpoint: &Endpoint, server: &str) -> bool {
        let same_server = self.endpoint == *endpoint && (!self.settings.asks_for_server() || *self.server == *server);
        if !same_server || self.sequence.load(Ordering::Relaxed) == dialer.sequence() {
            return same_server;
        }
        // Once a reload, but for requests that are older than it.
        let same = *self.settings == **dialer.settings();
        if same {
            self.sequence.fetch_max(dialer.sequence(), Ordering::Relaxed);
        }
        same
    }

    pub(super) fn is_newer_than(&self, dialer: &Dialer) -> bool {
        self.sequence.load(Ordering::Relaxed) > dialer.sequence()
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// What there is for a request.
    pub(super) fn take(self: &Arc<Self>) -> Taken {
        loop {
            let mut state = self.state();
            let State { shared, streams, .. } = &mut *state;
            for shared in shared {
                // Before its first answer a server has not said how many it takes: as many as before, then.
                let has_place = shared.has_answered || shared.taken < *streams;
                if let Some(stream) = has_place.then(|| shared.client.open()).flatten() {
                    shared.taken += 1;
                    shared.idle = None;
                    return Taken::Wire(Wire::h2(stream, Some((self.clone(), shared.id))));
                }
            }
            let Some(mut kept) = state.kept.pop_back() else {
                return self.make(&mut state);
            };
            // What is older has been unused for too long as well, where this has.
            let late = kept.since.elapsed() >= self.settings.idle_timeout;
            let too_old = if late { std::mem::take(&mut state.kept) } else { VecDeque::new() };
            drop(state);
            drop(too_old);
            if !late && is_quiet(&mut kept.conn) {
                return Taken::Wire(Wire::h1(kept.conn, Some(self.clone())));
            }
        }
    }

    fn make(self: &Arc<Self>, state: &mut State) -> Taken {
        if state.speaks == Some(Protocol::H1) {
            return Taken::Nothing;
        }
        let streams = state.streams;
        if let Some(joined) = state.flights.iter_mut().find(|joined| joined.waiting < streams) {
            joined.waiting += 1;
            return Taken::Flight(joined.flight.clone());
        }
        let id = state.id();
        let (flight, takeoff) = Flight::new(self, id);
        state.flights.push(Joined { id, flight, waiting: 1 });
        Taken::Takeoff(takeoff)
    }

    pub(super) fn has_landed(&self, id: u64) {
        self.state().flights.retain(|joined| joined.id != id);
    }

    /// A request's place on a connection that has been made for it. Of HTTP/2 it is shared from now on.
    pub(super) fn adopt(self: &Arc<Self>, fresh: Fresh) -> Result<Wire, WireError> {
        let mut state = self.state();
        match fresh {
            Fresh::H1(conn) => {
                state.speaks = Some(Protocol::H1);
                Ok(Wire::h1(conn, Some(self.clone())))
            }
            Fresh::H2(client) => {
                let stream = client.open().ok_or_else(closed_at_once)?;
                state.speaks = Some(Protocol::H2);
                if state.retired {
                    return Ok(Wire::h2(stream, None));
                }
                let id = state.id();
                state.shared.push(Shared { id, client, taken: 1, has_answered: false, idle: None });
                self.unlock_and_sweep(state);
                Ok(Wire::h2(stream, Some((self.clone(), id))))
            }
        }
    }

    /// Keeps a connection for the next request, if that is allowed.
    pub(in crate::origin::wire) fn keep(self: &Arc<Self>, conn: H1Conn<Io>) {
        // Without the buffers of the request that is over.
        let conn = H1Conn::new(conn.into_idle());
        let mut state = self.state();
        if state.retired || self.settings.keepalive == 0 {
            drop(state);
            drop(conn);
            return;
        }
        let full = state.idle() >= self.settings.keepalive;
        let oldest = if full { state.kept.pop_front() } else { None };
        state.kept.push_back(Kept { conn, since: Instant::now(), _idle: Idle::new(&self.counts) });
        self.unlock_and_sweep(state);
        drop(oldest);
    }

    /// A request has left its place on a connection of HTTP/2.
    pub(in crate::origin::wire) fn release(&self, id: u64) {
        let mut state = self.state();
        let Some(at) = state.shared.iter().position(|shared| shared.id == id) else {
            return;
        };
        let is_full = state.idle() >= self.settings.keepalive;
        let Some(shared) = state.shared.get_mut(at) else {
            return;
        };
        shared.taken = shared.taken.saturating_sub(1);
        shared.has_answered = true;
        let (is_unused, is_closed) = (shared.taken == 0, shared.client.is_closed());
        let streams = shared.client.max_streams().max(1);
        if is_unused && !is_full && !is_closed {
            shared.idle = Some((Instant::now(), Idle::new(&self.counts)));
        }
        state.streams = streams;
        if is_unused && (is_full || is_closed) {
            let closed = state.shared.remove(at);
            drop(state);
            drop(closed);
        }
    }

    /// Closes what is unused, and keeps nothing from now on.
    pub(super) fn retire(&self) {
        let mut state = self.state();
        state.retired = true;
        let unused = (std::mem::take(&mut state.kept), std::mem::take(&mut state.shared));
        drop(state);
        drop(unused);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that somebody looks after what is unused.
    fn unlock_and_sweep(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let begin = !std::mem::replace(&mut state.swept, true);
        drop(state);
        if !begin {
            return;
        }
        let sweeper = Sweeper::new(self);
        // Without a runtime the process is about to end; the next that is kept tries again.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(sweeper.run());
        }
    }
}

impl State {
    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Connections that are not used.
    fn idle(&self) -> usize {
        self.kept.len() + self.shared.iter().filter(|shared| shared.idle.is_some()).count()
    }
}

/// Whether nothing has come from the server, not even the end.
fn is_quiet(conn: &mut H1Conn<Io>) -> bool {
    conn.poll_idle(&mut Context::from_waker(Waker::noop())).is_pending()
}
