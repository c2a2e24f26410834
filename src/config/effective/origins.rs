//! Origins. What has no effect beside something else is left out: saying it would be refused.

use super::{Fields, Yaml, duration, list, path, text};
use crate::config::model::{
    Balance, HashKey, HealthCheck, HealthCheckKind, HostHeader, Origin, OriginHttp, OriginTls, Outliers, ProxyProtocol,
    Retry, Server, ServerLimits, Sticky, TlsVersion,
};

pub(super) fn origin(origin: &Origin) -> Yaml {
    let mut map = Fields::default();
    if !origin.servers.is_empty() {
        map.add("servers", list(&origin.servers, server));
    }
    map.option("servers_file", origin.servers_file.as_deref().map(path));
    map.add("balance", balance(&origin.balance));
    map.option("sticky", origin.sticky.as_ref().map(sticky));
    map.add("slow_start", duration(origin.slow_start));
    map.option("health_check", origin.health_check.as_ref().map(|check| health_check(check, origin.tls.is_some())));
    map.add("outliers", origin.outliers.as_ref().map_or_else(|| text("off"), outliers));
    map.add("panic_below", percent(origin.panic_below));
    map.add(
        "host",
        text(match &origin.host {
            HostHeader::Client => "client",
            HostHeader::Server => "server",
            HostHeader::Fixed(name) => name,
        }),
    );
    map.add("tls", origin.tls.as_ref().map_or_else(|| text("off"), tls));
    map.plain(
        "http",
        match origin.http {
            OriginHttp::Http1 => "1",
            OriginHttp::Http2 => "2",
            OriginHttp::Auto => "auto",
        },
    );
    if origin.http == OriginHttp::Http2 || origin.http == OriginHttp::Auto && origin.tls.is_some() {
        map.plain("streams", origin.streams);
    }
    map.option(
        "proxy_protocol",
        origin.proxy_protocol.map(|version| match version {
            ProxyProtocol::V1 => text("v1"),
            ProxyProtocol::V2 => text("v2"),
        }),
    );
    map.add("connect_timeout", duration(origin.connect_timeout));
    map.add("read_timeout", duration(origin.read_timeout));
    map.add("write_timeout", duration(origin.write_timeout));
    map.option("try_timeout", origin.try_timeout.map(duration));
    map.option("timeout", origin.timeout.map(duration));
    map.add("idle_timeout", duration(origin.idle_timeout));
    map.plain("keepalive", origin.keepalive);
    map.plain("retries", origin.retries);
    if origin.retries > 0 {
        map.add("retry", retry(&origin.retry));
    }
    map.add("limits", limits(&origin.limits));
    if let Some(hedge) = &origin.hedge {
        map.add("hedge", Yaml::Map(vec![("after".to_owned(), duration(hedge.after))]));
    }
    map.done()
}

fn server(server: &Server) -> Yaml {
    let mut map = Fields::default();
    map.add("address", text(&server.address));
    map.plain("weight", server.weight);
    map.plain("tier", server.tier);
    map.done()
}

fn balance(balance: &Balance) -> Yaml {
    let mut map = Fields::default();
    match balance {
        Balance::RoundRobin => return text("round-robin"),
        Balance::Random => return text("random"),
        Balance::LeastRequests { choices: None } => return text("least-requests"),
        Balance::LeastRequests { choices: Some(choices) } => {
            map.add("by", text("least-requests"));
            map.plain("choices", choices);
        }
        Balance::LeastLatency => return text("least-latency"),
        Balance::IpHash => return text("ip-hash"),
        Balance::ConsistentHash { key, bound } => {
            map.add("by", text("consistent-hash"));
            map.add("key", hash_key(key));
            map.add("bound", bound.map_or_else(|| text("off"), percent));
        }
        Balance::Failover => return text("failover"),
    }
    map.done()
}

fn hash_key(key: &HashKey) -> Yaml {
    match key {
        HashKey::CacheKey => text("cache-key"),
        HashKey::Path => text("path"),
        HashKey::ClientIp => text("client-ip"),
        HashKey::Header(name) => Yaml::Map(vec![("header".to_owned(), text(name))]),
        HashKey::Cookie(name) => Yaml::Map(vec![("cookie".to_owned(), text(name))]),
    }
}

