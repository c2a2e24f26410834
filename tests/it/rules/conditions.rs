//! Conditional requests: those of clients, and the edge's own (RFC 9111 §4.3, RFC 9110 §13).

use super::{Stage, assert_none, fresh, later, parameter, stale};
use crate::harness::{Reply, http_date};
use crate::over::BOTH;

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// RFC 9111 §4.3.2, RFC 9110 §13.1.3: from a fresh response, 304 where it has not changed since. More:
/// `crate::hits::conditions_are_answered_from_what_is_stored`.
#[tokio::test]
async fn rule_15_if_modified_since_of_a_fresh_response() {
    let stage = Stage::new().await;
    let mut wrong = Vec::new();
    let now = http_date(0);
    for over in BOTH {
        let mut scene = stage.scene(over, [fresh("body").header("Last-Modified", MODIFIED), later()]).await;
        scene.get().await;
        for (since, status) in [
            (MODIFIED, 304),
            (&*now, 304),
            ("Sun, 06 Nov 1994 08:49:38 GMT", 304),
            ("Sun, 06 Nov 1994 08:49:36 GMT", 200),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 304),
            ("Sunday, 06-Nov-94 08:49:36 GMT", 200),
            ("Sun Nov  6 08:49:37 1994", 304),
            ("Sun Nov  6 08:49:36 1994", 200),
            ("sun, 06 nov 1994 08:49:37 gmt", 304),
            ("Sun, 06 Nov 1994 08:49:38 UTC", 200),
            ("Sun, 06 Nov 94 08:49:38 GMT", 200),
            ("yesterday", 200),
            ("", 200),
        ] {
            for method in ["GET", "HEAD"] {
                let response = scene.send(method, &[("If-Modified-Since", since)]).await;
                let body = if status == 200 && method == "GET" { "body" } else { "" };
                if (response.status, response.text(), response.is_hit()) != (status, body, true) {
                    wrong.push(format!("{method} {since:?} over {over:?}: {response:?}"));
                }
                if status == 304 && response.header("Last-Modified") != Some(MODIFIED) {
                    wrong.push(format!("{method} {since:?} over {over:?} without Last-Modified: {response:?}"));
                }
            }
        }
        // Without Last-Modified, Date is when it was still so (RFC 9111 §4.3.2).
        let mut scene = stage.scene(over, [fresh("body").header("Date", http_date(-10)), later()]).await;
        scene.get().await;
        assert_eq!(scene.get_with(&[("If-Modified-Since", &http_date(-5))]).await.status, 304, "{over:?}");
        assert_eq!(scene.get_with(&[("If-Modified-Since", &http_date(-20))]).await.status, 200, "{over:?}");
    }
    assert_none(&wrong);
}

/// RFC 9111 §4.3.1, §4.3.2: a stale response is validated first, by its own validators.
#[tokio::test]
async fn rule_15_if_modified_since_of_a_stale_response() {
    let stage = Stage::new().await;
    for over in BOTH {
        let old = Reply::ok("old").cache_control("max-age=60").header("Age", "60").header("Last-Modified", MODIFIED);
        let confirmed = Reply::new(304).cache_control("max-age=60").header("Last-Modified", MODIFIED);
        for since in [MODIFIED, "Sunday, 06-Nov-94 08:49:37 GMT"] {
            let mut scene = stage.scene(over, [old.clone(), confirmed.clone()]).await;
            scene.get().await;
            let response = scene.get_with(&[("If-Modified-Since", since)]).await;
            assert_eq!((response.status, response.text()), (304, ""), "{over:?}: {response:?}");
            assert_eq!(parameter(&response, "fwd"), Some("stale"), "{response:?}");
            assert_eq!(scene.seen()[1].headers.all("If-Modified-Since"), [MODIFIED], "{over:?}");
            assert!(scene.get().await.is_hit(), "{over:?}");
        }
        let new = fresh("new").header("Last-Modified", http_date(-60));
        let mut scene = stage.scene(over, [old, new]).await;
        scene.get().await;
        let response = scene.get_with(&[("If-Modified-Since", MODIFIED)]).await;
        assert_eq!((response.status, response.text()), (200, "new"), "{over:?}: {response:?}");
    }
}

