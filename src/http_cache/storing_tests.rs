use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::http_cache::{Reuse, reuse};

type Fields<'a> = &'a [(&'a str, &'a str)];

const T0: Timestamp = Timestamp::from_secs(1_700_000_000);

/// T0 and a number of seconds, as an HTTP date.
fn http_date(offset: i64) -> String {
    httpdate::fmt_http_date(T0.plus_millis(offset * 1000).into())
}

/// `Expires: +60` and the like stand for dates relative to T0.
fn fields(list: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        let value = match value.strip_prefix('@') {
            Some(offset) => http_date(offset.parse().unwrap()),
            None => (*value).to_owned(),
        };
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(&value).unwrap());
    }
    headers
}

const GET: RequestFacts<'static> =
    RequestFacts { method: &Method::GET, authorization: false, no_store: false, describes_target: false, sent: T0 };

fn store_with(policy: &Policy, status: u16, list: &[(&str, &str)]) -> Result<Stored, NotStored> {
    storability(&GET, StatusCode::from_u16(status).unwrap(), &fields(list), policy, T0)
}

fn store(status: u16, list: &[(&str, &str)]) -> Result<Stored, NotStored> {
    store_with(&Policy::default(), status, list)
}

/// Seconds of freshness left on arrival, with the source.
fn fresh(list: Fields<'_>) -> (i64, FreshnessSource) {
    let stored = store(200, list).unwrap();
    (stored.facts.ttl(T0), stored.freshness.source)
}

fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

const CC: &str = "cache-control";

