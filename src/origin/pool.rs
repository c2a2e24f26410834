//! A pool: the servers of one origin, and who of them takes the next request.

mod candidates;
mod choose;
mod refusal;
mod tasks;
mod waiting;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::upstreams::peer::HttpPeer;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

pub use self::choose::{Ask, Chosen};
pub use self::refusal::NoServer;
use self::tasks::Tasks;
use self::waiting::Waiting;
use super::balance::{Ring, Rotation, clock};
use super::discovery::Found;
use super::health::Watch;
use super::member::{Member, ServerStatus, Slot, SlotState, State};
use super::peer::PeerSettings;
use super::sticky::Sticky;
use crate::config::model::{Balance, Origin};

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
    health: Watch,
    peers: PeerSettings,
    sticky: Option<Sticky>,
    /// Read by every choice, without a lock.
    view: ArcSwap<View>,
    /// Held while a view is made from the one before.
    viewing: Mutex<()>,
    turn: Mutex<Turn>,
    /// Which of several that are alike comes first.
    ties: AtomicUsize,
    /// Counts whatever changes who is eligible: the next choice then begins a new cycle.
    changes: AtomicU64,
    /// As the log has been told.
    panicking: AtomicBool,
    /// Requests that wait for a place. Requests of the pool that this one has followed make room for them too.
    waiting: Arc<Waiting>,
    /// When it was started, or the pool was that it has followed, by the choices' clock; 0: not yet.
    began: AtomicU64,
    /// Names whose first resolution is still to come.
    unresolved: watch::Sender<usize>,
    /// `None`: not started, or stopped.
    tasks: Mutex<Option<Tasks>>,
}

/// The servers at some time.
#[derive(Debug)]
struct View {
    /// In the order of the slots.
    members: Arc<[Arc<Member>]>,
    /// Where hashes choose.
    ring: Option<Ring>,
}

impl View {
    fn new(members: Arc<[Arc<Member>]>, balance: &Balance) -> View {
        let servers = || members.iter().enumerate().map(|(at, member)| (at, member.endpoint(), member.found.weight));
        let ring = match balance {
            Balance::IpHash | Balance::ConsistentHash { .. } => Some(Ring::new(servers())),
            Balance::RoundRobin
            | Balance::Random
            | Balance::LeastRequests { .. }
            | Balance::LeastLatency
            | Balance::Failover => None,
        };
        View { ring, members }
    }
}

/// Locked for one step of the rotation.
#[derive(Debug, Default)]
struct Turn {
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
        let now = clock::now();
        let known = previous.map(|pool| pool.inner.members()).unwrap_or_default();
        let began = previous.map_or(0, |pool| pool.inner.began.load(Ordering::Relaxed));
        let known_slot = |text: &str| -> Option<Arc<SlotState>> {
            let slots = &previous?.inner.slots;
            slots.iter().find(|slot| slot.shared.text == text).map(|slot| slot.shared.clone())
        };
        let slots: Vec<Slot> =
            origin.servers.iter().enumerate().map(|(index, server)| Slot::new(index, server, known_slot)).collect();
        let health = Watch::new(&origin);
        let mut members = Vec::with_capacity(slots.len());
        for slot in &slots {
            let known = known.iter().filter(|member| member.slot.text == slot.shared.text);
            match slot.known() {
                Some(found) => {
                    let same = known.into_iter().find(|member| *member.endpoint() == found.endpoint);
                    let state = same.map(|member| member.state.clone());
                    members.push(slot.member(found, &health, state.unwrap_or_else(|| newcomer(began, now))));
                }
                None => members.extend(known.map(|member| {
                    slot.member(slot.found_at(member.endpoint().clone()), &health, member.state.clone())
                })),
            }
        }
        let unresolved = slots.iter().filter(|slot| !members.iter().any(|member| member.index == slot.index)).count();
        if let Some(judge) = &health.judge {
            judge.watch(&members);
        }
        let view = View::new(members.into(), &origin.balance);
        let inner = Inner {
            name: origin.name.as_str().into(),
            health,
            peers: PeerSettings::new(&origin),
            sticky: origin.sticky.as_ref().map(|settings| Sticky::new(settings, &origin.name)),
            view: ArcSwap::from_pointee(view),
            viewing: Mutex::default(),
            turn: Mutex::default(),
            ties: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            panicking: AtomicBool::new(false),
            waiting: previous.map(|pool| pool.inner.waiting.clone()).unwrap_or_default(),
            began: AtomicU64::new(began),
            unresolved: watch::Sender::new(unresolved),
            tasks: Mutex::new(None),
            origin,
            slots,
        };
        let inner = Arc::new(inner);
        if let Some(judge) = &inner.health.judge {
            let pool = Arc::downgrade(&inner);
            judge.on_change(move || {
                if let Some(pool) = pool.upgrade() {
                    pool.changed();
                }
            });
        }
        Pool { inner }
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

