//! Attacks, on a small scale: each is ended, by what is to end it; who asks meanwhile is served; memory stays bounded.

mod frames;
mod http2;

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpSocket;

use super::harness::{Ask, Connection, Edge, End, Gate, Origin, Reply, eventually};

/// How often a client that is slow on purpose moves.
const DRIP: Duration = Duration::from_millis(30);

const CONNECTIONS_OPEN: &str = "foreland_client_connections_open";
const TIMED_OUT: &str = "foreland_client_connections_timed_out_total";

async fn limited(origin: &Origin, limits: &str) -> Edge {
    Edge::start(&format!("{}limits: {{ {limits} }}\n", Edge::yaml_before(&[origin], ""))).await
}

async fn plain_origin() -> Origin {
    Origin::start(|_| Reply::ok("fine").cache_control("max-age=60")).await
}

/// A client that does nothing wrong is served, in the cache and past it.
async fn serves(edge: &Edge) {
    assert_eq!(edge.get("/normal").await.text(), "fine");
    assert_eq!(edge.ask(&Ask::new("POST", "/normal").body("x")).await.text(), "fine");
}

/// Resident memory of the edge, in MiB.
fn memory(edge: &Edge) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", edge.pid().as_raw_nonzero())).expect("a running edge");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

/// Waits until all connections but so many of ours are gone.
async fn wait_for_open(edge: &Edge, count: f64) {
    edge.wait_metrics(&format!("{count} connections"), |m| m.metric(CONNECTIONS_OPEN) == Some(count)).await;
}

/// Both ends of each connection are ours and the edge's, which is a process of its own.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Sends `bytes` again and again on each of these, with pauses, until the edge has ended all of them; asks in between.
async fn drip(edge: &Edge, clients: &mut Vec<Connection>, bytes: &[u8]) {
    eventually("the end of all slow clients", async || {
        tokio::time::sleep(DRIP).await;
        serves(edge).await;
        let mut left = Vec::new();
        for mut client in clients.drain(..) {
            if client.try_send(bytes).await.is_ok() {
                left.push(client);
            }
        }
        *clients = left;
        clients.is_empty()
    })
    .await;
}

#[tokio::test]
async fn slowloris() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "header_timeout: 500ms, idle_timeout: 1h").await;
    let before = memory(&edge);
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = edge.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: edge.test\r\n").await;
        clients.push(client);
    }
    drip(&edge, &mut clients, b"X-A: b\r\n").await;
    wait_for_open(&edge, 0.0).await;
    assert_eq!(edge.metrics().await.metric(TIMED_OUT), Some(200.0));
    assert!(memory(&edge) < before + 32, "{} MiB, then {}", before, memory(&edge));
}

#[tokio::test]
async fn a_slow_body() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "body_timeout: 1s, body_min_rate: 1KiB/s, idle_timeout: 1h").await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = edge.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 100000\r\n\r\n").await;
        clients.push(client);
    }
    let mut one = edge.connect().await;
    one.send("POST / HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let answer = async {
        let response = one.response("POST").await;
        assert_eq!(response.status, 408);
        assert!(response.headers.lists("Connection", "close"), "{response:?}");
    };
    tokio::join!(answer, drip(&edge, &mut clients, b"x"));
    drop(one);
    wait_for_open(&edge, 0.0).await;
    edge.wait_metrics("nothing is left of them", |m| m.sum("foreland_requests_in_flight", &[]) == 0.0).await;
    assert!(origin.seen().iter().filter(|request| request.path() == "/").all(|request| !request.complete));
}

#[tokio::test]
async fn a_body_that_is_fast_enough_is_not_slow() {
    let gate = Gate::new();
    let held = Reply::ok("fine").hold(&gate);
    let origin = Origin::start(move |r| if r.path() == "/held" { held.clone() } else { Reply::ok("fine") }).await;
    let edge = limited(&origin, "body_timeout: 500ms, body_min_rate: 1KiB/s").await;
    // The origin's time is not the client's: what the body needed is long over.
    let mut held = edge.connect().await;
    held.send(Ask::new("POST", "/held").body(vec![b'x'; 10_000]).bytes()).await;
    gate.reached(1).await;
    let held_h2 = edge.connect_h2().await;
    let waiting = held_h2.send(&Ask::new("POST", "/held").body(vec![b'x'; 10_000]), true).await.expect("a stream");
    gate.reached(2).await;
    // As long as several windows.
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 100000\r\n\r\n").await;
    for _ in 0..100 {
        tokio::time::sleep(DRIP / 2).await;
        client.send([b'x'; 1000]).await;
    }
    assert_eq!(client.response("POST").await.text(), "fine");
    gate.open();
    assert_eq!(held.response("POST").await.text(), "fine");
    assert_eq!(waiting.try_head().await.expect("a response").rest().await.text(), "fine");
    assert_eq!(edge.metrics().await.metric(TIMED_OUT), Some(0.0));
}

