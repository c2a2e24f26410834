//! A pool: the servers of one origin, and who of them takes the next request.

mod candidates;
mod changes;
mod choose;
mod drains;
mod refusal;
mod sources;
mod tasks;
mod waiting;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

pub use self::choose::{Ask, Chosen};
use self::drains::Drains;
pub use self::refusal::NoServer;
use self::sources::{SharedSlot, Sources};
use self::tasks::Tasks;
use self::waiting::Waiting;
use super::balance::{Ring, Rotation, clock};
use super::discovery::{Answer, Found};
use super::exchange::Budget;
use super::health::{LastError, Watch};
use super::member::{Member, ServerStatus, State};
use super::sticky::Sticky;
use super::wire::{Dialer, How, Proxied, Wire, WireError};
use crate::config::model::{Balance, HostHeader, Origin, Server};

/// How long a start waits for names that have never been resolved, and for a file that has never been read.
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
    /// Where the members come from. Locked before whatever else is, but the tasks, and never on a request's way.
    sources: Mutex<Sources>,
    /// Shared with the pools before and after it.
    drains: Arc<Drains>,
    /// What is wrong with the watched file.
    file_error: LastError,
    health: Watch,
    /// Makes the connections.
    dialer: Arc<Dialer>,
    budget: Budget,
    sticky: Option<Sticky>,
    /// Read by every choice, without a lock. Made anew only while the sources are locked.
    view: ArcSwap<View>,
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
    /// [`Sources::awaited`].
    awaited: watch::Sender<usize>,
    /// `None`: not started, or stopped.
    tasks: Mutex<Option<Tasks>>,
}

/// The servers at some time.
#[derive(Debug)]
struct View {
    /// In the order of the slots; no two with the same endpoint.
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

    /// As [`Pool::new`], but what `previous` knows is carried over: the state of servers that stay (health, requests in
    /// flight), whoever names them now; what names stand for; what the watched file lists; and all drains.
    pub fn from_previous(origin: Arc<Origin>, previous: &Pool) -> Pool {
        Pool::build(origin, Some(previous))
    }

    fn build(origin: Arc<Origin>, previous: Option<&Pool>) -> Pool {
        let previous = previous.map(|pool| &pool.inner);
        let sources = match previous {
            Some(before) => Sources::after(&origin, &before.origin, &before.sources()),
            None => Sources::new(&origin),
        };
        let inner = Inner {
            name: origin.name.as_str().into(),
            drains: previous.map(|before| before.drains.clone()).unwrap_or_default(),
            file_error: LastError::default(),
            health: Watch::new(&origin),
            dialer: Arc::new(Dialer::new(&origin)),
            budget: Budget::new(&origin.retry),
            sticky: origin.sticky.as_ref().map(|settings| Sticky::new(settings, &origin.name)),
            view: ArcSwap::from_pointee(View::new(Vec::new().into(), &origin.balance)),
            turn: Mutex::default(),
            ties: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            panicking: AtomicBool::new(false),
            waiting: match previous {
                Some(before) if before.origin.limits == origin.limits => before.waiting.clone(),
                Some(before) => Arc::new(Waiting::after(&before.waiting)),
                None => Arc::default(),
            },
            began: AtomicU64::new(previous.map_or(0, |before| before.began.load(Ordering::Relaxed))),
            awaited: watch::Sender::new(sources.awaited()),
            tasks: Mutex::new(None),
            sources: Mutex::default(),
            origin,
        };
        let known = previous.map(|before| before.members()).unwrap_or_default();
        let members = inner.made(&sources, &known, false, clock::now());
        inner.drains.mark(sources.slots(), &members);
        inner.set_members(members);
        *inner.sources() = sources;
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

    /// Waits until every name has been resolved once or has failed to, and the watched file has been read or could not
    /// be, at most about 2 s. Only of use after [`Pool::start`].
    pub async fn ready(&self) {
        // Too late or not, the edge starts: a request may well find the name resolved then.
        let _ = timeout(READY_LIMIT, self.inner.awaited.subscribe().wait_for(|awaited| *awaited == 0)).await;
    }

    /// How many requests may be tried again.
    pub(super) fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// Retries that the budget allows now.
    pub fn retries_left(&self) -> u64 {
        self.inner.budget.left(std::time::Instant::now())
    }

    /// A connection to a server. `alone`: for a request that asks for an upgrade (RFC 9110 §7.8), which nobody else uses
    /// after it.
    pub(super) async fn checkout(
        &self,
        chosen: &Chosen,
        proxied: Option<Proxied>,
        alone: bool,
    ) -> Result<(Wire, How), WireError> {
        let (connections, dialer) = (&chosen.member.state.connections, &self.inner.dialer);
        match alone {
            false => connections.checkout(dialer, chosen.endpoint(), chosen.server(), proxied).await,
            true => Box::pin(connections.open_http1(dialer, chosen.endpoint(), chosen.server(), proxied)).await,
        }
    }

    /// The settings that it was made from.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.inner.origin
    }

    /// The cookie that names a client's server, where clients stay with theirs.
    pub fn sticky(&self) -> Option<&Sticky> {
        self.inner.sticky.as_ref()
    }

    /// What is wrong with the watched file; the servers that were known before it was wrong are in use.
    pub fn last_error(&self) -> Option<String> {
        self.inner.file_error.get()
    }

