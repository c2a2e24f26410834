//! What is known of the tries of a request.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use h2::Reason;

use crate::origin::endpoint::Endpoint;
use crate::origin::failure::FailureKind;
use crate::origin::member::Member;
use crate::origin::pool::Chosen;
use crate::origin::wire::WireError;

/// The tries of a request, for the log and for what the client is told.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// Requests that were made, or begun to be made.
    pub tries: usize,
    /// Those of them that took a kept connection and found it closed.
    pub stale: usize,
    /// The one that has answered, or else was asked last.
    pub server: Option<Server>,
    /// When the latest try began.
    pub began: Option<Instant>,
    /// When the latest request left, by the wall clock.
    pub sent: Option<SystemTime>,
    /// From that try's begin to the header section of the final response.
    pub time: Option<Duration>,
    /// How the latest failed try failed.
    pub failure: Option<Failure>,
    /// All of it has failed, in this way.
    pub ended: Option<Failure>,
    /// The response says in two ways how long it is: it must not be stored.
    pub suspicious: bool,
}

/// A server that has been asked.
#[derive(Clone, Debug)]
pub struct Server(pub(super) Arc<Member>);

impl Server {
    pub(super) fn of(chosen: &Chosen) -> Server {
        Server(chosen.member.clone())
    }

    /// As configured, or as it was found.
    pub fn text(&self) -> &str {
        &self.0.found.text
    }

    /// Stays the same for an endpoint: what a client's cookie says.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        self.0.endpoint()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub struct Failure {
    pub ending: Ending,
    /// The code by which the server has given the request up, over HTTP/2.
    pub reset: Option<Reason>,
    /// For the log.
    pub why: String,
}

/// How an exchange that failed has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// No server is available: nobody was asked.
    NoServer,
    /// All servers have as much as they may: nobody was asked.
    Full,
    /// All tries together took longer than they may.
    TooLong,
    /// The last try failed.
    Failed(FailureKind),
}

impl Failure {
    pub(super) fn of(error: &WireError) -> Failure {
        Failure { ending: Ending::Failed(error.kind), reset: error.reset, why: error.why.clone() }
    }
}
