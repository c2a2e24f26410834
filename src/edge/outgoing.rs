//! The head of a request in the form of HTTP/1.1, written in one go.
//!
//! It says what [`forward::prepare`] makes of a map of fields; a map that is cloned, grown and looked into for each of them
//! would be the largest part of what a request costs on its way past Pingora.

use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};
use http::Method;
use http::header::CONTENT_LENGTH;
use pingora::http::RequestHeader;

use super::forward::{self, Way};
use crate::config::model::HostHeader;

/// Fields that are written anew, each from all lines that there are of it.
#[derive(Default)]
struct Told<'a> {
    length: Length,
    forwarded_for: Vec<&'a [u8]>,
    forwarded: Vec<&'a [u8]>,
    via: Vec<&'a [u8]>,
    cdn_loop: Vec<&'a [u8]>,
    has_proto: bool,
    has_host: bool,
}

/// What becomes of a field.
enum Fate {
    Stays,
    /// It is between the client and the edge alone (RFC 9110 §7.6.1), or is written anew.
    Goes,
    ForwardedFor,
    Forwarded,
    Via,
    CdnLoop,
    Proto,
    Host,
}

/// How a request's body is framed, and what may be behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    /// There is none.
    #[default]
    None,
    /// In bytes; from 1.
    Known(u64),
    /// It comes in chunks; `trailed`: trailers may follow.
    Chunked { trailed: bool },
}