    /// Every server, in the order of the configuration and then of the watched file; a name once for each of its
    /// addresses.
    pub fn servers(&self) -> Vec<ServerStatus> {
        let inner = &self.inner;
        let sources = inner.sources();
        let members = inner.members();
        let mut by_slot: HashMap<usize, Vec<&Arc<Member>>> = HashMap::new();
        for member in members.iter() {
            by_slot.entry(member.index).or_default().push(member);
        }
        let mut servers = Vec::with_capacity(members.len());
        for entry in sources.entries() {
            match by_slot.get(&entry.slot.index) {
                Some(members) => servers.extend(members.iter().map(|member| member.status(&inner.name))),
                // Not where others lead to the same endpoints.
                None if entry.found().is_empty() => servers.push(entry.slot.status(&inner.name)),
                None => {}
            }
        }
        servers
    }

    /// Takes a server out of the rotation, or back in; requests in flight go on. `server` is a server as it is
    /// configured or listed (for all that a name leads to), as an SRV record says it, or one address. It holds for
    /// servers that leave and return, too. Whether there is such a server.
    pub fn set_drained(&self, server: &str, drained: bool) -> bool {
        let inner = &self.inner;
        let sources = inner.sources();
        let members = inner.members();
        if !inner.drains.set(server, drained, sources.slots(), &members) {
            return false;
        }
        inner.changed();
        drop(sources);
        let mut of_it = members.iter().filter(|member| drains::is_called(member, server));
        let what = match drained {
            true => "drained",
            false if of_it.any(|member| member.is_drained()) => "no longer drained itself, but what it belongs to is",
            false => "in use again",
        };
        log::info!("origin {}: server {server} is {what}", inner.name);
        true
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

    fn set_members(&self, members: Vec<Arc<Member>>) {
        let members: Arc<[Arc<Member>]> = members.into();
        if let Some(judge) = &self.health.judge {
            judge.watch(&members);
        }
        self.view.store(Arc::new(View::new(members, &self.origin.balance)));
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// A slot has been resolved, or (`None`) it could not be.
    fn resolved(self: &Arc<Self>, slot: usize, answer: Option<&Answer>) {
        self.resolved_at(slot, answer, clock::now());
    }

    fn resolved_at(self: &Arc<Self>, slot: usize, answer: Option<&Answer>, now: u64) {
        let mut sources = self.sources();
        let Some(text) = sources.resolved(slot, answer) else { return };
        self.publish(&sources, &text, now);
        drop(sources);
        self.align();
    }

    /// The watched file has been read, or (what is wrong with it) could not be: then the servers stay as they are.
    fn listed(self: &Arc<Self>, outcome: Result<Vec<Server>, Vec<String>>) {
        let path = self.origin.servers_file.as_deref().unwrap_or(std::path::Path::new("")).display();
        let mut sources = self.sources();
        let listed = match outcome {
            Ok(servers) => {
                self.file_error.set(None);
                Some(servers)
            }
            Err(mistakes) => {
                for mistake in &mistakes {
                    log::error!("origin {}: servers_file {path}: {mistake}", self.name);
                }
                self.file_error.set(Some(format!("servers_file {path}: {}", mistakes.join("; "))));
                None
            }
        };
        sources.listed(listed);
        self.publish(&sources, &format!("servers_file {path}"), clock::now());
        drop(sources);
        self.align();
    }

    /// Puts in force what the sources lead to now. What is known of servers that stay is kept.
    fn publish(&self, sources: &Sources, cause: &str, now: u64) {
        // Nobody else changes the members while the sources are locked.
        let before = self.members();
        let members = self.made(sources, &before, true, now);
        let same = before.len() == members.len() && before.iter().zip(&members).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            self.drains.mark(sources.slots(), &members);
            if let Some(what) = changes::between(&before, &members) {
                log::info!("origin {}: {cause}: {what}", self.name);
            }
            self.set_members(members);
            self.changed();
        }
        self.awaited.send_if_modified(|awaited| std::mem::replace(awaited, sources.awaited()) != sources.awaited());
    }

    /// The members that the sources lead to. `ours`: whether `known` are this pool's own.
    fn made(&self, sources: &Sources, known: &[Arc<Member>], ours: bool, now: u64) -> Vec<Arc<Member>> {
        let began = self.began.load(Ordering::Relaxed);
        let known: HashMap<_, &Arc<Member>> = known.iter().map(|member| (member.endpoint(), member)).collect();
        let make = |(slot, found): (&SharedSlot, Found)| match known.get(&found.endpoint) {
            Some(same) if ours && same.is_of(slot) && same.found == found => Arc::clone(same),
            Some(same) if self.is_same_server(&same.found.text, &found.text) => {
                slot.member(found, &self.health, same.state.clone())
            }
            _ => slot.member(found, &self.health, newcomer(began, now)),
        };
        sources.found().into_iter().map(make).collect()
    }

    /// Whether two names of one endpoint mean the same server. Over TLS the name may be what is asked for and verified.
    fn is_same_server(&self, one: &str, other: &str) -> bool {
        let verified = self.origin.tls.as_ref().is_some_and(|tls| tls.sni.is_none());
        one == other || !verified || matches!(self.origin.host, HostHeader::Fixed(_))
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
