//! Heads of responses, and what they say of their bodies and of the connection (RFC 9112 §2.2, §4 to §6, §9.3).

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use httparse::{Header, ParserConfig, Response, Status};
use memchr::{memchr, memchr_iter};

use super::super::message::{BodyLength, RequestHead, ResponseHead, WireError};
use crate::origin::failure::FailureKind;

/// In bytes, from the status line to the empty line.
const MAX_HEAD: usize = 256 * 1024;
/// As many as are read of the clients' requests, and as Pingora reads.
const MAX_FIELDS: usize = 256;
/// Empty lines that are borne before a status line: some servers end the last body with one too many.
const MAX_EMPTY_LINES: usize = 4;
const START: &[u8] = b"HTTP/1.";

/// What of a request says how its response is to be read.
pub(super) struct Asked {
    method: Method,
    wire: Bytes,
}

impl Asked {
    pub(super) fn by(head: &RequestHead) -> Asked {
        Asked { method: head.method.clone(), wire: head.wire.clone() }
    }

    fn is_upgrade(&self) -> bool {
        let mut lines = memchr_iter(b'\n', &self.wire).filter_map(|end| self.wire.get(end + 1..));
        lines.any(|line| line.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"upgrade:")))
    }
}

/// Finds where a head ends, however it comes: each byte is looked at once.
#[derive(Default)]
pub(super) struct Finder {
    empty_lines: usize,
    /// Where the line begins whose end has not come.
    line: usize,
    seen: usize,
    /// A line ended in a line feed alone, which RFC 9112 §2.2 allows to bear.
    is_bare: bool,
}

/// A head's bytes.
pub(super) struct Found {
    bytes: Bytes,
    is_bare: bool,
}

impl Finder {
    /// Takes the next head, once it is whole.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<Option<Found>, WireError> {
        if self.line == 0 {
            self.skip_empty_lines(input)?;
            // What is no HTTP may never send an empty line: it is told by its first bytes.
            let is_start = input.iter().zip(START).all(|(came, due)| came == due);
            if !is_start && !matches!(**input, [b'\r']) {
                return Err(invalid("what came is no HTTP/1.1"));
            }
        }
        while let Some(at) = input.get(self.seen..).and_then(|rest| memchr(b'\n', rest)) {
            let end = self.seen + at;
            let line = input.get(self.line..end).unwrap_or_default();
            self.is_bare |= !line.ends_with(b"\r");
            let is_empty = matches!(line, b"" | b"\r");
            self.line = end + 1;
            self.seen = end + 1;
            if self.seen > MAX_HEAD {
                return Err(too_large());
            }
            if is_empty {
                let found = Found { bytes: input.split_to(end + 1).freeze(), is_bare: self.is_bare };
                *self = Finder::default();
                return Ok(Some(found));
            }
        }
        self.seen = input.len();
        if self.seen > MAX_HEAD { Err(too_large()) } else { Ok(None) }
    }

    fn skip_empty_lines(&mut self, input: &mut BytesMut) -> Result<(), WireError> {
        while input.starts_with(b"\r\n") {
            input.advance(2);
            self.seen = 0;
            self.empty_lines += 1;
            if self.empty_lines > MAX_EMPTY_LINES {
                return Err(invalid("empty lines instead of a response"));
            }
        }
        Ok(())
    }
}

/// A head that has been read.
pub(super) struct Read {
    pub(super) head: ResponseHead,
    /// No further head belongs to the response.
    pub(super) is_final: bool,
    /// The connection speaks another protocol from here on.
    pub(super) switches: bool,
    /// The connection may carry another request after this response.
    pub(super) keeps: bool,
}

/// Reads a head.
///
/// # Errors
/// `Invalid`: it is none, or changes the protocol unasked.
pub(super) fn read(found: Found, asked: &Asked) -> Result<Read, WireError> {
    let Found { bytes, is_bare } = found;
    let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_FIELDS];
    let mut response = Response::new(&mut []);
    // Neither folded lines nor spaces before a colon: RFC 9112 §5.1 and §5.2 leave it to a gateway to refuse them.
    match ParserConfig::default().parse_response_with_uninit_headers(&mut response, &bytes, &mut fields) {
        Ok(Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(invalid("a head that ends twice")),
        Err(httparse::Error::TooManyHeaders) => return Err(invalid(format!("more than {MAX_FIELDS} header fields"))),
        Err(error) => return Err(invalid(format!("a malformed head: {error}"))),
    }
    let (Some(status @ 100..=999), Some(minor)) = (response.code, response.version) else {
        return Err(invalid("a status that is none"));
    };
    let said = Said::of(response.headers);
    let wire = is_bare.then(|| rewritten(&response, status, minor));
    let mut verdict = said.verdict(status, minor, &asked.method);
    if status == 101 && (minor == 0 || !asked.is_upgrade()) {
        return Err(invalid("a 101 to a request that asked for no other protocol"));
    }
    let switches = status == 101;
    if switches {
        verdict = Verdict { body: BodyLength::UntilClose, keeps: false, suspicious: false };
    }
    let Verdict { body, keeps, suspicious } = verdict;
    Ok(Read {
        head: ResponseHead { status, wire: wire.unwrap_or(bytes), body, suspicious },
        is_final: status >= 200 || switches,
        switches,
        keeps,
    })
}

