//! What the operator sees of the edge: figures ([`metrics`]) and one record a request ([`access_log`]).

pub mod access_log;
pub mod metrics;
