//! What is asked a second time, of whom, and what never is.

use super::{BOTH, Way, failures, retries};
use crate::harness::{Ask, Connection, Gate, Origin, Port, Reply, Request};

/// The first of the list that has not been tried is asked.
const IN_ORDER: &str = "balance: failover, outliers: off";

/// Every failure that may be tried again is.
const ALL: &str = "retry: { on: [reset, timeout, 503], budget: 1000% }, try_timeout: 5s";

async fn well() -> Origin {
    Origin::start(|r| Reply::ok(format!("{} {}", r.method, r.body.len()))).await
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| b'a' + (n * 7 % 26) as u8).collect()
}

#[tokio::test]
async fn a_post_is_never_sent_twice() {
    for failure in [Reply::rst(), Reply::hang_up(), Reply::new(503).body("busy"), Reply::raw("HTTP/1.1 2").cut()] {
        let (bad, good) = (Origin::start(move |_| failure.clone()).await, well().await);
        let edge = Way::Past.pool(&[&bad, &good], &format!("{IN_ORDER}, {ALL}")).await;
        for (method, body) in [("POST", "x"), ("POST", ""), ("PATCH", "x"), ("UNHEARD-OF", "")] {
            let ask = Ask::new(method, "/");
            let ask = if body.is_empty() { ask.header("Content-Length", "0") } else { ask.body(body) };
            let response = edge.ask(&ask).await;
            // An extension method may be refused instead: it is not sent twice either.
            assert!([405, 501, 502, 503].contains(&response.status), "{method}: {response:?}");
        }
        assert!((3..=4).contains(&bad.count()), "{}", bad.count());
        assert_eq!(good.count(), 0, "{:?}", good.seen());
        assert_eq!(retries(&edge.metrics().await), 0.0);
    }
}

#[tokio::test]
async fn a_post_of_which_nothing_was_sent_goes_elsewhere() {
    let (dead, good) = (Port::reserve(), well().await);
    let servers = [dead.address().to_string(), good.address().to_string()];
    let edge = Way::Past.pool_of(&servers, IN_ORDER).await;
    for body in [pattern(1), pattern(10 << 10), pattern(1 << 20)] {
        let response = edge.ask(&Ask::new("POST", "/").body(body.clone())).await;
        assert_eq!(response.text(), format!("POST {}", body.len()));
        assert!(good.seen().last().is_some_and(|r| r.body == body), "the body is another one");
    }
    assert_eq!((good.count(), retries(&edge.metrics().await)), (3, 3.0));
}

#[tokio::test]
async fn a_short_body_goes_along_to_the_next_server() {
    for failure in [Reply::rst(), Reply::hang_up(), Reply::new(503).body("busy")] {
        let (bad, good) = (Origin::start(move |_| failure.clone()).await, well().await);
        let edge = Way::Past.pool(&[&bad, &good], &format!("{IN_ORDER}, {ALL}")).await;
        let body = pattern(10 << 10);
        let mut chunked = Vec::new();
        for chunk in body.chunks(1000) {
            chunked.extend(format!("{:x}\r\n", chunk.len()).bytes());
            chunked.extend(chunk);
            chunked.extend(b"\r\n");
        }
        chunked.extend(b"0\r\n\r\n");
        for ask in [
            Ask::new("PUT", "/").body(body.clone()),
            Ask::new("PUT", "/").header("Transfer-Encoding", "chunked").body(chunked),
            Ask::new("DELETE", "/").body(body.clone()),
        ] {
            let response = edge.ask(&ask).await;
            assert_eq!(response.text(), format!("{} {}", ask.method, body.len()), "{:?}", ask.headers);
            for server in [&bad, &good] {
                let seen = server.seen();
                let last = seen.last().expect("a request");
                assert!(last.complete && last.body == body, "{:?}: not the same body", ask.headers);
            }
        }
        assert_eq!((bad.count(), good.count()), (3, 3));
    }
}

