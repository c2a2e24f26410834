//! A large response on its way to the disk: everyone who wants it has it as it comes.

use bytes::Bytes;

use super::faulty::{LITTLE_MEMORY, MIB, Scratch, object_files, text, tier};
use crate::harness::{Ask, Connection, Edge, Gate, H2Connection, Origin, Reply, eventually};
use crate::over::{BOTH, is_broken};

const PART: usize = 3 * MIB;

/// An origin whose one body comes in three parts, with a gate before the second and one before the third; and an edge.
struct Parts {
    whole: Bytes,
    gates: [Gate; 2],
    origin: Origin,
    edge: Edge,
    scratch: Scratch,
}

impl Parts {
    async fn new(chunked: bool) -> Parts {
        Parts::ending(chunked, false).await
    }

    /// With `cut`, the connection ends where the third part would begin.
    async fn ending(chunked: bool, cut: bool) -> Parts {
        let (whole, gates) = (text("whole", 3 * PART), [Gate::new(), Gate::new()]);
        let (body, [one, two]) = (whole.clone(), gates.clone());
        let origin = Origin::start(move |_| {
            let reply = Reply::ok(body.slice(..PART)).wait(&one).body(body.slice(PART..2 * PART)).wait(&two);
            let reply = if cut { reply.cut() } else { reply.body(body.slice(2 * PART..)) };
            let reply = reply.cache_control("max-age=3600");
            if chunked { reply.chunked() } else { reply.claim_length(3 * PART as u64) }
        })
        .await;
        let scratch = Scratch::new();
        let edge = scratch.edge(&origin, LITTLE_MEMORY, "size: 64MiB").await;
        Parts { whole, gates, origin, edge, scratch }
    }

    /// Sees that the answer to a request for the whole goes on with what is missing behind `had`.
    fn check(&self, case: &str, had: usize, rest: &[u8]) {
        assert!(rest == &self.whole[had..], "{case}: {} bytes behind {had}", rest.len());
    }

    async fn is_stored(&self, case: &str) {
        for over in BOTH {
            let hit = over.get(&self.edge, "/a").await;
            assert_eq!(tier(&hit), "disk", "{case}");
            self.check(case, 0, &hit.body);
        }
        assert_eq!(self.origin.count(), 1, "{case}");
        assert_eq!(object_files(&self.scratch.disk()).len(), 1, "{case}");
    }
}

#[tokio::test]
async fn followers_have_the_first_bytes_before_the_origin_sends_the_last() {
    for over in BOTH {
        for chunked in [false, true] {
            let case = format!("{over:?}, chunked: {chunked}");
            let parts = Parts::new(chunked).await;
            let mut first = over.start(&parts.edge, &Ask::get("/a")).await;
            assert!(first.bytes(PART).await == parts.whole[..PART], "{case}");
            let mut followers = Vec::new();
            for over in BOTH {
                let mut follower = over.start(&parts.edge, &Ask::get("/a")).await;
                assert!(follower.head().cache_status().contains("; collapsed"), "{case}: {:?}", follower.head());
                assert!(follower.bytes(PART).await == parts.whole[..PART], "{case}");
                followers.push(follower);
            }
            parts.gates[0].open();
            for exchange in followers.iter_mut().chain([&mut first]) {
                assert!(exchange.bytes(PART).await == parts.whole[PART..2 * PART], "{case}");
            }
            // One that comes late reads from the disk what memory has let go of.
            let mut late = over.start(&parts.edge, &Ask::get("/a")).await;
            assert!(late.bytes(2 * PART).await == parts.whole[..2 * PART], "{case}");
            followers.push(late);
            parts.gates[1].open();
            for exchange in followers.into_iter().chain([first]) {
                let rest = exchange.rest().await;
                assert!(!is_broken(rest.end), "{case}: {:?}", rest.end);
                parts.check(&case, 2 * PART, &rest.body);
            }
            parts.is_stored(&case).await;
        }
    }
}

#[tokio::test]
async fn what_memory_holds_of_it_is_a_small_part() {
    let parts = Parts::new(false).await;
    let mut first = BOTH[0].start(&parts.edge, &Ask::get("/a")).await;
    first.bytes(PART).await;
    parts.gates[0].open();
    first.bytes(PART).await;
    parts.edge.wait_metrics("little to be held", |m| m.metric("foreland_cache_fill_bytes") <= Some(MIB as f64)).await;
    assert_eq!(parts.edge.metrics().await.metric("foreland_cache_fills_in_progress"), Some(1.0));
    parts.gates[1].open();
    first.rest().await;
    parts.edge.wait_metrics("nothing to be held", |m| m.metric("foreland_cache_fill_bytes") == Some(0.0)).await;
}

#[tokio::test]
async fn a_slow_first_client_does_not_hold_the_others_back() {
    for chunked in [false, true] {
        let case = format!("chunked: {chunked}");
        let parts = Parts::new(chunked).await;
        parts.gates.iter().for_each(Gate::open);
        let slow = BOTH[0].start(&parts.edge, &Ask::get("/a")).await;
        for over in BOTH {
            let whole = over.get(&parts.edge, "/a").await;
            assert!(!is_broken(whole.end), "{case}");
            parts.check(&case, 0, &whole.body);
        }
        let rest = slow.rest().await;
        assert!(!is_broken(rest.end), "{case}: {:?}", rest.end);
        parts.check(&case, 0, &rest.body);
        parts.is_stored(&case).await;
    }
}

