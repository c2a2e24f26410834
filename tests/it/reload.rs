//! HUP: the new file is checked in full, then put in force for the requests that begin from then on.

use std::time::Duration;

use rustix::process::Signal;

use super::harness::{Ask, Edge, Gate, Metrics, Origin, Reply, eventually};
use super::load::{Load, Manner, echo};

fn reloads(metrics: &Metrics, result: &str) -> f64 {
    metrics.sum("foreland_config_reloads_total", &[("result", result)])
}

/// Sends HUP, and waits until this many reloads have had this result.
async fn hup(edge: &Edge, result: &str, n: usize) {
    edge.signal(Signal::HUP);
    edge.wait_metrics(&format!("{n} reloads: {result}"), |m| reloads(m, result) == n as f64).await;
}

/// The hash of the configuration in force.
async fn hash(edge: &Edge) -> String {
    let hash = edge.admin_get("/v1/config").await.json()["hash"].as_str().expect("a hash").to_owned();
    let metric = format!("foreland_config_info{{hash=\"{hash}\"}}");
    assert_eq!(edge.metrics().await.metric(&metric), Some(1.0), "{metric}");
    assert_eq!(edge.metrics().await.sum("foreland_config_info", &[]), 1.0);
    hash
}

#[tokio::test]
async fn new_routes_and_hosts_apply_to_new_requests() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::before(&origin, "").await;
    let ask = Ask::get("/a").host("new.test");
    assert_eq!(edge.ask(&ask).await.status, 200);
    let before = hash(&edge).await;
    let yaml =
        Edge::yaml_before(&[&origin], "routes:\n  - { name: fresh, match: { path: \"/a\" }, cache: { ttl: 1m } }")
            .replace("\"*\"", "new.test");
    edge.write_config(&yaml);
    assert_eq!(edge.ask(&Ask::get("/b").host("old.test")).await.status, 200, "nothing changes before HUP");
    hup(&edge, "ok", 1).await;
    assert_eq!(edge.ask(&Ask::get("/b").host("old.test")).await.status, 421);
    assert!(!edge.ask(&ask).await.is_hit());
    assert!(edge.ask(&ask).await.is_hit(), "the new route has a lifetime");
    assert_ne!(hash(&edge).await, before);
    edge.wait_log("reloaded").await;
}

#[tokio::test]
async fn a_kept_connection_gets_the_new_settings_with_its_next_request() {
    let (old, new) = (Origin::start(|_| Reply::ok("old")).await, Origin::start(|_| Reply::ok("new")).await);
    let edge = Edge::before(&old, "cache: off").await;
    let mut client = edge.connect().await;
    let h2 = edge.connect_h2().await;
    assert_eq!(client.ask(&Ask::get("/")).await.text(), "old");
    assert_eq!(h2.ask(&Ask::get("/")).await.text(), "old");
    edge.write_config(&Edge::yaml_before(&[&new], "cache: off"));
    hup(&edge, "ok", 1).await;
    assert_eq!(client.ask(&Ask::get("/")).await.text(), "new");
    assert_eq!(h2.ask(&Ask::get("/")).await.text(), "new");
}

