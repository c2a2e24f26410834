//! Whose response may be whose: Authorization, cookies, the query (RFC 9111 §3.5, §7.3, §2); and fields left alone.

use super::{Row, Stage, fresh, later, row};
use crate::harness::{Reply, http_date};
use crate::over::BOTH;

/// RFC 9111 §3.5: what an authorised request got is reused only where the response says so. More: `crate::sharing`.
#[tokio::test]
async fn rule_22_authorization() {
    let stage = Stage::new().await;
    let alice = ("Authorization", "Basic YWxpY2U6eA==");
    let bob = ("Authorization", "Basic Ym9iOng=");
    for over in BOTH {
        for (control, shared) in [
            ("max-age=60", false),
            ("max-age=60, proxy-revalidate", false),
            ("max-age=60, immutable", false),
            ("max-age=60, s-maxage=x", false),
            ("max-age=60, foo=\"public\"", false),
            ("max-age=60, public", true),
            ("PUBLIC, max-age=60", true),
            ("max-age=60, must-revalidate", true),
            ("s-maxage=60", true),
            ("s-maxage=60, max-age=0", true),
        ] {
            for other in [&[bob][..], &[alice], &[]] {
                let mut scene = stage.scene(over, [Reply::ok("alice's").cache_control(control), later()]).await;
                assert_eq!(scene.get_with(&[alice]).await.text(), "alice's");
                let second = scene.get_with(other).await;
                let text = if shared { "alice's" } else { "later" };
                assert_eq!(
                    (second.text(), second.is_hit()),
                    (text, shared),
                    "{control} {other:?} {over:?}: {second:?}"
                );
                // The origin gets it where it is asked.
                assert_eq!(scene.seen()[0].headers.all("Authorization"), [alice.1], "{over:?}");
            }
        }
        // What was stored for anybody is for the authorised too.
        let mut scene = stage.scene(over, [fresh("all"), later()]).await;
        scene.get().await;
        assert!(scene.get_with(&[alice]).await.is_hit(), "{over:?}");
    }
}

/// RFC 9111 §7.3, and the default here: a response with Set-Cookie is stored only where its freshness is explicitly for
/// all, and then without the cookie.
#[tokio::test]
async fn rule_23_set_cookie() {
    let stages = [Stage::new().await, Stage::with("cache: { store_set_cookie: true }").await];
    for over in BOTH {
        for (fields, shared) in [
            (&[("Cache-Control", "max-age=60")][..], [false, true]),
            (&[("Expires", "Thu, 18 Aug 2050 02:01:18 GMT")], [false, true]),
            (&[("Cache-Control", "max-age=60, must-revalidate")], [false, true]),
            (&[("Cache-Control", "max-age=60, public")], [true, true]),
            (&[("Cache-Control", "s-maxage=60")], [true, true]),
            (&[("CDN-Cache-Control", "max-age=60")], [true, true]),
            (&[("CDN-Cache-Control", "no-cache"), ("Cache-Control", "public, max-age=60")], [false, false]),
            (&[("Cache-Control", "private, max-age=60")], [false, false]),
            (&[("Cache-Control", "no-store")], [false, false]),
        ] {
            for (stage, shared) in stages.iter().zip(shared) {
                let reply = fields.iter().fold(Reply::ok("first"), |reply, (name, value)| reply.header(name, value));
                let reply = reply.header("Set-Cookie", "a=1; Path=/").header("Set-Cookie", "b=2").header("X-A", "1");
                let mut scene = stage.scene(over, [reply, later()]).await;
                let (first, second) = (scene.get().await, scene.get().await);
                let case = format!("{fields:?} over {over:?}: {second:?}");
                assert_eq!(first.headers.all("Set-Cookie"), ["a=1; Path=/", "b=2"], "the first, {case}");
                assert_eq!((second.is_hit(), second.text() == "first"), (shared, shared), "{case}");
                if shared {
                    assert_eq!((second.header("Set-Cookie"), second.header("X-A")), (None, Some("1")), "{case}");
                }
            }
        }
    }
}

/// RFC 9111 §2 (the target is the key), §4: the query counts, a Cookie does not. More: `crate::key`.
#[tokio::test]
async fn rule_23_the_query_counts_and_cookies_do_not() {
    let stage = Stage::new().await;
    for over in BOTH {
        let scene = stage.scene(over, [fresh("none")]).await;
        let path = scene.target.clone();
        for (query, body) in [("?a=1", "a=1"), ("?a=2", "a=2"), ("?a=1&b", "a=1&b"), ("?", "empty")] {
            stage.script(&format!("{path}{query}"), [fresh(body)]);
        }
        for hit in [false, true] {
            for (query, body) in [("", "none"), ("?a=1", "a=1"), ("?a=2", "a=2"), ("?a=1&b", "a=1&b"), ("?", "empty")] {
                let response = over.get(&stage.edge, &format!("{path}{query}")).await;
                assert_eq!((response.text(), response.is_hit()), (body, hit), "{query} over {over:?}: {response:?}");
            }
        }
        let mut scene = stage.scene(over, [fresh("first"), later()]).await;
        scene.get_with(&[("Cookie", "a=1")]).await;
        for cookies in [&[("Cookie", "a=1")][..], &[("Cookie", "a=2; b=3")], &[]] {
            let hit = scene.get_with(cookies).await;
            assert!(hit.is_hit() && hit.text() == "first", "{cookies:?} over {over:?}: {hit:?}");
        }
        assert_eq!(scene.seen()[0].headers.all("Cookie"), ["a=1"], "{over:?}");
    }
}

/// RFC 9111 §4, §5.3: Date and Expires leave as they came, byte for byte, whether they make sense or not; of a response
/// without a Date the edge says when it came (RFC 9110 §6.6.1).
#[tokio::test]
async fn rule_23_date_and_expires_are_left_alone() {
    let stage = Stage::new().await;
    let (date, expires) = (http_date(-25), http_date(600));
    for over in BOTH {
        for control in ["max-age=60", "no-store"] {
            for (date, expires) in [
                (&*date, &*expires),
                (&date, "0"),
                (&date, ""),
                ("Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"),
                ("never", "sometimes"),
            ] {
                let reply = Reply::ok("x").cache_control(control).header("Date", date).header("Expires", expires);
                let mut scene = stage.scene(over, [reply]).await;
                for response in [scene.get().await, scene.get().await] {
                    assert_eq!(response.headers.all("Date"), [date], "{control} over {over:?}: {response:?}");
                    assert_eq!(response.headers.all("Expires"), [expires], "{control} over {over:?}: {response:?}");
                }
            }
        }
        let mut scene = stage.scene(over, [fresh("x"), later()]).await;
        let (miss, hit) = (scene.get().await, scene.get().await);
        assert_eq!(hit.headers.all("Date").len(), 1, "{over:?}: {hit:?}");
        assert_eq!(miss.headers.all("Date"), hit.headers.all("Date"), "{over:?}");
        assert_eq!((hit.header("Expires"), hit.header("Age")), (None, Some("0")), "{over:?}: {hit:?}");
    }
    // And neither keeps a response from being reused by what it does not say.
    let first = fresh("body").header("Date", "never");
    stage
        .plays([Row { what: "a Date that is none".into(), first, reused: true }, row(&[("Date", &date)], false)])
        .await;
}
