//! A pool: the servers of one origin, and who of them takes the next request.

mod changes;
mod choose;
mod drains;
mod sources;
mod tasks;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

pub use self::choose::{Ask, Chosen};
use self::drains::Drains;
use self::sources::{SharedSlot, Sources};
use self::tasks::Tasks;
use super::balance::Rotation;
use super::discovery::{Answer, Found};
use super::health::LastError;
use super::member::{Member, ServerStatus};
use super::peer::PeerSettings;
use crate::config::model::{HostHeader, Origin, Server};

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
    peers: PeerSettings,
    turn: Mutex<Turn>,
    /// Counts whatever changes who is eligible: the next choice then begins a new cycle.
    changes: AtomicU64,
    /// [`Sources::awaited`].
    awaited: watch::Sender<usize>,
    /// `None`: not started, or stopped.
    tasks: Mutex<Option<Tasks>>,
}

/// Locked for one walk over the members.
#[derive(Debug)]
struct Turn {
    /// In the order of the slots; no two with the same endpoint.
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
            peers: PeerSettings::new(&origin),
            turn: Mutex::new(Turn { members: Vec::new().into(), rotation: Rotation::default(), seen: 0 }),
            changes: AtomicU64::new(0),
            awaited: watch::Sender::new(sources.awaited()),
            tasks: Mutex::new(None),
            sources: Mutex::new(Sources::default()),
            origin,
        };
        let known = previous.map(|before| before.members()).unwrap_or_default();
        let members = inner.made(&sources, &known, false);
        inner.drains.mark(sources.slots(), &members);
        inner.set_members(members);
        *inner.sources() = sources;
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

    /// Waits until every name has been resolved once or has failed to, and the watched file has been read or could not
    /// be, at most about 2 s. Only of use after [`Pool::start`].
    pub async fn ready(&self) {
        // Too late or not, the edge starts: a request may well find the name resolved then.
        let _ = timeout(READY_LIMIT, self.inner.awaited.subscribe().wait_for(|awaited| *awaited == 0)).await;
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
        self.turn().members.clone()
    }

    fn set_members(&self, members: Vec<Arc<Member>>) {
        let mut turn = self.turn();
        turn.members = members.into();
        turn.rotation.restart();
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Option<Tasks>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// A slot has been resolved, or (`None`) it could not be.
    fn resolved(self: &Arc<Self>, slot: usize, answer: Option<&Answer>) {
        let mut sources = self.sources();
        let Some(text) = sources.resolved(slot, answer) else { return };
        self.publish(&sources, &text);
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
        self.publish(&sources, &format!("servers_file {path}"));
        drop(sources);
        self.align();
    }

    /// Puts in force what the sources lead to now. What is known of servers that stay is kept.
    fn publish(&self, sources: &Sources, cause: &str) {
        // Nobody else changes the members while the sources are locked.
        let before = self.members();
        let members = self.made(sources, &before, true);
        let same = before.len() == members.len() && before.iter().zip(&members).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            self.drains.mark(sources.slots(), &members);
            if let Some(what) = changes::between(&before, &members) {
                log::info!("origin {}: {cause}: {what}", self.name);
            }
            self.set_members(members);
        }
        self.awaited.send_if_modified(|awaited| std::mem::replace(awaited, sources.awaited()) != sources.awaited());
    }

    /// The members that the sources lead to. `ours`: whether `known` are this pool's own.
    fn made(&self, sources: &Sources, known: &[Arc<Member>], ours: bool) -> Vec<Arc<Member>> {
        let checked = self.origin.health_check.is_some();
        let known: HashMap<_, &Arc<Member>> = known.iter().map(|member| (member.endpoint(), member)).collect();
        let make = |(slot, found): (&SharedSlot, Found)| match known.get(&found.endpoint) {
            Some(same) if ours && same.is_of(slot) && same.found == found => Arc::clone(same),
            Some(same) if self.is_same_server(&same.found.text, &found.text) => {
                slot.member(found, checked, same.state.clone())
            }
            _ => slot.member(found, checked, Arc::default()),
        };
        sources.found().into_iter().map(make).collect()
    }

    /// Whether two names of one endpoint mean the same server. Over TLS the name may be what is asked for and verified.
    fn is_same_server(&self, one: &str, other: &str) -> bool {
        let verified = self.origin.tls.as_ref().is_some_and(|tls| tls.sni.is_none());
        one == other || !verified || matches!(self.origin.host, HostHeader::Fixed(_))
    }
}

#[cfg(test)]
mod tests;
