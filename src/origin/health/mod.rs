//! Whether a server can take requests: by probes, by what becomes of requests, and by the operator's word.

pub(super) mod active;
mod state;

pub(super) use state::{Health, LastError};
