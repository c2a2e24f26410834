//! A request as Pingora writes it to a connection: one head, and a body framed as the head says.

use std::io;

use bytes::{Bytes, BytesMut};
use http::Method;

use super::upload::Feed;
use crate::origin::wire::{BodyLength, RequestHead};

/// More than any head that the edge accepts and adds to.
const HEAD_MAX: usize = 2 * 1024 * 1024;

/// Fields in it.
const FIELDS_MAX: usize = 512;

/// What of a request has been written.
#[derive(Debug, Default)]
pub(super) struct Request {
    head: BytesMut,
    body: Body,
}

#[derive(Debug, Default)]
enum Body {
    #[default]
    None,
    Known(u64),
    Chunked(Chunk),
}

/// Where in a body in chunks one is. Pingora writes no extensions and no trailers.
#[derive(Debug)]
enum Chunk {
    /// In the line that says the next chunk's size.
    Size(u64),
    /// In a chunk, with so many bytes to come.
    Data(u64),
    /// In the line end behind a chunk, or in what follows the last one.
    Ends { last: bool },
}

impl Request {
    /// More of the head; how much of `buf` is, and the head once it is complete.
    ///
    /// # Errors
    /// It is no head.
    pub(super) fn head(&mut self, buf: &[u8]) -> io::Result<(usize, Option<RequestHead>)> {
        const END: &[u8] = b"\r\n\r\n";
        let before = self.head.len();
        self.head.extend_from_slice(buf);
        let from = before.saturating_sub(END.len() - 1);
        let Some(end) = memchr::memmem::find(&self.head[from..], END).map(|at| from + at + END.len()) else {
            if self.head.len() > HEAD_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a request's head without an end"));
            }
            return Ok((buf.len(), None));
        };
        let wire = self.head.split_to(end).freeze();
        self.head = BytesMut::new();
        let (method, body) = parse(&wire)?;
        self.body = match body {
            BodyLength::Known(length) => Body::Known(length),
            BodyLength::Chunked => Body::Chunked(Chunk::Size(0)),
            BodyLength::None | BodyLength::UntilClose => Body::None,
        };
        Ok((end - before, Some(RequestHead { method, wire, body })))
    }

    /// More of the body, which goes into `feed` without its framing.
    ///
    /// # Errors
    /// It is not framed as the head says.
    pub(super) fn body(&mut self, mut buf: &[u8], mut feed: Option<&mut Feed>) -> io::Result<()> {
        while !buf.is_empty() {
            let some = match &mut self.body {
                // Pingora writes nothing behind the end.
                Body::None => return Ok(()),
                Body::Known(left) => {
                    let some = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                    *left -= some as u64;
                    some
                }
                Body::Chunked(chunk) => match chunk.next(buf)? {
                    Step::Data(some) => some,
                    Step::Framing(some) => {
                        buf = &buf[some..];
                        continue;
                    }
                },
            };
            if let Some(feed) = &mut feed {
                feed.push(Bytes::copy_from_slice(&buf[..some]));
            }
            if let Body::Known(0) = self.body {
                self.body = Body::None;
                feed.iter_mut().for_each(|feed| feed.end(None));
            }
            buf = &buf[some..];
        }
        if let Body::Chunked(Chunk::Ends { last: true }) = self.body {
            self.body = Body::None;
            feed.iter_mut().for_each(|feed| feed.end(None));
        }
        Ok(())
    }
}

enum Step {
    Data(usize),
    Framing(usize),
}

impl Chunk {
    fn next(&mut self, buf: &[u8]) -> io::Result<Step> {
        let Some(first) = buf.first() else { return Ok(Step::Framing(0)) };
        match self {
            Chunk::Data(left) => {
                let some = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                *left -= some as u64;
                if *left == 0 {
                    *self = Chunk::Ends { last: false };
                }
                Ok(Step::Data(some))
            }
            Chunk::Size(size) => {
                match (first, char::from(*first).to_digit(16)) {
                    (_, Some(digit)) => {
                        let grown = size.checked_mul(16).and_then(|size| size.checked_add(u64::from(digit)));
                        *size = grown.ok_or_else(bad_chunk)?;
                    }
                    (b'\r', _) => {}
                    (b'\n', _) if *size == 0 => *self = Chunk::Ends { last: true },
                    (b'\n', _) => *self = Chunk::Data(*size),
                    _ => return Err(bad_chunk()),
                }
                Ok(Step::Framing(1))
            }
            Chunk::Ends { last } => {
                match first {
                    b'\r' => {}
                    b'\n' if !*last => *self = Chunk::Size(0),
                    b'\n' => {}
                    _ => return Err(bad_chunk()),
                }
                Ok(Step::Framing(1))
            }
        }
    }
}

