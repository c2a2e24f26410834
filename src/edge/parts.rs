//! What is sent of a stored response: all of it, a part, or its head alone.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::header::{AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora::Result;
use pingora::http::ResponseHeader;
use smallvec::{SmallVec, smallvec};

use super::context::Context;
use super::{guards, trace};
use crate::http_cache::{self, Policy, Selection};
use crate::store::{Object, write_field};

/// What is sent of an object.
pub enum Part {
    Whole,
    NotModified,
    Range(Range<u64>),
    Ranges(Vec<Range<u64>>, String),
    Unsatisfiable,
}

/// What a request wants of an object.
pub fn part(object: &Object, method: &Method, request: &HeaderMap, ctx: &Context) -> Part {
    let (head, length) = (&object.head, object.body.len());
    let (status, stored) = (head.response.status, &head.response.headers);
    match http_cache::select(method, request, status, stored, &head.record.facts, length, ctx.now) {
        Selection::Whole => Part::Whole,
        Selection::NotModified => Part::NotModified,
        Selection::Range(range) => Part::Range(range),
        Selection::Ranges(ranges) => Part::Ranges(ranges, format!("foreland-{}", ctx.id)),
        Selection::Unsatisfiable => Part::Unsatisfiable,
    }
}

pub fn status(object: &Object, part: &Part) -> StatusCode {
    match part {
        Part::Whole => object.head.response.status,
        Part::NotModified => StatusCode::NOT_MODIFIED,
        Part::Range(_) | Part::Ranges(..) => StatusCode::PARTIAL_CONTENT,
        Part::Unsatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
    }
}

/// What is sent of a body, in order.
pub enum Piece {
    /// What frames the parts of a multipart response.
    Text(Bytes),
    Range(Range<u64>),
}

/// The content of a response, and its length in bytes.
pub fn pieces(object: &Object, part: &Part) -> (SmallVec<[Piece; 1]>, u64) {
    let range = match part {
        Part::NotModified | Part::Unsatisfiable => 0..0,
        Part::Whole => 0..object.body.len(),
        Part::Range(range) => range.clone(),
        Part::Ranges(ranges, boundary) => {
            let pieces = multipart(object, ranges, boundary);
            let length = pieces.iter().map(|piece| match piece {
                Piece::Text(text) => text.len() as u64,
                Piece::Range(range) => range.end - range.start,
            });
            let length = length.sum();
            return (pieces, length);
        }
    };
    let length = range.end - range.start;
    (if length > 0 { smallvec![Piece::Range(range)] } else { SmallVec::new() }, length)
}

/// RFC 9110 §14.6: `multipart/byteranges`.
fn multipart(object: &Object, ranges: &[Range<u64>], boundary: &str) -> SmallVec<[Piece; 1]> {
    let content_type = object.head.response.headers.get(CONTENT_TYPE);
    let mut pieces = SmallVec::new();
    for range in ranges {
        let mut text = BytesMut::from(format!("\r\n--{boundary}\r\n").as_bytes());
        if let Some(content_type) = content_type {
            text.extend_from_slice(b"Content-Type: ");
            text.extend_from_slice(content_type.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        let content_range = content_range(Some(range), object.body.len());
        text.extend_from_slice(format!("Content-Range: {content_range}\r\n\r\n").as_bytes());
        pieces.push(Piece::Text(text.freeze()));
        pieces.push(Piece::Range(range.clone()));
    }
    pieces.push(Piece::Text(format!("\r\n--{boundary}--\r\n").into()));
    pieces
}

/// The value of Content-Range: for a part, or for none (RFC 9110 §14.4).
pub fn content_range(range: Option<&Range<u64>>, len: u64) -> String {
    match range {
        Some(range) => format!("bytes {}-{}/{len}", range.start, range.end - 1),
        None => format!("bytes */{len}"),
    }
}

/// The fields of the stored response that go with a part of it.
fn goes_with(part: &Part, name: &HeaderName) -> bool {
    if name == AGE || name == CONTENT_LENGTH {
        return false;
    }
    match part {
        Part::Whole | Part::Range(_) => true,
        Part::Ranges(..) => name != CONTENT_TYPE,
        // RFC 9110 §15.4.5: no representation metadata but what helps a cache.
        Part::NotModified => !name.as_str().starts_with("content-") || name == http::header::CONTENT_LOCATION,
        Part::Unsatisfiable => !name.as_str().starts_with("content-") && name != CACHE_CONTROL,
    }
}

/// The fields that are the part's own; `length`: that of its body, in bytes.
fn own_fields(object: &Object, part: &Part, length: u64) -> Vec<(HeaderName, String)> {
    let len = object.body.len();
    match part {
        Part::Whole | Part::NotModified => Vec::new(),
        Part::Range(range) => {
            vec![(CONTENT_RANGE, content_range(Some(range), len)), (CONTENT_LENGTH, length.to_string())]
        }
        Part::Ranges(_, boundary) => vec![
            (CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}")),
            (CONTENT_LENGTH, length.to_string()),
        ],
        Part::Unsatisfiable => {
            vec![(CONTENT_RANGE, content_range(None, len)), (CONTENT_LENGTH, "0".to_owned())]
        }
    }
}

/// What of the stored fields is kept from clients.
#[derive(Clone, Copy)]
struct Hiding<'a> {
    /// The policy that hides some.
    policy: Option<&'a Policy>,
    /// Strict-Transport-Security is the edge's own, and there is the origin's: it has been stored under other settings.
    transport: bool,
}

impl Hiding<'_> {
    fn nothing(self) -> bool {
        self.policy.is_none() && !self.transport
    }

    fn hides(self, name: &HeaderName) -> bool {
        self.policy.is_some_and(|policy| policy.hides(name)) || (self.transport && name == STRICT_TRANSPORT_SECURITY)
    }
}

