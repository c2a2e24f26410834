//! An exchange as Pingora sees it: a connection to the origin.
//!
//! Pingora writes one request of HTTP/1.1 to it and reads the answer from it, whatever the server speaks. What it writes
//! is sent to a server, and to another one where the first fails; what it reads is the head as it came, and the body
//! framed as the head says. When the answer is complete, the connection looks closed to Pingora, which so keeps none: the
//! server's own is kept below.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::live::Live;
use super::request::Request;
use super::tries::Begun;
use super::upload::{Feed, upload};
use super::{Exchange, Failure};
use crate::origin::wire::{BodyLength, RequestHead, ResponseHead, WireError};

/// Pingora ends a tunnel at once if it has read the server's 101 before it has passed on that the request has no body
/// (cloudflare/pingora#946). Both are awaited by one task in random order, so a 101 that is not there at once makes the
/// order right. One read is enough; the second is for the case that the task's budget ends between the two.
const PUT_OFF: u8 = 2;

/// How long Pingora may keep an answered exchange whose end has not quite come: a stream of HTTP/2 may end in a frame of
/// its own. It is then given back, or reset.
const LEFTOVER: Duration = Duration::from_secs(1);

/// What makes Pingora take an exchange for its connection to the origin.
pub fn peer(exchange: Arc<Exchange>) -> Box<HttpPeer> {
    /// No two exchanges are one another's connection, even if one should look as if it were unused.
    static GROUP: AtomicU64 = AtomicU64::new(0);
    // Given a socket address, this resolves nothing and cannot fail. Nobody connects to it.
    let mut peer = Box::new(HttpPeer::new((Ipv4Addr::UNSPECIFIED, 0), false, String::new()));
    peer.options.custom_l4 = Some(Arc::new(Connect(exchange)));
    peer.group_key = GROUP.fetch_add(1, Ordering::Relaxed);
    peer.options.idle_timeout = Some(LEFTOVER);
    peer
}

#[derive(Debug)]
struct Connect(Arc<Exchange>);

#[async_trait]
impl L4Connect for Connect {
    async fn connect(&self, _: &SocketAddr) -> pingora::Result<Stream> {
        Ok(Stream::from(VirtualSocketStream::new(Box::new(Socket::new(self.0.clone())))))
    }
}

/// One exchange. Behind a lock because Pingora wants it to be `Sync`; nobody ever waits for it.
struct Socket(Mutex<Inner>);

struct Inner {
    exchange: Arc<Exchange>,
    request: Request,
    feed: Option<Feed>,
    state: State,
    /// What Pingora has not read yet.
    head: Bytes,
    data: Bytes,
    tail: &'static [u8],
    /// A body in chunks has begun.
    chunked: bool,
    /// What is left of a body of known length.
    left: Option<u64>,
    /// Reads that are still to be put off.
    put_off: u8,
    /// The same, where they are told of the failure.
    failure_put_off: u8,
}

type Beginning = Pin<Box<dyn Future<Output = Result<Begun, Failure>> + Send>>;

enum State {
    /// The head is still being written.
    Writing,
    Beginning(Beginning),
    Body(Live),
    /// Both directions carry another protocol.
    Tunnel(Live),
    Done,
    Failed,
}

impl Socket {
    fn new(exchange: Arc<Exchange>) -> Socket {
        Socket(Mutex::new(Inner {
            exchange,
            request: Request::default(),
            feed: None,
            state: State::Writing,
            head: Bytes::new(),
            data: Bytes::new(),
            tail: b"",
            chunked: false,
            left: None,
            put_off: 0,
            failure_put_off: 0,
        }))
    }

