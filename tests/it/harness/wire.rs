//! Reading HTTP/1.1 off a stream, piece by piece. Lenient where a test may want to look at something odd.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::fields::{Fields, from_latin1};

/// More than any test's header section; a bound, so that garbage ends.
const HEAD_LIMIT: usize = 1 << 20;

/// A buffered reader of messages.
pub struct Wire<R> {
    io: R,
    buffer: BytesMut,
}

/// The start line and the fields of a message.
#[derive(Clone, Debug)]
pub struct Head {
    /// The start line's parts: at most three, the last may contain spaces.
    pub start: [String; 3],
    pub fields: Fields,
}

/// How the end of a body is found, and how much of it has been read.
#[derive(Debug)]
pub enum Body {
    /// So many bytes are left.
    Length(u64),
    /// In a chunk with so many bytes left; 0 between chunks.
    Chunked(u64),
    /// Until the connection closes.
    Close,
    /// Has been read to its end.
    Done,
}

impl Body {
    /// What the fields announce; `otherwise` where they announce nothing.
    pub fn announced(fields: &Fields, otherwise: Body) -> Body {
        if fields.lists("Transfer-Encoding", "chunked") {
            return Body::Chunked(0);
        }
        match fields.get("Content-Length").map(str::parse) {
            Some(Ok(0)) => Body::Done,
            Some(Ok(length)) => Body::Length(length),
            _ => otherwise,
        }
    }
}

impl<R: AsyncRead + Unpin> Wire<R> {
    pub fn new(io: R) -> Self {
        Wire { io, buffer: BytesMut::new() }
    }

    /// The next head; `None` at the end of the stream before its first byte.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            // A lone CRLF before a request line is allowed for (RFC 9112 §2.2).
            while self.buffer.starts_with(b"\r\n") {
                self.buffer.advance(2);
            }
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(malformed("a header section without an end"));
            }
            if !self.fill().await? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(cut()) };
            }
        };
        let text = from_latin1(&self.buffer.split_to(end));
        self.buffer.advance(4);
        let mut lines = text.split("\r\n");
        let mut start = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
        let start = std::array::from_fn(|_| start.next().unwrap_or_default());
        Ok(Some(Head { start, fields: Fields::parse(lines) }))
    }

    /// The next bytes of the body, as they come; `None` at its end, with trailers in `trailers`.
    /// An end that comes too soon is an [`io::ErrorKind::UnexpectedEof`].
    pub async fn body(&mut self, body: &mut Body, trailers: &mut Fields) -> io::Result<Option<Bytes>> {
        loop {
            match body {
                Body::Done => return Ok(None),
                Body::Close => {
                    if self.buffer.is_empty() && !self.fill().await? {
                        *body = Body::Done;
                        return Ok(None);
                    }
                    return Ok(Some(self.buffer.split().freeze()));
                }
                Body::Length(left) => {
                    let piece = self.take(*left).await?;
                    *left -= piece.len() as u64;
                    if *left == 0 {
                        *body = Body::Done;
                    }
                    return Ok(Some(piece));
                }
                Body::Chunked(0) => {
                    let line = self.line().await?;
                    let size = line.split(';').next().unwrap_or_default().trim();
                    match u64::from_str_radix(size, 16).map_err(|_| malformed("a chunk size"))? {
                        0 => {
                            *trailers = self.trailers().await?;
                            *body = Body::Done;
                        }
                        size => *body = Body::Chunked(size),
                    }
                }
                Body::Chunked(left) => {
                    let piece = self.take(*left).await?;
                    *left -= piece.len() as u64;
                    if *left == 0 && !self.line().await?.is_empty() {
                        return Err(malformed("a chunk longer than its size"));
                    }
                    return Ok(Some(piece));
                }
            }
        }
    }

    /// At least one byte, whatever it is; `None` at the end of the stream.
    pub async fn raw(&mut self) -> io::Result<Option<Bytes>> {
        if self.buffer.is_empty() && !self.fill().await? {
            return Ok(None);
        }
        Ok(Some(self.buffer.split().freeze()))
    }

    async fn trailers(&mut self) -> io::Result<Fields> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(Fields::parse(lines.iter().map(String::as_str)));
            }
            lines.push(line);
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = from_latin1(&self.buffer.split_to(at));
                self.buffer.advance(2);
                return Ok(line);
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(malformed("a line without an end"));
            }
            if !self.fill().await? {
                return Err(cut());
            }
        }
    }

    /// Between 1 and `limit` bytes.
    async fn take(&mut self, limit: u64) -> io::Result<Bytes> {
        if self.buffer.is_empty() && !self.fill().await? {
            return Err(cut());
        }
        let length = usize::try_from(limit).unwrap_or(usize::MAX).min(self.buffer.len());
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(16 << 10);
        Ok(self.io.read_buf(&mut self.buffer).await? > 0)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ends inside a message")
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed: {what}"))
}
