//! The servers of a pool, and what is known about them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Serialize, Serializer};

use super::balance::Load;
use super::discovery::{Answer, Found, servers_of};
use super::endpoint::Endpoint;
use super::health::{Health, LastError};
use crate::config::model::{Server, ServerAddress};

/// One server as it is configured or listed: where servers come from. A name is several [`Member`]s, or none until it
/// is resolved.
#[derive(Debug)]
pub(super) struct Slot {
    /// No two slots of a pool's lifetime have the same. Of a configured server: its position in the origin's list.
    pub(super) index: usize,
    pub(super) server: Server,
    pub(super) shared: Arc<SlotState>,
}

/// What outlives a reload that keeps the server.
#[derive(Debug)]
pub(super) struct SlotState {
    /// As configured or listed, by [`ServerAddress`]'s Display.
    pub(super) text: String,
    pub(super) drained: AtomicBool,
    /// Why the name could not be resolved the last time.
    pub(super) unresolved: LastError,
}

impl Slot {
    /// `previous` finds the state of a server that was there before by its text.
    pub(super) fn new(index: usize, server: &Server, previous: impl Fn(&str) -> Option<Arc<SlotState>>) -> Slot {
        let text = server.address.to_string();
        let shared = previous(&text).unwrap_or_else(|| {
            let (drained, unresolved) = (AtomicBool::new(false), LastError::default());
            Arc::new(SlotState { text, drained, unresolved })
        });
        Slot { index, server: server.clone(), shared }
    }

    /// What it leads to, by the newest good answer to its name.
    pub(super) fn found(&self, answer: Option<&Answer>) -> Vec<Found> {
        servers_of(&self.server, answer)
    }

    /// Whether it has a name to be resolved.
    pub(super) fn is_named(&self) -> bool {
        matches!(self.server.address, ServerAddress::Name { .. } | ServerAddress::Srv(_))
    }

    /// A server that has been found by it. `checked`: whether its pool has health checks.
    pub(super) fn member(&self, found: Found, checked: bool, state: Arc<State>) -> Arc<Member> {
        Arc::new(Member { index: self.index, slot: self.shared.clone(), found, checked, state })
    }

    /// Before it is resolved.
    pub(super) fn status(&self, origin: &Arc<str>) -> ServerStatus {
        ServerStatus {
            origin: origin.clone(),
            server: self.shared.text.clone(),
            address: None,
            weight: self.server.weight,
            tier: self.server.tier,
            healthy: false,
            drained: self.shared.drained.load(Ordering::Relaxed),
            active: 0,
            transitions: 0,
            last_error: self.shared.unresolved.get(),
        }
    }
}

/// One endpoint that requests are sent to.
#[derive(Debug)]
pub(super) struct Member {
    /// Of the slot that it comes from.
    pub(super) index: usize,
    pub(super) slot: Arc<SlotState>,
    pub(super) found: Found,
    /// Whether its pool has health checks. Without them every server counts as healthy, whatever an earlier
    /// configuration's checks have found.
    pub(super) checked: bool,
    pub(super) state: Arc<State>,
}

impl Member {
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.found.endpoint
    }

    /// Whether it comes from that slot, and not from one that was there before with other settings.
    pub(super) fn is_of(&self, slot: &Slot) -> bool {
        self.index == slot.index && Arc::ptr_eq(&self.slot, &slot.shared)
    }

    pub(super) fn is_healthy(&self) -> bool {
        !self.checked || self.state.health.healthy.load(Ordering::Relaxed)
    }

    pub(super) fn is_drained(&self) -> bool {
        self.state.health.drained.load(Ordering::Relaxed) || self.slot.drained.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self, origin: &Arc<str>) -> ServerStatus {
        let health = &self.state.health;
        ServerStatus {
            origin: origin.clone(),
            server: self.found.text.clone(),
            address: Some(self.endpoint().clone()),
            weight: self.found.weight,
            tier: self.found.tier,
            healthy: self.is_healthy(),
            drained: self.is_drained(),
            active: self.state.load.active.load(Ordering::Relaxed),
            transitions: health.transitions.load(Ordering::Relaxed),
            last_error: health.last_error.get().or_else(|| self.slot.unresolved.get()),
        }
    }
}

/// What is known about an endpoint. Outlives reloads and DNS answers that keep it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) health: Health,
    pub(super) load: Load,
}

/// A server's state, for the admin API and for metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    #[serde(skip)]
    pub origin: Arc<str>,
    /// As configured, or as it was found.
    pub server: String,
    /// Where requests go; `None` while a name has not been resolved.
    #[serde(serialize_with = "as_text")]
    pub address: Option<Endpoint>,
    pub weight: usize,
    pub tier: u8,
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

fn as_text<S: Serializer>(endpoint: &Option<Endpoint>, serializer: S) -> Result<S::Ok, S::Error> {
    match endpoint {
        Some(endpoint) => serializer.collect_str(endpoint),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
impl Member {
    /// A server of a pool that has health checks.
    pub(super) fn checked_at(addr: std::net::SocketAddr) -> Arc<Member> {
        let server = Server { address: ServerAddress::Socket(addr), weight: 1, tier: 0 };
        let slot = Slot::new(0, &server, |_| None);
        let found = Found { endpoint: addr.into(), text: addr.to_string(), weight: 1, tier: 0 };
        slot.member(found, true, Arc::default())
    }
}