    /// The cookie that names a client's server, where clients stay with theirs.
    pub fn sticky(&self) -> Option<&Sticky> {
        self.inner.sticky.as_ref()
    }

    /// Every server, in the order of the configuration; a name once for each of its addresses.
    pub fn servers(&self) -> Vec<ServerStatus> {
        let inner = &self.inner;
        let members = inner.members();
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
        let members = inner.members();
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
            if named || member.slot.text == server || member.endpoint().to_string() == server {
                member.state.health.drain_changed();
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

    fn members(&self) -> Arc<[Arc<Member>]> {
        self.view.load().members.clone()
    }

    fn tasks(&self) -> MutexGuard<'_, Option<Tasks>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called after each change of who can be chosen.
    fn changed(&self) {
        let (members, now) = (self.members(), clock::now());
        for member in members.iter() {
            member.state.load.note(member.is_usable() && !member.is_drained(), now);
        }
        self.changes.fetch_add(1, Ordering::Release);
        self.waiting.freed();
        self.tell_panic();
    }

    /// Resolving and checking begin: who comes later than a start waits for names is new.
    fn began(&self, now: u64) {
        let _ = self.began.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Puts what a slot has led to in the place of what it led to before. What is known of servers that stay is kept.
    fn found(self: &Arc<Self>, slot: &Slot, found: Vec<Found>) {
        self.found_by(slot, found, clock::now());
    }

    fn found_by(self: &Arc<Self>, slot: &Slot, found: Vec<Found>, now: u64) {
        let viewing = self.viewing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.members();
        let of_slot = known.iter().filter(|member| member.index == slot.index);
        if of_slot.map(|member| &member.found).eq(&found) {
            return;
        }
        let texts: Vec<String> = found.iter().map(|found| found.endpoint.to_string()).collect();
        let began = self.began.load(Ordering::Relaxed);
        let fresh = found.into_iter().map(|found| {
            let known = known.iter().find(|m| m.index == slot.index && *m.endpoint() == found.endpoint);
            let state = known.map_or_else(|| newcomer(began, now), |member| member.state.clone());
            slot.member(found, &self.health, state)
        });
        let before = known.iter().filter(|member| member.index < slot.index).cloned();
        let after = known.iter().filter(|member| member.index > slot.index).cloned();
        let members: Arc<[Arc<Member>]> = before.chain(fresh).chain(after).collect();
        if let Some(judge) = &self.health.judge {
            judge.watch(&members);
        }
        self.view.store(Arc::new(View::new(members, &self.origin.balance)));
        drop(viewing);
        log::debug!("origin {}: {} is now {texts:?}", self.name, slot.shared.text);
        self.changed();
        self.align_checks();
    }
}

/// What is known of a server that nobody has known before. A pool that `began` a while ago starts it slowly.
fn newcomer(began: u64, now: u64) -> Arc<State> {
    let state = State::default();
    if began != 0 && now.saturating_sub(began) > clock::millis(READY_LIMIT) {
        state.load.came(now);
    }
    Arc::new(state)
}

#[cfg(test)]
mod tests;
