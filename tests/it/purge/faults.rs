//! Disks on which the ledger cannot be written: what is purged is in force all the same, and the answer says what it is
//! worth.

use serde_json::{Value, json};

use super::{Stock, durable, is_stored, killed, ledger, numbered, purge, tag, url};
use crate::disk_faults::faulty::{Scratch, log_lines, yaml};
use crate::harness::{Ask, Connection, Edge, Origin, Reply, eventually};
use crate::over::BOTH;

async fn origin() -> Origin {
    numbered(|request| Reply::new(200).cache_control("max-age=3600").header("Surrogate-Key", request.path())).await
}

fn asks() -> Vec<(String, Ask)> {
    ["/a", "/b", "/c", "/kept"].map(|target| (target.to_owned(), Ask::get(target))).into()
}

/// An edge with one disk that has a few objects.
async fn filled(scratch: &Scratch, origin: &Origin, memory: &str) -> (Edge, Stock) {
    let edge = scratch.edge(origin, memory, "size: 64MiB").await;
    durable(&edge).await;
    let stock = Stock::fill(&edge, asks()).await;
    (edge, stock)
}

#[tokio::test]
async fn what_cannot_be_written_is_in_force_and_is_written_later() {
    let origin = origin().await;
    for (fault, memory) in [
        ("write EIO\n", "off"),
        ("sync EIO\n", "off"),
        ("write ENOSPC\n", "{ size: 4MiB }"),
        ("write EROFS\ncreate EROFS\npublish EROFS\nunlink EROFS\n", "off"),
    ] {
        let scratch = Scratch::new();
        let (edge, mut stock) = filled(&scratch, &origin, memory).await;
        let first = purge(&edge, &tag("/nothing")).await;
        scratch.fault(fault);
        let mut last = first;
        for what in [tag("/a"), url("/b")] {
            let answer = edge.admin_post("/v1/purge", &what.to_string()).await;
            assert_eq!(answer.status, 503, "{fault}: {answer:?}");
            let told = answer.json();
            assert_eq!(told["in_force"], true, "{fault}: {told}");
            assert!(told["error"].as_str().is_some_and(|why| why.contains("ledger")), "{fault}: {told}");
            let sequence = told["sequence"].as_u64().expect("a sequence");
            assert!(sequence > last, "{fault}: {sequence} after {last}");
            last = sequence;
        }
        for target in ["/a", "/b"] {
            assert!(!is_stored(&edge, &Ask::get(target)).await, "{fault}: {target}");
        }
        let told: Value = ledger(&edge).await;
        assert_eq!(told["durable"], false, "{fault}: {told}");
        assert!(told["reason"].as_str().is_some_and(|why| why.contains("could be written")), "{fault}: {told}");
        assert_eq!(log_lines(&edge, "in force, but not durable"), 1, "{fault}: {}", edge.log());

        scratch.heal();
        durable(&edge).await;
        edge.wait_log("what is purged is durable again").await;
        assert!(purge(&edge, &tag("/c")).await > last, "{fault}");
        let edge = killed(&edge).await;
        let gone = ["/a", "/b", "/c"];
        stock.assert_gone(&mut BOTH[0].connect(&edge).await, false, &gone, fault).await;
    }
}

/// With one copy a purge outlasts the process: at the next start, all copies are joined.
#[tokio::test]
async fn one_disk_of_two_is_enough() {
    let origin = origin().await;
    for broken in ["a", "b"] {
        let scratch = Scratch::new();
        let disk = |name: &str| format!("{{ path: \"{}\", size: 64MiB }}", scratch.path(name).display());
        let yaml = yaml(&origin, "off", &format!("[{}, {}]", disk("a"), disk("b")), "");
        let edge = scratch.builder(&yaml).start().await;
        durable(&edge).await;
        let many = (0..16).map(|n| (format!("/{n}"), Ask::get(&format!("/{n}"))));
        let mut stock = Stock::fill(&edge, many.chain(asks())).await;
        scratch.fault(&format!("write EIO {0}\nsync EIO {0}\n", scratch.path(broken).display()));
        purge(&edge, &tag("/a")).await;
        purge(&edge, &json!({ "urls": ["http://edge.test/b", "http://edge.test/7"] })).await;
        let told = ledger(&edge).await;
        assert!(told["reason"].as_str().is_some_and(|why| why.contains(&format!("/{broken}/"))), "{told}");
        // It comes back before it is well again.
        edge.kill().await;
        scratch.heal();
        let edge = edge.again();
        edge.wait_ready().await;
        durable(&edge).await;
        stock.assert_gone(&mut BOTH[1].connect(&edge).await, false, &["/7", "/a", "/b"], broken).await;
    }
}

/// A disk that does not answer delays the answer to a purge, but not the purge, and not the traffic.
#[tokio::test]
async fn a_disk_that_hangs() {
    let origin = origin().await;
    let scratch = Scratch::new();
    let (edge, mut stock) = filled(&scratch, &origin, "{ size: 4MiB }").await;
    scratch.fault("sync hang\n");
    let mut asking = Connection::open(edge.admin_address()).await;
    let body = tag("/a").to_string();
    asking.send(Ask::new("POST", "/v1/purge").host(&edge.admin_address().to_string()).body(body).bytes()).await;
    eventually("the purge to be in force", async || !is_stored(&edge, &Ask::get("/a")).await).await;
    let posted = edge.ask(&Ask::new("POST", "/b").body("x")).await;
    assert_eq!(posted.status, 200, "{posted:?}");
    assert!(!is_stored(&edge, &Ask::get("/b")).await);
    assert!(edge.get("/kept").await.is_hit());
    assert_ne!(edge.get("/a").await.text(), stock.0[0].2, "it is fetched anew");
    scratch.heal();
    let answer = asking.response("POST").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    durable(&edge).await;
    let edge = killed(&edge).await;
    // What has been fetched meanwhile is as new as it gets.
    let names = ["/a", "/b"];
    for (name, _, had) in stock.0.iter().filter(|(name, ..)| names.contains(&name.as_str())) {
        assert_ne!(edge.get(name).await.text(), had, "{name}");
    }
    stock.0.retain(|(name, ..)| !names.contains(&name.as_str()));
    stock.assert_gone(&mut BOTH[0].connect(&edge).await, false, &[], "the rest").await;
}
