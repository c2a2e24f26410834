//! What the response says of its own reuse (RFC 9111 §5.2.2, §3, §4.2.4; RFC 5861).

use super::{Row, Stage, control, fresh, is_half_a_minute_over, later, parameter, row, stale};
use crate::harness::{Ask, Gate, Reply, eventually, http_date};
use crate::over::BOTH;

/// RFC 9111 §3, §5.2.2.5, §5.2.2.7: neither private nor no-store is ever stored, whatever stands beside it.
#[tokio::test]
async fn rule_06_private_and_no_store() {
    let stage = Stage::new().await;
    let (future, modified) = (http_date(3600), http_date(-864_000));
    let mut rows = Vec::new();
    for refusal in ["private", "no-store", "PRIVATE", "No-Store"] {
        for beside in ["", "max-age=60", "s-maxage=60", "public", "public, max-age=60, must-revalidate", "immutable"] {
            for value in [format!("{refusal}, {beside}"), format!("{beside}, {refusal}")] {
                let validators = [("ETag", "\"a\""), ("Last-Modified", &modified), ("Expires", &future)];
                rows.push(row(&[&[("Cache-Control", value.as_str())], &validators[..]].concat(), false));
            }
            rows.push(row(&[("Cache-Control", beside), ("Cache-Control", refusal)], false));
        }
    }
    rows.push(control("must-revalidate, max-age=60", true));
    rows.push(control("proxy-revalidate, max-age=60", true));
    rows.push(control("no-transform, max-age=60", true));
    rows.push(control("immutable, max-age=60", true));
    stage.plays(rows).await;
}

/// RFC 9111 §5.2.2.4: no-cache is stored, and validated each time.
#[tokio::test]
async fn rule_06_no_cache() {
    let stage = Stage::new().await;
    for over in BOTH {
        for control in ["no-cache", "no-cache, max-age=60", "max-age=60, NO-CACHE", "s-maxage=60, no-cache"] {
            let reply = |status, body| Reply::new(status).body(body).cache_control(control).header("ETag", "\"v1\"");
            let mut scene = stage.scene(over, [reply(200, "first"), reply(304, ""), reply(304, "")]).await;
            for n in 0..3 {
                let response = scene.get().await;
                assert_eq!((response.status, response.text()), (200, "first"), "{control} {n} {over:?}: {response:?}");
                assert!(!response.is_hit(), "{control} {n} {over:?}: {response:?}");
            }
            let asked: Vec<_> = scene.seen().iter().map(|r| r.header("If-None-Match").map(str::to_owned)).collect();
            assert_eq!(asked, [None, Some("\"v1\"".to_owned()), Some("\"v1\"".to_owned())], "{control} over {over:?}");
        }
        // Not from the store where the validation fails, either (§4.2.4).
        let reply = Reply::ok("x").cache_control("no-cache, stale-if-error=600").header("ETag", "\"v1\"");
        let mut scene = stage.scene(over, [reply, Reply::new(503)]).await;
        scene.get().await;
        assert_eq!(scene.get().await.status, 503, "{over:?}");
    }
}