    fn inner(&mut self) -> &mut Inner {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The request's head is complete.
    fn begin(&mut self, head: RequestHead) {
        let upload = (head.body != BodyLength::None).then(|| {
            let (feed, upload) = upload();
            self.feed = Some(feed);
            upload
        });
        let exchange = self.exchange.clone();
        self.state = State::Beginning(Box::pin(async move { exchange.begin(&head, upload).await }));
    }

    /// Goes on with what can go on without Pingora's reading.
    fn drive(&mut self, cx: &mut Context<'_>) {
        match &mut self.state {
            State::Beginning(beginning) => {
                if let Poll::Ready(outcome) = beginning.as_mut().poll(cx) {
                    match outcome {
                        Ok(Begun { live, head }) => self.came(live, head),
                        // It has been noted: whoever reads is told, of what came before first.
                        Err(_) => {
                            self.head = self.interims();
                            self.fail();
                        }
                    }
                }
            }
            State::Body(live) => live.push(cx),
            State::Writing | State::Tunnel(_) | State::Done | State::Failed => {}
        }
    }

    /// A head has come.
    fn came(&mut self, live: Live, head: ResponseHead) {
        let interims = self.interims();
        self.head = if interims.is_empty() { head.wire } else { [&*interims, &*head.wire].concat().into() };
        if head.status == 101 {
            self.put_off = PUT_OFF;
            self.state = State::Tunnel(live);
            return;
        }
        (self.chunked, self.left) = (head.body == BodyLength::Chunked, None);
        match head.body {
            BodyLength::None => self.complete(live),
            BodyLength::Known(length) => {
                self.left = Some(length);
                self.state = State::Body(live);
            }
            BodyLength::Chunked | BodyLength::UntilClose => self.state = State::Body(live),
        }
    }

    /// The interim responses that have come.
    fn interims(&mut self) -> Bytes {
        let mut all = Bytes::new();
        while let Some(head) = self.exchange.interim_now() {
            all = if all.is_empty() { head } else { [all, head].concat().into() };
            self.failure_put_off = PUT_OFF;
        }
        all
    }

    fn complete(&mut self, live: Live) {
        live.finish();
        self.state = State::Done;
    }

    fn fail(&mut self) {
        self.state = State::Failed;
        self.feed = None;
    }

    /// An answer that has begun to come does not come to its end.
    fn breaks_off(&mut self, error: &WireError) {
        // A tunnel has no whole: that nobody says anything in it for long, or who ends it and how, may be anybody's doing.
        if let State::Body(live) = &mut self.state {
            self.exchange.broke_off(live, error);
        }
        self.exchange.fails(Failure::of(error));
        self.fail();
    }

    /// Reads on: whether there is something to give out, or an end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Beginning(_) => {
                self.drive(cx);
                if let State::Beginning(_) = self.state {
                    self.head = self.interims();
                    return if self.head.is_empty() { Poll::Pending } else { Poll::Ready(()) };
                }
                Poll::Ready(())
            }
            State::Body(live) | State::Tunnel(live) => {
                match ready!(live.poll_data(cx)) {
                    Ok(Some(data)) => self.frame(cx, data),
                    Ok(None) => self.end(),
                    Err(error) => self.breaks_off(&error),
                }
                Poll::Ready(())
            }
            State::Writing => Poll::Pending,
            State::Done | State::Failed => Poll::Ready(()),
        }
    }

    /// Some of the body has come.
    fn frame(&mut self, cx: &mut Context<'_>, data: Bytes) {
        if data.is_empty() {
            return;
        }
        if self.chunked {
            self.head = Bytes::from(format!("{:x}\r\n", data.len()));
            self.tail = b"\r\n";
        }
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        self.data = data;
        // Pingora reads no more than the length, and would never come to ask for the end.
        if self.left == Some(0)
            && let State::Body(live) = &mut self.state
            && let Poll::Ready(Ok(None)) = live.poll_data(cx)
        {
            self.end();
        }
    }

    fn end(&mut self) {
        if let State::Body(live) | State::Tunnel(live) = std::mem::replace(&mut self.state, State::Done) {
            if self.chunked {
                self.tail = b"0\r\n\r\n";
            }
            live.finish();
        }
    }

    /// Gives out what is there; whether there was anything.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let before = buf.remaining();
        for piece in [&mut self.head, &mut self.data] {
            let some = piece.len().min(buf.remaining());
            buf.put_slice(&piece[..some]);
            piece.advance(some);
        }
        if self.head.is_empty() && self.data.is_empty() {
            let some = self.tail.len().min(buf.remaining());
            let (given, rest) = self.tail.split_at(some);
            buf.put_slice(given);
            self.tail = rest;
        }
        buf.remaining() < before
    }

    fn failure(&self) -> io::Error {
        let failure = self.exchange.trail().ended.clone();
        io::Error::new(io::ErrorKind::ConnectionReset, failure.map_or_else(String::new, |failure| failure.why))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = self.inner();
        if inner.put_off > 0 {
            inner.put_off -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            if inner.give(buf) || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            match &mut inner.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Failed if inner.failure_put_off > 0 => {
                    // Pingora drops what it has read and not passed on yet where it meets a failure: an interim
                    // response is to reach the client.
                    inner.failure_put_off -= 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::Failed => return Poll::Ready(Err(inner.failure())),
                _ => ready!(inner.poll_more(cx)),
            }
            if inner.put_off == PUT_OFF {
                inner.put_off -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let inner = self.inner();
        if let State::Writing = inner.state {
            let (taken, head) = inner.request.head(buf)?;
            if let Some(head) = head {
                inner.begin(head);
                inner.drive(cx);
            }
            return Poll::Ready(Ok(taken));
        }
        if let State::Tunnel(tunnel) = &mut inner.state {
            return tunnel.poll_write(cx, buf);
        }
        if let Some(feed) = &mut inner.feed
            && feed.poll_room(cx).is_pending()
        {
            inner.drive(cx);
            if inner.feed.as_mut().is_some_and(|feed| feed.poll_room(cx).is_pending()) {
                return Poll::Pending;
            }
        }
        // Without a feed, nobody wants the rest: the answer is there, or has failed, and says so to whoever reads.
        inner.request.body(buf, inner.feed.as_mut())?;
        inner.drive(cx);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = self.inner();
        inner.drive(cx);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner().state {
            State::Tunnel(tunnel) => tunnel.poll_shutdown(cx),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl VirtualSocket for Socket {
    /// The options of the server's connection are its own.
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}
