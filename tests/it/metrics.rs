//! What the figures say after traffic.

use std::collections::BTreeSet;

use super::harness::{Ask, Authority, Edge, Gate, Metrics, Origin, Reply, eventually};

/// The names in the tables of docs/metrics.md.
fn documented() -> BTreeSet<&'static str> {
    include_str!("../../docs/metrics.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect()
}

/// The families of a scrape: what its `# TYPE` lines name.
async fn exposed(edge: &Edge) -> BTreeSet<String> {
    let response = edge.admin_get("/metrics").await;
    assert_eq!(response.header("Content-Type"), Some("text/plain; version=0.0.4"));
    let family = |line: &str| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned);
    response.text().lines().filter_map(family).collect()
}

fn requests(metrics: &Metrics, labels: &[(&str, &str)]) -> f64 {
    metrics.sum("foreland_requests_total", labels)
}

#[tokio::test]
async fn what_is_exposed_is_what_is_documented() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=60")).await;
    let disk = "cache: { disk: { path: \"{dir}/disk\", size: 16MiB } }\n";
    let listeners = "listeners:\n  - address: 127.0.0.1:{port}\n  - address: 127.0.0.1:{tls}\n    \
                     tls: { certificates: [{ certificate: a.pem, key: a.key }] }\n";
    let site = "rate_limit: { rate: 100/s, burst: 100 }\nconcurrency_limit: { requests: 100 }";
    let yaml = Edge::yaml_before(&[&origin], site) + disk + listeners;
    let identity = Authority::new("ca").issue(&["edge.test"]);
    let edge = Edge::builder(&yaml).identity("a", &identity).start().await;
    assert_eq!(edge.get("/a").await.status, 200);
    // Some appear with the first request, which is counted when it is over.
    edge.wait_metrics("a request", |m| requests(m, &[]) == 1.0).await;
    let (exposed, documented) = (exposed(&edge).await, documented());
    let unknown: Vec<_> = exposed.iter().filter(|name| !documented.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "exposed and not documented: {unknown:?}");
    let missing: Vec<_> = documented.iter().filter(|name| !exposed.contains(**name)).collect();
    assert!(missing.is_empty(), "documented and not exposed: {missing:?}");
}

