//! How long a server has for an answer, and how long all of them together.

use std::time::{Duration, Instant};

use super::mute::Mute;
use super::{BOTH, Way, failures, retries};
use crate::harness::{Ask, Edge, Gate, Origin, Reply};

/// What a loaded machine may take for what takes no time.
const SLACK: Duration = Duration::from_secs(3);

/// A pool of servers that say nothing, and one behind them that does.
async fn pool(way: Way, mute: &[Mute], good: Option<&Origin>, settings: &str) -> Edge {
    let mute = mute.iter().map(Mute::address);
    let servers: Vec<_> = mute.chain(good.map(Origin::address)).map(|a| a.to_string()).collect();
    way.pool_of(&servers, &format!("balance: failover, {settings}")).await
}

async fn well() -> Origin {
    Origin::start(|_| Reply::ok("well")).await
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_made_elsewhere() {
    for way in BOTH {
        let (slow, good) = ([Mute::start().await], well().await);
        let edge = pool(way, &slow, Some(&good), "try_timeout: 300ms, retry: { on: [timeout] }").await;
        let began = Instant::now();
        assert_eq!(edge.get("/").await.text(), "well", "{way:?}");
        assert!(began.elapsed() >= Duration::from_millis(300), "{way:?}: {:?}", began.elapsed());
        // The first server is not left with a connection that nobody reads from.
        slow[0].left_alone().await;
        assert_eq!((slow[0].accepted(), good.count()), (1, 1), "{way:?}");
        let metrics = edge.metrics().await;
        assert_eq!((retries(&metrics), failures(&metrics, "timeout")), (1.0, 1.0), "{way:?}");
        // What may have had its effect is not tried again.
        let response = edge.ask(&Ask::new("POST", "/").body("x")).await;
        assert_eq!((response.status, slow[0].accepted(), good.count()), (504, 2, 1), "{way:?}");
        assert!(response.text().contains("did not answer in time"), "{response:?}");
    }
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_the_last_unless_it_is_said() {
    for way in BOTH {
        let (slow, good) = ([Mute::start().await], well().await);
        let edge = pool(way, &slow, Some(&good), "try_timeout: 200ms").await;
        assert_eq!((edge.get("/").await.status, slow[0].accepted(), good.count()), (504, 1, 0), "{way:?}");
    }
}

#[tokio::test]
async fn an_answer_in_time_may_go_on_for_longer() {
    for way in BOTH {
        let gate = Gate::new();
        let reply = Reply::ok("begin").wait(&gate).body("end");
        let origin = Origin::start(move |r| if r.path() == "/long" { reply.clone() } else { Reply::never() }).await;
        let edge = way.pool(&[&origin], "try_timeout: 300ms, timeout: 300ms").await;
        let mut client = edge.connect().await;
        client.send(Ask::get("/long").bytes()).await;
        let head = client.head("GET").await;
        assert_eq!(client.bytes(5).await, b"begin");
        // Another request that has all of its time passes by.
        assert_eq!(edge.get("/never").await.status, 504);
        gate.open();
        assert_eq!(client.rest(head).await.text(), "end", "{way:?}");
    }
}

#[tokio::test]
async fn all_tries_together_have_their_time() {
    for way in BOTH {
        let servers = [Mute::start().await, Mute::start().await, Mute::start().await, Mute::start().await];
        let settings = "try_timeout: 400ms, timeout: 1s, retries: 16, retry: { on: [timeout], budget: 1000% }";
        let edge = pool(way, &servers, None, settings).await;
        let began = Instant::now();
        let response = edge.get("/").await;
        let took = began.elapsed();
        assert_eq!(response.status, 504, "{way:?}: {response:?}");
        assert!(response.text().contains("did not answer in time"), "{response:?}");
        assert!((Duration::from_secs(1)..Duration::from_secs(1) + SLACK).contains(&took), "{way:?}: {took:?}");
        // The third has a part of its time, and the fourth none.
        assert_eq!(servers.each_ref().map(Mute::accepted), [1, 1, 1, 0], "{way:?}");
        let line = &edge.access_log_lines(1).await[0];
        let detail = line["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("no answer within 1s"), "{way:?}: {line}");
        // All that was begun has been ended.
        for server in &servers {
            server.left_alone().await;
        }
    }
}

#[tokio::test]
async fn one_try_has_no_longer_than_all_of_them() {
    for way in BOTH {
        let slow = [Mute::start().await];
        let edge = pool(way, &slow, None, "timeout: 400ms").await;
        for ask in [Ask::get("/"), Ask::new("POST", "/").body("x")] {
            let began = Instant::now();
            assert_eq!(edge.ask(&ask).await.status, 504, "{way:?}");
            let took = began.elapsed();
            assert!(took >= Duration::from_millis(400) && took < SLACK, "{way:?} {}: {took:?}", ask.method);
        }
        slow[0].left_alone().await;
        assert_eq!(slow[0].accepted(), 2, "{way:?}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_in_time_is_put_aside() {
    for settings in [
        "try_timeout: 100ms, retry: { on: [timeout] }",
        "try_timeout: 100ms, timeout: 5s, retry: { on: [timeout] }",
        "timeout: 100ms",
    ] {
        for way in BOTH {
            let (slow, good) = ([Mute::start().await], well().await);
            let judged = "outliers: { consecutive_failures: 3, ejection_time: 1m, max_ejection_time: 1m }";
            let edge = pool(way, &slow, Some(&good), &format!("{judged}, {settings}")).await;
            for _ in 0..6 {
                edge.get("/").await;
            }
            assert_eq!((slow[0].accepted(), edge.get("/").await.status), (3, 200), "{way:?} {settings}");
        }
    }
}

#[tokio::test]
async fn an_interim_answer_is_none() {
    for (settings, why) in [("try_timeout: 400ms", "400ms"), ("timeout: 500ms", "500ms")] {
        for way in BOTH {
            let gate = Gate::new();
            let reply = Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").wait(&gate).cut();
            let origin = Origin::start(move |_| reply.clone()).await;
            let edge = way.pool(&[&origin], settings).await;
            let began = Instant::now();
            let response = edge.get("/").await;
            assert_eq!(response.status, 504, "{way:?} {settings}: {response:?}");
            assert!(began.elapsed() < SLACK, "{way:?} {settings}: {:?}", began.elapsed());
            let line = &edge.access_log_lines(1).await[0];
            assert!(line["detail"].as_str().is_some_and(|d| d.contains(why)), "{way:?} {settings}: {line}");
        }
    }
}

#[tokio::test]
async fn a_slow_client_is_no_fault_of_a_servers() {
    for settings in ["try_timeout: 300ms", "timeout: 300ms", "try_timeout: 300ms, timeout: 400ms"] {
        let origin = well().await;
        let judged = "outliers: { consecutive_failures: 1 }";
        let edge = Way::Past.pool(&[&origin], &format!("{judged}, {settings}")).await;
        let mut client = edge.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 4\r\n\r\n").await;
        for piece in ["b", "o", "d", "y"] {
            tokio::time::sleep(Duration::from_millis(250)).await;
            client.send(piece).await;
        }
        assert_eq!(client.response("POST").await.text(), "well", "{settings}");
        assert_eq!(failures(&edge.metrics().await, "timeout"), 0.0, "{settings}");
        // Once all of it is there, the time is the server's.
        origin.answer(|_| Reply::never());
        let mut client = edge.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 2\r\n\r\nx").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let began = Instant::now();
        client.send("y").await;
        assert_eq!(client.response("POST").await.status, 504, "{settings}");
        assert!((Duration::from_millis(300)..SLACK).contains(&began.elapsed()), "{settings}: {:?}", began.elapsed());
    }
}
