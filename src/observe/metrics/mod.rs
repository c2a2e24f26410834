//! Metrics: cheap to count, complete to read.
//!
//! A request adds to handles that were resolved when its configuration was loaded ([`SiteMetrics`],
//! [`OriginMetrics`]): a few uncontended atomic additions, no look-up. What is only a state (sizes, health) is asked
//! for when somebody scrapes ([`Sample`]). Every metric is declared in [`table`].

mod cells;
mod docs;
mod limit;
mod origin;
mod samples;
mod site;
pub mod table;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TEXT_FORMAT, TextEncoder, proto};

pub use cells::{BUCKETS_MICROS, Counter, Distribution, Durations, Sharded};
pub(crate) use cells::{shard_count, thread_number};
pub use docs::reference;
pub use limit::{ConcurrencyLimitMetrics, Limited, RateLimitMetrics};
pub use origin::{Failure, OriginMetrics};
pub use samples::{Sample, Samples};
pub use site::{CACHE_WORDS, Finished, InFlight, SiteMetrics, TIERS};

/// Names of sites, of origins, and of limits of sites, that get series of their own in the life of a process. Names stay after a reload
/// that drops them, so that their counters do not run backwards: without a bound, a generated configuration that
/// renames its sites would grow the exposition for ever.
pub const NAME_LIMIT: usize = 1_000;

/// The site of a request that matched none.
pub const NO_SITE: &str = "-";

/// The name that stands for those beyond [`NAME_LIMIT`].
pub const OTHER: &str = "other";

/// The Content-Type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = TEXT_FORMAT;

/// The values of the label `status`, as [`status_class`] indexes them.
pub(crate) const STATUS_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Every figure of the process. One for each process, shared in an `Arc`.
pub struct Metrics {
    registry: Registry,
    figures: Arc<Figures>,
}

impl Metrics {
    pub fn new() -> Metrics {
        let figures = Arc::new(Figures::default());
        let registry = Registry::new();
        for collector in
            [Box::new(Shared(Arc::clone(&figures))) as Box<dyn Collector>, Box::new(ProcessCollector::for_self())]
        {
            // Only a name declared twice, or one that is no metric's name, can be refused; the tests would say so.
            if let Err(error) = registry.register(collector) {
                log::error!("metrics: some are not exposed: {error}");
            }
        }
        Metrics { registry, figures }
    }

    /// The handles of a site: the same for the same name. For the time of loading a configuration, not of a request.
    pub fn site(&self, name: &str) -> Arc<SiteMetrics> {
        named(&mut lock(&self.figures.sites), name, SiteMetrics::new)
    }

    /// The handles of an origin: the same for the same name. For the time of loading a configuration.
    pub fn origin(&self, name: &str) -> Arc<OriginMetrics> {
        named(&mut lock(&self.figures.origins), name, OriginMetrics::new)
    }

    /// The handles of a rate limit of a site: the same for the same names. For the time of loading a configuration.
    pub fn rate_limit(&self, site: &str, limit: &str) -> Arc<RateLimitMetrics> {
        named_of(&mut lock(&self.figures.rate_limits), site, limit, RateLimitMetrics::new)
    }

    /// The same of a concurrency limit.
    pub fn concurrency_limit(&self, site: &str, limit: &str) -> Arc<ConcurrencyLimitMetrics> {
        named_of(&mut lock(&self.figures.concurrency_limits), site, limit, ConcurrencyLimitMetrics::new)
    }

    /// Asks `sample` for its figures at each scrape, from now on. For the start of the process: what is registered
    /// stays.
    pub fn register(&self, sample: impl Sample + 'static) {
        lock(&self.figures.asked).push(Arc::new(sample));
    }

    /// A client's connection was accepted; it counts as open for as long as the guard lives.
    pub fn connection_accepted(&self) -> OpenConnection {
        let cells = self.figures.connections.mine();
        cells.accepted.add(1);
        cells.open.add(1);
        OpenConnection(Arc::clone(&self.figures))
    }

    /// A client's connection was closed without serving it.
    pub fn connection_refused(&self, why: NoRoom) {
        self.figures.connections.mine().refused[why as usize].add(1);
    }

    /// Client connections that are open now.
    pub fn connections_open(&self) -> u64 {
        self.figures.connections_open()
    }

    /// The configuration in force is another one from now on: at the start, and after each reload that succeeded.
    pub fn config_loaded(&self, hash: &str, now: SystemTime) {
        *lock(&self.figures.config) = Some((hash.to_owned(), now));
    }

    /// Counts a reload.
    pub fn reloaded(&self, ok: bool) {
        let counter = if ok { &self.figures.reloads_ok } else { &self.figures.reloads_failed };
        counter.add(1);
    }

    /// The text exposition; its media type is [`CONTENT_TYPE`].
    pub fn render(&self) -> Vec<u8> {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            log::error!("metrics: cannot be rendered: {error}");
        }
        text.into_bytes()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Why a connection is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// There are as many as there may be.
    Total,
    /// Its address has as many as it may.
    Address,
    /// It is not one of the proxies that may connect, or has not begun as a proxy does.
    Proxy,
}

impl NoRoom {
    pub const ALL: [NoRoom; 3] = [NoRoom::Total, NoRoom::Address, NoRoom::Proxy];

    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            NoRoom::Total => "total",
            NoRoom::Address => "address",
            NoRoom::Proxy => "proxy",
        }
    }
}

