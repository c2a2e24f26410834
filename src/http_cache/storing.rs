//! Whether a response may be stored, and for how long it is fresh (RFC 9111 §3, §4.2).

use std::time::Duration;

use http::header::{AGE, AUTHORIZATION, DATE, ETAG, EXPIRES, HeaderMap, HeaderName, LAST_MODIFIED, SET_COOKIE};
use http::{Method, StatusCode};

use super::dates::parse_http_date;
use super::directives::{Delta, MAX_DELTA_SECONDS, RequestDirectives};
use super::facts::Facts;
use super::freshness::{Freshness, FreshnessSource};
use super::list::{decimal, members};
use super::policy::Policy;
use super::tags::Tags;
use super::targeted::{Control, ControlField};
use super::time::{Timestamp, millis};
use super::vary;

/// What matters about a request when its response is considered for storing.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// As the origin saw it.
    pub method: &'a Method,
    /// Whether the request carried Authorization.
    pub authorization: bool,
    /// The request's `no-store`, where the policy obeys it.
    pub no_store: bool,
    /// The response's Content-Location is the request's own URL: what a POST needs (see [`super::describes_target`]).
    pub describes_target: bool,
    /// When the request was sent: what the origin took to answer is part of the response's age (RFC 9111 §4.2.3).
    pub sent: Timestamp,
}

impl<'a> RequestFacts<'a> {
    pub fn new(
        method: &'a Method,
        headers: &HeaderMap,
        directives: &RequestDirectives,
        sent: Timestamp,
    ) -> RequestFacts<'a> {
        let authorization = headers.contains_key(AUTHORIZATION);
        RequestFacts { method, authorization, no_store: directives.no_store, describes_target: false, sent }
    }
}

/// A response that may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub facts: Facts,
    pub freshness: Freshness,
    /// By what it can be purged.
    pub tags: Tags,
    /// Fields that must not be stored: those of a qualified `no-cache` or `private`, and Set-Cookie. To be removed
    /// from the stored copy, beside the hop-by-hop ones. They still reach the client that this response is for, and
    /// no other.
    pub strip: Vec<HeaderName>,
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStored {
    /// Neither GET nor HEAD, nor a POST whose response describes its own URL.
    Method,
    /// A response to HEAD has no content to serve to a GET.
    Head,
    /// A 1xx, or no status code at all.
    NotFinal,
    /// 206: a part is not the whole.
    Partial,
    /// 304: it freshens what is stored, and is not stored itself.
    NotModified,
    /// The response's `no-store`.
    NoStore,
    /// The response's unqualified `private`.
    Private,
    /// `must-understand` with a status that this cache does not know.
    MustUnderstand,
    /// The request's `no-store`.
    RequestNoStore,
    /// The request was authorised, and nothing says that others may have the response.
    Authorization,
    /// Set-Cookie, and nothing says that others may have the response.
    SetCookie,
    /// `Vary: *`.
    VaryAny,
    /// Nobody stated any freshness, and the status is none that is cacheable by itself.
    Status,
    /// Nobody stated any freshness, and there is no validator.
    NoFreshness,
    /// It could never be reused: always to be validated or without any lifetime, but without a validator.
    Unusable,
    /// It could not be purged by all of its tags and groups: [`Tags::read`] says why.
    Tags,
}

impl NotStored {
    /// A stable word for logs and for the `detail` of Cache-Status.
    pub fn as_str(self) -> &'static str {
        match self {
            NotStored::Method => "method",
            NotStored::Head => "head",
            NotStored::NotFinal => "not-final",
            NotStored::Partial => "partial",
            NotStored::NotModified => "not-modified",
            NotStored::NoStore => "no-store",
            NotStored::Private => "private",
            NotStored::MustUnderstand => "must-understand",
            NotStored::RequestNoStore => "request-no-store",
            NotStored::Authorization => "authorization",
            NotStored::SetCookie => "set-cookie",
            NotStored::VaryAny => "vary-any",
            NotStored::Status => "status",
            NotStored::NoFreshness => "no-freshness",
            NotStored::Unusable => "unusable",
            NotStored::Tags => "tags",
        }
    }
}

