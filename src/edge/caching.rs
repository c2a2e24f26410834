//! Between Pingora's cache and the caching rules: what may be reused, what may be stored.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{AGE, AUTHORIZATION, DATE, RANGE, SET_COOKIE, TRANSFER_ENCODING, VARY};
use http::{HeaderMap, Method, StatusCode};
use log::debug;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};
use pingora_cache::key::HashBinary;
use pingora_cache::lock::CacheKeyLockImpl;
use pingora_cache::{
    CacheKey, CacheMeta, CacheOptionOverrides, ForcedFreshness, HitHandler, NoCacheReason, RespCacheable,
};
use pingora_proxy::Session;

use super::context::Context;
use super::state::Shared;
use super::{link, upstream};
use crate::http_cache::{
    self, Facts, FwdReason, NotStored, RequestFacts, Reuse, RevalidateReason, Stored, Timestamp, Variance,
};
use crate::store::{Expect, Followed, Object, ObjectKey, Record, Rejection, UrlMark, Whole, meta_of};

/// A waiter looks again as often as it takes where something is stored: giving up would lose it a stale object it could
/// have had.
const LOCK_RETRIES: usize = 64;

/// Where nothing is stored, it loses nothing by going to the origin beside the others. They would else be told one after
/// the other of an origin that fails each of them slowly.
const LOCK_RETRIES_OF_NOTHING: usize = 2;