#[tokio::test]
async fn a_body_that_is_still_coming_is_not_held_back() {
    // The first server gives up while the client has not sent all of it.
    let (bad, good) = (Origin::start_deaf(|_| Reply::rst()).await, well().await);
    let edge = Way::Past.pool(&[&bad, &good], &format!("{IN_ORDER}, {ALL}")).await;
    let mut client = Connection::open(edge.address()).await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nabcd").await;
    good.wait_for(1).await;
    client.send("efgh").await;
    assert_eq!(client.response("PUT").await.text(), "PUT 8");
    assert_eq!((bad.count(), good.seen()[0].body.as_slice()), (1, &b"abcdefgh"[..]));
}

#[tokio::test]
async fn a_server_that_reads_nothing_is_no_reason_to_fail() {
    // Which of the edge's writes and reads meets the reset is up to the kernel.
    let (bad, good) = (Origin::start_deaf(|_| Reply::rst()).await, well().await);
    let edge = Way::Past.pool(&[&bad, &good], &format!("{IN_ORDER}, {ALL}")).await;
    for round in 0..60 {
        let body = pattern(1000 + 1000 * round);
        let (first, rest) = body.split_at(500);
        let mut client = Connection::open(edge.address()).await;
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).await;
        client.send(first).await;
        if round % 2 == 0 {
            bad.wait_for(round + 1).await;
        }
        client.send(rest).await;
        let response = client.response("PUT").await;
        assert_eq!(response.text(), format!("PUT {}", body.len()), "round {round}");
        assert!(good.seen().last().is_some_and(|r| r.body == body), "round {round}: the body is another one");
    }
    assert_eq!((bad.count(), good.count()), (60, 60));
}

#[tokio::test]
async fn a_long_body_is_sent_once() {
    let (bad, good) = (Origin::start(|_| Reply::rst()).await, well().await);
    let edge = Way::Past.pool(&[&bad, &good], &format!("{IN_ORDER}, {ALL}")).await;
    let response = edge.ask(&Ask::new("PUT", "/").body(pattern(1 << 20))).await;
    assert_eq!((response.status, bad.count(), good.count()), (502, 1, 0));
    assert_eq!(bad.seen()[0].body.len(), 1 << 20);
    // A status stands, then.
    bad.answer(|_| Reply::new(503).body("too busy"));
    let response = edge.ask(&Ask::new("PUT", "/").body(pattern(1 << 20))).await;
    assert_eq!((response.status, response.text(), good.count()), (503, "too busy", 0));
}

#[tokio::test]
async fn a_status_may_send_a_request_on() {
    for way in BOTH {
        let status =
            |name: &'static str| move |r: &Request| Reply::new(r.path()[1..].parse().unwrap_or(200)).body(name);
        let servers = [Origin::start(status("a")).await, Origin::start(status("b")).await, well().await];
        let settings = format!("{IN_ORDER}, retry: {{ on: [429, 502-503], budget: 1000% }}");
        let edge = way.pool(&[&servers[0], &servers[1], &servers[2]], &settings).await;
        for (path, text) in
            [("/503", "GET 0"), ("/502", "GET 0"), ("/429", "GET 0"), ("/500", "a"), ("/504", "a"), ("/404", "a")]
        {
            let response = edge.get(path).await;
            assert_eq!(response.text(), text, "{way:?} {path}: {response:?}");
        }
        assert_eq!(servers.each_ref().map(Origin::count), [6, 3, 3], "{way:?}");
        let lines = edge.access_log_lines(6).await;
        let line = lines.iter().find(|l| l["uri"] == "/503").expect("a line of each request");
        assert_eq!((&line["status"], &line["retries"]), (&200.into(), &2.into()), "{way:?}: {line}");
        let head = edge.ask(&Ask::head("/503")).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{way:?}: {head:?}");
    }
}

