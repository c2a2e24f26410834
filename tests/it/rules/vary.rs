//! Which requests share a response that varies (RFC 9111 §4.1, RFC 9110 §12.5.5).

use super::{Stage, assert_none, fresh, later, parameter, with};
use crate::harness::{Ask, Reply};
use crate::over::{BOTH, Over};

type Fields = &'static [(&'static str, &'static str)];

/// Vary, one request's fields, another's, and whether what answers the one answers the other.
type Case = (&'static [&'static str], Fields, Fields, bool);

const CASES: &[Case] = &[
    (&["X-A"], &[("X-A", "1")], &[("X-A", "1")], true),
    (&["X-A"], &[("X-A", "1")], &[("X-A", "2")], false),
    (&["X-A"], &[("X-A", "1")], &[("X-A", "1"), ("X-Other", "2")], true),
    (&["X-A"], &[("X-A", "1"), ("X-Other", "1"), ("Accept", "a/b")], &[("X-A", "1"), ("User-Agent", "x")], true),
    // Absent matches only absent.
    (&["X-A"], &[], &[], true),
    (&["X-A"], &[], &[("X-A", "1")], false),
    (&["X-A"], &[("X-A", "1")], &[], false),
    (&["X-A"], &[("X-A", "")], &[], false),
    // Each field listed.
    (&["X-A, X-B"], &[("X-A", "1"), ("X-B", "2")], &[("X-B", "2"), ("X-A", "1")], true),
    (&["X-A, X-B"], &[("X-A", "1"), ("X-B", "2")], &[("X-A", "1"), ("X-B", "3")], false),
    (&["X-A, X-B"], &[("X-A", "1"), ("X-B", "2")], &[("X-A", "1")], false),
    (&["X-A, X-B"], &[("X-A", "1")], &[("X-B", "1")], false),
    (&["X-A, X-B"], &[("X-A", "12")], &[("X-A", "1"), ("X-B", "2")], false),
    (&["X-A", "X-B"], &[("X-A", "1"), ("X-B", "2")], &[("X-A", "1"), ("X-B", "3")], false),
    (&["X-A", "X-B"], &[("X-A", "1"), ("X-B", "2")], &[("X-A", "1"), ("X-B", "2")], true),
    (&["x-a ,, X-B,"], &[("X-A", "1"), ("X-B", "2")], &[("x-a", "1"), ("x-b", "2")], true),
    (&["x-a ,, X-B,"], &[("X-A", "1"), ("X-B", "2")], &[("x-a", "1"), ("x-b", "3")], false),
    (&[""], &[("X-A", "1")], &[("X-A", "2")], true),
    // Lines are combined, and white space around members does not count.
    (&["X-A"], &[("X-A", "1,2")], &[("X-A", "1 , 2")], true),
    (&["X-A"], &[("X-A", "1, 2")], &[("X-A", "1"), ("X-A", "2")], true),
    (&["X-A"], &[("X-A", "1"), ("X-A", "2")], &[("X-A", "1"), ("X-A", "3")], false),
    (&["X-A"], &[("X-A", "12")], &[("X-A", "1, 2")], false),
    (&["X-A"], &[("X-A", "1 2")], &[("X-A", "12")], false),
    // Case and order only where the field says that they do not matter.
    (&["X-A"], &[("X-A", "one")], &[("X-A", "ONE")], false),
    (&["X-A"], &[("X-A", "1, 2")], &[("X-A", "2, 1")], false),
    (&["Accept-Language"], &[("Accept-Language", "en, de")], &[("Accept-Language", "de, EN")], true),
    (&["Accept-Language"], &[("Accept-Language", "en,de;q=0.5")], &[("Accept-Language", "de; q=0.5 ,en")], true),
    (&["Accept-Language"], &[("Accept-Language", "en, de")], &[("Accept-Language", "en")], false),
    (&["Accept-Language"], &[("Accept-Language", "en;q=0.5, de")], &[("Accept-Language", "en, de;q=0.5")], false),
    (&["accept"], &[("Accept", "text/html, image/png")], &[("Accept", "IMAGE/png,Text/HTML")], true),
    (&["accept"], &[("Accept", "text/html")], &[("Accept", "text/plain")], false),
    // Codings: those that are acceptable.
    (&["Accept-Encoding"], &[("Accept-Encoding", "gzip, br")], &[("Accept-Encoding", "BR;q=0.5,gzip")], true),
    (&["Accept-Encoding"], &[("Accept-Encoding", "gzip")], &[("Accept-Encoding", "x-gzip, deflate;q=0")], true),
    (&["Accept-Encoding"], &[("Accept-Encoding", "gzip")], &[("Accept-Encoding", "br")], false),
    (&["Accept-Encoding"], &[("Accept-Encoding", "gzip")], &[("Accept-Encoding", "gzip;q=0")], false),
    (&["Accept-Encoding"], &[("Accept-Encoding", "gzip")], &[("Accept-Encoding", "*")], false),
    (&["Accept-Encoding"], &[("Accept-Encoding", "gzip")], &[], false),
    (&["Cookie"], &[("Cookie", "a=1")], &[("Cookie", "a=2")], false),
    (&["Cookie"], &[("Cookie", "a=1")], &[("Cookie", "a=1")], true),
];

