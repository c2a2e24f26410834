//! Groups (RFC 9875): an unsafe request that succeeds may name those that it has changed.

use super::{Stock, TIERS, Tier, before, killed, ledger, numbered};
use crate::harness::{Ask, Edge, Origin, Reply};
use crate::over::BOTH;

/// `/in/…` is in the groups that its path names, `/edit/…` invalidates them with the status that comes first.
async fn origin() -> Origin {
    numbered(|request| {
        let path: Vec<&str> = request.path().split('/').skip(1).collect();
        let groups = |names: &str| names.split('+').map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        match path[..] {
            ["in", names] => Reply::new(200).cache_control("max-age=3600").header("Cache-Groups", groups(names)),
            ["edit", status, names] => Reply::new(status.parse().expect("a status"))
                .cache_control("max-age=3600")
                .header("Cache-Group-Invalidation", groups(names)),
            _ => Reply::new(200).cache_control("max-age=3600"),
        }
    })
    .await
}

fn stock() -> Vec<(String, Ask)> {
    let hosts = ["edge.test", "edge.test:8080", "other.test"];
    let targets = ["/in/one", "/in/two", "/in/one+two", "/in/One", "/in/one-more", "/plain"];
    let all = hosts.into_iter().flat_map(|host| targets.map(|target| (host, target)));
    all.map(|(host, target)| (format!("{host}{target}"), Ask::get(target).host(host))).collect()
}

const NONE: [&str; 0] = [];

#[tokio::test]
async fn those_that_a_successful_change_names() {
    let origin = origin().await;
    for tier in TIERS {
        let edge = before(&origin, tier, "").await;
        let mut stock = Stock::fill(&edge, stock()).await;
        for over in BOTH {
            let mut client = over.connect(&edge).await;
            let one = ["edge.test/in/one", "edge.test/in/one+two"];
            for (method, host, target, gone) in [
                ("POST", "edge.test", "/edit/200/one", &one[..]),
                ("PUT", "edge.test", "/edit/201/one", &one),
                ("DELETE", "edge.test", "/edit/204/one", &one),
                ("POST", "edge.test", "/edit/303/one", &one),
                ("POST", "edge.test", "/edit/200/three", &NONE),
                ("POST", "edge.test", "/edit/200/on", &NONE),
                ("POST", "edge.test", "/edit/200/one+two+three", &["edge.test/in/one", "edge.test/in/two", one[1]]),
                ("POST", "edge.test:8080", "/edit/200/two", &["edge.test:8080/in/two", "edge.test:8080/in/one+two"]),
                ("POST", "third.test", "/edit/200/one", &NONE),
                ("POST", "edge.test", "/edit/500/one", &NONE),
                ("POST", "edge.test", "/edit/404/one", &NONE),
                ("GET", "edge.test", "/edit/200/one", &NONE),
                ("HEAD", "edge.test", "/edit/200/one", &NONE),
                ("OPTIONS", "edge.test", "/edit/200/one", &NONE),
            ] {
                let ask = Ask::new(method, target).host(host);
                let ask = if method == "POST" || method == "PUT" { ask.body("x") } else { ask };
                client.ask(&ask).await;
                stock
                    .assert_gone(&mut client, false, gone, &format!("{method} {host}{target}, {tier:?}, {over:?}"))
                    .await;
            }
        }
    }
}

#[tokio::test]
async fn it_outlasts_the_process() {
    let origin = origin().await;
    for tier in [Tier::Disk, Tier::Both] {
        let edge = before(&origin, tier, "").await;
        let mut stock = Stock::fill(&edge, stock()).await;
        assert_eq!(edge.ask(&Ask::new("POST", "/edit/200/two").body("x")).await.status, 200);
        // And the URL itself.
        assert_eq!(edge.ask(&Ask::new("POST", "/plain").body("x")).await.status, 200);
        let edge: Edge = killed(&edge).await;
        let entries = ledger(&edge).await["entries"].clone();
        assert_eq!(
            (&entries[1]["by"], &entries[1]["selectors"][1]["group"]),
            (&"unsafe-request".into(), &"two".into())
        );
        let gone = ["edge.test/in/two", "edge.test/in/one+two", "edge.test/plain"];
        stock.assert_gone(&mut BOTH[1].connect(&edge).await, false, &gone, &format!("{tier:?}")).await;
    }
}