#[tokio::test]
async fn a_slow_reader() {
    // More than the buffers of both kernels hold.
    let body = Bytes::from(vec![b'x'; 48 << 20]);
    let origin = Origin::start(move |r| match r.path() {
        "/normal" => Reply::ok("fine"),
        _ => Reply::ok(body.clone()).cache_control("no-store"),
    })
    .await;
    let edge = limited(&origin, "write_timeout: 2s, send_min_rate: 64MiB/s").await;
    let before = memory(&edge);
    let mut client = edge.connect().await;
    client.send(Ask::get("/large").bytes()).await;
    let head = client.head("GET").await;
    // It always takes something within the time limit: that alone would not end it.
    let mut taken = 0;
    let end = loop {
        match client.chunk().await {
            Ok(Some(piece)) => taken += piece.len(),
            other => break other,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        if taken % (1 << 20) < 16 << 10 {
            serves(&edge).await;
        }
    };
    assert!(end.is_err(), "{end:?} of {head:?}");
    edge.wait_metrics("nothing is left of it", |m| m.sum("foreland_requests_in_flight", &[]) == 0.0).await;
    assert_eq!(edge.metrics().await.metric(TIMED_OUT), Some(1.0));
    assert!(memory(&edge) < before + 32, "{} MiB, then {}", before, memory(&edge));
}

#[tokio::test]
async fn header_bombs() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "idle_timeout: 1h").await;
    serves(&edge).await;
    let before = memory(&edge);
    let bomb = async || {
        let mut client = edge.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: edge.test\r\n").await;
        let mut sent = 0;
        while client.try_send("X-Bomb: 0123456789abcdef0123456789abcdef\r\n".repeat(100)).await.is_ok() {
            sent += 4000;
            assert!(sent < 8 << 20, "the edge goes on reading");
        }
    };
    for _ in 0..10 {
        tokio::join!(bomb(), bomb(), bomb(), bomb(), bomb(), serves(&edge));
    }
    wait_for_open(&edge, 0.0).await;
    assert!(memory(&edge) < before + 64, "{} MiB, then {}", before, memory(&edge));
}

#[tokio::test]
async fn two_thousand_idle_connections() {
    raise_file_limit();
    let origin = plain_origin().await;
    let edge = limited(&origin, "idle_timeout: 4s, connections: 5000").await;
    serves(&edge).await;
    let before = memory(&edge);
    let mut clients = Vec::new();
    for n in 0..2000 {
        let mut client = edge.connect().await;
        // Every other has asked something before.
        if n % 2 == 0 {
            assert_eq!(client.ask(&Ask::get("/normal")).await.text(), "fine");
        }
        clients.push(client);
    }
    serves(&edge).await;
    let grown = memory(&edge).saturating_sub(before);
    // Up to 24 KiB each, of which most is what a debug build's allocator rounds up to.
    assert!(grown < 48, "{grown} MiB for 2000 idle connections");
    wait_for_open(&edge, 0.0).await;
    for mut client in clients.into_iter().take(10) {
        assert_eq!(client.closed().await, (End::Clean, Vec::new()));
    }
    serves(&edge).await;
}

#[tokio::test]
async fn connections_of_one_address() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "connections_per_address: 3").await;
    wait_for_open(&edge, 0.0).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = edge.connect().await;
        assert_eq!(client.ask(&Ask::get("/normal")).await.text(), "fine");
        clients.push(client);
    }
    for _ in 0..20 {
        let mut refused = edge.connect().await;
        assert_eq!(refused.closed().await.1, b"");
    }
    assert_eq!(from(edge.address(), [127, 0, 0, 2]).await.ask(&Ask::get("/normal")).await.text(), "fine");
    let refused = "foreland_client_connections_refused_total";
    let metrics = edge.metrics().await;
    assert_eq!(metrics.metric(&format!("{refused}{{reason=\"address\"}}")), Some(20.0));
    assert_eq!(metrics.metric(&format!("{refused}{{reason=\"total\"}}")), Some(0.0));
    // Those that are in are not disturbed, and a place that is left is taken.
    assert_eq!(clients[0].ask(&Ask::get("/normal")).await.text(), "fine");
    drop(clients);
    eventually("a place", async || {
        let mut client = Connection::open(edge.address()).await;
        client.try_send(Ask::get("/normal").bytes()).await.is_ok() && client.try_head("GET").await.is_some()
    })
    .await;
}

/// A connection from another address of this machine.
async fn from(edge: SocketAddr, address: [u8; 4]) -> Connection {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((address, 0).into()).expect("an address of this machine");
    Connection::over(socket.connect(edge).await.expect("a connection"))
}