#[test]
fn lifetimes_the_origin_states() {
    // RFC 9111 §4.2.1.
    use FreshnessSource::*;
    let cases: &[(Fields<'_>, i64, FreshnessSource)] = &[
        (&[(CC, "max-age=3600")], 3600, MaxAge),
        (&[(CC, "max-age=60, s-maxage=3600")], 3600, SMaxage),
        (&[(CC, "s-maxage=60"), (CC, "max-age=3600")], 60, SMaxage),
        (&[(CC, "max-age=60"), ("expires", "@3600"), ("date", "@0")], 60, MaxAge),
        (&[("expires", "@3600"), (CC, "max-age=60"), ("date", "@0")], 60, MaxAge),
        (&[(CC, "max-age=3600"), ("expires", "0")], 3600, MaxAge),
        (&[(CC, "max-age=99999999999")], 1 << 31, MaxAge),
        (&[("expires", "@3600"), ("date", "@0")], 3600, Expires),
        (&[("expires", "@3600"), ("date", "nonsense")], 3600, Expires),
        (&[("expires", "@3600")], 3600, Expires),
        (&[("expires", "@3600"), ("date", "@10")], 3590, Expires),
        (&[("expires", "@3600"), ("expires", "@60"), ("date", "@0")], 3600, Expires),
        (&[("expires", "Thu, 18 Aug 2050 02:01:18 UTC"), ("etag", "x")], 0, Expires),
        (&[("expires", "0"), ("etag", "x")], 0, Expires),
        (&[("expires", "@-10"), ("date", "@0"), ("etag", "x")], 0, Expires),
        (&[("expires", "@0"), ("date", "@0"), ("etag", "x")], 0, Expires),
        (&[(CC, "max-age=a"), ("expires", "@60"), ("etag", "x")], 0, MaxAge),
        (&[(CC, "s-maxage=a, max-age=60"), ("etag", "x")], 0, SMaxage),
        (&[("cdn-cache-control", "max-age=5"), (CC, "no-store")], 5, Targeted),
        (&[("cdn-cache-control", "max-age=5"), ("expires", "0"), ("date", "@0")], 5, Targeted),
        (&[("cdn-cache-control", "foo"), ("expires", "@60"), ("etag", "x")], 0, None),
        (&[("surrogate-control", "max-age=5"), (CC, "max-age=60")], 5, Targeted),
        (&[("cdn-cache-control", "max-age=\"5\""), (CC, "max-age=60")], 60, MaxAge),
    ];
    for (list, left, source) in cases {
        assert_eq!(fresh(list), (*left, *source), "{list:?}");
    }
}

#[test]
fn age_and_date_count_against_freshness() {
    // RFC 9111 §4.2.3.
    for (list, left, age) in [
        (&[(CC, "max-age=3600"), ("age", "7200")] as &[_], -3600, 7200),
        (&[(CC, "max-age=3600"), ("age", "1800")], 1800, 1800),
        (&[(CC, "max-age=3600"), ("date", "@-600")], 3000, 600),
        (&[(CC, "max-age=3600"), ("date", "@-600"), ("age", "700")], 2900, 700),
        (&[(CC, "max-age=3600"), ("date", "@-600"), ("age", "500")], 3000, 600),
        (&[(CC, "max-age=3600"), ("date", "@600")], 3600, 0),
        (&[("expires", "@3600"), ("date", "@-600")], 3600, 600),
        // What Age may look like.
        (&[(CC, "max-age=3600"), ("age", "abc")], 3600, 0),
        (&[(CC, "max-age=3600"), ("age", "-7200")], 3600, 0),
        (&[(CC, "max-age=3600"), ("age", "7200.0")], 3600, 0),
        (&[(CC, "max-age=3600"), ("age", "7200,0")], -3600, 7200),
        (&[(CC, "max-age=3600"), ("age", "7200"), ("age", "0")], -3600, 7200),
        (&[(CC, "max-age=3600"), ("age", "0, 7200")], 3600, 0),
        (&[(CC, "max-age=3600"), ("age", "0"), ("age", "7200")], 3600, 0),
        (&[(CC, "max-age=99999999999"), ("age", "2147483648")], 0, 1 << 31),
        (&[(CC, "max-age=99999999999"), ("age", "99999999999999999999")], 0, 1 << 31),
    ] {
        let facts = store(200, list).unwrap().facts;
        assert_eq!((facts.ttl(T0), facts.age_seconds(T0)), (left, age), "{list:?}");
    }
    let slow = RequestFacts { sent: T0.plus_millis(-5000), ..GET };
    let headers = fields(&[(CC, "max-age=60"), ("age", "10")]);
    let stored = storability(&slow, StatusCode::OK, &headers, &Policy::default(), T0).unwrap();
    assert_eq!((stored.facts.ttl(T0), stored.facts.age_seconds(T0)), (45, 15), "the time the response took");
}

#[test]
fn heuristics() {
    // RFC 9111 §4.2.2, RFC 9110 §15.1.
    let day_old = [("last-modified", "@-86400"), ("date", "@0")];
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        let stored = store(status, &day_old).unwrap();
        assert_eq!(stored.freshness.source, FreshnessSource::Heuristic, "{status}");
        assert_eq!(stored.facts.ttl(T0), 8640, "{status}");
    }
    for status in [201, 202, 302, 307, 400, 403, 500, 502, 503, 504, 299, 499, 599] {
        assert_eq!(store(status, &day_old), Err(NotStored::Status), "{status}");
        let public = [day_old[0], day_old[1], (CC, "public")];
        assert_eq!(store(status, &public).unwrap().facts.ttl(T0), 8640, "public {status}");
    }
    let off = Policy { heuristics: false, ..Policy::default() };
    let stored = store_with(&off, 200, &day_old).unwrap();
    assert_eq!((stored.freshness.source, stored.facts.ttl(T0)), (FreshnessSource::None, 0));
    assert_eq!(fresh(&[("last-modified", "@60"), ("date", "@0")]), (0, FreshnessSource::Heuristic));
    assert_eq!(fresh(&[("last-modified", "@-100")]), (10, FreshnessSource::Heuristic), "no Date: the arrival");
    assert_eq!(store(200, &[]), Err(NotStored::NoFreshness));
    assert_eq!(fresh(&[("etag", "\"a\"")]), (0, FreshnessSource::None));
}

#[test]
fn statuses() {
    // RFC 9111 §3: any final status, with explicit freshness.
    for status in [200, 201, 203, 204, 299, 301, 302, 303, 307, 308, 400, 403, 404, 410, 499, 500, 502, 503, 504, 599] {
        assert!(store(status, &[(CC, "max-age=60")]).is_ok(), "{status}");
    }
    for (status, expected) in [
        (100, NotStored::NotFinal),
        (101, NotStored::NotFinal),
        (103, NotStored::NotFinal),
        (600, NotStored::NotFinal),
        (206, NotStored::Partial),
        (304, NotStored::NotModified),
    ] {
        assert_eq!(store(status, &[(CC, "max-age=60, public")]), Err(expected), "{status}");
        let everything = Policy {
            ttl: secs(60),
            override_origin: true,
            ttl_by_status: vec![(status, Duration::from_secs(60))],
            ..Policy::default()
        };
        assert_eq!(store_with(&everything, status, &[]), Err(expected), "{status}");
    }
}

