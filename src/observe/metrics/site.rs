//! The figures of one site: what every request adds to.

use std::sync::Arc;
use std::time::Duration;

use super::cells::{Counter, Distribution, Durations, Sharded};
use super::samples::Samples;
use super::{STATUS_CLASSES, status_class, table};

/// What the cache did for a request, as the label `cache` says it. A word that is not here counts as `other`.
pub const CACHE_WORDS: [&str; 10] = [
    // Answered from the store while fresh.
    "hit",
    // Answered from the store although stale: the origin failed, or the client takes stale responses.
    "stale",
    // Answered from the store although stale, and refreshed in the background.
    "updating",
    // Answered from the store after the origin confirmed it.
    "revalidated",
    // What was stored was stale, and the origin sent something new.
    "expired",
    // Nothing was stored: the origin was asked.
    "miss",
    // The fill that another request began answered this one too.
    "collapsed",
    // The cache is off here, or the request is of a kind that it does not serve.
    "bypass",
    // The edge answered by itself: a refusal, an error.
    "local",
    "other",
];

/// Where an answer from the cache may come from, as the label `tier` says it.
pub const TIERS: [&str; 2] = ["memory", "disk"];

/// A guard that has not let a request in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarded {
    Https,
    Access,
    SignedUrl,
}

impl Guarded {
    pub const ALL: [Guarded; 3] = [Guarded::Https, Guarded::Access, Guarded::SignedUrl];

    /// The value of the label `guard`, as the configuration calls it.
    pub fn word(self) -> &'static str {
        match self {
            Guarded::Https => "https",
            Guarded::Access => "access",
            Guarded::SignedUrl => "signed_url",
        }
    }
}

/// What a request came to, told once when it is over.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// The status that the client was sent; 0 where it was sent none.
    pub status: u16,
    /// One of [`CACHE_WORDS`].
    pub cache: &'static str,
    /// One of [`TIERS`]; `None` where the answer did not come from the cache.
    pub tier: Option<&'static str>,
    /// Bytes of the response's body that were sent.
    pub bytes_sent: u64,
    /// Bytes of the request's body that were received.
    pub bytes_received: u64,
    /// From the request's header section to the last byte of the answer.
    pub duration: Duration,
    /// From the request's header section to the first byte of the answer; `None` where none was sent.
    pub first_byte: Option<Duration>,
}

/// The handles of one site: resolved when a configuration is loaded, so that a request looks nothing up.
#[derive(Debug)]
pub struct SiteMetrics {
    name: String,
    cells: Sharded<Cells>,
}

#[derive(Debug, Default)]
struct Cells {
    requests: [[Counter; CACHE_WORDS.len()]; STATUS_CLASSES.len()],
    hits: [Counter; TIERS.len()],
    hit_bytes: [Counter; TIERS.len()],
    guarded: [Counter; Guarded::ALL.len()],
    in_flight: Counter,
    response_bytes: Counter,
    request_bytes: Counter,
    duration: Durations,
    first_byte: Durations,
}

impl SiteMetrics {
    pub(super) fn new(name: &str) -> SiteMetrics {
        SiteMetrics { name: name.to_owned(), cells: Sharded::new() }
    }

    /// The value of the label `site`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts a request as in flight for as long as the guard lives.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.cells.mine().in_flight.add(1);
        InFlight(Arc::clone(self))
    }

    /// Counts a request that a guard has not let in.
    pub fn guarded(&self, by: Guarded) {
        self.cells.mine().guarded[by as usize].add(1);
    }

    /// Counts a request that is over.
    pub fn record(&self, finished: &Finished) {
        let cells = self.cells.mine();
        cells.requests[status_class(finished.status)][cache_index(finished.cache)].add(1);
        if let Some(tier) = finished.tier.and_then(|tier| TIERS.iter().position(|known| *known == tier)) {
            cells.hits[tier].add(1);
            cells.hit_bytes[tier].add(finished.bytes_sent);
        }
        if finished.bytes_sent > 0 {
            cells.response_bytes.add(finished.bytes_sent);
        }
        if finished.bytes_received > 0 {
            cells.request_bytes.add(finished.bytes_received);
        }
        cells.duration.observe(finished.duration);
        if let Some(first_byte) = finished.first_byte {
            cells.first_byte.observe(first_byte);
        }
    }

    pub(super) fn collect(&self, out: &mut Samples) {
        let site = self.name.as_str();
        for (class, status) in STATUS_CLASSES.iter().enumerate() {
            for (word, cache) in CACHE_WORDS.iter().enumerate() {
                let requests = self.cells.sum(|cells| cells.requests[class][word].value());
                // A series that never counted anything is left out: 72 for each site would be mostly zeros.
                if requests > 0 {
                    out.set(&table::REQUESTS, &[site, status, cache], requests as f64);
                }
            }
        }
        for (index, tier) in TIERS.iter().enumerate() {
            out.set(&table::CACHE_HITS, &[site, tier], self.cells.sum(|cells| cells.hits[index].value()) as f64);
            let bytes = self.cells.sum(|cells| cells.hit_bytes[index].value());
            out.set(&table::CACHE_HIT_BYTES, &[site, tier], bytes as f64);
        }
        for by in Guarded::ALL {
            let requests = self.cells.sum(|cells| cells.guarded[by as usize].value());
            out.set(&table::GUARDED, &[site, by.word()], requests as f64);
        }
        let in_flight = self.cells.sum(|cells| cells.in_flight.value()).cast_signed();
        // The shards are not read at one instant, so a request that moved between threads may seem to be missing.
        out.set(&table::REQUESTS_IN_FLIGHT, &[site], in_flight.max(0) as f64);
        out.set(&table::RESPONSE_BYTES, &[site], self.cells.sum(|cells| cells.response_bytes.value()) as f64);
        out.set(&table::REQUEST_BYTES, &[site], self.cells.sum(|cells| cells.request_bytes.value()) as f64);
        out.durations(&table::REQUEST_DURATION, &[site], Distribution::of(&self.cells, |cells| &cells.duration));
        out.durations(&table::FIRST_BYTE, &[site], Distribution::of(&self.cells, |cells| &cells.first_byte));
    }
}

/// A request in flight.
#[derive(Debug)]
#[must_use = "the request counts as in flight only while this lives"]
pub struct InFlight(Arc<SiteMetrics>);

impl InFlight {
    /// The site that the request belongs to.
    pub fn site(&self) -> &SiteMetrics {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.cells.mine().in_flight.sub(1);
    }
}

#[inline]
fn cache_index(word: &str) -> usize {
    CACHE_WORDS.iter().position(|known| *known == word).unwrap_or(CACHE_WORDS.len() - 1)
}
