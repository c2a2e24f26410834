//! A pool: the servers of one origin, and who of them takes the next request.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::balance::Rotation;
use super::member::{Member, ServerStatus, Slot, SlotState, State};
use super::peer::PeerSettings;
use super::{health, resolve};
use crate::config::model::{Balance, Origin, ServerAddress};

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

/// A request's server. Counts as an active request of it until dropped.
#[derive(Debug)]
pub struct Chosen {
    member: Arc<Member>,
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
            match slot.address {
                ServerAddress::Socket(addr) => {
                    let state = known.into_iter().find(|member| member.addr == addr).map(|member| member.state.clone());
                    members.push(slot.at(addr, checked, state.unwrap_or_default()));
                }
                ServerAddress::Name { .. } => {
                    members.extend(known.map(|member| slot.at(member.addr, checked, member.state.clone())));
                }
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
        let inner = &self.inner;
        let mut tasks = inner.tasks();
        if tasks.is_some() {
            return;
        }
        let mut started = Tasks { runtime: runtime.clone(), names: Vec::new(), checks: HashMap::new() };
        for index in 0..inner.slots.len() {
            if matches!(inner.slots[index].address, ServerAddress::Name { .. }) {
                started.names.push(Task::spawn(runtime, follow_name(inner.clone(), index)));
            }
        }
        *tasks = Some(started);
        drop(tasks);
        inner.align_checks();
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

    /// The server for a request that has tried some already. `None`: every other server is unhealthy, drained, of
    /// weight 0 or not resolved.
    pub fn select(&self, tried: &[SocketAddr]) -> Option<Chosen> {
        let inner = &self.inner;
        let changes = inner.changes.load(Ordering::Acquire);
        let mut turn = inner.turn();
        let Turn { members, rotation, seen } = &mut *turn;
        if *seen != changes {
            *seen = changes;
            rotation.restart();
        }
        let weight = |position: usize| {
            let member: &Member = &members[position];
            let usable = member.is_healthy() && !member.is_drained() && !tried.contains(&member.addr);
            if usable { member.weight } else { 0 }
        };
        let position = match inner.origin.balance {
            Balance::RoundRobin => rotation.next(members.len(), weight)?,
        };
        let member = members[position].clone();
        member.state.active.fetch_add(1, Ordering::Relaxed);
        Some(Chosen { member })
    }

    /// What Pingora connects to.
    pub fn peer(&self, chosen: &Chosen) -> Box<HttpPeer> {
        self.inner.peers.peer(chosen.addr())
    }

    /// The same for a request that asks for an upgrade (RFC 9110 §7.8).
    pub fn tunnel(&self, chosen: &Chosen) -> Box<HttpPeer> {
        self.inner.peers.tunnel(chosen.addr())
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
        let addr = server.parse::<SocketAddr>().ok();
        for member in members.iter() {
            // Back in by its name means back in with all of its addresses.
            let named = by_name && !drained && member.slot.text == server;
            if named || (!by_name && addr == Some(member.addr)) {
                found = true;
                member.state.drained.store(drained, Ordering::Relaxed);
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

impl Chosen {
    /// Where to connect to.
    pub fn addr(&self) -> SocketAddr {
        self.member.addr
    }

    /// `host:port` as configured.
    pub fn server(&self) -> &str {
        &self.member.slot.text
    }

    /// Index into [`Origin::servers`].
    pub fn index(&self) -> usize {
        self.member.index
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.member.state.active.fetch_sub(1, Ordering::Relaxed);
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

    /// Puts a name's addresses in the place of those that it had.
    fn resolved(self: &Arc<Self>, slot: &Slot, port: u16, addresses: &[IpAddr]) {
        let checked = self.origin.health_check.is_some();
        let mut turn = self.turn();
        let of_slot = turn.members.iter().filter(|member| member.index == slot.index);
        if of_slot.map(|member| member.addr.ip()).eq(addresses.iter().copied()) {
            return;
        }
        let fresh = addresses.iter().map(|ip| {
            let addr = SocketAddr::new(*ip, port);
            let known = turn.members.iter().find(|member| member.index == slot.index && member.addr == addr);
            known.cloned().unwrap_or_else(|| slot.at(addr, checked, Arc::new(State::default())))
        });
        let before = turn.members.iter().filter(|member| member.index < slot.index).cloned();
        let after = turn.members.iter().filter(|member| member.index > slot.index).cloned();
        let members: Arc<[Arc<Member>]> = before.chain(fresh).chain(after).collect();
        turn.members = members;
        turn.rotation.restart();
        drop(turn);
        log::debug!("origin {}: {} is now {addresses:?}", self.name, slot.shared.text);
        self.align_checks();
    }

    /// Sees to it that each member is checked by one task, and nobody else is.
    fn align_checks(self: &Arc<Self>) {
        let Some(check) = &self.origin.health_check else { return };
        let mut tasks = self.tasks();
        let Some(Tasks { runtime, checks, .. }) = &mut *tasks else { return };
        // Read while the tasks are locked: of two changes at once, the later one is seen by whoever comes last.
        let members = self.turn().members.clone();
        checks.retain(|(index, addr), _| members.iter().any(|member| (member.index, member.addr) == (*index, *addr)));
        for member in members.iter() {
            checks.entry((member.index, member.addr)).or_insert_with(|| {
                let (inner, check, member) = (self.clone(), check.clone(), member.clone());
                Task::spawn(runtime, async move {
                    health::watch(&inner.name, &check, &member, || inner.changed()).await;
                })
            });
        }
    }
}

async fn follow_name(inner: Arc<Inner>, index: usize) {
    let Some(slot) = inner.slots.get(index) else { return };
    let ServerAddress::Name { host, port } = &slot.address else { return };
    let mut awaited = !inner.turn().members.iter().any(|member| member.index == index);
    resolve::follow(&inner.name, &slot.shared, host, |addresses| {
        if let Some(addresses) = addresses {
            inner.resolved(slot, *port, addresses);
        }
        if std::mem::take(&mut awaited) {
            inner.unresolved.send_modify(|names| *names = names.saturating_sub(1));
        }
    })
    .await;
}

#[derive(Debug)]
struct Tasks {
    runtime: Handle,
    names: Vec<Task>,
    /// By slot and address.
    checks: HashMap<(usize, SocketAddr), Task>,
}

/// A background task that ends when this is dropped.
#[derive(Debug)]
struct Task(AbortHandle);

impl Task {
    fn spawn(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(runtime.spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
