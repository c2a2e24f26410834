//! The hot path: a request that the store can answer, answered without Pingora's cache machinery.
//!
//! From memory, nothing is decoded and next to nothing allocated: the head was written in wire form when the object was
//! stored, and leaves by one system call with the body it lies next to. From the disk, the kernel sends the body itself
//! where it can.

use std::sync::Arc;

use bytes::Bytes;
use http::header::VARY;
use http::{HeaderMap, Method, Version};
use pingora::{Error, ErrorType, Result};
use pingora_cache::key::HashBinary;
use pingora_proxy::Session;

use super::connection::Connection;
use super::context::Context;
use super::parts::{self, Part, Piece};
use super::respond::{Answer, respond};
use super::state::Shared;
use super::{caching, link, pace, trace};
use crate::http_cache::{self, Outcome, Reuse, Tiers};
use crate::store::{Body, Head, Object, ObjectKey, StoredFile, Whole};

/// Bytes of a body on the disk up to which they are read and sent with the head, rather than sent by the kernel.
const COPIED: u64 = 16 * 1024;

/// Answers from the store if that is all it takes; `false`: the request goes on.
///
/// # Errors
/// The client has gone, or the disk has failed in the middle of the body.
pub async fn answer(shared: &Shared, session: &mut Session, ctx: &mut Context) -> Result<bool> {
    let Some(request) = &ctx.request else { return Ok(false) };
    let Some((key, text)) = &request.key else { return Ok(false) };
    let header = session.req_header();
    if !http_cache::is_cached_method(&header.method) || session.is_upgrade_req() {
        return Ok(false);
    }
    let key = ObjectKey::primary(key.hash);
    let found = match in_memory(shared, key, &header.headers) {
        None if shared.store.disks().is_empty() => None,
        None => {
            let tiers = request.cache_policy().map(|policy| policy.tiers).unwrap_or_default();
            anywhere(shared, key, text.as_bytes(), tiers, &header.headers).await
        }
        found => found,
    };
    let Some(object) = found else { return Ok(false) };
    let facts = &object.head.record.facts;
    let stale = match http_cache::reuse(facts, &request.directives, ctx.now) {
        Reuse::Fresh => false,
        Reuse::Stale => true,
        Reuse::StaleWhileRevalidate | Reuse::Revalidate(_) | Reuse::OnlyIfCached => {
            ctx.cache.found = Some(object);
            return Ok(false);
        }
    };
    let part = parts::part(&object, &header.method, &header.headers, ctx);
    if header.method != Method::HEAD && !is_there(&object, &part).await {
        return Ok(false);
    }
    ctx.cache.outcome = if stale { Outcome::Stale } else { Outcome::Hit };
    ctx.cache.ttl = Some(facts.ttl(ctx.now));
    object.hit();
    send(session, ctx, &object, part).await?;
    Ok(true)
}

/// Answers with what the request wants of an object.
///
/// # Errors
/// The client has gone, or the disk has failed.
pub async fn serve(session: &mut Session, ctx: &mut Context, object: &Arc<Object>) -> Result<()> {
    let header = session.req_header();
    let part = parts::part(object, &header.method, &header.headers, ctx);
    if header.method != Method::HEAD && !is_there(object, &part).await {
        return Error::e_explain(ErrorType::ReadError, "what is stored cannot be read");
    }
    send(session, ctx, object, part).await
}

/// Answers a request that must not go to the origin, where the store has nothing for it (RFC 9111 §5.2.1.7).
pub async fn only_if_cached(session: &mut Session, ctx: &mut Context) -> Result<()> {
    let text = "The request is only for what is stored, and nothing usable is.";
    respond(session, ctx, Answer::new(http::StatusCode::GATEWAY_TIMEOUT, text, "only-if-cached")).await
}

/// The variant that a request selects.
pub(super) enum Variant {
    /// The one that was looked at.
    This,
    /// Another one, by its hash.
    Other(Option<HashBinary>),
}

