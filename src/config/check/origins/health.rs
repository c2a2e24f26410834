//! Health: probes, and how answers are judged.

use super::{Placed, is_given, ranges};
use crate::config::model::{HealthCheck, HealthCheckKind, HttpProbe, OriginHttp, Outliers};
use crate::config::raw;
use crate::config::report::{Place, Report};
use crate::config::units::show_duration;
use crate::config::words::Choice;

/// Probes. `origin` is theirs.
pub(super) fn active(raw: &Placed<raw::HealthCheck>, origin: &raw::Origin, report: &mut Report) -> Option<HealthCheck> {
    intervals(raw, report);
    let kind = kind(raw, origin, report);
    if let Some(tls) = raw.tls.as_ref().filter(|tls| tls.0)
        && origin.tls.as_ref().is_some_and(|tls| matches!(tls.value, Choice::Off))
    {
        report.error(&tls.place, "`tls: on` has no effect: the origin has no `tls`");
    }
    let interval = raw.interval.as_ref()?.0;
    Some(HealthCheck {
        kind: kind?,
        tls: raw.tls.as_ref().is_none_or(|tls| tls.0),
        interval,
        interval_down: raw.interval_down.as_ref().map_or(interval, |interval| interval.0),
        timeout: raw.timeout.as_ref()?.0,
        jitter: raw.jitter.as_ref()?.byte(),
        healthy_after: raw.healthy_after.as_ref()?.0,
        unhealthy_after: raw.unhealthy_after.as_ref()?.0,
    })
}

/// The timeout is no longer than either interval.
fn intervals(raw: &raw::HealthCheck, report: &mut Report) {
    let Some(timeout) = &raw.timeout else { return };
    for (interval, name) in [(&raw.interval, "interval"), (&raw.interval_down, "interval_down")] {
        let Some(interval) = interval.as_ref().filter(|interval| timeout.0 > interval.0) else { continue };
        let place = if timeout.given { &timeout.place } else { &interval.place };
        let (timeout, interval) = (show_duration(timeout.0), show_duration(interval.0));
        report.error(place, format!("the timeout ({timeout}) is longer than the {name} ({interval})"));
    }
}

fn kind(raw: &Placed<raw::HealthCheck>, origin: &raw::Origin, report: &mut Report) -> Option<HealthCheckKind> {
    if let (Some(_), Some(grpc)) = (&raw.path, &raw.grpc) {
        report.error(&grpc.place, "`path` and `grpc` exclude each other");
        return None;
    }
    if is_given(&raw.path, &raw.place, "path", report) {
        return http(raw, report).map(HealthCheckKind::Http);
    }
    let (what, host) = match raw.grpc {
        Some(_) => ("a gRPC call has a form of its own", "a gRPC call names the server itself"),
        None => ("a bare connection asks for nothing", "a bare connection names no host"),
    };
    let mut useless = |place: Option<&Place>, key: &str, why: &str| {
        if let Some(place) = place {
            report.error(place, format!("`{key}` has no effect without `path`: {why}"));
        }
    };
    useless(raw.method.as_ref().map(|method| &method.place), "method", what);
    useless(raw.host.as_ref().map(|host| &host.place), "host", host);
    useless(raw.headers.as_ref().map(|headers| &headers.place), "headers", what);
    useless(raw.expect_status.as_ref().map(|status| &status.place), "expect_status", what);
    useless(raw.expect_body.as_ref().map(|body| &body.place), "expect_body", what);
    if let Some(grpc) = &raw.grpc
        && origin.http.as_ref().is_some_and(|http| http.0 == OriginHttp::Http1)
    {
        report.error(&grpc.place, "gRPC takes HTTP/2, and the origin says `http: 1`");
    }
    Some(match &raw.grpc {
        Some(service) => HealthCheckKind::Grpc { service: service.value.0.clone() },
        None => HealthCheckKind::Tcp,
    })
}

fn http(raw: &raw::HealthCheck, report: &mut Report) -> Option<HttpProbe> {
    let method = raw.method.as_ref().map_or("GET", |method| method.value.0);
    if let Some(body) = raw.expect_body.as_ref().filter(|_| method == "HEAD") {
        report.error(&body.place, "`expect_body` has no effect beside `method: HEAD`: the answer has no body");
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in raw.headers.iter().flat_map(|map| &map.0) {
        if headers.iter().any(|(other, _)| *other == name.value.0) {
            // Equal as written has been reported as a duplicate key; this is about case.
            report.error(&name.place, format!("`{}` is already given in another spelling", name.value.0));
        } else {
            headers.push((name.value.0.clone(), value.value.0.clone()));
        }
    }
    let expect_status = match &raw.expect_status {
        Some(list) => ranges(list.0.iter().map(|range| (range.value, range.place.clone())), report),
        None => vec![(200, 299)],
    };
    Some(HttpProbe {
        method: method.to_owned(),
        path: raw.path.as_ref()?.value.0.clone(),
        host: raw.host.as_ref().map(|host| host.value.0.clone()),
        headers,
        expect_status,
        expect_body: raw.expect_body.as_ref().map(|body| body.value.0.clone()),
    })
}

/// How answers are judged.
pub(super) fn outliers(raw: &raw::Outliers, place: &Place, report: &mut Report) -> Option<Outliers> {
    let (in_a_row, rate, latency) =
        (raw.consecutive_failures.as_ref()?.0.map(|n| n.0), raw.failure_rate.as_ref()?.0, raw.latency.as_ref()?.0);
    let failures = in_a_row.is_some() || rate.is_some();
    if !failures && latency.is_none() {
        report.error(place, "every rule is off: no server is judged, which is written `outliers: off`");
        return None;
    }
    let mut useless = |place: Option<&Place>, key: &str, without: &str| {
        if let Some(place) = place {
            report.error(place, format!("`{key}` has no effect without {without}"));
        }
    };
    if rate.is_none() && latency.is_none() {
        useless(given(&raw.min_requests), "min_requests", "`failure_rate` or `latency`");
        useless(given(&raw.window), "window", "`failure_rate` or `latency`");
    }
    if !failures {
        useless(given(&raw.failure_statuses), "failure_statuses", "`consecutive_failures` or `failure_rate`");
    }
    if let (Some(first), Some(longest)) = (&raw.ejection_time, &raw.max_ejection_time)
        && first.0 > longest.0
    {
        let (place, hint) = match longest.given {
            true => (&longest.place, ""),
            false => (&first.place, ", its default"),
        };
        let (first, longest) = (show_duration(first.0), show_duration(longest.0));
        report.error(place, format!("max_ejection_time ({longest}{hint}) is shorter than ejection_time ({first})"));
    }
    let statuses = raw.failure_statuses.as_ref()?;
    Some(Outliers {
        consecutive_failures: in_a_row.map(number),
        failure_rate: rate.map(|rate| rate.byte()),
        min_requests: number(raw.min_requests.as_ref()?.0),
        latency: latency.map(|latency| latency.0),
        window: raw.window.as_ref()?.0,
        failure_statuses: ranges(statuses.0.iter().map(|range| (range.value, range.place.clone())), report),
        ejection_time: raw.ejection_time.as_ref()?.0,
        max_ejection_time: raw.max_ejection_time.as_ref()?.0,
        max_ejected: raw.max_ejected.as_ref()?.byte(),
    })
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Where a key stands that the file gives.
fn given<T>(key: &Option<Placed<T>>) -> Option<&Place> {
    key.as_ref().filter(|key| key.given).map(|key| &key.place)
}