/// Puts the cache in the request's way, unless there is nothing in it to win.
pub fn enable(shared: &Shared, session: &mut Session, ctx: &mut Context) {
    let Some(request) = &ctx.request else { return };
    // Where there is a policy, it is content that leaves a request without a key.
    let (method, content) = (&session.req_header().method, request.key.is_none());
    let bypass = http_cache::bypass(request.cache_policy(), method, content, session.is_upgrade_req());
    let (Some((key, _)), None) = (&request.key, bypass) else {
        ctx.cache.forwarded = Some(bypass.map_or(FwdReason::Bypass, http_cache::Bypass::fwd));
        return;
    };
    ctx.cache.forwarded = Some(FwdReason::UriMiss);
    ctx.cache.began = shared.store.sequence(&key.hash);
    ctx.cache.url_mark = key.url.map(|url| shared.store.url_mark(&url));
    // Where the last answer could not be shared, waiting for the next one would be in vain. It is stored all the same
    // if it can be.
    let expected = shared.store.uncacheable().expect(&key.hash, shared.uptime());
    // A part of what is not stored is the origin's to cut out, rather than ours from the whole.
    let in_vain = match expected {
        Expect::Cacheable => false,
        Expect::Uncacheable => session.req_header().headers.contains_key(RANGE),
        Expect::Never => true,
    };
    let stored = shared.store.memory().peek(&ObjectKey::primary(key.hash));
    if in_vain && stored.is_none() {
        return;
    }
    // Nor is anybody to wait for an answer that is for its own client alone, or that is no more than a head.
    let header = session.req_header();
    let authorized = header.headers.contains_key(AUTHORIZATION);
    let alone = request.directives.no_store
        || (header.method == Method::HEAD && stored.is_some())
        || (authorized && shared.store.uncacheable().expect(&of_users(key.hash), shared.uptime()) != Expect::Cacheable);
    // A refresh in the background is for all, whoever gives rise to it; and Pingora needs the lock for it.
    let refreshes = || {
        let facts = stored.as_ref().map(|object| object.head.record.facts);
        facts.is_some_and(|f| http_cache::reuse(&f, &request.directives, ctx.now) == Reuse::StaleWhileRevalidate)
    };
    let shares = (expected == Expect::Cacheable && !alone) || refreshes();
    let is_stored = stored.is_some();
    let lock = shares.then_some(shared.collapse as &'static CacheKeyLockImpl);
    let mut overrides = CacheOptionOverrides::default();
    overrides.max_lock_retries = Some(if is_stored { LOCK_RETRIES } else { LOCK_RETRIES_OF_NOTHING });
    overrides.wait_timeout = Some(shared.lock_wait(request.policy().origin, &request.snapshot));
    session.cache.enable(shared.store, None, None, lock, Some(overrides));
    // What is read from the store must not wait for a slow client, since others follow the same fill.
    session.set_proxy_tasks_enabled(true);
}

/// Whether the request must be answered from the store or not at all (RFC 9111 §5.2.1.7).
pub fn only_if_cached(session: &Session, ctx: &Context) -> bool {
    let Some(request) = ctx.request.as_ref().filter(|r| r.directives.only_if_cached) else { return false };
    let (method, content) = (&session.req_header().method, request.key.is_none());
    http_cache::bypass(request.cache_policy(), method, content, session.is_upgrade_req()).is_none()
}

/// Under which it is remembered that a resource's answers to authorised requests are for their users alone.
fn of_users(key: HashBinary) -> HashBinary {
    key.map(|byte| !byte)
}

/// The key in Pingora's terms.
pub fn key(ctx: &Context) -> Result<CacheKey> {
    let Some((key, _)) = ctx.request.as_ref().and_then(|r| r.key.as_ref()) else {
        return Error::e_explain(ErrorType::InternalError, "a cached request without a key");
    };
    let mut cache_key = CacheKey::new(Vec::new(), "");
    cache_key.set_primary_bin_override(key.hash);
    Ok(cache_key)
}

/// What the rules make of a stored response that was found.
pub fn on_hit(
    shared: &Shared,
    session: &mut Session,
    ctx: &mut Context,
    meta: &CacheMeta,
    handler: &HitHandler,
    is_fresh: bool,
) -> Option<ForcedFreshness> {
    let record = meta.extensions().get::<Record>()?;
    let facts = record.facts;
    let directives = ctx.request.as_ref().map(|r| r.directives).unwrap_or_default();
    let now = Timestamp::from(SystemTime::now());
    ctx.cache.ttl = Some(facts.ttl(now));
    ctx.cache.tier = "memory";
    ctx.cache.collapsed = handler.as_any().is::<Followed>();
    if ctx.cache.collapsed {
        if ctx.cache.fallback.is_none() {
            // Until the fill has ended well, what was there before is there still.
            let before = shared.store.memory().peek(&ObjectKey::of(session.cache.cache_key()));
            let usable = |o: &Arc<Object>| o.head.record.facts.stale_if_error_allowed(&directives, now);
            ctx.cache.fallback = before.filter(usable);
        }
        if let Some(connection) = link::connection(session) {
            connection.release_head(true);
        }
    }
    let reuse = http_cache::reuse(&facts, &directives, now);
    if let (Reuse::Revalidate(_), Some(whole)) = (reuse, handler.as_any().downcast_ref::<Whole>())
        && facts.stale_if_error_allowed(&directives, now)
    {
        ctx.cache.fallback = Some(whole.object().clone());
    }
    ctx.cache.stale_while_revalidate = reuse == Reuse::StaleWhileRevalidate;
    match reuse {
        // Nothing is forwarded, or was before: by the request whose response this is.
        Reuse::Fresh => {}
        Reuse::Revalidate(reason) => ctx.cache.forwarded = Some(reason.fwd(facts.is_fresh(now))),
        _ => ctx.cache.forwarded = Some(FwdReason::Stale),
    }
    match reuse {
        Reuse::Fresh | Reuse::Stale => (!is_fresh).then_some(ForcedFreshness::ForceFresh),
        // A response answers all requests that were waiting when it came, even if it must be validated the next time
        // (RFC 9111 §4); else they would ask the origin one after the other.
        Reuse::Revalidate(RevalidateReason::ResponseNoCache | RevalidateReason::Stale)
            if ctx.cache.collapsed && ctx.now <= facts.received =>
        {
            Some(ForcedFreshness::ForceFresh)
        }
        // The answer that this request waited for was a failure: asking again would give the same.
        Reuse::Revalidate(RevalidateReason::Stale)
            if session.cache.lock_duration().is_some()
                && facts.stale_if_error_allowed(&directives, now)
                && has_failed(shared, meta, ctx) =>
        {
            ctx.cache.stale_if_error = true;
            Some(ForcedFreshness::ForceFresh)
        }
        // Whoever asks next may refresh it.
        Reuse::StaleWhileRevalidate if session.subrequest_ctx.is_none() && !shared.background.has_room() => {
            Some(ForcedFreshness::ForceFresh)
        }
        Reuse::StaleWhileRevalidate | Reuse::Revalidate(_) | Reuse::OnlyIfCached => {
            Some(ForcedFreshness::ForceExpiredServeStale { expired_at: None })
        }
    }
}

/// Whether the origin has failed for this variant since the request came.
fn has_failed(shared: &Shared, meta: &CacheMeta, ctx: &Context) -> bool {
    let key = ctx.request.as_ref().and_then(|r| r.key.as_ref());
    key.is_some_and(|(key, _)| {
        shared.store.failures().since(&of_variant(key.hash, meta.variance()), shared.millis(ctx.started))
    })
}

/// One hash for a resource's variant.
fn of_variant(mut key: HashBinary, variance: Option<HashBinary>) -> HashBinary {
    for (byte, other) in key.iter_mut().zip(variance.unwrap_or_default()) {
        *byte ^= other;
    }
    key
}

/// The hash of the request fields that select a variant: in a lookup, and for what is about to be stored.
pub fn variance(meta: &CacheMeta, request: &RequestHeader, ctx: &mut Context) -> Option<HashBinary> {
    let variance = variance_of(meta.headers(), &request.headers);
    if !ctx.cache.stored && variance != meta.variance() {
        ctx.cache.forwarded = Some(FwdReason::VaryMiss);
    }
    variance
}

/// As [`variance`], of the fields alone.
pub fn variance_of(stored: &HeaderMap, request: &HeaderMap) -> Option<HashBinary> {
    if !stored.contains_key(VARY) {
        return None;
    }
    match http_cache::variance(stored, request) {
        Variance::Key(hash) => Some(hash),
        Variance::None | Variance::Any => None,
    }
}

/// Whether the origin's response may be stored, and as what.
pub fn on_response(shared: &Shared, session: &Session, response: &ResponseHeader, ctx: &mut Context) -> RespCacheable {
    if ctx.upstream.by_head && ctx.cache.not_modified.is_none() {
        head_answered(shared, session, response, ctx);
        ctx.cache.not_stored = Some(NotStored::Head.as_str());
        return RespCacheable::Uncacheable(NoCacheReason::Deferred);
    }
    // What freshens an object is that object still.
    let id = match &ctx.cache.not_modified {
        Some(_) => session.cache.maybe_cache_meta().and_then(|m| Some(m.extensions().get::<Record>()?.id)),
        None => None,
    };
    let now = Timestamp::from(SystemTime::now());
    let asked = ctx.upstream.sent.unwrap_or(now);
    let identity = Identity { id: id.unwrap_or(0), began: ctx.cache.began, asked, url: ctx.cache.url_mark };
    let verdict = match ctx.cache.not_modified.take() {
        Some(update) => freshened(shared, session, ctx, &update),
        None => judged(shared, session, ctx, response),
    };
    let Some(request) = ctx.request.as_ref() else {
        return RespCacheable::Uncacheable(NoCacheReason::InternalError);
    };
    match verdict {
        Ok((stored, response)) => {
            ctx.cache.stored = true;
            if let Some((key, _)) = &request.key {
                shared.store.uncacheable().clear(&key.hash);
            }
            ctx.cache.ttl = Some(stored.facts.ttl(now));
            let key = request.key.as_ref().map(|(_, text)| text.as_bytes()).unwrap_or_default();
            RespCacheable::Cacheable(meta(key, &stored, response, identity))
        }
        Err(why) => {
            debug!("not stored: {}", why.word());
            ctx.cache.not_stored = Some(why.word());
            if let Some((key, _)) = &request.key
                && !response.status.is_server_error()
            {
                // Another client's answer might well be for all.
                let users = matches!(why, Verdict::Rule(NotStored::Authorization)).then(|| of_users(key.hash));
                let marked = users.or_else(|| (!why.is_the_requests()).then_some(key.hash));
                if let Some(marked) = marked {
                    shared.store.uncacheable().mark(&marked, shared.uptime());
                }
            }
            RespCacheable::Uncacheable(why.reason())
        }
    }
}

/// Why a response is not stored.
enum Verdict {
    Rule(NotStored),
    TooLarge,
    /// The fills in progress hold as much memory as they may.
    Fills,
    OtherResource,
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Verdict::Rule(rule) => rule.as_str(),
            Verdict::TooLarge => "too-large",
            Verdict::Fills => "fills",
            Verdict::OtherResource => "other-validator",
        }
    }

    /// Another request for the same might well have its response stored.
    fn is_the_requests(&self) -> bool {
        matches!(self, Verdict::Rule(NotStored::RequestNoStore | NotStored::Authorization) | Verdict::Fills)
    }

    fn reason(&self) -> NoCacheReason {
        match self {
            // Nobody is to wait for room.
            Verdict::Fills => NoCacheReason::OriginNotCache,
            // It is likely for its user alone: those who wait all go on.
            Verdict::Rule(NotStored::Authorization) => NoCacheReason::OriginNotCache,
            // The next of those who wait tries.
            _ if self.is_the_requests() => NoCacheReason::Deferred,
            Verdict::Rule(_) | Verdict::OtherResource => NoCacheReason::OriginNotCache,
            Verdict::TooLarge => NoCacheReason::ResponseTooLarge,
        }
    }
}

