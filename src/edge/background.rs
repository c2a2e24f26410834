//! Refreshes in the background (stale-while-revalidate, RFC 5861 §3): a bound on how many run at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The background fetches of the process. Beyond the bound, what is stale is served without being refreshed: a later
/// request will see to it.
#[derive(Debug)]
pub struct Background {
    running: AtomicUsize,
    max: AtomicUsize,
    skipped: AtomicU64,
}

/// One of them; it ends with this.
#[derive(Debug)]
pub struct Running(Arc<Background>);

impl Background {
    /// At most `max` at once.
    pub fn new(max: usize) -> Arc<Background> {
        Arc::new(Background { running: AtomicUsize::new(0), max: AtomicUsize::new(max), skipped: AtomicU64::new(0) })
    }

    /// Another bound, for those that begin from now on.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Whether one more may begin; if not, a refresh is counted as skipped.
    pub fn has_room(&self) -> bool {
        let room = self.running() < self.max.load(Ordering::Relaxed);
        if !room {
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    /// Begins one, if there is room.
    pub fn begin(self: &Arc<Background>) -> Option<Running> {
        let max = self.max.load(Ordering::Relaxed);
        let more = |running: usize| (running < max).then_some(running + 1);
        match self.running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Some(Running(self.clone())),
            Err(_) => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// How many refreshes there was no room for.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
