//! What a call of gRPC needs to be known by: it is a dialogue, not a request and then an answer.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use pingora_proxy::Session;

use super::context::Context;
use super::link;
use crate::config::model::OriginHttp;

/// Whether a request is a call of gRPC over HTTP/2, to an origin that may speak it: else anybody could escape the limits of
/// bodies by a word. Its two bodies are streams of messages, and either side may be silent for as long as the other is not.
pub fn is_call(session: &Session, ctx: &Context) -> bool {
    let request = session.req_header();
    request.method == Method::POST
        && is_grpc(&request.headers)
        && link::is_http2(session)
        && ctx.request.as_ref().is_some_and(|asked| {
            let origin = &asked.snapshot.config.origins[asked.policy().origin];
            match origin.http {
                OriginHttp::Http2 => true,
                OriginHttp::Auto => origin.tls.is_some(),
                OriginHttp::Http1 => false,
            }
        })
}

/// `application/grpc`, with the messages' format behind a `+` or without. Not gRPC-Web, which is ordinary HTTP.
fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let Some(kind) = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes()) else { return false };
    let (Some(begin), rest) = (kind.get(..GRPC.len()), kind.get(GRPC.len()..).unwrap_or_default()) else {
        return false;
    };
    begin.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let is = |kind: &'static str| is_grpc(&HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]));
        for grpc in
            ["application/grpc", "application/grpc+proto", "Application/gRPC; charset=x", "application/grpc ;a=b"]
        {
            assert!(is(grpc), "{grpc}");
        }
        for other in ["application/grpc-web", "application/grpcx", "application/json", "application/gr", ""] {
            assert!(!is(other), "{other}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
