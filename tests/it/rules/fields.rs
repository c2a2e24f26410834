//! Which fields are kept with a response, how a 304 changes them, and what interim responses leave behind
//! (RFC 9111 §3.1, §3.2; RFC 9110 §7.6.1, §15.2).

use super::{Stage, fresh, later, parameter, stale};
use crate::harness::{Reply, http_date};
use crate::over::BOTH;

/// RFC 9111 §3.1: every field is stored, each line of it, also those that a cache does not know.
#[tokio::test]
async fn rule_17_all_fields_are_stored() {
    let stage = Stage::new().await;
    let (date, expires) = (http_date(-3), http_date(600));
    let fields = [
        ("Accept-Ranges", "bytes"),
        ("Access-Control-Allow-Origin", "*"),
        ("Allow", "GET, HEAD"),
        ("Alt-Svc", "h3=\":443\""),
        ("Cache-Control", "max-age=60, foobar=\"x, y\""),
        ("Clear-Site-Data", "\"cache\""),
        ("Content-Disposition", "attachment; filename=\"x\""),
        ("Content-Encoding", "x-own"),
        ("Content-Language", "de"),
        ("Content-Location", "/there"),
        ("Content-MD5", "Q2hlY2sgSW50ZWdyaXR5IQ=="),
        ("Content-Security-Policy", "default-src 'self'"),
        ("Content-Type", "text/x-test; charset=utf-8"),
        ("Date", &date),
        ("ETag", "\"abc\""),
        ("Expires", &expires),
        ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Link", "</a>; rel=preload"),
        ("Link", "</b>; rel=preload"),
        ("Location", "/elsewhere"),
        ("P3P", "CP=\"x\""),
        ("Pragma", "x"),
        ("Refresh", "5"),
        ("Retry-After", "5"),
        ("Server", "origin/1"),
        ("Strict-Transport-Security", "max-age=1"),
        ("Test-Header", "one"),
        ("Test-Header", "two, three"),
        ("Vary", "X-A"),
        ("Via", "1.1 inner"),
        ("Warning", "199 - \"x\""),
        ("WWW-Authenticate", "Basic realm=\"x\""),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "deny"),
        ("X-Empty", ""),
        ("X-Obs-Text", "caf\u{e9}"),
    ];
    for over in BOTH {
        let reply = fields.iter().fold(Reply::ok("body"), |reply, (name, value)| reply.header(name, value));
        let mut scene = stage.scene(over, [reply, later()]).await;
        let (miss, hit) = (scene.get().await, scene.get().await);
        assert!(hit.is_hit(), "{over:?}: {hit:?}");
        for (name, _) in fields {
            let sent: Vec<_> = fields.iter().filter(|(n, _)| *n == name).map(|(_, value)| *value).collect();
            assert_eq!(miss.headers.all(name), sent, "{name} of a miss over {over:?}");
            assert_eq!(hit.headers.all(name), sent, "{name} of a hit over {over:?}");
        }
        assert_eq!(hit.headers.all("Content-Length"), ["4"], "{over:?}");
    }
}

