//! Objects that are too large to keep, objects that are too many, and what either costs in memory.

use std::fs;

use bytes::Bytes;

use crate::harness::{Ask, Edge, End, Gate, Origin, Reply};
use crate::over::{BOTH, Over, all};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The YAML of an edge with a memory tier of this size for objects up to 64 KiB.
fn small_tier(origin: &Origin, size: &str) -> String {
    let cache = format!("cache:\n  memory: {{ size: {size}, max_object: 64KiB }}\n");
    cache + &Edge::yaml_before(&[origin], "")
}

fn body(path: &str, len: usize) -> Vec<u8> {
    path.bytes().chain(std::iter::repeat(b'.')).take(len).collect()
}

#[tokio::test]
async fn what_is_known_to_be_too_large_streams_and_is_not_stored() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |_| {
        let reply = Reply::ok(vec![b'a'; 64 * KIB]).wait(&at).body(vec![b'b'; 64 * KIB]);
        reply.claim_length(128 << 10).cache_control("max-age=60")
    })
    .await;
    let edge = Edge::start(&small_tier(&origin, "8MiB")).await;
    let first = edge.ask(&Ask::head("/a")).await;
    assert!(first.cache_status().contains("detail=too-large"), "{first:?}");
    // Four at once, each in the middle of its body: nobody waits for anybody.
    let mut exchanges = Vec::new();
    for over in [BOTH[0], BOTH[1], BOTH[0], BOTH[1]] {
        let mut exchange = over.start(&edge, &Ask::get("/a")).await;
        assert!(!exchange.head().cache_status().contains("stored"), "{over:?}: {:?}", exchange.head());
        assert_eq!(exchange.head().header("content-length"), Some("131072"), "{over:?}");
        exchange.bytes(64 * KIB).await;
        exchanges.push(exchange);
    }
    assert_eq!(origin.count(), 5);
    gate.open();
    for exchange in exchanges {
        assert_eq!(exchange.rest().await.text().len(), 64 * KIB);
    }
    assert!(!edge.get("/a").await.is_hit());
    assert_eq!(edge.metrics().await.metric("foreland_cache_objects{tier=\"memory\"}"), Some(0.0));
}

