//! What the request says of the reuse of responses (RFC 9111 §5.2.1, §5.4).

use super::{Stage, fresh, is_half_a_minute_over, later, parameter};
use crate::harness::Reply;
use crate::over::BOTH;

/// Half of its minute is over.
fn half() -> Reply {
    fresh("first").header("Age", "30")
}

/// It has been stale for half a minute.
fn over_by_half(directives: &str) -> Reply {
    super::stale("first", directives)
}

/// RFC 9111 §5.2.1.1, §5.2.1.3, §5.2.1.4: max-age, min-fresh and no-cache of a request, against what is fresh.
#[tokio::test]
async fn rule_11_what_is_fresh_enough() {
    let stage = Stage::new().await;
    let rows = [
        ("max-age=60", true),
        ("max-age=45", true),
        ("max-age=20", false),
        ("max-age=0", false),
        ("MAX-AGE=0", false),
        ("max-age=\"0\"", false),
        ("min-fresh=15", true),
        ("min-fresh=45", false),
        ("min-fresh=3600", false),
        ("max-age=45, min-fresh=45", false),
        ("no-cache", false),
        ("No-Cache", false),
        ("foo=\"no-cache\"", true),
        ("no-store", true),
        ("only-if-cached", true),
        ("max-stale", true),
        ("no-transform, foobar", true),
        ("max-age=x", true),
        ("min-fresh=x", true),
    ];
    for over in BOTH {
        for (control, reused) in rows {
            let mut scene = stage.scene(over, [half(), later()]).await;
            scene.get().await;
            let second = scene.get_with(&[("Cache-Control", control)]).await;
            let case = format!("{control} over {over:?}: {second:?}");
            assert_eq!((second.is_hit(), second.text()), (reused, if reused { "first" } else { "later" }), "{case}");
            assert_eq!(parameter(&second, "fwd"), if reused { None } else { Some("request") }, "{case}");
        }
    }
}

/// RFC 9111 §5.2.1.2, §4.2.4: max-stale takes what is stale, by so much at most, and where the origin does not forbid it.
#[tokio::test]
async fn rule_11_max_stale() {
    let stage = Stage::new().await;
    for over in BOTH {
        for (control, directives, reused) in [
            ("max-stale", "", true),
            ("max-stale=45", "", true),
            ("MAX-STALE=3600", "", true),
            ("max-stale=20", "", false),
            ("max-stale=0", "", false),
            ("max-stale=x", "", false),
            ("foobar", "", false),
            ("max-stale=3600, max-age=100", "", true),
            ("max-stale=3600, max-age=80", "", false),
            ("max-stale=3600, min-fresh=1", "", false),
            ("max-stale=3600, no-cache", "", false),
            ("max-stale=3600", ", must-revalidate", false),
            ("max-stale=3600", ", proxy-revalidate", false),
            ("max-stale=3600", ", s-maxage=60", false),
            ("max-stale=3600", ", no-cache", false),
        ] {
            let mut scene = stage.scene(over, [over_by_half(directives), later()]).await;
            scene.get().await;
            let second = scene.get_with(&[("Cache-Control", control)]).await;
            let case = format!("{control} of {directives} over {over:?}: {second:?}");
            assert_eq!((second.is_hit(), second.text()), (reused, if reused { "first" } else { "later" }), "{case}");
            if reused {
                assert!(is_half_a_minute_over(&second), "{case}");
            }
        }
    }
}

/// RFC 8246 §2: what is immutable does not change while it is fresh, so that a reload asks in vain; a client that wants it
/// validated outright gets that.
#[tokio::test]
async fn rule_11_immutable() {
    let stage = Stage::new().await;
    for over in BOTH {
        for (wish, directives, reused) in [
            ("max-age=0", "max-age=60, immutable", true),
            ("max-age=0", "max-age=60", false),
            ("no-cache", "max-age=60, immutable", false),
            ("max-age=0", "max-age=20, immutable", false),
        ] {
            let first = Reply::ok("first").cache_control(directives).header("Age", "30").header("ETag", "\"v1\"");
            let mut scene = stage.scene(over, [first, later()]).await;
            scene.get().await;
            let second = scene.get_with(&[("Cache-Control", wish)]).await;
            assert_eq!(second.is_hit(), reused, "{wish} of {directives} over {over:?}: {second:?}");
        }
    }
}

