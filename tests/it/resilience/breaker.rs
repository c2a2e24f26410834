//! Servers that have as much as they may.

use std::time::{Duration, Instant};

use super::{BOTH, Way, failures};
use crate::harness::{Ask, Connection, Edge, Gate, Metrics, Origin, Reply, Response, eventually};

/// A server that holds what is asked of it below `/held`.
async fn server(name: &'static str) -> (Origin, Gate) {
    let gate = Gate::new();
    let reply = Reply::ok(name).cache_control("no-store");
    let held = reply.clone().hold(&gate);
    let origin = Origin::start(move |r| if r.path().starts_with("/held") { held.clone() } else { reply.clone() }).await;
    (origin, gate)
}

/// A client that has asked and not been answered yet.
async fn asks(edge: &Edge, target: &str) -> Connection {
    let mut client = edge.connect().await;
    client.send(Ask::get(target).bytes()).await;
    client
}

fn is_refusal(response: &Response) -> bool {
    response.status == 503
        && response.header("Retry-After").is_some_and(|s| s.parse::<u32>().is_ok())
        && response.header("Cache-Control") == Some("no-store")
        && response.text().contains("The origin has as many requests as it can take.")
}

async fn wait_pending(edge: &Edge, n: f64) {
    edge.wait_metrics(&format!("{n} requests that wait"), |m| {
        m.sum("foreland_origin_pending", &[("origin", "o")]) == n
    })
    .await;
}

fn overloads(metrics: &Metrics) -> f64 {
    failures(metrics, "overloaded")
}

#[tokio::test]
async fn what_is_too_much_is_refused_at_once() {
    for way in BOTH {
        let (origin, gate) = server("x").await;
        let edge = way.pool(&[&origin], "limits: { requests: 1, pending: 0 }").await;
        let mut first = asks(&edge, "/held").await;
        gate.reached(1).await;
        let refused = edge.get("/other").await;
        assert!(is_refusal(&refused), "{way:?}: {refused:?}");
        assert!(refused.cache_status().contains("detail=local"), "{way:?}: {refused:?}");
        // A POST is no better off, and neither has got to the server.
        let refused = edge.ask(&Ask::new("POST", "/other").body("x")).await;
        assert!(is_refusal(&refused), "{way:?}: {refused:?}");
        assert_eq!(origin.count(), 1, "{way:?}");
        assert_eq!(overloads(&edge.metrics().await), 2.0, "{way:?}");
        let lines = edge.access_log_lines(2).await;
        let line = lines.iter().find(|l| l["method"] == "GET").expect("a line of each request");
        assert_eq!((&line["status"], &line["retries"]), (&503.into(), &0.into()), "{way:?}");
        let detail = line["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("as many requests as it may") && detail.contains("\"o\""), "{way:?}: {line}");
        // The place is free again with the end of the answer.
        gate.open();
        assert_eq!(first.response("GET").await.text(), "x", "{way:?}");
        eventually("a free place", async || edge.get("/again").await.status == 200).await;
    }
}

#[tokio::test]
async fn a_few_may_wait() {
    for way in BOTH {
        let (origin, gate) = server("x").await;
        let edge = way.pool(&[&origin], "limits: { requests: 1, pending: 1, pending_timeout: 60s }").await;
        let mut first = asks(&edge, "/held/1").await;
        gate.reached(1).await;
        // Of two, the one that comes second is refused, and at once.
        let (mut a, mut b) = (asks(&edge, "/2").await, asks(&edge, "/3").await);
        let (refused, mut waiting) = tokio::select! {
            response = a.response("GET") => (response, b),
            response = b.response("GET") => (response, a),
        };
        assert!(is_refusal(&refused), "{way:?}: {refused:?}");
        assert_eq!(origin.count(), 1, "{way:?}");
        gate.open();
        assert_eq!(first.response("GET").await.text(), "x", "{way:?}");
        assert_eq!(waiting.response("GET").await.text(), "x", "{way:?}");
        assert_eq!(overloads(&edge.metrics().await), 1.0, "{way:?}");
    }
}

