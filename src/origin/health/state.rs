//! What is known of a server's health.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::outlier::Record;
use crate::config::model::Outliers;

/// One state that active checks and passive detection feed. Outlives reloads and DNS answers that keep the server.
#[derive(Debug)]
pub(in crate::origin) struct Health {
    /// Servers count as healthy until checks say otherwise.
    pub(in crate::origin) healthy: AtomicBool,
    /// By the operator.
    pub(in crate::origin) drained: AtomicBool,
    /// Changes from healthy to unhealthy or back.
    pub(in crate::origin) transitions: AtomicU64,
    pub(in crate::origin) last_error: LastError,
    /// What its requests say.
    pub(in crate::origin) record: Record,
    history: Mutex<History>,
}

/// When something last changed. Locked as it does, and for whoever wants to know.
#[derive(Debug)]
struct History {
    /// The server became known.
    known: SystemTime,
    /// The checks changed their mind.
    checked: Option<SystemTime>,
    drain: Option<SystemTime>,
    ejected: Option<SystemTime>,
    /// Why it was.
    reason: String,
    returned: Option<SystemTime>,
}

/// Whether a server can take requests, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    Healthy,
    /// By health checks.
    Unhealthy,
    /// For a while, by what became of its requests.
    Ejected,
    /// By the operator, or by a weight of 0.
    Drained,
    /// It has no address yet.
    Unresolved,
}

impl ServerState {
    pub const ALL: [ServerState; 5] = [
        ServerState::Healthy,
        ServerState::Unhealthy,
        ServerState::Ejected,
        ServerState::Drained,
        ServerState::Unresolved,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ServerState::Healthy => "healthy",
            ServerState::Unhealthy => "unhealthy",
            ServerState::Ejected => "ejected",
            ServerState::Drained => "drained",
            ServerState::Unresolved => "unresolved",
        }
    }
}

impl Default for Health {
    fn default() -> Health {
        let known = SystemTime::now();
        Health {
            healthy: AtomicBool::new(true),
            drained: AtomicBool::new(false),
            transitions: AtomicU64::new(0),
            last_error: LastError::default(),
            record: Record::default(),
            history: Mutex::new(History {
                known,
                checked: None,
                drain: None,
                ejected: None,
                reason: String::new(),
                returned: None,
            }),
        }
    }
}

impl Health {
    /// Sets the health; whether that is a change.
    pub(in crate::origin) fn set_healthy(&self, healthy: bool) -> bool {
        let changed = self.healthy.swap(healthy, Ordering::Relaxed) != healthy;
        if changed {
            self.history().checked = Some(SystemTime::now());
            self.transitions.fetch_add(1, Ordering::Relaxed);
        }
        changed
    }

    /// Notes that the operator has drained it or put it back, by whatever name.
    pub(in crate::origin) fn drain_changed(&self) {
        self.history().drain = Some(SystemTime::now());
    }

    /// Ejects it; for how long.
    pub(super) fn eject(&self, rules: &Outliers, reason: &str, now: u64) -> Duration {
        let mut history = self.history();
        history.ejected = Some(SystemTime::now());
        reason.clone_into(&mut history.reason);
        self.record.eject(rules, now)
    }

    /// Notes that its ejection has ended; whether it has by now, and nobody has noted it.
    pub(super) fn end_ejection(&self, now: u64) -> bool {
        let ended = self.record.end(now);
        if ended {
            self.history().returned = Some(SystemTime::now());
        }
        ended
    }

    /// Why it is in this state, and since when.
    pub(in crate::origin) fn told(&self, state: ServerState) -> (Option<String>, SystemTime) {
        let history = self.history();
        let (reason, since) = match state {
            ServerState::Healthy => {
                let good = [history.checked, history.drain, history.returned];
                (None, good.into_iter().flatten().max())
            }
            ServerState::Unhealthy => (self.last_error.get(), history.checked),
            ServerState::Ejected => (Some(history.reason.clone()), history.ejected),
            ServerState::Drained => (None, history.drain),
            ServerState::Unresolved => (None, None),
        };
        (reason, since.unwrap_or(history.known))
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest error's text. Locked for a copy only, and never on a request's way.
#[derive(Debug)]
pub(in crate::origin) struct LastError(Mutex<(Option<String>, SystemTime)>);

impl Default for LastError {
    fn default() -> LastError {
        LastError(Mutex::new((None, SystemTime::now())))
    }
}

impl LastError {
    pub(in crate::origin) fn set(&self, error: Option<String>) {
        let mut last = self.lock();
        if last.0.is_some() != error.is_some() {
            last.1 = SystemTime::now();
        }
        last.0 = error;
    }

    pub(in crate::origin) fn get(&self) -> Option<String> {
        self.lock().0.clone()
    }

    /// Since when there has been one without a pause, or there has been none.
    pub(in crate::origin) fn since(&self) -> SystemTime {
        self.lock().1
    }

    fn lock(&self) -> MutexGuard<'_, (Option<String>, SystemTime)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
