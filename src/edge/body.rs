//! Bodies on their way through: limits, pace, and none where none belongs.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use super::link;
use crate::config::model::Limits;

/// Sets the connection's timeouts for this request.
pub fn prepare(session: &mut Session, limits: &Limits) {
    if let Some((connection, head)) = link::http1(session) {
        let headers = &session.req_header().headers;
        let body = match headers.get(CONTENT_LENGTH) {
            _ if headers.contains_key(TRANSFER_ENCODING) => None,
            None => Some(0),
            Some(length) => length.to_str().ok().and_then(|length| length.trim().parse().ok()),
        };
        connection.request_began(head, body);
    }
    // Interim responses leave by `interim`; Pingora writes none but a 100 that the client expects.
    session.downstream_session.set_ignore_info_resp(true);
    if link::is_http2(session) {
        // The watch sees the connection, but not which of its streams waits for the client to open its window.
        session.set_write_timeout(Some(limits.write_timeout));
    }
    session.set_read_timeout(Some(limits.body_timeout));
    // A client may send its next request before it has the answer to this one (RFC 9112 §9.3.2); else it would be lost.
    session.set_pipelining_enabled(true);
}

/// Some of the request's body has come; `end`: that was all of it.
///
/// # Errors
/// It is longer than it may be: the status is 413.
pub fn received(session: &Session, data: Option<&Bytes>, end: bool, ctx: &mut Context) -> Result<()> {
    if end && let Some(connection) = link::connection(session) {
        connection.watched().body_ended();
    }
    let Some(data) = data else { return Ok(()) };
    ctx.request_bytes += data.len() as u64;
    let limit = ctx.request.as_ref().and_then(|r| r.snapshot.config.limits.body_size);
    match limit {
        Some(limit) if ctx.request_bytes > limit => {
            let context = format!("request body of more than limits.body_size, {limit} bytes");
            Err(Error::create(ErrorType::HTTPStatus(413), ErrorSource::Downstream, Some(context.into()), None))
        }
        _ => Ok(()),
    }
}

/// Some of the origin's body has come; how long to wait before more is taken.
pub fn came(session: &mut Session, data: Option<&Bytes>, ctx: &mut Context) -> Option<Duration> {
    let data = data?;
    ctx.upstream.body_bytes += data.len() as u64;
    let fill = ctx.cache.fill.as_ref()?;
    let writing = session.has_pending_downstream_tasks();
    if fill.is_oversize() {
        // What is not kept cannot be taken faster than the client takes it: from here on, writing to it comes first. A
        // write that is under way beside this must end before that: over HTTP/2, the session hands it over; over HTTP/1,
        // the connection takes the rest of it, whatever the client does, when its turn comes.
        match link::connection(session) {
            Some(connection) => connection.absorb(writing),
            None => session.set_proxy_tasks_enabled(false),
        }
        if !writing {
            session.set_proxy_tasks_enabled(false);
        }
    }
    fill.pause(writing)
}

/// The client has left in the middle of a response that is being stored. That goes on, for whoever follows it.
pub fn client_left(ctx: &Context) {
    if let Some(fill) = &ctx.cache.fill {
        fill.own_reader_left();
    }
}

/// Some of the response's body is about to leave.
pub fn leaves(data: &mut Option<Bytes>, ctx: &mut Context) {
    if ctx.reply.no_body {
        // The body of a response to HEAD, or of one that has become a 304, may still be read for the store.
        *data = None;
    }
}
