//! Reusing a stored response: its age, whether it is fresh, and what a request makes of that (RFC 9111 §4).
//!
//! Everything here runs on every hit: it compares numbers that [`super::storability`] computed once, and allocates
//! nothing.

use std::time::Duration;

use super::directives::RequestDirectives;
use super::facts::Facts;
use super::status::FwdReason;
use super::time::Timestamp;

/// How long a response is fresh, and who said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Counted from the response's generation for what the origin stated, and from its arrival for what the
    /// operator stated; never more than 2^31 seconds.
    pub lifetime: Duration,
    pub source: FreshnessSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreshnessSource {
    /// The origin's `s-maxage`, in whichever field governs.
    SMaxage,
    /// `max-age` in a targeted field.
    Targeted,
    /// `max-age` in Cache-Control.
    MaxAge,
    Expires,
    /// RFC 9111 §4.2.2.
    Heuristic,
    /// The policy's `ttl`.
    Ttl,
    /// The policy's `ttl_by_status`.
    TtlByStatus,
    /// Nobody stated any: the response is stale from the start.
    None,
}

impl FreshnessSource {
    /// A stable word for logs and explanations.
    pub fn as_str(self) -> &'static str {
        match self {
            FreshnessSource::SMaxage => "s-maxage",
            FreshnessSource::Targeted => "targeted",
            FreshnessSource::MaxAge => "max-age",
            FreshnessSource::Expires => "expires",
            FreshnessSource::Heuristic => "heuristic",
            FreshnessSource::Ttl => "ttl",
            FreshnessSource::TtlByStatus => "ttl-by-status",
            FreshnessSource::None => "none",
        }
    }

    /// Whether the origin said so in so many words (RFC 9111 §4.2.1).
    pub fn is_explicit(self) -> bool {
        use FreshnessSource::{Expires, MaxAge, SMaxage, Targeted};
        matches!(self, SMaxage | Targeted | MaxAge | Expires)
    }

    /// Whether the operator said so, rather than the origin.
    pub fn is_policy(self) -> bool {
        matches!(self, FreshnessSource::Ttl | FreshnessSource::TtlByStatus)
    }
}

/// What to do with a stored response that was selected for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Send it.
    Fresh,
    /// Send it although it is stale: the client said that it may be (`max-stale`).
    Stale,
    /// Send it although it is stale, and refresh it in the background (RFC 5861 §3).
    StaleWhileRevalidate,
    /// Ask the origin first.
    Revalidate(RevalidateReason),
    /// Answer 504: a validation is needed, and the client wants no forwarding (RFC 9111 §5.2.1.7).
    OnlyIfCached,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevalidateReason {
    /// Its freshness is over, and no window allows it to be used.
    Stale,
    /// The response says `no-cache`.
    ResponseNoCache,
    /// The request says `no-cache`.
    RequestNoCache,
    /// It is older than the request's `max-age`.
    RequestMaxAge,
    /// It is not fresh for as long as the request's `min-fresh`.
    RequestMinFresh,
}

impl RevalidateReason {
    /// The reason in the terms of Cache-Status; `fresh`: whether the response is, the request's wishes aside. For one that
    /// is not, the request is not the reason (RFC 9211 §2.2).
    pub fn fwd(self, fresh: bool) -> FwdReason {
        match self {
            RevalidateReason::Stale | RevalidateReason::ResponseNoCache => FwdReason::Stale,
            RevalidateReason::RequestNoCache | RevalidateReason::RequestMaxAge | RevalidateReason::RequestMinFresh => {
                if fresh {
                    FwdReason::Request
                } else {
                    FwdReason::Stale
                }
            }
        }
    }
}

/// Decides on the reuse of a stored response (RFC 9111 §4, §5.2.1).
pub fn reuse(facts: &Facts, request: &RequestDirectives, now: Timestamp) -> Reuse {
    match without_forwarding(facts, request, now) {
        Ok(reuse) => reuse,
        Err(_) if request.only_if_cached => Reuse::OnlyIfCached,
        Err(reason) => Reuse::Revalidate(reason),
    }
}

/// RFC 5861 §4 names 500, 502, 503 and 504 and leaves other errors to the cache; servers in front of origins use many
/// more codes of that class for the same conditions.
pub fn is_stale_if_error_status(status: http::StatusCode) -> bool {
    status.is_server_error()
}

