//! What is known of a server's health.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

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
}

impl Default for Health {
    fn default() -> Health {
        Health {
            healthy: AtomicBool::new(true),
            drained: AtomicBool::new(false),
            transitions: AtomicU64::new(0),
            last_error: LastError::default(),
        }
    }
}

impl Health {
    /// Sets the health; whether that is a change.
    pub(in crate::origin) fn set_healthy(&self, healthy: bool) -> bool {
        let changed = self.healthy.swap(healthy, Ordering::Relaxed) != healthy;
        if changed {
            self.transitions.fetch_add(1, Ordering::Relaxed);
        }
        changed
    }
}

/// The newest error's text. Locked for a copy only, and never on a request's way.
#[derive(Debug, Default)]
pub(in crate::origin) struct LastError(Mutex<Option<String>>);

impl LastError {
    pub(in crate::origin) fn set(&self, error: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub(in crate::origin) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
