//! Purging: what is asked for, in force and written down.

use super::state::Shared;
use crate::admin::{NotPurged, Purged};
use crate::invalidate::{By, Selector};

/// Purges what is selected, all of it or nothing. Once it has returned, nothing of that is served to a request that begins
/// afterwards.
///
/// # Errors
/// See [`NotPurged`].
pub async fn purge(_: &Shared, _: Box<[Selector]>, _: bool, _: By) -> Result<Purged, NotPurged> {
    Err(NotPurged::Unavailable("purging is not available".to_owned()))
}
