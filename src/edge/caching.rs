//! Between Pingora's cache and the caching rules: whether the cache has a part in a request, and what may be reused.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, RANGE, VARY};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};
use pingora_cache::key::HashBinary;
use pingora_cache::lock::CacheKeyLockImpl;
use pingora_cache::{CacheKey, CacheMeta, CacheOptionOverrides, ForcedFreshness, HitHandler};
use pingora_proxy::Session;

use super::context::Context;
use super::state::Shared;
use super::{hit, link, upstream};
use crate::http_cache::{self, Facts, FwdReason, Reuse, RevalidateReason, Timestamp, Variance};
use crate::store::{Expect, Followed, Looked, Object, ObjectKey, Record, Whole};

/// A waiter looks again as often as it takes where something is stored: giving up would lose it a stale object it could
/// have had.
const LOCK_RETRIES: usize = 64;

/// Where nothing is stored, it loses nothing by going to the origin beside the others. They would else be told one after
/// the other of an origin that fails each of them slowly.
const LOCK_RETRIES_OF_NOTHING: usize = 2;

/// Whether the cache has no part in the request: it must not have one, or there is nothing in it to win.
pub fn is_left_out(shared: &Shared, session: &Session, ctx: &mut Context) -> bool {
    let Some(request) = &ctx.request else { return true };
    // Where there is a policy, it is content that leaves a request without a key.
    let (method, content) = (&session.req_header().method, request.key.is_none());
    let bypass = http_cache::bypass(request.cache_policy(), method, content, session.is_upgrade_req());
    let (Some((key, _)), None) = (&request.key, bypass) else {
        ctx.cache.forwarded = Some(bypass.map_or(FwdReason::Bypass, http_cache::Bypass::fwd));
        return true;
    };
    ctx.cache.forwarded = Some(FwdReason::UriMiss);
    // Where the last answer could not be shared, waiting for the next one would be in vain. It is stored all the same
    // if it can be.
    let expected = shared.store.uncacheable().expect(&key.hash, shared.uptime());
    // A part of what is not stored is the origin's to cut out, rather than ours from the whole.
    let in_vain = match expected {
        Expect::Cacheable => false,
        Expect::Uncacheable => session.req_header().headers.contains_key(RANGE),
        Expect::Never => true,
    };
    in_vain && stored(shared, ctx, key.hash).is_none()
}

/// What is stored for the request, used or not. A refresh in the background has not looked itself.
fn stored(shared: &Shared, ctx: &Context, hash: HashBinary) -> Option<Arc<Object>> {
    ctx.cache.found.clone().or_else(|| shared.store.peek(&ObjectKey::primary(hash)))
}

/// Puts the cache in the request's way, unless it is left out.
pub fn enable(shared: &Shared, session: &mut Session, ctx: &mut Context) {
    if is_left_out(shared, session, ctx) {
        return;
    }
    let Some((request, (key, _))) = ctx.request.as_ref().and_then(|r| Some((r, r.key.as_ref()?))) else { return };
    ctx.cache.began = shared.store.ledger().head();
    let expected = shared.store.uncacheable().expect(&key.hash, shared.uptime());
    let stored = stored(shared, ctx, key.hash);
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
pub(super) fn of_users(key: HashBinary) -> HashBinary {
    key.map(|byte| !byte)
}

/// The key in Pingora's terms.
pub fn key(ctx: &Context) -> Result<CacheKey> {
    let Some((request, (key, text))) = ctx.request.as_ref().and_then(|r| Some((r, r.key.as_ref()?))) else {
        return Error::e_explain(ErrorType::InternalError, "a cached request without a key");
    };
    let mut cache_key = CacheKey::new(Vec::new(), "");
    cache_key.set_primary_bin_override(key.hash);
    let tiers = request.cache_policy().map(|policy| policy.tiers).unwrap_or_default();
    cache_key.extensions.insert(Looked { text: Bytes::copy_from_slice(text.as_bytes()), tiers });
    Ok(cache_key)
}

/// What the rules make of a stored response that was found.
pub async fn on_hit(
    shared: &Shared,
    session: &mut Session,
    ctx: &mut Context,
    meta: &CacheMeta,
    handler: &HitHandler,
    is_fresh: bool,
) -> Option<ForcedFreshness> {
    let record = meta.extensions().get::<Record>()?;
    let facts = record.facts;
    if let Some(whole) = handler.as_any().downcast_ref::<Whole>()
        && !hit::is_readable(whole.object()).await
    {
        return Some(ForcedFreshness::ForceMiss);
    }
    let directives = ctx.request.as_ref().map(|r| r.directives).unwrap_or_default();
    let now = Timestamp::from(SystemTime::now());
    ctx.cache.ttl = Some(facts.ttl(now));
    let whole = handler.as_any().downcast_ref::<Whole>();
    ctx.cache.tier = whole.map_or("memory", |whole| whole.object().body.tier());
    if let Some(whole) = whole {
        whole.object().hit();
    }
    ctx.cache.collapsed = handler.as_any().is::<Followed>();
    if ctx.cache.collapsed {
        if ctx.cache.fallback.is_none() {
            // Until the fill has ended well, what was there before is there still.
            let key = ObjectKey::of(session.cache.cache_key());
            let before = shared.store.peek(&key).and_then(|object| shared.store.usable(&key.id(), object));
            let usable = |o: &Arc<Object>| o.head.record.facts.stale_if_error_allowed(&directives, now);
            ctx.cache.fallback = before.filter(usable);
        }
        if let Some(connection) = link::connection(session) {
            connection.release_head(true);
        }
    }
    let reuse = http_cache::reuse(&facts, &directives, now);
    if let (Reuse::Revalidate(_), Some(whole)) = (reuse, whole)
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

/// The facts of what is about to be served.
pub fn facts(session: &Session) -> Option<Facts> {
    Some(session.cache.maybe_cache_meta()?.extensions().get::<Record>()?.facts)
}

/// Whether a stale response may be served: for a background refresh (`None`) or because the origin failed.
pub fn may_serve_stale(shared: &Shared, session: &mut Session, ctx: &mut Context, failure: Option<&Error>) -> bool {
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
            if may && !matches!(e.etype(), ErrorType::HTTPStatus(_)) {
                // Pingora does not keep the client's connection after a failure, other than after an answer that counts
                // as one. So the client must be told: else it would send its next request into a connection that ends.
                session.set_keepalive(None);
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
