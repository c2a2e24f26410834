//! For how long a response may be reused without asking (RFC 9111 §4.2).

use std::time::{Duration, Instant};

use super::{Row, Stage, control, fresh, row, ttl};
use crate::harness::{Reply, eventually, http_date};
use crate::over::{BOTH, Over};

/// RFC 9111 §4.2, §4.2.1, §4.2.3: fresh while the lifetime is greater than the age; who states the lifetime; what the age
/// is made of. That it ends with time, and not before: `crate::freshness::freshness_ends`.
#[tokio::test]
async fn rule_01_lifetimes() {
    let stage = Stage::new().await;
    let (past, future) = (http_date(-3600), http_date(3600));
    let (past, future) = (("Expires", past.as_str()), ("Expires", future.as_str()));
    let (old, recent, ahead) = (http_date(-61), http_date(-30), http_date(3600));
    stage
        .plays([
            control("max-age=60", true),
            control("max-age=0", false),
            // §5.2.2.10: s-maxage beats max-age in a shared cache, in any order and across lines.
            control("s-maxage=60", true),
            control("max-age=0, s-maxage=60", true),
            control("s-maxage=60, max-age=0", true),
            control("max-age=60, s-maxage=0", false),
            control("s-maxage=0, max-age=60", false),
            row(&[cc("max-age=0"), cc("s-maxage=60")], true),
            row(&[cc("s-maxage=60"), cc("max-age=0")], true),
            row(&[cc("s-maxage=0"), cc("max-age=60")], false),
            row(&[cc("max-age=60"), cc("s-maxage=0")], false),
            // §5.3: both beat any Expires, in any order.
            row(&[cc("max-age=60"), past], true),
            row(&[past, cc("max-age=60")], true),
            row(&[cc("max-age=60"), ("Expires", "0")], true),
            row(&[cc("s-maxage=60"), past], true),
            row(&[cc("max-age=0"), future], false),
            row(&[future, cc("max-age=0")], false),
            row(&[cc("s-maxage=0, max-age=60"), future], false),
            // §5.2: names in any case; §5.2.3: unknown directives say nothing.
            control("MAX-AGE=60", true),
            control("mAx-aGe=60", true),
            control("S-MaxAge=60, max-age=0", true),
            control("foobar, max-age=60", true),
            control("max-age=60, foobar=3600", true),
            control("max-age=0, max-agee=60, xmax-age=60", false),
            // §1.2.2: huge values are as good as the greatest; a negative one is no value.
            control("max-age=2147483647", true),
            control("max-age=2147483648", true),
            control("max-age=4294967296", true),
            control("max-age=18446744073709551616", true),
            control("max-age=99999999999999999999999999", true),
            control("max-age=-1", false),
            control("max-age=-3600", false),
            control("s-maxage=-1, max-age=60", false),
            // §4.2.3: Age counts against the lifetime, whoever states that.
            row(&[cc("max-age=60"), ("Age", "30")], true),
            row(&[cc("max-age=60"), ("Age", "60")], false),
            row(&[cc("s-maxage=60"), ("Age", "61")], false),
            row(&[future, ("Age", "1800")], true),
            row(&[future, ("Age", "3601")], false),
            // So does an old Date: the apparent age. The greater of both counts, not their sum.
            row(&[cc("max-age=60"), ("Date", &old)], false),
            row(&[cc("s-maxage=60"), ("Date", &old)], false),
            row(&[cc("max-age=60"), ("Date", &recent)], true),
            row(&[cc("max-age=59"), ("Date", &recent), ("Age", "30")], true),
            row(&[cc("max-age=60"), ("Date", &old), ("Age", "0")], false),
            // A clock ahead of ours makes nothing younger than new.
            row(&[cc("max-age=60"), ("Date", &ahead)], true),
            row(&[cc("max-age=0"), ("Date", &ahead)], false),
            row(&[cc("max-age=60"), ("Date", &ahead), ("Age", "60")], false),
        ])
        .await;
}

fn cc(value: &str) -> (&'static str, &str) {
    ("Cache-Control", value)
}