#[tokio::test]
async fn what_was_stored_stays_stored() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=600")).await;
    let edge = Edge::before(&origin, "").await;
    assert_eq!(edge.get("/a").await.text(), "x");
    edge.write_config(&Edge::yaml_before(&[&origin], "cache: { stale_if_error: 1h }"));
    hup(&edge, "ok", 1).await;
    assert!(edge.get("/a").await.is_hit());
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_request_in_flight_keeps_what_it_began_with() {
    let gate = Gate::new();
    let reply = Reply::ok("old").hold(&gate);
    let (old, new) = (Origin::start(move |_| reply.clone()).await, Origin::start(|_| Reply::ok("new")).await);
    let route = |name: &str, ttl: &str| format!("routes:\n  - {{ name: {name}, match: {{ path: /a }}, cache: {ttl} }}");
    let edge = Edge::before(&old, &route("before", "{ ttl: 1m }")).await;
    let mut client = edge.connect().await;
    client.send(Ask::get("/a").bytes()).await;
    gate.reached(1).await;
    edge.write_config(&Edge::yaml_before(&[&new], &route("after", "off")));
    hup(&edge, "ok", 1).await;
    assert_eq!(edge.get("/a").await.text(), "new");
    gate.open();
    let response = client.response("GET").await;
    assert_eq!(response.text(), "old");
    assert!(response.cache_status().contains("stored"), "as the old route says: {}", response.cache_status());
    let log = edge.access_log_lines(2).await;
    let route_of = |bytes: &str| {
        let server = if bytes == "old" { old.address() } else { new.address() }.to_string();
        log.iter().find(|r| r["server"] == server).expect("a record")["route"].clone()
    };
    assert_eq!((route_of("old"), route_of("new")), ("before".into(), "after".into()));
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_why() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::before(&origin, "cache: { ttl: 1m }").await;
    let before = hash(&edge).await;
    edge.write_config(&Edge::yaml_before(&[&origin], "cache: { tll: 1m }\norigin: nowhere\nroutes: 7"));
    hup(&edge, "failed", 1).await;
    edge.wait_log("cannot be put in force").await;
    let log = edge.log();
    // Each of the three, with its place.
    for wanted in ["foreland.yaml:7:", "foreland.yaml:8:", "sites[0].cache", "tll", "sites[0].routes"] {
        assert!(log.contains(wanted), "{wanted:?} in {log}");
    }
    assert_eq!(hash(&edge).await, before);
    assert!(!edge.get("/a").await.is_hit());
    assert!(edge.get("/a").await.is_hit(), "the old settings are in force");

    // Nor does a file that is gone; and a good one heals it.
    std::fs::remove_file(edge.config_path()).expect("removed");
    hup(&edge, "failed", 2).await;
    assert!(edge.get("/a").await.is_hit());
    edge.write_config(&Edge::yaml_before(&[&origin], "cache: off"));
    hup(&edge, "ok", 1).await;
    assert!(!edge.get("/a").await.is_hit());
    assert_eq!(reloads(&edge.metrics().await, "failed"), 2.0);
}

#[tokio::test]
async fn what_only_a_restart_changes_is_named_each_time_until_then() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let yaml = Edge::yaml_before(&[&origin], "");
    let edge = Edge::start(&yaml).await;
    let more = "threads: 3\ncache: { memory: { size: 64MiB } }\npid_file: \"{dir}/pid\"\nlisteners:\n  - address: 127.0.0.1:{h2c}\n";
    edge.write_config(&(yaml.clone() + more));
    for n in 1..=2 {
        hup(&edge, "ok", n).await;
        let line = "only a restart puts in force: threads, pid_file, listeners, cache.memory.size";
        eventually("the names", async || edge.log().matches(line).count() == n).await;
    }
    assert_eq!(edge.get("/").await.status, 200, "the old listener goes on");
    edge.write_config(&yaml);
    hup(&edge, "ok", 3).await;
    assert_eq!(edge.log().matches("only a restart").count(), 2);
}

