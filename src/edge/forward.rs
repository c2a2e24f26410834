//! The request as the origin gets it: who asks for whom, by which way, and nothing that a client may not decide.

use std::fmt::Write;
use std::net::IpAddr;

use bytes::BytesMut;
use http::header::{self, HOST, HeaderName};
use http::{HeaderMap, HeaderValue};
use pingora::Result;
use pingora::http::RequestHeader;

use super::client::Client;
use crate::config::model::HostHeader;
use crate::http_cache::Rewrites;
use crate::site::Names;

/// A field that is written here: its name for looking it up, and in the letter case that it is sent in.
struct Field(HeaderName, &'static str);

static CDN_LOOP: Field = Field(HeaderName::from_static("cdn-loop"), "CDN-Loop");
static FORWARDED: Field = Field(HeaderName::from_static("forwarded"), "Forwarded");
static FORWARDED_FOR: Field = Field(HeaderName::from_static("x-forwarded-for"), "X-Forwarded-For");
static FORWARDED_HOST: Field = Field(HeaderName::from_static("x-forwarded-host"), "X-Forwarded-Host");
static FORWARDED_PROTO: Field = Field(HeaderName::from_static("x-forwarded-proto"), "X-Forwarded-Proto");
static REQUEST_ID: Field = Field(HeaderName::from_static("x-request-id"), "X-Request-Id");
static VIA: Field = Field(header::VIA, "Via");

/// What the origin is told of the request's way.
pub struct Way<'a> {
    pub client: Client,
    /// The version of HTTP that the client speaks.
    pub received: http::Version,
    /// Host and port that the client asks for, in normal form.
    pub host: &'a str,
    /// `http` or `https`: how the client came.
    pub scheme: &'static str,
    pub request_id: &'a str,
    /// How this process calls itself in CDN-Loop.
    pub cdn_id: &'a HeaderValue,
    /// Host for the origin.
    pub host_header: &'a HostHeader,
    /// The server that has been chosen, as configured.
    pub server: &'a str,
}

/// Removes the fields of these names.
pub fn drop_fields(req: &mut RequestHeader, names: impl FnOnce(&HeaderMap) -> Names) {
    for name in &names(&req.headers) {
        req.remove_header(name);
    }
}

/// Writes fields anew.
pub fn rewrite_fields(req: &mut RequestHeader, rewritten: Rewrites) {
    for (name, value) in rewritten {
        req.remove_header(&name);
        if let Some(value) = value {
            // Only one with an invalid name could fail.
            let _ = req.insert_header(name, value);
        }
    }
}

/// Makes one Cookie of several, as HTTP/2 lets a client send it in pieces (RFC 9113 §8.2.3). An origin that reads only the
/// first line would else answer another question than the one in the key.
pub fn join_cookies(req: &mut RequestHeader) {
    let mut lines = req.headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    // The bytes are those of field values, so that neither can fail.
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        let _ = req.insert_header(header::COOKIE, value);
    }
}

/// Whether a request has been here before (RFC 8586 §2).
pub fn loops(headers: &HeaderMap, cdn_id: &HeaderValue) -> bool {
    let mut members = headers.get_all(&CDN_LOOP.0).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    members.any(|member| {
        let id = member.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        id.eq_ignore_ascii_case(cdn_id.as_bytes())
    })
}

/// Writes the forwarding fields. Hop-by-hop fields are removed by Pingora's own policy before.
///
/// A field that is there is one that was let through: a trusted proxy's, or one in the key, which the origin must see as
/// the key has it.
///
/// # Errors
/// A value that is no valid field value, which only a client's own odd Host can lead to.
pub fn prepare(req: &mut RequestHeader, way: &Way<'_>) -> Result<()> {
    req.remove_header(&header::PROXY_AUTHORIZATION);
    // One allocation for all that differs from request to request. Writing to it cannot fail.
    let mut text = BytesMut::with_capacity(160);
    let _ = write!(text, "{}", way.client.peer);
    append_to_list(req, &FORWARDED_FOR, value(text.split())?)?;
    if !req.headers.contains_key(&FORWARDED_PROTO.0) {
        req.insert_header(FORWARDED_PROTO.1, HeaderValue::from_static(way.scheme))?;
    }
    if !req.headers.contains_key(&FORWARDED_HOST.0) {
        text.extend_from_slice(way.host.as_bytes());
        req.insert_header(FORWARDED_HOST.1, value(text.split())?)?;
    }
    forwarded(&mut text, way);
    append_to_list(req, &FORWARDED, value(text.split())?)?;
    append_to_list(req, &VIA, HeaderValue::from_static(via(way)))?;
    append_to_list(req, &CDN_LOOP, way.cdn_id.clone())?;
    if req.headers.get(&REQUEST_ID.0).is_none_or(|id| id.as_bytes() != way.request_id.as_bytes()) {
        text.extend_from_slice(way.request_id.as_bytes());
        req.insert_header(REQUEST_ID.1, value(text.split())?)?;
    }
    match way.host_header {
        // As it is in the key, which may not be how the client wrote it.
        HostHeader::Client => {
            if req.headers.get(HOST).is_none_or(|host| host.as_bytes() != way.host.as_bytes()) {
                text.extend_from_slice(way.host.as_bytes());
                req.insert_header(HOST, value(text.split())?)?;
            }
        }
        HostHeader::Server => req.insert_header(HOST, way.server)?,
        HostHeader::Fixed(host) => req.insert_header(HOST, host.as_str())?,
    }
    Ok(())
}

