//! The servers of a pool, and what is known about them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::balance::{Load, clock};
use super::discovery::{Answer, Found, servers_of};
use super::endpoint::Endpoint;
use super::figures::{Figures, Tally};
use super::health::{Health, LastError, ServerState, Watch};
use super::wire::{ConnectionCounts, Connections};
use crate::config::model::{Server, ServerAddress};
use crate::observe::rfc3339;

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

    /// A server that has been found by it.
    pub(super) fn member(&self, found: Found, watch: &Watch, state: Arc<State>) -> Arc<Member> {
        let id = found.endpoint.id();
        Arc::new(Member { index: self.index, id, slot: self.shared.clone(), found, watch: watch.clone(), state })
    }

    /// Before it is resolved.
    pub(super) fn status(&self, origin: &Arc<str>) -> ServerStatus {
        let last_error = self.shared.unresolved.get();
        ServerStatus {
            origin: origin.clone(),
            server: self.shared.text.clone(),
            address: None,
            weight: self.server.weight,
            tier: self.server.tier,
            state: ServerState::Unresolved,
            reason: Some(last_error.clone().unwrap_or_else(|| "no answer yet".to_owned())),
            since: self.shared.unresolved.since(),
            healthy: false,
            drained: self.shared.drained.load(Ordering::Relaxed),
            active: 0,
            transitions: 0,
            ejections: 0,
            ejected_until: None,
            last_error,
            tally: Tally::default(),
            connections: ConnectionCounts::default(),
        }
    }
}

/// One endpoint that requests are sent to.
#[derive(Debug)]
pub(super) struct Member {
    /// Of the slot that it comes from.
    pub(super) index: usize,
    /// [`Endpoint::id`].
    pub(super) id: u64,
    pub(super) slot: Arc<SlotState>,
    pub(super) found: Found,
    /// What of its state counts in its pool.
    pub(super) watch: Watch,
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

    /// By health checks.
    pub(super) fn is_healthy(&self) -> bool {
        self.watch.checks.is_none() || self.state.health.healthy.load(Ordering::Relaxed)
    }

    /// By what became of its requests. An ejection ends by itself.
    pub(super) fn is_ejected(&self, now: u64) -> bool {
        let record = &self.state.health.record;
        self.watch.judge.is_some() && record.is_ejected(now)
    }

    /// Whether it can be expected to answer. The operator may have drained it all the same.
    pub(super) fn is_usable(&self) -> bool {
        // The clock is for those few that are ejected.
        self.is_healthy() && !(self.state.health.record.may_be_ejected() && self.is_ejected(clock::now()))
    }

    pub(super) fn is_drained(&self) -> bool {
        self.state.health.drained.load(Ordering::Relaxed) || self.slot.drained.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self, origin: &Arc<str>) -> ServerStatus {
        let health = &self.state.health;
        let now = clock::now();
        let state = self.state_at(now);
        let (reason, since) = health.told(state);
        let by_weight = !self.is_drained();
        let reason = match state {
            ServerState::Drained if by_weight => Some("its weight is 0".to_owned()),
            ServerState::Drained => Some("by the operator".to_owned()),
            _ => reason,
        };
        let left = health.record.until().filter(|_| self.is_ejected(now)).map(|until| until.saturating_sub(now));
        ServerStatus {
            origin: origin.clone(),
            server: self.found.text.clone(),
            address: Some(self.endpoint().clone()),
            weight: self.found.weight,
            tier: self.found.tier,
            state,
            reason,
            since,
            healthy: self.is_healthy(),
            drained: self.is_drained(),
            active: self.state.load.active.load(Ordering::Relaxed),
            transitions: health.transitions.load(Ordering::Relaxed),
            ejections: health.record.ejections(),
            ejected_until: left.and_then(|left| SystemTime::now().checked_add(Duration::from_millis(left))),
            // What checks found that are made no longer is no news.
            last_error: self
                .watch
                .checks
                .as_ref()
                .and_then(|_| health.last_error.get())
                .or_else(|| self.slot.unresolved.get()),
            tally: self.state.figures.tally(),
            connections: self.state.connections.counts(),
        }
    }

    /// What holds for longest comes first: the operator's word, then the checks'.
    fn state_at(&self, now: u64) -> ServerState {
        if self.is_drained() || self.found.weight == 0 {
            ServerState::Drained
        } else if !self.is_healthy() {
            ServerState::Unhealthy
        } else if self.is_ejected(now) {
            ServerState::Ejected
        } else {
            ServerState::Healthy
        }
    }
}

/// What is known about an endpoint. Outlives reloads and DNS answers that keep it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) health: Health,
    pub(super) load: Load,
    pub(super) figures: Figures,
    pub(super) connections: Connections,
}

/// A server's state, for the admin API and for metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    pub state: ServerState,
    /// Why it is in this state; `None`: it is healthy.
    pub reason: Option<String>,
    /// When it came into this state.
    #[serde(serialize_with = "as_time")]
    pub since: SystemTime,
    /// By health checks. False for a server without an address: it can take no requests.
    pub healthy: bool,
    pub drained: bool,
    /// Requests in flight.
    pub active: usize,
    /// Changes from healthy to unhealthy or back, since the server is known.
    pub transitions: u64,
    /// How often it has been ejected, since the server is known.
    pub ejections: u64,
    /// `None`: it is not ejected.
    #[serde(serialize_with = "as_time_if_any")]
    pub ejected_until: Option<SystemTime>,
    /// Of the newest failed check or resolution; gone when the server has recovered.
    pub last_error: Option<String>,
    /// What its requests have come to, since the server is known.
    #[serde(skip)]
    pub tally: Tally,
    #[serde(skip)]
    pub connections: ConnectionCounts,
}

fn as_text<S: Serializer>(endpoint: &Option<Endpoint>, serializer: S) -> Result<S::Ok, S::Error> {
    match endpoint {
        Some(endpoint) => serializer.collect_str(endpoint),
        None => serializer.serialize_none(),
    }
}

fn as_time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

fn as_time_if_any<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => as_time(time, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
impl Member {
    /// A server of a pool that has health checks.
    pub(super) fn checked_at(addr: std::net::SocketAddr) -> Arc<Member> {
        let server = Server { address: ServerAddress::Socket(addr), weight: 1, tier: 0 };
        let slot = Slot::new(0, &server, |_| None);
        let mut origin = crate::config::model::Origin::plain("media", vec![server]);
        origin.health_check = Some(crate::config::model::HealthCheck::tcp());
        let found = Found { endpoint: addr.into(), text: addr.to_string(), weight: 1, tier: 0 };
        slot.member(found, &Watch::new(&origin), Arc::default())
    }
}
