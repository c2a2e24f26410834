//! Interim responses (1xx, RFC 9110 §15.2): 103 with what a client may fetch meanwhile, 100 to one that waits to send.
//!
//! Pingora would pass them on as it does a response, but one that comes in a read with the head of a response that is to
//! be stored never gets to the client. So they are sent as the origin's are seen, and Pingora sends none but the 100 that
//! a client of HTTP/1.1 expects. None is ever stored.

use http::header::EXPECT;
use http::{StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::context::Context;
use super::link;
use crate::store::write_field;

/// Interim responses to one request, and bytes of them: far more than any page has a use for. What goes beyond is dropped,
/// since nothing slows an origin down that never stops sending them to a client that takes none.
const MAX: (u32, usize) = (16, 64 * 1024);

/// In the extensions of a head: it is to be sent over HTTP/2, now.
#[derive(Clone, Copy, Debug)]
pub struct Now;

/// Sends the head of an interim response to the client. Any other head is none of its business.
pub async fn send(session: &mut Session, head: &ResponseHeader, ctx: &mut Context) {
    if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    if is_pingoras(session, head) || link::has_answered(session) || !is_within_bounds(head, ctx) {
        return;
    }
    let Some(stream) = session.downstream_session.as_custom_mut() else {
        // RFC 9110 §15.2: none to a client of HTTP/1.0.
        if session.req_header().version == Version::HTTP_11
            && let Some(connection) = link::connection(session)
        {
            connection.interim(&wire(head));
        }
        return;
    };
    let mut head = Box::new(head.clone());
    head.extensions_mut().insert(Now);
    // A client that is gone is noticed by whoever sends it the final response.
    let _ = stream.write_response_header(head, false).await;
}

/// Whether it is a 100 that a client of HTTP/1 waits for: that is sent by Pingora's session, as its own rule has it.
pub fn is_pingoras(session: &Session, head: &ResponseHeader) -> bool {
    let request = session.req_header();
    head.status == StatusCode::CONTINUE && request.version == Version::HTTP_11 && expects(request)
}

/// Whether a client may wait for a 100 before it sends its body (RFC 9110 §10.1.1).
pub fn expects(request: &RequestHeader) -> bool {
    request.headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn is_within_bounds(head: &ResponseHeader, ctx: &mut Context) -> bool {
    let fields: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let (heads, bytes) = &mut ctx.reply.interim;
    (*heads, *bytes) = (heads.saturating_add(1), bytes.saturating_add(32 + fields));
    *heads <= MAX.0 && *bytes <= MAX.1
}

fn wire(head: &ResponseHeader) -> Vec<u8> {
    let mut wire = Vec::with_capacity(256);
    wire.extend_from_slice(b"HTTP/1.1 ");
    wire.extend_from_slice(head.status.as_str().as_bytes());
    wire.push(b' ');
    wire.extend_from_slice(head.status.canonical_reason().unwrap_or("").as_bytes());
    wire.extend_from_slice(b"\r\n");
    for (name, value) in &head.headers {
        write_field(&mut wire, name.as_str(), value.as_bytes());
    }
    wire.extend_from_slice(b"\r\n");
    wire
}
