//! The time that choices go by.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds of a clock that never goes back; above 0.
pub(in crate::origin) fn now() -> u64 {
    millis(BEGIN.elapsed()).saturating_add(1)
}

/// Whole milliseconds.
pub(in crate::origin) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