#[test]
fn methods() {
    let headers = fields(&[(CC, "max-age=60")]);
    for (method, expected) in [
        (Method::HEAD, NotStored::Head),
        (Method::POST, NotStored::Method),
        (Method::OPTIONS, NotStored::Method),
        (Method::from_bytes(b"get").unwrap(), NotStored::Method),
    ] {
        let request = RequestFacts { method: &method, ..GET };
        let got = storability(&request, StatusCode::OK, &headers, &Policy::default(), T0);
        assert_eq!(got, Err(expected), "{method}");
    }
}

#[test]
fn a_post_that_describes_its_own_url() {
    // RFC 9110 §9.3.3: explicit freshness, and a Content-Location equal to the target.
    let post = RequestFacts { method: &Method::POST, describes_target: true, ..GET };
    let judge = |status, list: Fields<'_>| {
        let policy = Policy { ttl: secs(60), ..Policy::default() };
        storability(&post, StatusCode::from_u16(status).unwrap(), &fields(list), &policy, T0).map(|s| s.facts.ttl(T0))
    };
    assert_eq!(judge(200, &[(CC, "max-age=60")]), Ok(60));
    assert_eq!(judge(200, &[("date", "@0"), ("expires", "@30")]), Ok(30));
    assert_eq!(judge(200, &[("last-modified", "@-3000")]), Err(NotStored::NoFreshness), "neither heuristics nor ttl");
    assert_eq!(judge(201, &[(CC, "max-age=60")]), Err(NotStored::Method));
    assert_eq!(judge(200, &[(CC, "max-age=60, no-store")]), Err(NotStored::NoStore));
}

#[test]
fn directives_that_forbid_storing() {
    // RFC 9111 §5.2.2.
    for (list, expected) in [
        (&[(CC, "no-store, max-age=60")] as &[_], NotStored::NoStore),
        (&[(CC, "No-StOrE"), (CC, "max-age=60")], NotStored::NoStore),
        (&[(CC, "private, max-age=60")], NotStored::Private),
        (&[(CC, "private, s-maxage=60, public")], NotStored::Private),
        (&[("cdn-cache-control", "no-store"), (CC, "max-age=60")], NotStored::NoStore),
        (&[("cdn-cache-control", "private"), (CC, "max-age=60")], NotStored::Private),
        (&[("surrogate-control", "no-store"), (CC, "max-age=60")], NotStored::NoStore),
        (&[(CC, "no-cache, max-age=60")], NotStored::Unusable),
        (&[(CC, "max-age=0")], NotStored::Unusable),
    ] {
        assert_eq!(store(200, list), Err(expected), "{list:?}");
    }
    let request = RequestFacts { no_store: true, ..GET };
    let got = storability(&request, StatusCode::OK, &fields(&[(CC, "max-age=60")]), &Policy::default(), T0);
    assert_eq!(got, Err(NotStored::RequestNoStore));
}

#[test]
fn must_understand_overrides_no_store_for_known_statuses() {
    // RFC 9111 §5.2.2.3.
    let list = [(CC, "must-understand, no-store, max-age=60")];
    assert!(store(200, &list).is_ok());
    assert!(store(404, &list).is_ok());
    assert_eq!(store(299, &list), Err(NotStored::MustUnderstand));
    assert_eq!(store(599, &[(CC, "must-understand, max-age=60")]), Err(NotStored::MustUnderstand));
    assert_eq!(store(200, &[(CC, "must-understand, private")]), Err(NotStored::Private));
}

#[test]
fn no_cache_is_stored_and_validated() {
    // RFC 9111 §5.2.2.4.
    let stored = store(200, &[(CC, "no-cache, max-age=60"), ("etag", "\"a\"")]).unwrap();
    assert!(stored.facts.no_cache && stored.facts.must_revalidate);
    let stored = store(200, &[(CC, "no-cache=\"a, b\", private=\"c\", max-age=60")]).unwrap();
    assert!(!stored.facts.no_cache);
    assert_eq!(stored.strip, ["a", "b", "c"].map(|name| name.parse::<HeaderName>().unwrap()));
}