#[tokio::test]
async fn nobody_waits_for_longer_than_allowed() {
    for way in BOTH {
        let (origin, gate) = server("x").await;
        let edge = way.pool(&[&origin], "limits: { requests: 1, pending: 5, pending_timeout: 300ms }").await;
        let mut first = asks(&edge, "/held").await;
        gate.reached(1).await;
        let began = Instant::now();
        let refused = edge.get("/other").await;
        assert!(is_refusal(&refused), "{way:?}: {refused:?}");
        assert!(began.elapsed() >= Duration::from_millis(300), "{way:?}: {:?}", began.elapsed());
        assert_eq!(origin.count(), 1, "{way:?}");
        gate.open();
        assert_eq!(first.response("GET").await.text(), "x", "{way:?}");
    }
}

#[tokio::test]
async fn a_client_that_no_longer_waits_takes_no_place() {
    // What might be stored is fetched all the same, for whoever asks next.
    let (origin, gate) = server("x").await;
    let edge = Way::Past.pool(&[&origin], "limits: { requests: 1, pending: 1, pending_timeout: 60s }").await;
    let mut first = asks(&edge, "/held").await;
    gate.reached(1).await;
    let gone = asks(&edge, "/gone").await;
    wait_pending(&edge, 1.0).await;
    gone.reset();
    wait_pending(&edge, 0.0).await;
    let mut next = asks(&edge, "/next").await;
    wait_pending(&edge, 1.0).await;
    gate.open();
    assert_eq!(first.response("GET").await.text(), "x");
    assert_eq!(next.response("GET").await.text(), "x");
    assert!(origin.seen().iter().all(|r| r.path() != "/gone"));
}

#[tokio::test]
async fn each_server_has_its_limit() {
    for way in BOTH {
        let ((one, first_gate), (two, second_gate)) = (server("one").await, server("two").await);
        let edge = way.pool(&[&one, &two], "limits: { requests: 2 }").await;
        let mut clients = Vec::new();
        for n in 0..4 {
            clients.push(asks(&edge, &format!("/held/{n}")).await);
        }
        first_gate.reached(2).await;
        second_gate.reached(2).await;
        assert!(is_refusal(&edge.get("/").await), "{way:?}");
        // Whoever has a place free takes the next ones, whoever's turn it were.
        first_gate.open();
        eventually("places at one of them", async || {
            let response = edge.get("/").await;
            response.status == 200 && response.text() == "one"
        })
        .await;
        for _ in 0..4 {
            let response = edge.get("/").await;
            assert!(is_refusal(&response) || response.text() == "one", "{way:?}: {response:?}");
        }
        second_gate.open();
        for client in &mut clients {
            assert_eq!(client.response("GET").await.status, 200, "{way:?}");
        }
        assert_eq!(two.count(), 2, "{way:?}");
    }
}

#[tokio::test]
async fn an_answer_takes_its_place_until_its_end() {
    for way in BOTH {
        let gate = Gate::new();
        let long = Reply::ok("begin").wait(&gate).body("end").cache_control("no-store");
        let origin = Origin::start(move |r| if r.path() == "/long" { long.clone() } else { Reply::ok("x") }).await;
        let edge = way.pool(&[&origin], "limits: { requests: 1 }").await;
        let mut client = asks(&edge, "/long").await;
        let head = client.head("GET").await;
        assert_eq!(client.bytes(5).await, b"begin");
        assert!(is_refusal(&edge.get("/other").await), "{way:?}");
        gate.open();
        assert_eq!(client.rest(head).await.text(), "end", "{way:?}");
        eventually("a free place", async || edge.get("/other").await.status == 200).await;
        if way == Way::Through {
            // What might be stored is fetched to its end.
            continue;
        }
        // A client that goes away gives its place back as well.
        let gate = Gate::new();
        let held = Reply::ok("x").hold(&gate);
        origin.answer(move |r| if r.path() == "/held" { held.clone() } else { Reply::ok("x") });
        let client = asks(&edge, "/held").await;
        gate.reached(1).await;
        client.reset();
        eventually("a free place", async || edge.get("/another").await.status == 200).await;
    }
}
