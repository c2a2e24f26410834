//! Interim responses (1xx, RFC 9110 §15.2): 100 to a client that waits to send, 103 with what it may fetch meanwhile.
//!
//! Pingora passes them on as it does a response, but one that comes in a read with the head of a response that is to be
//! stored never gets to the client. So they are sent as the origin's are seen, and the copies that come by the other way
//! are not.

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

/// In the extensions of a head: it is to be sent, now.
#[derive(Clone, Copy, Debug)]
pub struct Now;

/// Sends the head of an interim response to a client of HTTP/2. Any other head, and any other client, is none of its
/// business.
pub async fn send(session: &mut Session, head: &ResponseHeader) {
    if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let Some(stream) = session.downstream_session.as_custom_mut() else { return };
    let mut head = Box::new(head.clone());
    head.extensions_mut().insert(Now);
    // A client that is gone is noticed by whoever sends it the final response.
    let _ = stream.write_response_header(head, false).await;
}