/// RFC 9111 §4.2.1 (duplicates, invalid values), §5.2 (quoted arguments), RFC 9110 §5.6.1.2, §5.6.4.
#[tokio::test]
async fn rule_02_cache_control_as_it_is_written() {
    let stage = Stage::new().await;
    let future = http_date(3600);
    let mut rows = vec![
        control("max-age=003600", true),
        control("max-age=\"3600\"", true),
        // The first of two counts.
        control("max-age=3600, max-age=1", true),
        control("max-age=0, max-age=3600", false),
        row(&[cc("max-age=0"), cc("max-age=3600")], false),
        control("max-age=a, max-age=3600", false),
        // What stands in a string is no directive.
        control("foo=\"no-store\", max-age=60", true),
        control("foo=\"a, no-store, b\", max-age=60", true),
        control("foo=\"a\\\", no-store, \\\"b\", max-age=60", true),
        control("max-age=60, foo=\"bar, max-age=0\"", true),
        control("foo=\"max-age=60\"", false),
        control("foo=\"max-age=60, bar\"", false),
        // A quote that nothing closes hides nothing.
        row(&[cc("foo=\"bar, no-store"), ("Expires", &future)], false),
        control("max-age=60, foo=\"no-store, private", false),
        // Nor does an argument that the directive does not have.
        control("no-store=\"x\", max-age=60", false),
        control("no-store=1, max-age=60", false),
        control("no-store =1, max-age=60", false),
        control("private=, max-age=60", false),
        control("no-storex, xprivate, max-age=60", true),
        control(",, max-age=60 ,,", true),
        control("\tmax-age=60\t", true),
        row(&[cc(""), cc("max-age=60")], true),
    ];
    // §4.2.1: invalid freshness information is taken for stale, whatever else there is.
    for invalid in
        ["'3600'", "3600.5", "3600.0", "a3600", "3600a", "", "\"\"", " 3600", "+3600", "1e9", "0xff", "36 00"]
    {
        rows.push(row(&[cc(&format!("max-age={invalid}")), ("Expires", &future)], false));
        rows.push(row(&[cc(&format!("s-maxage={invalid}, max-age=3600"))], false));
    }
    rows.push(row(&[cc("max-age"), ("Expires", &future)], false));
    rows.push(row(&[cc("max-age =3600"), ("Expires", &future)], false));
    stage.plays(rows).await;
}

/// RFC 9111 §5.1: the first value counts; what is no non-negative integer is ignored; §1.2.2 for great ones.
#[tokio::test]
async fn rule_03_age_as_it_comes_in() {
    let stage = Stage::new().await;
    let aged = |ages: &[&str], lifetime: &str, reused: bool| {
        let first = Reply::ok("body").cache_control(&format!("max-age={lifetime}"));
        let first = ages.iter().fold(first, |reply, age| reply.header("Age", age));
        Row { what: format!("Age: {ages:?} of {lifetime}"), first, reused }
    };
    stage
        .plays([
            aged(&["0"], "3600", true),
            aged(&["1800"], "3600", true),
            aged(&["0001800"], "3600", true),
            aged(&["3600"], "3600", false),
            aged(&["7200"], "3600", false),
            aged(&["abc"], "3600", true),
            aged(&["7200a"], "3600", true),
            aged(&["-7200"], "3600", true),
            aged(&["7200.0"], "3600", true),
            aged(&["7200.5"], "3600", true),
            aged(&["\"7200\""], "3600", true),
            aged(&[""], "3600", true),
            // A list, and several lines.
            aged(&["1800, 7200"], "3600", true),
            aged(&["7200, 1800"], "3600", false),
            aged(&["1800", "7200"], "3600", true),
            aged(&["7200", "1800"], "3600", false),
            // 2^31 and above is more than any lifetime.
            aged(&["2147483647"], "3600", false),
            aged(&["2147483648"], "2147483648", false),
            aged(&["2147483649"], "99999999999", false),
            aged(&["4294967296"], "99999999999", false),
            aged(&["99999999999999999999"], "99999999999", false),
        ])
        .await;
}

/// RFC 9111 §5.1, §4.2.3: on a miss the origin's Age leaves as it came; on a hit it has grown by the time spent here.
#[tokio::test]
async fn rule_03_age_as_it_goes_out() {
    let stage = Stage::new().await;
    for over in BOTH {
        for ages in [&["30"][..], &["30, 40"], &["30", "40"], &["0"], &[]] {
            for control in ["max-age=3600", "no-store", "max-age=10"] {
                let reply = Reply::ok("body").cache_control(control).header("Date", http_date(-20));
                let reply = ages.iter().fold(reply, |reply, age| reply.header("Age", age));
                let mut scene = stage.scene(over, [reply]).await;
                let miss = scene.get().await;
                assert_eq!(miss.headers.all("Age"), ages, "a miss, {control} over {over:?}: {miss:?}");
                let second = scene.get().await;
                if control == "max-age=3600" {
                    let expected: u64 = if ages.first().is_some_and(|age| age.starts_with("30")) { 30 } else { 20 };
                    assert!(second.age().is_some_and(|age| (expected..expected + 10).contains(&age)), "{second:?}");
                }
            }
        }
    }
    tokio::join!(age_grows(&stage, Over::Http1), age_grows(&stage, Over::Http2));
}

