//! Heads between their form in HTTP/1.1 and their fields in HTTP/2 (RFC 9113 §8.2, §8.3).

use std::borrow::Cow;
use std::fmt::Write;
use std::mem::MaybeUninit;

use bytes::{BufMut, BytesMut};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, Method, Request, StatusCode};
use httparse::{Header, Status};
use memchr::{memchr, memmem};
use smallvec::SmallVec;

use super::super::message::{BodyLength, RequestHead, ResponseHead, WireError};
use crate::origin::failure::FailureKind;

/// More than are read of a client's request: some are added on the way.
const MAX_REQUEST_FIELDS: usize = 320;
/// As in HTTP/1.1.
const MAX_RESPONSE_FIELDS: usize = 256;

/// A request as HTTP/2 has it.
///
/// # Errors
/// `Other`: HTTP/2 cannot say it.
pub(super) fn request(head: &RequestHead, is_tls: bool) -> Result<Request<()>, WireError> {
    let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_REQUEST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let (Ok(Status::Complete(_)), Some(target)) =
        (parsed.parse_with_uninit_headers(&head.wire, &mut fields), parsed.path)
    else {
        return Err(unsayable("the request's head is none"));
    };
    if head.method == Method::CONNECT {
        return Err(unsayable("a tunnel over HTTP/2"));
    }
    let options = options(parsed.headers);
    let mut map = HeaderMap::with_capacity(parsed.headers.len());
    let mut authority = None;
    for field in parsed.headers.iter() {
        let Ok(name) = HeaderName::from_bytes(field.name.as_bytes()) else {
            return Err(unsayable("a field without a name"));
        };
        if name == HOST {
            authority = Authority::try_from(field.value).ok();
        } else if name == TE {
            if accepts_trailers(field.value) {
                map.insert(TE, HeaderValue::from_static("trailers"));
            }
        } else if !is_of_connection(&name) && !options.iter().any(|o| o.eq_ignore_ascii_case(name.as_str().as_bytes()))
        {
            // A copy: the connection's table of fields would hold on to all of the head.
            let Ok(mut value) = HeaderValue::from_bytes(field.value) else {
                return Err(unsayable("a field with a value that is none"));
            };
            // Clients share the connection: what one of them knows is not to be found out by how well it compresses.
            value.set_sensitive(matches!(name, AUTHORIZATION | COOKIE | PROXY_AUTHORIZATION));
            map.append(name, value);
        }
    }
    let Some(authority) = authority else { return Err(unsayable("a Host that is none")) };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if is_tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query = Some(path(target)?);
    let Ok(uri) = Uri::from_parts(parts) else { return Err(unsayable("a target that is none")) };
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = map;
    Ok(request)
}

/// How long the body of a response is.
pub(super) fn body(status: StatusCode, fields: &HeaderMap, method: &Method, is_ended: bool) -> BodyLength {
    if is_bodiless(status, method) {
        return BodyLength::None;
    }
    match length(fields) {
        Some(0) => BodyLength::None,
        Some(length) => BodyLength::Known(length),
        None if is_ended => BodyLength::None,
        None => BodyLength::Chunked,
    }
}

/// RFC 9110 §6.4.1.
pub(super) fn is_bodiless(status: StatusCode, method: &Method) -> bool {
    *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// A response's head in the form of HTTP/1.1. `is_bodiless`: it is an interim one, or [`is_bodiless`].
///
/// # Errors
/// `Invalid`: it has no such form.
pub(super) fn response(
    status: StatusCode,
    fields: &HeaderMap,
    body: BodyLength,
    is_bodiless: bool,
) -> Result<ResponseHead, WireError> {
    // RFC 9113 §8.6.
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(invalid("a 101 over HTTP/2"));
    }
    if fields.len() >= MAX_RESPONSE_FIELDS {
        return Err(invalid("too many header fields"));
    }
    let room: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut wire = BytesMut::with_capacity(room + 96);
    // Writing to memory that grows does not fail.
    let _ = write!(wire, "HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
    for (name, value) in fields {
        if *name != CONTENT_LENGTH {
            put(&mut wire, name, value.as_bytes());
        }
    }
    // RFC 9110 §8.6: of neither of these statuses.
    let has_length = !status.is_informational() && status != StatusCode::NO_CONTENT;
    match (length(fields), body) {
        _ if !has_length => {}
        (Some(length), _) => put(&mut wire, &CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes()),
        (None, _) if is_bodiless => {}
        // In HTTP/1.1, a body would follow until the connection ends.
        (None, BodyLength::None) => put(&mut wire, &CONTENT_LENGTH, b"0"),
        (None, _) => put(&mut wire, &TRANSFER_ENCODING, b"chunked"),
    }
    wire.put_slice(b"\r\n");
    Ok(ResponseHead { status: status.as_u16(), wire: wire.freeze(), body, suspicious: false })
}

fn put(wire: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    wire.put_slice(name.as_str().as_bytes());
    wire.put_slice(b": ");
    wire.put_slice(value);
    wire.put_slice(b"\r\n");
}

/// The frames' reader has seen to it that all are equal.
fn length(fields: &HeaderMap) -> Option<u64> {
    fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What Connection names: fields of this connection alone.
fn options<'a>(fields: &[Header<'a>]) -> SmallVec<[&'a [u8]; 4]> {
    let connection = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("connection"));
    connection.flat_map(|field| field.value.split(|b| *b == b',').map(<[u8]>::trim_ascii)).collect()
}

/// RFC 9113 §8.2.2.
fn is_of_connection(name: &HeaderName) -> bool {
    *name == CONNECTION
        || *name == TRANSFER_ENCODING
        || *name == UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

fn accepts_trailers(te: &[u8]) -> bool {
    let mut codings = te.split(|b| *b == b',').filter_map(|one| one.split(|b| *b == b';').next());
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// The path and the query of a request line's target, as written. Of the absolute form, what comes before says what Host
/// says.
fn path(target: &str) -> Result<PathAndQuery, WireError> {
    let target = match target.as_bytes() {
        [b'/', ..] | b"*" => Cow::Borrowed(target),
        _ => {
            let rest = memmem::find(target.as_bytes(), b"://").and_then(|at| target.get(at + 3..)).unwrap_or_default();
            let rest = rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or("/");
            if rest.starts_with('?') { Cow::Owned(format!("/{rest}")) } else { Cow::Borrowed(rest) }
        }
    };
    // A fragment would be dropped without a word.
    if memchr(b'#', target.as_bytes()).is_none()
        && let Ok(path) = PathAndQuery::try_from(&*target)
    {
        return Ok(path);
    }
    PathAndQuery::try_from(escaped(&target)).map_err(|_| unsayable("a target that is none"))
}

/// The same target with escapes for what no URI has as it is (RFC 3986 §2), which HTTP/1.1 passes on.
fn escaped(target: &str) -> String {
    let mut escaped = String::with_capacity(target.len() + 16);
    for byte in target.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to memory that grows does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

fn unsayable(why: &str) -> WireError {
    WireError { untouched: true, ..WireError::new(FailureKind::Other, format!("HTTP/2 cannot say it: {why}")) }
}

fn invalid(why: &'static str) -> WireError {
    WireError::new(FailureKind::Invalid, why)
}
