//! What the operator says about caching on a route: the input of every rule that is a matter of policy.

use std::time::Duration;

use http::HeaderName;

use super::tags::{CACHE_TAG, SURROGATE_KEY};

/// The cache policy in force for one request. Made by `config`, read by the rules.
///
/// A site whose cache is `off` has no `Policy` at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Freshness lifetime for responses that state none themselves (or for all, with [`Policy::override_origin`]).
    pub ttl: Option<Duration>,
    /// The origin's own freshness (Cache-Control, Expires, targeted fields, `no-store` and `private` included) is
    /// ignored and [`Policy::ttl`] used instead. Only ever true together with a `ttl`.
    pub override_origin: bool,
    /// Upper bound of any freshness lifetime.
    pub max_ttl: Option<Duration>,
    /// RFC 5861 §3 window where the origin states none and does not forbid it.
    pub stale_while_revalidate: Option<Duration>,
    /// RFC 5861 §4 window where the origin states none and does not forbid it.
    pub stale_if_error: Option<Duration>,
    /// RFC 9111 §4.2.2 heuristic freshness. Default on.
    pub heuristics: bool,
    /// Store responses that carry Set-Cookie (the field is stripped from what is stored). Default off.
    pub store_set_cookie: bool,
    /// Freshness by status for responses that state none themselves (negative caching), sorted by status.
    pub ttl_by_status: Vec<(u16, Duration)>,
    /// Request directives (`no-cache`, `max-age` …) are not obeyed. Default off. Pragma never is (RFC 9111 §5.4).
    pub ignore_client_cache_control: bool,
    /// What clients accept is reduced to these.
    pub vary: Reduction,
    /// Where a response may be kept; at least one.
    pub tiers: Tiers,
    /// From which request for it on, within [`Policy::within`], a response is stored: 1 (from the first) to 15.
    pub after: u8,
    /// How long a request counts towards [`Policy::after`]: 1 second to 7 days. Its default wherever `after` is 1, since
    /// nothing is counted there.
    pub within: Duration,
    /// The response fields that list tags, each once; empty: tags are not read. Cache-Groups always is.
    pub tags: Vec<HeaderName>,
    /// The fields of [`Policy::tags`] are not for clients. Only ever true where there are such. Default off.
    pub strip_tags: bool,
}

/// The codings and languages that there are, in the operator's order of preference. Empty: the client's field stays as
/// it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reduction {
    /// Content codings in lower case, without `identity`, which there always is.
    pub accept_encoding: Vec<String>,
    /// Language tags.
    pub accept_language: Vec<String>,
}

/// Tiers of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiers {
    pub memory: bool,
    pub disk: bool,
}

impl Tiers {
    /// Whether there is a tier that is in both.
    pub fn meets(self, other: Tiers) -> bool {
        self.memory && other.memory || self.disk && other.disk
    }
}

impl Default for Tiers {
    /// Both.
    fn default() -> Self {
        Tiers { memory: true, disk: true }
    }
}

impl Policy {
    /// What [`Policy::within`] is where nothing is said.
    pub const WITHIN: Duration = Duration::from_secs(3600);

    /// Whether clients are not sent this response field. It is stored all the same.
    pub fn hides(&self, field: &HeaderName) -> bool {
        self.strip_tags && self.tags.contains(field)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            ttl: None,
            override_origin: false,
            max_ttl: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            heuristics: true,
            store_set_cookie: false,
            ttl_by_status: Vec::new(),
            ignore_client_cache_control: false,
            vary: Reduction::default(),
            tiers: Tiers::default(),
            after: 1,
            within: Policy::WITHIN,
            tags: vec![SURROGATE_KEY, CACHE_TAG],
            strip_tags: false,
        }
    }
}
