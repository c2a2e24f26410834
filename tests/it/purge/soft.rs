//! Soft purges: what they select is stale from that moment, no less and no more.

use std::time::{Duration, Instant};

use super::{Stage, TIERS, Tier, before, is_stored, killed, purge, restarted, settled, softly, tag, url};
use crate::harness::{Ask, Edge, Reply, Request, Response, eventually};
use crate::over::{BOTH, Over, all};

/// Fresh for an hour, with an ETag and its own target for a tag.
fn fresh(request: &Request, n: usize, directives: &str) -> Reply {
    Reply::ok(format!("answer {n}"))
        .cache_control(&format!("max-age=3600{directives}"))
        .header("ETag", format!("\"v{n}\""))
        .header("Surrogate-Key", &request.target)
}

/// Stores a target, and sees that it is a hit.
async fn store(edge: &Edge, over: Over, target: &str) {
    assert_eq!(over.get(edge, target).await.status, 200);
    assert!(over.get(edge, target).await.is_hit(), "{target} is not stored");
}

/// The remaining lifetime that Cache-Status states.
fn ttl(response: &Response) -> i64 {
    let status = response.cache_status();
    let ttl = status.split(';').find_map(|part| part.trim().strip_prefix("ttl="));
    ttl.and_then(|ttl| ttl.parse().ok()).unwrap_or_else(|| panic!("no ttl: {response:?}"))
}

/// A softly purged thing is stale, and not since long.
fn assert_just_stale(response: &Response, detail: &str) {
    assert!(response.cache_status().contains(&format!("detail={detail}")), "{response:?}");
    assert!((-20..=0).contains(&ttl(response)), "stale since the purge: {response:?}");
}

#[tokio::test]
async fn stale_is_served_once_while_it_is_refreshed() {
    let stage = Stage::new(|request, n, gate| {
        let reply = fresh(request, n, ", stale-while-revalidate=3600");
        if n == 2 { reply.hold(gate) } else { reply }
    })
    .await;
    for tier in TIERS {
        let edge = before(&stage.origin, tier, "").await;
        for over in BOTH {
            let target = format!("/{tier:?}/{over:?}");
            store(&edge, over, &target).await;
            purge(&edge, &softly(url(&target))).await;
            for _ in 0..3 {
                let stale = over.get(&edge, &target).await;
                assert!(stale.is_hit() && stale.text() == "answer 1", "{target}: {stale:?}");
                assert_just_stale(&stale, "stale-while-revalidate");
            }
            let gate = stage.gate(&target, 2);
            gate.reached(1).await;
            assert_eq!(stage.asked(&target), 2, "{target}: one refresh");
            let refresh = stage.origin.seen().pop().expect("a request");
            assert_eq!(refresh.header("If-None-Match"), Some("\"v1\""), "{target}");
            gate.open();
            settled(&edge).await;
            let new = over.get(&edge, &target).await;
            assert!(new.is_hit() && new.text() == "answer 2" && ttl(&new) > 3000, "{target}: {new:?}");
            assert_eq!(stage.asked(&target), 2, "{target}");
        }
    }
}

#[tokio::test]
async fn stale_is_served_where_the_origin_fails() {
    let stage = Stage::new(|request, n, _| match n {
        1 | 4.. => fresh(request, n, ", stale-if-error=3600"),
        _ => Reply::new(503).body("busy"),
    })
    .await;
    for tier in TIERS {
        let edge = before(&stage.origin, tier, "").await;
        for over in BOTH {
            let target = format!("/{tier:?}/{over:?}");
            store(&edge, over, &target).await;
            purge(&edge, &softly(tag(&target))).await;
            for n in [2, 3] {
                let stale = over.get(&edge, &target).await;
                assert_eq!((stale.status, stale.text()), (200, "answer 1"), "{target}: {stale:?}");
                assert_just_stale(&stale, "stale-if-error");
                assert_eq!(stage.asked(&target), n, "{target}: the origin is asked first");
            }
            let new = over.get(&edge, &target).await;
            assert!(!new.is_hit() && new.text() == "answer 4", "{target}: {new:?}");
            assert!(over.get(&edge, &target).await.is_hit(), "{target}");
        }
    }
}

#[tokio::test]
async fn a_validation_revives_and_an_answer_replaces() {
    let stage = Stage::new(|request, n, _| {
        let same = n == 2 && request.header("If-None-Match") == Some("\"v1\"");
        if same { Reply::new(304).header("ETag", "\"v1\"").header("X-Answer", "2") } else { fresh(request, n, "") }
    })
    .await;
    for tier in TIERS {
        let mut edge = before(&stage.origin, tier, "").await;
        for over in BOTH {
            let target = format!("/{tier:?}/{over:?}");
            store(&edge, over, &target).await;
            purge(&edge, &softly(url(&target))).await;
            assert!(!is_stored(&edge, &Ask::get(&target)).await, "{target}: nothing that may be used unasked");
            let validated = over.get(&edge, &target).await;
            assert_eq!((validated.text(), stage.asked(&target)), ("answer 1", 2), "{target}: {validated:?}");
            let hit = over.get(&edge, &target).await;
            assert!(hit.is_hit() && hit.text() == "answer 1" && ttl(&hit) > 3000, "{target}: {hit:?}");
            assert_eq!(hit.header("X-Answer"), Some("2"), "{target}");
            purge(&edge, &softly(tag(&target))).await;
            let replaced = over.get(&edge, &target).await;
            assert_eq!((replaced.text(), stage.asked(&target)), ("answer 3", 3), "{target}: {replaced:?}");
            let hit = over.get(&edge, &target).await;
            assert!(hit.is_hit() && hit.text() == "answer 3", "{target}: {hit:?}");
        }
        if tier != Tier::Memory {
            // Both are as they were, whatever the ledger has of before.
            edge = restarted(&edge).await;
            for over in BOTH {
                let hit = over.get(&edge, &format!("/{tier:?}/{over:?}")).await;
                assert!(hit.is_hit() && hit.text() == "answer 3", "{hit:?}");
            }
        }
    }
}

