//! Tags: where they come from, what clients see of them, and what a response must not have too many of.

use super::{Stage, TIERS, Tier, before, is_stored, numbered, purge, restarted, tag};
use crate::harness::{Ask, Edge, Origin, Reply, Response};
use crate::over::{BOTH, Over};

fn lasting() -> Reply {
    Reply::new(200).cache_control("max-age=3600")
}

/// Purges by each tag, and sees which of them the target has.
async fn assert_tags(edge: &Edge, target: &str, tags: &[(&str, bool)]) {
    for (name, has) in tags {
        edge.get(target).await;
        assert!(is_stored(edge, &Ask::get(target)).await, "{target}");
        purge(edge, &tag(name)).await;
        assert_eq!(!is_stored(edge, &Ask::get(target)).await, *has, "{target} has the tag {name}");
    }
}

#[tokio::test]
async fn from_the_fields_that_a_route_names() {
    let origin = numbered(|request| {
        let reply = lasting().header("Surrogate-Key", "s1  s2").header("surrogate-key", "s3,s4\ts5");
        let reply = reply.header("Cache-Tag", "c1, c2,,c3 ").header("Cache-Tag", "c4").header("X-Tags", "x1 s1");
        if request.path() == "/none" { reply.header("Y-Tags", " ,") } else { reply }
    })
    .await;
    let site = "routes:\n  - { match: { path: /x }, cache: { tags: X-Tags } }\n  - { match: { path: /xc }, cache: { tags: [x-tags, CACHE-TAG] } }\n  - { match: { path: /none }, cache: { tags: Y-Tags } }\n  - { match: { path: /off }, cache: { tags: off } }\n";
    let edge = before(&origin, Tier::Both, site).await;
    let surrogate = [("s1", true), ("s2", true), ("s3", true), ("s4", true), ("s5", true)];
    assert_tags(&edge, "/default", &surrogate).await;
    assert_tags(&edge, "/default", &[("c1", true), ("c2", true), ("c3", true), ("c4", true), ("c", false)]).await;
    assert_tags(&edge, "/default", &[("x1", false), ("S1", false), ("s", false), ("s1s2", false)]).await;
    assert_tags(&edge, "/x", &[("x1", true), ("s1", true), ("s2", false), ("c1", false)]).await;
    assert_tags(&edge, "/xc", &[("x1", true), ("c4", true), ("s2", false)]).await;
    assert_tags(&edge, "/none", &[("s1", false), ("c1", false)]).await;
    assert_tags(&edge, "/off", &[("s1", false), ("c1", false), ("x1", false)]).await;
}

#[track_caller]
fn assert_stripped(response: &Response, how: &str) {
    for field in ["Surrogate-Key", "Cache-Tag"] {
        assert!(!response.headers.has(field), "{how}: {response:?}");
    }
}

/// A response with tags and a group; by its path stale at once, or not to be stored.
async fn of_all_kinds() -> Stage {
    Stage::new(|request, n, _| {
        let path = request.path();
        let valid = path.starts_with("/stale") && request.headers.has("If-None-Match");
        let reply = if valid { Reply::new(304) } else { Reply::ok(format!("answer {n}")) };
        let reply = match path {
            "/no-store" => reply.cache_control("no-store"),
            "/off" => reply.cache_control("max-age=60"),
            _ if path.starts_with("/stale") && n == 1 => reply.cache_control("max-age=60").header("Age", "61"),
            _ => reply.cache_control("max-age=3600"),
        };
        let reply = reply.header("ETag", "\"v\"").header("Cache-Groups", "\"g\"");
        reply.header("Surrogate-Key", "s1 s2").header("Surrogate-Key", "s3").header("Cache-Tag", "c1")
    })
    .await
}

