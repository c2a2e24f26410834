//! Pools of servers.

mod health;
mod resilience;
mod servers;
mod tls;

use std::path::Path;

pub(in crate::config) use servers::listed;

use super::{resolve, secret};
use crate::config::Env;
use crate::config::decode::{Decode, List, Placed};
use crate::config::model::{
    Balance, HashKey, HostHeader, Origin, OriginHttp, OriginTls, Server, ServerAddress, Sticky,
};
use crate::config::raw;
use crate::config::report::{Place, Report};
use crate::config::words::{BalanceBy, BalanceChoice, Choice, OffOr, Statuses};

/// `base` and `env` are for reading files and secrets.
pub(super) fn origins(root: &raw::Root, base: &Path, env: Env<'_>, report: &mut Report) -> Option<Vec<Origin>> {
    let raw = root.origins.as_ref()?;
    // Not stopping at the first that fails.
    let checked: Vec<Option<Origin>> =
        raw.0.iter().map(|(name, raw)| origin(&name.0, raw, base, env, report)).collect();
    checked.into_iter().collect()
}

fn origin(name: &str, raw: &Placed<raw::Origin>, base: &Path, env: Env<'_>, report: &mut Report) -> Option<Origin> {
    // Everything is looked at before the first `?`: one mistake must not hide another.
    let servers = servers::servers(raw, base, report);
    let balance = raw.balance.as_ref().and_then(|raw| balance(raw, report));
    let sticky = raw.sticky.as_ref().map(|raw| sticky(raw, base, env, report));
    let tls = tls::tls(raw, base, report);
    let health_check = raw.health_check.as_ref().map(|check| health::active(check, raw, report));
    let outliers = raw.outliers.as_ref().and_then(|raw| match &raw.value {
        OffOr::Off => Some(None),
        OffOr::Keys(keys) => health::outliers(keys, &raw.place, report).map(Some),
    });
    let retry = resilience::retry(raw, report);
    let limits = raw.limits.as_ref().and_then(|raw| resilience::limits(raw, report));
    resilience::times(raw, report);
    streams(raw, report);
    if let (Some(servers), None) = (&servers, &raw.servers_file) {
        resilience::warn_of_too_few(raw, servers, report);
    }
    if let Some(servers) = &servers {
        names_of_sockets(raw, servers, tls.as_ref().and_then(Option::as_ref), report);
    }
    Some(Origin {
        name: name.to_owned(),
        servers: servers?,
        servers_file: raw.servers_file.as_ref().map(|path| resolve(base, &path.0)),
        balance: balance?,
        sticky: all_or_none(sticky)?,
        slow_start: raw.slow_start.as_ref()?.value,
        health_check: all_or_none(health_check)?,
        outliers: outliers?,
        panic_below: raw.panic_below.as_ref()?.byte(),
        host: raw.host.as_ref()?.value.clone(),
        tls: tls?,
        http: raw.http.as_ref()?.0,
        proxy_protocol: raw.proxy_protocol.as_ref().map(|version| version.value),
        connect_timeout: raw.connect_timeout.as_ref()?.0,
        read_timeout: raw.read_timeout.as_ref()?.0,
        write_timeout: raw.write_timeout.as_ref()?.0,
        try_timeout: raw.try_timeout.as_ref().map(|timeout| timeout.0),
        timeout: raw.timeout.as_ref().map(|timeout| timeout.0),
        idle_timeout: raw.idle_timeout.as_ref()?.0,
        keepalive: raw.keepalive.as_ref()?.0,
        streams: raw.streams.as_ref()?.0,
        retries: raw.retries.as_ref()?.0,
        retry: retry?,
        limits: limits?,
        hedge: all_or_none(raw.hedge.as_ref().map(|raw| resilience::hedge(raw)))?,
    })
}

/// What was given and right, or not given; `None`: given and wrong.
fn all_or_none<T>(checked: Option<Option<T>>) -> Option<Option<T>> {
    match checked {
        Some(value) => value.map(Some),
        None => Some(None),
    }
}

