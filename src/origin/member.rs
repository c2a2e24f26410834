//! The servers of a pool, and what is known about them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::config::model::{Server, ServerAddress};

/// One server as it is configured. A name is several [`Member`]s, or none until it is resolved.
#[derive(Debug)]
pub(super) struct Slot {
    /// Position in the origin's list of servers.
    pub(super) index: usize,
    pub(super) address: ServerAddress,
    /// 0 to 256, of each address that a name stands for.
    pub(super) weight: usize,
    pub(super) shared: Arc<SlotState>,
}

/// What outlives a reload that keeps the server.
#[derive(Debug)]
pub(super) struct SlotState {
    /// `host:port` as configured.
    pub(super) text: String,
    pub(super) drained: AtomicBool,
    /// Why the name could not be resolved the last time.
    pub(super) unresolved: LastError,
}

impl Slot {
    /// `previous` finds the state of a server that was there before by its text.
    pub(super) fn new(index: usize, server: &Server, previous: impl Fn(&str) -> Option<Arc<SlotState>>) -> Slot {
        let text = match &server.address {
            ServerAddress::Socket(addr) => addr.to_string(),
            ServerAddress::Name { host, port } => format!("{host}:{port}"),
        };
        let shared = previous(&text).unwrap_or_else(|| {
            let (drained, unresolved) = (AtomicBool::new(false), LastError::default());
            Arc::new(SlotState { text, drained, unresolved })
        });
        Slot { index, address: server.address.clone(), weight: server.weight, shared }
    }

    /// This server at one address. `checked`: whether its pool has health checks.
    pub(super) fn at(&self, addr: SocketAddr, checked: bool, state: Arc<State>) -> Arc<Member> {
        Arc::new(Member { index: self.index, weight: self.weight, slot: self.shared.clone(), addr, checked, state })
    }

    /// Before it is resolved.
    pub(super) fn status(&self, origin: &Arc<str>) -> ServerStatus {
        ServerStatus {
            origin: origin.clone(),
            server: self.shared.text.clone(),
            address: None,
            weight: self.weight,
            healthy: false,
            drained: self.shared.drained.load(Ordering::Relaxed),
            active: 0,
            transitions: 0,
            last_error: self.shared.unresolved.get(),
        }
    }
}

/// One address that requests are sent to.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) index: usize,
    pub(super) weight: usize,
    pub(super) slot: Arc<SlotState>,
    pub(super) addr: SocketAddr,
    /// Whether its pool has health checks. Without them every server counts as healthy, whatever an earlier
    /// configuration's checks have found.
    pub(super) checked: bool,
    pub(super) state: Arc<State>,
}

impl Member {
    pub(super) fn is_healthy(&self) -> bool {
        !self.checked || self.state.healthy.load(Ordering::Relaxed)
    }

    pub(super) fn is_drained(&self) -> bool {
        self.state.drained.load(Ordering::Relaxed) || self.slot.drained.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self, origin: &Arc<str>) -> ServerStatus {
        let state = &self.state;
        ServerStatus {
            origin: origin.clone(),
            server: self.slot.text.clone(),
            address: Some(self.addr),
            weight: self.weight,
            healthy: self.is_healthy(),
            drained: self.is_drained(),
            active: state.active.load(Ordering::Relaxed),
            transitions: state.transitions.load(Ordering::Relaxed),
            last_error: state.last_error.get().or_else(|| self.slot.unresolved.get()),
        }
    }
}

/// What is known about an address of a server. Outlives reloads and DNS answers that keep it.
#[derive(Debug)]
pub(super) struct State {
    /// Servers count as healthy until checks say otherwise.
    pub(super) healthy: AtomicBool,
    pub(super) drained: AtomicBool,
    /// Requests that have chosen it and are not done.
    pub(super) active: AtomicUsize,
    /// Changes from healthy to unhealthy or back.
    pub(super) transitions: AtomicU64,
    pub(super) last_error: LastError,
}

impl Default for State {
    fn default() -> State {
        State {
            healthy: AtomicBool::new(true),
            drained: AtomicBool::new(false),
            active: AtomicUsize::new(0),
            transitions: AtomicU64::new(0),
            last_error: LastError::default(),
        }
    }
}

impl State {
    /// Sets the health; whether that is a change.
    pub(super) fn set_healthy(&self, healthy: bool) -> bool {
        let changed = self.healthy.swap(healthy, Ordering::Relaxed) != healthy;
        if changed {
            self.transitions.fetch_add(1, Ordering::Relaxed);
        }
        changed
    }
}

/// The newest error's text. Locked for a copy only, and never on a request's way.
#[derive(Debug, Default)]
pub(super) struct LastError(Mutex<Option<String>>);

impl LastError {
    pub(super) fn set(&self, error: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A server's state, for the admin API and for metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    #[serde(skip)]
    pub origin: Arc<str>,
    /// `host:port` as configured.
    pub server: String,
    /// Where requests go; `None` while a name has not been resolved.
    pub address: Option<SocketAddr>,
    pub weight: usize,
    /// False for a server without an address: it can take no requests.
    pub healthy: bool,
    pub drained: bool,
    /// Requests in flight.
    pub active: usize,
    /// Changes from healthy to unhealthy or back, since the server is known.
    pub transitions: u64,
    /// Of the newest failed check or resolution; gone when the server has recovered.
    pub last_error: Option<String>,
}

#[cfg(test)]
impl Member {
    /// A server of a pool that has health checks.
    pub(super) fn checked_at(addr: SocketAddr) -> Arc<Member> {
        let server = Server { address: ServerAddress::Socket(addr), weight: 1 };
        Slot::new(0, &server, |_| None).at(addr, true, Arc::default())
    }
}
