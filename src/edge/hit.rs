//! The hot path: a request that the memory tier can answer, answered without Pingora's cache machinery.
//!
//! Nothing is decoded and next to nothing allocated: the head was written in wire form when the object was stored,
//! and leaves by one system call with the body it lies next to.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use super::respond::{Answer, respond};
use super::state::Shared;
use super::{caching, link, trace};
use crate::http_cache::{self, Outcome, Reuse, Selection};
use crate::store::{Object, ObjectKey, write_field};

/// What is sent of an object.
enum Part {
    Whole,
    NotModified,
    Range(Range<usize>),
    Ranges(Vec<Range<usize>>, String),
    Unsatisfiable,
}

/// Answers from the memory tier if that is all it takes; `false`: the request goes on.
///
/// # Errors
/// The client has gone.
pub async fn answer(shared: &Shared, session: &mut Session, ctx: &mut Context) -> Result<bool> {
    let Some(request) = &ctx.request else { return Ok(false) };
    let Some((key, _)) = &request.key else { return Ok(false) };
    let header = session.req_header();
    if !http_cache::is_cached_method(&header.method) || session.is_upgrade_req() {
        return Ok(false);
    }
    let found = find(shared, ObjectKey::primary(key.hash), &header.headers);
    let Some(object) = found.filter(|object| shared.store.is_usable(&object.head.record)) else {
        return Ok(false);
    };
    let facts = &object.head.record.facts;
    let stale = match http_cache::reuse(facts, &request.directives, ctx.now) {
        Reuse::Fresh => false,
        Reuse::Stale => true,
        Reuse::StaleWhileRevalidate | Reuse::Revalidate(_) | Reuse::OnlyIfCached => return Ok(false),
    };
    ctx.cache.outcome = if stale { Outcome::Stale } else { Outcome::Hit };
    ctx.cache.ttl = Some(facts.ttl(ctx.now));
    serve(session, ctx, &object).await?;
    Ok(true)
}

/// Answers with what the request wants of an object.
///
/// # Errors
/// The client has gone.
pub async fn serve(session: &mut Session, ctx: &mut Context, object: &Arc<Object>) -> Result<()> {
    ctx.cache.tier = "memory";
    let header = session.req_header();
    let part = part(object, &header.method, &header.headers, ctx);
    send(session, ctx, object, part).await
}

/// Answers a request that must not go to the origin, where the store has nothing for it (RFC 9111 §5.2.1.7).
pub async fn only_if_cached(session: &mut Session, ctx: &mut Context) -> Result<()> {
    let text = "The request is only for what is stored, and nothing usable is.";
    respond(session, ctx, Answer::new(StatusCode::GATEWAY_TIMEOUT, text, "only-if-cached")).await
}

/// The variant of the object that the request selects.
fn find(shared: &Shared, key: ObjectKey, request: &HeaderMap) -> Option<Arc<Object>> {
    let memory = shared.store.memory();
    let first = memory.get(&key)?;
    if first.head.variance.is_none() && !first.head.response.headers.contains_key(VARY) {
        return Some(first);
    }
    let wanted = caching::variance_of(&first.head.response.headers, request);
    if wanted == first.head.variance {
        return Some(first);
    }
    let variant = memory.get(&ObjectKey { variance: wanted, ..key })?;
    // One that is older than the first belongs to a Vary that is no longer in force.
    (variant.head.variance == wanted && variant.head.provenance >= first.head.provenance).then_some(variant)
}

fn part(object: &Object, method: &Method, request: &HeaderMap, ctx: &Context) -> Part {
    let (head, length) = (&object.head, object.body.len() as u64);
    let (status, stored) = (head.response.status, &head.response.headers);
    let to_usize = |r: Range<u64>| r.start as usize..r.end as usize;
    match http_cache::select(method, request, status, stored, &head.record.facts, length, ctx.now) {
        Selection::Whole => Part::Whole,
        Selection::NotModified => Part::NotModified,
        Selection::Range(range) => Part::Range(to_usize(range)),
        Selection::Ranges(ranges) => {
            Part::Ranges(ranges.into_iter().map(to_usize).collect(), format!("foreland-{}", ctx.id))
        }
        Selection::Unsatisfiable => Part::Unsatisfiable,
    }
}

async fn send(session: &mut Session, ctx: &mut Context, object: &Arc<Object>, part: Part) -> Result<()> {
    let bodiless = session.req_header().method == Method::HEAD;
    let body = if bodiless { Bytes::new() } else { body(object, &part) };
    ctx.reply.status = status(object, &part).as_u16();
    // Only a GET has parts, so this is the length that a part's head states.
    let length = body.len();
    ctx.reply.body_bytes = Some(length as u64);
    if session.is_body_done()
        && let Some(connection) = link::connection(session)
    {
        let kept = link::is_kept(session);
        let old = session.req_header().version == Version::HTTP_10;
        connection.reply(
            |wire| {
                write_head(wire, object, &part, length, ctx);
                trace::write_cache_status(wire, ctx);
                match (kept, old) {
                    (false, _) => wire.extend_from_slice(b"Connection: close\r\n"),
                    (true, true) => wire.extend_from_slice(b"Connection: keep-alive\r\n"),
                    (true, false) => {}
                }
                wire.extend_from_slice(b"\r\n");
            },
            body,
        );
        ctx.reply.first_byte = Some(ctx.started.elapsed());
        if ctx.cache.stale_if_error {
            // Pingora's session has begun another response.
            let sent = connection.send_out().await;
            return sent.map_err(|e| Error::because(ErrorType::WriteError, "a stale response", e).into_down());
        }
        return session.as_downstream_mut().finish_body().await;
    }
    let head = head(object, &part, length, ctx)?;
    let end = body.is_empty();
    session.write_response_header(Box::new(head), end).await?;
    ctx.reply.first_byte = Some(ctx.started.elapsed());
    if end {
        return Ok(());
    }
    session.write_response_body(Some(body), true).await
}