#[test]
fn authorization() {
    // RFC 9111 §3.5.
    let request = RequestFacts { authorization: true, ..GET };
    for (control, expected) in [
        ("max-age=60", Err(NotStored::Authorization)),
        ("max-age=60, proxy-revalidate", Err(NotStored::Authorization)),
        ("max-age=60, s-maxage=x", Err(NotStored::Authorization)),
        ("max-age=60, public", Ok(())),
        ("max-age=60, must-revalidate", Ok(())),
        ("s-maxage=60", Ok(())),
    ] {
        let headers = fields(&[(CC, control)]);
        let got = storability(&request, StatusCode::OK, &headers, &Policy::default(), T0);
        assert_eq!(got.map(|_| ()), expected, "{control}");
        let policy = Policy { ttl: secs(60), override_origin: true, ..Policy::default() };
        let got = storability(&request, StatusCode::OK, &headers, &policy, T0);
        assert_eq!(got.map(|_| ()), expected, "{control}, overridden");
    }
}

#[test]
fn set_cookie() {
    let cookie = ("set-cookie", "a=b");
    assert_eq!(store(200, &[cookie, (CC, "max-age=60")]), Err(NotStored::SetCookie));
    for shared in [(CC, "max-age=60, public"), (CC, "s-maxage=60"), ("cdn-cache-control", "max-age=60")] {
        assert_eq!(store(200, &[cookie, shared]).unwrap().strip, [SET_COOKIE], "{shared:?}");
    }
    let policy = Policy { ttl: secs(60), override_origin: true, ..Policy::default() };
    assert_eq!(store_with(&policy, 200, &[cookie]), Err(NotStored::SetCookie), "override does not say so");
    let policy = Policy { store_set_cookie: true, ..Policy::default() };
    assert_eq!(store_with(&policy, 200, &[cookie, (CC, "max-age=60")]).unwrap().strip, [SET_COOKIE]);
}

#[test]
fn vary_any_is_never_stored() {
    for value in ["*", "Foo, *", ", *"] {
        assert_eq!(store(200, &[(CC, "max-age=60"), ("vary", value)]), Err(NotStored::VaryAny), "{value}");
        let policy = Policy { ttl: secs(60), override_origin: true, ..Policy::default() };
        assert_eq!(store_with(&policy, 200, &[("vary", value)]), Err(NotStored::VaryAny), "{value}, overridden");
    }
    assert!(store(200, &[(CC, "max-age=60"), ("vary", "Foo")]).is_ok());
}

#[test]
fn the_operator_s_lifetimes() {
    use FreshnessSource::*;
    let policy = Policy {
        ttl: secs(100),
        ttl_by_status: vec![(203, Duration::from_secs(3)), (404, Duration::from_secs(30))],
        ..Policy::default()
    };
    for (status, list, left, source) in [
        (200, &[] as &[_], 100, Ttl),
        (301, &[], 100, Ttl),
        (203, &[], 3, TtlByStatus),
        (404, &[], 30, TtlByStatus),
        (404, &[(CC, "max-age=5")], 5, MaxAge),
        (200, &[(CC, "max-age=5")], 5, MaxAge),
        (200, &[(CC, "public")], 100, Ttl),
        (200, &[("last-modified", "@-86400")], 100, Ttl),
        (410, &[("last-modified", "@-86400")], 8640, Heuristic),
        (200, &[("age", "90"), ("date", "@-500")], 100, Ttl),
    ] {
        let stored = store_with(&policy, status, list).unwrap();
        assert_eq!((stored.facts.ttl(T0), stored.freshness.source), (left, source), "{status} {list:?}");
    }
    assert_eq!(store_with(&policy, 500, &[]), Err(NotStored::Status), "a ttl is not for errors");
    assert_eq!(store_with(&policy, 200, &[(CC, "no-store")]), Err(NotStored::NoStore));
    let aged = store_with(&policy, 200, &[("age", "90")]).unwrap();
    assert_eq!(aged.facts.age_seconds(T0), 90, "Age still tells the truth");
}

