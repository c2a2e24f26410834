//! Servers that die and come back while requests are on their way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::{BOTH, Way, crowd, retries, statuses};
use crate::harness::{Ask, Connection, Edge, Gate, Origin, Reply};
use crate::load::{Load, Manner, echo};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_under_load_costs_no_request() {
    let check = "health_check: { interval: 200ms, timeout: 200ms, unhealthy_after: 1, healthy_after: 1 }";
    for (way, settings) in [
        (Way::Past, ""),
        (Way::Through, "balance: least-requests"),
        (Way::Past, &*format!("balance: least-latency, {check}")),
        (Way::Through, &*format!("balance: {{ by: consistent-hash, key: path }}, {check}")),
    ] {
        let mut servers = [echo().await, echo().await, echo().await];
        let edge = way.pool(&[&servers[0], &servers[1], &servers[2]], settings).await;
        let load = Load::start(&edge, &[(6, Manner::Keepalive), (2, Manner::OneEach)]);
        load.more(200).await;
        for dying in [1, 0] {
            servers[dying].stop().await;
            load.more(200).await;
            servers[dying].restart();
            load.more(200).await;
        }
        load.finish().await;
    }
}

#[tokio::test]
async fn what_a_dying_server_was_at_is_answered_by_others() {
    for way in BOTH {
        let gate = Gate::new();
        let held = Reply::ok("late").hold(&gate);
        let mut dying = Origin::start(move |_| held.clone()).await;
        let (one, two) = (Origin::start(|_| Reply::ok("well")).await, Origin::start(|_| Reply::ok("well")).await);
        let edge = way.pool(&[&dying, &one, &two], "").await;
        let (responses, ()) = tokio::join!(crowd(&edge, 12, 1), async {
            // A third of them is with each, and the others do not wait.
            gate.reached(4).await;
            one.wait_for(4).await;
            two.wait_for(4).await;
            dying.stop().await;
        });
        assert_eq!(statuses(&responses), [(200, 12)].into(), "{way:?}");
        assert!(responses.iter().all(|r| r.text() == "well"), "{way:?}: {responses:?}");
        assert_eq!((dying.count(), one.count() + two.count()), (4, 12), "{way:?}");
        assert_eq!(retries(&edge.metrics().await), 4.0, "{way:?}");
    }
}

/// Requests without a pause, each with the moment of its answer and its status.
struct Asking {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<(Instant, u16)>>>,
}

impl Asking {
    fn start(edge: &Edge) -> Asking {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let (stop, address) = (stop.clone(), edge.address());
            tokio::spawn(async move {
                let mut answers = Vec::new();
                let mut connection = Connection::open(address).await;
                while !stop.load(Ordering::Relaxed) {
                    let response = connection.ask(&Ask::get("/")).await;
                    answers.push((Instant::now(), response.status));
                    if response.headers.lists("Connection", "close") {
                        connection = Connection::open(address).await;
                    }
                    tokio::task::yield_now().await;
                }
                answers
            })
        };
        let clients = (0..2).map(client).collect();
        Asking { stop, clients }
    }

    async fn finish(self) -> Vec<(Instant, u16)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        for client in self.clients {
            answers.extend(client.await.expect("a client that does not panic"));
        }
        answers
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_comes_back_is_used_within_a_health_interval() {
    let check = "health_check: { interval: 200ms, timeout: 200ms, jitter: 0%, unhealthy_after: 1, healthy_after: 1 }";
    for settings in [check.to_owned(), format!("panic_below: 0%, {check}"), format!("{check}, balance: least-latency")]
    {
        let mut servers = [Origin::start(|_| Reply::ok("a")).await, Origin::start(|_| Reply::ok("b")).await];
        let edge = Way::Past.pool(&[&servers[0], &servers[1]], &settings).await;
        assert_eq!(edge.get("/").await.status, 200);
        let asking = Asking::start(&edge);
        for server in &mut servers {
            server.stop().await;
        }
        edge.wait_metrics("both servers down", |m| m.sum("foreland_origin_server_up", &[("origin", "o")]) == 0.0).await;
        assert!((502..=503).contains(&edge.get("/").await.status));
        let back = Instant::now();
        for server in &mut servers {
            server.restart();
        }
        edge.wait_metrics("a server up", |m| m.sum("foreland_origin_server_up", &[("origin", "o")]) >= 1.0).await;
        assert_eq!(edge.get("/").await.status, 200, "{settings}");
        let answers = asking.finish().await;
        let last_bad = answers.iter().filter(|(_, status)| *status != 200).map(|(at, _)| *at).max();
        let late = last_bad.expect("nothing failed while all were gone").saturating_duration_since(back);
        // The rest of an interval, and the time that a loaded machine takes for it.
        assert!(late < Duration::from_millis(200 + 800), "{settings}: the last failure came {late:?} after the return");
        assert!(answers.iter().any(|(at, status)| *at > back && *status == 200), "{settings}");
    }
}

#[tokio::test]
async fn a_server_that_dies_after_an_interim_answer_has_not_closed_an_unused_connection() {
    for way in BOTH {
        let origin = Origin::start(|r| match r.path() {
            "/dies" => Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").cut(),
            _ => Reply::ok("well"),
        })
        .await;
        let edge = way.pool(&[&origin], "").await;
        assert_eq!(edge.get("/").await.text(), "well", "{way:?}");
        let response = edge.get("/dies").await;
        assert_eq!((response.status, response.interim.len(), origin.count()), (502, 1, 2), "{way:?}");
    }
}
