//! For how long a response is served without asking: what the origin says, and what the operator says.

use crate::harness::{Ask, Edge, Origin, Reply, eventually, http_date};
use crate::over::BOTH;

/// Asks twice, and says whether the second was a hit; `detail` is the first's reason not to be stored.
async fn twice(edge: &Edge, target: &str) -> (bool, String) {
    let first = edge.get(target).await;
    let second = edge.get(target).await;
    assert_eq!(first.body, second.body, "{target}");
    let detail = first.cache_status().split("detail=").nth(1).unwrap_or_default().to_owned();
    (second.is_hit(), detail)
}

#[tokio::test]
async fn the_origin_says_what_may_be_stored() {
    // The answer's status and fields, whether it is reused, and why it is not stored.
    type Case = (&'static str, u16, Vec<(&'static str, String)>, bool, &'static str);
    let cc = |value: &str| ("Cache-Control", value.to_owned());
    let modified = || ("Last-Modified", http_date(-36_000));
    let cases: Vec<Case> = vec![
        ("/max-age", 200, vec![cc("max-age=60")], true, ""),
        ("/max-age-first", 200, vec![cc("max-age=60"), ("Expires", http_date(-60))], true, ""),
        ("/s-maxage-first", 200, vec![cc("max-age=0, s-maxage=60")], true, ""),
        ("/must-revalidate", 200, vec![cc("max-age=60, must-revalidate")], true, ""),
        ("/expires", 200, vec![("Expires", http_date(60)), ("Date", http_date(0))], true, ""),
        ("/expires-past", 200, vec![("Expires", http_date(-60))], false, "unusable"),
        ("/expires-zero", 200, vec![("Expires", "0".into())], false, "unusable"),
        ("/age-used-up", 200, vec![cc("max-age=60"), ("Age", "60".into())], false, ""),
        ("/age-left", 200, vec![cc("max-age=60"), ("Age", "20".into())], true, ""),
        ("/old-date", 200, vec![cc("max-age=60"), ("Date", http_date(-61))], false, ""),
        ("/no-store", 200, vec![cc("no-store, max-age=60")], false, "no-store"),
        ("/private", 200, vec![cc("private, max-age=60")], false, "private"),
        ("/no-cache", 200, vec![cc("no-cache, max-age=60")], false, "unusable"),
        ("/nothing", 200, vec![], false, "no-freshness"),
        ("/heuristic", 200, vec![modified()], true, ""),
        ("/heuristic-query?a=1", 200, vec![modified()], true, ""),
        ("/500", 500, vec![], false, "status"),
        ("/404", 404, vec![], false, "no-freshness"),
        ("/404-fresh", 404, vec![cc("max-age=60")], true, ""),
        ("/302", 302, vec![("Location", "/".into())], false, "status"),
        ("/302-fresh", 302, vec![("Location", "/".into()), cc("max-age=60")], true, ""),
        ("/206", 206, vec![cc("max-age=60"), ("Content-Range", "bytes 0-0/2".into())], false, "partial"),
        ("/targeted", 200, vec![cc("no-store"), ("CDN-Cache-Control", "max-age=60".into())], true, ""),
        ("/targeted-no", 200, vec![cc("max-age=60"), ("CDN-Cache-Control", "no-store".into())], false, "no-store"),
    ];
    let script = cases.clone();
    let origin = Origin::start(move |r| {
        let (_, status, fields, ..) = script.iter().find(|case| case.0 == r.target).expect("a known target");
        let reply = Reply::new(*status).body("x");
        fields.iter().fold(reply, |reply, (name, value)| reply.header(name, value))
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    for (target, status, _, reused, why) in cases {
        assert_eq!(edge.get(target).await.status, status, "{target}");
        let (hit, detail) = twice(&edge, target).await;
        assert_eq!(hit, reused, "{target}");
        if !why.is_empty() {
            assert_eq!(detail, why, "{target}");
        }
        let asked = origin.seen().iter().filter(|r| r.target == target).count();
        assert_eq!(asked, if reused { 1 } else { 3 }, "{target}");
    }
}

#[tokio::test]
async fn the_age_on_arrival_counts() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=60").header("Age", "20")).await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        assert_eq!(over.get(&edge, "/a").await.headers.all("Age").len(), 1, "{over:?}");
        let hit = over.get(&edge, "/a").await;
        assert!(hit.is_hit() && hit.age().is_some_and(|age| (20..30).contains(&age)), "{over:?}: {hit:?}");
        let ttl = hit.cache_status().split("ttl=").nth(1).and_then(|t| t.split(';').next()?.parse::<i64>().ok());
        assert!(ttl.is_some_and(|ttl| (30..=40).contains(&ttl)), "{hit:?}");
    }
}