/// RFC 9110 §13.1.2, §8.8.3.2: If-None-Match compares weakly with each of a list.
#[tokio::test]
async fn rule_16_if_none_match() {
    let stage = Stage::new().await;
    let mut wrong = Vec::new();
    for over in BOTH {
        for (etag, lines, matches) in [
            ("\"abc\"", &["\"abc\""][..], true),
            ("\"abc\"", &["\"abcd\""], false),
            ("\"abc\"", &["\"ABC\""], false),
            ("\"abc\"", &["W/\"abc\""], true),
            ("W/\"abc\"", &["\"abc\""], true),
            ("W/\"abc\"", &["W/\"abc\""], true),
            ("\"abc\"", &["w/\"abc\""], false),
            ("\"abc\"", &["\"abc\", \"1\""], true),
            ("\"abc\"", &["\"1\", \"2\", \"abc\""], true),
            ("\"abc\"", &["\"1\" ,, W/\"abc\",\"2\""], true),
            ("\"abc\"", &["\"1\", \"2\""], false),
            ("\"abc\"", &["\"1\"", "\"abc\""], true),
            ("\"abc\"", &["\"1\"", "\"2\""], false),
            ("\"abc\"", &["*"], true),
            ("\"abc\"", &["\"*\""], false),
            ("\"abc\"", &["abc"], false),
            ("\"abc\"", &["\"abc"], false),
            ("\"abc\"", &[""], false),
            ("\"a,b\"", &["\"a,b\""], true),
            ("\"a,b\"", &["\"a\", \"b\""], false),
            ("\"a\\\"", &["\"1\", \"a\\\""], true),
            // obs-text (RFC 9110 §8.8.3: etagc).
            ("\"abcdefü\"", &["\"abcdefü\""], true),
            ("\"abcdefü\"", &["\"abcdef\u{fe}\""], false),
            ("abc", &["abc"], true),
        ] {
            let mut scene = stage.scene(over, [fresh("body").header("ETag", etag), later()]).await;
            scene.get().await;
            for method in ["GET", "HEAD"] {
                let fields: Vec<_> = lines.iter().map(|line| ("If-None-Match", *line)).collect();
                let response = scene.send(method, &fields).await;
                let status = if matches { 304 } else { 200 };
                let body = if status == 200 && method == "GET" { "body" } else { "" };
                if (response.status, response.text(), response.is_hit()) != (status, body, true) {
                    wrong.push(format!("{method} of {etag} with {lines:?} over {over:?}: {response:?}"));
                }
                if response.headers.all("ETag") != [etag] {
                    wrong.push(format!("{method} of {etag} with {lines:?} over {over:?} without ETag: {response:?}"));
                }
            }
        }
        // Without an ETag nothing matches but the asterisk.
        let mut scene = stage.scene(over, [fresh("body"), later()]).await;
        scene.get().await;
        assert_eq!(scene.get_with(&[("If-None-Match", "\"abc\"")]).await.status, 200, "{over:?}");
        assert_eq!(scene.get_with(&[("If-None-Match", "*")]).await.status, 304, "{over:?}");
    }
    assert_none(&wrong);
}

