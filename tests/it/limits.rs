//! What a client may send, and how slowly. Each limit is tried from both of its sides.

use std::time::Duration;

use bytes::Bytes;

use super::harness::{Ask, Connection, Edge, End, Gate, Origin, Reply, eventually};

/// How often a client that is slow on purpose sends its next byte.
const DRIP: Duration = Duration::from_millis(40);

async fn limited(origin: &Origin, limits: &str) -> Edge {
    Edge::start(&format!("{}limits: {{ {limits} }}\n", Edge::yaml_before(&[origin], ""))).await
}

async fn plain_origin() -> Origin {
    Origin::start(|_| Reply::ok("fine")).await
}

/// Asks over a connection of its own, and sees to it that a refusal ends the connection.
async fn status(edge: &Edge, ask: &Ask) -> u16 {
    let mut client = edge.connect().await;
    let response = client.ask(ask).await;
    if response.status != 200 {
        assert!(response.text().contains(&response.status.to_string()), "{response:?}");
        assert!(response.headers.lists("Connection", "close"), "{response:?}");
        assert_eq!(client.closed().await, (End::Clean, Vec::new()));
    }
    response.status
}

fn with_fields(count: usize) -> Ask {
    (0..count).fold(Ask::get("/"), |ask, n| ask.header(&format!("X-{n}"), "v"))
}

#[tokio::test]
async fn header_fields_are_counted() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "header_count: 10").await;
    // Host is one of them.
    assert_eq!(status(&edge, &with_fields(9)).await, 200);
    assert_eq!(status(&edge, &with_fields(10)).await, 431);
    assert_eq!(status(&edge, &with_fields(200)).await, 431);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_header_section_has_a_size() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "header_size: 2KiB").await;
    let with = |n: usize| Ask::get("/").header("X-Big", "x".repeat(n));
    assert_eq!(status(&edge, &with(1900)).await, 200);
    assert_eq!(status(&edge, &with(2048)).await, 431);
    assert_eq!(status(&edge, &with(100_000)).await, 431);
    let small = (0..90).fold(Ask::get("/"), |ask, n| ask.header(&format!("X-Field-{n:04}"), "0123456789"));
    assert_eq!(status(&edge, &small).await, 431);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn more_than_any_limit_allows_is_refused_too() {
    let origin = plain_origin().await;
    let edge = Edge::before(&origin, "").await;
    for ask in [with_fields(300), Ask::get(&format!("/{}", "x".repeat(70_000)))] {
        let mut client = edge.connect().await;
        client.send(ask.bytes()).await;
        let status = client.head("GET").await.status;
        assert!(matches!(status, 400 | 414 | 431), "{status}");
    }
    // Without an end: ended by the edge, sooner or later, and not read for ever.
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: edge.test\r\nX: ").await;
    let piece = [b'x'; 64 * 1024];
    let mut sent = 0usize;
    while client.try_send(piece).await.is_ok() {
        sent += piece.len();
        assert!(sent < 64 << 20, "the edge goes on reading a header section of {sent} bytes");
    }
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_target_has_a_length() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "uri_length: 100B").await;
    let with = |n: usize| Ask::get(&format!("/{}", "x".repeat(n - 1)));
    assert_eq!(status(&edge, &with(100)).await, 200);
    assert_eq!(status(&edge, &with(101)).await, 414);
    assert_eq!(status(&edge, &Ask::get(&format!("/?{}", "x".repeat(99)))).await, 414);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_body_has_a_size() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "body_size: 1KiB").await;
    let with = |n: usize| Ask::new("POST", "/").body(vec![b'x'; n]);
    assert_eq!(status(&edge, &with(1024)).await, 200);
    assert_eq!(status(&edge, &with(1025)).await, 413);
    // More than any buffer holds: a client that sends it all before it reads still gets to read the answer.
    assert_eq!(status(&edge, &with(16 << 20)).await, 413);
    assert_eq!(origin.count(), 1);
    // An announcement is enough.
    let mut client = edge.connect().await;
    client.send("PUT / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 1025\r\n\r\n").await;
    assert_eq!(client.response("PUT").await.status, 413);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_chunked_body_has_a_size() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "body_size: 1KiB").await;
    let chunk = |n: usize| format!("{n:x}\r\n{}\r\n", "x".repeat(n));
    let head = "POST / HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = edge.connect().await;
    client.send(format!("{head}{}{}0\r\n\r\n", chunk(600), chunk(424))).await;
    assert_eq!(client.response("POST").await.text(), "fine");
    client.send(format!("{head}{}", chunk(600))).await;
    origin.wait_for(2).await;
    client.send(chunk(425)).await;
    let response = client.response("POST").await;
    assert_eq!(response.status, 413);
    assert!(response.text().contains("body is too large"), "{response:?}");
    assert!(response.headers.lists("Connection", "close"), "{response:?}");
    client.closed().await;
    origin.wait_for_open(0).await;
    assert!(!origin.seen()[1].complete, "the origin must not take it for a whole request");
}

#[tokio::test]
async fn an_idle_connection_is_ended() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "idle_timeout: 300ms").await;
    let mut silent = edge.connect().await;
    let mut used = edge.connect().await;
    assert_eq!(used.ask(&Ask::get("/")).await.text(), "fine");
    for client in [&mut silent, &mut used] {
        assert_eq!(client.closed().await, (End::Clean, Vec::new()));
    }
}

