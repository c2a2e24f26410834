//! Serving what is stale: when the origin fails, and while it is refreshed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Ask, Edge, Gate, Origin, Reply, eventually};
use crate::over::{BOTH, all};

/// An origin whose first answer to each target is stale on arrival, with `directives` beside; then it is as `later`.
async fn then(directives: &'static str, later: impl Fn() -> Reply + Send + Sync + 'static) -> Origin {
    let seen = std::sync::Mutex::new(std::collections::HashSet::new());
    Origin::start(move |r| {
        let new = seen.lock().is_ok_and(|mut seen| seen.insert(r.target.clone()));
        if new { old(directives) } else { later() }
    })
    .await
}

/// Past its lifetime by a second: its ttl is negative from the first millisecond. Closes its connection: the failure of a kept one would be tried again on a new one.
fn old(directives: &str) -> Reply {
    let reply = Reply::ok("old").cache_control(&format!("max-age=60{directives}"));
    reply.header("Age", "61").header("ETag", "\"v1\"").close()
}

async fn edge_before(origin: &Origin, site: &str) -> Edge {
    let address = origin.address();
    let site: String = site.lines().map(|line| format!("    {line}\n")).collect();
    Edge::start(&format!(
        "origins:\n  o: {{ servers: [\"{address}\"], retries: 0, read_timeout: 300ms }}\nsites:\n  - hosts: [\"*\"]\n    origin: o\n{site}"
    ))
    .await
}

