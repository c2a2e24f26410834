//! Interim responses of the origin (RFC 9110 §15.2): 102 and 103 go to the client at once, and are never stored.

use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::link;
use crate::http_cache;
use crate::store::write_field;

/// Sends an interim response to the client. Pingora would too, but loses it where it comes in one read with the final
/// response and that one is stored.
pub fn send(session: &Session, head: &ResponseHeader) {
    // RFC 9110 §15.2: none to a client of HTTP/1.0.
    if session.req_header().version != http::Version::HTTP_11 || session.response_written().is_some() {
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