/// RFC 9111 §3.1, RFC 9110 §7.6.1, §11.7: but for those that are about the connection or the proxy on the way, and those
/// that Connection names.
#[tokio::test]
async fn rule_17_hop_by_hop_fields_are_not() {
    let stage = Stage::new().await;
    let dropped = [
        ("Connection", "X-Named, keep-alive, x-LISTED"),
        ("Connection", "x-second"),
        ("Keep-Alive", "timeout=50"),
        ("Proxy-Authenticate", "Basic realm=\"proxy\""),
        ("Proxy-Authentication-Info", "x=1"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers"),
        ("Trailer", "X-Sum"),
        ("Upgrade", "h2c"),
        ("X-Named", "1"),
        ("X-Listed", "1"),
        ("X-Second", "1"),
        ("X-Second", "2"),
    ];
    for over in BOTH {
        for chunked in [false, true] {
            let reply = dropped.iter().fold(fresh("body"), |reply, (name, value)| reply.header(name, value));
            let reply = reply.header("X-Kept", "1").header("Named", "1");
            let mut scene = stage.scene(over, [if chunked { reply.chunked() } else { reply }, later()]).await;
            let (miss, hit) = (scene.get().await, scene.get().await);
            assert!(hit.is_hit() && hit.text() == "body", "{over:?}: {hit:?}");
            for (at, response) in [("a miss", &miss), ("a hit", &hit)] {
                for (name, _) in dropped.iter().filter(|(name, _)| *name != "Connection") {
                    assert_eq!(response.header(name), None, "{name} of {at} over {over:?}");
                }
                for name in ["X-Named", "X-Listed", "X-Second"] {
                    assert!(!response.headers.lists("Connection", name), "{name} of {at} over {over:?}: {response:?}");
                }
                assert_eq!((response.header("X-Kept"), response.header("Named")), (Some("1"), Some("1")), "{at}");
            }
            assert_eq!(hit.header("Transfer-Encoding"), None, "{over:?}");
        }
    }
    // RFC 9110 §7.6.1: Connection cannot name what is meant for all recipients; a response does not become public by it.
    let future = http_date(600);
    let named = ("Connection", "Cache-Control, Vary, Set-Cookie, Expires, Age, Date");
    stage
        .plays([
            super::row(&[named, ("Cache-Control", "no-store"), ("Expires", &future)], false),
            super::row(&[named, ("Cache-Control", "private, max-age=60")], false),
            super::row(&[named, ("Cache-Control", "max-age=60"), ("Vary", "*")], false),
            super::row(&[named, ("Cache-Control", "max-age=60"), ("Set-Cookie", "a=1")], false),
            super::row(&[named, ("Cache-Control", "max-age=60"), ("Age", "60")], false),
            super::row(&[named, ("Cache-Control", "max-age=60"), ("Expires", &future)], true),
        ])
        .await;
}

/// RFC 9111 §3.2, §4.3.4: the fields of a 304 replace the stored ones of the same name, now and later; the others stay.
#[tokio::test]
async fn rule_18_a_304_updates_the_stored_fields() {
    let stage = Stage::new().await;
    let (date, expires) = (http_date(-2), http_date(600));
    for over in BOTH {
        let first = stale("the body", "")
            .header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
            .header("Date", http_date(-90))
            .header("Expires", http_date(-30))
            .header("Content-Type", "text/plain")
            .header("Content-Encoding", "x-own")
            .header("X-Same", "old")
            .header("X-Two", "old 1")
            .header("X-Two", "old 2")
            .header("X-Stays", "old 1")
            .header("X-Stays", "old 2")
            .header("X-Named", "old");
        let confirmed = Reply::new(304)
            .cache_control("max-age=600")
            .header("ETag", "\"v1\"")
            .header("Date", &date)
            .header("Expires", &expires)
            .header("X-Same", "new")
            .header("X-Two", "new")
            .header("X-New", "new 1")
            .header("X-New", "new 2")
            // What describes the 304 rather than what is stored, and what is for this hop.
            .header("Content-Length", "9999")
            .header("Content-Encoding", "gzip")
            .header("Connection", "X-Named")
            .header("X-Named", "new")
            .header("Proxy-Authenticate", "Basic");
        let mut scene = stage.scene(over, [first, confirmed, later()]).await;
        let first = scene.get().await;
        assert_eq!(first.headers.all("X-Two"), ["old 1", "old 2"]);
        let (second, third) = (scene.get().await, scene.get().await);
        assert_eq!((parameter(&second, "fwd"), parameter(&second, "fwd-status")), (Some("stale"), Some("304")));
        assert!(third.is_hit(), "{over:?}: {third:?}");
        for (at, response) in [("now", &second), ("later", &third)] {
            let case = format!("{at} over {over:?}: {response:?}");
            assert_eq!((response.status, response.text()), (200, "the body"), "{case}");
            for (name, values) in [
                ("Cache-Control", &["max-age=600"][..]),
                ("Date", &[&date]),
                ("Expires", &[&expires]),
                ("ETag", &["\"v1\""]),
                ("X-Same", &["new"]),
                ("X-Two", &["new"]),
                ("X-New", &["new 1", "new 2"]),
                ("X-Stays", &["old 1", "old 2"]),
                ("X-Named", &["old"]),
                ("Proxy-Authenticate", &[]),
                ("Content-Type", &["text/plain"]),
                ("Content-Encoding", &["x-own"]),
                ("Content-Length", &["8"]),
                ("Last-Modified", &["Sun, 06 Nov 1994 08:49:37 GMT"]),
            ] {
                assert_eq!(response.headers.all(name), values, "{name} {case}");
            }
            // The age is that of the 304, which has none but its Date's.
            assert!(response.age().is_none_or(|age| (2..10).contains(&age)), "{case}");
        }
        assert_eq!(scene.seen().len(), 2, "{over:?}");
    }
}

/// RFC 9111 §3.2 with §5.2.2.7, and RFC 6265 §3: what of a 304 is for one client is for the one that caused it.
#[tokio::test]
async fn rule_18_what_of_a_304_is_not_shared() {
    let stage = Stage::new().await;
    for over in BOTH {
        let confirmed = Reply::new(304)
            .cache_control("max-age=600, private=\"X-Own\"")
            .header("ETag", "\"v1\"")
            .header("X-Own", "yours")
            .header("Set-Cookie", "id=1")
            .header("Set-Cookie", "theme=dark");
        let mut scene = stage.scene(over, [stale("old", "").header("X-Own", "before"), confirmed, later()]).await;
        scene.get().await;
        let (second, third) = (scene.get().await, scene.get().await);
        assert!(third.is_hit() && third.text() == "old", "{over:?}: {third:?}");
        assert_eq!((third.header("X-Own"), third.header("Set-Cookie")), (None, None), "{over:?}: {third:?}");
        assert_eq!(second.headers.all("X-Own"), ["yours"], "{over:?}: {second:?}");
        assert_eq!(second.headers.all("Set-Cookie"), ["id=1", "theme=dark"], "{over:?}: {second:?}");
    }
}

/// RFC 9111 §4.3.3, §3.2: a 304 that forbids to store confirms what is stored for this one client, with its fields.
#[tokio::test]
async fn rule_18_a_304_that_may_not_be_stored() {
    let stage = Stage::new().await;
    for over in BOTH {
        for control in ["no-store", "private, max-age=600"] {
            let first = stale("old", "").header("X-Same", "old 1").header("X-Same", "old 2").header("X-Stays", "1");
            let confirmed = Reply::new(304)
                .cache_control(control)
                .header("ETag", "\"v1\"")
                .header("X-Same", "new")
                .header("X-New", "1")
                .header("Content-Length", "9999")
                .header("Set-Cookie", "id=1");
            for part in [&[][..], &[("Range", "bytes=0-1")]] {
                let mut scene = stage.scene(over, [first.clone(), confirmed.clone(), later()]).await;
                scene.get().await;
                let (second, third) = (scene.get_with(part).await, scene.get().await);
                let case = format!("{control} over {over:?}: {second:?}");
                let (status, text) = if part.is_empty() { (200, "old") } else { (206, "ol") };
                assert_eq!((second.status, second.text()), (status, text), "{case}");
                assert_eq!(second.headers.all("Content-Length"), [text.len().to_string()], "{case}");
                assert_eq!(
                    (second.headers.all("X-Same"), second.headers.all("X-New")),
                    (vec!["new"], vec!["1"]),
                    "{case}"
                );
                assert_eq!(
                    (second.header("X-Stays"), second.header("Set-Cookie")),
                    (Some("1"), Some("id=1")),
                    "{case}"
                );
                assert_eq!(second.headers.all("Cache-Control"), [control], "{case}");
                assert_eq!((parameter(&second, "stored"), second.header("Age")), (None, None), "{case}");
                assert_eq!((third.text(), third.is_hit()), ("later", false), "{over:?}: {third:?}");
            }
        }
    }
}

/// RFC 9111 §4.3.4: a 304 that is about another response than the stored one changes nothing of it.
#[tokio::test]
async fn rule_18_a_304_about_something_else() {
    let stage = Stage::new().await;
    for over in BOTH {
        let other = Reply::new(304).cache_control("max-age=600").header("ETag", "\"v2\"").header("X-New", "1");
        let mut scene = stage.scene(over, [stale("old", ""), other, fresh("new")]).await;
        scene.get().await;
        let second = scene.get().await;
        // The origin has said that it is good, once; but not by which name.
        assert_eq!((second.status, second.text()), (200, "old"), "{over:?}: {second:?}");
        assert_eq!(
            (second.headers.all("ETag"), second.header("X-New")),
            (vec!["\"v1\""], None),
            "{over:?}: {second:?}"
        );
        assert_eq!(second.headers.all("Cache-Control"), ["max-age=60"], "{over:?}: {second:?}");
        assert!(second.age().is_some_and(|age| (90..=92).contains(&age)), "{over:?}: {second:?}");
        let third = scene.get().await;
        assert_eq!((third.text(), third.is_hit()), ("new", false), "{over:?}: {third:?}");
        // Asked with the same condition, it would say the same for ever.
        assert!(!scene.seen()[2].headers.has("If-None-Match"), "{over:?}");
    }
}

/// RFC 9110 §15.2, RFC 8297: interim responses are passed on at once, and are no part of what is stored.
#[tokio::test]
async fn rule_25_interim_responses() {
    let stage = Stage::new().await;
    for over in BOTH {
        // Often: they come in one read or in several, as it happens.
        for control in ["max-age=60", "no-store"].repeat(5) {
            let reply = Reply::ok("final")
                .interim(102, &[("X-Progress", "1")])
                .interim(103, &[("Link", "</a.css>; rel=preload"), ("X-Hint", "1"), ("Cache-Control", "max-age=3600")])
                .interim(103, &[("Link", "</b.css>; rel=preload")])
                .cache_control(control)
                .header("X-Final", "1");
            let mut scene = stage.scene(over, [reply, later()]).await;
            let first = scene.get().await;
            let case = format!("{control} over {over:?}: {first:?}");
            assert_eq!(first.interim.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [102, 103, 103], "{case}");
            assert_eq!(first.interim[0].1.all("X-Progress"), ["1"], "{case}");
            assert_eq!(first.interim[1].1.all("Link"), ["</a.css>; rel=preload"], "{case}");
            assert_eq!((first.status, first.text(), first.header("X-Final")), (200, "final", Some("1")), "{case}");
            assert_eq!(first.headers.all("Cache-Control"), [control], "{case}");
            let second = scene.get().await;
            assert_eq!(second.is_hit(), control != "no-store", "{over:?}: {second:?}");
            assert!(second.interim.is_empty(), "{over:?}: {second:?}");
            for response in [&first, &second] {
                for name in ["Link", "X-Hint", "X-Progress"] {
                    assert_eq!(response.header(name), None, "{name} over {over:?}: {response:?}");
                }
            }
        }
    }
}