#[test]
fn max_ttl_bounds_every_lifetime() {
    let policy = Policy { max_ttl: secs(10), ttl: secs(100), ..Policy::default() };
    for list in [&[(CC, "max-age=60")] as &[_], &[("expires", "@60")], &[("last-modified", "@-86400")], &[]] {
        assert_eq!(store_with(&policy, 200, list).unwrap().facts.ttl(T0), 10, "{list:?}");
    }
    assert_eq!(store_with(&policy, 200, &[(CC, "max-age=5")]).unwrap().facts.ttl(T0), 5);
}

#[test]
fn override_ignores_the_origin_s_freshness() {
    let policy = Policy {
        ttl: secs(100),
        override_origin: true,
        stale_if_error: secs(7),
        ttl_by_status: vec![(404, Duration::from_secs(30))],
        ..Policy::default()
    };
    for list in [
        &[(CC, "no-store")] as &[_],
        &[(CC, "private, max-age=5")],
        &[(CC, "no-cache, must-revalidate, s-maxage=5, stale-if-error=1")],
        &[("expires", "0")],
        &[("cdn-cache-control", "no-store")],
        &[(CC, "max-age=86400"), ("age", "500")],
        &[(CC, "no-cache=\"a\"")],
    ] {
        let stored = store_with(&policy, 200, list).unwrap();
        assert_eq!((stored.facts.ttl(T0), stored.freshness.source), (100, FreshnessSource::Ttl), "{list:?}");
        assert_eq!(stored.facts.stale_if_error_ms, 7000, "{list:?}");
        assert!(!stored.facts.must_revalidate && !stored.facts.no_cache && stored.strip.is_empty(), "{list:?}");
    }
    assert_eq!(store_with(&policy, 404, &[(CC, "max-age=3600")]).unwrap().facts.ttl(T0), 30);
    // No lifetime of the operator's: the origin's word counts as ever.
    assert_eq!(store_with(&policy, 503, &[(CC, "no-store")]), Err(NotStored::NoStore));
    assert_eq!(store_with(&policy, 503, &[(CC, "max-age=5")]).unwrap().facts.ttl(T0), 5);
}

#[test]
fn stale_windows() {
    // RFC 5861; RFC 9111 §4.2.4.
    let policy = Policy { stale_while_revalidate: secs(3), stale_if_error: secs(4), ..Policy::default() };
    let windows = |policy: &Policy, control: &str| {
        let facts = store_with(policy, 200, &[(CC, control), ("etag", "x")]).unwrap().facts;
        (facts.stale_while_revalidate_ms / 1000, facts.stale_if_error_ms / 1000)
    };
    for (control, without, with) in [
        ("max-age=60", (0, 0), (3, 4)),
        ("max-age=60, stale-while-revalidate=7", (7, 0), (7, 4)),
        ("max-age=60, stale-if-error=8", (0, 8), (3, 8)),
        ("max-age=60, stale-while-revalidate=0, stale-if-error=x", (0, 0), (0, 0)),
        ("max-age=60, stale-if-error=8, must-revalidate", (0, 0), (0, 0)),
        ("max-age=60, stale-if-error=8, proxy-revalidate", (0, 0), (0, 0)),
        ("s-maxage=60, stale-if-error=8, stale-while-revalidate=7", (0, 0), (0, 0)),
        ("max-age=60, stale-if-error=8, no-cache", (0, 0), (0, 0)),
        ("stale-if-error=8", (0, 8), (0, 8)), // no freshness stated: only what the origin itself allows
    ] {
        assert_eq!(windows(&Policy::default(), control), without, "{control}");
        assert_eq!(windows(&policy, control), with, "{control}, with windows of the operator's");
    }
}

#[test]
fn stored_for_its_stale_window_alone() {
    let policy = Policy { stale_if_error: secs(4), ..Policy::default() };
    assert!(store_with(&policy, 200, &[(CC, "max-age=0")]).is_ok());
    assert!(store(200, &[(CC, "max-age=0, stale-while-revalidate=5")]).is_ok());
    assert_eq!(store_with(&policy, 200, &[]), Err(NotStored::NoFreshness));
}

