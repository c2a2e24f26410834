//! What a stop and a start leave as it was.

use std::fs;

use rustix::process::Signal;

use super::{assert_stored, body_of, folder, settled, sized, stored, yaml};
use crate::harness::{Ask, Edge, End, Origin, Reply, Response, eventually};

const LARGE: usize = 5 << 20;

/// Answers of every kind that is kept.
async fn all_kinds() -> Origin {
    Origin::start(|r| {
        let body = |len| body_of(r.path(), len);
        let language = r.header("Accept-Language").unwrap_or_default();
        let reply = match r.path() {
            "/small" => Reply::ok(body(1 << 10)),
            "/medium" => Reply::ok(body(300 << 10)),
            "/large" => Reply::ok(body(LARGE)).header("ETag", "\"large\""),
            "/empty" => Reply::ok(""),
            "/empty-chunked" => Reply::ok("").chunked(),
            "/vary" => Reply::ok(format!("in {language}")).header("Vary", "Accept-Language"),
            "/missing" => Reply::new(404).body("none"),
            "/moved" => Reply::new(301).header("Location", "/small"),
            "/chunked" => Reply::ok(body(100 << 10)).chunked(),
            "/chunked-large" => Reply::ok(body(LARGE)).chunked(),
            "/until-close" => Reply::ok(body(100 << 10)).until_close(),
            other => panic!("{other}"),
        };
        reply.cache_control("max-age=3600").header("X-Note", "kept").header("x-note", "twice")
    })
    .await
}

/// Requests that bring all of them into the store, and some that are answered from what these bring.
fn asks() -> Vec<Ask> {
    let plain = [
        "/small",
        "/medium",
        "/large",
        "/empty",
        "/empty-chunked",
        "/missing",
        "/moved",
        "/chunked",
        "/chunked-large",
        "/until-close",
    ];
    let mut asks: Vec<_> = plain.iter().map(|url| Ask::get(url)).collect();
    asks.extend(["en", "de"].map(|language| Ask::get("/vary").header("Accept-Language", language)));
    asks.extend(["/small", "/large", "/empty"].map(Ask::head));
    asks.extend(
        ["bytes=0-9", "bytes=2000000-3999999", "bytes=-7", "bytes=5-9,4000000-4000009"]
            .map(|range| Ask::get("/large").header("Range", range)),
    );
    asks.push(Ask::get("/medium").header("Range", "bytes=100000-"));
    asks.push(Ask::get("/large").header("If-None-Match", "\"large\""));
    asks
}

/// What of a response must be the same whoever gives it.
fn essence(response: &Response) -> (u16, End, Vec<(String, String)>, Vec<u8>) {
    let varying = |name: &str| ["age", "date", "cache-status", "via", "connection"].contains(&name);
    let mut fields: Vec<_> = response.headers.0.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone())).collect();
    let boundary = fields.iter().find_map(|(n, v)| v.split_once("boundary=").filter(|_| n == "content-type"));
    let boundary = boundary.map(|(_, boundary)| boundary.to_owned());
    let mut body = response.body.clone();
    if let Some(boundary) = boundary {
        // Each answer has another one.
        body = String::from_utf8_lossy(&body).replace(&boundary, "BOUNDARY").into_bytes();
        fields.iter_mut().for_each(|(_, value)| *value = value.replace(&boundary, "BOUNDARY"));
    }
    fields.retain(|(name, _)| !varying(name));
    fields.sort();
    (response.status, response.end, fields, body)
}

#[tokio::test]
async fn the_first_request_after_a_restart_is_a_hit() {
    for memory in ["64MiB", "off"] {
        let origin = all_kinds().await;
        let edge = Edge::start(&yaml(&origin, memory, "size: 256MiB")).await;
        for ask in asks() {
            edge.ask(&ask).await;
        }
        let mut before = Vec::new();
        for ask in asks() {
            let hit = edge.ask(&ask).await;
            assert!(hit.is_hit(), "memory: {memory}: {ask:?}: {:?}", hit.headers);
            before.push(essence(&hit));
        }
        let fetched = origin.count();
        let edge = edge.restart().await;
        for (ask, before) in asks().iter().zip(before) {
            let after = edge.ask(ask).await;
            assert!(after.is_hit(), "memory: {memory}: {ask:?}: {:?}", after.headers);
            assert!(essence(&after) == before, "memory: {memory}: {ask:?}: {:?}, not {:?}", after.headers, before.2);
        }
        assert_eq!(origin.count(), fetched, "the origin has been asked again");
        settled(&edge).await;
        assert!(!edge.log().contains("looked through"), "a walk though all was written down: {}", edge.log());
        assert!(edge.log().contains(": 12 objects, 10 MiB"), "{}", edge.log());
    }
}

