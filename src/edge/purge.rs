//! Purging: what is asked for, in force and written down.

use serde_json::{Value, json};

use super::state::Shared;
use crate::admin::{NotPurged, Purged};
use crate::invalidate::{By, Purge, Recent, Selector, resolve};
use crate::observe::rfc3339;

/// Purges what is asked for, all of it or nothing.
///
/// # Errors
/// See [`NotPurged`].
pub async fn purge_asked(shared: &Shared, asked: &Purge, by: By) -> Result<Purged, NotPurged> {
    let snapshot = shared.snapshot();
    let selectors = resolve(asked, &snapshot.config, &snapshot.directory).map_err(NotPurged::Wrong)?;
    purge(shared, selectors, asked.soft, by).await
}

/// Purges what is selected, all of it or nothing. Once it has returned, nothing of that is served to a request that begins
/// afterwards.
///
/// # Errors
/// See [`NotPurged`].
pub async fn purge(shared: &Shared, selectors: Box<[Selector]>, soft: bool, by: By) -> Result<Purged, NotPurged> {
    let appended = shared.store.ledger().append(selectors, soft, by);
    let (sequence, at) = (appended.sequence, appended.at.into());
    match appended.written().await {
        Ok(()) => Ok(Purged { sequence, at }),
        Err(why) => {
            shared.store.ledger().is_not_durable();
            Err(NotPurged::NotDurable { sequence, why })
        }
    }
}

/// The ledger, as the admin API shows it.
pub fn ledger(shared: &Shared, limit: usize) -> Value {
    let ledger = shared.store.ledger();
    let behind = ledger.behind();
    let reason = match (ledger.is_nowhere(), behind.is_empty()) {
        (true, _) => Some("no disk has a copy of the ledger".to_owned()),
        (false, false) => Some(format!("not all of it could be written to {}", behind.join(", "))),
        (false, true) => None,
    };
    let entries: Vec<_> = ledger.recent(limit).iter().map(entry).collect();
    json!({ "head": ledger.head(), "durable": reason.is_none(), "reason": reason, "entries": entries })
}

fn entry(entry: &Recent) -> Value {
    json!({
        "sequence": entry.sequence,
        "at": rfc3339(entry.at.into()),
        "soft": entry.soft,
        "by": entry.by.as_str(),
        "selectors": entry.selectors.iter().map(Selector::to_json).collect::<Vec<_>>(),
        "count": entry.count,
    })
}
