//! The method PURGE: who may use it, and that it is never the origin's to answer.

use crate::harness::{Ask, Edge, End, Origin, Reply, Response};
use crate::over::{BOTH, Over};

const TOKEN: &str = "correct horse";

async fn origin() -> Origin {
    Origin::start(|_| Reply::ok("from the origin").cache_control("max-age=600")).await
}

/// An edge whose site has these rules.
async fn edge(origin: &Origin, top: &str, rules: &str) -> Edge {
    let yaml = top.to_owned() + &Edge::yaml_before(&[origin], &format!("purge: {rules}"));
    Edge::builder(&yaml).env("SITE_PURGE_TOKEN", TOKEN).start().await
}

fn purge(target: &str) -> Ask {
    Ask::new("PURGE", target)
}

/// What is wrong with it is found out only after it is known who asks.
fn wrong() -> Ask {
    purge("/a").header("Soft-Purge", "perhaps")
}

fn error(answer: &Response) -> String {
    assert_eq!(answer.header("Content-Type"), Some("application/json"), "{answer:?}");
    answer.json()["error"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn without_rules_it_is_a_method_like_any_other() {
    let origin = origin().await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        let answer = over.ask(&edge, &purge("/a")).await;
        assert_eq!((answer.status, answer.text()), (200, "from the origin"), "{over:?}: {answer:?}");
    }
    assert!(origin.seen().iter().all(|request| request.method == "PURGE"));
}

#[tokio::test]
async fn from_elsewhere_it_is_forbidden() {
    let origin = origin().await;
    let edge = edge(&origin, "", "{ from: [192.0.2.0/24, \"2001:db8::/32\"] }").await;
    edge.get("/a").await;
    for over in BOTH {
        let answer = over.ask(&edge, &purge("/a").header("X-Forwarded-For", "192.0.2.7")).await;
        assert_eq!((answer.status, answer.text(), answer.end), (403, "", End::Clean), "{over:?}: {answer:?}");
        assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{over:?}");
    }
    assert!(edge.get("/a").await.is_hit(), "nothing has been purged");
    assert_eq!(origin.count(), 1);
    let lines = edge.access_log_lines(4).await;
    let line = lines.iter().find(|line| line["method"] == "PURGE").expect("a line of it");
    assert_eq!((&line["status"], &line["cache"]), (&403.into(), &"local".into()));
    assert_eq!(line["detail"], "purge: not from this address");
}

#[tokio::test]
async fn a_trusted_proxy_says_whose_it_is() {
    let origin = origin().await;
    let edge = edge(&origin, "trusted_proxies: [127.0.0.0/8]\n", "{ from: [192.0.2.0/24] }").await;
    for (client, status) in [("192.0.2.7", 400), ("198.51.100.7", 403), ("192.0.2.7, 198.51.100.7", 403)] {
        let answer = edge.ask(&wrong().header("X-Forwarded-For", client)).await;
        assert_eq!(answer.status, status, "{client}: {answer:?}");
    }
    assert_eq!(edge.ask(&wrong()).await.status, 403, "the proxy itself is none of them");
}

#[tokio::test]
async fn the_token_must_be_the_token() {
    let origin = origin().await;
    let edge = edge(&origin, "", "{ token: env:SITE_PURGE_TOKEN }").await;
    for over in BOTH {
        for given in [None, Some("Bearer wrong"), Some("Bearer"), Some("Basic correct horse")] {
            let ask = given.into_iter().fold(purge("/a"), |ask, given| ask.header("Authorization", given));
            let answer = over.ask(&edge, &ask).await;
            assert_eq!((answer.status, answer.text()), (401, ""), "{over:?} {given:?}: {answer:?}");
            assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer realm=\"foreland\""), "{over:?} {given:?}");
        }
        let answer = over.ask(&edge, &wrong().header("Authorization", format!("Bearer {TOKEN}"))).await;
        assert_eq!((answer.status, &*error(&answer)), (400, "soft-purge is 1 or 0"), "{over:?}");
    }
    assert_eq!(origin.count(), 0);
    assert!(!edge.log().contains(TOKEN));
}

#[tokio::test]
async fn where_there_are_both_both_must_hold() {
    let origin = origin().await;
    let token = format!("Bearer {TOKEN}");
    let here = edge(&origin, "", "{ from: [127.0.0.0/8], token: env:SITE_PURGE_TOKEN }").await;
    assert_eq!(here.ask(&wrong()).await.status, 401);
    assert_eq!(here.ask(&wrong().header("Authorization", &token)).await.status, 400);
    let there = edge(&origin, "", "{ from: [192.0.2.0/24], token: env:SITE_PURGE_TOKEN }").await;
    assert_eq!(there.ask(&wrong().header("Authorization", &token)).await.status, 403);
}

#[tokio::test]
async fn what_is_wrong_is_said_and_goes_no_further() {
    let origin = origin().await;
    let edge = edge(&origin, "", "{ from: [127.0.0.0/8] }").await;
    edge.get("/a").await;
    for over in BOTH {
        for (ask, why) in [
            (wrong(), "soft-purge is 1 or 0"),
            (purge("/a*?b"), "written without one"),
            (purge("/a%4*"), "within a percent-encoding"),
            (purge("/a/..*"), "`.` or `..`"),
            (purge("/a").body("content"), "no content"),
        ] {
            let answer = over.ask(&edge, &ask).await;
            assert_eq!(answer.status, 400, "{over:?} {ask:?}: {answer:?}");
            assert!(error(&answer).contains(why), "{over:?} {ask:?}: {answer:?}");
        }
    }
    assert!(edge.get("/a").await.is_hit());
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn content_that_nobody_reads_ends_the_connection() {
    let origin = origin().await;
    let edge = edge(&origin, "", "{ from: [192.0.2.0/24] }").await;
    let mut client = edge.connect().await;
    client.send("PURGE /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let answer = client.response("PURGE").await;
    assert_eq!((answer.status, answer.header("Connection")), (403, Some("close")), "{answer:?}");
    client.closed().await;
    // Without content, it is kept.
    let mut client = edge.connect().await;
    for _ in 0..2 {
        assert_eq!(client.ask(&purge("/a").header("Content-Length", "0")).await.status, 403);
    }
    assert_eq!(Over::Http1.ask(&edge, &purge("/a").no_host()).await.status, 400);
    assert_eq!(origin.count(), 0);
}
