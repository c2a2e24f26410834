//! From what becomes of tries to the figures of the origin.

use std::sync::Arc;
use std::time::Duration;

use crate::observe::{Failure, OriginMetrics};
use crate::origin::{FailureKind, Witness};

/// Counts tries in an origin's figures.
#[derive(Debug)]
pub struct Counted(pub Arc<OriginMetrics>);

impl Witness for Counted {
    fn opened(&self, took: Duration) {
        self.0.opened(took);
    }

    fn reused(&self) {
        self.0.reused();
    }

    fn retried(&self) {
        self.0.retried();
    }

    fn hedged(&self) {
        self.0.hedged();
    }

    fn unaffordable(&self) {
        self.0.unaffordable();
    }

    fn failed(&self, kind: FailureKind) {
        self.0.failed(match kind {
            FailureKind::Connect => Failure::Connect,
            FailureKind::ConnectTimeout => Failure::ConnectTimeout,
            FailureKind::Tls => Failure::Tls,
            FailureKind::Timeout => Failure::Timeout,
            FailureKind::Reset => Failure::Reset,
            FailureKind::Invalid => Failure::Protocol,
            FailureKind::Status => Failure::Status,
            FailureKind::Other => Failure::Other,
        });
    }

    fn refused(&self, full: bool) {
        self.0.failed(if full { Failure::Overloaded } else { Failure::Unavailable });
    }

    fn answered(&self, status: u16, took: Duration) {
        self.0.answered(status, took);
    }
}
