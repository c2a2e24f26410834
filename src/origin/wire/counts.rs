//! How many connections there are to a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counts over the connections of a server.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) open: AtomicUsize,
    pub(super) idle: AtomicUsize,
    pub(super) opened_total: AtomicU64,
}

/// The connections of a server at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// In use or not.
    pub open: usize,
    /// Of those, the ones that no request uses.
    pub idle: usize,
    /// Ever made, as far back as the server is known.
    pub opened_total: u64,
}

impl Counts {
    pub(super) fn now(&self) -> ConnectionCounts {
        ConnectionCounts {
            open: self.open.load(Ordering::Relaxed),
            idle: self.idle.load(Ordering::Relaxed),
            opened_total: self.opened_total.load(Ordering::Relaxed),
        }
    }
}

/// An open connection. Counted as such until dropped.
#[derive(Debug)]
pub(super) struct Counted(Arc<Counts>);

impl Counted {
    pub(super) fn new(counts: &Arc<Counts>) -> Counted {
        counts.open.fetch_add(1, Ordering::Relaxed);
        counts.opened_total.fetch_add(1, Ordering::Relaxed);
        Counted(counts.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that no request uses. Counted as such until dropped.
#[derive(Debug)]
pub(super) struct Idle(Arc<Counts>);

impl Idle {
    pub(super) fn new(counts: &Arc<Counts>) -> Idle {
        counts.idle.fetch_add(1, Ordering::Relaxed);
        Idle(counts.clone())
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, Ordering::Relaxed);
    }
}
