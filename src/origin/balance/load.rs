//! How busy a server is.

use std::sync::atomic::AtomicUsize;

/// What a server is doing, as far as choosing it needs to be known. Outlives reloads and DNS answers that keep it.
#[derive(Debug, Default)]
pub(in crate::origin) struct Load {
    /// Requests that have chosen it and are not done.
    pub(in crate::origin) active: AtomicUsize,
}
