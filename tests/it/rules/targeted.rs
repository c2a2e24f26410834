//! Fields that address shared caches (RFC 9213), as structured dictionaries (RFC 8941 §3.2).

use super::{Stage, fresh, later, row};
use crate::harness::{Reply, http_date};
use crate::over::BOTH;

const CDN: &str = "CDN-Cache-Control";
const CC: &str = "Cache-Control";

/// RFC 9213 §2.2: a valid one replaces Cache-Control and Expires wholly.
#[tokio::test]
async fn rule_24_replaces_cache_control_and_expires() {
    let stage = Stage::new().await;
    let (past, future) = (http_date(-3600), http_date(3600));
    let (past, future) = (("Expires", past.as_str()), ("Expires", future.as_str()));
    let etag = ("ETag", "\"a\"");
    let mut rows = Vec::new();
    for control in
        ["no-store", "private", "no-cache", "max-age=0", "s-maxage=0", "must-understand", "private=\"X-Answer\""]
    {
        rows.push(row(&[(CDN, "max-age=60"), (CC, control), past], true));
        rows.push(row(&[(CC, control), past, (CDN, "max-age=60")], true));
    }
    for targeted in ["no-store", "private", "max-age=0", "no-store, max-age=60", "max-age=60, private", "max-age=-1"] {
        rows.push(row(&[(CDN, targeted), (CC, "public, s-maxage=60, max-age=60"), future, etag], false));
    }
    // It is what governs, though it states no lifetime: neither Cache-Control nor Expires does then.
    for targeted in ["public", "must-revalidate", "foobar", "foo=1, bar=\"x\"", "MAX=1", "stale-if-error=60"] {
        let valid = targeted.chars().all(|c| !c.is_ascii_uppercase());
        rows.push(row(&[(CDN, targeted), (CC, "max-age=60"), future], !valid));
    }
    // Nor does it for a response that says nothing else about freshness but when it was changed.
    let modified = http_date(-864_000);
    rows.push(row(&[(CDN, "public"), (CC, "no-store"), ("Last-Modified", &modified)], true));
    stage.plays(rows).await;
}

/// RFC 8941 §3.2, §4.2.2 and RFC 9213 §2.1: how it is read.
#[tokio::test]
async fn rule_24_is_a_dictionary() {
    let stage = Stage::new().await;
    let mut rows = Vec::new();
    // Valid: it makes a response reusable that Cache-Control forbids to store.
    for lines in [
        &["max-age=60"][..],
        &["max-age=60;foo=bar"],
        &["max-age=60; a=1;b"],
        &["  max-age=60  "],
        &["foo=(1 2), max-age=60, bar=:YQ==:"],
        &["max-age=60, stale-while-revalidate=5"],
        &["max-age=999999999999999"],
        // Of several members with a key, the last (RFC 8941 §3.2).
        &["max-age=0, max-age=60"],
        &["max-age=x, max-age=60"],
        &["no-store=?0, max-age=60"],
        &["no-store, max-age=60, no-store=?0"],
        // Of several lines, one dictionary.
        &["max-age=0", "max-age=60"],
        &["foo", "max-age=60"],
    ] {
        let fields: Vec<_> = lines.iter().map(|line| (CDN, *line)).chain([(CC, "no-store")]).collect();
        rows.push(row(&fields, true));
    }
    // And the other way.
    for lines in [
        &["no-store"][..],
        &["no-store;foo"],
        &["no-store=?1"],
        &["max-age=60", "no-store"],
        &["max-age=60", "max-age=0"],
        &["max-age=60, max-age=0"],
        &["max-age=-60"],
        &["private=\"\""],
    ] {
        let fields: Vec<_> = lines.iter().map(|line| (CDN, *line)).chain([(CC, "max-age=60")]).collect();
        rows.push(row(&fields, false));
    }
    // Not valid, or empty: as if it were not there.
    for invalid in [
        "",
        "   ",
        // No dictionary.
        "MAX-AGE=0",
        "Max-Age=0",
        "max-age=0,",
        "max-age=0,, foo",
        "max-age=0 foo",
        "max-age=0;",
        "max-age=0;;a",
        "max-age=0 ;a",
        "max-age= 0",
        "max-age =0",
        "max-age=",
        "=0",
        "no-store, &",
        "no-store; foo=\"",
        "no-store, foo=\"caf\u{e9}\"",
        "no-store=true",
        "max-age=0, foo=(1",
        "max-age=9999999999999999",
        // Of the wrong type.
        "max-age=\"0\"",
        "max-age=0.0",
        "max-age=zero",
        "max-age",
        "max-age=?0",
        "max-age=:AA==:",
        "max-age=(0)",
        "max-age=0, s-maxage=\"0\"",
        "max-age=0, stale-while-revalidate=x",
        "max-age=0, must-revalidate=1",
        "no-store=1",
        "no-store=\"x\"",
        "no-store=(x)",
        "private=x",
    ] {
        rows.push(row(&[(CDN, invalid), (CC, "max-age=60")], true));
        rows.push(row(&[(CDN, invalid), (CC, "no-store"), ("Expires", &http_date(60))], false));
    }
    stage.plays(rows).await;
}