fn hiding<'a>(object: &Object, ctx: &'a Context) -> Hiding<'a> {
    Hiding {
        policy: ctx.request.as_ref().and_then(|request| request.cache_policy()).filter(|policy| policy.strip_tags),
        transport: guards::has_hsts(ctx) && object.head.response.headers.contains_key(STRICT_TRANSPORT_SECURITY),
    }
}

/// The stored fields that a client is sent with a part.
fn shown<'a>(
    object: &'a Object,
    part: &'a Part,
    hiding: Hiding<'a>,
) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
    object.head.response.headers.iter().filter(move |(name, _)| goes_with(part, name) && !hiding.hides(name))
}

/// Status line and fields for HTTP/1.1, up to Age.
pub fn write_head(wire: &mut Vec<u8>, object: &Object, part: &Part, length: u64, ctx: &Context) {
    let hiding = hiding(object, ctx);
    if let (Part::Whole, true) = (part, hiding.nothing()) {
        wire.extend_from_slice(&object.wire);
    } else {
        let status = status(object, part);
        wire.extend_from_slice(b"HTTP/1.1 ");
        wire.extend_from_slice(status.as_str().as_bytes());
        wire.push(b' ');
        wire.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
        wire.extend_from_slice(b"\r\n");
        for (name, value) in shown(object, part, hiding) {
            write_field(wire, name.as_str(), value.as_bytes());
        }
        for (name, value) in own_fields(object, part, length) {
            write_field(wire, name.as_str(), value.as_bytes());
        }
        if let Part::Whole = part
            && status != StatusCode::NO_CONTENT
        {
            let mut digits = itoa::Buffer::new();
            write_field(wire, CONTENT_LENGTH.as_str(), digits.format(object.body.len()).as_bytes());
        }
    }
    wire.extend_from_slice(b"Age: ");
    let mut digits = itoa::Buffer::new();
    wire.extend_from_slice(digits.format(object.head.record.facts.age_seconds(ctx.now)).as_bytes());
    wire.extend_from_slice(b"\r\n");
}

/// The same for HTTP/2, and for connections that Pingora frames.
pub fn head(object: &Object, part: &Part, length: u64, ctx: &Context) -> Result<ResponseHeader> {
    let stored = &object.head.response;
    let mut head = ResponseHeader::build_no_case(status(object, part), Some(stored.headers.len() + 4))?;
    for (name, value) in shown(object, part, hiding(object, ctx)) {
        head.append_header(name.clone(), value.clone())?;
    }
    for (name, value) in own_fields(object, part, length) {
        head.insert_header(name, value)?;
    }
    if let Part::Whole = part
        && stored.status != StatusCode::NO_CONTENT
    {
        head.insert_header(CONTENT_LENGTH, object.body.len())?;
    }
    head.insert_header(AGE, object.head.record.facts.age_seconds(ctx.now))?;
    trace::add_cache_status(&mut head, ctx)?;
    Ok(head)
}
