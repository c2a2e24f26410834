//! Origins that refuse, reset, stall, lie or close; and the connections to them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::harness::{Ask, Edge, End, Gate, Metrics, Origin, Port, Reply, Response};

/// An edge before a pool with these servers; `settings` are further keys of the pool, `{ … }` without the braces.
async fn pool(servers: &[&str], settings: &str) -> Edge {
    let servers = servers.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
    let yaml = format!(
        "origins: {{ o: {{ servers: [{servers}]{}{settings} }} }}\nsites: [{{ hosts: [\"*\"], origin: o, cache: off }}]\n",
        if settings.is_empty() { "" } else { ", " }
    );
    Edge::start(&yaml).await
}

/// Asks, and sees to it that what the answer says of the connection is true.
async fn answer(edge: &Edge, path: &str) -> Response {
    let mut client = edge.connect().await;
    let response = client.ask(&Ask::get(path)).await;
    if response.headers.lists("Connection", "close") {
        assert_eq!(client.closed().await, (End::Clean, Vec::new()), "{response:?}");
    } else {
        client.ask(&Ask::get(path)).await;
    }
    response
}

fn retries(metrics: &Metrics) -> f64 {
    metrics.sum("foreland_origin_retries_total", &[("origin", "o")])
}

fn failures(metrics: &Metrics, kind: &str) -> f64 {
    metrics.sum("foreland_origin_failures_total", &[("origin", "o"), ("kind", kind)])
}

#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere() {
    let (dead, origin) = (Port::reserve(), Origin::start(|_| Reply::ok("alive")).await);
    let edge = pool(&[&dead.address().to_string(), &origin.address().to_string()], "").await;
    // Every other request has its turn at the dead server first. Nothing has been sent, so a POST may go on too.
    for _ in 0..2 {
        assert_eq!(edge.get("/").await.text(), "alive");
        assert_eq!(edge.ask(&Ask::new("POST", "/").body("x")).await.text(), "alive");
    }
    let metrics = edge.metrics().await;
    assert_eq!((retries(&metrics), failures(&metrics, "connect")), (2.0, 2.0));
    let lines = edge.access_log_lines(4).await;
    assert_eq!(lines.iter().filter(|l| l["retries"] == 1).count(), 2, "{lines:?}");
}

#[tokio::test]
async fn a_lost_connection_is_tried_again_where_that_is_safe() {
    for loss in [Reply::rst(), Reply::hang_up()] {
        let bad = Origin::start(move |_| loss.clone()).await;
        let good = Origin::start(|r| Reply::ok(format!("{} {}", r.method, r.body.len()))).await;
        let edge = pool(&[&bad.address().to_string(), &good.address().to_string()], "").await;
        // Pairs of requests: one of each has its turn at the bad server first.
        for _ in 0..2 {
            assert_eq!(edge.get("/").await.text(), "GET 0");
            // The body goes along.
            assert_eq!(edge.ask(&Ask::new("PUT", "/").body("12345")).await.text(), "PUT 5");
            // The turns of the pool: after three requests, the next one's begins at the other server.
            assert_eq!(edge.ask(&Ask::new("DELETE", "/")).await.text(), "DELETE 0");
        }
        assert!(bad.count() >= 2, "{}", bad.count());
        assert_eq!(retries(&edge.metrics().await), bad.count() as f64);
        // A POST may have had its effect: exactly one server is asked, and the client is told.
        let before = (bad.count(), good.count());
        let statuses: Vec<u16> = vec![
            edge.ask(&Ask::new("POST", "/").body("x")).await.status,
            edge.ask(&Ask::new("POST", "/").body("x")).await.status,
        ];
        assert_eq!(statuses.iter().collect::<HashSet<_>>(), HashSet::from([&200, &502]), "{statuses:?}");
        assert_eq!((bad.count(), good.count()), (before.0 + 1, before.1 + 1));
    }
}

#[tokio::test]
async fn retries_have_a_limit() {
    let origins = [Origin::start(|_| Reply::rst()).await, Origin::start(|_| Reply::rst()).await];
    let addresses: Vec<_> = origins.iter().map(|o| o.address().to_string()).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let edge = pool(&addresses, "retries: 0").await;
    let response = edge.get("/").await;
    assert_eq!((response.status, origins[0].count() + origins[1].count()), (502, 1));
    assert_eq!(retries(&edge.metrics().await), 0.0);
    // Each server once, however many tries there might be.
    let edge = pool(&addresses, "retries: 16").await;
    assert_eq!(edge.get("/").await.status, 502);
    assert_eq!(origins[0].count() + origins[1].count(), 3);
}

