//! A client's connection, as the HTTP sessions of Pingora see it.
//!
//! Pingora's own stream holds a read and a write buffer for as long as the connection lives (64 KiB and more for an
//! idle client) and sends the head and the body of a small response by two system calls. This one reads straight
//! into the caller's buffer, holds the head of a response back until its first body bytes are there so that both
//! leave by one `writev`, takes a ready-made response through a shared reference (see [`Connection::reply`]), and
//! lets the [`Watch`] end it when the client is too slow.

mod outbox;
mod transport;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use log::debug;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

pub use self::transport::Transport;

use self::outbox::{Outbox, is_interim, replace_date};
use super::arrival::Secured;
use super::linger;
use super::pace::{self, Pacer};
use super::preface::{self, PREFACE};
use super::watch::Watched;
use crate::guard::rate::Pace;

/// The largest write that is held back to leave together with the next one: the head of any ordinary response.
const HOLD_MAX: usize = 16 * 1024;

/// The end of a body in chunks, as Pingora writes it.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// One accepted connection.
pub struct Connection {
    io: Transport,
    /// Behind a lock because [`Connection::reply`] has only a shared reference; it is never contended, since one
    /// task serves a connection.
    outbox: Mutex<Outbox>,
    /// The next write is the first after a flush: the head of a response, which waits for its body.
    hold: bool,
    /// Set where a head must not wait (see [`Connection::release_head`]).
    release: AtomicBool,
    /// Set where a write must end whatever the client takes (see [`Connection::absorb`]).
    absorb: AtomicBool,
    /// Set where the client may not have sent all of its request (see [`Connection::linger`]).
    linger: AtomicBool,
    digest: Arc<SocketDigest>,
    peer: SocketAddr,
    /// What is known by TLS, wrapped as Pingora takes it along; `None`: the connection is plain.
    secured: Option<Arc<ProxyDigest>>,
    /// HTTP/2 with prior knowledge is looked for.
    h2c: bool,
    /// The client speaks HTTP/2.
    http2: bool,
    watched: Watched,
    /// Bytes that have come, and bytes that the requests so far were made of. More than those: the next request has
    /// begun to come.
    received: u64,
    served: AtomicU64,
}

impl Connection {
    /// A plain connection of a client that is at `peer`. `h2c`: HTTP/2 with prior knowledge is looked for.
    pub fn plain(io: TcpStream, peer: SocketAddr, h2c: bool, watched: Watched) -> Connection {
        Connection::new(Transport::Plain(io), peer, watched, h2c, None)
    }

    /// One whose TLS handshake is over.
    pub fn secured(io: Transport, peer: SocketAddr, secured: Secured, watched: Watched) -> Connection {
        Connection::new(io, peer, watched, false, Some(secured))
    }

    fn new(io: Transport, peer: SocketAddr, watched: Watched, h2c: bool, secured: Option<Secured>) -> Connection {
        let digest = SocketDigest::from_raw_fd(io.socket().as_raw_fd());
        // Known already: saves a getpeername for each connection. Behind a proxy, it is another than the socket's.
        let _ = digest.peer_addr.set(Some(PeerAddr::Inet(peer)));
        Connection {
            io,
            outbox: Mutex::default(),
            hold: true,
            release: AtomicBool::new(false),
            absorb: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            digest: Arc::new(digest),
            peer,
            h2c,
            http2: secured.as_ref().is_some_and(|secured| secured.http2),
            secured: secured.map(Secured::wrap),
            watched,
            received: 0,
            served: AtomicU64::new(0),
        }
    }

    /// The client's socket address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the client speaks HTTP/2: by ALPN, or with prior knowledge, whose preface stays to be read.
    ///
    /// A client of HTTP/1.1 may send fewer bytes than the preface has and then wait, so only what looks like the preface
    /// is waited for.
    ///
    /// # Errors
    /// The socket's, or the watch has ended the connection.
    pub async fn speaks_http2(&mut self) -> io::Result<bool> {
        if self.h2c {
            let mut start = [0; PREFACE.len()];
            self.http2 = preface::peek(self.io.socket(), &self.watched, &mut start).await?;
        }
        Ok(self.http2)
    }

