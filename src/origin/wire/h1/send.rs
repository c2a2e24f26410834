//! Requests on their way out: the head, and the body in its framing (RFC 9112 §6, §7.1).

use std::io::{self, IoSlice, Write};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::AsyncWrite;

use super::super::message::{BodyLength, RequestHead, WireError};
use crate::origin::failure::FailureKind;

const CHUNK_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const CHUNK_END_AND_LAST: &[u8] = b"\r\n0\r\n\r\n";

/// What of a request is not out yet. It keeps its place between any two bytes.
#[derive(Default)]
pub(super) struct Outgoing {
    head: Bytes,
    /// After the head.
    framing: Framing,
    body: Body,
    /// The last chunk with the fields behind it, where there are any.
    trailers: Bytes,
    /// The body's end is out, or in `framing`.
    is_ended: bool,
    /// What has been written may still be held by the connection's own layers.
    is_unflushed: bool,
    has_failed: bool,
}

#[derive(Clone, Copy, Default)]
enum Body {
    #[default]
    None,
    /// So many bytes are still to come.
    Known(u64),
    /// So many bytes are still to come of the chunk whose size has been said; 0: none has been.
    Chunks(u64),
    /// Another protocol's data.
    Raw,
}

impl Outgoing {
    /// Begins a request.
    pub(super) fn start(&mut self, head: &RequestHead) {
        let body = match head.body {
            BodyLength::None | BodyLength::Known(0) => Body::None,
            BodyLength::Known(length) => Body::Known(length),
            BodyLength::Chunked | BodyLength::UntilClose => Body::Chunks(0),
        };
        let is_ended = matches!(body, Body::None);
        *self = Outgoing { head: head.wire.clone(), body, is_ended, ..Outgoing::default() };
    }

    /// The fields behind the body, if that goes in chunks (§7.1.2).
    pub(super) fn set_trailers(&mut self, trailers: &HeaderMap) {
        if !matches!(self.body, Body::Chunks(_)) || trailers.is_empty() {
            return;
        }
        let mut section = BytesMut::with_capacity(128);
        section.put_slice(b"0\r\n");
        for (name, value) in trailers {
            section.put_slice(name.as_str().as_bytes());
            section.put_slice(b": ");
            section.put_slice(value.as_bytes());
            section.put_slice(b"\r\n");
        }
        section.put_slice(b"\r\n");
        self.trailers = section.freeze();
    }

    /// What follows is another protocol's.
    pub(super) fn switch(&mut self) {
        self.body = Body::Raw;
        self.is_ended = false;
    }

    /// All of the request is out.
    pub(super) fn is_done(&self) -> bool {
        self.is_ended && !self.has_failed && !self.is_unflushed && self.head.is_empty() && self.framing.is_empty()
    }

    /// Sends what there is without further data.
    pub(super) fn poll_flush<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WireError>> {
        if self.head.is_empty() && self.framing.is_empty() && !self.is_unflushed {
            return Poll::Ready(Ok(()));
        }
        self.poll_all(io, cx, &mut Bytes::new(), false)
    }