pub(super) fn variant(first: &Head, request: &HeaderMap) -> Variant {
    if first.variance.is_none() && !first.response.headers.contains_key(VARY) {
        return Variant::This;
    }
    match caching::variance_of(&first.response.headers, request) {
        wanted if wanted == first.variance => Variant::This,
        wanted => Variant::Other(wanted),
    }
}

/// Whether a further variant is of the same family as the first: one that is older belongs to a Vary that is no longer
/// in force.
pub(super) fn belongs(variant: &Head, wanted: Option<HashBinary>, first: &Head) -> bool {
    variant.variance == wanted && variant.provenance >= first.provenance
}

/// The variant of the object that the request selects, from memory.
fn in_memory(shared: &Shared, key: ObjectKey, request: &HeaderMap) -> Option<Arc<Object>> {
    let (store, id) = (shared.store, key.id());
    let first = store.usable(&id, store.memory().get(&id)?)?;
    let Variant::Other(wanted) = variant(&first.head, request) else { return Some(first) };
    let id = ObjectKey { variance: wanted, ..key }.id();
    let other = store.usable(&id, store.memory().get(&id)?)?;
    belongs(&other.head, wanted, &first.head).then_some(other)
}

/// The same, from whatever tier has it.
async fn anywhere(
    shared: &Shared,
    key: ObjectKey,
    text: &[u8],
    tiers: Tiers,
    request: &HeaderMap,
) -> Option<Arc<Object>> {
    let first = shared.store.find(key, text, tiers).await?;
    let Variant::Other(wanted) = variant(&first.head, request) else { return Some(first) };
    let other = shared.store.find(ObjectKey { variance: wanted, ..key }, text, tiers).await?;
    belongs(&other.head, wanted, &first.head).then_some(other)
}

/// The same for what Pingora is about to serve whole.
pub async fn is_readable(object: &Object) -> bool {
    is_there(object, &Part::Whole).await
}

/// Whether the first bytes of what is to be sent can be had. What turns out to be damaged after the head has left ends
/// the connection; before, it is a miss.
async fn is_there(object: &Object, part: &Part) -> bool {
    let Body::Disk(file) = &object.body else { return true };
    let range = match part {
        Part::NotModified | Part::Unsatisfiable => return true,
        Part::Whole => 0..file.len(),
        Part::Range(range) => range.clone(),
        Part::Ranges(ranges, _) => match ranges.first() {
            Some(range) => range.clone(),
            None => return true,
        },
    };
    file.ready(range).await.is_ok()
}

async fn send(session: &mut Session, ctx: &mut Context, object: &Arc<Object>, part: Part) -> Result<()> {
    ctx.cache.tier = object.body.tier();
    let (pieces, mut length) = parts::pieces(object, &part);
    let bodiless = session.req_header().method == Method::HEAD;
    if bodiless {
        length = 0;
    }
    ctx.reply.status = parts::status(object, &part).as_u16();
    // Only a GET has parts, so this is the length that a part's head states.
    ctx.reply.body_bytes = Some(length);
    let pieces = if bodiless { &[][..] } else { &pieces[..] };
    if session.is_body_done()
        && let Some(connection) = link::connection(session)
    {
        let kept = link::is_kept(session);
        let old = session.req_header().version == Version::HTTP_10;
        let whole = in_one(object, pieces, length).await?;
        let in_one = whole.is_some();
        pace::begin_on(connection, ctx);
        connection.reply(
            |wire| {
                parts::write_head(wire, object, &part, length, ctx);
                trace::write_cache_status(wire, ctx);
                match (kept, old) {
                    (false, _) => wire.extend_from_slice(b"Connection: close\r\n"),
                    (true, true) => wire.extend_from_slice(b"Connection: keep-alive\r\n"),
                    (true, false) => {}
                }
                wire.extend_from_slice(b"\r\n");
            },
            whole.unwrap_or_default(),
        );
        ctx.reply.first_byte = Some(ctx.started.elapsed());
        if !in_one && let Body::Disk(file) = &object.body {
            ctx.reply.begun = true;
            let mut sent = 0;
            let outcome = send_pieces(connection, object, file, pieces, &mut sent).await;
            ctx.reply.body_bytes = Some(sent);
            outcome?;
        }
        if ctx.cache.stale_if_error {
            // Pingora's session has begun another response.
            let sent = connection.send_out().await;
            return sent.map_err(|e| Error::because(ErrorType::WriteError, "a stale response", e).into_down());
        }
        return session.as_downstream_mut().finish_body().await;
    }
    let mut head = parts::head(object, &part, length, ctx)?;
    pace::begin(session, &mut head, ctx);
    session.write_response_header(Box::new(head), length == 0).await?;
    ctx.reply.first_byte = Some(ctx.started.elapsed());
    let mut left = length;
    for piece in pieces {
        let mut range = match piece {
            Piece::Text(text) => {
                left -= text.len() as u64;
                session.write_response_body(Some(text.clone()), left == 0).await?;
                continue;
            }
            Piece::Range(range) => range.clone(),
        };
        while let Some(bytes) = next(object, &mut range).await? {
            left -= bytes.len() as u64;
            session.write_response_body(Some(bytes), left == 0).await?;
        }
    }
    Ok(())
}

