//! Origins: what their keys mean, and what holds without them.

use std::path::Path;
use std::time::Duration;

use super::{SMALL, environment, root};
use crate::config::model::{Balance, HashKey, HealthCheckKind, Origin, OriginHttp, Outliers, Retry, TlsVersion};
use crate::config::{from_bytes, needs_restart, parse};

/// An origin of one server with further keys.
fn origin(more: &str) -> Origin {
    let text = SMALL.replace("9000']}}", &format!("9000']{more}}}}}"));
    let config = from_bytes(text.as_bytes(), None, &root().join("tests/config"), &environment);
    Origin::clone(&config.unwrap_or_else(|e| panic!("{e}")).origins[0])
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let plain = origin("");
    assert_eq!(plain.retry, Retry::usual());
    assert_eq!(
        plain.outliers,
        Some(Outliers {
            consecutive_failures: Some(5),
            failure_rate: None,
            min_requests: 20,
            latency: None,
            window: Duration::from_secs(10),
            failure_statuses: vec![(502, 504)],
            ejection_time: Duration::from_secs(10),
            max_ejection_time: Duration::from_secs(300),
            max_ejected: 50,
        })
    );
    assert_eq!((plain.panic_below, plain.http, plain.tls.is_none()), (10, OriginHttp::Auto, true));
    let said = ", balance: round-robin, slow_start: 0s, outliers: {consecutive_failures: 5, failure_rate: off, \
                latency: off, failure_statuses: [502-504], ejection_time: 10s, max_ejection_time: 5m, \
                max_ejected: 50%}, panic_below: 10%, host: client, tls: off, http: auto, connect_timeout: 2s, \
                read_timeout: 30s, write_timeout: 30s, idle_timeout: 60s, keepalive: 64, retries: 2, \
                retry: {on: [reset], budget: 20%, floor: 10}, limits: {pending: 0}";
    assert_eq!(origin(said), plain);
    // What means the same in other words.
    assert_eq!(origin(", outliers: {}, tls: off, retry: {}, limits: {}, balance: {by: round-robin}"), plain);
}

#[test]
fn what_is_left_out_within_a_mapping_has_the_documented_default() {
    for (short, long) in [
        ("balance: consistent-hash", "balance: {by: consistent-hash, key: cache-key, bound: 125%}"),
        ("balance: least-requests", "balance: {by: least-requests}"),
        ("tls: on", "tls: {verify: true, min_version: \"1.2\"}"),
        ("tls: on", "tls: {}, streams: 100"),
        ("http: 2", "http: 2, streams: 100"),
        (
            "health_check: {}",
            "health_check: {tls: off, interval: 2s, interval_down: 2s, timeout: 1s, jitter: 10%, healthy_after: 2, \
             unhealthy_after: 2}",
        ),
        ("health_check: {path: /}", "health_check: {path: /, method: GET, expect_status: 200-299}"),
        ("outliers: {latency: 1s}", "outliers: {latency: 1s, min_requests: 20, window: 10s}"),
        ("sticky: {secret: env:DEPLOY_TOKEN}", "sticky: {secret: env:DEPLOY_TOKEN, cookie: foreland_server}"),
        ("limits: {requests: 5, pending: 1}", "limits: {requests: 5, pending: 1, pending_timeout: 1s}"),
        ("retry: {on: 502}", "retry: {on: [502-502]}"),
    ] {
        let (mut short, long) = (origin(&format!(", {short}")), origin(&format!(", {long}")));
        // Without TLS, `off` says no more than what is so.
        if let (Some(short), Some(long)) = (&mut short.health_check, &long.health_check) {
            short.tls = long.tls;
        }
        assert_eq!(short, long);
    }
}

#[test]
fn every_way_to_choose_a_server_can_be_said() {
    let hash = |key, bound| Balance::ConsistentHash { key, bound };
    for (text, balance) in [
        ("random", Balance::Random),
        ("least-requests", Balance::LeastRequests { choices: None }),
        ("{by: least-requests, choices: 3}", Balance::LeastRequests { choices: Some(3) }),
        ("least-latency", Balance::LeastLatency),
        ("ip-hash", Balance::IpHash),
        ("failover", Balance::Failover),
        ("{by: consistent-hash, key: path}", hash(HashKey::Path, Some(125))),
        ("{by: consistent-hash, key: client-ip, bound: off}", hash(HashKey::ClientIp, None)),
        ("{by: consistent-hash, key: {header: X-Tenant}}", hash(HashKey::Header("x-tenant".into()), Some(125))),
        ("{by: consistent-hash, key: {cookie: Id}, bound: 200%}", hash(HashKey::Cookie("Id".into()), Some(200))),
    ] {
        assert_eq!(origin(&format!(", balance: {text}")).balance, balance);
    }
}