/// A response in full.
fn judged(
    shared: &Shared,
    session: &Session,
    ctx: &mut Context,
    response: &ResponseHeader,
) -> Result<(Stored, ResponseHeader), Verdict> {
    let length = http_cache::content_length(&response.headers);
    let stored = judge(session, ctx, response.status, &response.headers).map_err(Verdict::Rule)?;
    if length.is_some_and(|length| length > shared.store.memory().max_object()) {
        shared.store.reject(Rejection::TooLarge);
        return Err(Verdict::TooLarge);
    }
    if !shared.store.has_room() {
        shared.store.reject(Rejection::Fills);
        return Err(Verdict::Fills);
    }
    for name in &stored.strip {
        for value in response.headers.get_all(name) {
            ctx.cache.unshared.push((name.clone(), value.clone()));
        }
    }
    let shareable = shareable(&stored, response, stored.facts.received);
    Ok((stored, shareable))
}

/// What of a response is stored.
pub fn shareable(stored: &Stored, response: &ResponseHeader, received: Timestamp) -> ResponseHeader {
    let mut shareable = response.clone();
    shareable.remove_header(&TRANSFER_ENCODING);
    for name in &stored.strip {
        shareable.remove_header(name);
    }
    date(&mut shareable, received);
    shareable
}

/// RFC 9110 §6.6.1: a response without Date gets the time of its arrival for one.
fn date(response: &mut ResponseHeader, received: Timestamp) {
    if !response.headers.contains_key(DATE) {
        let _ = response.insert_header(DATE, http_cache::http_date(received));
    }
}

