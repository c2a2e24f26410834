//! TERM: no new connections, every request in flight to its end, and then out without delay.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::{Ask, Connection, Edge, End, Gate, Origin, Reply, eventually};
use super::load::{Load, Manner, echo};

/// Far beyond what any of these tests takes: whoever waits for it fails.
const LONG_DRAIN: &str = "drain: 10m\n";

/// An origin that holds `/held` at the gate, before its first byte.
async fn holding(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |r| match r.path() {
        "/held" => Reply::ok("held").hold(&gate).cache_control("no-store"),
        _ => Reply::ok("x").cache_control("no-store"),
    })
    .await
}

async fn start(origin: &Origin, more: &str) -> Edge {
    Edge::start(&(Edge::yaml_before(&[origin], "") + more)).await
}

/// An edge with one request that its origin holds at the gate.
async fn with_one_held(gate: &Gate, more: &str) -> (Origin, Edge, Connection) {
    let origin = holding(gate).await;
    let edge = start(&origin, more).await;
    let mut held = edge.connect().await;
    held.send(Ask::get("/held").bytes()).await;
    gate.reached(1).await;
    (origin, edge, held)
}

async fn refused(edge: &Edge) {
    eventually("refused connections", async || Connection::try_open(edge.address()).await.is_none()).await;
}

#[tokio::test]
async fn an_idle_process_ends_at_once() {
    let origin = echo().await;
    let edge = start(&origin, LONG_DRAIN).await;
    assert_eq!(edge.get("/cached").await.status, 200);
    let began = Instant::now();
    edge.signal(Signal::TERM);
    assert_eq!(edge.wait_exit().await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3), "took {:?}", began.elapsed());
    assert!(edge.log().contains("bye"));
    assert_eq!(edge.access_log().len(), 1, "the last records are written");
}

#[tokio::test]
async fn int_ends_it_too() {
    let origin = echo().await;
    let edge = start(&origin, LONG_DRAIN).await;
    edge.signal(Signal::INT);
    assert_eq!(edge.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_then_nothing_is_waited_for() {
    let gate = Gate::new();
    let (_origin, edge, mut held) = with_one_held(&gate, LONG_DRAIN).await;
    edge.signal(Signal::TERM);
    refused(&edge).await;
    assert!(edge.is_running());
    gate.open();
    assert_eq!(held.response("GET").await.text(), "held");
    let answered = Instant::now();
    edge.wait_exit().await;
    // The client may have been about to send its next request: its connection ends after a second of idleness.
    assert!(answered.elapsed() < Duration::from_secs(3), "took {:?}", answered.elapsed());
    assert_eq!(edge.access_log().len(), 1);
}

#[tokio::test]
async fn a_body_in_flight_is_finished() {
    let gate = Gate::new();
    let reply = Reply::ok("first").wait(&gate).body("second");
    let origin = Origin::start(move |_| reply.clone()).await;
    for site in ["", "cache: off"] {
        let edge = Edge::start(&(Edge::yaml_before(&[&origin], site) + LONG_DRAIN)).await;
        let mut client = edge.connect().await;
        client.send(Ask::get("/").bytes()).await;
        let head = client.head("GET").await;
        assert_eq!(client.bytes(5).await, b"first");
        edge.signal(Signal::TERM);
        refused(&edge).await;
        gate.let_one_through();
        assert_eq!(client.rest(head).await.text(), "second");
        assert!(edge.wait_exit().await.success());
    }
}

#[tokio::test]
async fn an_upload_in_flight_is_finished() {
    let origin = Origin::start(|r| Reply::ok(r.body.len().to_string())).await;
    let edge = start(&origin, LONG_DRAIN).await;
    let mut client = edge.connect().await;
    client.send("POST /up HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 6\r\n\r\nabc").await;
    origin.wait_for(1).await;
    edge.signal(Signal::TERM);
    refused(&edge).await;
    client.send("def").await;
    assert_eq!(client.response("POST").await.text(), "6");
    assert!(edge.wait_exit().await.success());
}

#[tokio::test]
async fn the_next_request_on_a_kept_connection_is_answered_with_close() {
    let gate = Gate::new();
    let (_origin, edge, mut held) = with_one_held(&gate, LONG_DRAIN).await;
    let mut kept = edge.connect().await;
    assert!(!kept.ask(&Ask::get("/a")).await.headers.lists("Connection", "close"));
    edge.signal(Signal::TERM);
    refused(&edge).await;
    let last = kept.ask(&Ask::get("/b")).await;
    assert_eq!((last.text(), last.header("Connection")), ("x", Some("close")));
    assert_eq!(kept.closed().await, (End::Clean, Vec::new()));
    assert!(edge.is_running(), "another request is in flight");
    gate.open();
    assert_eq!(held.response("GET").await.text(), "held");
    edge.wait_exit().await;
}

#[tokio::test]
async fn idle_connections_hold_nothing_up() {
    let origin = echo().await;
    let edge = start(&origin, LONG_DRAIN).await;
    let mut used = edge.connect().await;
    assert_eq!(used.ask(&Ask::get("/cached")).await.status, 200);
    let mut silent = edge.connect().await;
    let mut on_h2c = Connection::open(edge.h2c_address()).await;
    let idle_h2 = edge.connect_h2().await;
    assert_eq!(idle_h2.ask(&Ask::get("/cached")).await.status, 200);
    // The control API's clients, too: one between two scrapes, one that has never asked.
    let mut scraper = Connection::open(edge.admin_address()).await;
    let scrape = Ask::get("/metrics").host(&edge.admin_address().to_string());
    assert_eq!(scraper.ask(&scrape).await.status, 200);
    let _waiting = Connection::open(edge.admin_address()).await;

    let began = Instant::now();
    edge.signal(Signal::TERM);
    assert!(edge.wait_exit().await.success());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "took {took:?}");
    for connection in [&mut used, &mut silent, &mut on_h2c, &mut scraper] {
        assert_eq!(connection.closed().await, (End::Clean, Vec::new()));
    }
}

#[tokio::test]
async fn drain_bounds_the_wait() {
    let gate = Gate::new();
    let (_origin, edge, mut held) = with_one_held(&gate, "drain: 300ms\n").await;
    let began = Instant::now();
    edge.signal(Signal::TERM);
    assert_eq!(edge.wait_exit().await.code(), Some(0));
    let took = began.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(3)).contains(&took), "took {took:?}");
    assert!(edge.log().contains("1 client connections are still open after 300ms"), "{}", edge.log());
    assert!(held.try_head("GET").await.is_none());
}