/// What of a range is written at once where Pingora frames it: all that memory has, and a piece of what is on the disk.
async fn next(object: &Object, range: &mut std::ops::Range<u64>) -> Result<Option<Bytes>> {
    match &object.body {
        Body::Memory(bytes) if !range.is_empty() => {
            let all = std::mem::replace(range, 0..0);
            Ok(Some(bytes.slice(all.start as usize..all.end as usize)))
        }
        Body::Memory(_) => Ok(None),
        Body::Disk(_) => Whole::next(object, range).await,
    }
}

/// The content in one piece, if it is in memory, or so little that it may as well be; `None`: it is in a file.
async fn in_one(object: &Object, pieces: &[Piece], length: u64) -> Result<Option<Bytes>> {
    let file = match &object.body {
        Body::Memory(bytes) => {
            let slice = |range: &std::ops::Range<u64>| bytes.slice(range.start as usize..range.end as usize);
            return Ok(Some(match pieces {
                [] => Bytes::new(),
                [Piece::Range(range)] => slice(range),
                pieces => {
                    let mut all = bytes::BytesMut::with_capacity(length as usize);
                    for piece in pieces {
                        match piece {
                            Piece::Text(text) => all.extend_from_slice(text),
                            Piece::Range(range) => all.extend_from_slice(&slice(range)),
                        }
                    }
                    all.freeze()
                }
            }));
        }
        Body::Disk(file) => file,
    };
    match pieces {
        [] => Ok(Some(Bytes::new())),
        [Piece::Range(range)] if length <= COPIED => file.read(range.clone()).await.map(Some),
        _ => Ok(None),
    }
}

/// Sends what is in a file, behind the head that waits in the connection; `sent` counts the bytes of it.
async fn send_pieces(
    connection: &Connection,
    object: &Object,
    file: &Arc<StoredFile>,
    pieces: &[Piece],
    sent: &mut u64,
) -> Result<()> {
    let gone = |e: std::io::Error| Error::because(ErrorType::WriteError, "a stored response", e).into_down();
    for piece in pieces {
        match piece {
            Piece::Text(text) => {
                connection.add(text);
                *sent += text.len() as u64;
            }
            Piece::Range(range) if connection.sends_files() => {
                let mut at = range.start;
                while at < range.end {
                    let window = file.window(at..range.end).await?;
                    let end = window.end;
                    let sending = connection.send_file(&**file, file.in_file(&window)).await;
                    sending.map_err(|e| file.not_sent(&e).unwrap_or_else(|| gone(e)))?;
                    // A client may take as fast as this gives.
                    tokio::task::yield_now().await;
                    *sent += end - at;
                    at = end;
                }
            }
            Piece::Range(range) => {
                let mut range = range.clone();
                while let Some(bytes) = Whole::next(object, &mut range).await? {
                    let len = bytes.len() as u64;
                    connection.send_bytes(bytes).await.map_err(gone)?;
                    tokio::task::yield_now().await;
                    *sent += len;
                }
            }
        }
    }
    // With TLS, what was added last may not have left.
    connection.send_out().await.map_err(gone)?;
    Ok(())
}
