//! What the client is told of the response's way: Age, Cache-Status, and nothing that is not its business.

use bytes::BytesMut;
use http::header::{AGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_cache::CachePhase;
use pingora_proxy::Session;

use super::context::Context;
use super::{affinity, caching, fallback, guards, link, pace};
use crate::http_cache::{CacheStatus, FwdReason, Handling, Outcome, Timestamp};
use crate::store::Followed;

static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Completes the head of a response that came through Pingora's cache or straight from the origin.
pub fn complete(session: &mut Session, response: &mut ResponseHeader, ctx: &mut Context) -> Result<()> {
    if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    let phase = session.cache.phase();
    ctx.cache.collapsed |= session.cache.lock_duration().is_some() && phase == CachePhase::Hit;
    ctx.cache.outcome = outcome(phase, ctx);
    if let CachePhase::Hit | CachePhase::Stale | CachePhase::StaleUpdating | CachePhase::Revalidated = phase
        && let Some(facts) = caching::facts(session)
    {
        let now = Timestamp::from(std::time::SystemTime::now());
        response.insert_header(AGE, facts.age_seconds(now))?;
        ctx.cache.ttl = Some(facts.ttl(now));
    }
    if let CachePhase::RevalidatedNoCache(_) = phase
        && let Some(fields) = ctx.cache.confirmed.take()
    {
        restore(response, &fields)?;
    }
    if let CachePhase::Miss | CachePhase::Expired | CachePhase::Revalidated | CachePhase::RevalidatedNoCache(_) = phase
    {
        for (name, value) in std::mem::take(&mut ctx.cache.unshared) {
            response.append_header(name, value)?;
        }
    }
    if let Some(policy) = ctx.request.as_ref().and_then(|request| request.cache_policy())
        && policy.strip_tags
    {
        for name in &policy.tags {
            response.remove_header(name);
        }
    }
    if let CachePhase::Miss | CachePhase::Expired = phase {
        ctx.cache.fill = session
            .cache
            .miss_body_reader()
            .and_then(|reader| Some(reader.as_any().downcast_ref::<Followed>()?.fill().clone()));
    }
    affinity::stay(response, ctx)?;
    if ctx.reply.version == Some(Version::HTTP_10) && response.headers.contains_key(TRANSFER_ENCODING) {
        // RFC 9112 §6.1: a client of HTTP/1.0 knows no chunks. The end of the connection is the end of the body.
        response.remove_header(&TRANSFER_ENCODING);
        session.set_keepalive(None);
    }
    if let Some(connection) = link::connection(session)
        && !link::has_answered(session)
    {
        connection.keep_date(response.headers.get(DATE).cloned());
    }
    guards::drop_fields(response, ctx);
    guards::add_fields(response, ctx)?;
    add_cache_status(response, ctx)?;
    ctx.reply.status = response.status.as_u16();
    ctx.reply.no_body |= session.req_header().method == Method::HEAD
        || matches!(response.status, StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT);
    fallback::retain(session, response, ctx);
    pace::begin(session, response, ctx);
    ctx.reply.first_byte.get_or_insert_with(|| ctx.started.elapsed());
    Ok(())
}

/// Gives a response the fields that it is to have. Pingora puts a few of a 304's into what is not stored any more, whether
/// the 304 is about that or not, and leaves the others out (RFC 9111 §3.2, §4.3.4).
fn restore(response: &mut ResponseHeader, fields: &HeaderMap) -> Result<()> {
    // These are of the part that is sent, if it is only one; a 304 has no content to describe (RFC 9110 §15.4.5).
    let has_content = response.status != StatusCode::NOT_MODIFIED;
    let of_the_part = |name: &HeaderName| {
        [CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE].contains(name)
            || (!has_content && name.as_str().starts_with("content-") && name != CONTENT_LOCATION)
    };
    // Those that Pingora takes over, and those that tell when it was made: of the old ones, none is true any more.
    for name in ["cache-control", "expires", "cache-tag", "cdn-cache-control", "etag", "age", "date"] {
        response.remove_header(name);
    }
    for name in fields.keys().filter(|name| !of_the_part(name)) {
        response.remove_header(name);
        for value in fields.get_all(name) {
            response.append_header(name.clone(), value.clone())?;
        }
    }
    Ok(())
}

/// Appends this cache's member to those of the caches nearer to the origin.
pub fn add_cache_status(response: &mut ResponseHeader, ctx: &Context) -> Result<()> {
    let mut line = BytesMut::with_capacity(96);
    for upstream in response.headers.get_all(&CACHE_STATUS).iter().filter(|v| !v.is_empty()) {
        line.extend_from_slice(upstream.as_bytes());
        line.extend_from_slice(b", ");
    }
    status(ctx).write(&mut line);
    let value = http::HeaderValue::from_maybe_shared(line.freeze())
        .map_err(|e| pingora::Error::because(pingora::ErrorType::InvalidHTTPHeader, "Cache-Status", e))?;
    response.insert_header(CACHE_STATUS.clone(), value)
}

/// The same as a line of an HTTP/1.1 head.
pub fn write_cache_status(wire: &mut Vec<u8>, ctx: &Context) {
    wire.extend_from_slice(b"Cache-Status: ");
    status(ctx).write(wire);
    wire.extend_from_slice(b"\r\n");
}

/// What became of the request in the cache, as Cache-Status has it.
pub fn status(ctx: &Context) -> CacheStatus<'_> {
    let cache = &ctx.cache;
    let handling = match cache.outcome {
        Outcome::Hit | Outcome::Updating => Handling::Hit,
        Outcome::Stale if !cache.stale_if_error => Handling::Hit,
        Outcome::Local if cache.forwarded.is_none() || ctx.upstream.trail().is_none() => Handling::Neither,
        _ => Handling::Fwd {
            reason: cache.forwarded.unwrap_or(FwdReason::Bypass),
            status: cache.forward_status.and_then(|status| StatusCode::from_u16(status).ok()),
            stored: cache.stored,
            collapsed: cache.collapsed,
        },
    };
    let detail = match cache.outcome {
        Outcome::Updating => Some("stale-while-revalidate"),
        Outcome::Stale if cache.stale_if_error => Some("stale-if-error"),
        Outcome::Hit | Outcome::Stale => Some(cache.tier),
        Outcome::Local => Some("local"),
        _ => cache.not_stored,
    };
    let ttl = match cache.outcome {
        Outcome::Miss | Outcome::Expired | Outcome::Revalidated if !cache.stored => None,
        Outcome::Bypass | Outcome::Local => None,
        _ => cache.ttl,
    };
    CacheStatus { handling, ttl, key: cache.shown_key.as_deref(), detail }
}

fn outcome(phase: CachePhase, ctx: &Context) -> Outcome {
    match phase {
        CachePhase::Hit if ctx.cache.stale_if_error => Outcome::Stale,
        CachePhase::Hit if ctx.cache.collapsed => Outcome::Collapsed,
        CachePhase::Hit if ctx.cache.ttl.is_some_and(|ttl| ttl < 0) => Outcome::Stale,
        CachePhase::Hit => Outcome::Hit,
        CachePhase::StaleUpdating => Outcome::Updating,
        CachePhase::Stale => Outcome::Stale,
        CachePhase::Revalidated | CachePhase::RevalidatedNoCache(_) => Outcome::Revalidated,
        CachePhase::Expired => Outcome::Expired,
        CachePhase::Miss => Outcome::Miss,
        CachePhase::Disabled(_) | CachePhase::Bypass | CachePhase::Uninit | CachePhase::CacheKey => {
            match ctx.cache.forwarded {
                None | Some(FwdReason::Bypass | FwdReason::Method) => Outcome::Bypass,
                Some(_) => Outcome::Miss,
            }
        }
    }
}
