//! How long, how often, how much at once.

use super::{is_given, ranges};
use crate::config::decode::Placed;
use crate::config::model::{Hedge, Retry, Server, ServerAddress, ServerLimits};
use crate::config::raw;
use crate::config::report::Report;
use crate::config::units::show_duration;
use crate::config::words::{RetryCause, Statuses};

/// A try is part of the whole.
pub(super) fn times(raw: &raw::Origin, report: &mut Report) {
    if let (Some(one), Some(all)) = (&raw.try_timeout, &raw.timeout)
        && one.0 > all.0
    {
        let (one_shown, all_shown) = (show_duration(one.0), show_duration(all.0));
        report.error(&one.place, format!("try_timeout ({one_shown}) is longer than timeout ({all_shown})"));
    }
}

/// What is tried again.
pub(super) fn retry(raw: &raw::Origin, report: &mut Report) -> Option<Retry> {
    let keys = raw.retry.as_ref()?;
    if keys.given && raw.retries.as_ref().is_some_and(|retries| retries.0 == 0) {
        report.error(&keys.place, "`retry` has no effect beside `retries: 0`");
    }
    let on = keys.on.as_ref();
    let mut causes: Vec<RetryCause> = Vec::new();
    for cause in on.iter().flat_map(|list| &list.0) {
        match cause.value {
            RetryCause::Statuses(_) => {}
            word if causes.contains(&word) => {
                report.error(&cause.place, format!("`{}` is already in the list", name(word)))
            }
            word => causes.push(word),
        }
    }
    let statuses = on.into_iter().flat_map(|list| &list.0).filter_map(|cause| match cause.value {
        RetryCause::Statuses(range) => Some((range, cause.place.clone())),
        _ => None,
    });
    let on_statuses = ranges(statuses, report);
    on?;
    Some(Retry {
        on_reset: causes.contains(&RetryCause::Reset),
        on_timeout: causes.contains(&RetryCause::Timeout),
        on_statuses,
        budget: keys.budget.as_ref()?.0,
        budget_floor: u32::try_from(keys.floor.as_ref()?.0).unwrap_or(u32::MAX),
    })
}

fn name(cause: RetryCause) -> String {
    match cause {
        RetryCause::Reset => "reset".to_owned(),
        RetryCause::Timeout => "timeout".to_owned(),
        RetryCause::Statuses(range) => Statuses::to_string(&range),
    }
}

/// What each server takes at once.
pub(super) fn limits(raw: &Placed<raw::ServerLimits>, report: &mut Report) -> Option<ServerLimits> {
    let pending = raw.pending.as_ref();
    let waiting = pending.is_some_and(|pending| pending.0 > 0);
    if let Some(pending) = pending.filter(|_| waiting && !is_given(&raw.requests, &raw.place, "requests", report)) {
        report.error(&pending.place, "`pending` has no effect without `requests`: nothing has to wait");
    }
    if let Some(timeout) = raw.pending_timeout.as_ref().filter(|timeout| timeout.given)
        && pending.is_some_and(|pending| pending.0 == 0)
    {
        report.error(&timeout.place, "`pending_timeout` has no effect where `pending` is 0");
    }
    Some(ServerLimits {
        requests: raw.requests.as_ref().map(|requests| requests.0),
        pending: pending?.0,
        pending_timeout: raw.pending_timeout.as_ref()?.0,
    })
}

pub(super) fn hedge(raw: &raw::Hedge) -> Option<Hedge> {
    Some(Hedge { after: raw.after.as_ref()?.0 })
}

/// What takes more servers than there are.
pub(super) fn warn_of_too_few(raw: &raw::Origin, servers: &[Server], report: &mut Report) {
    // What a name resolves to is known only later.
    if servers.iter().any(|s| matches!(s.address, ServerAddress::Name { .. } | ServerAddress::Srv(_))) {
        return;
    }
    let most = servers.len().saturating_sub(1);
    if let Some(retries) = raw.retries.as_ref().filter(|retries| retries.given && retries.0 > most) {
        let message = match most {
            0 => "there is only one server: no retries are made".to_owned(),
            _ => format!("there are only {} servers: at most {most} retries are made", servers.len()),
        };
        report.warn(&retries.place, message);
    }
    if let Some(hedge) = raw.hedge.as_ref().filter(|_| most == 0) {
        report.warn(&hedge.place, "there is only one server: no request is sent to a second one");
    }
}