/// A HEAD about something stored has been answered (RFC 9111 §4.3.5): what is stored takes the answer's fields over, or
/// is stale from now on if they show that it is no longer what a GET would get.
fn head_answered(shared: &Shared, session: &Session, response: &ResponseHeader, ctx: &Context) {
    let Some(old) = session.cache.maybe_cache_meta() else { return };
    let Some(record) = old.extensions().get::<Record>() else { return };
    let (status, now) = (old.response_header().status, Timestamp::from(SystemTime::now()));
    if response.status != StatusCode::OK || status != StatusCode::OK {
        return;
    }
    let updated = match http_cache::merge_head(old.headers(), &response.headers) {
        Some(merged) => judge(session, ctx, status, &merged).ok().and_then(|stored| {
            let response = built(status, &merged, &stored)?;
            let mut meta = meta_of(&stored.facts, old.provenance(), response);
            meta.extensions_mut().insert(Record {
                facts: stored.facts,
                began: ctx.cache.began,
                url: ctx.cache.url_mark,
                ..record.clone()
            });
            Some(meta)
        }),
        None => {
            let mut meta = meta_of(&record.facts.expired_at(now), old.provenance(), old.response_header_copy());
            meta.extensions_mut().insert(Record { facts: record.facts.expired_at(now), ..record.clone() });
            Some(meta)
        }
    };
    if let Some(mut updated) = updated {
        if let Some(variance) = old.variance() {
            updated.set_variance(variance);
        }
        shared.store.freshen(&ObjectKey::of(session.cache.cache_key()), &updated);
    }
}

/// A stored response that a 304 has confirmed, with the fields of the 304 (RFC 9111 §4.3.4).
fn freshened(
    shared: &Shared,
    session: &Session,
    ctx: &mut Context,
    update: &ResponseHeader,
) -> Result<(Stored, ResponseHeader), Verdict> {
    let Some(old) = session.cache.maybe_cache_meta() else { return Err(Verdict::OtherResource) };
    let facts = old.extensions().get::<Record>().map(|record| record.facts);
    let old = old.response_header();
    if !http_cache::update_applies(&old.headers, &update.headers) {
        let mut fields = old.headers.clone();
        if let Some(facts) = facts {
            fields.insert(AGE, facts.age_seconds(SystemTime::now().into()).into());
        }
        // The next request asks without a condition, or this would go on for ever.
        shared.store.memory().remove(&ObjectKey::of(session.cache.cache_key()));
        ctx.cache.confirmed = Some(Box::new(fields));
        return Err(Verdict::OtherResource);
    }
    let merged = http_cache::merge_304(&old.headers, &update.headers);
    let verdict = judge(session, ctx, old.status, &merged);
    let strip = verdict.as_ref().map(|stored| stored.strip.as_slice()).unwrap_or_default();
    for (name, value) in &update.headers {
        if name == SET_COOKIE || strip.contains(name) {
            ctx.cache.unshared.push((name.clone(), value.clone()));
        }
    }
    match verdict {
        Ok(stored) => {
            let response = built(old.status, &merged, &stored).ok_or(Verdict::OtherResource)?;
            Ok((stored, response))
        }
        Err(why) => {
            ctx.cache.confirmed = Some(Box::new(merged));
            Err(Verdict::Rule(why))
        }
    }
}