/// A client's connection, open for as long as this lives.
#[must_use = "the connection counts as open only while this lives"]
pub struct OpenConnection(Arc<Figures>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.mine().open.sub(1);
    }
}

/// What the edge itself counts, and whom to ask for the rest.
#[derive(Default)]
struct Figures {
    sites: Mutex<BTreeMap<String, Arc<SiteMetrics>>>,
    origins: Mutex<BTreeMap<String, Arc<OriginMetrics>>>,
    rate_limits: Mutex<OfSites<RateLimitMetrics>>,
    concurrency_limits: Mutex<OfSites<ConcurrencyLimitMetrics>>,
    connections: Sharded<Connections>,
    reloads_ok: Counter,
    reloads_failed: Counter,
    config: Mutex<Option<(String, SystemTime)>>,
    asked: Mutex<Vec<Arc<dyn Sample>>>,
}

/// By site and name.
type OfSites<T> = BTreeMap<(String, String), Arc<T>>;

#[derive(Debug, Default)]
struct Connections {
    open: Counter,
    accepted: Counter,
    refused: [Counter; NoRoom::ALL.len()],
}

impl Figures {
    fn connections_open(&self) -> u64 {
        // The shards are not read at one instant: a connection closed on another thread may seem to be missing.
        self.connections.sum(|cells| cells.open.value()).cast_signed().max(0).cast_unsigned()
    }

    fn sample(&self, out: &mut Samples) {
        // Cloned, so that nobody who loads a configuration or registers waits for a scrape.
        let sites: Vec<_> = lock(&self.sites).values().cloned().collect();
        sites.iter().for_each(|site| site.collect(out));
        let origins: Vec<_> = lock(&self.origins).values().cloned().collect();
        origins.iter().for_each(|origin| origin.collect(out));
        let limits: Vec<_> = lock(&self.rate_limits).values().cloned().collect();
        limits.iter().for_each(|limit| limit.collect(out));
        let limits: Vec<_> = lock(&self.concurrency_limits).values().cloned().collect();
        limits.iter().for_each(|limit| limit.collect(out));
        let asked = lock(&self.asked).clone();
        asked.iter().for_each(|sample| sample.sample(out));

        out.set(&table::CONNECTIONS_OPEN, &[], self.connections_open() as f64);
        out.set(&table::CONNECTIONS_ACCEPTED, &[], self.connections.sum(|cells| cells.accepted.value()) as f64);
        for why in NoRoom::ALL {
            let refused = self.connections.sum(|cells| cells.refused[why as usize].value());
            out.set(&table::CONNECTIONS_REFUSED, &[why.as_str()], refused as f64);
        }
        out.set(&table::RELOADS, &["ok"], self.reloads_ok.value() as f64);
        out.set(&table::RELOADS, &["failed"], self.reloads_failed.value() as f64);
        if let Some((hash, loaded)) = &*lock(&self.config) {
            let seconds = loaded.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            out.set(&table::CONFIG_INFO, &[hash], 1.0);
            out.set(&table::CONFIG_LOADED, &[], seconds as f64);
        }
        let commit = option_env!("FORELAND_COMMIT").unwrap_or("unknown");
        out.set(&table::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), commit], 1.0);
    }
}

/// The figures as the registry wants to see them.
struct Shared(Arc<Figures>);

impl Collector for Shared {
    fn desc(&self) -> Vec<&Desc> {
        // The table's own tests check names and labels; the registry needs descriptions only to tell collectors
        // apart, and this is the only one of its kind. One must be there all the same.
        descriptions().iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut samples = Samples::default();
        self.0.sample(&mut samples);
        samples.into_families()
    }
}

/// The table in the registry's terms. Made once: the registry asks for references.
fn descriptions() -> &'static [Desc] {
    static DESCRIPTIONS: std::sync::LazyLock<Vec<Desc>> = std::sync::LazyLock::new(|| {
        let describe = |def: &&table::Def| {
            let labels = def.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(def.name.to_owned(), def.help.to_owned(), labels, HashMap::new()).ok()
        };
        table::ALL.iter().filter_map(describe).collect()
    });
    &DESCRIPTIONS
}

/// What `name` stands for in `map`, made if need be, or [`OTHER`] where there are too many.
fn named<T>(map: &mut BTreeMap<String, Arc<T>>, name: &str, new: impl Fn(&str) -> T) -> Arc<T> {
    let name = if map.contains_key(name) || map.len() < NAME_LIMIT { name } else { OTHER };
    Arc::clone(map.entry(name.to_owned()).or_insert_with(|| Arc::new(new(name))))
}

/// The same for what a site has. Those beyond the bound are one, of no site.
fn named_of<T>(map: &mut OfSites<T>, site: &str, name: &str, new: impl Fn(&str, &str) -> T) -> Arc<T> {
    let own = (site.to_owned(), name.to_owned());
    let key = if map.contains_key(&own) || map.len() < NAME_LIMIT { own } else { (OTHER.into(), OTHER.into()) };
    let made = |(site, name): &(String, String)| Arc::new(new(site, name));
    Arc::clone(map.entry(key).or_insert_with_key(made))
}

/// An index into [`STATUS_CLASSES`].
#[inline]
pub(crate) fn status_class(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => usize::from(class),
        _ => 0,
    }
}

/// A thread that panicked while it held the lock left nothing half done: each of these sections is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod shipped;
#[cfg(test)]
mod tests;
