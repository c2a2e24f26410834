//! Interim responses (1xx, RFC 9110 §15.2): 103 with what a client may fetch meanwhile, 100 to one that waits to send.
//!
//! Pingora passes them on as it does a response, but one that comes in a read with the head of a response that is to be
//! stored never gets to the client. So they are sent as the origin's are seen, and the copies that come by the other way
//! are not. None is ever stored.

use http::{StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::link;
use crate::http_cache;
use crate::store::write_field;

/// In the extensions of a head: it is to be sent over HTTP/2, now.
#[derive(Clone, Copy, Debug)]
pub struct Now;

/// Sends the head of an interim response to the client. Any other head is none of its business.
pub async fn send(session: &mut Session, head: &ResponseHeader) {
    if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let Some(stream) = session.downstream_session.as_custom_mut() else {
        // Over HTTP/1, 100 is a matter of Pingora's session, which knows whether the client expects one.
        if head.status != StatusCode::CONTINUE {
            over_http1(session, head);
        }
        return;
    };
    let mut head = Box::new(head.clone());
    head.extensions_mut().insert(Now);
    // A client that is gone is noticed by whoever sends it the final response.
    let _ = stream.write_response_header(head, false).await;
}

fn over_http1(session: &Session, head: &ResponseHeader) {
    // RFC 9110 §15.2: none to a client of HTTP/1.0.
    // Pingora takes its own copy of an earlier one for a response that has been written.
    let is_final = |head: &ResponseHeader| !head.status.is_informational();
    if session.req_header().version != Version::HTTP_11 || session.response_written().is_some_and(is_final) {
        return;
    }
    let Some(connection) = link::connection(session) else { return };
    let mut wire = Vec::with_capacity(256);
    wire.extend_from_slice(b"HTTP/1.1 ");
    wire.extend_from_slice(head.status.as_str().as_bytes());
    wire.push(b' ');
    wire.extend_from_slice(head.status.canonical_reason().unwrap_or("").as_bytes());
    wire.extend_from_slice(b"\r\n");
    let dropped = http_cache::hop_by_hop(&head.headers);
    for (name, value) in head.headers.iter().filter(|(name, _)| !dropped.contains(name)) {
        write_field(&mut wire, name.as_str(), value.as_bytes());
    }
    wire.extend_from_slice(b"\r\n");
    connection.interim(&wire);
}