#[tokio::test]
async fn limits_and_drain_are_those_of_the_new_file() {
    let origin = Origin::start(|r| if r.path() == "/held" { Reply::never() } else { Reply::ok("x") }).await;
    let yaml = Edge::yaml_before(&[&origin], "");
    let edge = Edge::start(&(yaml.clone() + "drain: 10m\n")).await;
    let mut idle = edge.connect().await;
    assert_eq!(idle.ask(&Ask::get("/")).await.status, 200);
    edge.write_config(&(yaml + "drain: 100ms\nlimits: { idle_timeout: 200ms, uri_length: 32B }\n"));
    hup(&edge, "ok", 1).await;
    // Also for a connection that was open before.
    idle.closed().await;
    assert_eq!(edge.get(&format!("/{}", "a".repeat(40))).await.status, 414);
    let mut held = edge.connect().await;
    held.send(Ask::get("/held").bytes()).await;
    origin.wait_for(2).await;
    let began = std::time::Instant::now();
    edge.signal(Signal::TERM);
    edge.wait_exit().await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_new_access_log_takes_over() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let yaml = Edge::yaml_before(&[&origin], "");
    let edge = Edge::start(&yaml).await;
    assert_eq!(edge.get("/old").await.status, 200);
    // A line is written after its client has the answer.
    assert_eq!(edge.access_log_lines(1).await.len(), 1);
    edge.write_config(&(yaml.clone() + "access_log: { path: \"{dir}/new.log\", format: json }\n"));
    hup(&edge, "ok", 1).await;
    assert_eq!(edge.get("/new").await.status, 200);
    let file = edge.folder().join("new.log");
    let new = || std::fs::read_to_string(&file).unwrap_or_default();
    eventually("a line in the new log", async || new().ends_with('\n')).await;
    assert!(new().contains("\"/new\"") && !new().contains("\"/old\""));
    assert_eq!(edge.access_log_lines(1).await[0]["uri"], "/old");
    // One that cannot be opened is a mistake like any other.
    edge.write_config(&(yaml + "access_log: { path: /dev/null/log, format: json }\nlimits: { uri_length: 32B }\n"));
    hup(&edge, "failed", 1).await;
    edge.wait_log("/dev/null/log").await;
    assert_eq!(edge.get(&format!("/{}", "a".repeat(40))).await.status, 200, "nothing of it is in force");
    eventually("the log goes on", async || new().lines().count() == 2).await;
}

#[tokio::test]
async fn twenty_reloads_under_load_fail_no_request() {
    let origin = echo().await;
    let yaml = |n: usize| {
        // Something changes everywhere: the site's settings, and with the origin's the pool.
        let text = Edge::yaml_before(
            &[&origin],
            &format!(
                "cache: {{ stale_if_error: {n}h }}\nroutes:\n  - {{ name: r{n}, match: {{ path: \"/passed\" }}, cache: {{ max_ttl: {n}s }} }}"
            ),
        );
        let check = if n.is_multiple_of(2) { "" } else { "    health_check: { interval: 1s, timeout: 1s }\n" };
        text.replace("sites:\n", &format!("{check}    read_timeout: {}s\nsites:\n", n + 10))
    };
    let edge = Edge::start(&yaml(0)).await;
    let load = Load::start(&edge, &[(8, Manner::Keepalive), (2, Manner::OneEach)]);
    for n in 1..=20 {
        load.more(20).await;
        edge.write_config(&yaml(n));
        hup(&edge, "ok", n).await;
    }
    load.more(50).await;
    let asked = load.finish().await;
    let metrics = edge.metrics().await;
    eventually("all counted", async || {
        let metrics = edge.metrics().await;
        metrics.sum("foreland_requests_total", &[("status", "2xx")]) == asked as f64
    })
    .await;
    assert_eq!(reloads(&metrics, "failed"), 0.0);
    // Old pools are not kept: one series for the server, and no more checks than one pool's.
    assert_eq!(metrics.sum("foreland_origin_server_up", &[]), 1.0);
}

#[tokio::test]
async fn reloads_from_both_sides_leave_the_last_file_in_force() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let yaml = |n: usize| Edge::yaml_before(&[&origin], &format!("name: s{n}"));
    let edge = Edge::start(&yaml(0)).await;
    for n in 1..=10 {
        edge.write_config(&yaml(n));
        edge.signal(Signal::HUP);
        let (a, b) = tokio::join!(edge.admin_post("/v1/reload", ""), edge.admin_post("/v1/reload", ""));
        assert_eq!((a.status, b.status), (200, 200));
        let (now, answered) = (edge.admin_get("/v1/config").await.json(), a.json());
        assert_eq!(now["hash"], answered["hash"], "round {n}");
    }
}