    /// A request of so many bytes has begun: its header section and, where its length is known, its body.
    pub fn request_began(&self, header: usize, body: Option<u64>) {
        let len = body.map_or(0, |body| body.saturating_add(header as u64));
        self.served.fetch_add(len, Ordering::Relaxed);
        self.watched.request_began(body != Some(0));
    }

    /// Something has come that belongs to no request yet; or it may have, where a body's length was not known.
    pub fn has_unserved(&mut self) -> bool {
        self.received != *self.served.get_mut()
    }

    /// Waits until there is something to read, or the end of the stream. What a response has left behind leaves meanwhile
    /// (see [`Connection::absorb`]).
    ///
    /// # Errors
    /// The socket's, or the watch has ended the connection.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| {
            if let Poll::Ready(Err(e)) = self.poll_left(cx) {
                return Poll::Ready(Err(e));
            }
            let readable = self.io.poll_readable(cx);
            self.note_given();
            match readable {
                Poll::Pending => self.watched.read_blocked(cx),
                ready => ready,
            }
        })
        .await
    }

    /// Sends what is left of a response.
    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let sent = lock(&self.outbox).send(&self.io, &self.watched);
            match sent {
                Ok(()) => return self.poll_out(cx),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => match self.io.socket().poll_write_ready(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => return self.write_blocked(cx),
                },
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// Waits until the client has ended the connection. What it may send before that, such as its next request, stays to
    /// be read, and hides the end.
    pub async fn hung_up(&self) {
        let ended = poll_fn(|cx| {
            let ended = self.io.poll_ended(cx);
            self.note_given();
            match ended {
                Poll::Pending => self.watched.read_blocked(cx),
                ready => ready,
            }
        });
        if let Ok(None) = ended.await {
            std::future::pending().await
        }
    }

    /// What the watch knows of this connection.
    pub fn watched(&self) -> &Watched {
        &self.watched
    }

    /// Puts a whole response into the outbox: `head` writes the status line and fields (with the empty line) into
    /// the given buffer, `body` follows it without being copied. It leaves with the next flush.
    pub fn reply(&self, head: impl FnOnce(&mut Vec<u8>), body: Bytes) {
        let mut outbox = lock(&self.outbox);
        debug_assert!(outbox.is_empty());
        outbox.head.reserve(512);
        head(&mut outbox.head);
        outbox.body = body;
    }

    /// Sends an interim response (RFC 9110 §15.2) beside Pingora, which loses one that comes in one read with the final
    /// response where that is stored. What the kernel does not take at once leaves with the next read or write.
    pub fn interim(&self, head: &[u8]) {
        let mut outbox = lock(&self.outbox);
        outbox.close_up();
        outbox.head.extend_from_slice(head);
        // If it fails, so will the next write, which has somebody to tell.
        let _ = outbox.send(&self.io, &self.watched);
    }

    /// What the next head is to have as its Date, where Pingora would put the time of sending: a proxy leaves the
    /// origin's alone (RFC 9110 §6.6.1).
    pub fn keep_date(&self, date: Option<HeaderValue>) {
        lock(&self.outbox).date = date;
    }

    /// Ends the body, which goes in chunks, with trailers: Pingora's session has no way for them. `last`: the last chunk with
    /// the fields behind it. The next write is to be the last chunk that it takes the place of.
    pub fn end_with(&self, last: Vec<u8>) {
        lock(&self.outbox).last = last;
    }

    /// Keeps the next head back until the first bytes of its body, flushed or not, so that it can be recalled.
    pub fn retain_head(&self) {
        lock(&self.outbox).retain = true;
    }

    /// How fast the response leaves, head and framing included, from here on and until the request has ended.
    pub fn pace(&self, pace: Pace) {
        lock(&self.outbox).pacer = Some(Pacer::new(pace));
    }

    /// Takes a head back that has been retained; `false` where there is none, or it has gone.
    pub fn recall(&self) -> bool {
        let mut outbox = lock(&self.outbox);
        let waits = outbox.is_retained() && outbox.sent == 0;
        if waits {
            outbox.reset();
        }
        outbox.retain = false;
        waits
    }

    /// Sends what is in the outbox, past Pingora's session: it has another response in mind.
    ///
    /// # Errors
    /// The socket's, or the watch has ended the connection.
    pub async fn send_out(&self) -> io::Result<()> {
        poll_fn(|cx| {
            loop {
                let mut outbox = lock(&self.outbox);
                if outbox.is_empty() {
                    outbox.reset();
                    drop(outbox);
                    return self.poll_out(cx);
                }
                let room = ready!(pace::poll_room(&mut outbox.pacer, cx));
                let sent = outbox.send_some(&self.io, &self.watched, room);
                drop(outbox);
                match sent {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => match self.io.socket().poll_write_ready(cx) {
                        Poll::Ready(ready) => ready?,
                        Poll::Pending => return self.write_blocked(cx),
                    },
                    Ok(()) => {}
                    failed => return Poll::Ready(failed),
                }
            }
        })
        .await
    }

    /// Waits until the socket has what was taken for it.
    fn poll_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.io.poll_flush(cx) {
            Poll::Pending => self.write_blocked(cx),
            flushed => {
                self.note_moved();
                flushed
            }
        }
    }

    /// The socket may have taken some of what TLS has between.
    fn note_moved(&self) {
        match self.io.moved(0) {
            0 => {}
            moved => self.watched.write_moved(moved),
        }
    }

    /// The same where something else than a write has given it to the socket: TLS does so as it reads.
    fn note_given(&self) {
        match self.io.moved(0) {
            0 => {}
            moved => {
                let waits = !self.io.is_flushed() || !lock(&self.outbox).is_empty();
                self.watched.write_given(moved, waits);
            }
        }
    }

    /// To be returned where a write would block.
    fn write_blocked<T>(&self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.note_moved();
        self.watched.write_blocked(cx)
    }

    /// Whether [`Connection::send_file`] can be used: where there is TLS, the bytes must pass through this process.
    pub fn sends_files(&self) -> bool {
        self.io.is_plain()
    }

    /// Sends what is in the outbox, and `bytes` behind it.
    ///
    /// # Errors
    /// The socket's, or the watch has ended the connection.
    pub async fn send_bytes(&self, bytes: Bytes) -> io::Result<()> {
        {
            let mut outbox = lock(&self.outbox);
            outbox.close_up();
            outbox.body = bytes;
        }
        self.send_out().await
    }

    /// Adds to what waits to be sent.
    pub fn add(&self, bytes: &[u8]) {
        let mut outbox = lock(&self.outbox);
        outbox.close_up();
        outbox.head.extend_from_slice(bytes);
    }

    /// Sends what is in the outbox, and behind it a part of a file, without a copy of it in this process.
    ///
    /// # Errors
    /// The socket's, the file's, or the watch has ended the connection.
    pub async fn send_file(&self, file: impl AsFd, mut range: Range<u64>) -> io::Result<()> {
        let socket = self.io.socket();
        debug_assert!(self.io.is_plain());
        poll_fn(|cx| {
            loop {
                let room = ready!(pace::poll_room(&mut lock(&self.outbox).pacer, cx));
                let sent = socket.try_io(Interest::WRITABLE, || {
                    lock(&self.outbox).send_more(socket)?;
                    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(room);
                    if len == 0 {
                        return Ok(0);
                    }
                    match rustix::fs::sendfile(socket, &file, Some(&mut range.start), len)? {
                        // The file has become shorter.
                        0 => Err(io::ErrorKind::UnexpectedEof.into()),
                        sent => Ok(sent),
                    }
                });
                match sent {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => match socket.poll_write_ready(cx) {
                        Poll::Ready(ready) => ready?,
                        Poll::Pending => return self.write_blocked(cx),
                    },
                    Err(e) => return Poll::Ready(Err(e)),
                    Ok(sent) => {
                        self.watched.write_moved(sent);
                        pace::sent(&mut lock(&self.outbox).pacer, sent);
                    }
                }
                if range.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        })
        .await
    }

    /// Whether the head of this response leaves at once, rather than with its body: for one that may take long to come.
    pub fn release_head(&self, release: bool) {
        self.release.store(release, Ordering::Relaxed);
    }

    /// Whether writes are taken into the outbox rather than waited for: for the end of one that is under way, which is of
    /// half a MiB at most.
    pub fn absorb(&self, absorb: bool) {
        self.absorb.store(absorb, Ordering::Relaxed);
    }

    /// The request has its answer: what was said of its head is over.
    pub fn request_ended(&self) {
        self.release_head(false);
        self.absorb(false);
        let mut outbox = lock(&self.outbox);
        (outbox.retain, outbox.date, outbox.pacer, outbox.last) = (false, None, None, Vec::new());
        drop(outbox);
        self.watched.request_ended();
    }

    /// Whether the client may still be sending its request: then the connection's end leaves it time to read the answer.
    pub fn linger(&self, linger: bool) {
        self.linger.store(linger, Ordering::Relaxed);
    }

    /// Sends what is in the outbox, followed by `more`; says how many bytes of `more` have been taken.
    fn poll_send(&mut self, cx: &mut Context<'_>, more: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        const SLICES: usize = 16;
        let outbox = self.outbox.get_mut().unwrap_or_else(PoisonError::into_inner);
        loop {
            if outbox.is_empty() && more.iter().all(|s| s.is_empty()) {
                outbox.reset();
                return Poll::Ready(Ok(0));
            }
            let mut room = ready!(pace::poll_room(&mut outbox.pacer, cx));
            let (head, body) = outbox.rest();
            let waiting = head.len() + body.len();
            let mut slices = [IoSlice::new(&[]); SLICES];
            slices[0] = pace::part(head, &mut room);
            slices[1] = pace::part(body, &mut room);
            let n_more = more.len().min(SLICES - 2);
            slices[2..].iter_mut().zip(more).for_each(|(slice, more)| *slice = pace::part(more, &mut room));
            let slices = &slices[..2 + n_more];
            let sent = match self.io.poll_write(cx, slices) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => return self.write_blocked(cx),
            };
            match self.io.moved(sent) {
                0 => {}
                moved => self.watched.write_moved(moved),
            }
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            pace::sent(&mut outbox.pacer, sent);
            if sent < waiting {
                outbox.sent += sent;
                continue;
            }
            outbox.reset();
            if sent > waiting {
                return Poll::Ready(Ok(sent - waiting));
            }
        }
    }

    /// Takes a write into the outbox; how much it was.
    fn take<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> usize {
        let outbox = self.outbox.get_mut().unwrap_or_else(PoisonError::into_inner);
        outbox.close_up();
        let before = outbox.head.len();
        pieces.for_each(|piece| outbox.head.extend_from_slice(piece));
        outbox.head.len() - before
    }

    /// Takes the last chunk of a body that ends otherwise; says whether it was one.
    fn ends(&mut self, write: &[u8]) -> bool {
        let outbox = self.outbox.get_mut().unwrap_or_else(PoisonError::into_inner);
        if outbox.last.is_empty() || write != LAST_CHUNK {
            return false;
        }
        outbox.close_up();
        let last = std::mem::take(&mut outbox.last);
        outbox.head.extend_from_slice(&last);
        true
    }

    /// Takes a write that is to wait for the next one, or to be changed; says whether it did.
    fn holds<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]> + Clone) -> bool {
        let len: usize = pieces.clone().map(<[u8]>::len).sum();
        if !self.hold || len == 0 {
            return false;
        }
        let outbox = self.outbox.get_mut().unwrap_or_else(PoisonError::into_inner);
        let released = *self.release.get_mut() && !outbox.retain;
        let awaited = outbox.date.is_some() || outbox.retain;
        // What was said of the final head is not for the 100 that may come before it.
        let is_early = awaited && pieces.clone().next().is_some_and(is_interim);
        self.hold = is_early;
        if !awaited && (len > HOLD_MAX || released || !outbox.is_empty()) {
            return false;
        }
        outbox.close_up();
        let start = outbox.head.len();
        pieces.for_each(|piece| outbox.head.extend_from_slice(piece));
        if !is_early && let Some(date) = outbox.date.take() {
            replace_date(&mut outbox.head, start, date.as_bytes());
        }
        if is_early || released {
            // If it fails, so will the next write, which has somebody to tell.
            let _ = outbox.send(&self.io, &self.watched);
        }
        true
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.io.close();
        if *self.linger.get_mut()
            && !self.watched.expired()
            && let Err(e) = linger::linger(self.io.socket(), self.watched.another())
        {
            debug!("ending the connection of {} at once: {e}", self.peer);
        }
    }
}

