//! What is kept of connections, and for how long.

use std::time::{Duration, Instant};

use super::{before, plain::descriptors};
use crate::harness::{Ask, End, Gate, Origin, Reply, eventually};

#[tokio::test]
async fn no_more_than_keepalive_connections_stay() {
    for keepalive in [0, 1, 3] {
        let gate = Gate::new();
        let held = Reply::ok("ok").hold(&gate);
        let origin = Origin::start(move |_| held.clone()).await;
        let edge = before(&origin.address().to_string(), &format!("keepalive: {keepalive}")).await;
        let mut clients = Vec::new();
        for _ in 0..12 {
            let mut client = edge.connect().await;
            client.send(Ask::get("/").bytes()).await;
            clients.push(client);
        }
        gate.reached(12).await;
        gate.open();
        for client in &mut clients {
            assert_eq!(client.response("GET").await.status, 200);
        }
        origin.wait_for_open(keepalive).await;
        assert_eq!(origin.accepted(), 12);
        edge.wait_metrics("the connections that stay", |m| {
            m.sum("foreland_origin_server_connections", &[("state", "open")]) == keepalive as f64
        })
        .await;
    }
}

#[tokio::test]
async fn an_unused_connection_is_closed_after_idle_timeout() {
    let origin = Origin::start(|_| Reply::ok("ok")).await;
    let edge = before(&origin.address().to_string(), "idle_timeout: 600ms").await;
    assert_eq!(edge.get("/").await.status, 200);
    let since = Instant::now();
    origin.wait_for_open(1).await;
    origin.wait_for_open(0).await;
    let after = since.elapsed();
    assert!(after > Duration::from_millis(400) && after < Duration::from_millis(2500), "{after:?}");
}

#[tokio::test]
async fn a_connection_that_the_server_closes_fails_no_request() {
    for quick in [true, false] {
        let origin = Origin::start(|_| Reply::ok("ok").close_unsaid()).await;
        let edge = before(&origin.address().to_string(), "retries: 0").await;
        for n in 0..100 {
            let method = if n % 2 == 0 { "GET" } else { "POST" };
            if !quick {
                // It is known that the connection has ended: that is a new one for a POST as well.
                origin.wait_for_open(0).await;
            } else if method == "POST" {
                continue;
            }
            let response = edge.ask(&Ask::new(method, "/").header("Content-Length", "0")).await;
            assert_eq!(response.status, 200, "{method} {n}, quick: {quick}: {}", edge.log());
        }
        assert_eq!(edge.metrics().await.sum("foreland_origin_server_failures_total", &[]), 0.0);
    }
}

#[tokio::test]
async fn what_a_server_sends_unasked_is_nobodys_answer() {
    let gate = Gate::new();
    for extra in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "\r\n",
        "x",
    ] {
        for first in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ] {
            for together in [true, false] {
                let later = gate.clone();
                let (first, extra) = (first.to_owned(), extra.to_owned());
                let origin = Origin::start(move |r| match (r.target.as_str(), together) {
                    ("/first", true) => Reply::raw(format!("{first}{extra}")),
                    ("/first", false) => Reply::raw(first.clone()).wait(&later).body(extra.clone()),
                    _ => Reply::ok("mine"),
                })
                .await;
                let edge = before(&origin.address().to_string(), "").await;
                assert_eq!(edge.get("/first").await.text(), "ok");
                gate.let_one_through();
                for _ in 0..5 {
                    let response = edge.get("/second").await;
                    assert_eq!((response.end, response.text()), (End::Clean, "mine"));
                }
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_left_of_connections_that_servers_close() {
    let origin = Origin::start(|_| Reply::ok("ok")).await;
    let address = origin.address().to_string();
    let edge = before(&address, "").await;
    assert_eq!(edge.get("/").await.status, 200);
    let before = descriptors(&edge);
    for reply in
        [Reply::ok("x").close(), Reply::ok("x").close_unsaid(), Reply::rst(), Reply::hang_up(), Reply::raw("junk")]
    {
        origin.answer(move |_| reply.clone());
        for _ in 0..20 {
            edge.get("/").await;
        }
    }
    eventually("no more descriptors than before", async || descriptors(&edge) <= before + 1).await;
    assert_eq!(edge.metrics().await.sum("foreland_origin_server_connections", &[("state", "open")]), 0.0);
}