#[tokio::test]
async fn where_all_say_the_same_the_last_one_is_believed() {
    for way in BOTH {
        let says = |name: &'static str| move |_: &Request| Reply::new(503).body(name).header("X-Server", name);
        let servers = [Origin::start(says("a")).await, Origin::start(says("b")).await, Origin::start(says("c")).await];
        for (retries, last) in [(0, "a"), (1, "b"), (2, "c"), (16, "c")] {
            let retry = if retries > 0 { ALL } else { "try_timeout: 5s" };
            let settings = format!("{IN_ORDER}, {retry}, retries: {retries}");
            let edge = way.pool(&[&servers[0], &servers[1], &servers[2]], &settings).await;
            let response = edge.get("/").await;
            assert_eq!((response.status, response.text()), (503, last), "{way:?} {retries}");
            assert_eq!(response.header("X-Server"), Some(last), "{way:?} {retries}");
        }
    }
}

#[tokio::test]
async fn each_try_is_at_another_server() {
    for way in BOTH {
        for balance in ["round-robin", "random", "least-requests", "least-latency", "ip-hash", "consistent-hash"] {
            let bad = [Origin::start(|_| Reply::rst()).await, Origin::start(|_| Reply::new(503)).await];
            let good = well().await;
            let settings = format!("balance: {balance}, outliers: off, retries: 2, {ALL}");
            let edge = way.pool(&[&bad[0], &bad[1], &good], &settings).await;
            for n in 0..12 {
                let before = [bad[0].count(), bad[1].count()];
                assert_eq!(edge.get(&format!("/{n}")).await.text(), "GET 0", "{way:?} {balance}");
                let each = [bad[0].count() - before[0], bad[1].count() - before[1]];
                assert!(each.iter().all(|n| *n <= 1), "{way:?} {balance}: {each:?}");
            }
            assert_eq!(good.count(), 12, "{way:?} {balance}");
        }
    }
}

#[tokio::test]
async fn a_backup_is_asked_where_the_others_fail() {
    for way in BOTH {
        let (first, backup) = (Origin::start(|_| Reply::rst()).await, well().await);
        let servers = format!("{{ address: \"{}\", backup: true }}", backup.address());
        let edge = crate::harness::Edge::start(&format!(
            "origins:\n  o:\n    servers: [{servers}, \"{}\"]\n    outliers: off\nsites:\n  - {{ hosts: [\"*\"], origin: o, cache: {} }}\n",
            first.address(),
            if way == Way::Past { "off" } else { "on" },
        ))
        .await;
        assert_eq!(edge.get("/").await.text(), "GET 0", "{way:?}");
        assert_eq!((first.count(), backup.count()), (1, 1), "{way:?}");
    }
}

#[tokio::test]
async fn an_answer_that_has_begun_is_no_longer_anothers() {
    for way in BOTH {
        let gate = Gate::new();
        let half = Reply::ok("half").claim_length(10).wait(&gate).cut();
        let (bad, good) = (Origin::start(move |_| half.clone()).await, well().await);
        let edge = way.pool(&[&bad, &good], &format!("{IN_ORDER}, {ALL}")).await;
        let mut client = Connection::open(edge.address()).await;
        client.send(Ask::get("/").bytes()).await;
        let head = client.head("GET").await;
        assert_eq!(client.bytes(4).await, b"half");
        gate.open();
        let response = client.rest(head).await;
        assert!(response.end != crate::harness::End::Clean, "{way:?}: {response:?}");
        assert_eq!(good.count(), 0, "{way:?}");
    }
}

#[tokio::test]
async fn what_nobody_can_read_is_the_servers_failure() {
    for way in BOTH {
        let odd = Origin::start(|_| Reply::ok("x").header("Transfer-Encoding", "gzip")).await;
        let edge = way.pool(&[&odd], "").await;
        assert_eq!(edge.get("/").await.status, 502, "{way:?}");
        assert_eq!(failures(&edge.metrics().await, "protocol"), 1.0, "{way:?}");
    }
}