fn lock(outbox: &Mutex<Outbox>) -> MutexGuard<'_, Outbox> {
    outbox.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Whoever reads is waiting for something: do not let a head that is held back wait with it.
        let outbox = this.outbox.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !outbox.is_empty()
            && !outbox.is_retained()
            && let Poll::Ready(Err(e)) = this.poll_send(cx, &[])
        {
            return Poll::Ready(Err(e));
        }
        let before = buf.filled().len();
        let read = this.io.poll_read(cx, buf);
        this.note_given();
        match read {
            Poll::Ready(read) => {
                let n = buf.filled().len() - before;
                if n > 0 {
                    this.received += n as u64;
                    // Over HTTP/2, bytes need not be a request.
                    if !this.http2 {
                        this.watched.read_some(n);
                    }
                }
                Poll::Ready(read)
            }
            Poll::Pending => this.watched.read_blocked(cx),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.ends(buf) || self.holds(std::iter::once(buf)) {
            return Poll::Ready(Ok(buf.len()));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.outbox.get_mut().unwrap_or_else(PoisonError::into_inner).retain = false;
        loop {
            // 0 means that only what was in the outbox before has left.
            match self.poll_send(cx, &[IoSlice::new(buf)]) {
                Poll::Ready(Ok(0)) => continue,
                Poll::Pending if *self.absorb.get_mut() => return Poll::Ready(Ok(self.take(std::iter::once(buf)))),
                sent => return sent,
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = bufs.iter().map(|b| b.len()).sum();
        if self.holds(bufs.iter().map(|buf| &**buf)) {
            return Poll::Ready(Ok(len));
        }
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        self.outbox.get_mut().unwrap_or_else(PoisonError::into_inner).retain = false;
        loop {
            match self.poll_send(cx, bufs) {
                Poll::Ready(Ok(0)) => continue,
                Poll::Pending if *self.absorb.get_mut() => {
                    return Poll::Ready(Ok(self.take(bufs.iter().map(|buf| &**buf))));
                }
                sent => return sent,
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outbox.get_mut().unwrap_or_else(PoisonError::into_inner).is_retained() {
            return Poll::Ready(Ok(()));
        }
        let mut waits = self.poll_send(cx, &[])?.is_pending();
        if !self.io.is_flushed() {
            waits |= self.poll_out(cx)?.is_pending();
        }
        if waits && !*self.absorb.get_mut() {
            return Poll::Pending;
        }
        self.hold = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx, &[]))?;
        match self.io.poll_shutdown(cx) {
            Poll::Pending => self.write_blocked(cx),
            shut => shut,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        let _ = tokio::io::AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        self.io.socket().as_raw_fd()
    }
}

impl Ssl for Connection {}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    /// Where what is known by TLS goes: it is all of Pingora's digests that takes something of ours along.
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.secured.clone()
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.digest.clone())
    }
}

/// None: whether it is HTTP/2 has been found out by now.
impl Peek for Connection {}