#[tokio::test]
async fn clients_do_not_see_them_where_they_are_stripped() {
    let stage = of_all_kinds().await;
    for tier in TIERS {
        let edge = before(&stage.origin, tier, "cache: { strip_tags: true }").await;
        for over in BOTH {
            let target = |path: &str| format!("{path}?{tier:?}{over:?}");
            let (plain, stale, conditional) = (target("/a"), target("/stale"), target("/stale-304"));
            let valid = |target: &str| Ask::get(target).header("If-None-Match", "\"v\"");
            let asks = [
                ("a miss", Ask::get(&plain), 200, false),
                ("a hit", Ask::get(&plain), 200, true),
                ("a HEAD", Ask::head(&plain), 200, true),
                ("a part", Ask::get(&plain).header("Range", "bytes=1-3"), 206, true),
                ("a 304 from the store", valid(&plain), 304, true),
                ("a miss by HEAD", Ask::head(&target("/head")), 200, false),
                ("a conditional miss", valid(&target("/conditional")), 304, false),
                ("a stale one", Ask::get(&stale), 200, false),
                ("a validated one", Ask::get(&stale), 200, false),
                ("a hit after validation", Ask::get(&stale), 200, true),
                ("another stale one", Ask::get(&conditional), 200, false),
                ("a 304 after validation", valid(&conditional), 304, false),
                ("not to be stored", Ask::get(&target("/no-store")), 200, false),
                ("not asked to be stored", Ask::get(&target("/b")).header("Cache-Control", "no-store"), 200, false),
                ("a POST", Ask::new("POST", &target("/post")).body("x"), 200, false),
            ];
            for (what, ask, status, hit) in asks {
                let how = format!("{what}, {tier:?}, {over:?}");
                let response = over.ask(&edge, &ask).await;
                assert_eq!((response.status, response.is_hit()), (status, hit), "{how}: {response:?}");
                assert_stripped(&response, &how);
                if matches!(status, 200 | 206) {
                    assert_eq!(response.header("Cache-Groups"), Some("\"g\""), "{how}: it is for all caches");
                }
            }
            // Who follows does not see them either.
            for target in [&plain, &stale] {
                assert!(is_stored(&edge, &Ask::get(target)).await);
            }
            purge(&edge, &tag(if over == Over::Http1 { "s3" } else { "c1" })).await;
            for target in [&plain, &stale, &conditional] {
                assert!(!is_stored(&edge, &Ask::get(target)).await, "{target} has its tags all the same");
            }
        }
    }
}