fn bad_chunk() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a chunk that is none")
}

/// The method, and how long the body is.
fn parse(wire: &[u8]) -> io::Result<(Method, BodyLength)> {
    let bad = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(wire).map_err(|_| bad("a request's head that is none"))?;
    let method = request.method.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    let method = method.ok_or_else(|| bad("a request without a method"))?;
    let mut body = BodyLength::None;
    for field in request.headers.iter() {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok((method, BodyLength::Chunked));
        }
        if field.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(field.value).ok().and_then(|length| length.trim().parse().ok());
            body = match length.ok_or_else(|| bad("a length that is none"))? {
                0 => BodyLength::None,
                length => BodyLength::Known(length),
            };
        }
    }
    Ok((method, body))
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::super::upload::upload;
    use super::*;

    /// What comes out where a request is written in pieces of these sizes: the head, the body, and whether it has ended.
    fn written(text: &[u8], cuts: &[usize]) -> io::Result<(Option<RequestHead>, Vec<u8>, bool)> {
        let (mut request, mut head) = (Request::default(), None);
        let (mut feed, mut upload) = upload();
        let (mut rest, mut cuts) = (text, cuts.iter().cycle());
        while !rest.is_empty() {
            let some = cuts.next().map_or(rest.len(), |cut| (*cut).clamp(1, rest.len()));
            let mut piece = &rest[..some];
            rest = &rest[some..];
            if head.is_none() {
                let (taken, found) = request.head(piece)?;
                (piece, head) = (&piece[taken..], found);
            }
            request.body(piece, Some(&mut feed))?;
        }
        let mut body = Vec::new();
        loop {
            match upload.poll_next(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(piece)) => body.extend_from_slice(&piece),
                Poll::Ready(None) => return Ok((head, body, true)),
                Poll::Pending => return Ok((head, body, false)),
            }
        }
    }

    fn chunked(pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut text = b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            text.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
            text.extend_from_slice(piece);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"0\r\n\r\n");
        text
    }

    #[test]
    fn the_head_says_how_long_the_body_is() {
        for (fields, length) in [
            ("", BodyLength::None),
            ("Content-Length: 0\r\n", BodyLength::None),
            ("content-length: 17\r\n", BodyLength::Known(17)),
            ("Transfer-Encoding: chunked\r\n", BodyLength::Chunked),
        ] {
            let text = format!("POST /a?b HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let (head, body, _) = written(text.as_bytes(), &[]).unwrap();
            let head = head.unwrap();
            assert_eq!((head.method, head.body, body.len()), (Method::POST, length, 0), "{fields}");
            assert_eq!(head.wire, text.as_bytes());
        }
        assert!(written(b"nonsense\r\n\r\n", &[]).is_err());
        assert!(written(b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", &[]).is_err());
    }

    #[test]
    fn a_body_that_is_not_all_there_has_not_ended() {
        let whole = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        assert!(!written(&whole[..whole.len() - 1], &[]).unwrap().2);
        let (_, body, ended) = written(whole, &[]).unwrap();
        assert_eq!((body.as_slice(), ended), (&b"abc"[..], true));
        let whole = chunked(&[b"abc".to_vec()]);
        assert!(!written(&whole[..whole.len() - 5], &[]).unwrap().2);
    }

    proptest! {
        #[test]
        fn chunks_come_out_as_they_went_in(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6),
            cuts in proptest::collection::vec(1usize..80, 1..8),
        ) {
            let (_, body, ended) = written(&chunked(&pieces), &cuts).unwrap();
            prop_assert_eq!(body, pieces.concat());
            prop_assert!(ended);
        }

        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..200), cuts in proptest::collection::vec(1usize..30, 1..4)) {
            let _ = written(&text, &cuts);
            let mut chunks = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            chunks.extend_from_slice(&text);
            let _ = written(&chunks, &cuts);
        }
    }
}