/// Decides whether a response may be stored, and what the cache must remember of it.
///
/// `headers` are the response's as they arrived; after a 304, those that [`super::merge_304`] made, with GET and
/// the status of the stored response. `received` is when the header section arrived.
///
/// A policy that overrides the origin ignores its `no-store`, `private`, `no-cache`, `must-understand`, freshness
/// and stale directives, for the statuses that it has a TTL for. What protects one user from another stays:
/// Authorization, `Vary: *` and Set-Cookie, which only [`Policy::store_set_cookie`] or the origin lets pass.
pub fn storability(
    request: &RequestFacts<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    policy: &Policy,
    received: Timestamp,
) -> Result<Stored, NotStored> {
    method_and_status(request, status)?;
    if request.no_store {
        return Err(NotStored::RequestNoStore);
    }
    let control = Control::of(headers);
    let overridden = policy.override_origin && policy_ttl(policy, status).is_some();
    if !overridden {
        permitted(&control, status)?;
    }
    if request.authorization && !allows_authorized(&control) {
        return Err(NotStored::Authorization);
    }
    let set_cookie = headers.contains_key(SET_COOKIE);
    if set_cookie && !policy.store_set_cookie && !is_explicitly_shared(&control) {
        return Err(NotStored::SetCookie);
    }
    if vary::is_any(headers) {
        return Err(NotStored::VaryAny);
    }

    let freshness = freshness(status, headers, &control, policy, received);
    if request.method == Method::POST && !freshness.source.is_explicit() {
        return Err(NotStored::NoFreshness);
    }
    let validator = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
    if freshness.source == FreshnessSource::None {
        if !is_heuristically_cacheable(status) && !control.directives.public {
            return Err(NotStored::Status);
        }
        if !validator {
            return Err(NotStored::NoFreshness);
        }
    }
    let facts = facts(request, headers, &control, policy, freshness, overridden, received);
    let no_window = facts.stale_while_revalidate_ms == 0 && facts.stale_if_error_ms == 0;
    if !validator && (facts.no_cache || (freshness.lifetime.is_zero() && no_window)) {
        return Err(NotStored::Unusable);
    }
    let tags = Tags::read(headers, &policy.tags).map_err(|_| NotStored::Tags)?;

    let mut strip = Vec::new();
    if !overridden {
        strip.extend_from_slice(control.directives.no_cache.fields());
        strip.extend_from_slice(control.directives.private.fields());
    }
    if set_cookie {
        strip.push(SET_COOKIE);
    }
    Ok(Stored { facts, freshness, tags, strip })
}

/// The value of the origin's Age field in seconds (RFC 9111 §5.1): that of the first member of the first line, at
/// most 2^31; 0 where it is no non-negative integer.
pub fn age_value(headers: &HeaderMap) -> u32 {
    let first = headers.get(AGE).and_then(|line| members(line.as_bytes()).next());
    let seconds = first.and_then(decimal).unwrap_or(0);
    u32::try_from(seconds).unwrap_or(MAX_DELTA_SECONDS).min(MAX_DELTA_SECONDS)
}

/// RFC 9110 §15.1: the statuses that may be stored without explicit freshness. 206 is one of them, but not for a
/// cache that stores whole responses only.
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

const MAX_LIFETIME: Duration = Duration::from_secs(MAX_DELTA_SECONDS as u64);

fn method_and_status(request: &RequestFacts<'_>, status: StatusCode) -> Result<(), NotStored> {
    match *request.method {
        Method::GET => {}
        Method::HEAD => return Err(NotStored::Head),
        // RFC 9110 §9.3.3: with explicit freshness, and a Content-Location that is the POST's own URL.
        Method::POST if request.describes_target && status == StatusCode::OK => {}
        _ => return Err(NotStored::Method),
    }
    match status.as_u16() {
        206 => Err(NotStored::Partial),
        304 => Err(NotStored::NotModified),
        200..=599 => Ok(()),
        _ => Err(NotStored::NotFinal),
    }
}

