//! What has been purged stays purged, however the process ends.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    Stock, Tier, before, durable, is_stored, killed, ledger, numbered, purge, restarted, softly, start, tag, url,
};
use crate::harness::{Ask, Edge, Origin, Reply};
use crate::over::BOTH;

/// Each in one site of its own host, with its path for a tag and in the group of it.
async fn origin() -> Origin {
    numbered(|request| {
        let name = request.path().trim_matches('/');
        let reply = Reply::new(200).cache_control("max-age=3600").header("Surrogate-Key", name);
        reply.header("Cache-Groups", format!("\"{name}\"")).header("ETag", format!("\"{name}\""))
    })
    .await
}

fn sites(origin: &Origin) -> String {
    let site = |name: &str| format!("  - {{ name: {name}, hosts: [{name}.test], origin: o }}\n");
    let sites: String = ["one", "two", "three"].map(site).concat();
    format!("origins:\n  o: {{ servers: [\"{}\"] }}\nsites:\n{sites}", origin.address())
}

fn stock() -> Vec<(String, Ask)> {
    let one = ["/url", "/url2", "/tag", "/tag2", "/pre/a", "/pre2/a", "/raw-a", "/ra", "/soft", "/kept"];
    let one = one.into_iter().map(|target| (String::from(target), Ask::get(target).host("one.test")));
    one.chain(["two.test", "three.test"].map(|host| (host.to_owned(), Ask::get("/a").host(host)))).collect()
}

/// A purge of each kind, and what of the stock is gone by it.
fn purges() -> Vec<(Value, &'static str)> {
    vec![
        (url("/nothing"), ""),
        (json!({ "urls": ["http://one.test/url"] }), "/url"),
        (tag("tag"), "/tag"),
        (json!({ "prefixes": ["one.test/pre"] }), "/pre/a"),
        (json!({ "prefixes": ["one.test/raw"], "raw": true }), "/raw-a"),
        (json!({ "hosts": ["two.test"] }), "two.test"),
        (json!({ "sites": ["three"] }), "three.test"),
        (softly(tag("soft")), "/soft"),
    ]
}

async fn every_kind(disks: &str, end: Signal) {
    let origin = origin().await;
    let edge = start(&(sites(&origin) + disks)).await;
    let mut stock = Stock::fill(&edge, stock()).await;
    let mut sequences = Vec::new();
    for (what, _) in purges() {
        sequences.push(purge(&edge, &what).await);
    }
    assert!(sequences.is_sorted(), "{sequences:?}");
    let before = ledger(&edge).await;
    let edge = if end == Signal::KILL { killed(&edge).await } else { restarted(&edge).await };
    // What is soft is as good as gone without a validation.
    assert!(!is_stored(&edge, &Ask::get("/soft").host("one.test")).await, "{end:?}");
    let gone: Vec<_> = purges().into_iter().map(|(_, gone)| gone).filter(|gone| !gone.is_empty()).collect();
    let after = ledger(&edge).await;
    assert_eq!(after["entries"], before["entries"], "{end:?}: they are shown as before");
    assert_eq!(after["entries"].as_array().map(Vec::len), Some(sequences.len()));
    let next = purge(&edge, &url("/nothing")).await;
    assert!(next > sequences[sequences.len() - 1], "{end:?}: {next} after {sequences:?}");
    stock.assert_gone(&mut BOTH[0].connect(&edge).await, false, &gone, &format!("{end:?}, {disks}")).await;
    // What has been stored since, the purges from before do not concern; a third process sees it so too.
    let edge = killed(&edge).await;
    stock.assert_gone(&mut BOTH[1].connect(&edge).await, false, &[], &format!("{end:?}, {disks}")).await;
    let last = purge(&edge, &json!({ "everything": true })).await;
    assert!(last > next, "{last} after {next}");
    let edge = killed(&edge).await;
    let all: Vec<String> = stock.names().into_iter().map(str::to_owned).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    stock.assert_gone(&mut BOTH[0].connect(&edge).await, false, &all, "everything").await;
}

const TWO_DISKS: &str =
    "cache: { memory: off, disk: [{ path: \"{dir}/a\", size: 64MiB }, { path: \"{dir}/b\", size: 64MiB }] }\n";

