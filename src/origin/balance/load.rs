//! How busy a server is.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::latency::Latency;

/// What a server is doing, as far as choosing it needs to be known. Outlives reloads and DNS answers that keep it.
///
/// Every request writes to it: it has its cache line for itself, so that looking at a server's health is not slowed down.
#[derive(Debug)]
#[repr(align(64))]
pub(in crate::origin) struct Load {
    /// Requests that have chosen it and are not done.
    pub(in crate::origin) active: AtomicUsize,
    pub(in crate::origin) latency: Latency,
    /// When it came (back) into use, by the choices' clock; 0: it was there from the beginning.
    since: AtomicU64,
    in_use: AtomicBool,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            active: AtomicUsize::new(0),
            latency: Latency::default(),
            since: AtomicU64::new(0),
            in_use: AtomicBool::new(true),
        }
    }
}

impl Load {
    pub(in crate::origin) fn active(&self) -> usize {
        // In one order with all other changes: whoever waits for a place relies on it.
        self.active.load(Ordering::SeqCst)
    }

    /// One request more, unless there would be more than `limit`. Whether it has been taken.
    pub(in crate::origin) fn take(&self, limit: Option<usize>) -> bool {
        let Some(limit) = limit else {
            self.active.fetch_add(1, Ordering::SeqCst);
            return true;
        };
        let more = |active| (active < limit).then_some(active + 1);
        self.active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// One that has been taken is done.
    pub(in crate::origin) fn release(&self) {
        self.active.fetch_sub(1, Ordering::SeqCst);
    }

    /// When it came into use, for its slow start.
    pub(in crate::origin) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// It is new to a pool that is at work.
    pub(in crate::origin) fn came(&self, now: u64) {
        self.since.store(now, Ordering::Relaxed);
    }

    /// Whether it can be chosen now. Where it could not before, its slow start begins.
    pub(in crate::origin) fn note(&self, in_use: bool, now: u64) {
        if !self.in_use.swap(in_use, Ordering::Relaxed) && in_use {
            self.came(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_are_taken() {
        let load = Load::default();
        assert!(load.take(Some(2)) && load.take(Some(2)) && !load.take(Some(2)));
        assert!(load.take(None), "a pool without a limit shares the server");
        load.release();
        assert!(!load.take(Some(2)));
        load.release();
        assert!(load.take(Some(2)));
        assert!(!load.take(Some(0)));
        assert_eq!(load.active(), 2);
    }

    #[test]
    fn only_a_return_begins_a_slow_start() {
        let load = Load::default();
        load.note(true, 5);
        assert_eq!(load.since(), 0);
        load.note(false, 6);
        load.note(false, 7);
        assert_eq!(load.since(), 0);
        load.note(true, 8);
        load.note(true, 9);
        assert_eq!(load.since(), 8);
    }
}