/// RFC 9111 §3: no `no-store` and no unqualified `private`; §5.2.2.3: `must-understand` is kept only with a status
/// that is understood, and then overrides `no-store`.
fn permitted(control: &Control, status: StatusCode) -> Result<(), NotStored> {
    let directives = &control.directives;
    if directives.private.is_whole() {
        return Err(NotStored::Private);
    }
    if directives.must_understand {
        return if is_understood(status) { Ok(()) } else { Err(NotStored::MustUnderstand) };
    }
    if directives.no_store { Err(NotStored::NoStore) } else { Ok(()) }
}

/// The final statuses whose caching requirements RFC 9110 §15 states, and this cache meets.
fn is_understood(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=205 | 300..=303 | 305 | 307..=308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}

/// RFC 9111 §3.5: a response to an authorised request is for its user, unless the origin says otherwise.
fn allows_authorized(control: &Control) -> bool {
    let directives = &control.directives;
    directives.public || directives.must_revalidate || valid(directives.s_maxage)
}

/// A response that sets a cookie is for its user, unless the origin gives it to all: by `public`, by a lifetime for
/// shared caches only, or by a lifetime in a field that addresses CDNs only.
fn is_explicitly_shared(control: &Control) -> bool {
    let directives = &control.directives;
    directives.public || valid(directives.s_maxage) || (control.field.is_targeted() && valid(directives.max_age))
}

fn valid(delta: Option<Delta>) -> bool {
    matches!(delta, Some(Delta::Seconds(_)))
}

/// RFC 9111 §4.2.1 and §4.2.2, with the policy's part: `s-maxage`, then `max-age`, then Expires, then what the
/// operator says for responses that state nothing, then the heuristic. An overriding policy comes first.
fn freshness(
    status: StatusCode,
    headers: &HeaderMap,
    control: &Control,
    policy: &Policy,
    received: Timestamp,
) -> Freshness {
    let configured = policy_ttl(policy, status);
    let (lifetime, source) = match configured {
        Some(configured) if policy.override_origin => configured,
        _ => stated(headers, control, received)
            .or(configured)
            .or_else(|| heuristic(status, headers, control, policy, received))
            .unwrap_or((Duration::ZERO, FreshnessSource::None)),
    };
    let limit = policy.max_ttl.unwrap_or(MAX_LIFETIME).min(MAX_LIFETIME);
    Freshness { lifetime: lifetime.min(limit), source }
}

/// The operator's lifetime for a status. `ttl_by_status` is the more exact. `ttl` is for the answers that have the
/// resource, or say where it is for good: what makes a page last a day must not make an error last as long.
fn policy_ttl(policy: &Policy, status: StatusCode) -> Option<(Duration, FreshnessSource)> {
    let code = status.as_u16();
    if let Some((_, ttl)) = policy.ttl_by_status.iter().find(|(status, _)| *status == code) {
        return Some((*ttl, FreshnessSource::TtlByStatus));
    }
    let ttl = policy.ttl.filter(|_| code < 400 && is_heuristically_cacheable(status))?;
    Some((ttl, FreshnessSource::Ttl))
}

fn stated(headers: &HeaderMap, control: &Control, received: Timestamp) -> Option<(Duration, FreshnessSource)> {
    let seconds = |delta: Delta| Duration::from_secs(u64::from(delta.seconds()));
    if let Some(s_maxage) = control.directives.s_maxage {
        return Some((seconds(s_maxage), FreshnessSource::SMaxage));
    }
    if let Some(max_age) = control.directives.max_age {
        let targeted = control.field.is_targeted();
        return Some((seconds(max_age), if targeted { FreshnessSource::Targeted } else { FreshnessSource::MaxAge }));
    }
    // RFC 9213 §2.2: a targeted field leaves no say to Expires.
    if control.field != ControlField::CacheControl {
        return None;
    }
    // RFC 9111 §5.3: an invalid date, `0` above all, is a time in the past.
    let expires = headers.get(EXPIRES)?;
    let lifetime = match parse_http_date(expires.as_bytes(), received) {
        Some(expires) => expires.since(date(headers, received)),
        None => Duration::ZERO,
    };
    Some((lifetime, FreshnessSource::Expires))
}

