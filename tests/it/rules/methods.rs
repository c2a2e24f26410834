//! Which methods are answered from the store, and which change what is stored (RFC 9111 §2, §4.3.5, §4.4; RFC 9110 §9).
//! More: `crate::methods`, `crate::sharing`.

use super::{Stage, fresh, later, parameter, stale};
use crate::harness::{Ask, Reply};
use crate::over::BOTH;

/// RFC 9111 §2, RFC 9110 §9.3: GET and HEAD are cached. A POST that describes its own URL serves later GETs (§9.3.3).
#[tokio::test]
async fn rule_09_methods() {
    let stage = Stage::new().await;
    for over in BOTH {
        for first in ["GET", "HEAD"] {
            let mut scene = stage.scene(over, [fresh("body"), later()]).await;
            scene.send(first, &[]).await;
            let get = scene.get().await;
            assert_eq!((get.is_hit(), get.text()), (true, "body"), "after {first} over {over:?}: {get:?}");
            let head = scene.send("HEAD", &[]).await;
            assert_eq!((head.is_hit(), head.text(), head.header("Content-Length")), (true, "", Some("4")), "{over:?}");
        }
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "REPORT", "FOO", "get"] {
            let mut scene = stage.scene(over, [fresh("one"), fresh("two"), fresh("three"), later()]).await;
            // Neither stored, nor answered from what is, each time.
            let answer = scene.send(method, &[]).await;
            assert_eq!((answer.text(), parameter(&answer, "fwd")), ("one", Some("method")), "{method} over {over:?}");
            assert_eq!(parameter(&answer, "stored"), None, "{method} over {over:?}");
            assert_eq!(scene.get().await.text(), "two", "{method} over {over:?}");
            assert_eq!(scene.send(method, &[]).await.text(), "three", "{method} over {over:?}");
        }
        for (fields, is_stored) in [
            (&[("Cache-Control", "max-age=60"), ("Content-Location", "SELF")][..], true),
            (&[("Expires", "Thu, 18 Aug 2050 02:01:18 GMT"), ("Content-Location", "SELF")], true),
            (&[("Cache-Control", "max-age=60")], false),
            (&[("Cache-Control", "max-age=60"), ("Content-Location", "/elsewhere")], false),
            (&[("Content-Location", "SELF"), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")], false),
        ] {
            let mut scene = stage.scene(over, []).await;
            let itself = scene.target.clone();
            let value = |value: &str| if value == "SELF" { itself.clone() } else { value.to_owned() };
            let posted = fields.iter().fold(Reply::ok("posted"), |reply, (name, v)| reply.header(name, value(v)));
            stage.script(&itself, [posted, later()]);
            assert_eq!(scene.send("POST", &[]).await.text(), "posted");
            let get = scene.get().await;
            assert_eq!(get.is_hit(), is_stored, "{fields:?} over {over:?}: {get:?}");
            assert_eq!(get.text(), if is_stored { "posted" } else { "later" }, "{fields:?} over {over:?}: {get:?}");
        }
    }
}

/// RFC 9111 §4.3.5: a fresh GET answers HEAD; one of something stale goes on, and a 200 to it updates what is stored.
#[tokio::test]
async fn rule_19_head() {
    let stage = Stage::new().await;
    for over in BOTH {
        let answer = |version: &str| {
            let reply =
                Reply::new(200).cache_control("max-age=600").header("ETag", "\"v1\"").header("X-Version", version);
            reply.header("Content-Length", "3")
        };
        let old = stale("old", ", stale-if-error=600").header("X-Version", "1").header("X-Only", "1");
        let mut scene = stage.scene(over, [old.clone(), answer("2"), later()]).await;
        scene.get().await;
        let head = scene.send("HEAD", &[]).await;
        assert_eq!(
            (head.status, head.header("X-Version"), head.is_hit()),
            (200, Some("2"), false),
            "{over:?}: {head:?}"
        );
        assert_eq!(scene.seen()[1].method, "HEAD", "{over:?}");
        let get = scene.get().await;
        assert_eq!((get.text(), get.is_hit()), ("old", true), "{over:?}: {get:?}");
        assert_eq!((get.header("X-Version"), get.header("X-Only")), (Some("2"), Some("1")), "{over:?}: {get:?}");

        // One that shows another representation invalidates what is stored; one that fails does nothing.
        for (what, reply, text) in [
            ("another ETag", Reply::new(200).cache_control("max-age=600").header("ETag", "\"v2\""), "later"),
            ("another length", Reply::new(200).cache_control("max-age=600").header("Content-Length", "4"), "later"),
            ("an error", Reply::new(404).header("Content-Length", "3"), "old"),
        ] {
            let first = fresh("old").header("ETag", "\"v1\"");
            let mut scene = stage.scene(over, [first, reply, later()]).await;
            scene.get().await;
            let head = scene.send("HEAD", &[("Cache-Control", "no-cache")]).await;
            assert!(!head.is_hit(), "{what} over {over:?}: {head:?}");
            assert_eq!(scene.get().await.text(), text, "{what} over {over:?}");
        }
    }
}

/// RFC 9111 §4.4: what is unsafe, or unknown, and succeeds, invalidates its own URL.
#[tokio::test]
async fn rule_20_invalidation_of_the_target() {
    let stage = Stage::new().await;
    for over in BOTH {
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FOOBAR"] {
            for (status, invalidates) in [
                (200, true),
                (201, true),
                (204, true),
                (299, true),
                (302, true),
                (303, true),
                (400, false),
                (403, false),
                (404, false),
                (500, false),
                (503, false),
            ] {
                let mut scene = stage.scene(over, [fresh("first"), Reply::new(status), later()]).await;
                scene.get().await;
                assert_eq!(scene.send(method, &[]).await.status, status, "{method} over {over:?}");
                let get = scene.get().await;
                let text = if invalidates { "later" } else { "first" };
                assert_eq!(
                    (get.text(), get.is_hit()),
                    (text, !invalidates),
                    "{method} {status} over {over:?}: {get:?}"
                );
            }
        }
        for method in ["OPTIONS", "PROPFIND"] {
            let mut scene = stage.scene(over, [fresh("first"), Reply::new(200), later()]).await;
            scene.get().await;
            scene.send(method, &[]).await;
            assert!(scene.get().await.is_hit(), "{method} is safe, over {over:?}");
        }
        // One that does not succeed at all.
        let mut scene = stage.scene(over, [fresh("first"), Reply::hang_up(), later()]).await;
        scene.get().await;
        assert_eq!(over.ask(&stage.edge, &Ask::new("POST", &scene.target)).await.status, 502, "{over:?}");
        assert!(scene.get().await.is_hit(), "{over:?}");
    }
}

