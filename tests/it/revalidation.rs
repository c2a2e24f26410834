//! A stale response: validated, freshened, replaced; and what the client's own directives ask for.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Ask, Edge, Gate, Origin, Reply, Request, eventually};
use crate::over::{BOTH, Over, all};

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// An origin whose answer to a validation is `second`, and to everything else a response that is stale as it arrives.
async fn stale_on_arrival(second: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Origin {
    Origin::start(move |r| {
        if r.headers.has("If-None-Match") || r.headers.has("If-Modified-Since") {
            return second(r);
        }
        first()
    })
    .await
}

fn first() -> Reply {
    Reply::ok("first")
        .cache_control("max-age=60")
        .header("Age", "60")
        .header("ETag", "\"v1\"")
        .header("Last-Modified", MODIFIED)
        .header("X-Version", "1")
        .header("X-Only-In-First", "yes")
}

#[tokio::test]
async fn a_stale_response_is_validated_and_freshened() {
    for over in BOTH {
        let origin = stale_on_arrival(|_| {
            Reply::new(304)
                .cache_control("max-age=600")
                .header("ETag", "\"v1\"")
                .header("X-Version", "2")
                .header("Date", crate::harness::http_date(0))
        })
        .await;
        let edge = Edge::before(&origin, "").await;
        let mut client = over.connect(&edge).await;
        assert!(client.get("/a").await.cache_status().contains("; stored"));

        let second = client.get("/a").await;
        assert_eq!((second.status, second.text()), (200, "first"), "{over:?}");
        assert!(second.cache_status().starts_with("Foreland; fwd=stale; fwd-status=304; stored; ttl="), "{second:?}");
        let seen = &origin.seen()[1];
        assert_eq!((seen.header("if-none-match"), seen.header("if-modified-since")), (Some("\"v1\""), Some(MODIFIED)));

        let third = client.get("/a").await;
        assert!(third.is_hit() && third.text() == "first", "{third:?}");
        for response in [&second, &third] {
            assert_eq!(response.headers.all("X-Version"), ["2"], "{over:?}: {response:?}");
            assert_eq!(response.headers.all("Cache-Control"), ["max-age=600"], "{over:?}: {response:?}");
            assert_eq!(response.headers.all("X-Only-In-First"), ["yes"], "{over:?}: {response:?}");
            assert_eq!(response.headers.all("ETag"), ["\"v1\""]);
            assert!(response.age().unwrap_or(0) < 30, "the age begins anew: {response:?}");
        }
        assert_eq!(origin.count(), 2);
        let log = edge.access_log_lines(3).await;
        let mut outcomes: Vec<_> = log.iter().filter_map(|l| l["cache"].as_str()).collect();
        outcomes.sort();
        assert_eq!(outcomes, ["hit", "miss", "revalidated"], "{log:?}");
    }
}

#[tokio::test]
async fn a_client_that_has_the_stale_response_gets_304_once_it_is_validated() {
    for over in BOTH {
        let origin = stale_on_arrival(|_| Reply::new(304).cache_control("max-age=600").header("ETag", "\"v1\"")).await;
        let edge = Edge::before(&origin, "").await;
        let mut client = over.connect(&edge).await;
        client.get("/a").await;
        let second = client.ask(&Ask::get("/a").header("If-None-Match", "\"v1\"")).await;
        assert_eq!((second.status, second.text()), (304, ""), "{over:?}");
        assert!(client.get("/a").await.is_hit());

        // One that has another version gets the whole, though the origin said 304 to the edge.
        client.get("/b").await;
        let other = client.ask(&Ask::get("/b").header("If-None-Match", "\"v0\"")).await;
        assert_eq!((other.status, other.text()), (200, "first"), "{over:?}");
        assert_eq!(origin.seen()[3].headers.all("If-None-Match"), ["\"v1\""], "the edge's validator, not the client's");
    }
}

#[tokio::test]
async fn a_changed_response_replaces_the_stale_one() {
    for over in BOTH {
        let origin =
            stale_on_arrival(|_| Reply::ok("second").cache_control("max-age=60").header("ETag", "\"v2\"")).await;
        let edge = Edge::before(&origin, "").await;
        let mut client = over.connect(&edge).await;
        assert_eq!(client.get("/a").await.text(), "first");
        let second = client.get("/a").await;
        assert_eq!(second.text(), "second", "{over:?}");
        assert!(second.cache_status().starts_with("Foreland; fwd=stale; fwd-status=200; stored; ttl="), "{second:?}");
        let third = client.get("/a").await;
        assert!(third.is_hit() && third.text() == "second", "{third:?}");
        assert!(!third.headers.has("X-Only-In-First") && third.header("etag") == Some("\"v2\""), "{third:?}");
        assert_eq!(origin.count(), 2);
    }
}

#[tokio::test]
async fn a_change_that_may_not_be_stored_is_not_mixed_with_what_was() {
    for over in BOTH {
        let origin = stale_on_arrival(|_| Reply::ok("second").cache_control("no-store")).await;
        let edge = Edge::before(&origin, "").await;
        assert_eq!(over.get(&edge, "/a").await.text(), "first");
        for _ in 0..2 {
            let response = over.get(&edge, "/a").await;
            assert_eq!((response.status, response.text()), (200, "second"), "{over:?}");
            assert!(!response.headers.has("X-Only-In-First"));
        }
    }
}

#[tokio::test]
async fn no_cache_is_validated_each_time() {
    let origin = Origin::start(|r| match r.headers.has("If-None-Match") {
        true => Reply::new(304).cache_control("no-cache").header("ETag", "\"v1\""),
        false => Reply::ok("x").cache_control("no-cache").header("ETag", "\"v1\""),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        for _ in 0..2 {
            assert_eq!(over.get(&edge, "/a").await.text(), "x", "{over:?}");
        }
    }
    let conditional: Vec<_> = origin.seen().iter().map(|r| r.headers.has("If-None-Match")).collect();
    assert_eq!(conditional, [false, true, true, true]);
}

#[tokio::test]
async fn those_who_wait_for_a_validation_share_it() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin =
        stale_on_arrival(move |_| Reply::new(304).cache_control("max-age=600").header("ETag", "\"v1\"").hold(&at))
            .await;
    let edge = Edge::before(&origin, "").await;
    edge.get("/a").await;
    let asks = (0..10).map(|i| BOTH[i % 2]).map(|over: Over| over.get(&edge, "/a"));
    let (responses, ()) = tokio::join!(all(asks), async {
        edge.wait_metrics("10 requests in flight", |m| m.sum("foreland_requests_in_flight", &[]) == 10.0).await;
        gate.open();
    });
    for response in &responses {
        assert_eq!((response.status, response.text()), (200, "first"), "{response:?}");
    }
    assert_eq!(origin.count(), 2, "the first and one validation");
}

#[tokio::test]
async fn the_client_may_ask_for_a_validation() {
    let served = AtomicUsize::new(0);
    let origin = Origin::start(move |_| {
        Reply::ok(served.fetch_add(1, Ordering::Relaxed).to_string())
            .cache_control("max-age=60")
            .header("ETag", "\"x\"")
    })
    .await;
    let site = "routes:\n  - match: { path: /deaf }\n    cache: { ignore_client_cache_control: true }";
    let edge = Edge::before(&origin, site).await;
    for (name, value) in [("Cache-Control", "no-cache"), ("Cache-Control", "max-age=0")] {
        for over in BOTH {
            let mut client = over.connect(&edge).await;
            let before: usize = client.get("/a").await.text().parse().expect("a number");
            // An age of zero is not older than zero.
            if value == "max-age=0" {
                eventually("a positive age", async || edge.get("/a").await.age().is_some_and(|age| age > 0)).await;
            }
            let ask = |target| Ask::get(target).header(name, value);
            let forced = client.ask(&ask("/a")).await;
            assert_eq!(forced.text(), (before + 1).to_string(), "{name}: {value} over {over:?}");
            assert!(forced.cache_status().starts_with("Foreland; fwd=request; fwd-status=200; stored"), "{forced:?}");
            let after = client.get("/a").await;
            assert!(after.is_hit() && after.text() == (before + 1).to_string(), "{after:?}");
        }
    }
    edge.get("/deaf").await;
    assert!(edge.ask(&Ask::get("/deaf").header("Cache-Control", "no-cache")).await.is_hit());
}

#[tokio::test]
async fn only_if_cached_never_reaches_the_origin() {
    let origin = Origin::start(|r| match r.path() {
        "/stale" => first(),
        _ => Reply::ok("x").cache_control("max-age=60"),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    edge.get("/stale").await;
    for over in BOTH {
        let mut client = over.connect(&edge).await;
        let ask = |target| Ask::get(target).header("Cache-Control", "only-if-cached");
        for target in ["/a", "/stale"] {
            let before = origin.count();
            let response = client.ask(&ask(target)).await;
            assert_eq!(response.status, 504, "{target} over {over:?}: {response:?}");
            assert_eq!(origin.count(), before);
        }
        // Nobody has to wait because of it, and the connection goes on.
        assert_eq!(client.get(&format!("/b{over:?}")).await.text(), "x");
        let stored = client.ask(&ask(&format!("/b{over:?}"))).await;
        assert!(stored.is_hit() && stored.text() == "x", "{stored:?}");
        assert_eq!(client.get("/stale").await.text(), "first");
    }
}

#[tokio::test]
async fn a_request_with_no_store_leaves_nothing_behind() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=60")).await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        let target = format!("/{over:?}");
        let ask = Ask::get(&target).header("Cache-Control", "no-store");
        let response = over.ask(&edge, &ask).await;
        assert!(response.text() == "x" && response.cache_status().contains("detail=request-no-store"), "{response:?}");
        assert!(!over.get(&edge, &target).await.is_hit(), "{over:?}");
        assert!(over.get(&edge, &target).await.is_hit(), "{over:?}");
    }
}