fn sticky(sticky: &Sticky) -> Yaml {
    let mut map = Fields::default();
    map.add("cookie", text(&sticky.cookie));
    map.add("secret", text(&sticky.secret.1));
    map.option("ttl", sticky.ttl.map(duration));
    map.done()
}

/// `tls`: whether the origin speaks it.
fn health_check(check: &HealthCheck, tls: bool) -> Yaml {
    let mut map = Fields::default();
    match &check.kind {
        HealthCheckKind::Tcp => {}
        HealthCheckKind::Http(probe) => {
            map.add("path", text(&probe.path));
            map.add("method", text(&probe.method));
            map.option("host", probe.host.as_ref().map(text));
            if !probe.headers.is_empty() {
                let headers = probe.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
                map.add("headers", Yaml::Map(headers));
            }
            map.add("expect_status", list(&probe.expect_status, statuses));
            map.option("expect_body", probe.expect_body.as_ref().map(text));
        }
        HealthCheckKind::Grpc { service } => map.add("grpc", text(service)),
    }
    if tls || !check.tls {
        map.add("tls", text(if check.tls { "on" } else { "off" }));
    }
    map.add("interval", duration(check.interval));
    map.add("interval_down", duration(check.interval_down));
    map.add("timeout", duration(check.timeout));
    map.add("jitter", percent(check.jitter));
    map.plain("healthy_after", check.healthy_after);
    map.plain("unhealthy_after", check.unhealthy_after);
    map.done()
}

fn outliers(outliers: &Outliers) -> Yaml {
    let mut map = Fields::default();
    let off = || text("off");
    map.add("consecutive_failures", outliers.consecutive_failures.map_or_else(off, |n| Yaml::Plain(n.to_string())));
    map.add("failure_rate", outliers.failure_rate.map_or_else(off, percent));
    map.add("latency", outliers.latency.map_or_else(off, duration));
    if outliers.failure_rate.is_some() || outliers.latency.is_some() {
        map.plain("min_requests", outliers.min_requests);
        map.add("window", duration(outliers.window));
    }
    if outliers.consecutive_failures.is_some() || outliers.failure_rate.is_some() {
        map.add("failure_statuses", list(&outliers.failure_statuses, statuses));
    }
    map.add("ejection_time", duration(outliers.ejection_time));
    map.add("max_ejection_time", duration(outliers.max_ejection_time));
    map.add("max_ejected", percent(outliers.max_ejected));
    map.done()
}

fn tls(tls: &OriginTls) -> Yaml {
    let mut map = Fields::default();
    map.plain("verify", tls.verify);
    map.option("ca", tls.ca.as_ref().map(|pem| path(&pem.path)));
    map.option("sni", tls.sni.as_ref().map(text));
    if let Some((certificate, key)) = &tls.certificate {
        map.add("certificate", path(&certificate.path));
        map.add("key", path(&key.path));
    }
    map.add(
        "min_version",
        text(match tls.min_version {
            TlsVersion::Tls12 => "1.2",
            TlsVersion::Tls13 => "1.3",
        }),
    );
    map.done()
}

fn retry(retry: &Retry) -> Yaml {
    let words = [("reset", retry.on_reset), ("timeout", retry.on_timeout)];
    let words = words.iter().filter(|(_, on)| *on).map(|(word, _)| text(word));
    let mut map = Fields::default();
    map.add("on", Yaml::List(words.chain(retry.on_statuses.iter().map(statuses)).collect()));
    map.add("budget", percent(retry.budget));
    map.plain("floor", retry.budget_floor);
    map.done()
}

fn limits(limits: &ServerLimits) -> Yaml {
    let mut map = Fields::default();
    if let Some(requests) = limits.requests {
        map.plain("requests", requests);
        map.plain("pending", limits.pending);
        if limits.pending > 0 {
            map.add("pending_timeout", duration(limits.pending_timeout));
        }
    }
    map.done()
}

/// A status or a range.
fn statuses(range: &(u16, u16)) -> Yaml {
    match range {
        (first, last) if first == last => Yaml::Plain(first.to_string()),
        (first, last) => text(format!("{first}-{last}")),
    }
}

fn percent(percent: impl std::fmt::Display) -> Yaml {
    text(format!("{percent}%"))
}
