//! gRPC probes: `grpc.health.v1.Health/Check`.
//! <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>, over HTTP/2 as
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md> has it.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::http::{AGENT, alongside, http2, request_http2, uri};
use super::probe::reason;

/// An answer is a few bytes; more of them than these is none.
const MAX_ANSWER: usize = 4 << 10;

/// HealthCheckResponse.ServingStatus.
const SERVING: u64 = 1;

/// A call that is made again and again.
#[derive(Clone, Debug)]
pub(super) struct GrpcProbe {
    request: Request<()>,
    message: Bytes,
}

impl GrpcProbe {
    /// # Errors
    /// What of it cannot be sent.
    pub(super) fn new(service: &str, tls: bool, host: &str) -> Result<GrpcProbe, String> {
        let mut fields = HeaderMap::with_capacity(3);
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(TE, HeaderValue::from_static("trailers"));
        fields.insert(USER_AGENT, AGENT);
        let uri = uri(tls, host, "/grpc.health.v1.Health/Check")?;
        Ok(GrpcProbe { request: request_http2(&Method::POST, &uri, &fields), message: message(service)? })
    }

    /// # Errors
    /// What is wrong with the server, in few words.
    pub(super) async fn ask<T: AsyncRead + AsyncWrite + Unpin>(&self, io: T) -> Result<(), String> {
        let (sender, connection) = http2().handshake::<_, Bytes>(io).await.map_err(|e| reason(&e))?;
        let asking = async {
            let mut sender = sender.ready().await.map_err(|e| reason(&e))?;
            let (response, mut body) = sender.send_request(self.request.clone(), false).map_err(|e| reason(&e))?;
            body.send_data(self.message.clone(), true).map_err(|e| reason(&e))?;
            let (head, mut body) = response.await.map_err(|e| reason(&e))?.into_parts();
            if head.status != http::StatusCode::OK {
                return Err(format!("status {}", head.status.as_str()));
            }
            let kind = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
            if !kind.starts_with(b"application/grpc") {
                return Err(format!("an answer that is not gRPC: {}", kind.escape_ascii()));
            }
            let mut answer = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.map_err(|e| reason(&e))?;
                if answer.len() + data.len() > MAX_ANSWER {
                    return Err("an answer that is too long".to_owned());
                }
                // What has been read is given back. It cannot be too much.
                let _ = body.flow_control().release_capacity(data.len());
                answer.extend_from_slice(&data);
            }
            let trailers = body.trailers().await.map_err(|e| reason(&e))?;
            // Of a call that fails at once, the head's fields are the trailers.
            judge(&answer, trailers.as_ref().unwrap_or(&head.headers))
        };
        alongside(asking, connection).await
    }
}

