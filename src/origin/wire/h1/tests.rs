//! A server that says what a script says, and what a client makes of it.

mod receiving;
mod sending;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;
use crate::origin::wire::message::{BodyLength, RequestHead};

/// How a script ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    Reset,
    /// Nothing more comes, and the connection stays open.
    Stay,
}

/// A connection to a server that does not listen.
struct Script {
    pieces: VecDeque<Bytes>,
    end: End,
    /// Each piece is waited for.
    is_slow: bool,
    is_due: bool,
    written: Vec<u8>,
    /// How much each write takes; 0: none, ever.
    takes: usize,
    writes: usize,
    is_shut: bool,
}

impl Script {
    fn new<P: Into<Bytes>>(pieces: impl IntoIterator<Item = P>, end: End) -> Script {
        let pieces = pieces.into_iter().map(Into::into).collect();
        let (written, takes) = (Vec::new(), usize::MAX);
        Script { pieces, end, is_slow: false, is_due: false, written, takes, writes: 0, is_shut: false }
    }

    fn whole(bytes: &[u8], end: End) -> Script {
        Script::new([Bytes::copy_from_slice(bytes)], end)
    }

    fn written(&self) -> String {
        String::from_utf8_lossy(&self.written).into_owned()
    }
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.is_due = !self.is_due;
        if self.is_slow && self.is_due {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
        let end = self.end;
        match (self.pieces.front_mut(), end) {
            (Some(piece), _) => buffer.put_slice(&piece.split_to(piece.len().min(buffer.remaining()))),
            (None, End::Close) => {}
            (None, End::Reset) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            (None, End::Stay) => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.takes == 0 {
            return Poll::Pending;
        }
        let taken = self.takes.min(data.len());
        self.written.extend_from_slice(&data[..taken]);
        self.writes += 1;
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shut = true;
        Poll::Ready(Ok(()))
    }
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n";
const UPGRADE: &str = "GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";

fn request(method: Method, wire: &str, body: BodyLength) -> RequestHead {
    RequestHead { method, wire: Bytes::copy_from_slice(wire.as_bytes()), body }
}

fn get() -> RequestHead {
    request(Method::GET, GET, BodyLength::None)
}

/// A response as it was taken.
#[derive(Debug)]
struct Taken {
    interim: Vec<u16>,
    head: ResponseHead,
    body: Vec<u8>,
    trailers: Vec<String>,
    reusable: bool,
}

/// What a client makes of what a server says.
async fn take(script: Script, request: &RequestHead) -> Result<Taken, WireError> {
    let mut conn = H1Conn::new(script);
    conn.send_head(request).await?;
    receive(&mut conn).await
}

async fn receive<T: AsyncRead + AsyncWrite + Unpin>(conn: &mut H1Conn<T>) -> Result<Taken, WireError> {
    let mut interim = Vec::new();
    let head = loop {
        let head = conn.read_head().await?;
        if head.status >= 200 || head.status == 101 {
            break head;
        }
        assert_eq!(head.body, BodyLength::None);
        interim.push(head.status);
    };
    let mut body = Vec::new();
    while let Some(piece) = poll_fn(|cx| conn.poll_read_body(cx)).await? {
        assert!(!piece.is_empty());
        body.extend_from_slice(&piece);
    }
    let trailers = conn.trailers().unwrap_or_default();
    let trailers = trailers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    Ok(Taken { interim, head, body, trailers, reusable: conn.is_reusable() })
}

/// The same of a server that says `bytes` and keeps the connection open: nothing may wait for more.
async fn said(bytes: &str) -> Result<Taken, WireError> {
    let request = get();
    let taking = take(Script::whole(bytes.as_bytes(), End::Stay), &request);
    tokio::time::timeout(Duration::from_secs(10), taking).await.unwrap_or_else(|_| panic!("it waits after {bytes:?}"))
}