/// RFC 9111 §4.2.2: a tenth of the time that the resource has been unchanged for.
fn heuristic(
    status: StatusCode,
    headers: &HeaderMap,
    control: &Control,
    policy: &Policy,
    received: Timestamp,
) -> Option<(Duration, FreshnessSource)> {
    if !policy.heuristics || !(is_heuristically_cacheable(status) || control.directives.public) {
        return None;
    }
    let unchanged = date(headers, received).since(last_modified(headers, received)?);
    Some((unchanged / 10, FreshnessSource::Heuristic))
}

fn facts(
    request: &RequestFacts<'_>,
    headers: &HeaderMap,
    control: &Control,
    policy: &Policy,
    freshness: Freshness,
    overridden: bool,
    received: Timestamp,
) -> Facts {
    let directives = &control.directives;
    let no_cache = !overridden && directives.no_cache.is_whole();
    // RFC 9111 §4.2.4 and §5.2.2.10: s-maxage carries the semantics of proxy-revalidate.
    let must_revalidate = !overridden
        && (no_cache || directives.must_revalidate || directives.proxy_revalidate || directives.s_maxage.is_some());
    // A response about whose freshness nobody said anything is never used without the origin's consent: the policy's
    // windows are for what was fresh once.
    let configurable = freshness.source != FreshnessSource::None;
    let window = |stated: Option<Delta>, configured: Option<Duration>| match stated {
        _ if must_revalidate => 0,
        Some(delta) if !overridden => i64::from(delta.seconds()) * 1000,
        _ => configured.filter(|_| configurable).map_or(0, |window| millis(window.min(MAX_LIFETIME))),
    };

    let initial_age_ms = corrected_initial_age_ms(headers, request.sent, received);
    // What the operator grants begins when the response arrives here, whatever its age or a wrong clock's Date.
    let spent = if freshness.source.is_policy() { 0 } else { initial_age_ms };
    Facts {
        received,
        initial_age_ms,
        fresh_until: received.plus_millis(millis(freshness.lifetime) - spent),
        stale_while_revalidate_ms: window(directives.stale_while_revalidate, policy.stale_while_revalidate),
        stale_if_error_ms: window(directives.stale_if_error, policy.stale_if_error),
        last_modified: last_modified(headers, received),
        must_revalidate,
        no_cache,
        immutable: directives.immutable,
    }
}

/// RFC 9111 §4.2.3: the greater of the age that Date shows and the stated age plus the time the response took.
fn corrected_initial_age_ms(headers: &HeaderMap, sent: Timestamp, received: Timestamp) -> i64 {
    // Date has whole seconds, so this is done in whole seconds.
    let apparent = received.as_secs().saturating_sub(date(headers, received).as_secs()).max(0);
    let response_delay = received.millis_since(sent).max(0);
    let corrected = (i64::from(age_value(headers)) * 1000).saturating_add(response_delay);
    corrected.max(apparent.saturating_mul(1000)).min(millis(MAX_LIFETIME))
}

/// Date, or the time of arrival where there is none or it is invalid (RFC 9110 §6.6.1).
fn date(headers: &HeaderMap, received: Timestamp) -> Timestamp {
    headers.get(DATE).and_then(|date| parse_http_date(date.as_bytes(), received)).unwrap_or(received)
}

fn last_modified(headers: &HeaderMap, received: Timestamp) -> Option<Timestamp> {
    parse_http_date(headers.get(LAST_MODIFIED)?.as_bytes(), received)
}

#[cfg(test)]
#[path = "storing_tests.rs"]
mod tests;