#[tokio::test]
async fn the_largest_that_fits_is_stored() {
    let origin = Origin::start(|r| {
        let len: usize = r.query().and_then(|q| q.parse().ok()).expect("a length");
        let reply = Reply::ok(body("x", len)).cache_control("max-age=60");
        if r.path() == "/chunked" { reply.chunked() } else { reply }
    })
    .await;
    let edge = Edge::start(&small_tier(&origin, "8MiB")).await;
    for over in BOTH {
        for path in ["/length", "/chunked"] {
            for (len, stored) in [(64 * KIB, true), (64 * KIB + 1, false)] {
                let target = format!("{path}?{len}");
                for _ in 0..2 {
                    assert_eq!(over.get(&edge, &target).await.text().len(), len, "{target} over {over:?}");
                }
                assert_eq!(over.get(&edge, &target).await.is_hit(), stored, "{target} over {over:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_turns_out_too_large_is_whole_for_all_and_not_stored() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |_| {
        let reply = Reply::ok(vec![b'a'; 32 * KIB]).chunked().cache_control("max-age=60").wait(&at);
        (0..16).fold(reply, |reply, _| reply.body(vec![b'b'; 32 * KIB]))
    })
    .await;
    let edge = Edge::start(&small_tier(&origin, "8MiB")).await;
    let mut exchanges = Vec::new();
    for over in [BOTH[0], BOTH[1], BOTH[0], BOTH[1]] {
        let mut exchange = over.start(&edge, &Ask::get("/a")).await;
        assert_eq!(exchange.bytes(32 * KIB).await, vec![b'a'; 32 * KIB]);
        exchanges.push((over, exchange));
    }
    assert_eq!(origin.count(), 1, "as long as it might be stored, they share it");
    gate.open();
    let rests = all(exchanges.into_iter().map(async |(over, exchange)| (over, exchange.rest().await))).await;
    for (over, rest) in rests {
        assert_eq!((rest.end, rest.body.len()), (End::Clean, 512 * KIB), "{over:?}");
        assert!(rest.body.iter().all(|b| *b == b'b'));
    }
    assert!(!edge.get("/a").await.is_hit());
    assert_eq!(edge.metrics().await.metric("foreland_cache_objects{tier=\"memory\"}"), Some(0.0));
}

/// What a process has had in memory at most, and has now, in bytes.
fn memory(edge: &Edge) -> (usize, usize) {
    let status = fs::read_to_string(format!("/proc/{}/status", edge.pid().as_raw_nonzero())).expect("a status");
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("the field");
        let kib: usize = line.trim().trim_end_matches(" kB").trim().parse().expect("a number of kB");
        kib * KIB
    };
    (field("VmHWM:"), field("VmRSS:"))
}

/// A transfer of 300 MiB, made on the fly; the client stops reading in the middle until the origin can send no more.
async fn transfer(over: Over, chunked: bool) {
    const PIECE: usize = 256 * KIB;
    const PIECES: usize = 1200;
    let half = Gate::new();
    let at = half.clone();
    let origin = Origin::start(move |r| {
        if r.path() != "/large" {
            return Reply::ok(vec![b'w'; 32 * KIB]).cache_control("max-age=60");
        }
        let piece = Bytes::from(vec![b'x'; PIECE]);
        let reply = (0..PIECES).fold(Reply::new(200).cache_control("max-age=60"), |reply, n| {
            let reply = reply.body(piece.clone());
            if n == PIECES / 2 { reply.wait(&at) } else { reply }
        });
        if chunked { reply.chunked() } else { reply }
    })
    .await;
    let edge = Edge::start(&small_tier(&origin, "8MiB")).await;
    for i in 0..20 {
        over.get(&edge, &format!("/warm{i}")).await;
    }
    let (_, before) = memory(&edge);
    let mut exchange = over.start(&edge, &Ask::get("/large")).await;
    let mut came = exchange.bytes(PIECES / 2 * PIECE).await.len();
    half.reached(1).await;
    half.open();
    // Nobody reads for a while: what the edge takes from the origin in the meantime it must hold. That it takes
    // nothing cannot be waited for, only looked at.
    let mut most = 0;
    for _ in 0..50 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        most = most.max(memory(&edge).1);
    }
    while let Some(piece) = exchange.chunk().await.expect("the whole") {
        assert!(piece.iter().all(|b| *b == b'x'));
        came += piece.len();
    }
    assert_eq!(came, PIECES * PIECE, "{over:?}, chunked: {chunked}");
    let (peak, after) = memory(&edge);
    let grown = peak.saturating_sub(before).max(most.saturating_sub(before));
    assert!(grown < 16 * MIB, "{over:?}, chunked: {chunked}: from {before} to {peak}, {after} afterwards");
    assert!(!edge.ask(&Ask::head("/large")).await.is_hit());
}

#[tokio::test]
async fn a_large_transfer_with_a_length_costs_little_memory() {
    transfer(Over::Http1, false).await;
}

#[tokio::test]
async fn a_large_transfer_in_chunks_costs_little_memory() {
    transfer(Over::Http1, true).await;
}

#[tokio::test]
async fn a_large_transfer_over_http2_costs_little_memory() {
    transfer(Over::Http2, false).await;
}

#[tokio::test]
async fn a_large_transfer_in_chunks_over_http2_costs_little_memory() {
    transfer(Over::Http2, true).await;
}

/// So many pieces of 256 KiB after what the reply has already.
fn in_pieces(reply: Reply, count: usize) -> Reply {
    let piece = Bytes::from(vec![b'x'; 256 * KIB]);
    (0..count).fold(reply, |reply, _| reply.body(piece.clone()))
}

/// 40 MiB in chunks, and an edge that keeps nothing of it.
async fn long_chunked() -> (Origin, Edge) {
    let origin = Origin::start(|_| {
        let reply = Reply::new(200).chunked().cache_control("max-age=60");
        in_pieces(reply.body("x"), 160)
    })
    .await;
    let edge = Edge::start(&small_tier(&origin, "8MiB")).await;
    (origin, edge)
}