/// RFC 9110 §13.2.2: If-None-Match outranks If-Modified-Since; §15.4.5: what a 304 says.
#[tokio::test]
async fn rule_16_precedence_and_the_fields_of_a_304() {
    let stage = Stage::new().await;
    for over in BOTH {
        let first = fresh("body").header("ETag", "\"v1\"").header("Last-Modified", MODIFIED).header("Vary", "X-A");
        let first = first.header("Expires", http_date(60)).header("Content-Location", "/here").header("Age", "5");
        let mut scene = stage.scene(over, [first.header("Content-Type", "text/plain"), later()]).await;
        let whole = scene.get().await;
        for (none_match, since, status) in [
            ("\"v1\"", "Sun, 06 Nov 1994 08:49:36 GMT", 304),
            ("\"v0\"", MODIFIED, 200),
            ("\"v0\"", "yesterday", 200),
            ("\"v1\"", "yesterday", 304),
        ] {
            let response = scene.get_with(&[("If-None-Match", none_match), ("If-Modified-Since", since)]).await;
            assert_eq!((response.status, response.is_hit()), (status, true), "{none_match} {since} over {over:?}");
            for name in ["Cache-Control", "Date", "ETag", "Expires", "Vary", "Content-Location"] {
                assert_eq!(response.headers.all(name), whole.headers.all(name), "{name} over {over:?}: {response:?}");
            }
            assert!(response.age() >= Some(5), "{over:?}: {response:?}");
            if status == 304 {
                assert_eq!(response.header("Content-Length"), None, "{over:?}: {response:?}");
                assert_eq!(response.header("Transfer-Encoding"), None, "{over:?}: {response:?}");
            }
        }
        assert_eq!(scene.seen().len(), 1);
    }
}

/// RFC 9111 §4.3.1: the edge's own validation has what is stored for validators, and the request fields of the variant;
/// the client's own conditions are answered from what comes of it.
#[tokio::test]
async fn rule_16_the_edges_own_validation() {
    let stage = Stage::new().await;
    for over in BOTH {
        for (etag, modified) in [(Some("\"v1\""), None), (Some("W/\"v1\""), Some(MODIFIED)), (None, Some(MODIFIED))] {
            let of = |reply: Reply| {
                let reply = reply.cache_control("max-age=60").header("Vary", "Accept-Language");
                let reply = if let Some(etag) = etag { reply.header("ETag", etag) } else { reply };
                if let Some(modified) = modified { reply.header("Last-Modified", modified) } else { reply }
            };
            let replies = [of(Reply::ok("old")).header("Age", "60"), of(Reply::new(304))];
            let mut scene = stage.scene(over, replies).await;
            let language = ("Accept-Language", "de-AT, en;q=0.5");
            scene.get_with(&[language]).await;
            // The client has another one.
            let own =
                [language, ("If-None-Match", "\"other\""), ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:00 GMT")];
            let response = scene.get_with(&own).await;
            assert_eq!((response.status, response.text()), (200, "old"), "{etag:?} {modified:?} over {over:?}");
            let seen = &scene.seen()[1];
            assert_eq!(seen.headers.all("If-None-Match"), etag.as_slice(), "{over:?}: {seen:?}");
            assert_eq!(seen.headers.all("If-Modified-Since"), modified.as_slice(), "{over:?}: {seen:?}");
            assert_eq!(seen.headers.all("Accept-Language"), [language.1], "{over:?}: {seen:?}");
            assert!(scene.get_with(&[language]).await.is_hit(), "{over:?}");
        }
        // A client that has the stale one gets 304 for it, as soon as it is known to be good.
        let confirmed = Reply::new(304).cache_control("max-age=60").header("ETag", "\"v1\"");
        let mut scene = stage.scene(over, [stale("old", ""), confirmed]).await;
        scene.get().await;
        let response = scene.get_with(&[("If-None-Match", "W/\"v1\"")]).await;
        assert_eq!((response.status, response.headers.all("ETag")), (304, vec!["\"v1\""]), "{over:?}: {response:?}");
        // What has neither is fetched anew.
        let first = Reply::ok("old").cache_control("max-age=60, stale-if-error=60").header("Age", "60");
        let mut scene = stage.scene(over, [first, fresh("new")]).await;
        scene.get().await;
        assert_eq!(scene.get_with(&[("If-None-Match", "\"v1\"")]).await.text(), "new", "{over:?}");
        let seen = &scene.seen()[1];
        assert!(!seen.headers.has("If-None-Match") && !seen.headers.has("If-Modified-Since"), "{seen:?}");
    }
}