#[tokio::test]
async fn the_operator_says_what_the_origin_leaves_open() {
    let site = r#"
cache: { ttl: 60s, heuristics: false, ttl_by_status: { 404: 60s, 500: 60s } }
routes:
  - match: { path: "/override/**" }
    cache: { ttl: 60s, override: true }
  - match: { path: "/off/**" }
    cache: off
  - match: { path: "/capped/**" }
    cache: { ttl: 1s, max_ttl: 1s }
"#;
    let origin = Origin::start(|r| {
        let segments: Vec<_> = r.target.split('/').collect();
        let status = segments[2].parse().expect("a status");
        let reply = Reply::new(status).body("x").header("Last-Modified", http_date(-36_000));
        match segments[3] {
            "" => reply,
            "expires" => reply.header("Expires", "0"),
            directives => reply.cache_control(directives),
        }
    })
    .await;
    let edge = Edge::before(&origin, site).await;
    for (target, reused) in [
        ("/says/200/", true),
        ("/says/301/", true),
        ("/says/404/", true),
        ("/says/500/", true),
        ("/says/302/", false),
        ("/says/410/", false),
        ("/says/503/", false),
        ("/says/200/no-store", false),
        ("/says/200/private", false),
        ("/says/404/no-store", false),
        ("/says/200/max-age=0", false),
        ("/override/200/no-store", true),
        ("/override/200/private", true),
        ("/override/200/no-cache", true),
        ("/override/200/max-age=0", true),
        ("/override/200/expires", true),
        ("/override/503/", false),
        ("/override/302/", false),
        ("/off/200/max-age=60", false),
    ] {
        assert_eq!(twice(&edge, target).await.0, reused, "{target}");
    }
    let off = edge.get("/off/200/max-age=60").await;
    assert!(off.cache_status().starts_with("Foreland; fwd=bypass; fwd-status=200"), "{off:?}");
    assert!(edge.get("/says/200/").await.cache_status().contains("ttl=5"), "the operator's 60 s");
    let capped = edge.get("/capped/200/max-age=600").await;
    assert!(capped.cache_status().contains("ttl=1") || capped.cache_status().contains("ttl=0"), "{capped:?}");
}

#[tokio::test]
async fn what_the_operator_grants_begins_on_arrival() {
    let origin = Origin::start(|_| Reply::ok("x").header("Age", "3600").header("Date", http_date(-7200))).await;
    let edge = Edge::before(&origin, "cache: { ttl: 60s }").await;
    assert!(twice(&edge, "/a").await.0);
}

#[tokio::test]
async fn freshness_ends() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=1")).await;
    let edge = Edge::before(&origin, "").await;
    edge.get("/a").await;
    assert!(edge.get("/a").await.is_hit());
    eventually("the second to be over", async || !edge.get("/a").await.is_hit()).await;
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_post_is_never_stored() {
    let origin = Origin::start(|r| Reply::ok(r.method.clone()).cache_control("max-age=60")).await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        let target = format!("/{over:?}");
        let post = over.ask(&edge, &Ask::new("POST", &target).body("b")).await;
        assert_eq!(post.text(), "POST");
        assert!(post.cache_status().starts_with("Foreland; fwd=method; fwd-status=200"), "{post:?}");
        assert_eq!(over.get(&edge, &target).await.text(), "GET", "{over:?}");
        assert_eq!(over.ask(&edge, &Ask::new("POST", &target).body("b")).await.text(), "POST");
    }
}
