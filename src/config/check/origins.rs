//! Pools of servers.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::decode::Placed;
use crate::config::model::{
    HealthCheck, HealthCheckKind, HttpProbe, Origin, OriginHttp, Retry, Server, ServerAddress, ServerLimits,
};
use crate::config::raw;
use crate::config::report::{Place, Report};
use crate::config::units::show_duration;
use crate::config::words::ServerEntry;

pub(super) fn origins(root: &raw::Root, report: &mut Report) -> Option<Vec<Origin>> {
    let raw = root.origins.as_ref()?;
    // Not stopping at the first that fails.
    let checked: Vec<Option<Origin>> = raw.0.iter().map(|(name, raw)| origin(&name.0, raw, report)).collect();
    checked.into_iter().collect()
}

fn origin(name: &str, raw: &raw::Origin, report: &mut Report) -> Option<Origin> {
    let servers = raw.servers.as_ref().and_then(|list| servers(&list.0, &list.place, report));
    let health_check = raw.health_check.as_ref().map(|raw| health_check(raw, report));
    if let (Some(servers), Some(retries)) = (&servers, &raw.retries) {
        // What a name resolves to is known only later.
        let all_known = servers.iter().all(|s| matches!(s.address, ServerAddress::Socket(_)));
        if all_known && retries.given && retries.0 >= servers.len() {
            let message =
                format!("there are only {} servers: at most {} retries are made", servers.len(), servers.len() - 1);
            report.warn(&retries.place, message);
        }
    }
    Some(Origin {
        name: name.to_owned(),
        servers: servers?,
        servers_file: None,
        sticky: None,
        slow_start: Duration::ZERO,
        outliers: None,
        panic_below: 0,
        tls: None,
        http: OriginHttp::Auto,
        proxy_protocol: None,
        try_timeout: None,
        timeout: None,
        keepalive: 64,
        streams: 100,
        retry: Retry::usual(),
        limits: ServerLimits { requests: None, pending: 0, pending_timeout: Duration::from_secs(1) },
        hedge: None,
        balance: raw.balance.as_ref()?.value.clone(),
        health_check: match health_check {
            Some(check) => Some(check?),
            None => None,
        },
        host: raw.host.as_ref()?.value.clone(),
        connect_timeout: raw.connect_timeout.as_ref()?.0,
        read_timeout: raw.read_timeout.as_ref()?.0,
        write_timeout: raw.write_timeout.as_ref()?.0,
        idle_timeout: raw.idle_timeout.as_ref()?.0,
        retries: raw.retries.as_ref()?.0,
    })
}

fn servers(list: &[Placed<ServerEntry>], place: &Place, report: &mut Report) -> Option<Vec<Server>> {
    let mut servers = Vec::with_capacity(list.len());
    let mut seen: HashMap<&ServerAddress, &Place> = HashMap::new();
    let mut whole = true;
    for entry in list {
        let (address, place, weight) = match &entry.value {
            ServerEntry::Address(address) => (Some(address), &entry.place, Some(1)),
            ServerEntry::Keys(keys) => {
                let place = keys.address.as_ref().map_or(&entry.place, |a| &a.place);
                (keys.address.as_ref().map(|a| &a.value), place, keys.weight.as_ref().map(|w| w.0))
            }
        };
        let (Some(address), Some(weight)) = (address, weight) else {
            whole = false;
            continue;
        };
        if let Some(first) = seen.insert(address, place) {
            report.error(place, format!("the same server as {} on line {}", first.path, first.mark.line));
        }
        servers.push(Server { address: address.clone(), weight, tier: 0 });
    }
    if whole && !servers.is_empty() && servers.iter().all(|s| s.weight == 0) {
        report.error(place, "every server has weight 0: none would take a request");
    }
    (whole && !servers.is_empty()).then_some(servers)
}

fn health_check(raw: &Placed<raw::HealthCheck>, report: &mut Report) -> Option<HealthCheck> {
    if let (Some(interval), Some(timeout)) = (&raw.interval, &raw.timeout)
        && timeout.0 > interval.0
    {
        let place = if timeout.given { &timeout.place } else { &interval.place };
        let (timeout, interval) = (show_duration(timeout.0), show_duration(interval.0));
        report.error(place, format!("the timeout ({timeout}) is longer than the interval ({interval})"));
    }
    let kind = match (&raw.path, &raw.host) {
        (Some(path), host) => HealthCheckKind::Http(HttpProbe {
            method: "GET".to_owned(),
            path: path.0.clone(),
            host: host.as_ref().map(|host| host.0.clone()),
            headers: Vec::new(),
            expect_status: vec![(200, 299)],
            expect_body: None,
        }),
        (None, Some(host)) => {
            report.error(&host.place, "`host` has no effect without `path`: a bare connection names no host");
            return None;
        }
        (None, None) => HealthCheckKind::Tcp,
    };
    Some(HealthCheck {
        kind,
        tls: true,
        interval_down: raw.interval.as_ref()?.0,
        jitter: 10,
        interval: raw.interval.as_ref()?.0,
        timeout: raw.timeout.as_ref()?.0,
        healthy_after: raw.healthy_after.as_ref()?.0,
        unhealthy_after: raw.unhealthy_after.as_ref()?.0,
    })
}
