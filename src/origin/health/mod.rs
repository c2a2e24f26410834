//! Whether a server can take requests: by probes, by what becomes of requests, and by the operator's word.

pub(super) mod active;
mod grpc;
mod http;
mod judge;
mod outlier;
mod probe;
mod state;
mod window;

use std::sync::Arc;

pub use outlier::{Outcome, TryResult};
pub use state::ServerState;

pub(super) use judge::Judge;
pub(super) use probe::Checks;
pub(super) use state::{Health, LastError};

use super::pool::Chosen;
use crate::config::model::Origin;

/// What a pool's settings hold against its servers. Of a server that is known from an earlier configuration, only what
/// this one looks at counts.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Without checks every server counts as healthy.
    pub(super) checks: Option<Arc<Checks>>,
    /// Without one none is ejected.
    pub(super) judge: Option<Arc<Judge>>,
}

impl Watch {
    pub(super) fn new(origin: &Origin) -> Watch {
        Watch { checks: Checks::new(origin).map(Arc::new), judge: Judge::new(origin) }
    }
}

impl Chosen {
    /// Tells what became of a try of a request, once a try. Failures of the client's making are not for this.
    pub fn report(&self, outcome: &Outcome) {
        self.member.state.figures.record(outcome);
        if let Some(judge) = &self.member.watch.judge {
            judge.report(&self.member, outcome);
        }
    }
}