fn status(object: &Object, part: &Part) -> StatusCode {
    match part {
        Part::Whole => object.head.response.status,
        Part::NotModified => StatusCode::NOT_MODIFIED,
        Part::Range(_) | Part::Ranges(..) => StatusCode::PARTIAL_CONTENT,
        Part::Unsatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
    }
}

fn body(object: &Object, part: &Part) -> Bytes {
    match part {
        Part::Whole => object.body.clone(),
        Part::NotModified | Part::Unsatisfiable => Bytes::new(),
        Part::Range(range) => object.body.slice(range.clone()),
        Part::Ranges(ranges, boundary) => multipart(object, ranges, boundary),
    }
}

/// RFC 9110 §14.6: `multipart/byteranges`.
fn multipart(object: &Object, ranges: &[Range<usize>], boundary: &str) -> Bytes {
    let content_type = object.head.response.headers.get(CONTENT_TYPE);
    let mut body = BytesMut::new();
    for range in ranges {
        body.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        if let Some(content_type) = content_type {
            body.extend_from_slice(b"Content-Type: ");
            body.extend_from_slice(content_type.as_bytes());
            body.extend_from_slice(b"\r\n");
        }
        let content_range = content_range(Some(range), object.body.len());
        body.extend_from_slice(format!("Content-Range: {content_range}\r\n\r\n").as_bytes());
        body.extend_from_slice(&object.body[range.clone()]);
    }
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    body.freeze()
}

/// The value of Content-Range: for a part, or for none (RFC 9110 §14.4).
pub(super) fn content_range(range: Option<&Range<usize>>, len: usize) -> String {
    match range {
        Some(range) => format!("bytes {}-{}/{len}", range.start, range.end - 1),
        None => format!("bytes */{len}"),
    }
}

/// The fields of the stored response that go with a part of it.
fn goes_with(part: &Part, name: &HeaderName) -> bool {
    if name == AGE || name == CONTENT_LENGTH {
        return false;
    }
    match part {
        Part::Whole | Part::Range(_) => true,
        Part::Ranges(..) => name != CONTENT_TYPE,
        // RFC 9110 §15.4.5: no representation metadata but what helps a cache.
        Part::NotModified => !name.as_str().starts_with("content-") || name == http::header::CONTENT_LOCATION,
        Part::Unsatisfiable => !name.as_str().starts_with("content-") && name != CACHE_CONTROL,
    }
}

/// The fields that are the part's own; `length`: that of its body, in bytes.
fn own_fields(object: &Object, part: &Part, length: usize) -> Vec<(HeaderName, String)> {
    let len = object.body.len();
    match part {
        Part::Whole | Part::NotModified => Vec::new(),
        Part::Range(range) => {
            vec![(CONTENT_RANGE, content_range(Some(range), len)), (CONTENT_LENGTH, length.to_string())]
        }
        Part::Ranges(_, boundary) => vec![
            (CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}")),
            (CONTENT_LENGTH, length.to_string()),
        ],
        Part::Unsatisfiable => {
            vec![(CONTENT_RANGE, content_range(None, len)), (CONTENT_LENGTH, "0".to_owned())]
        }
    }
}

/// Status line and fields for HTTP/1.1, up to Age.
fn write_head(wire: &mut Vec<u8>, object: &Object, part: &Part, length: usize, ctx: &Context) {
    if let Part::Whole = part {
        wire.extend_from_slice(&object.wire);
    } else {
        let status = status(object, part);
        wire.extend_from_slice(b"HTTP/1.1 ");
        wire.extend_from_slice(status.as_str().as_bytes());
        wire.push(b' ');
        wire.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
        wire.extend_from_slice(b"\r\n");
        let stored = object.head.response.headers.iter().filter(|(name, _)| goes_with(part, name));
        for (name, value) in stored.map(|(n, v)| (n.as_str(), v.as_bytes())) {
            write_field(wire, name, value);
        }
        for (name, value) in own_fields(object, part, length) {
            write_field(wire, name.as_str(), value.as_bytes());
        }
    }
    wire.extend_from_slice(b"Age: ");
    let mut digits = itoa::Buffer::new();
    wire.extend_from_slice(digits.format(object.head.record.facts.age_seconds(ctx.now)).as_bytes());
    wire.extend_from_slice(b"\r\n");
}

/// The same for HTTP/2, and for connections that Pingora frames.
fn head(object: &Object, part: &Part, length: usize, ctx: &Context) -> Result<ResponseHeader> {
    let stored = &object.head.response;
    let mut head = ResponseHeader::build_no_case(status(object, part), Some(stored.headers.len() + 4))?;
    for (name, value) in stored.headers.iter().filter(|(name, _)| goes_with(part, name)) {
        head.append_header(name.clone(), value.clone())?;
    }
    for (name, value) in own_fields(object, part, length) {
        head.insert_header(name, value)?;
    }
    if let Part::Whole = part
        && stored.status != StatusCode::NO_CONTENT
    {
        head.insert_header(CONTENT_LENGTH, object.body.len())?;
    }
    head.insert_header(AGE, object.head.record.facts.age_seconds(ctx.now))?;
    trace::add_cache_status(&mut head, ctx)?;
    Ok(head)
}