#[tokio::test]
async fn requests_are_counted_by_site_status_and_cache() {
    let origin = Origin::start(|r| match r.path() {
        "/cached" => Reply::ok("12345").cache_control("max-age=60"),
        "/gone" => Reply::new(404).cache_control("no-store"),
        _ => Reply::new(500),
    })
    .await;
    let edge = Edge::before(&origin, "name: shop").await;
    let asks = [Ask::get("/cached"), Ask::get("/cached"), Ask::get("/gone"), Ask::new("POST", "/fails").body("abc")];
    for (n, ask) in (1..).zip(&asks) {
        edge.ask(ask).await;
        // Counted when it is over: from then on the origin's connection is free for the next.
        edge.wait_metrics("each request", |m| requests(m, &[]) == f64::from(n)).await;
    }
    let expected = [
        (r#"foreland_requests_total{site="shop",status="2xx",cache="miss"}"#, 1.0),
        (r#"foreland_requests_total{site="shop",status="2xx",cache="hit"}"#, 1.0),
        (r#"foreland_requests_total{site="shop",status="4xx",cache="miss"}"#, 1.0),
        (r#"foreland_requests_total{site="shop",status="5xx",cache="bypass"}"#, 1.0),
        (r#"foreland_request_duration_seconds_count{site="shop"}"#, 4.0),
        (r#"foreland_time_to_first_byte_seconds_count{site="shop"}"#, 4.0),
        (r#"foreland_response_bytes_total{site="shop"}"#, 10.0),
        (r#"foreland_request_bytes_total{site="shop"}"#, 3.0),
        (r#"foreland_requests_in_flight{site="shop"}"#, 0.0),
        (r#"foreland_origin_requests_total{origin="o",status="2xx"}"#, 1.0),
        (r#"foreland_origin_requests_total{origin="o",status="4xx"}"#, 1.0),
        (r#"foreland_origin_requests_total{origin="o",status="5xx"}"#, 1.0),
        (r#"foreland_origin_response_bytes_total{origin="o"}"#, 5.0),
        (r#"foreland_origin_connections_total{origin="o",kind="opened"}"#, 1.0),
        (r#"foreland_origin_connections_total{origin="o",kind="reused"}"#, 2.0),
        (r#"foreland_origin_connect_seconds_count{origin="o"}"#, 1.0),
        (r#"foreland_origin_first_byte_seconds_count{origin="o"}"#, 3.0),
    ];
    let text = edge.admin_get("/metrics").await;
    let metrics = Metrics::parse(text.text());
    for (series, value) in expected {
        assert_eq!(metrics.metric(series), Some(value), "{series}; there are:\n{}", text.text());
    }
}

#[tokio::test]
async fn the_cache_tells_what_it_holds() {
    let origin = Origin::start(|_| Reply::ok("x".repeat(1000)).cache_control("max-age=60")).await;
    let yaml = Edge::yaml_before(&[&origin], "") + "cache: { memory: { size: 1MiB, max_object: 64KiB } }\n";
    let edge = Edge::start(&yaml).await;
    let of = |m: &Metrics, name: &str| m.metric(&format!("foreland_cache_{name}{{tier=\"memory\"}}")).expect(name);
    let empty = edge.metrics().await;
    assert_eq!((of(&empty, "objects"), of(&empty, "bytes")), (0.0, 0.0));
    assert_eq!(of(&empty, "capacity_bytes"), f64::from(1 << 20));
    for n in 0..10 {
        assert_eq!(edge.get(&format!("/{n}")).await.status, 200);
    }
    edge.wait_metrics("ten objects", |m| of(m, "objects") == 10.0).await;
    let full = edge.metrics().await;
    // Metadata is included, and is not out of proportion.
    assert!((10_000.0..40_000.0).contains(&of(&full, "bytes")), "{}", of(&full, "bytes"));
    assert_eq!(of(&full, "evictions_total"), 0.0);
    assert_eq!(full.metric("foreland_cache_fills_in_progress"), Some(0.0));
}

#[tokio::test]
async fn what_is_in_progress_is_counted_up_and_down() {
    let gate = Gate::new();
    let reply = Reply::ok("first").wait(&gate).body("second").cache_control("max-age=60");
    let origin = Origin::start(move |_| reply.clone()).await;
    let edge = Edge::before(&origin, "name: shop").await;
    let mut client = edge.connect().await;
    client.send(Ask::get("/").bytes()).await;
    let head = client.head("GET").await;
    assert_eq!(client.bytes(5).await, b"first");
    let server = format!("{{origin=\"o\",server=\"{}\"}}", origin.address());
    let in_progress = |m: &Metrics| {
        [
            m.metric("foreland_requests_in_flight{site=\"shop\"}"),
            m.metric("foreland_cache_fills_in_progress"),
            m.metric(&format!("foreland_origin_server_requests_in_flight{server}")),
            m.metric("foreland_client_connections_open"),
        ]
    };
    edge.wait_metrics("one of each", |m| in_progress(m) == [Some(1.0); 4]).await;
    gate.open();
    client.rest(head).await;
    drop(client);
    edge.wait_metrics("none left", |m| in_progress(m) == [Some(0.0); 4]).await;
}

#[tokio::test]
async fn a_servers_health_is_seen() {
    let mut good = Origin::start(|_| Reply::new(204)).await;
    let bad = Origin::start(|_| Reply::new(503)).await;
    let check = "    panic_below: 0%\n    health_check: { path: /, interval: 50ms, timeout: 50ms, healthy_after: 1, unhealthy_after: 1 }\nsites:\n";
    let edge = Edge::start(&Edge::yaml_before(&[&good, &bad], "").replace("sites:\n", check)).await;
    let up = |m: &Metrics, origin: &Origin| {
        m.metric(&format!("foreland_origin_server_up{{origin=\"o\",server=\"{}\"}}", origin.address()))
    };
    edge.wait_metrics("one up", |m| (up(m, &good), up(m, &bad)) == (Some(1.0), Some(0.0))).await;
    good.stop().await;
    edge.wait_metrics("none up", |m| (up(m, &good), up(m, &bad)) == (Some(0.0), Some(0.0))).await;
    assert_eq!(edge.get("/").await.status, 503);
    let failed = r#"foreland_origin_failures_total{origin="o",kind="unavailable"}"#;
    assert_eq!(edge.metrics().await.metric(failed), Some(1.0));
    good.restart();
    edge.wait_metrics("up again", |m| up(m, &good) == Some(1.0)).await;
}

#[tokio::test]
async fn retries_and_failures_are_counted() {
    let mut dead = Origin::start(|_| Reply::new(204)).await;
    let good = Origin::start(|_| Reply::ok("x").cache_control("no-store")).await;
    dead.stop().await;
    let edge = Edge::start(&Edge::yaml_before(&[&dead, &good], "")).await;
    for _ in 0..4 {
        assert_eq!(edge.get("/").await.status, 200);
    }
    let metrics = edge.metrics().await;
    let retries = metrics.sum("foreland_origin_retries_total", &[("origin", "o")]);
    assert_eq!(retries, 2.0, "every other request begins at the dead one");
    assert_eq!(metrics.sum("foreland_origin_failures_total", &[("kind", "connect")]), retries);
}

#[tokio::test]
async fn each_server_has_its_figures_and_takes_them_along() {
    let good = Origin::start(|r| match r.path() {
        "/fails" => Reply::new(500),
        _ => Reply::ok("x").cache_control("no-store"),
    })
    .await;
    let mut dead = Origin::start(|_| Reply::new(204)).await;
    dead.stop().await;
    let edge = Edge::start(&Edge::yaml_before(&[&dead, &good], "")).await;
    for _ in 0..4 {
        assert_eq!(edge.get("/").await.status, 200);
    }
    assert_eq!(edge.get("/fails").await.status, 500);
    let of = |name: &str, server: &Origin, more: &str| {
        format!("foreland_origin_server_{name}{{origin=\"o\",server=\"{}\"{more}}}", server.address())
    };
    // The connection of the last answer is free a moment after its client has it.
    let idle = of("connections", &good, ",state=\"idle\"");
    edge.wait_metrics("an idle connection", |m| m.metric(&idle) == Some(1.0)).await;
    let metrics = edge.metrics().await;
    let expected = [
        (of("requests_total", &good, ",status=\"2xx\""), Some(4.0)),
        (of("requests_total", &good, ",status=\"5xx\""), Some(1.0)),
        (of("requests_total", &dead, ",status=\"2xx\""), None),
        (of("first_byte_seconds_count", &good, ""), Some(5.0)),
        (of("first_byte_seconds_count", &dead, ""), Some(0.0)),
        (of("failures_total", &good, ",kind=\"connect\""), Some(0.0)),
        (of("failures_total", &good, ",kind=\"timeout\""), Some(0.0)),
        (of("ejected", &dead, ""), Some(0.0)),
        (of("ejections_total", &dead, ""), Some(0.0)),
        (of("weight", &dead, ""), Some(1.0)),
        (of("connections", &good, ",state=\"open\""), Some(1.0)),
        (of("connections", &dead, ",state=\"open\""), Some(0.0)),
        ("foreland_origin_panicking{origin=\"o\"}".to_owned(), Some(0.0)),
        ("foreland_origin_pending{origin=\"o\"}".to_owned(), Some(0.0)),
    ];
    for (series, value) in expected {
        assert_eq!(metrics.metric(&series), value, "{series}");
    }
    let refused = metrics.metric(&of("failures_total", &dead, ",kind=\"connect\"")).expect("a figure");
    assert!(refused >= 2.0, "every other request begins at the dead one: {refused}");
    assert!(metrics.metric("foreland_origin_retry_budget{origin=\"o\"}").expect("a figure") > 0.0);

    edge.write_config(&Edge::yaml_before(&[&good], ""));
    edge.signal(rustix::process::Signal::HUP);
    let ok = "foreland_config_reloads_total{result=\"ok\"}";
    edge.wait_metrics("a reload", |m| m.metric(ok) == Some(1.0)).await;
    let text = edge.admin_get("/metrics").await;
    assert!(!text.text().contains(&dead.address().to_string()), "{}", text.text());
    let answers = of("requests_total", &good, ",status=\"2xx\"");
    assert_eq!(Metrics::parse(text.text()).metric(&answers), Some(4.0), "the one that stays goes on counting");
}

#[tokio::test]
async fn a_server_that_fails_requests_is_seen_to_be_ejected() {
    let good = Origin::start(|_| Reply::ok("x").cache_control("no-store")).await;
    let bad = Origin::start(|_| Reply::new(503)).await;
    let outliers = "    outliers: { consecutive_failures: 2, ejection_time: 5m }\nsites:\n";
    let edge = Edge::start(&Edge::yaml_before(&[&good, &bad], "").replace("sites:\n", outliers)).await;
    for _ in 0..4 {
        edge.get("/").await;
    }
    let of = |m: &Metrics, name: &str, server: &Origin| {
        m.metric(&format!("foreland_origin_server_{name}{{origin=\"o\",server=\"{}\"}}", server.address()))
    };
    let metrics = edge.metrics().await;
    for (name, good_has, bad_has) in [("up", 1.0, 0.0), ("ejected", 0.0, 1.0), ("ejections_total", 0.0, 1.0)] {
        assert_eq!((of(&metrics, name, &good), of(&metrics, name, &bad)), (Some(good_has), Some(bad_has)), "{name}");
    }
}

#[tokio::test]
async fn connections_are_counted() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let yaml = Edge::yaml_before(&[&origin], "") + "limits: { connections: 2, idle_timeout: 30s }\n";
    let edge = Edge::builder(&yaml).spawn();
    // Not `start`: its own look at the listener would count.
    edge.wait_log("listening on").await;
    let accepted = "foreland_client_connections_accepted_total";
    let before = edge.metrics().await.metric(accepted).expect("a figure");
    let (mut a, mut b) = (edge.connect().await, edge.connect().await);
    assert_eq!((a.ask(&Ask::get("/")).await.status, b.ask(&Ask::get("/")).await.status), (200, 200));
    let mut c = edge.connect().await;
    c.closed().await;
    let metrics = edge.metrics().await;
    assert_eq!(metrics.metric(accepted), Some(before + 2.0));
    assert_eq!(metrics.metric("foreland_client_connections_refused_total{reason=\"total\"}"), Some(1.0));
    assert_eq!(metrics.metric("foreland_client_connections_open"), Some(2.0));
    drop(a);
    edge.wait_metrics("one closed", |m| m.metric("foreland_client_connections_open") == Some(1.0)).await;
    drop(b);
    eventually("room again", async || edge.connect().await.ask(&Ask::get("/")).await.status == 200).await;
}

#[tokio::test]
async fn what_clients_make_up_makes_no_labels() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let yaml = Edge::yaml_before(&[&origin], "").replace("\"*\"", "known.test, \"*.wild.test\"");
    let edge = Edge::start(&yaml).await;
    assert_eq!(edge.ask(&Ask::get("/").host("known.test")).await.status, 200);
    let before = edge.admin_get("/metrics").await.text().lines().count();
    let mut client = edge.connect().await;
    for n in 0..50 {
        assert_eq!(client.ask(&Ask::get("/").host(&format!("made-up-{n}.test"))).await.status, 421);
        assert_eq!(client.ask(&Ask::get("/").host(&format!("made-up-{n}.wild.test"))).await.status, 200);
        client.ask(&Ask::new(&format!("MADE-UP-{n}"), "/").host("known.test")).await;
    }
    edge.wait_metrics("all of them", |m| requests(m, &[]) == 151.0).await;
    let text = edge.admin_get("/metrics").await;
    assert!(!text.text().to_lowercase().contains("made-up"), "{}", text.text());
    let metrics = Metrics::parse(text.text());
    assert_eq!(requests(&metrics, &[("site", "-"), ("status", "4xx")]), 50.0);
    assert_eq!(requests(&metrics, &[("site", "known.test")]), 101.0, "a site is called by its first host");
    let after = text.text().lines().count();
    assert!(after <= before + 5, "{before} lines became {after}");
}

#[tokio::test]
async fn the_build_says_what_is_running() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::before(&origin, "").await;
    let metrics = edge.metrics().await;
    assert_eq!(metrics.sum("foreland_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert!(metrics.metric("process_resident_memory_bytes").expect("a size") > 1e6);
    assert!(metrics.metric("process_open_fds").expect("a count") > 5.0);
    let loaded = metrics.metric("foreland_config_loaded_timestamp_seconds").expect("a time");
    assert!((loaded - metrics.metric("process_start_time_seconds").expect("a time")).abs() < 60.0);
}