/// RFC 9111 §4.4: and those of Location and Content-Location, on the same host.
#[tokio::test]
async fn rule_20_invalidation_of_location_and_content_location() {
    let stage = Stage::new().await;
    for over in BOTH {
        for field in ["Location", "Content-Location"] {
            for method in ["POST", "PUT", "DELETE", "FOOBAR"] {
                for (status, reference, invalidates) in [
                    (201, "TARGET", true),
                    (200, "http://edge.test", true),
                    (303, "//edge.test", true),
                    (204, "../x/..", true),
                    (200, "http://other.test", false),
                    (200, "//other.test", false),
                    (200, "http://edge.test.evil", false),
                    (404, "TARGET", false),
                    (500, "TARGET", false),
                ] {
                    let mut other = stage.scene(over, [fresh("first"), later()]).await;
                    let target = &other.target;
                    let value = match reference {
                        "TARGET" => target.clone(),
                        "../x/.." => format!("../x/..{target}"),
                        base => format!("{base}{target}"),
                    };
                    let reply = Reply::new(status).header(field, &value);
                    let mut scene = stage.scene(over, [reply]).await;
                    other.get().await;
                    assert!(other.get().await.is_hit());
                    scene.send(method, &[]).await;
                    let get = other.get().await;
                    let case = format!("{method} {status} {field}: {value} over {over:?}: {get:?}");
                    assert_eq!(get.is_hit(), !invalidates, "{case}");
                    assert_eq!(get.text(), if invalidates { "later" } else { "first" }, "{case}");
                }
            }
        }
        // The same path on another host is another thing.
        let mut scene = stage.scene(over, [fresh("first"), fresh("other's"), Reply::new(204), later()]).await;
        scene.get().await;
        let other = Ask::get(&scene.target).host("other.test");
        assert_eq!(over.ask(&stage.edge, &other).await.text(), "other's");
        over.ask(&stage.edge, &Ask::new("POST", &scene.target).host("other.test")).await;
        assert!(scene.get().await.is_hit(), "{over:?}");
        assert_eq!(over.ask(&stage.edge, &other).await.text(), "later", "{over:?}");
    }
}