/// One member of Via (RFC 9110 §7.6.3).
pub fn via(way: &Way<'_>) -> &'static str {
    match way.received {
        http::Version::HTTP_10 => "1.0 foreland",
        http::Version::HTTP_2 => "2 foreland",
        _ => "1.1 foreland",
    }
}

/// One element of Forwarded (RFC 7239 §4).
pub fn forwarded(element: &mut BytesMut, way: &Way<'_>) {
    let _ = match way.client.peer {
        IpAddr::V4(v4) => write!(element, "for={v4}"),
        IpAddr::V6(v6) => write!(element, "for=\"[{v6}]\""),
    };
    // A host is a token unless it has a port or brackets.
    let token = way.host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let quote = if token { "" } else { "\"" };
    let _ = write!(element, ";host={quote}{}{quote};proto={}", way.host, way.scheme);
}

/// Appends a member to a list field, joining several lines into one so that an origin cannot read only the first.
fn append_to_list(req: &mut RequestHeader, field: &'static Field, member: HeaderValue) -> Result<()> {
    let Field(name, written) = field;
    if !req.headers.contains_key(name) {
        return req.insert_header(*written, member);
    }
    let mut line = BytesMut::with_capacity(128);
    for present in req.headers.get_all(name) {
        line.extend_from_slice(present.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(member.as_bytes());
    req.insert_header(*written, value(line)?)
}

fn value(text: BytesMut) -> Result<HeaderValue> {
    HeaderValue::from_maybe_shared(text.freeze())
        .map_err(|e| pingora::Error::because(pingora::ErrorType::InvalidHTTPHeader, "a forwarding field", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    static CDN_ID: HeaderValue = HeaderValue::from_static("foreland-1");

    fn way(trusted: bool) -> Way<'static> {
        Way {
            client: Client { peer: "203.0.113.9".parse().unwrap(), address: "203.0.113.9".parse().unwrap(), trusted },
            received: http::Version::HTTP_11,
            host: "a.example:8080",
            scheme: "http",
            request_id: "id1",
            cdn_id: &CDN_ID,
            host_header: &HostHeader::Client,
            server: "10.0.0.1:80",
        }
    }

    fn request(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut req = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            req.append_header(*name, *value).unwrap();
        }
        req
    }

    #[test]
    fn the_way_is_told_where_nobody_else_has_told_it() {
        let mut req = request(&[]);
        prepare(&mut req, &way(false)).unwrap();
        assert_eq!(req.headers["x-forwarded-for"], "203.0.113.9");
        assert_eq!(req.headers["x-forwarded-host"], "a.example:8080");
        assert_eq!(req.headers["x-forwarded-proto"], "http");
        assert_eq!(req.headers["forwarded"], "for=203.0.113.9;host=\"a.example:8080\";proto=http");
    }

    #[test]
    fn cookies_in_pieces_become_one() {
        // RFC 9113 §8.2.3.
        let mut req = request(&[("Cookie", "a=1"), ("X", "y"), ("Cookie", "b=2; c=3"), ("Cookie", "d")]);
        join_cookies(&mut req);
        assert_eq!(req.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3; d"]);
        let mut one = request(&[("Cookie", "a=1;b=2")]);
        join_cookies(&mut one);
        assert_eq!(one.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1;b=2"]);
    }

    #[test]
    fn what_is_in_the_key_reaches_the_origin_as_it_is_there() {
        let mut req = request(&[("X-Forwarded-Host", "x"), ("X-Forwarded-Host", "y"), ("X-Forwarded-For", "1.1.1.1")]);
        prepare(&mut req, &way(false)).unwrap();
        assert_eq!(req.headers.get_all("x-forwarded-host").iter().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(req.headers["x-forwarded-for"], "1.1.1.1, 203.0.113.9");
    }

    #[test]
    fn a_trusted_proxys_fields_are_continued() {
        let mut req = request(&[
            ("X-Forwarded-For", "1.1.1.1"),
            ("X-Forwarded-For", "2.2.2.2"),
            ("X-Forwarded-Proto", "https"),
            ("Via", "1.1 other"),
            ("CDN-Loop", "other"),
        ]);
        prepare(&mut req, &way(true)).unwrap();
        assert_eq!(req.headers["x-forwarded-for"], "1.1.1.1, 2.2.2.2, 203.0.113.9");
        assert_eq!(req.headers["x-forwarded-proto"], "https");
        assert_eq!(req.headers["via"], "1.1 other, 1.1 foreland");
        assert_eq!(req.headers["cdn-loop"], "other, foreland-1");
    }

    #[test]
    fn a_loop_is_seen_in_any_member_with_parameters() {
        let map = request(&[("CDN-Loop", "x, Foreland-1; v=2"), ("CDN-Loop", "y")]).headers.clone();
        assert!(loops(&map, &CDN_ID));
        assert!(!loops(&map, &HeaderValue::from_static("foreland")) && !loops(&HeaderMap::new(), &CDN_ID));
    }

    #[test]
    fn the_host_for_the_origin() {
        for (policy, expected) in [
            (HostHeader::Client, "a.example:8080"),
            (HostHeader::Server, "10.0.0.1:80"),
            (HostHeader::Fixed("b".into()), "b"),
        ] {
            let mut req = request(&[("Host", "A.Example.:8080")]);
            prepare(&mut req, &Way { host_header: &policy, ..way(false) }).unwrap();
            assert_eq!(req.headers["host"], expected);
        }
    }
}