/// And a further one does not open them anew.
#[tokio::test]
async fn windows_count_from_the_purge() {
    const WINDOW: Duration = Duration::from_secs(2);
    for directive in ["stale-while-revalidate", "stale-if-error"] {
        let stage = Stage::new(move |request, n, _| match n {
            1 => fresh(request, n, &format!(", {directive}={}", WINDOW.as_secs())),
            _ => Reply::new(500).body("broken"),
        })
        .await;
        let windows = [Tier::Memory, Tier::Disk].map(async |tier| {
            let edge = before(&stage.origin, tier, "").await;
            let (target, unseen) = (format!("/{tier:?}"), format!("/{tier:?}/unseen"));
            store(&edge, Over::Http1, &target).await;
            store(&edge, Over::Http1, &unseen).await;
            // Nobody looks at this one before its window is over.
            purge(&edge, &softly(url(&unseen))).await;
            let begun = Instant::now();
            purge(&edge, &softly(url(&target))).await;
            let mut served = 0;
            eventually("the window's end", async || {
                let answer = edge.get(&target).await;
                if answer.status == 500 {
                    return true;
                }
                assert_just_stale(&answer, directive);
                assert!(ttl(&answer) >= -(WINDOW.as_secs() as i64), "beyond its window: {answer:?}");
                served += 1;
                if served == 1 {
                    purge(&edge, &softly(tag(&target))).await;
                }
                false
            })
            .await;
            assert!(served > 0, "{directive}, {tier:?}: within its window");
            // A little less, since it is another clock.
            assert!(begun.elapsed() + Duration::from_millis(50) >= WINDOW, "{directive}, {tier:?}: too early");
            assert_eq!(edge.get(&unseen).await.status, 500, "{directive}, {tier:?}: it has been stale for as long");
        });
        all(windows).await;
    }
}

#[tokio::test]
async fn soft_and_hard_after_each_other() {
    let stage = Stage::new(|request, n, _| match request.headers.has("If-None-Match") {
        true => Reply::new(304).header("ETag", request.header("If-None-Match").unwrap_or_default()),
        false => fresh(request, n, ", stale-while-revalidate=3600, stale-if-error=3600"),
    })
    .await;
    for tier in TIERS {
        let edge = before(&stage.origin, tier, "").await;
        for over in BOTH {
            for looked_at in [false, true] {
                let target = format!("/{tier:?}/{over:?}/{looked_at}");
                store(&edge, over, &target).await;
                purge(&edge, &softly(tag(&target))).await;
                if looked_at {
                    // It is stale, and known to be: then it is fresh again.
                    assert!(over.get(&edge, &target).await.is_hit());
                    settled(&edge).await;
                    purge(&edge, &softly(url(&target))).await;
                    assert!(is_stored(&edge, &Ask::get(&target)).await);
                    settled(&edge).await;
                }
                purge(&edge, &url(&target)).await;
                let new = over.get(&edge, &target).await;
                assert!(!new.is_hit() && new.text() != "answer 1", "{target}: soft, then hard: {new:?}");

                purge(&edge, &url(&target)).await;
                purge(&edge, &softly(url(&target))).await;
                let newer = over.get(&edge, &target).await;
                assert!(!newer.is_hit() && newer.text() != new.text(), "{target}: hard, then soft: {newer:?}");
                purge(&edge, &softly(url(&target))).await;
                let stale = over.get(&edge, &target).await;
                assert!(stale.is_hit() && stale.text() == newer.text(), "{target}: {stale:?}");
                assert_just_stale(&stale, "stale-while-revalidate");
                settled(&edge).await;
            }
        }
    }
}

#[tokio::test]
async fn it_outlasts_the_process() {
    let stage = Stage::new(|request, n, gate| {
        let directives = match request.path() {
            "/swr" => ", stale-while-revalidate=3600",
            _ => "",
        };
        if n == 2 { fresh(request, n, directives).hold(gate) } else { fresh(request, n, directives) }
    })
    .await;
    for tier in [Tier::Disk, Tier::Both] {
        for kill in [false, true] {
            let edge = before(&stage.origin, tier, "").await;
            let target = |path: &str| format!("{path}?{tier:?}{kill}");
            let (swr, plain, other) = (target("/swr"), target("/plain"), target("/other"));
            for target in [&swr, &plain, &other] {
                store(&edge, Over::Http1, target).await;
            }
            purge(&edge, &softly(tag(&swr))).await;
            purge(&edge, &softly(url(&plain))).await;
            let edge = if kill { killed(&edge).await } else { restarted(&edge).await };
            let stale = edge.get(&swr).await;
            assert!(stale.is_hit() && stale.text() == "answer 1", "{stale:?}");
            assert_just_stale(&stale, "stale-while-revalidate");
            assert!(!is_stored(&edge, &Ask::get(&plain)).await, "{plain}");
            assert!(is_stored(&edge, &Ask::get(&other)).await, "{other}");
            stage.gate(&swr, 2).open();
            settled(&edge).await;
        }
    }
}