/// RFC 9213 §2.2: a cache's own field comes before the general one; here that before Surrogate-Control.
#[tokio::test]
async fn rule_24_the_order_of_the_fields() {
    let stage = Stage::new().await;
    let own = "Foreland-CDN-Cache-Control";
    let surrogate = "Surrogate-Control";
    stage
        .plays([
            row(&[(own, "max-age=60"), (CDN, "no-store"), (surrogate, "no-store"), (CC, "no-store")], true),
            row(&[(CC, "max-age=60"), (surrogate, "max-age=60"), (CDN, "max-age=60"), (own, "no-store")], false),
            row(&[(CDN, "max-age=60"), (surrogate, "no-store"), (CC, "no-store")], true),
            row(&[(CC, "max-age=60"), (surrogate, "max-age=60"), (CDN, "no-store")], false),
            row(&[(surrogate, "max-age=60"), (CC, "no-store")], true),
            row(&[(surrogate, "no-store"), (CC, "max-age=60")], false),
            row(&[(surrogate, "max-age=60+30"), (CC, "no-store")], true),
            row(&[(surrogate, "content=\"ESI/1.0\""), (CC, "max-age=60")], true),
            // One that is not valid leaves it to the next.
            row(&[(own, "max-age=x"), (CDN, "max-age=60"), (CC, "no-store")], true),
            row(&[(own, "max-age=x"), (CDN, "no-store"), (CC, "max-age=60")], false),
            row(&[(own, ""), (CDN, "max-age=?1"), (surrogate, "max-age=60"), (CC, "no-store")], true),
            row(&[(own, "&"), (CDN, "&"), (surrogate, "max-age=x"), (CC, "max-age=60")], true),
            row(&[(own, "&"), (CDN, "&"), (surrogate, "max-age=x"), (CC, "no-store")], false),
            // Those of other CDNs are none of ours.
            row(&[("Other-CDN-Cache-Control", "max-age=60"), (CC, "no-store")], false),
        ])
        .await;
}

/// RFC 9213 §3.1: CDN-Cache-Control is for the caches further on, too. And its stale directives are in force here.
#[tokio::test]
async fn rule_24_is_forwarded() {
    let stage = Stage::new().await;
    for over in BOTH {
        for targeted in ["max-age=60", "no-store", "max-age=x"] {
            let mut scene = stage.scene(over, [fresh("first").header(CDN, targeted).header(CDN, "foo")]).await;
            for response in [scene.get().await, scene.get().await] {
                assert_eq!(response.headers.all(CDN), [targeted, "foo"], "{over:?}: {response:?}");
                assert_eq!(response.headers.all(CC), ["max-age=60"], "{over:?}: {response:?}");
            }
        }
        let old = Reply::ok("old").header(CDN, "max-age=60, stale-if-error=60").cache_control("must-revalidate");
        let mut scene = stage.scene(over, [old.header("Age", "90"), Reply::new(500)]).await;
        scene.get().await;
        assert_eq!(scene.get().await.text(), "old", "{over:?}");
        let old = Reply::ok("old").header(CDN, "max-age=60").cache_control("max-age=60, stale-if-error=60");
        let mut scene = stage.scene(over, [old.header("Age", "90").header("ETag", "\"a\""), later()]).await;
        scene.get().await;
        assert_eq!(scene.get().await.text(), "later", "{over:?}");
    }
}