#[tokio::test]
async fn clients_see_them_where_they_are_not() {
    let stage = of_all_kinds().await;
    let site = "cache: { strip_tags: true }\nroutes:\n  - { match: { path: \"/open/**\" }, cache: { strip_tags: false } }\n  - { match: { path: /x }, cache: { tags: X-Tags } }\n";
    for tier in [Tier::Memory, Tier::Disk] {
        let edge = before(&stage.origin, tier, site).await;
        for over in BOTH {
            for path in ["/open/a", "/x"] {
                for hit in [false, true] {
                    let response = over.get(&edge, &format!("{path}?{tier:?}{over:?}")).await;
                    assert_eq!(response.is_hit(), hit, "{path}: {response:?}");
                    assert_eq!(response.headers.all("Surrogate-Key"), ["s1 s2", "s3"], "{path}, {tier:?}, {over:?}");
                    assert_eq!(response.headers.all("Cache-Tag"), ["c1"], "{path}, {tier:?}, {over:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn they_outlast_the_process() {
    let stage = of_all_kinds().await;
    for strip in [false, true] {
        for tier in [Tier::Disk, Tier::Both] {
            let target = format!("/a?{strip}{tier:?}");
            let edge = before(&stage.origin, tier, &format!("cache: {{ strip_tags: {strip} }}")).await;
            edge.get(&target).await;
            let edge = restarted(&edge).await;
            let hit = edge.get(&target).await;
            assert!(hit.is_hit() && hit.headers.has("Surrogate-Key") != strip, "{hit:?}");
            purge(&edge, &tag("s2")).await;
            assert!(!is_stored(&edge, &Ask::get(&target)).await);
        }
    }
}

/// With more than can be remembered it could not be purged by all of them.
#[tokio::test]
async fn too_many_are_not_stored() {
    fn many(n: usize, len: usize) -> String {
        (0..n).map(|n| format!("{n:0>len$}")).collect::<Vec<_>>().join(" ")
    }
    let origin = Origin::start(|request| {
        let reply = lasting().body("body");
        match request.path() {
            "/right" => reply.header("Surrogate-Key", many(1_000, 4)),
            "/many" => reply.header("Surrogate-Key", many(1_000, 4)).header("Cache-Tag", "one-more"),
            "/long" => reply.header("Surrogate-Key", "x".repeat(1_025)),
            "/large" => reply.header("Surrogate-Key", many(33, 1_000)),
            _ => reply.header("Cache-Groups", (0..129).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ")),
        }
    })
    .await;
    for tier in TIERS {
        let edge = before(&origin, tier, "cache: { strip_tags: true }").await;
        let rejected =
            async || edge.metrics().await.sum("foreland_cache_admissions_rejected_total", &[("reason", "tags")]);
        edge.get("/right").await;
        assert!(edge.get("/right").await.is_hit());
        assert_eq!(rejected().await, 0.0);
        let mut expected = 0.0;
        for target in ["/many", "/long", "/large", "/groups"] {
            for over in BOTH {
                let response = over.get(&edge, target).await;
                assert_eq!((response.status, response.text(), response.is_hit()), (200, "body", false), "{target}");
                assert_stripped(&response, target);
                expected += 1.0;
                assert_eq!(rejected().await, expected, "{tier:?}: {target}");
            }
            assert!(!is_stored(&edge, &Ask::get(target)).await, "{target}");
        }
        let line = "not stored, since it could not be purged: cache-tag";
        edge.wait_log(line).await;
        let lines = edge.log().matches("could not be purged").count();
        assert_eq!(lines, 1, "one line, however many there are: {}", edge.log());
    }
}

/// The tags of what a 304 has confirmed are those of the 304, if it has any.
#[tokio::test]
async fn a_validation_may_change_them() {
    for changed in [false, true] {
        let stage = Stage::new(move |request, n, _| {
            let tags = |name: &str| format!("{name}:{0} both:{0}", request.target);
            let reply = if n == 2 { Reply::new(304) } else { Reply::ok(format!("answer {n}")) };
            let reply = match n {
                1 => reply.cache_control("max-age=60").header("Age", "61").header("Surrogate-Key", tags("old")),
                2 if changed => reply.cache_control("max-age=3600").header("Surrogate-Key", tags("new")),
                _ => reply.cache_control("max-age=3600"),
            };
            reply.header("ETag", "\"v\"")
        })
        .await;
        for (tier, strip) in TIERS.into_iter().flat_map(|tier| [(tier, false), (tier, true)]) {
            let mut edge = before(&stage.origin, tier, &format!("cache: {{ strip_tags: {strip} }}")).await;
            for restart in [false, true].into_iter().take(if tier == Tier::Memory { 1 } else { 2 }) {
                let target = |name: &str| format!("/{tier:?}/{strip}/{restart}/{name}");
                let names = ["old", "new", "both"];
                for target in names.map(target) {
                    edge.get(&target).await;
                    assert!(!edge.get(&target).await.is_hit(), "{target}: stale");
                    assert!(edge.get(&target).await.is_hit(), "{target}: validated");
                }
                if restart {
                    edge = restarted(&edge).await;
                }
                for name in names {
                    let target = target(name);
                    assert!(is_stored(&edge, &Ask::get(&target)).await, "{target}");
                    purge(&edge, &tag(&format!("{name}:{target}"))).await;
                    let selected = name == "both" || (name == "new") == changed;
                    let left = is_stored(&edge, &Ask::get(&target)).await;
                    assert_eq!(left, !selected, "{target}, the 304 has tags: {changed}");
                }
            }
        }
    }
}
