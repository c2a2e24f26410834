//! Two processes over one ledger: what one of them purges is purged for both.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Stock, Tier, is_stored, killed, ledger, purge, start, tag, url};
use crate::harness::{Ask, Connection, Edge, Gate, Origin, Reply, eventually};
use crate::over::{BOTH, Over};

const UPGRADE: &str = "drain: 10m\nupgrade_socket: \"{dir}/upgrade.sock\"\n";

/// Each has its path for a tag. `/held` waits for the gate, and so does what follows a POST of it.
async fn origin(gate: &Gate) -> Origin {
    let held = gate.clone();
    super::numbered(move |request| {
        let reply = Reply::new(200).cache_control("max-age=3600").header("Surrogate-Key", request.path());
        if request.path().starts_with("/held") { reply.hold(&held) } else { reply }
    })
    .await
}

/// An old process that has these, a new one that has taken over, and connections that the old one has kept: each gets one
/// more answer there. The old process has something to finish.
struct Two {
    old: Edge,
    new: Edge,
    kept: Vec<Connection>,
    held: Connection,
    stock: Stock,
}

const TARGETS: [&str; 6] = ["/a", "/b", "/c", "/d", "/e", "/kept"];

async fn two(origin: &Origin, gate: &Gate, tier: Tier) -> Two {
    let old = start(&(Edge::yaml_before(&[origin], "") + tier.yaml() + UPGRADE)).await;
    let stock = Stock::fill(&old, TARGETS.map(|target| (target.to_owned(), Ask::get(target)))).await;
    let mut kept = Vec::new();
    for _ in 0..6 {
        let mut connection = old.connect().await;
        assert!(connection.ask(&Ask::get("/kept")).await.is_hit());
        kept.push(connection);
    }
    let mut held = old.connect().await;
    held.send(Ask::get("/held").bytes()).await;
    gate.reached(1).await;
    let new = old.successor();
    let socket = old.folder().join("upgrade.sock");
    eventually("a successor on the upgrade socket", async || socket.exists()).await;
    old.signal(Signal::QUIT);
    old.wait_log("the new process serves").await;
    old.wait_log(&format!("no longer listening on {}", old.address())).await;
    new.wait_metrics("the new process's control API", |m| m.sum("foreland_requests_total", &[]) == 0.0).await;
    eventually("the disk to be taken over", async || {
        if matches!(tier, Tier::Memory) {
            return true;
        }
        let log = new.log();
        log.contains("cache: taken over") || log.contains(" objects, ")
    })
    .await;
    Two { old, new, kept, held, stock }
}

#[tokio::test]
async fn the_old_process_obeys_what_the_new_one_is_told() {
    for tier in [Tier::Disk, Tier::Both] {
        let gate = Gate::new();
        let origin = origin(&gate).await;
        let Two { old, new, mut kept, mut held, stock } = two(&origin, &gate, tier).await;
        let had = |target: &str| stock.0.iter().find(|(name, ..)| name == target).map(|(.., had)| had.clone());
        let ways: [(&str, Value); 4] = [
            ("/a", url("/a")),
            ("/b", tag("/b")),
            ("/c", json!({ "prefixes": ["edge.test/c"] })),
            // An unsafe request.
            ("/d", Value::Null),
        ];
        let mut sequence = 0;
        for (target, what) in ways {
            if what.is_null() {
                assert_eq!(new.ask(&Ask::new("POST", target).body("x")).await.status, 200);
            } else {
                let next = purge(&new, &what).await;
                assert!(next > sequence, "{next} after {sequence}");
                sequence = next;
            }
            let mut connection = kept.pop().expect("a connection");
            let answer = connection.ask(&Ask::get(target)).await;
            assert!(
                !answer.is_hit() && Some(answer.text().to_owned()) != had(target),
                "{tier:?}, {target}: {answer:?}"
            );
            assert_eq!(answer.header("Connection"), Some("close"), "the old process's last answer: {answer:?}");
        }
        // What is not purged is a hit on either side.
        let hit = kept.pop().expect("a connection").ask(&Ask::get("/kept")).await;
        assert!(hit.is_hit(), "{tier:?}: {hit:?}");
        assert!(new.get("/kept").await.is_hit(), "{tier:?}");
        // And what the old one was fetching before is not what the new one has afterwards.
        purge(&new, &url("/held")).await;
        assert!(old.is_running());
        gate.open();
        let first = held.response("GET").await.text().to_owned();
        drop((kept, held));
        assert!(old.wait_exit().await.success());
        let after = new.get("/held").await;
        assert!(!after.is_hit() && after.text() != first, "{tier:?}: {after:?}, had {first}");
        let next = killed(&new).await;
        for target in ["/a", "/b", "/c", "/d", "/held"] {
            let answer = next.get(target).await;
            assert!(Some(answer.text().to_owned()) != had(target) && answer.text() != first, "{tier:?}, {target}");
        }
        assert!(is_stored(&next, &Ask::get("/kept")).await);
        assert!(purge(&next, &tag("/nothing")).await > sequence);
    }
}

