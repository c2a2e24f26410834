//! From a session of Pingora's to the connection below it.

use std::net::SocketAddr;

use bytes::Bytes;
use http::StatusCode;
use pingora::protocols::http::ServerSession;
use pingora_proxy::Session;

use super::connection::Connection;

/// The connection of an HTTP/1 session. Those of HTTP/2 are behind its framing and out of reach.
pub fn connection(session: &Session) -> Option<&Connection> {
    match &*session.downstream_session {
        ServerSession::H1(session) => (**session.stream()).as_any().downcast_ref(),
        _ => None,
    }
}

/// The same with the length of the request's header section, in bytes.
pub fn http1(session: &Session) -> Option<(&Connection, usize)> {
    match &*session.downstream_session {
        ServerSession::H1(inner) => Some((connection(session)?, inner.get_headers_raw_bytes().len())),
        _ => None,
    }
}

/// Whether the client speaks HTTP/2. Of a background fetch, which has no client, this is not so.
pub fn is_http2(session: &Session) -> bool {
    // Ours: the only one that is neither Pingora's HTTP/1 nor a background fetch.
    matches!(&*session.downstream_session, ServerSession::Custom(_))
}

/// Whether the head of the final response has been written: nothing that comes before one may follow it.
pub fn has_answered(session: &Session) -> bool {
    let is_final = |status: StatusCode| !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS;
    session.response_written().is_some_and(|head| is_final(head.status))
}

/// The client's socket address.
pub fn peer(session: &Session) -> Option<SocketAddr> {
    match connection(session) {
        Some(connection) => Some(connection.peer()),
        None => session.client_addr()?.as_inet().copied(),
    }
}

/// The header section of an HTTP/1 request as it came.
pub fn raw_head(session: &Session) -> Option<Bytes> {
    match &*session.downstream_session {
        ServerSession::H1(session) => Some(session.get_headers_raw_bytes()),
        _ => None,
    }
}

/// The connection outlives this response.
pub fn is_kept(session: &Session) -> bool {
    match &*session.downstream_session {
        ServerSession::H1(session) => session.will_keepalive(),
        _ => true,
    }
}