fn without_forwarding(facts: &Facts, request: &RequestDirectives, now: Timestamp) -> Result<Reuse, RevalidateReason> {
    if request.no_cache {
        return Err(RevalidateReason::RequestNoCache);
    }
    if facts.no_cache {
        return Err(RevalidateReason::ResponseNoCache);
    }
    let remaining = facts.remaining_ms(now);
    let fresh = remaining > 0;
    if let Some(max_age) = request.max_age {
        // RFC 8246 §2.1: a fresh immutable response needs no validation unless the client asks for one outright;
        // `max-age=0` is what a browser's plain reload sends.
        if facts.age_ms(now) > seconds_ms(max_age) && !(facts.immutable && fresh) {
            return Err(RevalidateReason::RequestMaxAge);
        }
    }
    if let Some(min_fresh) = request.min_fresh
        && remaining < seconds_ms(min_fresh)
    {
        return Err(RevalidateReason::RequestMinFresh);
    }
    if fresh {
        return Ok(Reuse::Fresh);
    }
    if facts.must_revalidate {
        return Err(RevalidateReason::Stale);
    }
    let staleness = remaining.saturating_neg();
    match request.max_stale {
        Some(max_stale) if staleness <= seconds_ms(max_stale) || max_stale == u32::MAX => return Ok(Reuse::Stale),
        _ => {}
    }
    // RFC 9111 §5.2.1.1: a client that states `max-age` without `max-stale` does not wish a stale response.
    if request.max_age.is_none() && staleness < facts.stale_while_revalidate_ms {
        return Ok(Reuse::StaleWhileRevalidate);
    }
    Err(RevalidateReason::Stale)
}