/// What fields say about the message's end.
struct Said {
    length: Length,
    coding: Coding,
    close: bool,
    keep_alive: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    Unsaid,
    Is(u64),
    /// None, or several.
    Wrong,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    Unsaid,
    Chunked,
    /// Or chunked more than once.
    Other,
}

struct Verdict {
    body: BodyLength,
    keeps: bool,
    suspicious: bool,
}

impl Said {
    fn of(fields: &[Header<'_>]) -> Said {
        let mut said = Said { length: Length::Unsaid, coding: Coding::Unsaid, close: false, keep_alive: false };
        for Header { name, value } in fields {
            if name.eq_ignore_ascii_case("content-length") {
                said.add_length(value);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                let is_plain = said.coding == Coding::Unsaid && value.eq_ignore_ascii_case(b"chunked");
                said.coding = if is_plain { Coding::Chunked } else { Coding::Other };
            } else if name.eq_ignore_ascii_case("connection") {
                for option in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    said.close |= option.eq_ignore_ascii_case(b"close");
                    said.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
        }
        said
    }

    /// RFC 9112 §6.3: a list of equal lengths is one.
    fn add_length(&mut self, value: &[u8]) {
        for one in value.split(|b| *b == b',') {
            self.length = match (self.length, number(one)) {
                (Length::Unsaid, Some(length)) => Length::Is(length),
                (Length::Is(before), Some(length)) if before == length => Length::Is(length),
                _ => Length::Wrong,
            };
        }
    }

    /// RFC 9112 §6.3. What is not plain ends with the connection at the latest; whether it is a response at all is for
    /// others to say, by the same fields.
    fn verdict(&self, status: u16, minor: u8, method: &Method) -> Verdict {
        let (is_coded, is_interim) = (self.coding != Coding::Unsaid, status < 200);
        let has_length = self.length != Length::Unsaid;
        let mut suspicious = self.length == Length::Wrong || is_coded && has_length;
        // RFC 9112 §9.3; of HTTP/1.0 it has to be said.
        let mut keeps = !self.close && (minor > 0 || self.keep_alive);
        let body = if is_interim || status == 204 {
            // A body may come all the same, and would be taken for the next response.
            suspicious |= is_coded || !matches!(self.length, Length::Unsaid | Length::Is(0));
            // The connection is as the final response says.
            keeps |= is_interim;
            BodyLength::None
        } else if *method == Method::HEAD || status == 304 {
            BodyLength::None
        } else {
            match (self.coding, self.length) {
                (Coding::Chunked, _) if minor > 0 => BodyLength::Chunked,
                (Coding::Chunked | Coding::Other, _) => {
                    suspicious = true;
                    BodyLength::UntilClose
                }
                (Coding::Unsaid, Length::Is(0)) => BodyLength::None,
                (Coding::Unsaid, Length::Is(length)) => BodyLength::Known(length),
                (Coding::Unsaid, Length::Unsaid | Length::Wrong) => BodyLength::UntilClose,
            }
        };
        keeps &= !suspicious && body != BodyLength::UntilClose;
        Verdict { body, keeps, suspicious }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let digits = digits.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The same head with lines that end as they should: what one reads out of it, everybody does.
fn rewritten(response: &Response<'_, '_>, status: u16, minor: u8) -> Bytes {
    let mut wire = format!("HTTP/1.{minor} {status:03} {}\r\n", response.reason.unwrap_or_default()).into_bytes();
    for Header { name, value } in response.headers.iter() {
        wire.extend_from_slice(name.as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"\r\n");
    wire.into()
}

fn too_large() -> WireError {
    invalid("header section too large")
}

fn invalid(why: impl Into<String>) -> WireError {
    WireError::new(FailureKind::Invalid, why)
}
