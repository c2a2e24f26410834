//! Which server of a pool is asked: weights, health, drains, names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::harness::{Ask, Edge, Origin, Reply, eventually};

/// A server that says its name, and is well for as long as the switch says so.
async fn server(name: &'static str) -> (Origin, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let switch = well.clone();
    let origin = Origin::start(move |r| match r.path() {
        "/healthz" if switch.load(Ordering::Relaxed) => Reply::ok("well"),
        "/healthz" => Reply::new(500),
        _ => Reply::ok(name),
    })
    .await;
    (origin, well)
}

/// An edge before a pool with these servers, as YAML, and further settings.
async fn pool(servers: &str, settings: &str) -> Edge {
    let origin = format!("origins:\n  o:\n    servers: [{servers}]\n{settings}");
    Edge::start(&format!("{origin}sites:\n  - {{ hosts: [\"*\"], origin: o, cache: off }}\n")).await
}

/// How often each server answers `n` requests; panics at one that fails.
async fn shares(edge: &Edge, n: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    let mut client = edge.connect().await;
    for _ in 0..n {
        let response = client.ask(&Ask::get("/")).await;
        assert_eq!(response.status, 200, "{response:?}");
        *shares.entry(response.text().to_owned()).or_default() += 1;
    }
    shares
}

fn share<const N: usize>(shares: [(&str, usize); N]) -> BTreeMap<String, usize> {
    shares.into_iter().map(|(name, n)| (name.to_owned(), n)).collect()
}

/// Waits until the metrics say that a server of the pool takes requests, or that it does not.
async fn wait_up(edge: &Edge, server: &Origin, up: bool) {
    let series = format!("foreland_origin_server_up{{origin=\"o\",server=\"{}\"}}", server.address());
    edge.wait_metrics(&format!("{series} is {up}"), |m| m.metric(&series) == Some(f64::from(u8::from(up)))).await;
}

#[tokio::test]
async fn weights_are_kept_exactly() {
    let ((a, _), (b, _), (c, _)) = (server("a").await, server("b").await, server("c").await);
    let servers = format!(
        "{{ address: \"{}\", weight: 3 }}, \"{}\", {{ address: \"{}\", weight: 0 }}",
        a.address(),
        b.address(),
        c.address()
    );
    let edge = pool(&servers, "").await;
    for _ in 0..2 {
        assert_eq!(shares(&edge, 8).await, share([("a", 6), ("b", 2)]));
    }
    assert_eq!(c.accepted(), 0);
}

#[tokio::test]
async fn a_failed_probe_takes_a_server_out_and_a_good_one_brings_it_back() {
    let ((a, _), (b, well)) = (server("a").await, server("b").await);
    let servers = format!("\"{}\", \"{}\"", a.address(), b.address());
    let check = "    health_check: { path: /healthz, host: probe.test, interval: 50ms, timeout: 50ms, \
                 unhealthy_after: 3, healthy_after: 2 }\n";
    let edge = pool(&servers, check).await;
    assert_eq!(shares(&edge, 4).await, share([("a", 2), ("b", 2)]));

    well.store(false, Ordering::Relaxed);
    wait_up(&edge, &b, false).await;
    assert_eq!(shares(&edge, 6).await, share([("a", 6)]));
    let probes = b.seen().into_iter().filter(|r| r.path() == "/healthz").collect::<Vec<_>>();
    assert!(probes.iter().all(|r| r.method == "GET" && r.header("Host") == Some("probe.test")), "{probes:?}");
    assert_eq!(edge.admin_get("/v1/origins").await.json()["origins"][0]["servers"][1]["healthy"], false);

    well.store(true, Ordering::Relaxed);
    wait_up(&edge, &b, true).await;
    assert_eq!(shares(&edge, 4).await, share([("a", 2), ("b", 2)]));
}

