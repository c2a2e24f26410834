//! Purging: what is asked for, in force and written down.

use serde_json::{Value, json};

use super::state::Shared;
use crate::admin::{NotPurged, Purged};
use crate::invalidate::{By, Purge, Recent, Selector, resolve};
use crate::observe::rfc3339;

/// Purges what is asked for, all of it or nothing: see [`purge`].
///
/// # Errors
/// What is asked for is none; nothing has been done.
pub fn purge_asked(
    shared: &Shared,
    asked: &Purge,
    by: By,
) -> Result<impl Future<Output = Result<Purged, NotPurged>> + Send + use<>, NotPurged> {
    let snapshot = shared.snapshot();
    let selectors = resolve(asked, &snapshot.config, &snapshot.directory).map_err(NotPurged::Wrong)?;
    Ok(purge(shared, selectors, asked.soft, by))
}

/// Purges what is selected, all of it or nothing. Once it has returned, nothing of that is served to a request that begins
/// afterwards; the future is done when it is written down, or cannot be.
pub fn purge(
    shared: &Shared,
    selectors: Box<[Selector]>,
    soft: bool,
    by: By,
) -> impl Future<Output = Result<Purged, NotPurged>> + Send + use<> {
    let ledger = shared.store.ledger().clone();
    let appended = ledger.append(selectors, soft, by);
    async move {
        let (sequence, at) = (appended.sequence, appended.at.into());
        match appended.written().await {
            Ok(()) => Ok(Purged { sequence, at }),
            Err(why) => {
                ledger.is_not_durable();
                Err(NotPurged::NotDurable { sequence, why })
            }
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