    /// Sends `data`, and the body's end.
    pub(super) fn poll_send<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), WireError>> {
        if let Err(error) = self.check(data.len() as u64, end) {
            self.has_failed = true;
            return Poll::Ready(Err(error));
        }
        self.poll_all(io, cx, data, end)
    }

    /// RFC 9112 §6.2: neither more nor less than was announced.
    fn check(&self, length: u64, end: bool) -> Result<(), WireError> {
        let why = match self.body {
            Body::Known(left) if length > left => "the request's body is longer than it says",
            Body::Known(left) if end && length < left => "the request's body is shorter than it says",
            Body::Chunks(left) if end && length < left => "a chunk of the request's body is shorter than it says",
            Body::None if length > 0 => "the request has no body",
            _ if self.is_ended && length > 0 => "the request's body has ended",
            _ => return Ok(()),
        };
        Err(WireError::new(FailureKind::Other, why))
    }

    fn poll_all<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), WireError>> {
        if self.has_failed {
            return Poll::Ready(Err(WireError::new(FailureKind::Reset, "the request could not be sent")));
        }
        let sent = ready!(self.poll_write(io, cx, data, end));
        Poll::Ready(sent.map_err(|error| {
            self.has_failed = true;
            WireError::io("sending the request", &error)
        }))
    }

    fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        end: bool,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Body::Chunks(left @ 0) = &mut self.body
                && !data.is_empty()
                && self.framing.is_empty()
            {
                *left = data.len() as u64;
                self.framing = Framing::size(*left);
            }
            let part = self.part_of(data);
            if self.head.is_empty() && self.framing.is_empty() && part == 0 {
                if !end || mem::replace(&mut self.is_ended, true) {
                    break;
                }
                match self.body {
                    // Nothing of the head is left: what comes last may have its place.
                    Body::Chunks(_) if !self.trailers.is_empty() => self.head = mem::take(&mut self.trailers),
                    Body::Chunks(_) => self.framing = Framing::fixed(LAST_CHUNK),
                    Body::None | Body::Known(_) | Body::Raw => break,
                }
            }
            let tail = match self.body {
                Body::Chunks(left) if part > 0 && part as u64 == left => {
                    match end && part == data.len() && self.trailers.is_empty() {
                        true => CHUNK_END_AND_LAST,
                        false => CHUNK_END,
                    }
                }
                _ => &[],
            };
            let written = ready!(self.poll_parts(io, cx, data.get(..part).unwrap_or_default(), tail))?;
            self.advance(written, data, part, tail);
        }
        if self.is_unflushed {
            ready!(Pin::new(&mut *io).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        if let (Body::Raw, true) = (self.body, end) {
            ready!(Pin::new(io).poll_shutdown(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// How many bytes of `data` may follow what is to be written before them.
    fn part_of(&self, data: &Bytes) -> usize {
        match self.body {
            Body::None => 0,
            Body::Known(left) | Body::Chunks(left) => usize::try_from(left).unwrap_or(usize::MAX).min(data.len()),
            Body::Raw => data.len(),
        }
    }

    fn poll_parts<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        data: &[u8],
        tail: &[u8],
    ) -> Poll<io::Result<usize>> {
        let parts = [&*self.head, self.framing.bytes(), data, tail];
        // A writer without vectors takes the first: none of them may be empty.
        let mut slices = [IoSlice::new(&[]); 4];
        let mut count = 0;
        for (slot, part) in slices.iter_mut().zip(parts.into_iter().filter(|part| !part.is_empty())) {
            *slot = IoSlice::new(part);
            count += 1;
        }
        let written = ready!(Pin::new(io).poll_write_vectored(cx, slices.get(..count).unwrap_or_default()))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.is_unflushed = true;
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, written: usize, data: &mut Bytes, part: usize, tail: &'static [u8]) {
        let of_head = written.min(self.head.len());
        self.head.advance(of_head);
        let of_framing = (written - of_head).min(self.framing.bytes().len());
        self.framing.advance(of_framing);
        let of_data = (written - of_head - of_framing).min(part);
        data.advance(of_data);
        if let Body::Known(left) | Body::Chunks(left) = &mut self.body {
            *left -= of_data as u64;
        }
        if let Body::Known(0) = self.body {
            self.is_ended = true;
        }
        // The tail belongs to the data: once all of that is out, it has to follow, whatever comes next.
        if !tail.is_empty() && of_data == part {
            let of_tail = written - of_head - of_framing - of_data;
            self.framing = Framing::fixed(tail.get(of_tail..).unwrap_or_default());
            self.is_ended |= tail == CHUNK_END_AND_LAST;
        }
    }
}

/// A few bytes between those of the body.
#[derive(Default)]
struct Framing {
    /// A size in hexadecimal (16 digits at most) and a line end.
    bytes: [u8; 18],
    from: usize,
    to: usize,
}

impl Framing {
    fn size(size: u64) -> Framing {
        let mut framing = Framing::default();
        let room = framing.bytes.len();
        let mut rest = &mut framing.bytes[..];
        // It cannot fail: there is room for the largest.
        let _ = write!(rest, "{size:x}\r\n");
        let left = rest.len();
        framing.to = room - left;
        framing
    }

    /// `bytes`: at most 18.
    fn fixed(bytes: &[u8]) -> Framing {
        let mut framing = Framing::default();
        for (slot, byte) in framing.bytes.iter_mut().zip(bytes) {
            *slot = *byte;
            framing.to += 1;
        }
        framing
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(self.from..self.to).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    fn advance(&mut self, by: usize) {
        self.from = (self.from + by).min(self.to);
    }
}