/// RFC 9111 §4.1: a response is reused where the request matches in each field that it varies on.
#[tokio::test]
async fn rule_13_matching() {
    let stage = Stage::new().await;
    let mut wrong = Vec::new();
    for over in BOTH {
        for &(vary, one, other, matches) in CASES {
            let reply = vary.iter().fold(fresh("first"), |reply, line| reply.header("Vary", line));
            let mut scene = stage.scene(over, [reply, later()]).await;
            scene.get_with(one).await;
            let second = scene.get_with(other).await;
            let answer = if matches { "first" } else { "later" };
            if second.is_hit() != matches || second.text() != answer {
                wrong.push(format!("{over:?}: {vary:?} {one:?} {other:?} {}", second.cache_status()));
            }
            if !matches && parameter(&second, "fwd") != Some("vary-miss") {
                wrong.push(format!("{over:?}: {vary:?} {one:?} {other:?} is no vary-miss: {}", second.cache_status()));
            }
        }
    }
    assert_none(&wrong);
}

/// RFC 9113 §8.2.3: over HTTP/2 a Cookie may come in pieces, which are one field to everybody behind.
#[tokio::test]
async fn rule_13_cookies_in_pieces() {
    let stage = Stage::new().await;
    let mut scene = stage.scene(Over::Http2, [fresh("first").header("Vary", "Cookie"), later()]).await;
    scene.get_with(&[("Cookie", "a=1"), ("Cookie", "b=2")]).await;
    assert_eq!(scene.seen()[0].headers.all("Cookie"), ["a=1; b=2"]);
    for over in BOTH {
        let whole = with(Ask::get(&scene.target), &[("Cookie", "a=1; b=2")]);
        let hit = over.ask(&stage.edge, &whole).await;
        assert!(hit.is_hit() && hit.text() == "first", "{over:?}: {hit:?}");
    }
    assert_eq!(scene.get_with(&[("Cookie", "b=2"), ("Cookie", "a=1")]).await.text(), "later");
}

/// RFC 9111 §4.1: several variants are stored side by side, and each is validated by its own validator, with its own
/// request's fields. More: `crate::sharing`.
#[tokio::test]
async fn rule_13_variants() {
    let stage = Stage::new().await;
    for over in BOTH {
        let of = |body: &'static str| {
            let reply = Reply::ok(body).cache_control("max-age=60").header("Vary", "X-A, X-B");
            reply.header("ETag", format!("\"{body}\""))
        };
        let mut scene = stage.scene(over, [of("one"), of("two"), of("three"), later()]).await;
        let asks: [(Fields, &str); 3] = [
            (&[("X-A", "1"), ("X-B", "1")], "one"),
            (&[("X-A", "2"), ("X-B", "1")], "two"),
            (&[("X-B", "1")], "three"),
        ];
        for round in 0..3 {
            for (ask, body) in asks {
                let response = scene.get_with(ask).await;
                assert_eq!(
                    (response.text(), response.is_hit()),
                    (body, round > 0),
                    "{ask:?} over {over:?}: {response:?}"
                );
                assert_eq!(response.headers.all("Vary"), ["X-A, X-B"], "{over:?}");
            }
        }
        assert_eq!(scene.seen().len(), 3, "{over:?}");

        let stale = |body: &'static str| of(body).header("Age", "60");
        let confirm = |body: &str| {
            let reply = Reply::new(304).cache_control("max-age=60").header("ETag", format!("\"{body}\""));
            reply.header("Vary", "X-A, X-B").header("X-Confirmed", body)
        };
        let replies = [stale("one"), stale("two"), confirm("one"), confirm("two"), later()];
        let mut scene = stage.scene(over, replies).await;
        for round in 0..3 {
            for (ask, body) in &asks[..2] {
                let response = scene.get_with(ask).await;
                assert_eq!(response.text(), *body, "round {round} over {over:?}: {response:?}");
                assert_eq!(response.header("X-Confirmed"), (round > 0).then_some(*body), "round {round} over {over:?}");
                assert_eq!(response.is_hit(), round > 1, "round {round} over {over:?}: {response:?}");
            }
        }
        let seen = scene.seen();
        assert_eq!(seen.len(), 4, "{over:?}");
        for (request, (ask, body)) in seen[2..].iter().zip(asks) {
            assert_eq!(request.headers.all("If-None-Match"), [format!("\"{body}\"")], "{over:?}");
            for (name, value) in ask {
                assert_eq!(request.headers.all(name), [*value], "{over:?}");
            }
        }
    }
}