#[tokio::test]
async fn a_header_section_must_come_in_time() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "header_timeout: 400ms, idle_timeout: 1h").await;
    let mut stuck = edge.connect().await;
    stuck.send("GET / HT").await;
    // One that sends a byte now and then is no better off: the whole section counts.
    let mut dripping = edge.connect().await;
    dripping.send("GET / HTTP/1.1\r\nHost: edge.test\r\nX-Slow: ").await;
    eventually("the end of a client that drips", async || {
        tokio::time::sleep(DRIP).await;
        dripping.try_send("x").await.is_err()
    })
    .await;
    let (_, sent) = stuck.closed().await;
    assert!(sent.is_empty() || sent.starts_with(b"HTTP/1.1 4"), "{sent:?}");
    // So is the header section of a later request on the same connection.
    let mut later = edge.connect().await;
    assert_eq!(later.ask(&Ask::get("/")).await.text(), "fine");
    later.send("G").await;
    later.closed().await;
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_request_that_is_served_is_not_idle() {
    let gate = Gate::new();
    let held = Reply::ok("slow").hold(&gate);
    let origin = Origin::start(move |_| held.clone()).await;
    let edge = limited(&origin, "header_timeout: 300ms, idle_timeout: 300ms").await;
    let mut busy = edge.connect().await;
    busy.send(Ask::get("/slow").bytes()).await;
    gate.reached(1).await;
    // Longer than both timeouts, as a connection that idles beside it proves.
    let mut idle = edge.connect().await;
    assert_eq!(idle.closed().await, (End::Clean, Vec::new()));
    gate.open();
    assert_eq!(busy.response("GET").await.text(), "slow");
}

#[tokio::test]
async fn a_body_must_come_in_time() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "body_timeout: 400ms").await;
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 10\r\n\r\nabc").await;
    let response = client.response("POST").await;
    assert_eq!(response.status, 408);
    assert!(response.headers.lists("Connection", "close"), "{response:?}");
    client.closed().await;
    origin.wait_for_open(0).await;
    assert!(origin.seen().iter().all(|r| !r.complete));
    // The pause counts, not the whole: 20 pieces take longer than one timeout.
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 20\r\n\r\n").await;
    for _ in 0..20 {
        tokio::time::sleep(DRIP).await;
        client.send("x").await;
    }
    assert_eq!(client.response("POST").await.text(), "fine");
}

#[tokio::test]
async fn a_client_that_never_reads_is_ended() {
    // More than the buffers of both kernels and the edge hold.
    let body = Bytes::from(vec![b'x'; 48 << 20]);
    let origin = Origin::start(move |_| Reply::ok(body.clone())).await;
    let edge = limited(&origin, "write_timeout: 500ms").await;
    let mut client = edge.connect().await;
    client.send(Ask::get("/").bytes()).await;
    let head = client.head("GET").await;
    // Both sides are given up.
    edge.wait_metrics("the client's connection is ended", |m| {
        m.metric("foreland_client_connections_open") == Some(0.0)
    })
    .await;
    origin.wait_for_open(0).await;
    assert_ne!(client.rest(head).await.end, End::Clean);
    assert_eq!(edge.access_log_lines(1).await[0]["status"], 200);
}

#[tokio::test]
async fn a_stream_that_never_reads_is_ended() {
    // More than a stream's window, so that the rest waits for the client; not more than is stored.
    let body = Bytes::from(vec![b'x'; 512 << 10]);
    let origin = Origin::start(move |r| {
        let reply = Reply::ok(body.clone());
        if r.path() == "/passed" { reply.cache_control("no-store") } else { reply.cache_control("max-age=60") }
    })
    .await;
    let edge = limited(&origin, "write_timeout: 500ms").await;
    edge.get("/hit").await;
    assert!(edge.get("/hit").await.is_hit());
    for target in ["/hit", "/miss", "/passed"] {
        let client = edge.connect_h2().await;
        let stalled = client.start(&Ask::get(target)).await;
        if target == "/miss" {
            // Whoever follows the same fill is served.
            let follower = edge.get(target).await;
            assert_eq!((follower.body.len(), follower.end), (512 << 10, End::Clean));
        }
        edge.wait_metrics(&format!("the end of the stream for {target}"), |m| {
            m.sum("foreland_requests_in_flight", &[]) == 0.0
        })
        .await;
        assert_ne!(stalled.rest().await.end, End::Clean, "{target}");
        // The connection is as good as before, for streams that do read.
        assert_eq!(client.ask(&Ask::get("/hit")).await.body.len(), 512 << 10, "{target}");
    }
}

#[tokio::test]
async fn connections_are_counted() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "connections: 2").await;
    // The start tried whether the edge accepts: that connection has come and gone.
    edge.wait_metrics("no connection is left from the start", |m| {
        m.metric("foreland_client_connections_accepted_total") == Some(1.0)
            && m.metric("foreland_client_connections_open") == Some(0.0)
    })
    .await;
    let refused = "foreland_client_connections_refused_total{reason=\"total\"}";
    let before = edge.metrics().await.metric(refused).unwrap_or_default();
    let (mut one, mut two) = (edge.connect().await, edge.connect().await);
    for client in [&mut one, &mut two] {
        assert_eq!(client.ask(&Ask::get("/")).await.text(), "fine");
    }
    let mut three = edge.connect().await;
    assert_eq!(three.closed().await.1, b"");
    assert_eq!(edge.metrics().await.metric(refused), Some(before + 1.0));
    // Those that are in are not disturbed, and a place that is left is taken.
    assert_eq!(one.ask(&Ask::get("/")).await.text(), "fine");
    drop(two);
    eventually("a place", async || {
        let mut client = Connection::open(edge.address()).await;
        client.try_send(Ask::get("/").bytes()).await.is_ok() && client.try_head("GET").await.is_some()
    })
    .await;
}