fn built(status: StatusCode, fields: &HeaderMap, stored: &Stored) -> Option<ResponseHeader> {
    let mut response = ResponseHeader::build_no_case(status, Some(fields.len() + 1)).ok()?;
    for (name, value) in fields.iter().filter(|(name, _)| !stored.strip.contains(name)) {
        let _ = response.append_header(name.clone(), value.clone());
    }
    date(&mut response, stored.facts.received);
    Some(response)
}

fn judge(session: &Session, ctx: &Context, status: StatusCode, headers: &HeaderMap) -> Result<Stored, NotStored> {
    let (Some(request), header) = (ctx.request.as_ref(), session.req_header()) else {
        return Err(NotStored::Method);
    };
    let Some(policy) = request.cache_policy() else { return Err(NotStored::Method) };
    let received = Timestamp::from(SystemTime::now());
    // The origin was asked by GET even for a HEAD, so that the answer can be stored.
    let facts =
        RequestFacts::new(&Method::GET, &header.headers, &request.directives, ctx.upstream.sent.unwrap_or(received));
    http_cache::storability(&facts, status, headers, policy, received)
}

/// Which object it is, and of when (see [`Record`]).
pub struct Identity {
    pub id: u64,
    pub began: u64,
    pub asked: Timestamp,
    pub url: Option<UrlMark>,
}

/// `key`: its text.
pub fn meta(key: &[u8], stored: &Stored, response: ResponseHeader, of: Identity) -> CacheMeta {
    let Identity { id, began, asked, url } = of;
    let mut meta = meta_of(&stored.facts, SystemTime::now(), response);
    let key = Bytes::copy_from_slice(key);
    meta.extensions_mut().insert(Record { facts: stored.facts, key, id, began, asked, url });
    meta
}

/// The facts of what is about to be served.
pub fn facts(session: &Session) -> Option<Facts> {
    Some(session.cache.maybe_cache_meta()?.extensions().get::<Record>()?.facts)
}

/// Whether a stale response may be served: for a background refresh (`None`) or because the origin failed.
pub fn may_serve_stale(shared: &Shared, session: &Session, ctx: &mut Context, failure: Option<&Error>) -> bool {
    let Some(facts) = facts(session) else { return false };
    let directives = ctx.request.as_ref().map(|r| r.directives).unwrap_or_default();
    match failure {
        None => ctx.cache.stale_while_revalidate,
        Some(e) => {
            let upstream = matches!(e.esource(), pingora::ErrorSource::Upstream);
            let may = upstream && facts.stale_if_error_allowed(&directives, Timestamp::from(SystemTime::now()));
            ctx.cache.stale_if_error |= may;
            if let (true, Some((key, _))) = (may, ctx.request.as_ref().and_then(|r| r.key.as_ref())) {
                let variance = session.cache.maybe_cache_meta().and_then(CacheMeta::variance);
                shared.store.failures().mark(&of_variant(key.hash, variance), shared.millis(Instant::now()));
            }
            if let (true, ErrorType::HTTPStatus(status)) = (may, e.etype())
                && let Ok(status) = StatusCode::from_u16(*status)
            {
                // The response goes no further, so this is all that is ever seen of it.
                upstream::answered(status, ctx);
            }
            may
        }
    }
}

/// Whether the condition of the client's own request is met (RFC 9110 §13.2).
pub fn not_modified(session: &Session, head: &ResponseHeader, ctx: &mut Context) -> bool {
    let Some(facts) = facts(session) else { return false };
    let request = session.req_header();
    let (status, stored, modified) = (head.status, &head.headers, facts.last_modified);
    let met = http_cache::not_modified(&request.method, &request.headers, status, stored, modified, ctx.now);
    ctx.reply.no_body |= met;
    met
}
