//! Purges while answers are under way: what began before one is not served to whoever comes after it, now or later.

use serde_json::{Value, json};

use super::{Pending, Stage, TIERS, Tier, before, is_stored, purge, settled, softly, tag, url};
use crate::harness::{Ask, Edge, End, Reply};
use crate::over::{BOTH, Over};

/// Ways to purge what is under way for a target, which is its own tag too.
fn ways(target: &str) -> [(&'static str, Value); 3] {
    [("url", url(target)), ("tag", tag(target)), ("host", json!({ "hosts": ["edge.test"] }))]
}

/// Whether the answer from before the purge ends before somebody asks after it, or goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    First,
    Last,
}

/// Somebody asks for a target after its purge, while the answer from before is held: it may be waited for until its head
/// is there, but is not what anybody gets.
async fn ask_after(edge: &Edge, over: Over, target: &str, in_flight: f64) -> Pending {
    let pending = Pending::get(over, edge, target).await;
    edge.wait_metrics("the request", |m| m.sum("foreland_requests_in_flight", &[]) >= in_flight).await;
    pending
}

/// A scene for each tier, protocol, way to purge and order, on an edge for each tier. `scene` is given a target of its own.
async fn scenes(stage: &Stage, mut scene: impl AsyncFnMut(&Edge, Over, &str, Value, Ends)) {
    for tier in TIERS {
        let edge = before(&stage.origin, tier, "").await;
        for over in BOTH {
            for ends in [Ends::First, Ends::Last] {
                let target = |way| format!("/{tier:?}/{over:?}/{ends:?}/{way}");
                for way in 0..3 {
                    let target = target(way);
                    let (_, what) = ways(&target)[way].clone();
                    scene(&edge, over, &target, what, ends).await;
                }
            }
        }
    }
}

/// Sees that what a client gets after the purge is from after it, and is what later clients get.
async fn assert_new(edge: &Edge, over: Over, target: &str, old: &str) -> String {
    let new = over.get(edge, target).await;
    assert!(!new.is_hit() && new.text() != old, "{target}: {new:?}");
    assert_kept(edge, over, target, new.text()).await;
    new.text().to_owned()
}

/// The same for one who asked while the answer from before was held.
async fn assert_is_new(edge: &Edge, over: Over, target: &str, after: Pending, old: &str) {
    let new = after.response().await;
    assert!(new.status == 200 && !new.text().ends_with(old), "{target}: {new:?}");
    assert_kept(edge, over, target, new.text()).await;
}

async fn assert_kept(edge: &Edge, over: Over, target: &str, new: &str) {
    let hit = over.get(edge, target).await;
    assert!(hit.is_hit() && hit.text() == new, "{target}: {hit:?}, not {new}");
}

fn tagged(target: &str) -> Reply {
    Reply::new(200).cache_control("max-age=3600").header("Surrogate-Key", target)
}

