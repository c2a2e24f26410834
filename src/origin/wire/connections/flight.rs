//! Connections in the making that several requests wait for: one of HTTP/2 is enough for many.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::group::Group;
use super::open;
use crate::origin::endpoint::Endpoint;
use crate::origin::failure::FailureKind;
use crate::origin::wire::dial::Dialer;
use crate::origin::wire::message::WireError;
use crate::origin::wire::request::Wire;

/// What has become of a connection in the making.
#[derive(Clone)]
enum Outcome {
    Open,
    Made,
    Failed { kind: FailureKind, why: Arc<str> },
}

/// A connection in the making, as those see it who wait for it.
#[derive(Clone)]
pub(super) struct Flight {
    outcome: watch::Receiver<Outcome>,
}

/// The right to make a connection. Given up by dropping it: those who wait for it are told.
pub(super) struct Takeoff {
    group: Arc<Group>,
    id: u64,
    outcome: watch::Sender<Outcome>,
}

impl Flight {
    /// The first of a group's requests gets the second half.
    pub(super) fn new(group: &Arc<Group>, id: u64) -> (Flight, Takeoff) {
        let (sender, outcome) = watch::channel(Outcome::Open);
        (Flight { outcome }, Takeoff { group: group.clone(), id, outcome: sender })
    }

    /// Waits until the connection is there, or is known not to come.
    pub(super) async fn landed(mut self) -> Result<(), WireError> {
        match self.outcome.wait_for(|outcome| !matches!(outcome, Outcome::Open)).await.as_deref() {
            Ok(Outcome::Failed { kind, why }) => Err(WireError::new(*kind, &**why)),
            // Given up on: the next round sees to it.
            Ok(Outcome::Open | Outcome::Made) | Err(_) => Ok(()),
        }
    }
}

impl Takeoff {
    /// Makes the connection and takes the first place on it. It is made even if the caller gives up: others wait for it.
    pub(super) async fn lead(self, dialer: &Arc<Dialer>, endpoint: &Endpoint, server: &str) -> Result<Wire, WireError> {
        let (first, wire) = oneshot::channel();
        tokio::spawn(self.fly(dialer.clone(), endpoint.clone(), server.to_owned(), first));
        wire.await.unwrap_or_else(|_| Err(WireError::new(FailureKind::Connect, "connecting has been given up")))
    }

    async fn fly(
        self,
        dialer: Arc<Dialer>,
        endpoint: Endpoint,
        server: String,
        first: oneshot::Sender<Result<Wire, WireError>>,
    ) {
        let made = match open(self.group.counts(), &dialer, &endpoint, &server, None).await {
            Ok(fresh) => self.group.adopt(fresh),
            Err(error) => Err(error),
        };
        let outcome = match &made {
            Ok(_) => Outcome::Made,
            Err(error) => Outcome::Failed { kind: error.kind, why: error.why.as_str().into() },
        };
        self.outcome.send_replace(outcome);
        drop(self);
        if let Err(Ok(unwanted)) = first.send(made) {
            unwanted.unused();
        }
    }
}

impl Drop for Takeoff {
    fn drop(&mut self) {
        self.group.has_landed(self.id);
    }
}
