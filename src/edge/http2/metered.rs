//! A connection whose frames are counted on their way through.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::connection::Connection;
use super::super::watch::{Abuse, Handle};
use super::census::Census;
use crate::config::model::Http2Limits;

/// What HTTP/2 is spoken over. It reads no more once its client has sent too much.
pub struct Metered {
    io: Box<Connection>,
    census: Census,
    clock: Handle,
    excess: Excess,
}

/// What a client has sent too much of, for who serves its connection.
#[derive(Clone, Default)]
pub struct Excess(Arc<AtomicUsize>);

impl Metered {
    pub fn new(io: Box<Connection>, limits: Http2Limits) -> (Metered, Excess) {
        let clock = io.watched().handle();
        let excess = Excess::default();
        (Metered { census: Census::new(limits, clock.now()), io, clock, excess: excess.clone() }, excess)
    }
}

impl Excess {
    pub fn seen(&self) -> Option<Abuse> {
        // 0 is none.
        Abuse::ALL.get(self.0.load(Ordering::Relaxed).checked_sub(1)?).copied()
    }

    fn set(&self, abuse: Abuse) {
        self.0.store(abuse as usize + 1, Ordering::Relaxed);
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.excess.seen().is_some() {
            // Whoever serves the connection is the same task, which is to look again.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut *this.io).poll_read(cx, buf))?;
        if let Some(abuse) = buf.filled().get(before..).and_then(|new| this.census.received(new, this.clock.now())) {
            this.excess.set(abuse);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut *self.io).poll_write(cx, buf))?;
        self.census.sent(buf.get(..sent).unwrap_or(buf));
        Poll::Ready(Ok(sent))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut *self.io).poll_write_vectored(cx, bufs))?;
        let mut left = sent;
        for buf in bufs {
            let part = left.min(buf.len());
            self.census.sent(&buf[..part]);
            left -= part;
        }
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}