#[tokio::test]
async fn an_answer_that_has_not_begun() {
    let stage = Stage::new(|request, n, gate| {
        let reply = tagged(&request.target).body(format!("answer {n}"));
        if n == 1 { reply.hold(gate) } else { reply }
    })
    .await;
    scenes(&stage, async |edge, over, target, what, ends| {
        let gate = stage.gate(target, 1);
        let first = Pending::get(over, edge, target).await;
        gate.reached(1).await;
        // One more who began before, and waits for the same answer.
        let waiting = Pending::get(over, edge, target).await;
        edge.wait_metrics("two in flight", |m| m.sum("foreland_requests_in_flight", &[]) == 2.0).await;
        purge(edge, &what).await;
        let after = match ends {
            Ends::Last => Some(ask_after(edge, over, target, 3.0).await),
            Ends::First => None,
        };
        gate.open();
        let first = first.response().await;
        assert_eq!((first.text(), first.is_hit()), ("answer 1", false), "{target}: who asked before gets it");
        let waiting = waiting.response().await;
        assert_eq!(waiting.status, 200, "{target}: {waiting:?}");
        settled(edge).await;
        match after {
            Some(after) => assert_is_new(edge, over, target, after, "answer 1").await,
            // What the one that waited has brought is from before, too.
            None => _ = assert_new(edge, over, target, "answer 1").await,
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_has_begun() {
    // What is written when it is whole, and what is written to a disk as it comes.
    for begun in [10, 2 << 20] {
        let stage = Stage::new(move |request, n, gate| {
            let reply = tagged(&request.target).body("x".repeat(begun));
            let reply = if n == 1 { reply.wait(gate) } else { reply };
            reply.body(format!(" answer {n}"))
        })
        .await;
        scenes(&stage, async |edge, over, target, what, ends| {
            let gate = stage.gate(target, 1);
            let mut first = over.start(edge, &Ask::get(target)).await;
            let mut had = first.bytes(begun).await;
            let mut follower = over.start(edge, &Ask::get(target)).await;
            let mut followed = follower.bytes(begun).await;
            assert_eq!(stage.asked(target), 1, "{target}: the second follows the first");
            purge(edge, &what).await;
            let old = format!("{} answer 1", "x".repeat(begun));
            let new = match ends {
                Ends::Last => Some(assert_new(edge, over, target, &old).await),
                Ends::First => None,
            };
            gate.open();
            for (exchange, had) in [(first, &mut had), (follower, &mut followed)] {
                let rest = exchange.rest().await;
                had.extend_from_slice(&rest.body);
                assert!(rest.end == End::Clean && *had == old.as_bytes(), "{target}: who began before gets all of it");
            }
            settled(edge).await;
            match new {
                Some(new) => assert_kept(edge, over, target, &new).await,
                None => _ = assert_new(edge, over, target, &old).await,
            }
        })
        .await;
    }
}

/// What is newer is there already when what is older has come to its end.
#[tokio::test]
async fn an_answer_that_is_overtaken() {
    let stage = Stage::new(|request, n, gate| {
        let reply = Reply::ok(format!("answer {n}")).header("Surrogate-Key", &request.target);
        match n {
            // What could not be shared is not waited for; so two requests are under way at once.
            1 => reply.cache_control("private"),
            2 => reply.cache_control("max-age=3600").hold(gate),
            _ => reply.cache_control("max-age=3600"),
        }
    })
    .await;
    scenes(&stage, async |edge, over, target, what, _| {
        let gate = stage.gate(target, 2);
        over.get(edge, target).await;
        let older = Pending::get(over, edge, target).await;
        gate.reached(1).await;
        purge(edge, &what).await;
        assert_eq!(assert_new(edge, over, target, "answer 2").await, "answer 3", "{target}");
        gate.open();
        assert_eq!(older.response().await.text(), "answer 2", "{target}: who asked before gets it");
        settled(edge).await;
        assert_kept(edge, over, target, "answer 3").await;
    })
    .await;
}

/// Past its lifetime by a second on arrival.
fn old(directives: &str) -> Reply {
    Reply::new(200).cache_control(&format!("max-age=60{directives}")).header("Age", "61").header("ETag", "\"v\"")
}

#[tokio::test]
async fn a_validation() {
    let stage = Stage::new(|request, n, gate| {
        let reply = match n {
            1 => old("").body("answer 1"),
            2 => Reply::new(304).cache_control("max-age=3600").header("ETag", "\"v\"").hold(gate),
            _ => Reply::ok(format!("answer {n}")).cache_control("max-age=3600"),
        };
        reply.header("Surrogate-Key", &request.target)
    })
    .await;
    scenes(&stage, async |edge, over, target, what, ends| {
        let gate = stage.gate(target, 2);
        over.get(edge, target).await;
        let validating = Pending::get(over, edge, target).await;
        gate.reached(1).await;
        purge(edge, &what).await;
        let after = match ends {
            Ends::Last => Some(ask_after(edge, over, target, 2.0).await),
            Ends::First => None,
        };
        gate.open();
        let validated = validating.response().await;
        assert_eq!(validated.status, 200, "{target}: {validated:?}");
        settled(edge).await;
        match after {
            Some(after) => assert_is_new(edge, over, target, after, "answer 1").await,
            None => _ = assert_new(edge, over, target, "answer 1").await,
        }
        let validations =
            stage.origin.seen().into_iter().filter(|r| r.target == target && r.headers.has("If-None-Match"));
        assert_eq!(validations.count(), 1, "{target}: what has been purged is not validated again");
    })
    .await;
}

#[tokio::test]
async fn a_refresh_in_the_background() {
    for status in [200, 304] {
        let stage = Stage::new(move |request, n, gate| {
            let reply = match (n, status) {
                (1, _) => old(", stale-while-revalidate=3600").body("answer 1"),
                (2, 304) => Reply::new(304).cache_control("max-age=3600").header("ETag", "\"v\"").hold(gate),
                (2, _) => Reply::ok("answer 2").cache_control("max-age=3600").hold(gate),
                _ => Reply::ok(format!("answer {n}")).cache_control("max-age=3600"),
            };
            reply.header("Surrogate-Key", &request.target)
        })
        .await;
        scenes(&stage, async |edge, over, target, what, ends| {
            let gate = stage.gate(target, 2);
            over.get(edge, target).await;
            assert!(over.get(edge, target).await.is_hit(), "{target}: stale while it is refreshed");
            gate.reached(1).await;
            purge(edge, &what).await;
            let after = match ends {
                Ends::Last => Some(ask_after(edge, over, target, 1.0).await),
                Ends::First => None,
            };
            gate.open();
            settled(edge).await;
            match after {
                Some(after) => assert_is_new(edge, over, target, after, "answer 1").await,
                None => assert_eq!(assert_new(edge, over, target, "answer 1").await, "answer 3", "{target}"),
            }
            assert_eq!(stage.asked(target), 3, "{target}");
        })
        .await;
    }
}

/// What was fetched meanwhile is stale as soon as it is stored.
#[tokio::test]
async fn a_soft_purge_of_an_answer_that_has_not_begun() {
    let stage = Stage::new(|request, n, gate| {
        let fresh = |reply: Reply| reply.cache_control("max-age=3600").header("ETag", "\"v\"");
        match n {
            1 => fresh(tagged(&request.target).body("answer 1")).hold(gate),
            _ if request.headers.has("If-None-Match") => fresh(Reply::new(304)),
            _ => fresh(tagged(&request.target).body(format!("answer {n}"))),
        }
    })
    .await;
    scenes(&stage, async |edge, over, target, what, _| {
        let gate = stage.gate(target, 1);
        let first = Pending::get(over, edge, target).await;
        gate.reached(1).await;
        purge(edge, &softly(what)).await;
        gate.open();
        assert_eq!(first.response().await.text(), "answer 1");
        settled(edge).await;
        let asked = stage.asked(target);
        let next = over.get(edge, target).await;
        assert!(!next.is_hit(), "{target}: {next:?}");
        assert_eq!(stage.asked(target), asked + 1, "{target}");
        assert_kept(edge, over, target, next.text()).await;
    })
    .await;
}

/// A client that has begun to read a hit reads it to its end.
#[tokio::test]
async fn a_hit_that_is_being_sent() {
    const LEN: usize = 24_000_000;
    let stage = Stage::new(|request, n, _| tagged(&request.target).body(n.to_string().repeat(LEN))).await;
    let edge = before(&stage.origin, Tier::Disk, "").await;
    for over in BOTH {
        let target = format!("/{over:?}");
        edge.get(&target).await;
        let begun = over.start(&edge, &Ask::get(&target)).await;
        assert!(begun.head().is_hit());
        purge(&edge, &url(&target)).await;
        assert!(!is_stored(&edge, &Ask::get(&target)).await);
        let whole = begun.rest().await;
        assert!(whole.end == End::Clean && whole.body == "1".repeat(LEN).as_bytes(), "{over:?}: {:?}", whole.end);
        assert!(over.get(&edge, &target).await.body == "2".repeat(LEN).as_bytes());
    }
}