/// RFC 9111 §4.1: the Vary of the response that is stored counts, also after it has changed. More: `crate::sharing`.
#[tokio::test]
async fn rule_13_a_changed_vary() {
    let stage = Stage::new().await;
    let no_cache = ("Cache-Control", "no-cache");
    for over in BOTH {
        let vary = |body, vary| fresh(body).header("Vary", vary);
        let mut scene = stage.scene(over, [vary("a", "X-A"), vary("b", "X-B"), vary("b2", "X-B"), later()]).await;
        assert_eq!(scene.get_with(&[("X-A", "1"), ("X-B", "1")]).await.text(), "a");
        assert_eq!(scene.get_with(&[("X-A", "1"), ("X-B", "1"), no_cache]).await.text(), "b");
        for (fields, body) in [
            ([("X-A", "1"), ("X-B", "1")], "b"),
            ([("X-A", "2"), ("X-B", "1")], "b"),
            ([("X-A", "1"), ("X-B", "2")], "b2"),
            ([("X-A", "3"), ("X-B", "2")], "b2"),
            ([("X-A", "3"), ("X-B", "1")], "b"),
        ] {
            let response = scene.get_with(&fields).await;
            assert_eq!(response.text(), body, "{fields:?} over {over:?}: {response:?}");
        }
        // By a 304, too: whoever would now get another one does not get this.
        for (before, after) in [("X-A", "X-B"), ("X-A", "X-A, X-B"), ("", "X-B")] {
            let vary = |reply: Reply, vary: &str| if vary.is_empty() { reply } else { reply.header("Vary", vary) };
            let confirmed = vary(Reply::new(304).cache_control("max-age=60").header("ETag", "\"v1\""), after);
            let mut scene = stage.scene(over, [vary(super::stale("a", ""), before), confirmed, later()]).await;
            scene.get_with(&[("X-A", "1"), ("X-B", "1")]).await;
            assert_eq!(scene.get_with(&[("X-A", "1"), ("X-B", "1")]).await.text(), "a", "{before} {after} {over:?}");
            let other = scene.get_with(&[("X-A", "1"), ("X-B", "2")]).await;
            assert_eq!((other.text(), other.is_hit()), ("later", false), "{before} {after} {over:?}: {other:?}");
        }
        // And where it goes altogether, or comes.
        let mut scene = stage.scene(over, [vary("a", "X-A"), fresh("all"), vary("c", "X-A"), later()]).await;
        assert_eq!(scene.get_with(&[("X-A", "1")]).await.text(), "a");
        assert_eq!(scene.get_with(&[("X-A", "1"), no_cache]).await.text(), "all");
        assert_eq!(scene.get_with(&[("X-A", "2")]).await.text(), "all", "{over:?}");
        assert_eq!(scene.get_with(&[("X-A", "1"), no_cache]).await.text(), "c");
        assert_eq!(scene.get_with(&[("X-A", "1")]).await.text(), "c", "{over:?}");
        assert_eq!(scene.get_with(&[("X-A", "2")]).await.text(), "later", "{over:?}");
    }
}

/// RFC 9111 §4.1: `*` anywhere in Vary, and no request matches.
#[tokio::test]
async fn rule_14_vary_by_everything() {
    let stage = Stage::new().await;
    let mut rows = Vec::new();
    for lines in [
        &["*"][..],
        &["X-A, *"],
        &["*, X-A"],
        &["X-A,*,X-B"],
        &[", *"],
        &["X-A,,*"],
        &[" * "],
        &["X-A", "*"],
        &["*", "X-A"],
        &["", "*"],
    ] {
        let fields: Vec<_> = lines.iter().map(|line| ("Vary", *line)).collect();
        for further in [&[("Cache-Control", "max-age=60")][..], &[("Cache-Control", "s-maxage=60"), ("ETag", "\"a\"")]]
        {
            rows.push(super::row(&[&fields[..], further].concat(), false));
        }
    }
    stage.plays(rows).await;
}
