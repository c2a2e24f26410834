//! What is stale, in the place of an answer that breaks off before its first byte (RFC 5861 §4).
//!
//! Pingora serves it where the origin fails before its header section. Where that has come and the body does not, the head
//! would have left already: so it waits for the first bytes of its body wherever there is something to fall back on.

use std::time::SystemTime;

use http::StatusCode;
use http::header::CONTENT_LENGTH;
use pingora::Error;
use pingora::ErrorSource::Downstream;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::{hit, link};
use crate::http_cache::{FwdReason, Outcome, Timestamp};

/// In the extensions of a head: over HTTP/2, it waits for its body.
#[derive(Clone, Copy, Debug)]
pub struct Retained;

/// Lets the head of a response wait for the first bytes of its body, if there is something to fall back on.
pub fn retain(session: &Session, response: &mut ResponseHeader, ctx: &Context) {
    let is_empty = response.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
    if ctx.cache.fallback.is_none()
        || ctx.reply.no_body
        || is_empty
        || response.status == StatusCode::SWITCHING_PROTOCOLS
    {
        return;
    }
    match link::connection(session) {
        Some(connection) => connection.retain_head(),
        None => {
            response.extensions_mut().insert(Retained);
        }
    }
}

/// Serves what is stale, if there is something, it may be served, and the client has seen nothing of another answer.
pub async fn serve(session: &mut Session, e: &Error, ctx: &mut Context) -> bool {
    let Some(object) = ctx.cache.fallback.take().filter(|_| *e.esource() != Downstream) else { return false };
    let (facts, now) = (object.head.record.facts, Timestamp::from(SystemTime::now()));
    let directives = ctx.request.as_ref().map(|r| r.directives).unwrap_or_default();
    if !facts.stale_if_error_allowed(&directives, now) {
        return false;
    }
    let recalled = link::connection(session).is_some_and(|connection| connection.recall());
    if !recalled && link::has_answered(session) {
        return false;
    }
    ctx.cache.outcome = Outcome::Stale;
    ctx.cache.stale_if_error = true;
    ctx.cache.stored = false;
    ctx.cache.forwarded = Some(FwdReason::Stale);
    ctx.cache.ttl = Some(facts.ttl(now));
    ctx.reply.no_body = false;
    // What is left of the other answer is unknown.
    session.set_keepalive(None);
    hit::serve(session, ctx, &object).await.is_ok()
}
