//! One request's way to a server of an origin, and to another one where the first does not answer.
//!
//! All that is tried for a request is tried here, below both ways that a request can take through the edge: the one
//! through Pingora's cache, by a [`peer`] that Pingora takes for its connection to the origin, and the one past it, by
//! an [`Answer`].

mod answer;
mod budget;
mod interim;
mod live;
mod request;
mod socket;
mod trail;
mod tries;
mod upload;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub use self::answer::{Answer, Body, body};
pub(super) use self::budget::Budget;
use self::interim::Interims;
pub use self::socket::peer;
pub use self::trail::{Ending, Failure, Trail};
pub use self::upload::Feed;
use super::failure::FailureKind;
use super::pool::Pool;
use super::wire::Proxied;

/// Is told what becomes of tries, to count it.
pub trait Witness: Send + Sync + std::fmt::Debug {
    /// A new connection was opened, and took this long.
    fn opened(&self, took: std::time::Duration);
    /// A kept connection was used again.
    fn reused(&self);
    /// A request is tried again.
    fn retried(&self);
    /// A request is sent to a second server, since the first takes its time.
    fn hedged(&self);
    /// A request would have been tried again, but the budget is spent.
    fn unaffordable(&self);
    /// A try failed.
    fn failed(&self, kind: FailureKind);
    /// No server could be asked: none is available (`false`), or all have as much as they may (`true`).
    fn refused(&self, full: bool);
    /// The head of a final response came, this long after the try began.
    fn answered(&self, status: u16, took: std::time::Duration);
}

/// What a request asks for, as far as its way to a server depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// What chooses a server where the origin's `balance` goes by something of the request.
    pub hash: Option<u64>,
    /// The server that the client stays with.
    pub stays_with: Option<u64>,
    /// The addresses that servers are told by the PROXY protocol.
    pub proxied: Option<Proxied>,
    /// It may be sent twice (RFC 9110 §9.2.2).
    pub repeatable: bool,
    /// It asks for another protocol on its connection (RFC 9110 §7.8).
    pub upgrade: bool,
    /// Its body and the answer's are a dialogue, as those of gRPC are: the origin's `read_timeout` is how long both sides
    /// may be silent, and neither has another limit.
    pub dialogue: bool,
}

/// One request's way to an origin.
#[derive(Debug)]
pub struct Exchange {
    pool: Arc<Pool>,
    witness: Arc<dyn Witness>,
    wanted: Wanted,
    trail: Mutex<Trail>,
    interims: Interims,
}

impl Exchange {
    /// Nothing is asked yet.
    pub fn new(pool: Arc<Pool>, witness: Arc<dyn Witness>, wanted: Wanted) -> Arc<Exchange> {
        Arc::new(Exchange { pool, witness, wanted, trail: Mutex::default(), interims: Interims::default() })
    }

    /// What has become of it so far.
    pub fn trail(&self) -> MutexGuard<'_, Trail> {
        self.trail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request leaves for a server now.
    fn leaves(&self) {
        self.trail().sent = Some(SystemTime::now());
    }

    /// Notes how it ended where it has failed.
    fn fails(&self, failure: Failure) -> Failure {
        self.trail().ended = Some(failure.clone());
        failure
    }
}