/// A HealthCheckRequest, with the length that goes before each message.
fn message(service: &str) -> Result<Bytes, String> {
    let mut request = Vec::with_capacity(service.len() + 4);
    if !service.is_empty() {
        // Field 1, of a length.
        request.push(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            request.push(length as u8 | 0x80);
            length >>= 7;
        }
        request.push(length as u8);
        request.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(request.len()).map_err(|_| "the service's name is too long".to_owned())?;
    // Not compressed.
    Ok([&[0][..], &length.to_be_bytes(), &request].concat().into())
}

/// What the answer says, with the fields that have followed it.
fn judge(answer: &[u8], trailers: &HeaderMap) -> Result<(), String> {
    let status = trailers.get("grpc-status").map(HeaderValue::as_bytes);
    if status != Some(b"0") {
        let code = status.unwrap_or(b"missing").escape_ascii();
        return Err(match trailers.get("grpc-message") {
            Some(message) => format!("grpc-status {code}: {}", message.as_bytes().escape_ascii()),
            None => format!("grpc-status {code}"),
        });
    }
    let message = match answer.split_first_chunk::<5>() {
        Some(([0, length @ ..], message)) if usize::try_from(u32::from_be_bytes(*length)) == Ok(message.len()) => {
            message
        }
        _ => return Err("an answer that is not one plain message".to_owned()),
    };
    match serving_status(message) {
        Some(SERVING) => Ok(()),
        Some(0) => Err("UNKNOWN".to_owned()),
        Some(2) => Err("NOT_SERVING".to_owned()),
        Some(3) => Err("SERVICE_UNKNOWN".to_owned()),
        Some(other) => Err(format!("serving status {other}")),
        None => Err("an answer that is not a HealthCheckResponse".to_owned()),
    }
}

/// Field 1 of a HealthCheckResponse; `None`: it is none.
/// <https://protobuf.dev/programming-guides/encoding/>
fn serving_status(mut message: &[u8]) -> Option<u64> {
    // What is not sent has its default.
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let skipped = match (key >> 3, key & 7) {
            (1, 0) => {
                status = varint(&mut message)?;
                0
            }
            (0 | 1, _) => return None,
            (_, 0) => {
                varint(&mut message)?;
                0
            }
            (_, 1) => 8,
            (_, 2) => usize::try_from(varint(&mut message)?).ok()?,
            (_, 5) => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

/// Takes a number of at most ten bytes, the lowest seven bits first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for place in 0..10 {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << (7 * place);
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(status: &'static str) -> HeaderMap {
        HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))])
    }

    #[test]
    fn a_request_is_encoded() {
        assert_eq!(message("").unwrap(), &b"\0\0\0\0\0"[..]);
        assert_eq!(message("shop").unwrap(), &b"\0\0\0\0\x06\x0a\x04shop"[..]);
        let long = message(&"x".repeat(300)).unwrap();
        assert_eq!(long.get(..8), Some(&b"\0\0\0\x01\x2f\x0a\xac\x02"[..]));
        assert_eq!(long.len(), 308);
    }

    #[test]
    fn an_answer_is_judged() {
        let cases: [(&[u8], &'static str, Result<(), &str>); 14] = [
            (b"\0\0\0\0\x02\x08\x01", "0", Ok(())),
            // Fields that came later.
            (b"\0\0\0\0\x05\x10\x80\x01\x08\x01", "0", Ok(())),
            (b"\0\0\0\0\x09\x12\x02ab\x08\x01\x15\0\0\0\0", "0", Err("not one plain message")),
            (b"\0\0\0\0\x0b\x12\x02ab\x08\x01\x15\0\0\0\0", "0", Ok(())),
            (b"\0\0\0\0\0", "0", Err("UNKNOWN")),
            (b"\0\0\0\0\x02\x08\x02", "0", Err("NOT_SERVING")),
            (b"\0\0\0\0\x02\x08\x03", "0", Err("SERVICE_UNKNOWN")),
            (b"\0\0\0\0\x02\x08\x04", "0", Err("serving status 4")),
            (b"\0\0\0\0\x02\x08\x81", "0", Err("HealthCheckResponse")),
            (b"\0\0\0\0\x02\x0a\x01", "0", Err("HealthCheckResponse")),
            (b"\x01\0\0\0\x02\x08\x01", "0", Err("not one plain message")),
            (b"\0\0\0\0\x03\x08\x01", "0", Err("not one plain message")),
            (b"", "0", Err("not one plain message")),
            (b"\0\0\0\0\x02\x08\x01", "14", Err("grpc-status 14")),
        ];
        for (answer, status, expected) in cases {
            let verdict = judge(answer, &fields(status));
            match expected {
                Ok(()) => assert_eq!(verdict, Ok(()), "{}", answer.escape_ascii()),
                Err(why) => {
                    assert!(verdict.clone().unwrap_err().contains(why), "{verdict:?}: {}", answer.escape_ascii())
                }
            }
        }
        assert_eq!(judge(b"\0\0\0\0\x02\x08\x01", &HeaderMap::new()), Err("grpc-status missing".to_owned()));
        let mut unknown = fields("5");
        unknown.insert("grpc-message", HeaderValue::from_static("unknown service"));
        assert_eq!(judge(b"", &unknown), Err("grpc-status 5: unknown service".to_owned()));
    }

    proptest! {
        #[test]
        fn no_answer_is_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = judge(&bytes, &fields("0"));
            let _ = serving_status(&bytes);
        }
    }
}