/// RFC 9111 §5.2.2.4, §5.2.2.7: with an argument, both are about these fields alone: the client that the response is for
/// gets them, and nobody else.
#[tokio::test]
async fn rule_06_qualified_no_cache_and_private() {
    let stage = Stage::new().await;
    for over in BOTH {
        for (argument, absent) in [
            ("\"X-A\"", &["X-A"][..]),
            ("\"x-a\"", &["X-A"]),
            ("X-A", &["X-A"]),
            ("\"X-A, X-B\"", &["X-A", "X-B"]),
            ("\" x-b , X-Absent,\"", &["X-B"]),
        ] {
            for directive in ["no-cache", "private"] {
                let control = format!("{directive}={argument}, max-age=60");
                let gate = Gate::new();
                let reply = Reply::new(200).body("one ").wait(&gate).body("two").cache_control(&control);
                let reply = reply.header("X-A", "1").header("X-A", "2").header("X-B", "3").header("X-C", "4");
                let scene = stage.scene(over, [reply, later()]).await;
                let ask = Ask::get(&scene.target);
                let mut first = over.start(&stage.edge, &ask).await;
                first.bytes(4).await;
                // One that follows the fill is another client.
                let follower = over.start(&stage.edge, &ask).await;
                gate.open();
                let (first, follower) = (first.rest().await, follower.rest().await);
                let hit = over.get(&stage.edge, &scene.target).await;
                assert!(hit.is_hit(), "{control} over {over:?}: {hit:?}");
                assert_eq!(scene.seen().len(), 1, "{control} over {over:?}");
                for (name, values) in [("X-A", &["1", "2"][..]), ("X-B", &["3"]), ("X-C", &["4"])] {
                    assert_eq!(first.headers.all(name), values, "the first client, {control} over {over:?}");
                    let kept = if absent.contains(&name) { &[] } else { values };
                    assert_eq!(follower.headers.all(name), kept, "a follower, {control} over {over:?}");
                    assert_eq!(hit.headers.all(name), kept, "a hit, {control} over {over:?}");
                }
                assert_eq!((first.text(), follower.text(), hit.text()), ("two", "one two", "one two"));
            }
        }
    }
    // An argument that names nothing covers everything.
    let etag = ("ETag", "\"a\"");
    stage
        .plays([
            row(&[("Cache-Control", "private=\"\", max-age=60"), etag], false),
            row(&[("Cache-Control", "private=\"a b\", max-age=60"), etag], false),
            row(&[("Cache-Control", "no-cache=\"\", max-age=60"), etag], false),
            row(&[("Cache-Control", "private=\"x-a\", private, max-age=60"), etag], false),
        ])
        .await;
}

/// RFC 9111 §4: what is stored and fresh still answers, though a later response to the same is none that may be stored.
#[tokio::test]
async fn rule_06_a_fresh_response_outlives_one_that_is_not_stored() {
    let stage = Stage::new().await;
    for over in BOTH {
        for (what, refused) in [
            ("no-store", later()),
            ("private", Reply::ok("later").cache_control("private")),
            ("no freshness", Reply::ok("later")),
            ("an error", Reply::new(500)),
        ] {
            let mut scene = stage.scene(over, [fresh("first"), refused.clone()]).await;
            scene.get().await;
            // A client that wants it from the origin.
            let other = scene.get_with(&[("Cache-Control", "no-cache")]).await;
            assert!(!other.is_hit() && scene.seen().len() == 2, "{what} over {over:?}: {other:?}");
            let hit = scene.get().await;
            assert!(hit.is_hit() && hit.text() == "first", "{what} over {over:?}: {hit:?}");
            // A client whose request selects another variant.
            let vary = |reply: Reply| reply.header("Vary", "X-A");
            let mut scene = stage.scene(over, [vary(fresh("first")), vary(refused)]).await;
            scene.get_with(&[("X-A", "1")]).await;
            let other = scene.get_with(&[("X-A", "2")]).await;
            assert!(!other.is_hit() && scene.seen().len() == 2, "{what} over {over:?}: {other:?}");
            let hit = scene.get_with(&[("X-A", "1")]).await;
            assert!(hit.is_hit() && hit.text() == "first", "{what} over {over:?}: {hit:?}");
        }
    }
}

/// RFC 5861 §3, RFC 9111 §4.2.4: stale while one request refreshes it, inside the window. More: `crate::stale`.
#[tokio::test]
async fn rule_07_stale_while_revalidate() {
    let stage = Stage::new().await;
    for over in BOTH {
        // It has been stale for 30 s.
        for (control, served) in [
            (", stale-while-revalidate=60", true),
            (", STALE-WHILE-REVALIDATE=\"60\"", true),
            (", stale-while-revalidate=20", false),
            (", stale-while-revalidate=0", false),
            (", stale-while-revalidate=-60", false),
            (", stale-while-revalidate=6o", false),
            (", stale-while-revalidate=60, must-revalidate", false),
            (", stale-while-revalidate=60, proxy-revalidate", false),
            (", stale-while-revalidate=60, no-cache", false),
            (", stale-while-revalidate=60, s-maxage=60", false),
            ("", false),
        ] {
            let mut scene = stage.scene(over, [stale("old", control), fresh("new")]).await;
            scene.get().await;
            let second = scene.get().await;
            assert_eq!(second.text(), if served { "old" } else { "new" }, "{control} over {over:?}: {second:?}");
            if served {
                assert!(second.is_hit() && is_half_a_minute_over(&second), "{control} over {over:?}: {second:?}");
            }
            eventually("the refresh", async || scene.get().await.text() == "new").await;
            assert_eq!(scene.seen().len(), 2, "one refresh: {control} over {over:?}");
        }
    }
}

