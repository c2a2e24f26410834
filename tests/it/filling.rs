//! A response that is still coming: streamed to everyone who wants it, stored when it is whole, broken where it breaks.

use crate::harness::{Ask, Edge, End, Gate, Origin, Reply};
use crate::over::{BOTH, is_broken};

/// An origin whose one answer has two halves of 8 KiB, with a gate between them; `end` says how it goes on.
async fn halves(chunked: bool, gate: &Gate, end: fn(Reply) -> Reply) -> Origin {
    let gate = gate.clone();
    Origin::start(move |_| {
        let reply = Reply::ok(half('a')).cache_control("max-age=60").wait(&gate);
        end(if chunked { reply.chunked() } else { reply.claim_length(16 << 10) })
    })
    .await
}

fn half(letter: char) -> String {
    letter.to_string().repeat(8 << 10)
}

fn whole() -> String {
    half('a') + &half('b')
}

#[tokio::test]
async fn the_first_bytes_arrive_before_the_origin_has_sent_the_last() {
    for first_over in BOTH {
        for second_over in BOTH {
            for chunked in [false, true] {
                let case = format!("{first_over:?}, then {second_over:?}, chunked: {chunked}");
                let gate = Gate::new();
                let origin = halves(chunked, &gate, |r| r.body(half('b'))).await;
                let edge = Edge::before(&origin, "").await;
                let mut first = first_over.start(&edge, &Ask::get("/a")).await;
                assert_eq!(first.bytes(8 << 10).await, half('a').as_bytes(), "{case}");
                let mut second = second_over.start(&edge, &Ask::get("/a")).await;
                assert!(second.head().cache_status().contains("; collapsed"), "{case}: {:?}", second.head());
                assert_eq!(second.bytes(8 << 10).await, half('a').as_bytes(), "{case}");
                gate.open();
                for exchange in [first, second] {
                    assert_eq!(exchange.rest().await.text(), half('b'), "{case}");
                }
                let hit = second_over.get(&edge, "/a").await;
                assert!(hit.is_hit() && hit.text() == whole(), "{case}");
                assert_eq!(origin.count(), 1, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_follower_is_told_the_length_as_early_as_the_first_client() {
    let gate = Gate::new();
    let origin = halves(false, &gate, |r| r.body(half('b'))).await;
    let edge = Edge::before(&origin, "").await;
    let mut first = BOTH[0].start(&edge, &Ask::get("/a")).await;
    first.bytes(8 << 10).await;
    for over in BOTH {
        let follower = over.start(&edge, &Ask::get("/a")).await;
        assert_eq!(follower.head().header("content-length"), Some("16384"), "{over:?}");
        let head = over.ask(&edge, &Ask::head("/a")).await;
        assert_eq!((head.status, head.header("content-length")), (200, Some("16384")), "{over:?}");
    }
    gate.open();
    assert_eq!(first.rest().await.text(), half('b'));
}

#[tokio::test]
async fn a_range_of_what_is_still_coming() {
    for over in BOTH {
        let gate = Gate::new();
        let origin = halves(false, &gate, |r| r.body(half('b'))).await;
        let edge = Edge::before(&origin, "").await;
        let mut first = over.start(&edge, &Ask::get("/a")).await;
        first.bytes(8 << 10).await;
        // What has come already is there to be had.
        let early = over.ask(&edge, &Ask::get("/a").header("Range", "bytes=100-199")).await;
        assert_eq!((early.status, early.text()), (206, "a".repeat(100).as_str()), "{over:?}");
        let late = over.start(&edge, &Ask::get("/a").header("Range", "bytes=8190-8193")).await;
        let beyond = over.ask(&edge, &Ask::get("/a").header("Range", "bytes=16384-")).await;
        assert_eq!(beyond.status, 416, "{over:?}: {beyond:?}");
        gate.open();
        let late = late.rest().await;
        assert_eq!((late.status, late.text()), (206, "aabb"), "{over:?}");
        assert_eq!(late.header("content-range"), Some("bytes 8190-8193/16384"));
        assert_eq!(first.rest().await.text(), half('b'));
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn an_origin_that_breaks_off_breaks_off_for_all() {
    type End = fn(Reply) -> Reply;
    let ends: [(&str, End); 2] = [("cut", |r| r.body("b").cut()), ("reset", |r| r.reset())];
    for (how, end) in ends {
        for chunked in [false, true] {
            let gate = Gate::new();
            let origin = halves(chunked, &gate, end).await;
            let edge = Edge::before(&origin, "").await;
            let mut clients = Vec::new();
            for over in [BOTH[0], BOTH[1], BOTH[0], BOTH[1]] {
                let mut client = over.start(&edge, &Ask::get("/a")).await;
                client.bytes(8 << 10).await;
                clients.push((over, client));
            }
            gate.open();
            for (over, client) in clients {
                let end = client.rest().await.end;
                assert!(is_broken(end), "{how}, chunked: {chunked}, {over:?}: {end:?}");
            }
            assert_eq!(origin.count(), 1);
            origin.answer(|_| Reply::ok("whole again").cache_control("max-age=60"));
            let next = edge.get("/a").await;
            assert_eq!((next.is_hit(), next.text()), (false, "whole again"), "nothing was stored");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_does_not_end_a_fill_that_another_follows() {
    for over in BOTH {
        for chunked in [false, true] {
            let case = format!("{over:?}, chunked: {chunked}");
            let gate = Gate::new();
            let origin = halves(chunked, &gate, |r| r.body(half('b'))).await;
            let edge = Edge::before(&origin, "").await;
            let mut first = over.start(&edge, &Ask::get("/a")).await;
            first.bytes(8 << 10).await;
            let mut follower = over.start(&edge, &Ask::get("/a")).await;
            follower.bytes(8 << 10).await;
            first.leave();
            // The edge has noticed: only the follower is in flight in the log's eyes, or the first is over.
            gate.open();
            let follower = follower.rest().await;
            assert_eq!((follower.end, follower.text()), (End::Clean, half('b').as_str()), "{case}");
            let hit = over.get(&edge, "/a").await;
            assert!(hit.is_hit() && hit.text() == whole(), "{case}: {}", hit.cache_status());
            assert_eq!(origin.count(), 1, "{case}");
        }
    }
}

#[tokio::test]
async fn a_client_that_left_long_ago_does_not_end_the_fill_either() {
    for over in BOTH {
        let (one, two) = (Gate::new(), Gate::new());
        let (at_one, at_two) = (one.clone(), two.clone());
        let origin = Origin::start(move |_| {
            let reply = Reply::ok("1").wait(&at_one).body("2").body("x".repeat(1 << 20)).wait(&at_two).body("3");
            reply.cache_control("max-age=60")
        })
        .await;
        let edge = Edge::before(&origin, "cache: { ttl: 1m }").await;
        let mut first = over.start(&edge, &Ask::get("/a")).await;
        first.bytes(1).await;
        let mut follower = over.start(&edge, &Ask::get("/a")).await;
        follower.bytes(1).await;
        first.leave();
        one.open();
        // So much more has come since that the edge must have tried to send it to the one who left.
        follower.bytes(1 + (1 << 20)).await;
        two.open();
        assert_eq!(follower.rest().await.text(), "3", "{over:?}");
    }
}

#[tokio::test]
async fn a_follower_that_leaves_does_not_end_the_fill() {
    for over in BOTH {
        let gate = Gate::new();
        let origin = halves(true, &gate, |r| r.body(half('b'))).await;
        let edge = Edge::before(&origin, "").await;
        let mut first = over.start(&edge, &Ask::get("/a")).await;
        first.bytes(8 << 10).await;
        let mut follower = over.start(&edge, &Ask::get("/a")).await;
        follower.bytes(100).await;
        follower.leave();
        gate.open();
        assert_eq!(first.rest().await.text(), half('b'), "{over:?}");
        assert!(edge.get("/a").await.is_hit());
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn no_fill_is_left_behind() {
    let gate = Gate::new();
    let origin = halves(true, &gate, |r| r.body(half('b'))).await;
    let edge = Edge::before(&origin, "").await;
    let fills = |n: f64| move |m: &crate::harness::Metrics| m.metric("foreland_cache_fills_in_progress") == Some(n);
    let mut client = BOTH[0].start(&edge, &Ask::get("/a")).await;
    client.bytes(8 << 10).await;
    edge.wait_metrics("a fill in progress", fills(1.0)).await;
    assert!(edge.metrics().await.metric("foreland_cache_fill_bytes") >= Some(8192.0));
    gate.open();
    client.rest().await;
    edge.wait_metrics("no fill in progress", fills(0.0)).await;
    origin.answer(|_| Reply::ok("x").chunked().cache_control("max-age=60").cut());
    let broken = edge.get("/b").await;
    assert!(broken.status == 502 || is_broken(broken.end), "{broken:?}");
    edge.wait_metrics("no fill in progress", fills(0.0)).await;
    edge.wait_metrics("nothing held", |m| m.metric("foreland_cache_fill_bytes") == Some(0.0)).await;
}
