//! The figures of one rate or concurrency limit.

use super::cells::{Counter, Sharded};
use super::samples::Samples;
use super::table;

/// What became of a request that was beyond its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// It was answered 429.
    Rejected,
    /// It has waited for its turn.
    Delayed,
    /// It was only logged.
    Logged,
}

impl Limited {
    pub const ALL: [Limited; 3] = [Limited::Rejected, Limited::Delayed, Limited::Logged];

    /// The value of the label `action`, as the configuration says it.
    pub fn word(self) -> &'static str {
        match self {
            Limited::Rejected => "reject",
            Limited::Delayed => "delay",
            Limited::Logged => "log",
        }
    }
}

/// The handle of a rate limit of a site.
#[derive(Debug)]
pub struct RateLimitMetrics {
    site: String,
    limit: String,
    cells: Sharded<[Counter; Limited::ALL.len()]>,
}

impl RateLimitMetrics {
    pub(super) fn new(site: &str, limit: &str) -> RateLimitMetrics {
        RateLimitMetrics { site: site.to_owned(), limit: limit.to_owned(), cells: Sharded::new() }
    }

    /// Counts a request that was beyond the rate.
    pub fn limited(&self, how: Limited) {
        self.cells.mine()[how as usize].add(1);
    }

    pub(super) fn collect(&self, out: &mut Samples) {
        for how in Limited::ALL {
            let requests = self.cells.sum(|cells| cells[how as usize].value());
            out.set(&table::RATE_LIMITED, &[&self.site, &self.limit, how.word()], requests as f64);
        }
    }
}

/// The handle of a concurrency limit of a site.
#[derive(Debug)]
pub struct ConcurrencyLimitMetrics {
    site: String,
    limit: String,
    cells: Sharded<Counter>,
}

impl ConcurrencyLimitMetrics {
    pub(super) fn new(site: &str, limit: &str) -> ConcurrencyLimitMetrics {
        ConcurrencyLimitMetrics { site: site.to_owned(), limit: limit.to_owned(), cells: Sharded::new() }
    }

    /// Counts a request that found no place.
    pub fn refused(&self) {
        self.cells.mine().add(1);
    }

    pub(super) fn collect(&self, out: &mut Samples) {
        let requests = self.cells.sum(Counter::value);
        out.set(&table::CONCURRENCY_LIMITED, &[&self.site, &self.limit], requests as f64);
    }
}