/// How an origin fails, and the status that a client sees who cannot be helped.
type Failure = (&'static str, u16, fn() -> Reply);

/// How an answer that has begun ends too soon.
type End = fn(Reply) -> Reply;

const FAILURES: [Failure; 7] = [
    ("500", 500, || Reply::new(500).body("broken")),
    ("503", 503, || Reply::new(503).body("busy").cache_control("no-store")),
    ("reset", 502, Reply::rst),
    ("hang up", 502, Reply::hang_up),
    ("cut in the head", 502, || Reply::raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Le").cut()),
    ("no HTTP", 502, || Reply::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n").cut()),
    ("timeout", 504, Reply::never),
];

#[tokio::test]
async fn a_failing_origin_is_covered_by_what_is_stale() {
    let sources = [(", stale-if-error=600", ""), ("", "cache: { stale_if_error: 10m }")];
    for (directives, site) in sources {
        for (how, status, failure) in FAILURES {
            let origin = then(directives, failure).await;
            let edge = edge_before(&origin, site).await;
            for over in BOTH {
                let target = format!("/{over:?}");
                over.get(&edge, &target).await;
                for _ in 0..2 {
                    let stale = over.get(&edge, &target).await;
                    let case = format!("{how} over {over:?}, {directives}{site}: {stale:?}");
                    assert_eq!((stale.status, stale.text()), (200, "old"), "{case}");
                    assert!(stale.cache_status().starts_with("Foreland; fwd=stale; "), "{case}");
                    assert!(stale.cache_status().contains("; detail=stale-if-error"), "{case}");
                    assert!(stale.cache_status().contains("; ttl=-"), "{case}");
                    assert_eq!(
                        stale.cache_status().contains(&format!("; fwd-status={status}")),
                        status < 502 || how == "503",
                        "{case}"
                    );
                    assert!(stale.age() >= Some(60), "{case}");
                }
            }
            // Each tried the origin first; one whose kept connection was reset did so again on a new one.
            assert!(origin.count() >= 6, "{how}: {}", origin.count());
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_before_its_first_byte_is_covered_too() {
    let ways: [(&str, End); 3] = [("cut", Reply::cut), ("reset", Reply::reset), ("stall", Reply::stall)];
    for (how, way) in ways {
        for control in ["max-age=60", "no-store"] {
            for framing in ["Content-Length: 3", "Transfer-Encoding: chunked"] {
                let head = format!("HTTP/1.1 200 OK\r\nCache-Control: {control}\r\n{framing}\r\n\r\n");
                let origin = then(", stale-if-error=600", move || way(Reply::raw(head.clone()))).await;
                let edge = edge_before(&origin, "").await;
                for over in BOTH {
                    let case = format!("{how} {control} {framing} {over:?}");
                    let target = format!("/{over:?}");
                    over.get(&edge, &target).await;
                    // Alone, and several at once: those who follow the answer have nothing else to fall back on.
                    for n in [1, 6] {
                        for stale in all((0..n).map(|i| BOTH[i % 2].get(&edge, &target))).await {
                            assert_eq!((stale.status, stale.text()), (200, "old"), "{case}: {stale:?}");
                            assert!(stale.cache_status().contains("; detail=stale-if-error"), "{case}: {stale:?}");
                            assert_eq!(stale.end, crate::harness::End::Clean, "{case}");
                        }
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_failure_after_an_interim_response_is_covered_too() {
    let ends: [End; 3] = [
        |reply| reply.body("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1\r\n\r\nx"),
        Reply::cut,
        Reply::stall,
    ];
    for (i, end) in ends.into_iter().enumerate() {
        let gate = Gate::new();
        let at = gate.clone();
        let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let origin = then(", stale-if-error=600", move || end(Reply::raw(hint).wait(&at))).await;
        let edge = edge_before(&origin, "").await;
        edge.get("/1").await;
        let mut client = edge.connect().await;
        client.send(Ask::get("/1").bytes()).await;
        // The client has it before the origin fails.
        assert_eq!(client.interim().await.0, 103);
        gate.open();
        let stale = client.response("GET").await;
        assert_eq!((stale.status, stale.text()), (200, "old"), "{i}: {stale:?}");
        assert!(stale.cache_status().contains("; detail=stale-if-error"), "{i}: {stale:?}");
        edge.get("/2").await;
        let client = edge.connect_h2().await;
        let stale = client.ask(&Ask::get("/2")).await;
        assert_eq!((stale.status, stale.text(), stale.interim.len()), (200, "old", 1), "{i}: {stale:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_later_is_broken() {
    for over in BOTH {
        let gate = Gate::new();
        let at = gate.clone();
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 3\r\n\r\nn";
        let origin = then(", stale-if-error=600", move || Reply::raw(head).wait(&at).cut()).await;
        let edge = edge_before(&origin, "").await;
        over.get(&edge, "/a").await;
        let mut exchange = over.start(&edge, &Ask::get("/a")).await;
        assert_eq!(exchange.bytes(1).await, b"n");
        gate.open();
        let broken = exchange.rest().await;
        assert!(crate::over::is_broken(broken.end), "{over:?}: {broken:?}");
    }
}

#[tokio::test]
async fn an_origin_that_refuses_is_covered_too() {
    for over in BOTH {
        let mut origin = then(", stale-if-error=600", || Reply::new(500)).await;
        let edge = edge_before(&origin, "").await;
        over.get(&edge, "/a").await;
        origin.stop().await;
        let stale = over.get(&edge, "/a").await;
        assert_eq!((stale.status, stale.text()), (200, "old"), "{over:?}: {stale:?}");
        assert!(stale.cache_status().contains("; detail=stale-if-error"), "{stale:?}");
        assert_eq!(over.get(&edge, "/b").await.status, 502, "{over:?}");
        origin.answer(|_| Reply::ok("new").cache_control("max-age=60"));
        origin.restart();
        assert_eq!(over.get(&edge, "/a").await.text(), "new", "it comes back by itself");
        assert!(over.get(&edge, "/a").await.is_hit());
    }
}

#[tokio::test]
async fn without_a_window_the_failure_is_what_the_client_sees() {
    for (directives, site) in [
        ("", ""),
        (", stale-if-error=0", "cache: { stale_if_error: 10m }"),
        (", must-revalidate", "cache: { stale_if_error: 10m }"),
        (", proxy-revalidate, stale-if-error=600", ""),
    ] {
        for (how, status, failure) in FAILURES {
            let origin = then(directives, failure).await;
            let edge = edge_before(&origin, site).await;
            for over in BOTH {
                let target = format!("/{over:?}");
                over.get(&edge, &target).await;
                let response = over.get(&edge, &target).await;
                assert_eq!(response.status, status, "{how} over {over:?}, {directives} {site}: {response:?}");
                assert!(!response.is_hit() && response.text() != "old");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_asks_for_a_validation_is_not_given_what_is_stale() {
    let origin = then(", stale-if-error=600, stale-while-revalidate=600", || Reply::new(500)).await;
    let edge = edge_before(&origin, "").await;
    edge.get("/a").await;
    let response = edge.ask(&Ask::get("/a").header("Cache-Control", "no-cache")).await;
    assert_eq!(response.status, 500, "{response:?}");
}

#[tokio::test]
async fn an_error_beyond_the_servers_is_an_answer() {
    let origin = then(", stale-if-error=600", || Reply::new(404).body("gone").cache_control("no-store")).await;
    let edge = edge_before(&origin, "").await;
    edge.get("/a").await;
    let response = edge.get("/a").await;
    assert_eq!((response.status, response.text()), (404, "gone"), "{response:?}");
}

#[tokio::test]
async fn many_who_wait_for_a_failing_origin_all_get_what_is_stale() {
    for (how, _, failure) in FAILURES {
        let gate = Gate::new();
        let at = gate.clone();
        let origin = then(", stale-if-error=600", move || failure().hold(&at)).await;
        let edge = edge_before(&origin, "").await;
        edge.get("/a").await;
        let asks = (0..10).map(|i| BOTH[i % 2].get(&edge, "/a"));
        let (responses, ()) = tokio::join!(all(asks), async {
            edge.wait_metrics("10 requests in flight", |m| m.sum("foreland_requests_in_flight", &[]) == 10.0).await;
            gate.open();
        });
        for response in responses {
            assert_eq!((response.status, response.text()), (200, "old"), "{how}: {response:?}");
            assert!(response.cache_status().contains("; detail=stale-if-error"), "{how}: {response:?}");
        }
    }
}

#[tokio::test]
async fn what_is_stale_is_served_at_once_while_one_request_refreshes_it() {
    for (directives, site) in [(", stale-while-revalidate=600", ""), ("", "cache: { stale_while_revalidate: 10m }")] {
        for over in BOTH {
            let case = format!("{over:?} {directives}{site}");
            let gate = Gate::new();
            let at = gate.clone();
            let origin = then(directives, move || Reply::ok("new").cache_control("max-age=60").hold(&at)).await;
            let edge = Edge::before(&origin, site).await;
            let mut client = over.connect(&edge).await;
            client.get("/a").await;
            for _ in 0..5 {
                let stale = client.get("/a").await;
                assert_eq!((stale.status, stale.text()), (200, "old"), "{case}");
                assert!(stale.cache_status().starts_with("Foreland; hit; ttl=-"), "{case}: {stale:?}");
                assert!(stale.cache_status().ends_with("; detail=stale-while-revalidate"), "{case}: {stale:?}");
                assert!(stale.age() >= Some(60), "{case}: {stale:?}");
            }
            // The refresh is there, and waits; so nobody had to.
            gate.reached(1).await;
            assert_eq!(origin.count(), 2, "{case}: one refresh");
            let refresh = &origin.seen()[1];
            assert_eq!((refresh.target.as_str(), refresh.header("if-none-match")), ("/a", Some("\"v1\"")), "{case}");
            assert_eq!(refresh.header("host"), Some("edge.test"), "{case}");
            gate.open();
            eventually("the refresh to be stored", async || edge.get("/a").await.text() == "new").await;
            let fresh = client.get("/a").await;
            assert!(fresh.is_hit() && fresh.text() == "new" && fresh.age() < Some(60), "{case}: {fresh:?}");
            assert_eq!(origin.count(), 2, "{case}");
        }
    }
}

#[tokio::test]
async fn a_refresh_may_be_a_validation() {
    for over in BOTH {
        let origin = then(", stale-while-revalidate=600", || {
            Reply::new(304).cache_control("max-age=600").header("ETag", "\"v1\"").header("X-Version", "2")
        })
        .await;
        let edge = Edge::before(&origin, "").await;
        over.get(&edge, "/a").await;
        assert!(over.get(&edge, "/a").await.cache_status().contains("stale-while-revalidate"));
        eventually("the validation to take effect", async || {
            let response = over.get(&edge, "/a").await;
            assert_eq!(response.text(), "old");
            response.header("x-version") == Some("2")
        })
        .await;
        let hit = over.get(&edge, "/a").await;
        assert!(hit.is_hit() && !hit.cache_status().contains("detail=stale"), "{hit:?}");
        assert_eq!(hit.header("cache-control"), Some("max-age=600"));
        assert_eq!(origin.count(), 2);
    }
}

#[tokio::test]
async fn a_head_a_range_and_a_condition_refresh_the_whole() {
    let asks = [
        Ask::head("/a"),
        Ask::get("/a").header("Range", "bytes=1-1"),
        Ask::get("/a").header("If-None-Match", "\"v1\""),
    ];
    for over in BOTH {
        for (ask, status, body) in asks.iter().zip([200, 206, 304]).zip(["", "l", ""]).map(|((a, s), b)| (a, s, b)) {
            let origin = then(", stale-while-revalidate=600", || Reply::ok("new").cache_control("max-age=60")).await;
            let edge = Edge::before(&origin, "").await;
            over.get(&edge, "/a").await;
            let stale = over.ask(&edge, ask).await;
            assert_eq!((stale.status, stale.text()), (status, body), "{ask:?} over {over:?}: {stale:?}");
            eventually("the refresh to be stored", async || edge.get("/a").await.text() == "new").await;
            let refresh = &origin.seen()[1];
            assert!(refresh.method == "GET" && !refresh.headers.has("Range"), "{ask:?} over {over:?}: {refresh:?}");
            assert_eq!(origin.count(), 2);
        }
    }
}

#[tokio::test]
async fn a_refresh_that_fails_is_tried_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    for failure in [Reply::rst as fn() -> Reply, || Reply::new(500)] {
        let tries = tries.clone();
        tries.store(0, Ordering::Relaxed);
        let origin = then(", stale-while-revalidate=600", move || match tries.fetch_add(1, Ordering::Relaxed) {
            0..3 => failure(),
            _ => Reply::ok("new").cache_control("max-age=60"),
        })
        .await;
        let edge = edge_before(&origin, "").await;
        edge.get("/a").await;
        eventually("a refresh that succeeds", async || {
            let response = edge.get("/a").await;
            assert_eq!(response.status, 200, "{response:?}");
            response.text() == "new"
        })
        .await;
        assert_eq!(origin.count(), 5);
    }
}

#[tokio::test]
async fn a_refreshing_client_keeps_its_connection() {
    let origin = then(", stale-while-revalidate=600", || Reply::ok("new").cache_control("max-age=60")).await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        let mut client = over.connect(&edge).await;
        for i in 0..10 {
            let target = format!("/{over:?}{i}");
            assert_eq!(client.get(&target).await.text(), "old");
            assert_eq!(client.get(&target).await.text(), "old");
        }
    }
}

#[tokio::test]
async fn refreshes_in_the_background_are_bounded_over_the_process() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin =
        then(", stale-while-revalidate=600", move || Reply::ok("new").cache_control("max-age=60").hold(&at)).await;
    let yaml = Edge::yaml_before(&[&origin], "") + "cache: { background_fetches: 2 }\n";
    let edge = Edge::start(&yaml).await;
    for over in BOTH {
        for target in ["/a", "/b", "/c", "/d"] {
            over.get(&edge, target).await;
        }
    }
    for (n, target) in ["/a", "/b", "/c", "/d"].into_iter().enumerate() {
        for over in BOTH {
            let stale = over.get(&edge, target).await;
            assert_eq!((stale.status, stale.text()), (200, "old"), "{target} {over:?}: {stale:?}");
            assert!(stale.cache_status().starts_with("Foreland; hit; ttl=-"), "{target}: {stale:?}");
        }
        gate.reached((n + 1).min(2)).await;
    }
    assert_eq!(origin.count(), 4 + 2, "two refreshes, and nobody waited for a third");
    edge.wait_metrics("two at once", |m| m.metric("foreland_cache_background_fetches") == Some(2.0)).await;
    let skipped = edge.metrics().await.metric("foreland_cache_background_fetches_skipped_total");
    assert!(skipped >= Some(4.0), "{skipped:?}");
    gate.open();
    // With room again, the next request for the others brings their refresh.
    for target in ["/a", "/b", "/c", "/d"] {
        eventually("every refresh", async || edge.get(target).await.text() == "new").await;
    }
    edge.wait_metrics("none any more", |m| m.metric("foreland_cache_background_fetches") == Some(0.0)).await;
}

#[tokio::test]
async fn clients_that_want_nothing_stored_do_not_each_refresh() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin =
        then(", stale-while-revalidate=600", move || Reply::ok("new").cache_control("max-age=60").hold(&at)).await;
    let edge = Edge::before(&origin, "").await;
    edge.get("/a").await;
    for i in 0..6 {
        let ask = Ask::get("/a").header("Cache-Control", "no-store");
        let stale = BOTH[i % 2].ask(&edge, &ask).await;
        assert_eq!((stale.status, stale.text()), (200, "old"), "{stale:?}");
        gate.reached(1).await;
    }
    assert_eq!(origin.count(), 2);
    gate.open();
}
