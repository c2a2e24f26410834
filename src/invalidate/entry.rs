//! One purge in the ledger.

use super::selector::Selector;
use crate::http_cache::Timestamp;

/// Purges that came together, and are in force together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the order of all: the next has a higher one.
    pub sequence: u64,
    pub at: Timestamp,
    /// What is selected is stale, rather than gone.
    pub soft: bool,
    pub by: By,
    /// At most [`Entry::MAX_SELECTORS`]. Without any, the entry is there for its sequence alone.
    pub selectors: Box<[Selector]>,
}

/// Where a purge came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum By {
    /// The admin API.
    Api = 1,
    /// The method PURGE.
    Method = 2,
    /// A request that changed something (RFC 9111 §4.4, RFC 9875 §3).
    Unsafe = 3,
}

impl Entry {
    /// Selectors in one entry, at most.
    pub const MAX_SELECTORS: usize = 10_000;
}

impl By {
    pub const ALL: [By; 3] = [By::Api, By::Method, By::Unsafe];

    /// A stable word, for the admin API and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            By::Api => "api",
            By::Method => "method",
            By::Unsafe => "unsafe-request",
        }
    }
}