fn balance(raw: &Placed<BalanceChoice>, report: &mut Report) -> Option<Balance> {
    let (by, choices, key, bound) = match &raw.value {
        BalanceChoice::By(by) => (*by, None, None, None),
        BalanceChoice::Keys(keys) => {
            (keys.by.as_ref()?.value, keys.choices.as_ref(), keys.key.as_ref(), keys.bound.as_ref())
        }
    };
    let mut useless = |place: Option<&Place>, key: &str, of: BalanceBy| {
        if let Some(place) = place.filter(|_| by != of) {
            report.error(
                place,
                format!("`{key}` has no effect beside `by: {}`, only for `{}`", by.as_str(), of.as_str()),
            );
        }
    };
    useless(choices.map(|choices| &choices.place), "choices", BalanceBy::LeastRequests);
    useless(key.map(|key| &key.place), "key", BalanceBy::ConsistentHash);
    useless(bound.map(|bound| &bound.place), "bound", BalanceBy::ConsistentHash);
    Some(match by {
        BalanceBy::RoundRobin => Balance::RoundRobin,
        BalanceBy::Random => Balance::Random,
        BalanceBy::LeastRequests => Balance::LeastRequests { choices: choices.map(|choices| choices.0) },
        BalanceBy::LeastLatency => Balance::LeastLatency,
        BalanceBy::IpHash => Balance::IpHash,
        BalanceBy::ConsistentHash => Balance::ConsistentHash {
            key: key.map_or(HashKey::CacheKey, |key| key.value.0.clone()),
            bound: bound.map_or(Some(Balance::BOUND), |bound| bound.0.map(|percent| percent.0)),
        },
        BalanceBy::Failover => Balance::Failover,
    })
}

fn sticky(raw: &raw::Sticky, base: &Path, env: Env<'_>, report: &mut Report) -> Option<Sticky> {
    let secret = raw.secret.as_ref().and_then(|secret| secret::read(secret, base, env, report));
    Some(Sticky {
        cookie: raw.cookie.as_ref()?.value.0.clone(),
        secret: secret?,
        ttl: raw.ttl.as_ref().map(|ttl| ttl.0),
    })
}

/// Streams there are on connections of HTTP/2 alone.
fn streams(raw: &raw::Origin, report: &mut Report) {
    let Some(streams) = raw.streams.as_ref().filter(|streams| streams.given) else { return };
    let plain = raw.tls.as_ref().is_some_and(|tls| matches!(tls.value, Choice::Off));
    match raw.http.as_ref().map(|http| http.0) {
        Some(OriginHttp::Http1) => report.error(&streams.place, "`streams` has no effect beside `http: 1`"),
        Some(OriginHttp::Auto) if plain => {
            report.error(&streams.place, "`streams` has no effect: without `tls`, HTTP/2 takes `http: 2`");
        }
        _ => {}
    }
}

/// A Unix socket has neither a name nor an address: none that it could be asked for by, and none that its certificate
/// could be for.
fn names_of_sockets(raw: &raw::Origin, servers: &[Server], tls: Option<&OriginTls>, report: &mut Report) {
    let Some(socket) = servers.iter().find(|server| matches!(server.address, ServerAddress::Unix(_))) else { return };
    let (Some(host), Some(given)) = (&raw.host, &raw.tls) else { return };
    let address = &socket.address;
    if host.value == HostHeader::Server {
        report.error(&host.place, format!("{address} has no name of its own: `host` is `client` or a name"));
    }
    let named = |tls: &OriginTls| tls.sni.is_some() || matches!(host.value, HostHeader::Fixed(_));
    if tls.is_some_and(|tls| tls.verify && !named(tls)) {
        report.error(&given.place, format!("{address} has no name to be verified: the key `sni` is needed"));
    }
}

/// Statuses as ranges; what stands twice is a mistake.
fn ranges<const MIN: u16>(list: impl Iterator<Item = (Statuses<MIN>, Place)>, report: &mut Report) -> Vec<(u16, u16)> {
    let mut known: Vec<Statuses<MIN>> = Vec::new();
    for (next, place) in list {
        match known.iter().find(|known| known.meets(next)) {
            Some(other) if *other == next => report.error(&place, format!("`{next}` is already in the list")),
            Some(other) => report.error(&place, format!("`{next}` and `{other}` have statuses in common")),
            None => known.push(next),
        }
    }
    known.into_iter().map(|range| (range.0, range.1)).collect()
}

/// Whether a key below `place` was given, right or wrong.
fn is_given<T>(key: &Option<Placed<T>>, place: &Place, name: &str, report: &Report) -> bool {
    key.is_some() || report.is_wrong(&format!("{}.{name}", place.path))
}
