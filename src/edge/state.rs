//! What all requests share: the store and the figures for the life of the process, and the configuration until the
//! next reload.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use tokio::runtime::Handle;

use super::admin_settings::AdminSettings;
use super::background::Background;
use super::collapse::Collapse;
use super::crowd::Crowd;
use super::guards::{ClientFields, GateMetrics};
use super::overload::Overload;
use super::receive::Doorway;
use super::watch::Watch;
use super::witness::Counted;
use crate::config::model::{Config, RequestPolicy, Site};
use crate::guard::Guards;
use crate::guard::rate::Rates;
use crate::observe::{AccessLog, Metrics, NO_SITE, OriginMetrics, SiteMetrics};
use crate::origin::{Pool, Pools, Witness};
use crate::site::Directory;
use crate::store::{Disks, Store};
use crate::tls::{self, Tickets};
use crate::watched::Watcher;

/// A fill whose header section takes longer than this is not waited for any more, whatever the origin's timeouts.
const LOCK_AGE: Duration = Duration::from_secs(120);

/// For the life of the process.
pub struct Shared {
    snapshot: ArcSwap<Snapshot>,
    /// The configuration of the start: what a reload cannot change is as it says.
    pub started_with: Arc<Config>,
    pub store: &'static Store,
    pub collapse: &'static Collapse,
    pub metrics: Arc<Metrics>,
    pub access_log: ArcSwapOption<AccessLog>,
    pub watch: Arc<Watch>,
    pub crowd: Arc<Crowd>,
    pub overload: Arc<Overload>,
    pub background: Arc<Background>,
    pub rates: Rates,
    /// Looks at the files that are read again when they change.
    pub watcher: Watcher,
    pub tickets: Arc<Tickets>,
    /// What the tickets are made with where the configuration says nothing of it.
    pub ticket_secret: Vec<u8>,
    pub handshakes: tls::Counts,
    no_site: Arc<SiteMetrics>,
    /// How this process calls itself in CDN-Loop. Not the same for all: two edges may well stand one behind the
    /// other, and only the same one twice is a loop.
    pub cdn_id: HeaderValue,
    pub file: Option<PathBuf>,
    /// Held from reading the file to putting it in force: with two at once, the earlier text could win.
    pub reloading: Mutex<()>,
    started: Instant,
    phase: AtomicU8,
    runtime: Handle,
}

/// One configuration and what belongs to it. A request keeps the one that it began with.
pub struct Snapshot {
    pub config: Arc<Config>,
    pub directory: Directory,
    pub pools: Pools,
    sites: Vec<Arc<SiteMetrics>>,
    towards: Vec<Towards>,
    doorways: Vec<Arc<Doorway>>,
    pub guards: Guards,
    /// By [`crate::config::model::Guard::id`].
    gates: Vec<GateMetrics>,
    pub client_fields: ClientFields,
    /// Those of the admin API, with what its files hold now.
    pub admin: Option<AdminSettings>,
}

/// An origin as the requests see it.
pub struct Towards {
    pub pool: Arc<Pool>,
    pub metrics: Arc<OriginMetrics>,
    /// Counts in `metrics` what becomes of tries.
    pub witness: Arc<dyn Witness>,
}

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Life {
    Starting = 0,
    Serving = 1,
    Draining = 2,
}

