//! A pool: the servers of one origin, and who of them takes the next request.

mod choose;
mod tasks;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

pub use self::choose::{Ask, Chosen};
use self::tasks::Tasks;
use super::balance::Rotation;
use super::discovery::Found;
use super::member::{Member, ServerStatus, Slot, SlotState, State};
use super::peer::PeerSettings;
use crate::config::model::Origin;

/// How long a start waits for names that have never been resolved.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(2);

/// The servers of one origin. Dropping it ends its background tasks.
#[derive(Debug)]
pub struct Pool {
    inner: Arc<Inner>,
}

/// What the background tasks share with the pool.
#[derive(Debug)]
struct Inner {
    origin: Arc<Origin>,
    name: Arc<str>,
    slots: Vec<Slot>,
    peers: PeerSettings,
    turn: Mutex<Turn>,
    /// Counts whatever changes who is eligible: the next choice then begins a new cycle.
    changes: AtomicU64,
    /// Names whose first resolution is still to come.
    unresolved: watch::Sender<usize>,
    /// `None`: not started, or stopped.
    tasks: Mutex<Option<Tasks>>,
}

/// Locked for one walk over the members.
#[derive(Debug)]
struct Turn {
    /// In the order of the slots.
    members: Arc<[Arc<Member>]>,
    rotation: Rotation,
    /// [`Inner::changes`] as this cycle began.
    seen: u64,
}

impl Pool {
    /// A pool whose servers are all taken for healthy. Nothing runs before [`Pool::start`].
    pub fn new(origin: Arc<Origin>) -> Pool {
        Pool::build(origin, None)
    }

    /// As [`Pool::new`], but what `previous` knows about servers that stay (health, drains, requests in flight,
    /// addresses of names) is carried over. Servers are the same where address and port are configured alike.
    pub fn from_previous(origin: Arc<Origin>, previous: &Pool) -> Pool {
        Pool::build(origin, Some(previous))
    }

    fn build(origin: Arc<Origin>, previous: Option<&Pool>) -> Pool {
        let known = previous.map(|pool| pool.inner.turn().members.clone()).unwrap_or_default();
        let known_slot = |text: &str| -> Option<Arc<SlotState>> {
            let slots = &previous?.inner.slots;
            slots.iter().find(|slot| slot.shared.text == text).map(|slot| slot.shared.clone())
        };
        let slots: Vec<Slot> =
            origin.servers.iter().enumerate().map(|(index, server)| Slot::new(index, server, known_slot)).collect();
        let checked = origin.health_check.is_some();
        let mut members = Vec::with_capacity(slots.len());
        for slot in &slots {
            let known = known.iter().filter(|member| member.slot.text == slot.shared.text);
            match slot.known() {
                Some(found) => {
                    let same = known.into_iter().find(|member| *member.endpoint() == found.endpoint);
                    members.push(slot.member(
                        found,
                        checked,
                        same.map(|member| member.state.clone()).unwrap_or_default(),
                    ));
                }
                None => members.extend(known.map(|member| {
                    slot.member(slot.found_at(member.endpoint().clone()), checked, member.state.clone())
                })),
            }
        }
        let unresolved = slots.iter().filter(|slot| !members.iter().any(|member| member.index == slot.index)).count();
        let inner = Inner {
            name: origin.name.as_str().into(),
            peers: PeerSettings::new(&origin),
            turn: Mutex::new(Turn { members: members.into(), rotation: Rotation::default(), seen: 0 }),
            changes: AtomicU64::new(0),
            unresolved: watch::Sender::new(unresolved),
            tasks: Mutex::new(None),
            origin,
            slots,
        };
        Pool { inner: Arc::new(inner) }
    }

    /// Starts resolving and checking on `runtime`, which must outlive the pool. Does nothing the second time.
    pub fn start(&self, runtime: &Handle) {
        self.inner.start(runtime);
    }

    /// Ends the background tasks: the servers stay as they are now.
    pub fn stop(&self) {
        let tasks = self.inner.tasks().take();
        drop(tasks);
    }