/// Over HTTP/2 with a window of nothing, so that not even the kernel takes anything off the edge.
#[tokio::test]
async fn a_first_client_that_takes_nothing_does_not_hold_the_others_back() {
    let parts = Parts::new(false).await;
    parts.gates.iter().for_each(Gate::open);
    let stuck = H2Connection::open_narrow(parts.edge.h2c_address(), 0).await;
    let held = stuck.start(&Ask::get("/a")).await;
    for over in BOTH {
        let whole = over.get(&parts.edge, "/a").await;
        assert!(!is_broken(whole.end), "{over:?}");
        parts.check("beside one that is stuck", 0, &whole.body);
    }
    eventually("it to be stored", async || object_files(&parts.scratch.disk()).len() == 1).await;
    drop(held);
    parts.is_stored("beside one that is stuck").await;
}

#[tokio::test]
async fn ranges_of_what_is_still_coming() {
    for over in BOTH {
        let parts = Parts::new(false).await;
        let mut first = over.start(&parts.edge, &Ask::get("/a")).await;
        first.bytes(PART).await;
        let range = |from: usize, to: usize| Ask::get("/a").header("Range", format!("bytes={from}-{}", to - 1));
        // What has come is there to be had: from the disk, and what memory still has.
        for (from, to) in [(100, 200), (0, 2 * MIB), (PART - 1000, PART)] {
            let early = over.ask(&parts.edge, &range(from, to)).await;
            assert_eq!(early.status, 206, "{over:?}");
            assert!(early.body == parts.whole[from..to], "{over:?}: {from} to {to}: {}", early.body.len());
        }
        // What has not is waited for, but not for more than that.
        let (from, to) = (PART + MIB, PART + MIB + 5000);
        let beyond = over.start(&parts.edge, &range(from, to)).await;
        assert_eq!(beyond.head().status, 206, "{over:?}");
        let across = over.start(&parts.edge, &range(PART - 100, 2 * PART - 100)).await;
        parts.gates[0].open();
        let beyond = beyond.rest().await;
        assert!(!is_broken(beyond.end) && beyond.body == parts.whole[from..to], "{over:?}: {}", beyond.body.len());
        let across = across.rest().await;
        assert!(across.body == parts.whole[PART - 100..2 * PART - 100], "{over:?}: {}", across.body.len());
        let last = over.start(&parts.edge, &Ask::get("/a").header("Range", "bytes=-10")).await;
        parts.gates[1].open();
        let last = last.rest().await;
        assert!((last.status, &last.body[..]) == (206, &parts.whole[3 * PART - 10..]), "{over:?}");
        parts.check("the first", PART, &first.rest().await.body);
        parts.is_stored(&format!("{over:?}")).await;
    }
}

#[tokio::test]
async fn an_origin_that_fails_breaks_off_for_all() {
    for over in BOTH {
        for chunked in [false, true] {
            let case = format!("{over:?}, chunked: {chunked}");
            let parts = Parts::ending(chunked, true).await;
            let mut clients = vec![over.start(&parts.edge, &Ask::get("/a")).await];
            clients[0].bytes(PART).await;
            for over in BOTH {
                clients.push(over.start(&parts.edge, &Ask::get("/a")).await);
            }
            if !chunked {
                let range = Ask::get("/a").header("Range", format!("bytes={}-", 3 * PART - 1000));
                clients.push(over.start(&parts.edge, &range).await);
            }
            parts.gates.iter().for_each(Gate::open);
            for client in clients {
                let end = client.rest().await.end;
                assert!(is_broken(end), "{case}: {end:?}");
            }
            assert_eq!(parts.origin.count(), 1, "{case}");
            assert!(object_files(&parts.scratch.disk()).is_empty(), "{case}");
            parts.edge.wait_metrics("no fill", |m| m.metric("foreland_cache_fills_in_progress") == Some(0.0)).await;
            parts.origin.answer(|_| Reply::ok("whole again").cache_control("max-age=60"));
            assert_eq!(parts.edge.get("/a").await.text(), "whole again", "{case}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_what_others_follow() {
    for over in BOTH {
        for chunked in [false, true] {
            let case = format!("{over:?}, chunked: {chunked}");
            let parts = Parts::new(chunked).await;
            let mut first = over.start(&parts.edge, &Ask::get("/a")).await;
            first.bytes(PART).await;
            let mut follower = over.start(&parts.edge, &Ask::get("/a")).await;
            follower.bytes(1000).await;
            let mut leaver = over.start(&parts.edge, &Ask::get("/a")).await;
            leaver.bytes(1000).await;
            first.leave();
            leaver.leave();
            parts.gates[0].open();
            let mut late = over.start(&parts.edge, &Ask::get("/a")).await;
            assert!(late.bytes(2 * PART).await[..2 * PART] == parts.whole[..2 * PART], "{case}");
            parts.gates[1].open();
            for (name, exchange) in [("follower", follower), ("late", late)] {
                let rest = exchange.rest().await;
                assert!(!is_broken(rest.end), "{case}, {name}: {:?}", rest.end);
                assert!(parts.whole.ends_with(&rest.body), "{case}, {name}");
            }
            parts.is_stored(&case).await;
        }
    }
}

/// A response's last bytes reach nobody before all of it is on the disk: what a client has had whole is there to stay.
#[tokio::test]
async fn the_end_waits_for_the_disk() {
    for len in [100_000, PART] {
        let whole = text("whole", len);
        let body = whole.clone();
        let origin = Origin::start(move |_| Reply::ok(body.clone()).cache_control("max-age=3600")).await;
        let scratch = Scratch::new();
        let edge = scratch.edge(&origin, LITTLE_MEMORY, "size: 64MiB").await;
        scratch.fault("publish delay=100ms\n");
        let mut client: Connection = edge.connect().await;
        for n in 0..3 {
            let response = client.ask(&Ask::get(&format!("/{n}"))).await;
            assert!(response.body == whole);
            assert_eq!(object_files(&scratch.disk()).len(), n + 1, "of {len} bytes each");
        }
    }
}
