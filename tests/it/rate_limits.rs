//! Who asks too much: rates, requests in flight, and how fast a response leaves.

use std::time::{Duration, Instant};

use crate::harness::{Ask, Edge, Gate, Metrics, Origin, Reply, eventually};
use crate::over::{BOTH, all};

/// An edge before an origin that has something to store, with further YAML of its site.
async fn edge(site: &str) -> (Origin, Edge) {
    let origin = Origin::start(|_| Reply::ok("a body").cache_control("max-age=600")).await;
    let edge = Edge::before(&origin, site).await;
    (origin, edge)
}

#[tokio::test]
async fn who_is_beyond_the_rate_is_rejected_and_told_so() {
    for over in BOTH {
        let (_origin, edge) = edge("rate_limit: { key: client-ip, rate: 2/d, burst: 2, name: api }").await;
        let mut client = over.connect(&edge).await;
        for _ in 0..2 {
            let response = client.get("/a").await;
            assert_eq!((response.status, response.header("RateLimit")), (200, None), "{over:?}");
        }
        let response = client.get("/a").await;
        assert_eq!(response.status, 429, "{over:?}: {response:?}");
        assert_eq!(response.header("RateLimit-Policy"), Some("\"api\";q=2;w=86400"));
        let seconds: u64 = response.header("Retry-After").expect("a time").parse().expect("seconds");
        assert!((43_000..=43_200).contains(&seconds), "{seconds}");
        let state = response.header("RateLimit").expect("a state");
        assert!(state.starts_with("\"api\";r=0;t=4"), "{state}");
        let rejected =
            |metrics: &Metrics| metrics.sum("foreland_rate_limited_total", &[("limit", "api"), ("action", "reject")]);
        edge.wait_metrics("the rejection", |metrics| rejected(metrics) == 1.0).await;
    }
}

#[tokio::test]
async fn a_limit_that_announces_itself_says_what_is_left() {
    for over in BOTH {
        let (_origin, edge) = edge("rate_limit: { rate: 10/d, burst: 10, name: x, announce: true }").await;
        let mut client = over.connect(&edge).await;
        // From the origin, and then from the store.
        for left in [9, 8] {
            let response = client.get("/a").await;
            assert_eq!(response.header("RateLimit-Policy"), Some("\"x\";q=10;w=86400"), "{over:?}");
            let state = response.header("RateLimit").expect("a state");
            assert!(state.starts_with(&format!("\"x\";r={left};t=")), "{state} over {over:?}");
        }
    }
}

#[tokio::test]
async fn keys_count_apart_and_routes_have_limits_of_their_own() {
    let site = "rate_limit: { key: \"header:x-user\", rate: 1/d, burst: 1 }\n\
                routes:\n  - name: open\n    match: { path: \"/open/*\" }\n    rate_limit: off";
    let (_origin, edge) = edge(site).await;
    let by = async |target: &str, user: &str| edge.ask(&Ask::get(target).header("X-User", user)).await.status;
    assert_eq!((by("/a", "u").await, by("/b", "u").await), (200, 429));
    assert_eq!((by("/a", "v").await, by("/b", "v").await), (200, 429));
    for _ in 0..3 {
        assert_eq!(by("/open/a", "u").await, 200);
    }
}

#[tokio::test]
async fn a_request_that_a_later_limit_rejects_has_cost_nothing() {
    let site = "rate_limit:\n  - { name: wide, key: all, rate: 3/d, burst: 3 }\n  \
                - { name: narrow, key: \"header:x-user\", rate: 1/d, burst: 1 }";
    let (_origin, edge) = edge(site).await;
    let by = async |user: &str| edge.ask(&Ask::get("/a").header("X-User", user)).await.status;
    assert_eq!(by("u").await, 200);
    for _ in 0..5 {
        assert_eq!(by("u").await, 429);
    }
    assert_eq!((by("v").await, by("w").await, by("x").await), (200, 200, 429));
}

#[tokio::test]
async fn what_is_delayed_comes_late_and_what_is_logged_comes_at_once() {
    let (_origin, edge) = edge("rate_limit: { rate: 5/s, burst: 1, action: delay, max_delay: 500ms }").await;
    let began = Instant::now();
    let mut statuses = all((0..5).map(|_| edge.get("/a"))).await.iter().map(|r| r.status).collect::<Vec<_>>();
    statuses.sort_unstable();
    assert!(statuses.starts_with(&[200, 200, 200]) && statuses.ends_with(&[429]), "{statuses:?}");
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());

    let (_origin, edge) = self::edge("rate_limit: { rate: 1/d, burst: 1, action: log, name: seen }").await;
    for _ in 0..3 {
        assert_eq!(edge.get("/a").await.status, 200);
    }
    let logged =
        |metrics: &Metrics| metrics.sum("foreland_rate_limited_total", &[("limit", "seen"), ("action", "log")]);
    edge.wait_metrics("what is only logged", |metrics| logged(metrics) == 2.0).await;
}