#[tokio::test]
async fn a_follower_that_stops_does_not_hold_up_the_first_client() {
    for over in BOTH {
        let gate = Gate::new();
        let at = gate.clone();
        let (origin, edge) = long_chunked().await;
        origin.answer(move |_| {
            let reply = Reply::ok("x").chunked().cache_control("max-age=60").wait(&at);
            in_pieces(reply, 160)
        });
        let mut first = over.start(&edge, &Ask::get("/a")).await;
        first.bytes(1).await;
        let mut stopped = over.start(&edge, &Ask::get("/a")).await;
        stopped.bytes(1).await;
        gate.open();
        let first = first.rest().await;
        assert_eq!((first.end, first.body.len()), (End::Clean, 40 * MIB), "{over:?}");
        // The one that stopped gets the whole, or is told that it does not.
        let rest = stopped.rest().await;
        assert!(rest.end != End::Clean || rest.body.len() == 40 * MIB, "{over:?}: {}", rest.body.len());
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_large_transfer_lets_go_of_the_origin() {
    for over in BOTH {
        let (origin, edge) = long_chunked().await;
        let mut client = over.start(&edge, &Ask::get("/a")).await;
        client.bytes(MIB).await;
        client.leave();
        origin.wait_for_open(0).await;
        let nothing = |m: &crate::harness::Metrics| m.metric("foreland_cache_fill_bytes") == Some(0.0);
        edge.wait_metrics("nothing held", nothing).await;
    }
}

#[tokio::test]
async fn a_first_client_that_leaves_does_not_end_a_large_transfer_for_a_follower() {
    for over in BOTH {
        let gate = Gate::new();
        let at = gate.clone();
        let (origin, edge) = long_chunked().await;
        origin.answer(move |_| {
            let reply = Reply::ok("x").chunked().cache_control("max-age=60").wait(&at);
            in_pieces(reply, 40)
        });
        let mut first = over.start(&edge, &Ask::get("/a")).await;
        first.bytes(1).await;
        let mut follower = over.start(&edge, &Ask::get("/a")).await;
        follower.bytes(1).await;
        gate.open();
        first.bytes(MIB).await;
        first.leave();
        let follower = follower.rest().await;
        assert_eq!((follower.end, follower.body.len()), (End::Clean, 10 * MIB), "{over:?}");
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn the_memory_tier_keeps_its_bounds() {
    let origin = Origin::start(|r| Reply::ok(body(r.path(), 20 * KIB)).cache_control("max-age=600")).await;
    let edge = Edge::start(&small_tier(&origin, "4MiB")).await;
    let mut client = edge.connect().await;
    let mut hits = 0;
    for round in 0..2 {
        for i in 0..600 {
            // One in four is popular.
            let path = if i % 4 == 0 { format!("/popular{}", i % 64) } else { format!("/{round}-{i}") };
            let response = client.ask(&Ask::get(&path)).await;
            assert_eq!(response.text().as_bytes(), body(&path, 20 * KIB), "{path}");
            hits += usize::from(response.is_hit());
        }
        let metrics = edge.metrics().await;
        let of = |name: &str| metrics.metric(&format!("{name}{{tier=\"memory\"}}")).expect(name);
        let capacity = of("foreland_cache_capacity_bytes");
        assert!(capacity <= (4 * MIB) as f64, "{capacity}");
        assert!(of("foreland_cache_bytes") <= capacity, "{} of {capacity}", of("foreland_cache_bytes"));
        assert!(of("foreland_cache_bytes") > capacity / 2.0, "room is used");
        assert!(of("foreland_cache_objects") > 50.0 && of("foreland_cache_evictions_total") > 200.0);
    }
    assert!(hits > 200, "the popular stay: {hits} hits");
}

#[tokio::test]
async fn a_client_that_reads_late_gets_what_outgrew_the_tier_in_order_and_whole() {
    const PIECES: usize = 96;
    let piece = |n: usize| vec![b'a' + (n % 26) as u8; 256 * KIB];
    let origin = Origin::start(move |_| {
        let reply = Reply::new(200).chunked().cache_control("max-age=60");
        (0..PIECES).fold(reply, |reply, n| reply.body(piece(n)))
    })
    .await;
    let cache = "cache:\n  memory: { size: 64MiB, max_object: 12MiB }\n".to_owned();
    let edge = Edge::start(&(cache + &Edge::yaml_before(&[&origin], ""))).await;
    let mut client = edge.connect().await;
    client.send(Ask::get("/a").bytes()).await;
    let head = client.head("GET").await;
    // The socket is full long before the fill, which runs on until it is too large: in the middle of a write.
    let outgrown = "foreland_cache_admissions_rejected_total{tier=\"memory\",reason=\"too-large\"}";
    edge.wait_metrics("the fill outgrows the tier", |m| m.metric(outgrown) == Some(1.0)).await;
    let response = client.rest(head).await;
    assert_eq!((response.end, response.body.len()), (End::Clean, PIECES * 256 * KIB));
    let wrong = response.body.chunks(256 * KIB).zip(0..).position(|(got, n)| got != piece(n));
    assert_eq!(wrong, None, "a piece out of its place");
}