#[tokio::test]
async fn when_all_is_down_the_client_is_told_why() {
    let (one, two) = (Port::reserve(), Port::reserve());
    let edge = pool(&[&one.address().to_string(), &two.address().to_string()], "").await;
    for _ in 0..2 {
        let response = answer(&edge, "/").await;
        assert_eq!(response.status, 502);
        assert!(response.text().contains("The origin could not be reached."), "{response:?}");
        assert!(!response.text().contains("127.0.0.1"), "the inside is not the client's business: {response:?}");
        assert_eq!(response.header("Content-Type"), Some("text/plain; charset=utf-8"));
        assert_eq!(response.header("Cache-Control"), Some("no-store"));
        assert!(response.cache_status().starts_with("Foreland"), "{response:?}");
        assert!(!response.is_hit());
    }
    let line = &edge.access_log_lines(2).await[0];
    assert_eq!((&line["status"], &line["retries"]), (&502.into(), &1.into()));
    // The operator learns what the client does not.
    let detail = line["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("127.0.0.1") || detail.to_ascii_lowercase().contains("refused"), "{line}");
    assert_eq!(failures(&edge.metrics().await, "connect"), 4.0);
}

#[tokio::test]
async fn an_origin_that_is_too_slow() {
    let gate = Gate::new();
    let half = Reply::ok("half").wait(&gate).body("rest");
    let origin = Origin::start(move |r| if r.path() == "/half" { half.clone() } else { Reply::never() }).await;
    let edge = pool(&[&origin.address().to_string()], "read_timeout: 300ms").await;
    let response = edge.get("/never").await;
    assert_eq!(response.status, 504);
    assert!(response.text().contains("did not answer in time"), "{response:?}");
    // It may well be at work: it is not asked again.
    assert_eq!(origin.count(), 1);
    // Once an answer has begun, its end is an error and not a shorter answer.
    let response = edge.get("/half").await;
    assert_eq!((response.status, &*response.body), (200, &b"half"[..]));
    assert_ne!(response.end, End::Clean);
    assert_eq!(failures(&edge.metrics().await, "timeout"), 2.0);
}

#[tokio::test]
async fn an_answer_that_is_cut_is_no_whole_answer() {
    let origin = Origin::start(|r| match r.path() {
        "/short" => Reply::ok("abc").claim_length(10).cut(),
        "/chunked" => Reply::ok("abc").chunked().cut(),
        "/reset" => Reply::ok("abc").claim_length(10).reset(),
        "/bad-chunk" => Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n"),
        _ => Reply::ok("whole"),
    })
    .await;
    let edge = pool(&[&origin.address().to_string()], "").await;
    for path in ["/short", "/chunked", "/reset", "/bad-chunk"] {
        let mut client = edge.connect().await;
        client.send(Ask::get(path).bytes()).await;
        // Where nothing of it had left yet, an error is as good.
        if let Some(head) = client.try_head("GET").await {
            let response = client.rest(head).await;
            assert!(response.status == 502 || response.end != End::Clean, "{path}: {response:?}");
        }
    }
    assert_eq!(edge.get("/").await.text(), "whole");
}

#[tokio::test]
async fn an_answer_that_is_no_http() {
    let origin = Origin::start(|r| match r.path() {
        "/ssh" => Reply::raw("SSH-2.0-OpenSSH_9.6\r\n"),
        "/status" => Reply::raw("HTTP/1.1 banana OK\r\n\r\n"),
        "/two-lengths" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        "/length" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nab"),
        _ => Reply::ok("fine"),
    })
    .await;
    let edge = pool(&[&origin.address().to_string()], "").await;
    for path in ["/ssh", "/status", "/two-lengths", "/length"] {
        let response = answer(&edge, path).await;
        assert_eq!(response.status, 502, "{path}: {response:?}");
        assert!(response.text().contains("502 Bad Gateway"), "{path}: {response:?}");
    }
    assert_eq!(answer(&edge, "/").await.text(), "fine");
}

#[tokio::test]
async fn connections_are_reused() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = pool(&[&origin.address().to_string()], "").await;
    // One client: the connection to the origin is free again before its next request is read.
    let mut client = edge.connect().await;
    for n in 0..5 {
        let ask = if n % 2 == 0 { Ask::get("/") } else { Ask::new("POST", "/").body("body") };
        assert_eq!(client.ask(&ask).await.text(), "x");
    }
    assert_eq!(origin.accepted(), 1);
    let metrics = edge.metrics().await;
    let taken = |kind| metrics.sum("foreland_origin_connections_total", &[("origin", "o"), ("kind", kind)]);
    assert_eq!(taken("reused"), 4.0);
    assert_eq!(metrics.sum("foreland_origin_connections_total", &[("origin", "o")]), 5.0);
}