#[test]
fn what_could_not_be_purged_is_not_stored() {
    let tagged = |tags: &str| store(200, &[(CC, "max-age=60"), ("surrogate-key", tags), ("cache-groups", "\"g\"")]);
    let stored = tagged("a b").unwrap();
    assert_eq!(
        (stored.tags.tags().collect::<Vec<_>>(), stored.tags.groups().collect::<Vec<_>>()),
        (vec!["a", "b"], vec!["g"])
    );
    // They stay among the stored fields, which a 304 updates.
    assert_eq!(stored.strip, [""; 0]);
    let long = "x".repeat(crate::http_cache::Tags::MAX_TAG_BYTES + 1);
    assert_eq!(tagged(&long), Err(NotStored::Tags));
    // The policy says which fields these are.
    let policy = Policy { tags: Vec::new(), ..Policy::default() };
    let stored = store_with(&policy, 200, &[(CC, "max-age=60"), ("cache-tag", &long)]).unwrap();
    assert!(stored.tags.is_empty());
    // What is not to be stored anyway is so for that reason.
    assert_eq!(store(200, &[(CC, "no-store"), ("cache-tag", &long)]), Err(NotStored::NoStore));
}

#[test]
fn fields_of_tags_are_hidden_if_the_policy_says_so() {
    let hidden = Policy { strip_tags: true, ..Policy::default() };
    for name in ["surrogate-key", "cache-tag", "cache-groups", "etag"] {
        let field = name.parse().unwrap();
        assert_eq!(hidden.hides(&field), ["surrogate-key", "cache-tag"].contains(&name), "{name}");
        assert!(!Policy::default().hides(&field), "{name}");
    }
}

#[test]
fn words_are_distinct_kebab_case_tokens() {
    use NotStored::*;
    let all = [
        Method,
        Head,
        NotFinal,
        Partial,
        NotModified,
        NoStore,
        Private,
        MustUnderstand,
        RequestNoStore,
        Authorization,
        SetCookie,
        VaryAny,
        Status,
        NoFreshness,
        Unusable,
        Tags,
    ];
    let words: std::collections::HashSet<_> = all.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(words.len(), all.len());
    assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
}

fn any_directive() -> impl Strategy<Value = String> {
    let name = proptest::sample::select(vec![
        "max-age",
        "s-maxage",
        "public",
        "private",
        "no-store",
        "no-cache",
        "must-revalidate",
        "immutable",
        "stale-while-revalidate",
        "stale-if-error",
        "must-understand",
        "x",
    ]);
    let argument =
        prop_oneof![Just(String::new()), (0u32..100).prop_map(|n| format!("={n}")), Just("=\"a, b\"".to_owned())];
    (name, argument).prop_map(|(name, argument)| format!("{name}{argument}"))
}

proptest! {
    /// No sequence of other directives makes a response storable that says `no-store` or `private`.
    #[test]
    fn nothing_lifts_no_store_or_private(
        mut directives in proptest::collection::vec(any_directive(), 0..6),
        forbidding in proptest::sample::select(vec!["no-store", "private"]),
        at in any::<proptest::sample::Index>(),
        status in 200u16..600,
    ) {
        // must-understand is made to lift no-store.
        directives.retain(|directive| !directive.starts_with("must-understand"));
        directives.insert(at.index(directives.len() + 1), forbidding.to_owned());
        let policy = Policy { ttl: secs(60), store_set_cookie: true, ..Policy::default() };
        let got = store_with(&policy, status, &[(CC, &directives.join(", ")), ("etag", "\"a\"")]);
        prop_assert!(got.is_err(), "{:?}", directives);
    }

    /// A response is never fresh for longer than it says.
    #[test]
    fn never_fresh_after_max_age(max_age in 0u32..1000, age in 0u32..1000, after in 0i64..2000) {
        let headers = [(CC, format!("max-age={max_age}")), ("age", age.to_string()), ("etag", "\"a\"".to_owned())];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let facts = store(200, &headers).unwrap().facts;
        let now = T0.plus_millis(after * 1000);
        let fresh = reuse(&facts, &RequestDirectives::default(), now) == Reuse::Fresh;
        prop_assert_eq!(fresh, i64::from(age) + after < i64::from(max_age));
    }
}