/// RFC 5861 §4, RFC 9111 §4.2.4: stale when the origin fails, where somebody allows it. More ways to fail: `crate::stale`.
#[tokio::test]
async fn rule_07_stale_if_error() {
    let stages = [Stage::new().await, Stage::with("cache: { stale_if_error: 10m }").await];
    for over in BOTH {
        for (control, served) in [
            // By default, and where the site allows it.
            ("", [false, true]),
            (", stale-if-error=60", [true, true]),
            (", stale-if-error=20", [false, false]),
            (", stale-if-error=60, must-revalidate", [false, false]),
            (", stale-if-error=60, proxy-revalidate", [false, false]),
            (", stale-if-error=60, no-cache", [false, false]),
            (", stale-if-error=60, s-maxage=60", [false, false]),
            (", must-revalidate", [false, false]),
            (", s-maxage=60", [false, false]),
        ] {
            for (stage, served) in stages.iter().zip(served) {
                for (what, failure) in
                    [("500", Reply::new(500)), ("504", Reply::new(504)), ("hang up", Reply::hang_up())]
                {
                    let mut scene = stage.scene(over, [stale("old", control), failure]).await;
                    scene.get().await;
                    let second = scene.get().await;
                    let case = format!("{what}{control} over {over:?}: {second:?}");
                    assert_eq!(second.status == 200 && second.text() == "old", served, "{case}");
                    assert_eq!(second.status >= 500, !served, "{case}");
                    if served {
                        assert_eq!(parameter(&second, "fwd"), Some("stale"), "{case}");
                        assert!(is_half_a_minute_over(&second), "{case}");
                    }
                }
            }
        }
    }
}

/// RFC 9111 §3, RFC 9110 §15: any final status is reusable while it is fresh, be it unknown or an error.
#[tokio::test]
async fn rule_10_any_final_status_with_explicit_freshness() {
    let stage = Stage::new().await;
    let mut rows = Vec::new();
    let all = [
        200, 201, 202, 203, 204, 299, 300, 301, 302, 303, 305, 307, 308, 399, 400, 401, 402, 403, 404, 405, 406, 408,
        409, 410, 411, 412, 413, 414, 415, 417, 418, 421, 422, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503,
        504, 505, 511, 599,
    ];
    for status in all {
        for (name, value) in [("Cache-Control", "max-age=60".to_owned()), ("Expires", http_date(60))] {
            let first = Reply::new(status).header(name, &value);
            rows.push(Row { what: format!("{status} with {name}"), first, reused: true });
        }
        let first = Reply::new(status).cache_control("max-age=0");
        rows.push(Row { what: format!("{status} without a lifetime"), first, reused: false });
    }
    // A part is not the whole, whoever asked for it.
    let first = Reply::new(206).body("b").cache_control("max-age=60").header("Content-Range", "bytes 0-0/4");
    rows.push(Row { what: "206".into(), first, reused: false });
    // A 304 that nobody has asked for is no response to keep.
    rows.push(Row { what: "304".into(), first: Reply::new(304).cache_control("max-age=60"), reused: false });
    stage.plays(rows).await;
}

/// RFC 9111 §5.2.2.3: must-understand overrides no-store, for a status that this cache understands; it forbids to store
/// any other.
#[tokio::test]
async fn rule_10_must_understand() {
    let stage = Stage::new().await;
    let mut rows = Vec::new();
    for (status, understood) in [
        (200, true),
        (204, true),
        (301, true),
        (404, true),
        (410, true),
        (500, true),
        (503, true),
        (299, false),
        (399, false),
        (499, false),
        (599, false),
    ] {
        for control in [
            "must-understand, max-age=60",
            "no-store, must-understand, max-age=60",
            "max-age=60, Must-Understand, No-Store",
        ] {
            let first = Reply::new(status).cache_control(control);
            rows.push(Row { what: format!("{status} {control}"), first, reused: understood });
        }
        let first = Reply::new(status).cache_control("must-understand, private, max-age=60");
        rows.push(Row { what: format!("{status} private"), first, reused: false });
    }
    stage.plays(rows).await;
}