/// That each key reaches the field that it is named after: the golden file tells no two of them apart that are printed
/// as they are read.
#[test]
fn keys_reach_their_fields() {
    let text = std::fs::read_to_string(root().join("tests/config/good/origins.yaml")).unwrap();
    let config = from_bytes(text.as_bytes(), None, &root().join("tests/config"), &environment).unwrap();
    let named = |name: &str| config.origins.iter().find(|origin| origin.name == name).unwrap();
    let origin = named("everything");
    let seconds = Duration::from_secs;
    assert_eq!(origin.servers_file.as_deref(), Some(&*root().join("tests/config/lists/servers.json")));
    let tiers: Vec<_> = origin.servers.iter().map(|server| (server.weight, server.tier)).collect();
    assert_eq!(tiers, [(1, 0), (256, 15), (0, 1), (1, 0), (1, 0), (1, 0), (1, 0)]);
    let sticky = origin.sticky.as_ref().unwrap();
    assert_eq!((sticky.cookie.as_str(), sticky.ttl), ("Server", Some(seconds(3600))));
    assert_eq!(sticky.secret.0, b"correct horse of the deployment");
    assert_eq!(origin.slow_start, seconds(30));
    let check = origin.health_check.as_ref().unwrap();
    assert_eq!((check.interval, check.interval_down, check.timeout), (seconds(5), seconds(1), seconds(1) / 2));
    assert_eq!((check.jitter, check.tls, check.healthy_after, check.unhealthy_after), (50, false, 1, 3));
    let HealthCheckKind::Http(probe) = &check.kind else { panic!("{check:?}") };
    assert_eq!((probe.method.as_str(), probe.path.as_str()), ("POST", "/healthz?full=1"));
    assert_eq!(probe.headers, [("authorization".into(), "Bearer a b".into()), ("x-empty".into(), String::new())]);
    assert_eq!(probe.expect_status, [(200, 200), (204, 206), (404, 404)]);
    assert_eq!(probe.expect_body.as_deref(), Some("\"status\": \"ok\""));
    let outliers = origin.outliers.as_ref().unwrap();
    assert_eq!((outliers.consecutive_failures, outliers.failure_rate), (Some(1000), Some(100)));
    assert_eq!((outliers.latency, outliers.window, outliers.min_requests), (Some(seconds(2)), seconds(600), 1));
    assert_eq!(outliers.failure_statuses, [(500, 500), (502, 599)]);
    assert_eq!((outliers.ejection_time, outliers.max_ejection_time), (seconds(60), seconds(60)));
    assert_eq!((outliers.max_ejected, origin.panic_below), (100, 0));
    let tls = origin.tls.as_ref().unwrap();
    assert_eq!((tls.sni.as_deref(), tls.min_version, tls.verify), (Some("app.internal"), TlsVersion::Tls13, true));
    assert_eq!(tls.ca.as_ref().unwrap().certificates.len(), 1);
    assert_eq!((origin.http, origin.streams, origin.keepalive), (OriginHttp::Http2, 1000, 0));
    assert_eq!((origin.try_timeout, origin.timeout), (Some(seconds(4)), Some(seconds(4))));
    let retry = &origin.retry;
    assert_eq!((retry.on_reset, retry.on_timeout, retry.budget, retry.budget_floor), (true, true, 1000, 0));
    assert_eq!((retry.on_statuses.as_slice(), origin.retries), (&[(425, 425), (502, 504)][..], 16));
    let limits = &origin.limits;
    assert_eq!((limits.requests, limits.pending), (Some(1_000_000), 100_000));
    assert_eq!((limits.pending_timeout, origin.hedge.as_ref().unwrap().after), (seconds(1) / 10, seconds(1) / 10));
    assert!(named("file").servers.is_empty() && named("word").outliers.is_none());
    assert_eq!(named("two").health_check.as_ref().unwrap().kind, HealthCheckKind::Grpc { service: "shop.Cart".into() });
    assert!(!named("random").retry.on_reset && !named("mapping").retry.on_reset);
}

#[test]
fn a_reload_applies_all_of_an_origin() {
    let text = SMALL.replace("9000']}", "9001'], balance: random, tls: on, limits: {requests: 1}}");
    let (old, new) = [SMALL, &text].map(|text| parse(text, None, Path::new("/")).unwrap()).into();
    assert!(needs_restart(&old, &new).is_empty());
}