/// To the second: at least by what has passed between the two exchanges, at most by what has passed in all.
async fn age_grows(stage: &Stage, over: Over) {
    let began = Instant::now();
    let mut scene = stage.scene(over, [fresh("body").header("Age", "30")]).await;
    scene.get().await;
    let stored = Instant::now();
    eventually("the age to grow", async || {
        let least = stored.elapsed().as_secs();
        let hit = scene.get().await;
        let most = (began.elapsed() + Duration::from_millis(1)).as_secs();
        let grown = hit.age().unwrap_or(0).saturating_sub(30);
        assert!(hit.is_hit() && (least..=most).contains(&grown), "{least}..={most} over {over:?}: {hit:?}");
        assert!(ttl(&hit).is_some_and(|ttl| (28..=30).contains(&ttl)), "{hit:?}");
        grown > 0
    })
    .await;
    assert_eq!(scene.seen().len(), 1);
}

/// RFC 9111 §4.2.1, §5.3: the lifetime is Expires − Date.
#[tokio::test]
async fn rule_04_expires() {
    let stage = Stage::new().await;
    let (now, past, future) = (http_date(0), http_date(-60), http_date(60));
    let (recent, old) = (http_date(-30), http_date(-90));
    let (ahead, further, less) = (http_date(3600), http_date(3660), http_date(1800));
    let expires = |expires: &str, date: Option<&str>, reused: bool| {
        let fields = [Some(("Expires", expires)), date.map(|date| ("Date", date))];
        row(&fields.into_iter().flatten().collect::<Vec<_>>(), reused)
    };
    let mut rows = vec![
        expires(&future, Some(&now), true),
        expires(&past, Some(&now), false),
        expires(&now, Some(&now), false),
        // The lifetime is counted from Date, and so is the age.
        expires(&future, Some(&recent), true),
        expires(&recent, Some(&old), false),
        expires(&further, Some(&ahead), true),
        expires(&less, Some(&ahead), false),
        // §5.3: an invalid date is a time in the past.
        expires("0", Some(&now), false),
        expires("0", None, false),
        expires("-1", None, false),
        expires("", None, false),
        expires("soon", Some(&now), false),
        // Without a Date that is one, the time of arrival stands in for it (RFC 9110 §6.6.1).
        expires(&future, None, true),
        expires(&past, None, false),
        expires(&future, Some("now"), true),
        expires(&future, Some("0"), true),
        expires(&past, Some("now"), false),
    ];
    // Directives that state no lifetime leave it to Expires.
    for control in ["public", "foobar", "must-revalidate", "x-max-age=0", ""] {
        rows.push(row(&[("Cache-Control", control), ("Expires", &future)], true));
    }
    stage.plays(rows).await;
}

/// RFC 9110 §5.6.7: the three forms of an HTTP-date, and no other.
#[tokio::test]
async fn rule_05_dates() {
    let stage = Stage::new().await;
    let mut rows = Vec::new();
    for date in [
        "Thu, 18 Aug 2050 02:01:18 GMT",
        "Thursday, 18-Aug-50 02:01:18 GMT",
        "Thu Aug 18 02:01:18 2050",
        "Tue Aug  2 02:01:18 2050",
        // Any letter case.
        "thu, 18 aug 2050 02:01:18 gmt",
        "THU, 18 AUG 2050 02:01:18 GMT",
        "tHuRsDaY, 18-aUg-50 02:01:18 gMt",
        "THU AUG 18 02:01:18 2050",
        // Past 2038, and far past it.
        "Tue, 19 Jan 2038 03:14:08 GMT",
        "Fri, 01 Jan 2100 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Sat Jan  1 00:00:00 2200",
    ] {
        rows.push(row(&[("Expires", date)], true));
    }
    for invalid in [
        // Other zones.
        "Thu, 18 Aug 2050 02:01:18 UTC",
        "Thu, 18 Aug 2050 02:01:18 Z",
        "Thu, 18 Aug 2050 02:01:18 AEST",
        "Thu, 18 Aug 2050 02:01:18 +0000",
        "Thu, 18 Aug 2050 02:01:18 GMT+1",
        "Thu, 18 Aug 2050 02:01:18",
        "Thu Aug 18 02:01:18 2050 GMT",
        // Years of two digits where there are to be four, and the other way.
        "Thu, 18 Aug 50 02:01:18 GMT",
        "Thu Aug 18 02:01:18 50",
        "Thursday, 18-Aug-2050 02:01:18 GMT",
        // Commas, dashes, spaces.
        "Thu 18 Aug 2050 02:01:18 GMT",
        "Thu, 18-Aug-2050 02:01:18 GMT",
        "Thu, 18-Aug-50 02:01:18 GMT",
        "Thursday, 18 Aug 2050 02:01:18 GMT",
        "Thu,18 Aug 2050 02:01:18 GMT",
        "Thu,  18 Aug 2050 02:01:18 GMT",
        "Thu, 18  Aug 2050 02:01:18 GMT",
        "Thu, 18 Aug  2050 02:01:18 GMT",
        "Thu, 18 Aug 2050  02:01:18 GMT",
        "Thu, 18 Aug 2050 02:01:18  GMT",
        "Thu, 18 Aug 2050 02.01.18 GMT",
        "Tue Aug 2 02:01:18 2050",
        // One digit where there are to be two.
        "Thu, 18 Aug 2050 2:01:18 GMT",
        "Thu, 18 Aug 2050 02:1:18 GMT",
        "Tue, 2 Aug 2050 02:01:18 GMT",
        // Not all of it, or more than that.
        "18 Aug 2050 02:01:18 GMT",
        "Thu, 18 Aug 2050",
        "Thu, 18 Aug 2050 02:01 GMT",
        "Thu, 18 Aug 2050 02:01:18 GMT; x",
        "Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:18 GMT",
        // No such time.
        "Thu, 18 Aug 2050 24:00:00 GMT",
        "Thu, 18 Aug 2050 02:60:18 GMT",
        "Thu, 31 Feb 2050 02:01:18 GMT",
        "Thu, 00 Aug 2050 02:01:18 GMT",
        "Thu, 18 Foo 2050 02:01:18 GMT",
        "Foo, 18 Aug 2050 02:01:18 GMT",
        // Other formats.
        "2050-08-18T02:01:18Z",
        "2544141678",
        // A year of two digits that seems more than 50 years ahead is in the past.
        "Tuesday, 18-Aug-99 02:01:18 GMT",
    ] {
        rows.push(row(&[("Expires", invalid)], false));
    }
    // The same reading of Date, which only counts where it is one.
    let cc = ("Cache-Control", "max-age=60");
    for (date, reused) in [
        ("Sun, 06 Nov 1994 08:49:37 GMT", false),
        ("Sunday, 06-Nov-94 08:49:37 GMT", false),
        ("Sun Nov  6 08:49:37 1994", false),
        ("sun, 06 nov 1994 08:49:37 gmt", false),
        ("Sun, 06 Nov 1994 08:49:37 UTC", true),
        ("Sun, 06 Nov 94 08:49:37 GMT", true),
        ("Sun,  06 Nov 1994 08:49:37 GMT", true),
        ("784111777", true),
    ] {
        rows.push(row(&[cc, ("Date", date)], reused));
    }
    stage.plays(rows).await;
}