fn seconds_ms(seconds: u32) -> i64 {
    i64::from(seconds) * 1000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn at(secs: i64) -> Timestamp {
        T0.plus_millis(secs * 1000)
    }

    /// Fresh for 100 s, of age 10 on arrival, stale windows of 20 s and 50 s.
    fn facts() -> Facts {
        Facts {
            received: T0,
            initial_age_ms: 10_000,
            fresh_until: at(90),
            stale_while_revalidate_ms: 20_000,
            stale_if_error_ms: 50_000,
            last_modified: None,
            must_revalidate: false,
            no_cache: false,
            immutable: false,
        }
    }

    const NONE: RequestDirectives = RequestDirectives {
        no_cache: false,
        no_store: false,
        only_if_cached: false,
        max_age: None,
        min_fresh: None,
        max_stale: None,
    };

    #[test]
    fn age_grows_by_the_resident_time() {
        // RFC 9111 §4.2.3.
        assert_eq!(facts().age_seconds(T0), 10);
        assert_eq!(facts().age_seconds(at(5)), 15);
        assert_eq!(facts().age_seconds(at(-5)), 10, "a clock that went back");
        assert_eq!(facts().age_seconds(at(i64::from(u32::MAX))), 1 << 31);
    }

    #[test]
    fn fresh_until_the_lifetime_and_never_after() {
        // RFC 9111 §4.2: fresh while freshness_lifetime > current_age.
        assert_eq!(reuse(&facts(), &NONE, at(89)), Reuse::Fresh);
        assert_eq!(reuse(&facts(), &NONE, at(90).plus_millis(-1)), Reuse::Fresh);
        assert_ne!(reuse(&facts(), &NONE, at(90)), Reuse::Fresh);
        assert_eq!((facts().ttl(at(30)), facts().ttl(at(90)), facts().ttl(at(93))), (60, 0, -3));
    }

    #[test]
    fn stale_windows() {
        // RFC 5861 §3, §4.
        assert_eq!(reuse(&facts(), &NONE, at(109)), Reuse::StaleWhileRevalidate);
        assert_eq!(reuse(&facts(), &NONE, at(110)), Reuse::Revalidate(RevalidateReason::Stale));
        assert!(facts().stale_if_error_allowed(&NONE, at(139)));
        assert!(!facts().stale_if_error_allowed(&NONE, at(140)));
        assert!(!facts().stale_if_error_allowed(&RequestDirectives { no_cache: true, ..NONE }, at(5)));

        let strict = Facts { must_revalidate: true, ..facts() };
        assert_eq!(reuse(&strict, &NONE, at(89)), Reuse::Fresh);
        assert_eq!(reuse(&strict, &NONE, at(91)), Reuse::Revalidate(RevalidateReason::Stale));
        assert!(!strict.stale_if_error_allowed(&NONE, at(91)));
        let max_stale = RequestDirectives { max_stale: Some(u32::MAX), ..NONE };
        assert_eq!(reuse(&strict, &max_stale, at(91)), Reuse::Revalidate(RevalidateReason::Stale));
    }

    #[test]
    fn response_no_cache_is_validated_each_time() {
        let facts = Facts { no_cache: true, ..facts() };
        assert_eq!(reuse(&facts, &NONE, T0), Reuse::Revalidate(RevalidateReason::ResponseNoCache));
        assert!(!facts.is_fresh(T0));
        assert!(!facts.stale_if_error_allowed(&NONE, T0));
    }

    #[test]
    fn request_directives() {
        // RFC 9111 §5.2.1.
        use RevalidateReason::*;
        let revalidate = Reuse::Revalidate;
        for (request, when, expected) in [
            (RequestDirectives { no_cache: true, ..NONE }, 1, revalidate(RequestNoCache)),
            (RequestDirectives { max_age: Some(0), ..NONE }, 1, revalidate(RequestMaxAge)),
            (RequestDirectives { max_age: Some(14), ..NONE }, 5, revalidate(RequestMaxAge)),
            (RequestDirectives { max_age: Some(15), ..NONE }, 5, Reuse::Fresh),
            (RequestDirectives { max_age: Some(500), ..NONE }, 95, revalidate(Stale)),
            (RequestDirectives { min_fresh: Some(80), ..NONE }, 10, Reuse::Fresh),
            (RequestDirectives { min_fresh: Some(81), ..NONE }, 10, revalidate(RequestMinFresh)),
            (RequestDirectives { min_fresh: Some(0), ..NONE }, 95, revalidate(RequestMinFresh)),
            (RequestDirectives { max_stale: Some(30), ..NONE }, 120, Reuse::Stale),
            (RequestDirectives { max_stale: Some(29), ..NONE }, 120, revalidate(Stale)),
            (RequestDirectives { max_stale: Some(u32::MAX), ..NONE }, 1_000_000, Reuse::Stale),
            (RequestDirectives { max_stale: Some(1000), max_age: Some(10), ..NONE }, 95, revalidate(RequestMaxAge)),
            // The stored response is not what no-store is about (§5.2.1.5).
            (RequestDirectives { no_store: true, ..NONE }, 1, Reuse::Fresh),
            (RequestDirectives { only_if_cached: true, ..NONE }, 1, Reuse::Fresh),
            (RequestDirectives { only_if_cached: true, ..NONE }, 95, Reuse::StaleWhileRevalidate),
            (RequestDirectives { only_if_cached: true, ..NONE }, 120, Reuse::OnlyIfCached),
            (RequestDirectives { only_if_cached: true, no_cache: true, ..NONE }, 1, Reuse::OnlyIfCached),
        ] {
            assert_eq!(reuse(&facts(), &request, at(when)), expected, "{request:?} at {when}");
        }
    }

    #[test]
    fn the_request_is_the_reason_only_for_what_is_fresh() {
        // RFC 9211 §2.2.
        use RevalidateReason::*;
        for reason in [RequestNoCache, RequestMaxAge, RequestMinFresh] {
            assert_eq!((reason.fwd(true), reason.fwd(false)), (FwdReason::Request, FwdReason::Stale));
        }
        for reason in [Stale, ResponseNoCache] {
            assert_eq!((reason.fwd(true), reason.fwd(false)), (FwdReason::Stale, FwdReason::Stale));
        }
    }

    #[test]
    fn immutable_outlives_a_plain_reload_while_fresh() {
        // RFC 8246 §2.1.
        let facts = Facts { immutable: true, ..facts() };
        let reload = RequestDirectives { max_age: Some(0), ..NONE };
        assert_eq!(reuse(&facts, &reload, at(5)), Reuse::Fresh);
        assert_eq!(reuse(&facts, &reload, at(95)), Reuse::Revalidate(RevalidateReason::RequestMaxAge));
        let forced = RequestDirectives { no_cache: true, ..NONE };
        assert_eq!(reuse(&facts, &forced, at(5)), Reuse::Revalidate(RevalidateReason::RequestNoCache));
    }

    #[test]
    fn a_soft_purge_opens_the_stale_windows() {
        let purged = facts().expired_at(at(5));
        assert_eq!(reuse(&purged, &NONE, at(6)), Reuse::StaleWhileRevalidate);
        assert_eq!(reuse(&purged, &NONE, at(25)), Reuse::Revalidate(RevalidateReason::Stale));
        assert_eq!(purged.age_seconds(at(6)), 16, "the age is the response's own");
        assert_eq!(facts().expired_at(at(500)), facts(), "what is stale already keeps its windows");
    }

    fn any_facts() -> impl Strategy<Value = Facts> {
        let times = (any::<i64>(), 0i64..1 << 50, any::<i64>(), 0i64..1 << 50, 0i64..1 << 50);
        (times, any::<(bool, bool, bool)>()).prop_map(|((received, age, until, swr, sie), flags)| Facts {
            received: Timestamp::from_millis(received),
            initial_age_ms: age,
            fresh_until: Timestamp::from_millis(until),
            stale_while_revalidate_ms: swr,
            stale_if_error_ms: sie,
            last_modified: None,
            must_revalidate: flags.0,
            no_cache: flags.1,
            immutable: flags.2,
        })
    }

    proptest! {
        #[test]
        fn time_only_takes_freshness_away(facts in any_facts(), a in any::<i64>(), b in any::<i64>()) {
            let (early, late) = (Timestamp::from_millis(a.min(b)), Timestamp::from_millis(a.max(b)));
            prop_assert!(facts.age(early) <= facts.age(late));
            prop_assert!(facts.ttl(early) >= facts.ttl(late));
            prop_assert!(facts.is_fresh(early) || !facts.is_fresh(late));
            let allowed = |when| facts.stale_if_error_allowed(&NONE, when);
            prop_assert!(allowed(early) || !allowed(late));
            let forwards = |when| matches!(reuse(&facts, &NONE, when), Reuse::Revalidate(_));
            prop_assert!(forwards(late) || !forwards(early));
        }
    }
}