#[tokio::test]
async fn a_reload_forgets_nothing() {
    let origin = Origin::start(|_| Reply::ok("a body")).await;
    let yaml = Edge::yaml_before(&[&origin], "rate_limit: { rate: 2/d, burst: 2 }");
    let edge = Edge::start(&yaml).await;
    assert_eq!((edge.get("/a").await.status, edge.get("/a").await.status), (200, 200));
    edge.write_config(&format!("{yaml}# Another text.\n"));
    edge.signal(rustix::process::Signal::HUP);
    let reloads = |metrics: &Metrics| metrics.sum("foreland_config_reloads_total", &[("result", "ok")]);
    edge.wait_metrics("the reload", |metrics| reloads(metrics) == 1.0).await;
    assert_eq!(edge.get("/a").await.status, 429);
}

#[tokio::test]
async fn as_many_requests_are_in_flight_as_may_be() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |_| Reply::ok("late").cache_control("no-store").hold(&at)).await;
    let edge = Edge::before(&origin, "concurrency_limit: { key: client-ip, requests: 2 }").await;
    let (one, two, refused) = tokio::join!(edge.get("/a"), edge.get("/b"), async {
        gate.reached(2).await;
        let refused = edge.get("/c").await;
        gate.open();
        refused
    });
    assert_eq!((one.status, two.status), (200, 200));
    assert_eq!(refused.status, 429);
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
    eventually("their places to be free again", async || edge.get("/d").await.status == 200).await;
}

const MIB: usize = 1024 * 1024;

/// Half a MiB leaves at once, and the other half in a quarter of a second.
const PACED: &str = "bandwidth: { rate: 2MiB/s, after: 512KiB }";

/// Fewer milliseconds than it takes: a burst of a tenth of a second is allowed.
const TAKES: u128 = 100;

#[tokio::test]
async fn a_response_leaves_no_faster_than_it_may() {
    for over in BOTH {
        for (what, cached) in [("from the store", "max-age=600"), ("as it comes", "no-store")] {
            let origin = Origin::start(move |_| Reply::ok(vec![b'z'; MIB]).cache_control(cached)).await;
            let edge = Edge::before(&origin, PACED).await;
            for which in ["first", "second"] {
                let began = Instant::now();
                let response = over.get(&edge, "/a").await;
                let took = began.elapsed().as_millis();
                assert_eq!((response.status, response.body.len()), (200, MIB), "{what} over {over:?}");
                assert!(took >= TAKES, "{what}, the {which}, over {over:?}: {took} ms");
            }
        }
    }
}

#[tokio::test]
async fn a_response_on_the_disk_leaves_no_faster_either() {
    let origin = Origin::start(|_| Reply::ok(vec![b'z'; MIB]).cache_control("max-age=600")).await;
    let yaml = Edge::yaml_before(&[&origin], PACED)
        + "cache:\n  memory: off\n  disk: { path: \"{dir}/cache\", size: 64MiB }\n";
    let edge = Edge::start(&yaml).await;
    edge.get("/a").await;
    eventually("a hit", async || edge.get("/a").await.is_hit()).await;
    let began = Instant::now();
    let hit = edge.get("/a").await;
    assert!(hit.is_hit() && hit.body.len() == MIB, "{hit:?}");
    assert!(began.elapsed().as_millis() >= TAKES, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_slow_response_holds_nobody_else_back() {
    let origin = Origin::start(|_| Reply::ok(vec![b'z'; 4 * MIB]).cache_control("max-age=600")).await;
    let site = "bandwidth: { rate: 16KiB/s }\nroutes:\n  - name: fast\n    match: { query: { fast: \"1\" } }\n    \
                bandwidth: off\n    cache: { key: { query: none } }\ncache: { key: { query: none } }";
    let large = "cache: { memory: { max_object: 8MiB } }\n";
    let edge = Edge::start(&(large.to_owned() + &Edge::yaml_before(&[&origin], site))).await;
    let mut slow = edge.connect().await;
    slow.send(Ask::get("/a").bytes()).await;
    slow.head("GET").await;
    // The same response, which the slow one fetches.
    let fast = edge.get("/a?fast=1").await;
    assert_eq!((fast.status, fast.body.len()), (200, 4 * MIB));
    assert_eq!(origin.count(), 1);
}