/// RFC 9111 §4.2.2, RFC 9110 §15.1: without explicit freshness, a tenth of the time since the last change.
#[tokio::test]
async fn rule_08_heuristics() {
    let stage = Stage::new().await;
    let (now, modified) = (http_date(0), http_date(-864_000));
    let of = |status: u16, control: &str, reused: bool| {
        let first = Reply::new(status).header("Date", &now).header("Last-Modified", &modified);
        let first = if control.is_empty() { first } else { first.cache_control(control) };
        Row { what: format!("{status} {control}"), first, reused }
    };
    let by_default = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
    let never = [201, 202, 299, 302, 303, 307, 400, 401, 403, 408, 418, 429, 451, 499, 500, 502, 503, 504, 505, 599];
    let mut rows = Vec::new();
    for status in by_default {
        rows.extend([of(status, "", true), of(status, "public", true), of(status, "foobar", true)]);
        rows.extend([of(status, "no-store", false), of(status, "private", false), of(status, "max-age=0", false)]);
    }
    for status in never {
        rows.extend([of(status, "", false), of(status, "public", true), of(status, "must-revalidate", false)]);
    }
    let changed = |ago: i64| http_date(-ago);
    let fields = |fields: &[(&str, &str)], reused| row(&[fields, &[("Date", &now)]].concat(), reused);
    rows.extend([
        fields(&[("Last-Modified", &changed(600)), ("Age", "30")], true),
        fields(&[("Last-Modified", &changed(600)), ("Age", "60")], false),
        fields(&[("Last-Modified", &changed(0))], false),
        fields(&[("Last-Modified", &changed(-3600))], false),
        fields(&[("Last-Modified", "yesterday")], false),
        fields(&[("ETag", "\"a\"")], false),
        fields(&[], false),
        // §4.2.2: not where there is an explicit lifetime, be it invalid.
        fields(&[("Last-Modified", &modified), ("Expires", "0")], false),
        fields(&[("Last-Modified", &modified), ("Cache-Control", "max-age=x")], false),
    ]);
    stage.plays(rows).await;
    for over in BOTH {
        let mut scene = stage.scene(over, [of(200, "", true).first]).await;
        scene.get().await;
        let hit = scene.get().await;
        assert!(ttl(&hit).is_some_and(|ttl| (86_380..=86_400).contains(&ttl)), "a tenth of ten days: {hit:?}");
    }
    let stage = Stage::with("cache: { heuristics: false }").await;
    stage.plays([of(200, "", false), of(200, "max-age=60", true)]).await;
}