/// RFC 9111 §5.2.1.5: a request's no-store leaves nothing behind; §5.2.1.7: only-if-cached gets what is stored, or 504.
#[tokio::test]
async fn rule_11_no_store_and_only_if_cached() {
    let stage = Stage::new().await;
    for over in BOTH {
        let mut scene = stage.scene(over, [fresh("first"), fresh("second")]).await;
        let first = scene.get_with(&[("Cache-Control", "no-store")]).await;
        assert_eq!((first.text(), parameter(&first, "stored")), ("first", None), "{over:?}: {first:?}");
        let second = scene.get().await;
        assert_eq!((second.text(), parameter(&second, "stored")), ("second", Some("")), "{over:?}: {second:?}");
        assert_eq!(
            scene.get_with(&[("Cache-Control", "no-store")]).await.text(),
            "second",
            "what is stored may be used"
        );

        for only in ["only-if-cached", "Only-If-Cached, max-stale"] {
            let mut scene = stage.scene(over, [fresh("first")]).await;
            let refused = scene.get_with(&[("Cache-Control", only)]).await;
            assert_eq!((refused.status, scene.seen().len()), (504, 0), "{over:?}: {refused:?}");
            scene.get().await;
            let hit = scene.get_with(&[("Cache-Control", only)]).await;
            assert_eq!((hit.status, hit.is_hit(), hit.text()), (200, true, "first"), "{over:?}: {hit:?}");
        }
        let mut scene = stage.scene(over, [over_by_half(""), later()]).await;
        scene.get().await;
        for (control, status) in [
            ("only-if-cached", 504),
            ("only-if-cached, max-stale", 200),
            ("only-if-cached, max-stale=10", 504),
            ("only-if-cached, no-cache", 504),
        ] {
            let answer = scene.get_with(&[("Cache-Control", control)]).await;
            assert_eq!(answer.status, status, "{control} over {over:?}: {answer:?}");
        }
        assert_eq!(scene.seen().len(), 1, "{over:?}");
    }
}

/// RFC 9111 §5.2.1: the directives are the client's wishes, which the operator may leave aside.
#[tokio::test]
async fn rule_11_a_route_may_ignore_them() {
    let stage = Stage::with("cache: { ignore_client_cache_control: true }").await;
    for over in BOTH {
        for control in ["no-cache", "max-age=0", "min-fresh=3600", "no-store", "only-if-cached"] {
            let mut scene = stage.scene(over, [half(), later()]).await;
            let first = scene.get_with(&[("Cache-Control", control)]).await;
            assert_eq!((first.text(), parameter(&first, "stored")), ("first", Some("")), "{control} over {over:?}");
            let second = scene.get_with(&[("Cache-Control", control)]).await;
            assert!(second.is_hit() && second.text() == "first", "{control} over {over:?}: {second:?}");
        }
        let mut scene = stage.scene(over, [over_by_half(""), later()]).await;
        scene.get().await;
        assert_eq!(scene.get_with(&[("Cache-Control", "max-stale")]).await.text(), "later", "{over:?}");
    }
}

/// RFC 9111 §5.4: Pragma is deprecated; Cache-Control says all that it could.
#[tokio::test]
async fn rule_12_pragma_is_ignored() {
    let stage = Stage::new().await;
    for over in BOTH {
        for fields in [&[("Pragma", "no-cache")][..], &[("Pragma", "no-cache"), ("Cache-Control", "max-age=50")]] {
            let mut scene = stage.scene(over, [half().header("Pragma", "no-cache"), later()]).await;
            scene.get_with(fields).await;
            let hit = scene.get_with(fields).await;
            assert!(hit.is_hit() && hit.header("Pragma") == Some("no-cache"), "{fields:?} over {over:?}: {hit:?}");
        }
    }
}