/// The head for the origin. `target`: what it is asked for; `trailers`: the answer may have some (RFC 9110 §10.1.4).
pub fn wire(request: &RequestHeader, target: &[u8], way: &Way<'_>, length: Length, trailers: bool) -> Bytes {
    let mut wire = BytesMut::with_capacity(1024);
    wire.put_slice(request.method.as_str().as_bytes());
    wire.put_u8(b' ');
    wire.put_slice(target);
    wire.put_slice(b" HTTP/1.1\r\n");
    let host = match way.host_header {
        HostHeader::Client => way.host,
        HostHeader::Server => way.server,
        HostHeader::Fixed(host) => host,
    };
    field(&mut wire, b"Host", host.as_bytes());
    let mut told = Told { length, ..Told::default() };
    if request.has_case() {
        for (name, value) in request.case_header_iter() {
            pass(&mut wire, &mut told, name.as_slice(), value.as_bytes());
        }
    } else {
        for (name, value) in &request.headers {
            pass(&mut wire, &mut told, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    let mut text = BytesMut::with_capacity(96);
    let _ = write!(text, "{}", way.client.peer);
    list(&mut wire, b"X-Forwarded-For", &told.forwarded_for, &text);
    if !told.has_proto {
        field(&mut wire, b"X-Forwarded-Proto", way.scheme.as_bytes());
    }
    if !told.has_host {
        field(&mut wire, b"X-Forwarded-Host", way.host.as_bytes());
    }
    text.clear();
    forward::forwarded(&mut text, way);
    list(&mut wire, b"Forwarded", &told.forwarded, &text);
    list(&mut wire, b"Via", &told.via, forward::via(way).as_bytes());
    list(&mut wire, b"CDN-Loop", &told.cdn_loop, way.cdn_id.as_bytes());
    field(&mut wire, b"X-Request-Id", way.request_id.as_bytes());
    if trailers {
        field(&mut wire, b"TE", b"trailers");
        field(&mut wire, b"Connection", b"TE");
    }
    match length {
        Length::Known(length) => field(&mut wire, b"Content-Length", itoa::Buffer::new().format(length).as_bytes()),
        Length::Chunked { .. } => field(&mut wire, b"Transfer-Encoding", b"chunked"),
        // RFC 9110 §8.6: over HTTP/2, a client need not say so.
        Length::None if has_content_mostly(&request.method) && !request.headers.contains_key(CONTENT_LENGTH) => {
            field(&mut wire, b"Content-Length", b"0");
        }
        Length::None => {}
    }
    wire.put_slice(b"\r\n");
    wire.freeze()
}

/// Whether a server expects to be told that there is no body.
fn has_content_mostly(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

fn pass<'a>(wire: &mut BytesMut, told: &mut Told<'a>, name: &[u8], value: &'a [u8]) {
    match fate(name, told.length) {
        Fate::Stays => field(wire, name, value),
        Fate::Goes => {}
        Fate::ForwardedFor => told.forwarded_for.push(value),
        Fate::Forwarded => told.forwarded.push(value),
        Fate::Via => told.via.push(value),
        Fate::CdnLoop => told.cdn_loop.push(value),
        Fate::Proto => {
            told.has_proto = true;
            field(wire, name, value);
        }
        Fate::Host => {
            told.has_host = true;
            field(wire, name, value);
        }
    }
}

fn fate(name: &[u8], length: Length) -> Fate {
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    match name.len() {
        2 if is("te") => Fate::Goes,
        3 if is("via") => Fate::Via,
        4 if is("host") => Fate::Goes,
        7 if is("upgrade") => Fate::Goes,
        7 if is("trailer") && length != (Length::Chunked { trailed: true }) => Fate::Goes,
        8 if is("cdn-loop") => Fate::CdnLoop,
        9 if is("forwarded") => Fate::Forwarded,
        10 if is("connection") || is("keep-alive") => Fate::Goes,
        12 if is("x-request-id") => Fate::Goes,
        // Written anew, once.
        14 if length != Length::None && is("content-length") => Fate::Goes,
        15 if is("x-forwarded-for") => Fate::ForwardedFor,
        16 if is("x-forwarded-host") => Fate::Host,
        16 if is("proxy-connection") => Fate::Goes,
        17 if is("x-forwarded-proto") => Fate::Proto,
        17 if is("transfer-encoding") => Fate::Goes,
        18 if is("proxy-authenticate") => Fate::Goes,
        19 if is("proxy-authorization") => Fate::Goes,
        25 if is("proxy-authentication-info") => Fate::Goes,
        _ => Fate::Stays,
    }
}

fn field(wire: &mut BytesMut, name: &[u8], value: &[u8]) {
    wire.reserve(name.len() + value.len() + 4);
    wire.put_slice(name);
    wire.put_slice(b": ");
    wire.put_slice(value);
    wire.put_slice(b"\r\n");
}

/// One line of all members: an origin cannot read only the first.
fn list(wire: &mut BytesMut, name: &[u8], present: &[&[u8]], member: &[u8]) {
    wire.put_slice(name);
    wire.put_slice(b": ");
    for line in present {
        wire.put_slice(line);
        wire.put_slice(b", ");
    }
    wire.put_slice(member);
    wire.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::super::client::Client;
    use super::*;
    use crate::http_cache;

    static CDN_ID: HeaderValue = HeaderValue::from_static("foreland-1");

    /// Names in lower case and values, in order of both, of a head.
    fn fields(wire: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut room = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut room);
        assert!(parsed.parse(wire).unwrap().is_complete());
        let mut fields: Vec<_> =
            parsed.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())).collect();
        fields.sort();
        fields
    }

    #[test]
    fn the_body_is_framed_once_and_trailers_are_asked_for() {
        let way = Way {
            client: Client { peer: [192, 0, 2, 1].into(), address: [192, 0, 2, 1].into(), trusted: false },
            received: http::Version::HTTP_2,
            host: "a.example",
            scheme: "http",
            request_id: "id1",
            cdn_id: &CDN_ID,
            host_header: &HostHeader::Client,
            server: "10.0.0.1:80",
        };
        let framing = |fields: &[(&'static str, &'static str)], length, trailers| {
            let mut request = RequestHeader::build_no_case("POST", b"/", None).unwrap();
            for (name, value) in fields {
                request.append_header(*name, *value).unwrap();
            }
            let of_framing = ["content-length", "transfer-encoding", "trailer", "te", "connection"];
            let fields = fields_of(&wire(&request, b"/", &way, length, trailers));
            fields
                .into_iter()
                .filter(|line| of_framing.iter().any(|name| line.starts_with(&format!("{name}:"))))
                .collect::<Vec<_>>()
        };
        let chunked = |trailed| Length::Chunked { trailed };
        let twice = [("content-length", "5"), ("content-length", "5"), ("trailer", "x-sum"), ("te", "gzip")];
        assert_eq!(framing(&twice, Length::Known(5), false), ["content-length: 5"]);
        assert_eq!(framing(&twice[2..], chunked(true), false), ["trailer: x-sum", "transfer-encoding: chunked"]);
        assert_eq!(framing(&twice[2..], chunked(false), false), ["transfer-encoding: chunked"]);
        assert_eq!(framing(&[], Length::None, true), ["connection: TE", "content-length: 0", "te: trailers"]);
        assert_eq!(framing(&[("content-length", "0")], Length::None, false), ["content-length: 0"]);
    }

    fn fields_of(wire: &[u8]) -> Vec<String> {
        fields(wire).into_iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(&value))).collect()
    }

    proptest! {
        #[test]
        fn it_says_what_the_map_says(
            lines in proptest::collection::vec((0usize..22, "[a-z0-9]{0,12}"), 0..12),
            host_header in 0usize..3, peer in any::<[u8; 4]>(), http2 in any::<bool>(), with_case in any::<bool>(),
        ) {
            const NAMES: [&str; 22] = [
                "Accept", "X-Forwarded-For", "X-Forwarded-Host", "X-FORWARDED-PROTO", "Forwarded", "Via", "CDN-Loop",
                "X-Request-Id", "Host", "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade",
                "Transfer-Encoding", "Proxy-Authorization", "Cookie", "Proxy-Authenticate", "Proxy-Authentication-Info",
                "x-other", "Content-Length",
            ];
            let build = if with_case { RequestHeader::build } else { RequestHeader::build_no_case };
            let mut request = build("GET", b"/a?b", None).unwrap();
            for (name, value) in &lines {
                request.append_header(NAMES[*name], value.as_str()).unwrap();
            }
            let choices = [HostHeader::Client, HostHeader::Server, HostHeader::Fixed("fixed.test".into())];
            let way = Way {
                client: Client { peer: peer.into(), address: peer.into(), trusted: false },
                received: if http2 { http::Version::HTTP_2 } else { http::Version::HTTP_11 },
                host: "a.example:8080",
                scheme: "http",
                request_id: "id1",
                cdn_id: &CDN_ID,
                host_header: &choices[host_header],
                server: "10.0.0.1:80",
            };
            let written = wire(&request, b"/a?b", &way, Length::None, false);
            prop_assert!(written.starts_with(b"GET /a?b HTTP/1.1\r\nHost: "));
            let mut prepared = request.clone();
            // Connection's options are dropped where requests are admitted, whichever way they go.
            prepared.remove_header("connection");
            for name in http_cache::hop_by_hop(&prepared.headers) {
                prepared.remove_header(&name);
            }
            forward::prepare(&mut prepared, &way).unwrap();
            let mut expected = b"GET /a?b HTTP/1.1\r\n".to_vec();
            prepared.header_to_h1_wire(&mut expected);
            expected.extend_from_slice(b"\r\n");
            prop_assert_eq!(fields(&written), fields(&expected));
        }
    }
}