#[tokio::test]
async fn no_request_fails_while_a_server_goes() {
    let ((a, _), (mut b, _)) = (server("a").await, server("b").await);
    let servers = format!("\"{}\", \"{}\"", a.address(), b.address());
    // It is to be the probes that decide.
    let check = "    outliers: off\n    \
                 health_check: { interval: 50ms, timeout: 50ms, unhealthy_after: 2, healthy_after: 1 }\n";
    let edge = pool(&servers, check).await;
    shares(&edge, 4).await;
    b.stop().await;
    // Before the probes notice, while they do, and afterwards.
    assert_eq!(shares(&edge, 10).await, share([("a", 10)]));
    wait_up(&edge, &b, false).await;
    assert_eq!(shares(&edge, 4).await, share([("a", 4)]));
    b.restart();
    wait_up(&edge, &b, true).await;
    assert_eq!(shares(&edge, 4).await, share([("a", 2), ("b", 2)]));
}

#[tokio::test]
async fn without_a_healthy_server_the_client_is_told_when_to_come_back() {
    let (a, well) = server("a").await;
    well.store(false, Ordering::Relaxed);
    let check = "    health_check: { path: /healthz, interval: 50ms, timeout: 50ms, unhealthy_after: 1 }\n";
    let edge = pool(&format!("\"{}\"", a.address()), check).await;
    wait_up(&edge, &a, false).await;
    let response = edge.get("/").await;
    assert_eq!(response.status, 503);
    assert!(response.header("Retry-After").is_some_and(|s| s.parse::<u32>().is_ok()), "{response:?}");
    assert!(response.text().contains("No server of the origin is available."), "{response:?}");
    assert!(response.cache_status().contains("detail=local"), "{response:?}");
    assert!(a.seen().iter().all(|r| r.path() == "/healthz"));
    let unavailable = "foreland_origin_failures_total{origin=\"o\",kind=\"unavailable\"}";
    assert_eq!(edge.metrics().await.metric(unavailable), Some(1.0));
}

#[tokio::test]
async fn a_drained_server_gets_nothing() {
    let ((a, _), (b, _)) = (server("a").await, server("b").await);
    let edge = pool(&format!("\"{}\", \"{}\"", a.address(), b.address()), "").await;
    let control = |what: &str| format!("/v1/origins/o/servers/{}/{what}", b.address());
    assert_eq!(edge.admin_post(&control("drain"), "").await.status, 200);
    assert_eq!(shares(&edge, 6).await, share([("a", 6)]));
    assert_eq!(b.accepted(), 0);
    let drained = format!("foreland_origin_server_drained{{origin=\"o\",server=\"{}\"}}", b.address());
    assert_eq!(edge.metrics().await.metric(&drained), Some(1.0));
    assert_eq!(edge.admin_post(&control("undrain"), "").await.status, 200);
    assert_eq!(shares(&edge, 4).await, share([("a", 2), ("b", 2)]));
}

#[tokio::test]
async fn a_server_may_have_a_name() {
    let (a, _) = server("a").await;
    let edge = pool(&format!("\"localhost:{}\"", a.address().port()), "    host: server\n").await;
    assert_eq!(shares(&edge, 2).await, share([("a", 2)]));
    assert_eq!(a.seen()[0].header("Host"), Some(&*format!("localhost:{}", a.address().port())));
    let server = &edge.admin_get("/v1/origins").await.json()["origins"][0]["servers"][0];
    assert_eq!(server["server"], format!("localhost:{}", a.address().port()));
    assert_eq!(server["address"], a.address().to_string());
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_no_server() {
    let (a, _) = server("a").await;
    let edge = pool(&format!("\"name.invalid:80\", \"{}\"", a.address()), "").await;
    assert_eq!(shares(&edge, 4).await, share([("a", 4)]));
    eventually("the reason in the admin API", async || {
        edge.admin_get("/v1/origins").await.json()["origins"][0]["servers"][0]["last_error"]
            .as_str()
            .is_some_and(|e| e.contains("cannot be resolved"))
    })
    .await;
}