    /// Waits until every name has been resolved once or has failed to, at most about 2 s. Only of use after
    /// [`Pool::start`].
    pub async fn ready(&self) {
        // Too late or not, the edge starts: a request may well find the name resolved then.
        let _ = timeout(READY_LIMIT, self.inner.unresolved.subscribe().wait_for(|names| *names == 0)).await;
    }

    /// What Pingora connects to.
    pub fn peer(&self, chosen: &Chosen) -> Box<HttpPeer> {
        self.inner.peers.peer(chosen.endpoint())
    }

    /// The same for a request that asks for an upgrade (RFC 9110 §7.8).
    pub fn tunnel(&self, chosen: &Chosen) -> Box<HttpPeer> {
        self.inner.peers.tunnel(chosen.endpoint())
    }

    /// The settings that it was made from.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.inner.origin
    }

    /// Every server, in the order of the configuration; a name once for each of its addresses.
    pub fn servers(&self) -> Vec<ServerStatus> {
        let inner = &self.inner;
        let members = inner.turn().members.clone();
        let mut servers = Vec::with_capacity(members.len());
        for slot in &inner.slots {
            let before = servers.len();
            let of_slot = members.iter().filter(|member| member.index == slot.index);
            servers.extend(of_slot.map(|member| member.status(&inner.name)));
            if servers.len() == before {
                servers.push(slot.status(&inner.name));
            }
        }
        servers
    }

    /// Takes a server out of the rotation, or back in; requests in flight go on. `server` is `host:port` as it is
    /// configured, for all addresses of a name, or one address. Whether there is such a server.
    pub fn set_drained(&self, server: &str, drained: bool) -> bool {
        let inner = &self.inner;
        let members = inner.turn().members.clone();
        let mut found = false;
        for slot in inner.slots.iter().filter(|slot| slot.shared.text == server) {
            found = true;
            slot.shared.drained.store(drained, Ordering::Relaxed);
        }
        let by_name = found;
        for member in members.iter() {
            // Back in by its name means back in with all of its addresses.
            let named = by_name && !drained && member.slot.text == server;
            if named || (!by_name && member.endpoint().to_string() == server) {
                found = true;
                member.state.health.drained.store(drained, Ordering::Relaxed);
            }
        }
        if found {
            inner.changed();
            log::info!(
                "origin {}: server {server} is {}",
                inner.name,
                if drained { "drained" } else { "in use again" }
            );
        }
        found
    }
}

#[cfg(test)]
impl Pool {
    pub(super) fn is_running(&self) -> bool {
        self.inner.tasks().is_some()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The tasks hold the inner part: without this, they would never end.
        self.stop();
    }
}

impl Inner {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Option<Tasks>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Puts what a slot has led to in the place of what it led to before. What is known of servers that stay is kept.
    fn found(self: &Arc<Self>, slot: &Slot, found: Vec<Found>) {
        let checked = self.origin.health_check.is_some();
        let mut turn = self.turn();
        let of_slot = turn.members.iter().filter(|member| member.index == slot.index);
        if of_slot.map(|member| &member.found).eq(&found) {
            return;
        }
        let texts: Vec<String> = found.iter().map(|found| found.endpoint.to_string()).collect();
        let fresh = found.into_iter().map(|found| {
            let known = turn.members.iter().find(|m| m.index == slot.index && *m.endpoint() == found.endpoint);
            let state: Arc<State> = known.map(|member| member.state.clone()).unwrap_or_default();
            slot.member(found, checked, state)
        });
        let before = turn.members.iter().filter(|member| member.index < slot.index).cloned();
        let after = turn.members.iter().filter(|member| member.index > slot.index).cloned();
        let members: Arc<[Arc<Member>]> = before.chain(fresh).chain(after).collect();
        turn.members = members;
        turn.rotation.restart();
        drop(turn);
        log::debug!("origin {}: {} is now {texts:?}", self.name, slot.shared.text);
        self.align_checks();
    }
}

#[cfg(test)]
mod tests;
