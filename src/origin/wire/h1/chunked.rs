//! Bodies in chunks (RFC 9112 §7.1).

use std::mem;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::{EMPTY_HEADER, Status};
use memchr::{memchr, memchr_iter, memmem};

use super::super::message::WireError;
use crate::origin::failure::FailureKind;

/// In bytes: a chunk's size with its extensions.
const MAX_SIZE_LINE: usize = 4 * 1024;
/// Hexadecimal digits: as many as 64 bits have.
const MAX_DIGITS: usize = 16;
/// In bytes, for all fields after the last chunk.
const MAX_TRAILERS: usize = 16 * 1024;
const MAX_TRAILER_FIELDS: usize = 64;

/// Takes chunks apart. Line ends are exact: where one reader takes a line feed alone for an end and another does not,
/// both read different bodies.
#[derive(Default)]
pub(super) struct Chunks {
    stage: Stage,
    /// Bytes of the input that have been searched for an end.
    seen: usize,
    trailers: HeaderMap,
}

#[derive(Clone, Copy, Default)]
enum Stage {
    #[default]
    Size,
    /// So many bytes are left of a chunk, at least one.
    Data(u64),
    DataEnd,
    Trailers,
    End,
}

/// What there is next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Never empty.
    Data(Bytes),
    /// More has to come.
    More,
    End,
}

impl Chunks {
    /// Takes what it can out of `input`.
    ///
    /// # Errors
    /// `Invalid`: these are no chunks.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Step, WireError> {
        loop {
            match self.stage {
                Stage::Size => {
                    let Some(size) = self.take_size(input)? else { return Ok(Step::More) };
                    self.stage = if size == 0 { Stage::Trailers } else { Stage::Data(size) };
                }
                Stage::Data(left) => {
                    if input.is_empty() {
                        return Ok(Step::More);
                    }
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let left = left - length as u64;
                    self.stage = if left == 0 { Stage::DataEnd } else { Stage::Data(left) };
                    return Ok(Step::Data(input.split_to(length).freeze()));
                }
                Stage::DataEnd => {
                    if !input.iter().zip(b"\r\n").all(|(came, due)| came == due) {
                        return Err(invalid("a chunk longer than it says"));
                    }
                    if input.len() < 2 {
                        return Ok(Step::More);
                    }
                    input.advance(2);
                    self.stage = Stage::Size;
                }
                Stage::Trailers => {
                    let Some(trailers) = self.take_trailers(input)? else { return Ok(Step::More) };
                    self.trailers = trailers;
                    self.stage = Stage::End;
                }
                Stage::End => return Ok(Step::End),
            }
        }
    }

    pub(super) fn trailers(&mut self) -> Option<HeaderMap> {
        if self.trailers.is_empty() { None } else { Some(mem::take(&mut self.trailers)) }
    }

    fn take_size(&mut self, input: &mut BytesMut) -> Result<Option<u64>, WireError> {
        if input.first().is_some_and(|first| !first.is_ascii_hexdigit()) {
            return Err(invalid("a chunk without a size"));
        }
        let Some(at) = input.get(self.seen..).and_then(|rest| memchr(b'\n', rest)) else {
            self.seen = input.len();
            return if self.seen > MAX_SIZE_LINE { Err(invalid("a chunk's size line too long")) } else { Ok(None) };
        };
        let line = input.split_to(self.seen + at + 1);
        self.seen = 0;
        if line.len() > MAX_SIZE_LINE {
            return Err(invalid("a chunk's size line too long"));
        }
        let Some(line) = line.strip_suffix(b"\r\n") else { return Err(invalid("a chunk's size without a line end")) };
        match size(line) {
            Some(size) => Ok(Some(size)),
            None => Err(invalid("a chunk's size that is none")),
        }
    }

    fn take_trailers(&mut self, input: &mut BytesMut) -> Result<Option<HeaderMap>, WireError> {
        if input.starts_with(b"\r\n") {
            input.advance(2);
            return Ok(Some(HeaderMap::new()));
        }
        // The end may have come in part the last time.
        let from = self.seen.saturating_sub(3);
        let Some(at) = input.get(from..).and_then(|rest| memmem::find(rest, b"\r\n\r\n")) else {
            self.seen = input.len();
            return if self.seen > MAX_TRAILERS { Err(invalid("trailers too large")) } else { Ok(None) };
        };
        let section = input.split_to(from + at + 4);
        self.seen = 0;
        if section.len() > MAX_TRAILERS {
            return Err(invalid("trailers too large"));
        }
        match fields(&section) {
            Some(fields) => Ok(Some(fields)),
            None => Err(invalid("malformed trailers")),
        }
    }
}

/// The size in a line without its end. What comes after a semicolon is nobody's concern here (§7.1.1), but for what a
/// line cannot hold.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at_checked(digits)?;
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return None;
    }
    // Some servers pad it, which everybody reads alike.
    let mut rest = rest.iter().skip_while(|b| matches!(b, b' ' | b'\t'));
    if rest.next().is_some_and(|b| *b != b';') || rest.any(|b| b.is_ascii_control() && *b != b'\t') {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn fields(section: &[u8]) -> Option<HeaderMap> {
    let is_exact = memchr_iter(b'\n', section).all(|at| section.get(..at).is_some_and(|line| line.ends_with(b"\r")));
    if !is_exact {
        return None;
    }
    let mut parsed = [EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let Ok(Status::Complete((length, parsed))) = httparse::parse_headers(section, &mut parsed) else { return None };
    if length != section.len() {
        return None;
    }
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        fields.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(fields)
}

fn invalid(why: &'static str) -> WireError {
    WireError::new(FailureKind::Invalid, why)
}
