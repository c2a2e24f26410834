//! One fetch for all who ask for the same at once: Pingora's lock, and how often somebody met it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pingora_cache::CacheKey;
use pingora_cache::lock::{CacheKeyLock, CacheKeyLockImpl, CacheLock, LockStatus, Locked, WritePermit};

/// The lock of the process.
pub struct Collapse {
    inner: Box<CacheKeyLockImpl>,
    waits: AtomicU64,
}

impl Collapse {
    /// A fetch whose header section takes longer than `age` is not waited for any more.
    pub fn leak(age: Duration) -> &'static Collapse {
        Box::leak(Box::new(Collapse { inner: CacheLock::new_boxed(age), waits: AtomicU64::new(0) }))
    }

    /// How often a request has met another that was fetching the same.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }
}

impl CacheKeyLock for Collapse {
    fn lock(&self, key: &CacheKey, stale_writer: bool) -> Locked {
        let locked = self.inner.lock(key, stale_writer);
        if let Locked::Read(_) = locked {
            self.waits.fetch_add(1, Ordering::Relaxed);
        }
        locked
    }

    fn release(&self, key: &CacheKey, permit: WritePermit, reason: LockStatus) {
        self.inner.release(key, permit, reason);
    }
}