#[tokio::test]
async fn the_new_process_obeys_what_the_old_one_is_told() {
    for tier in [Tier::Disk, Tier::Both] {
        for kill in [false, true] {
            let gate = Gate::new();
            let origin = origin(&gate).await;
            let Two { old, new, mut kept, mut held, mut stock } = two(&origin, &gate, tier).await;
            for target in TARGETS {
                assert!(Over::Http1.get(&new, target).await.is_hit(), "{tier:?}: {target}");
            }
            for target in ["/a", "/b"] {
                let mut connection = kept.pop().expect("a connection");
                assert_eq!(connection.ask(&Ask::new("POST", target).body("x")).await.status, 200);
                assert!(!is_stored(&new, &Ask::get(target)).await, "{tier:?}: {target}, at once");
            }
            // Both at the same time, and nothing is lost.
            purge(&new, &url("/c")).await;
            let mut connection = kept.pop().expect("a connection");
            assert_eq!(connection.ask(&Ask::new("POST", "/d").body("x")).await.status, 200);
            purge(&new, &tag("/e")).await;
            let shown = ledger(&new).await["entries"].clone();
            let sequences: Vec<_> = shown.as_array().expect("entries").iter().map(|e| e["sequence"].as_u64()).collect();
            assert!(sequences.len() == 5 && sequences.iter().rev().is_sorted(), "{shown}");
            drop(kept);
            let next = if kill {
                new.kill().await;
                gate.open();
                held.response("GET").await;
                drop(held);
                assert!(old.wait_exit().await.success());
                let next = new.again();
                next.wait_ready().await;
                next
            } else {
                gate.open();
                held.response("GET").await;
                drop(held);
                assert!(old.wait_exit().await.success());
                new
            };
            assert_eq!(ledger(&next).await["entries"], shown, "{tier:?}, killed: {kill}");
            let gone = ["/a", "/b", "/c", "/d", "/e"];
            stock
                .assert_gone(&mut BOTH[1].connect(&next).await, false, &gone, &format!("{tier:?}, killed: {kill}"))
                .await;
        }
    }
}

/// Without a disk too.
#[tokio::test]
async fn in_memory() {
    let gate = Gate::new();
    let origin = origin(&gate).await;
    let Two { old, new, mut kept, mut held, .. } = two(&origin, &gate, Tier::Memory).await;
    assert!(!new.get("/a").await.is_hit(), "the new process has a memory of its own");
    for (target, what) in [("/a", url("/a")), ("/b", tag("/b"))] {
        purge(&new, &what).await;
        assert!(!is_stored(&new, &Ask::get(target)).await);
        let answer = kept.pop().expect("a connection").ask(&Ask::get(target)).await;
        assert!(!answer.is_hit(), "{target}: {answer:?}");
    }
    new.get("/c").await;
    assert_eq!(kept.pop().expect("a connection").ask(&Ask::new("POST", "/c").body("x")).await.status, 200);
    assert!(!is_stored(&new, &Ask::get("/c")).await);
    gate.open();
    held.response("GET").await;
    drop((kept, held));
    assert!(old.wait_exit().await.success());
}