impl Shared {
    /// Puts the first configuration in force. Call it on the runtime that will serve. `ticket_secret`: that of the process
    /// before, in an upgrade.
    ///
    /// # Errors
    /// The system has no thread or no random bytes to give, or something that the configuration names cannot be used.
    pub fn new(
        config: Config,
        access_log: Option<AccessLog>,
        disks: Disks,
        ticket_secret: Option<Vec<u8>>,
    ) -> Result<Arc<Shared>, String> {
        let watcher = Watcher::start().map_err(|e| format!("starting a thread: {e}"))?;
        let ticket_secret = ticket_secret.map_or_else(Tickets::random_secret, Ok)?;
        let tickets = Tickets::new(ticket_secrets(&config, &ticket_secret));
        let metrics = Arc::new(Metrics::new());
        let metrics_of_none = metrics.site(NO_SITE);
        metrics.config_loaded(&config.hash, SystemTime::now());
        let runtime = Handle::current();
        let background = Background::new(config.background_fetches);
        let (crowd, overload) = (Crowd::new(&config), Overload::new(config.overload));
        let (store, limits, file) = (Store::leak(config.memory, disks), config.limits, config.source.clone());
        let snapshot = Snapshot::new(config, &metrics, &watcher, &tickets, None)?;
        snapshot.pools.start(&runtime, None);
        Ok(Arc::new(Shared {
            started_with: snapshot.config.clone(),
            snapshot: ArcSwap::from_pointee(snapshot),
            store,
            collapse: Collapse::leak(LOCK_AGE),
            metrics,
            access_log: ArcSwapOption::new(access_log.map(Arc::new)),
            no_site: metrics_of_none,
            watch: Watch::new(limits),
            crowd,
            overload,
            background,
            rates: Rates::default(),
            watcher,
            tickets,
            ticket_secret,
            handshakes: tls::Counts::default(),
            cdn_id: cdn_id(),
            file,
            reloading: Mutex::default(),
            started: Instant::now(),
            phase: AtomicU8::new(Life::Starting as u8),
            runtime,
        }))
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts another configuration in force, for the requests that begin from now on. Blocks on the log's file, and for a
    /// moment on what new pools have to ask for.
    ///
    /// # Errors
    /// A new access log cannot be opened, or a file that has just been read can no longer be used; then nothing has changed.
    pub fn replace(&self, config: Config) -> Result<(), String> {
        let old = self.snapshot();
        let secrets = ticket_secrets(&config, &self.ticket_secret);
        let log_changes = config.access_log != old.config.access_log;
        let new = Snapshot::new(config, &self.metrics, &self.watcher, &self.tickets, Some(&old))?;
        if log_changes {
            let log = new.config.access_log.as_ref().map(AccessLog::start).transpose();
            let log = log.map_err(|e| format!("access_log: {e}"))?;
            // The old one writes what it still holds when the last request lets go of it.
            self.access_log.store(log.map(Arc::new));
        }
        new.pools.start(&self.runtime, Some(&old.pools));
        // Until names are resolved and lists are read, the old pools know more servers.
        self.runtime.block_on(new.pools.ready());
        self.watch.set_limits(new.config.limits);
        self.tickets.set_secrets(secrets);
        self.crowd.set_limits(&new.config);
        self.overload.set(new.config.overload);
        self.background.set_max(new.config.background_fetches);
        self.store.disks().set_limits(&new.config.disks);
        self.metrics.config_loaded(&new.config.hash, SystemTime::now());
        self.snapshot.store(Arc::new(new));
        Ok(())
    }

    /// The figures of requests that belong to no site.
    pub fn no_site(&self) -> &SiteMetrics {
        &self.no_site
    }

    /// Seconds since the process began.
    pub fn uptime(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// How long after the process's begin a moment was.
    pub fn since_start(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.started)
    }

    /// Milliseconds from the process's begin to a moment.
    pub fn millis(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// How long a request waits for another one that fetches the same: as long as that may take, retries included.
    pub fn lock_wait(&self, origin: usize, snapshot: &Snapshot) -> Duration {
        let origin = &snapshot.config.origins[origin];
        let tries = u32::try_from(origin.retries).unwrap_or(u32::MAX).saturating_add(1);
        origin.connect_timeout.saturating_mul(tries).saturating_add(origin.read_timeout).min(LOCK_AGE)
    }

    pub fn life(&self) -> Life {
        match self.phase.load(Ordering::Acquire) {
            0 => Life::Starting,
            1 => Life::Serving,
            _ => Life::Draining,
        }
    }

    pub fn enter(&self, life: Life) {
        self.phase.store(life as u8, Ordering::Release);
    }
}

impl Snapshot {
    fn new(
        config: Config,
        metrics: &Metrics,
        watcher: &Watcher,
        tickets: &Arc<Tickets>,
        previous: Option<&Snapshot>,
    ) -> Result<Snapshot, String> {
        let doorways = config.listeners.iter().map(|listener| {
            let before = previous.and_then(|previous| previous.doorway(listener.address));
            let before = before.and_then(|doorway| doorway.tls.as_ref());
            let server = |settings| tls::Server::new(settings, tickets, Some(watcher), before);
            Ok(Arc::new(Doorway {
                address: listener.address,
                h2c: listener.h2c,
                proxies: listener.proxy_protocol.clone(),
                tls: listener.tls.as_ref().map(server).transpose()?,
            }))
        });
        let doorways = doorways.collect::<Result<_, String>>()?;
        let guards = Guards::open(&config, Some(watcher), previous.map(|previous| &previous.guards))?;
        let gates = gates(&config, &guards, metrics);
        let pools = Pools::new(&config, previous.map(|previous| &previous.pools));
        let towards = pools
            .iter()
            .map(|pool| {
                let metrics = metrics.origin(&pool.origin().name);
                Towards { pool: pool.clone(), witness: Arc::new(Counted(metrics.clone())), metrics }
            })
            .collect();
        Ok(Snapshot {
            directory: Directory::new(&config.sites),
            sites: config.sites.iter().map(|site| metrics.site(&site.name)).collect(),
            towards,
            pools,
            doorways,
            guards,
            gates,
            client_fields: ClientFields::new(&config),
            admin: config.admin.as_ref().map(|admin| AdminSettings::new(admin, watcher)),
            config: Arc::new(config),
        })
    }

    /// The figures of what guards the requests that this policy governs.
    pub fn gate_metrics(&self, policy: &RequestPolicy) -> &GateMetrics {
        &self.gates[policy.guard.id]
    }

    /// The port that a client is sent to for https; `None`: the usual one. It is not ours to know where somebody in front
    /// ends TLS.
    pub fn https_port(&self) -> Option<u16> {
        let mut ports =
            self.doorways.iter().filter(|doorway| doorway.tls.is_some()).map(|doorway| doorway.address.port());
        let first = ports.next()?;
        (first != 443 && ports.all(|port| port != 443)).then_some(first)
    }

    /// How the connections of the listener with this address begin; `None`: there is none.
    pub fn doorway(&self, address: SocketAddr) -> Option<&Arc<Doorway>> {
        self.doorways.iter().find(|doorway| doorway.address == address)
    }

    pub fn doorways(&self) -> impl Iterator<Item = &Arc<Doorway>> {
        self.doorways.iter()
    }

    /// By index into the configuration's origins.
    pub fn towards(&self, origin: usize) -> &Towards {
        &self.towards[origin]
    }

    /// By index into the configuration's sites.
    pub fn site_metrics(&self, site: usize) -> &Arc<SiteMetrics> {
        &self.sites[site]
    }
}

/// The figures of all gates, by the guards' ids.
fn gates(config: &Config, guards: &Guards, metrics: &Metrics) -> Vec<GateMetrics> {
    let of_site = |site: &Site| {
        let of = |policy: &Arc<RequestPolicy>| {
            GateMetrics::new(&site.name, guards.gate(policy), &policy.guard.concurrency_limits, metrics)
        };
        site.policies().map(of).collect::<Vec<_>>()
    };
    config.sites.iter().flat_map(of_site).collect()
}

/// What tickets are made with and read with.
fn ticket_secrets(config: &Config, own: &[u8]) -> Vec<Vec<u8>> {
    match config.session_ticket_secrets.as_slice() {
        [] => vec![own.to_vec()],
        given => given.iter().map(|secret| secret.0.clone()).collect(),
    }
}

fn cdn_id() -> HeaderValue {
    let id = format!("foreland-{:08x}", RandomState::new().hash_one(std::process::id()) as u32);
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("foreland"))
}
