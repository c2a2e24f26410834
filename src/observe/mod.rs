//! What the operator sees of the edge: figures ([`metrics`]) and one record a request ([`access_log`]).

pub mod access_log;
pub mod metrics;

pub use access_log::{AccessLog, Record, rfc3339};
pub use metrics::{
    ConcurrencyLimitMetrics, Counter, Distribution, Durations, Failure, Finished, InFlight, Limited, Metrics, NO_SITE,
    NoRoom, OriginMetrics, RateLimitMetrics, Samples, Sharded, SiteMetrics, table,
};
pub(crate) use metrics::{STATUS_CLASSES, status_class};
