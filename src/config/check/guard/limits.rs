//! Limits of rates and of requests at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::geo::Known;
use crate::config::decode::{OneOrMany, Placed};
use crate::config::model::{ConcurrencyLimit, KeyPart, OverRate, RateLimit};
use crate::config::raw;
use crate::config::report::{Place, Report};
use crate::config::units::show_duration;
use crate::config::words::{LimitName, OverRateWord, Rate, show_key_part};

/// The longest that a whole burst may take to come back: what lasts longer is no limit, and hard to count.
const LONGEST_REFILL: Duration = Duration::from_secs(366 * 86_400);

/// How long a request waits for its turn where nothing is said of it.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// The names of one kind of limits.
#[derive(Default)]
pub(super) struct Names(HashMap<String, Named>);

struct Named {
    /// What must be the same in limits of one name.
    counted: String,
    /// The file says the name.
    given: bool,
    place: Place,
}

/// The rate limits of the site or route that is called `owner`. What is not among them has been reported.
pub(super) fn rates(
    list: &[Placed<raw::RateLimit>],
    owner: &str,
    names: &mut Names,
    geo: &Known,
    report: &mut Report,
) -> Vec<Arc<RateLimit>> {
    let mut limits: Vec<Arc<RateLimit>> = Vec::new();
    for (i, raw) in list.iter().enumerate() {
        let key = raw.key.as_ref().map(|key| key_parts(key, geo, report));
        let action = raw.action.as_ref().and_then(|action| over_rate(action.value, raw, report));
        let (Some(key), Some(action), Some(rate), Some(announce)) = (key, action, &raw.rate, &raw.announce) else {
            continue;
        };
        // A burst that is given and wrong has been reported.
        if raw.burst.is_none() && report.is_wrong(&format!("{}.burst", raw.place.path)) {
            continue;
        }
        let burst = raw.burst.as_ref().map_or_else(|| usual_burst(rate.value), |burst| saturated(burst.0));
        refill(rate, burst, raw, report);
        let name = name(raw.name.as_ref(), owner, i);
        let counted = format!("{key:?} {} {burst}", rate.show());
        names.claim(&name, counted, raw.name.as_ref(), &raw.place, report);
        if limits.iter().any(|limit| *limit.name == *name) && raw.name.is_some() {
            report.error(&raw.place, format!("the limit `{name}` is already in the list"));
        }
        limits.push(Arc::new(RateLimit {
            name: name.into(),
            key,
            requests: rate.requests,
            per: rate.per,
            burst,
            action,
            announce: announce.value,
        }));
    }
    limits
}

/// The same for limits of requests at once.
pub(super) fn concurrencies(
    list: &[Placed<raw::ConcurrencyLimit>],
    owner: &str,
    names: &mut Names,
    geo: &Known,
    report: &mut Report,
) -> Vec<Arc<ConcurrencyLimit>> {
    let mut limits: Vec<Arc<ConcurrencyLimit>> = Vec::new();
    for (i, raw) in list.iter().enumerate() {
        let key = raw.key.as_ref().map(|key| key_parts(key, geo, report));
        let (Some(key), Some(requests), Some(status)) = (key, &raw.requests, &raw.status) else { continue };
        let requests = saturated(requests.0);
        let name = name(raw.name.as_ref(), owner, i);
        names.claim(&name, format!("{key:?} {requests}"), raw.name.as_ref(), &raw.place, report);
        if limits.iter().any(|limit| *limit.name == *name) && raw.name.is_some() {
            report.error(&raw.place, format!("the limit `{name}` is already in the list"));
        }
        limits.push(Arc::new(ConcurrencyLimit { name: name.into(), key, requests, status: status.0 }));
    }
    limits
}

impl Names {
    /// Notes a name; limits that have the same count together, and must be able to.
    fn claim(
        &mut self,
        name: &str,
        counted: String,
        given: Option<&Placed<LimitName>>,
        place: &Place,
        report: &mut Report,
    ) {
        let place = given.map_or(place, |given| &given.place);
        let Some(first) = self.0.get(name) else {
            let named = Named { counted, given: given.is_some(), place: place.clone() };
            self.0.insert(name.to_owned(), named);
            return;
        };
        let line = first.place.mark.line;
        if given.is_none() && !first.given {
            report.error(
                place,
                format!("this limit would be called `{name}`, as the one on line {line}: one of them needs a `name`"),
            );
        } else if first.counted != counted {
            report.error(
                place,
                format!("the name `{name}` is that of a limit on line {line}, which counts something else"),
            );
        }
    }
}

fn name(given: Option<&Placed<LimitName>>, owner: &str, index: usize) -> String {
    match (given, index) {
        (Some(name), _) => name.0.clone(),
        (None, 0) => owner.to_owned(),
        (None, _) => format!("{owner}#{}", index + 1),
    }
}

/// What requests are counted by.
fn key_parts(raw: &OneOrMany<KeyPart>, geo: &Known, report: &mut Report) -> Vec<KeyPart> {
    let mut parts: Vec<KeyPart> = Vec::new();
    for part in &raw.0 {
        match part.value {
            KeyPart::Country => geo.need_country("country", &part.place, report),
            KeyPart::Asn => geo.need_asn("asn", &part.place, report),
            KeyPart::All if raw.0.len() > 1 => {
                report.error(&part.place, "`all` has no effect beside others: it is one count for all requests");
            }
            _ => {}
        }
        if parts.contains(&part.value) {
            report.error(&part.place, format!("`{}` is already in the list", show_key_part(&part.value)));
        } else {
            parts.push(part.value.clone());
        }
    }
    parts
}

fn over_rate(action: OverRateWord, raw: &raw::RateLimit, report: &mut Report) -> Option<OverRate> {
    if let Some(delay) = raw.max_delay.as_ref().filter(|_| action != OverRateWord::Delay) {
        report.error(
            &delay.place,
            format!("`max_delay` has no effect beside `action: {}`, only for `delay`", action.as_str()),
        );
        return None;
    }
    Some(match action {
        OverRateWord::Reject => OverRate::Reject,
        OverRateWord::Delay => OverRate::Delay(raw.max_delay.as_ref().map_or(MAX_DELAY, |delay| delay.0)),
        OverRateWord::Log => OverRate::Log,
    })
}

/// As many requests as the rate has in a second.
fn usual_burst(rate: Rate) -> u32 {
    let requests = u128::from(rate.requests) * 1000 / rate.per.as_millis().max(1);
    u32::try_from(requests).unwrap_or(u32::MAX).max(1)
}

fn refill(rate: &Placed<Rate>, burst: u32, raw: &raw::RateLimit, report: &mut Report) {
    let takes = rate.per.as_millis() * u128::from(burst) / u128::from(rate.requests.max(1));
    if takes > LONGEST_REFILL.as_millis() {
        let place = raw.burst.as_ref().map_or(&rate.place, |burst| &burst.place);
        report.error(
            place,
            format!(
                "at {}, a burst of {burst} takes longer than {} to come back",
                rate.show(),
                show_duration(LONGEST_REFILL)
            ),
        );
    }
}

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_burst_is_a_second_of_the_rate() {
        let burst = |requests, per| usual_burst(Rate { requests, per: Duration::from_millis(per) });
        assert_eq!(burst(50, 1000), 50);
        assert_eq!(burst(600, 60_000), 10);
        assert_eq!(burst(100, 60_000), 1);
        assert_eq!(burst(1, 86_400_000), 1);
        assert_eq!(burst(25, 10_000), 2);
        assert_eq!(burst(10_000, 1), 10_000_000);
        assert_eq!(burst(u32::MAX, 1), u32::MAX);
    }
}