#[tokio::test]
async fn ages_go_on_counting() {
    let origin =
        Origin::start(|_| Reply::ok("x").cache_control("max-age=3600").header("Age", "100").header("ETag", "\"x\""))
            .await;
    let edge = Edge::start(&yaml(&origin, "64MiB", "size: 64MiB")).await;
    edge.get("/a").await;
    eventually("the age to rise", async || edge.get("/a").await.age() > Some(100)).await;
    let edge = edge.restart().await;
    let after = edge.get("/a").await;
    assert!(after.is_hit() && after.age() > Some(100), "{after:?}");
    assert!(after.age() < Some(160), "{after:?}");
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn what_has_become_stale_meanwhile_is_validated() {
    let origin = Origin::start(|r| {
        let reply = if r.headers.has("If-None-Match") { Reply::new(304) } else { Reply::ok("x").header("Age", "3599") };
        reply.cache_control("max-age=3600").header("ETag", "\"x\"")
    })
    .await;
    let edge = Edge::start(&yaml(&origin, "64MiB", "size: 64MiB")).await;
    edge.get("/a").await;
    let edge = edge.restart().await;
    eventually("a validation", async || {
        assert_eq!(edge.get("/a").await.text(), "x");
        origin.count() == 2
    })
    .await;
    assert_eq!(origin.seen()[1].header("If-None-Match"), Some("\"x\""));
    // What the validation brought is kept too.
    let edge = edge.restart().await;
    assert!(edge.get("/a").await.is_hit());
    assert_eq!(origin.count(), 2);
}

/// What a snapshot's bytes become; `None`: it goes.
type Damage<'a> = dyn Fn(Vec<u8>) -> Option<Vec<u8>> + 'a;

#[tokio::test]
async fn a_damaged_index_costs_a_walk_and_nothing_else() {
    let origin = sized().await;
    let mut edge = Edge::start(&yaml(&origin, "off", "size: 256MiB")).await;
    let urls: Vec<String> =
        (0..40).map(|n| format!("/{n}/{}", 100 + n * 700)).chain(["/large/2000000".into()]).collect();
    for url in &urls {
        edge.get(url).await;
    }
    let index = folder(&edge).join("index");
    let flipped = |mut bytes: Vec<u8>, at: usize| {
        bytes[at] ^= 1;
        Some(bytes)
    };
    let damages: [(&str, &Damage<'_>); 8] = [
        ("none at all", &|_| None),
        ("empty", &|_| Some(Vec::new())),
        ("cut in the header", &|b| Some(b[..40].to_vec())),
        ("cut in a block", &|b| Some(b[..b.len() - 30].to_vec())),
        ("longer", &|b| Some([b, vec![0; 100]].concat())),
        ("a bit of the header", &|b| flipped(b, 14)),
        ("a bit of a record", &|b| flipped(b, 200)),
        ("something else", &|b| Some(vec![0x55; b.len()])),
    ];
    for (what, damage) in damages {
        edge.signal(Signal::TERM);
        assert!(edge.wait_exit().await.success());
        let whole = fs::read(&index).expect("a snapshot");
        assert!(whole.len() > 900, "40 records and a header");
        match damage(whole) {
            Some(bytes) => fs::write(&index, bytes).expect("written"),
            None => fs::remove_file(&index).expect("removed"),
        }
        edge = edge.again();
        edge.wait_ready().await;
        for url in &urls {
            assert_stored(&edge, url).await;
        }
        edge.wait_log("looked through").await;
        settled(&edge).await;
        assert!(edge.log().contains(": 41 objects, "), "{what}: {}", edge.log());
        for url in &urls {
            assert_stored(&edge, url).await;
        }
    }
    // And what the walk found is in the next snapshot.
    let edge = edge.restart().await;
    settled(&edge).await;
    assert!(!edge.log().contains("looked through"), "{}", edge.log());
    assert_eq!(origin.count(), urls.len());
}

/// Objects of 100 KiB, of which the disk below holds some seventy.
const SIZE: &str = "size: 8MiB";

async fn fill(edge: &Edge, what: &str, n: usize) -> Vec<String> {
    let urls: Vec<_> = (0..n).map(|i| format!("/{what}-{i}/100000")).collect();
    for url in &urls {
        edge.get(url).await;
    }
    urls
}

#[tokio::test]
async fn the_order_of_eviction_survives() {
    for memory in ["64MiB", "off"] {
        let origin = sized().await;
        let edge = Edge::start(&yaml(&origin, memory, SIZE)).await;
        let old = fill(&edge, "old", 60).await;
        let used: Vec<_> = old.iter().step_by(6).collect();
        for url in &used {
            // Once more at the end, so that all uses of one are not from the same opening of its file.
            assert!(edge.get(url).await.is_hit());
            assert!(edge.get(url).await.is_hit());
        }
        let edge = edge.restart().await;
        settled(&edge).await;
        assert!(!edge.log().contains("looked through"), "{}", edge.log());
        let new = fill(&edge, "new", 60).await;
        let mut kept = Vec::new();
        for url in &old {
            if stored(&edge, url).await.is_some() {
                kept.push(url);
            }
        }
        let lost: Vec<_> = used.iter().filter(|url| !kept.contains(url)).collect();
        assert!(lost.is_empty(), "memory: {memory}: used, and yet gone: {lost:?}");
        assert!(kept.len() < used.len() + 10, "memory: {memory}: nothing had to go: {kept:?}");
        // And of those that were never used, the oldest have gone first.
        let spared: Vec<_> = kept.iter().filter(|url| !used.contains(url)).collect();
        let youngest: Vec<_> = old.iter().filter(|url| !used.contains(url)).rev().take(spared.len()).collect();
        assert!(spared.iter().all(|url| youngest.contains(url)), "memory: {memory}: {spared:?}");
        assert_stored(&edge, &new[59]).await;
    }
}

#[tokio::test]
async fn several_disks_are_all_remembered() {
    let origin = sized().await;
    let yaml = Edge::yaml_before(&[&origin], "")
        + "cache:\n  memory: off\n  disk:\n    - { path: \"{dir}/a\", size: 64MiB }\n    - { path: \"{dir}/b\", size: 64MiB }\n";
    let edge = Edge::start(&yaml).await;
    let urls = fill(&edge, "x", 40).await;
    let edge = edge.restart().await;
    for url in &urls {
        assert_stored(&edge, url).await;
    }
    for disk in ["a", "b"] {
        let n = super::objects(&edge.folder().join(disk)).len();
        assert!((5..=35).contains(&n), "{n} of 40 on one of two equal disks");
    }
    assert_eq!(origin.count(), 40);
}