#[tokio::test]
async fn an_unused_connection_is_closed_in_time() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = pool(&[&origin.address().to_string()], "idle_timeout: 300ms").await;
    assert_eq!(edge.get("/").await.text(), "x");
    origin.wait_for_open(0).await;
    assert_eq!(edge.get("/").await.text(), "x");
    assert_eq!(origin.accepted(), 2);
}

#[tokio::test]
async fn a_connection_that_says_close_is_not_kept() {
    let origin = Origin::start(|_| Reply::ok("x").close()).await;
    let edge = pool(&[&origin.address().to_string()], "").await;
    let mut client = edge.connect().await;
    for _ in 0..3 {
        let response = client.ask(&Ask::get("/")).await;
        assert_eq!(response.text(), "x");
        // What the origin says of its connection is not said of the client's.
        assert!(!response.headers.lists("Connection", "close"), "{response:?}");
    }
    assert_eq!(origin.accepted(), 3);
}

#[tokio::test]
async fn a_kept_connection_that_has_been_closed_is_no_error() {
    // The worst moment: the origin closes as the next request arrives.
    let used = Arc::new(Mutex::new(HashSet::new()));
    let origin = Origin::start(move |r| match used.lock().expect("no panic before").insert(r.connection) {
        true => Reply::ok("x"),
        false => Reply::hang_up(),
    })
    .await;
    let edge = pool(&[&origin.address().to_string()], "retries: 1").await;
    let mut client = edge.connect().await;
    for _ in 0..4 {
        assert_eq!(client.ask(&Ask::get("/")).await.text(), "x");
    }
    assert_eq!(origin.count(), 7);
    // What may have had its effect is not sent twice, and the server is in no disgrace.
    assert_eq!(client.ask(&Ask::new("POST", "/").body("x")).await.status, 502);
    assert_eq!(origin.count(), 8);
    // The likeliest moment: it closes in between, without a word.
    origin.answer(|_| Reply::ok("y").close_unsaid());
    for _ in 0..20 {
        assert_eq!(edge.get("/").await.text(), "y");
    }
}

#[tokio::test]
async fn any_number_of_kept_connections_may_have_been_closed() {
    let gate = Gate::new();
    let held = Reply::ok("x").hold(&gate);
    let origin = Origin::start(move |_| held.clone()).await;
    let edge = pool(&[&origin.address().to_string()], "retries: 1").await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = edge.connect().await;
        client.send(Ask::get("/").bytes()).await;
        clients.push(client);
    }
    gate.reached(4).await;
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response("GET").await.text(), "x");
        // The next answer on the same connection: the one to the origin has been given back.
        assert_eq!(client.ask(&Ask::get("/").host("no host")).await.status, 400);
    }
    // More than there are retries; each ends as a request comes.
    origin.answer(|r| if r.connection < 4 { Reply::hang_up() } else { Reply::ok("y") });
    assert_eq!(edge.get("/").await.text(), "y");
    assert_eq!((origin.count(), origin.accepted()), (4 + 4 + 1, 5));
}

#[tokio::test]
async fn a_whole_pool_of_closed_connections_is_no_error() {
    let gate = Gate::new();
    let held = Reply::ok("x").hold(&gate);
    let mut origin = Origin::start(move |_| held.clone()).await;
    let edge = pool(&[&origin.address().to_string()], "").await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = edge.connect().await;
        client.send(Ask::get("/").bytes()).await;
        clients.push(client);
    }
    gate.reached(8).await;
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response("GET").await.text(), "x");
    }
    assert_eq!(origin.accepted(), 8);
    // The server restarts: eight connections are kept, and not one of them is any good.
    origin.stop().await;
    origin.restart();
    for client in &mut clients {
        assert_eq!(client.ask(&Ask::get("/")).await.text(), "x");
    }
}