#[tokio::test]
async fn a_second_term_ends_at_once() {
    let gate = Gate::new();
    let (_origin, edge, _held) = with_one_held(&gate, LONG_DRAIN).await;
    edge.signal(Signal::TERM);
    edge.wait_log("stopping").await;
    refused(&edge).await;
    assert!(edge.is_running());
    edge.signal(Signal::TERM);
    assert_eq!(edge.wait_exit().await.code(), Some(0));
    assert!(edge.log().contains("asked again to stop"), "{}", edge.log());
}

#[tokio::test]
async fn http2_streams_finish_after_goaway() {
    let gate = Gate::new();
    let origin = holding(&gate).await;
    let edge = start(&origin, LONG_DRAIN).await;
    let h2 = edge.connect_h2().await;
    let held = Ask::get("/held");
    let exchange = async {
        let stream = h2.try_start(&held).await.expect("a stream that was open before GOAWAY is served");
        stream.rest().await
    };
    let stop = async {
        gate.reached(1).await;
        edge.signal(Signal::TERM);
        refused(&edge).await;
        // The connection takes no new streams from some moment on: that is GOAWAY.
        eventually("GOAWAY", async || h2.try_start(&Ask::get("/more")).await.is_err()).await;
        assert!(edge.is_running());
        gate.open();
    };
    let (response, ()) = tokio::join!(exchange, stop);
    assert_eq!(response.text(), "held");
    let answered = Instant::now();
    assert!(edge.wait_exit().await.success());
    assert!(answered.elapsed() < Duration::from_secs(3), "took {:?}", answered.elapsed());
}

#[tokio::test]
async fn under_load_every_accepted_request_is_answered() {
    let origin = echo().await;
    let edge = start(&origin, LONG_DRAIN).await;
    // New connections may well be refused, that is what TERM means.
    let load = Load::start(&edge, &[(8, Manner::UntilClose)]);
    load.more(200).await;
    edge.signal(Signal::TERM);
    load.end().await;
    assert!(edge.wait_exit().await.success());
}

#[tokio::test]
async fn the_pid_file_is_there_while_the_process_is() {
    let origin = echo().await;
    let edge = start(&origin, "pid_file: \"{dir}/foreland.pid\"\n").await;
    let file = edge.folder().join("foreland.pid");
    let text = std::fs::read_to_string(&file).expect("a pid file");
    assert_eq!(text, format!("{}\n", edge.pid().as_raw_nonzero()));
    edge.signal(Signal::TERM);
    edge.wait_exit().await;
    assert!(!file.exists());
}