#[tokio::test]
async fn a_kill() {
    every_kind(Tier::Disk.yaml(), Signal::KILL).await;
}

#[tokio::test]
async fn a_kill_with_memory_beside_the_disk() {
    every_kind(Tier::Both.yaml(), Signal::KILL).await;
}

#[tokio::test]
async fn a_kill_with_several_disks() {
    every_kind(TWO_DISKS, Signal::KILL).await;
}

#[tokio::test]
async fn a_stop() {
    every_kind(Tier::Both.yaml(), Signal::TERM).await;
}

#[tokio::test]
async fn a_stop_with_several_disks() {
    every_kind(TWO_DISKS, Signal::TERM).await;
}

/// The answer is there, and nothing else has had time to happen.
#[tokio::test]
async fn a_kill_right_after_the_answer() {
    let origin = origin().await;
    let mut edge = before(&origin, Tier::Disk, "").await;
    for round in 0..4 {
        let target = |name: &str| format!("/{name}-{round}");
        let (gone, kept) = (target("gone"), target("kept"));
        for target in [&gone, &kept] {
            edge.get(target).await;
            assert!(edge.get(target).await.is_hit());
        }
        let what = if round % 2 == 0 { tag(&gone[1..]) } else { url(&gone) };
        purge(&edge, &what).await;
        edge.kill().await;
        edge = edge.again();
        edge.wait_ready().await;
        assert!(!is_stored(&edge, &Ask::get(&gone)).await, "{what}");
        assert!(is_stored(&edge, &Ask::get(&kept)).await, "{what}");
        durable(&edge).await;
    }
}

/// Answered or not, a purge that was on its way when the process was killed is there as a whole or not at all; and what
/// was answered is there.
#[tokio::test]
async fn a_kill_among_many_purges() {
    let origin = origin().await;
    let edge = std::sync::Arc::new(before(&origin, Tier::Disk, "").await);
    let names: Vec<String> = (0..60).map(|n| format!("/{n}")).collect();
    Stock::fill(&edge, names.iter().map(|name| (name.clone(), Ask::get(name)))).await;
    let answered = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (count, mut enough) = tokio::sync::watch::channel(0);
    let clients = (0..4).map(|client| {
        let (edge, answered, count, names) = (edge.clone(), answered.clone(), count.clone(), names.clone());
        tokio::spawn(async move {
            // Two at once each: both are gone, or neither is.
            for pair in names.chunks(2).skip(client).step_by(4) {
                let body = json!({ "tags": [&pair[0][1..], &pair[1][1..]] }).to_string();
                let ask = Ask::new("POST", "/v1/purge").host(&edge.admin_address().to_string()).body(body);
                let Some(mut connection) = crate::harness::Connection::try_open(edge.admin_address()).await else {
                    return;
                };
                if connection.try_send(ask.bytes()).await.is_err() {
                    return;
                }
                let Some(head) = connection.try_head("POST").await else { return };
                assert_eq!(head.status, 200);
                answered.lock().expect("no panic").push(pair.to_vec());
                count.send_modify(|count| *count += 1);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let _ = enough.wait_for(|count| *count >= 8).await;
    edge.kill().await;
    for client in clients {
        client.await.expect("a client");
    }
    let next = edge.again();
    next.wait_ready().await;
    durable(&next).await;
    let answered = answered.lock().expect("no panic").clone();
    for pair in names.chunks(2) {
        let left = [is_stored(&next, &Ask::get(&pair[0])).await, is_stored(&next, &Ask::get(&pair[1])).await];
        assert_eq!(left[0], left[1], "{pair:?}: as a whole");
        assert!(!(left[0] && answered.iter().any(|known| known == pair)), "{pair:?} was answered");
    }
}

/// Without a disk there is nothing that outlasts the process; purges are in force all the same, and say that they are done.
#[tokio::test]
async fn without_a_disk() {
    let origin = origin().await;
    let edge: Edge = before(&origin, Tier::Memory, "").await;
    let mut stock = Stock::fill(&edge, [("/a".to_owned(), Ask::get("/a"))]).await;
    purge(&edge, &url("/a")).await;
    assert_eq!(ledger(&edge).await["durable"], true);
    stock.assert_gone(&mut BOTH[0].connect(&edge).await, false, &["/a"], "in memory").await;
}
