//! How much: rates, requests in flight, bandwidth.
//!
//! What requests are counted by is hashed by [`Keys`]. A [`Limiter`] says of each whether it is within its rates, [`Places`]
//! whether as many of its key are in flight as may be, and a [`Pace`] when the next bytes of a response may leave. None of
//! them knows a clock: the time is an argument, counted from whatever moment the caller likes.

mod bandwidth;
mod concurrency;
pub mod fields;
mod key;
mod limit;
mod table;

use std::sync::Arc;

pub use bandwidth::Pace;
pub use concurrency::{Place, Places};
pub use key::{KeyHash, Keys};
pub use limit::{Judgement, Limiter, Verdict};

/// What is counted over all requests, for the life of the process: a reload changes none of it.
#[derive(Debug, Default)]
pub struct Rates {
    pub keys: Keys,
    pub limiter: Limiter,
    pub places: Arc<Places>,
}
