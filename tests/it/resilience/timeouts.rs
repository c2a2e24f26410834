//! How long a server has for an answer, and how long all of them together.

use std::time::{Duration, Instant};

use super::{BOTH, failures, retries};
use crate::harness::{Ask, Gate, Origin, Reply};

/// What a loaded machine may take for what takes no time.
const SLACK: Duration = Duration::from_secs(3);

async fn mute() -> Origin {
    Origin::start(|_| Reply::never()).await
}

async fn well() -> Origin {
    Origin::start(|_| Reply::ok("well")).await
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_made_elsewhere() {
    for way in BOTH {
        let (slow, good) = (mute().await, well().await);
        let settings = "balance: failover, try_timeout: 300ms, retry: { on: [timeout] }";
        let edge = way.pool(&[&slow, &good], settings).await;
        let began = Instant::now();
        assert_eq!(edge.get("/").await.text(), "well", "{way:?}");
        assert!(began.elapsed() >= Duration::from_millis(300), "{way:?}: {:?}", began.elapsed());
        // The first server is not left with a connection that nobody reads from.
        slow.wait_for_open(0).await;
        assert_eq!((slow.count(), good.count()), (1, 1), "{way:?}");
        let metrics = edge.metrics().await;
        assert_eq!((retries(&metrics), failures(&metrics, "timeout")), (1.0, 1.0), "{way:?}");
        // What may have had its effect is not tried again.
        let response = edge.ask(&Ask::new("POST", "/").body("x")).await;
        assert_eq!((response.status, slow.count(), good.count()), (504, 2, 1), "{way:?}");
        assert!(response.text().contains("did not answer in time"), "{response:?}");
    }
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_the_last_unless_it_is_said() {
    for way in BOTH {
        let (slow, good) = (mute().await, well().await);
        let edge = way.pool(&[&slow, &good], "balance: failover, try_timeout: 200ms").await;
        assert_eq!((edge.get("/").await.status, slow.count(), good.count()), (504, 1, 0), "{way:?}");
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
        let servers = [mute().await, mute().await, mute().await, mute().await];
        let settings =
            "balance: failover, try_timeout: 400ms, timeout: 1s, retries: 16, retry: { on: [timeout], budget: 1000% }";
        let edge = way.pool(&[&servers[0], &servers[1], &servers[2], &servers[3]], settings).await;
        let began = Instant::now();
        let response = edge.get("/").await;
        let took = began.elapsed();
        assert_eq!(response.status, 504, "{way:?}: {response:?}");
        assert!(response.text().contains("did not answer in time"), "{response:?}");
        assert!((Duration::from_secs(1)..Duration::from_secs(1) + SLACK).contains(&took), "{way:?}: {took:?}");
        // The third has a part of its time, and the fourth none.
        assert_eq!(servers.each_ref().map(Origin::count), [1, 1, 1, 0], "{way:?}");
        let line = &edge.access_log_lines(1).await[0];
        let detail = line["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("no answer within 1s"), "{way:?}: {line}");
        // All that was begun has been ended.
        for server in &servers {
            server.wait_for_open(0).await;
        }
    }
}

#[tokio::test]
async fn one_try_has_no_longer_than_all_of_them() {
    for way in BOTH {
        let slow = mute().await;
        let edge = way.pool(&[&slow], "timeout: 400ms").await;
        for ask in [Ask::get("/"), Ask::new("POST", "/").body("x")] {
            let began = Instant::now();
            assert_eq!(edge.ask(&ask).await.status, 504, "{way:?}");
            let took = began.elapsed();
            assert!(took >= Duration::from_millis(400) && took < SLACK, "{way:?} {}: {took:?}", ask.method);
        }
        assert_eq!(slow.count(), 2, "{way:?}");
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
            let (slow, good) = (mute().await, well().await);
            let settings = format!(
                "outliers: {{ consecutive_failures: 3, ejection_time: 1m, max_ejection_time: 1m }}, {settings}"
            );
            let edge = way.pool(&[&slow, &good], &settings).await;
            for _ in 0..12 {
                edge.get("/").await;
            }
            assert_eq!((slow.count(), edge.get("/").await.status), (3, 200), "{way:?} {settings}");
        }
    }
}
