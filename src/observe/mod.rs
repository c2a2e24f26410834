//! What the operator sees of the edge: figures ([`metrics`]) and one record a request ([`access_log`]).

pub mod access_log;
pub mod metrics;

pub use access_log::{AccessLog, Record, rfc3339};
pub use metrics::{
    Counter, Distribution, Durations, Failure, Finished, InFlight, Metrics, NO_SITE, NoRoom, OriginMetrics, Samples,
    Sharded, SiteMetrics, table,
};
pub(crate) use metrics::{STATUS_CLASSES, status_class};
