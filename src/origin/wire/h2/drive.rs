//! A connection's own life: its frames are read and written, silence is noticed, and its end has a reason.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::h2::client::Connection;
use ::h2::{Ping, PingPong, Reason};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep, timeout};

use super::super::message::WireError;
use super::super::tls::refused_late;
use super::Shared;
use crate::origin::failure::FailureKind;

/// How long a server may be silent while requests are open.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// After that, it is asked for a sign of life.
    pub(super) quiet: Duration,
    /// Without one for that long, the connection is given up.
    pub(super) answer: Duration,
}

/// What is known of a connection beside its frames.
pub(super) struct Life {
    began: Instant,
    /// When something last came, in milliseconds since `began`.
    heard: AtomicU64,
    /// Once the connection has ended: why.
    end: OnceLock<(FailureKind, String)>,
}

impl Life {
    pub(super) fn new() -> Life {
        Life { began: Instant::now(), heard: AtomicU64::new(0), end: OnceLock::new() }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.get().is_some()
    }

    /// What an error of a stream or of the connection means.
    pub(super) fn error(&self, error: ::h2::Error) -> WireError {
        // RFC 9113 §6.8, §8.7: neither has been worked on. Of streams up to the last that a GOAWAY allows, the error is
        // never the GOAWAY itself.
        let of_stream = error.is_reset();
        let is_refused = of_stream && error.reason() == Some(Reason::REFUSED_STREAM);
        let untouched = error.is_remote() && (error.is_go_away() || is_refused);
        let failed = match (self.end.get(), error.get_io()) {
            (Some((kind, why)), Some(_)) => WireError::new(*kind, why.clone()),
            (None, Some(error)) => WireError::io("the HTTP/2 connection", error),
            (_, None) if error.is_remote() => WireError::new(FailureKind::Reset, error.to_string()),
            (_, None) if error.is_library() => WireError::new(FailureKind::Invalid, error.to_string()),
            (_, None) => WireError::new(FailureKind::Other, error.to_string()),
        };
        let goodbye = error.is_remote() && error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
        let reset = error.reason().filter(|_| of_stream && error.is_remote());
        WireError { untouched: untouched || failed.untouched, of_stream, reset, goodbye, ..failed }
    }

    fn silence(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.heard.load(Ordering::Relaxed)))
    }

    fn hear(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(now, Ordering::Relaxed);
    }
}

/// What the server's giving up of a stream means.
pub(super) fn reset(reason: Reason) -> WireError {
    let why = format!("the server has reset the stream: {reason}");
    let untouched = reason == Reason::REFUSED_STREAM;
    WireError { untouched, of_stream: true, reset: Some(reason), ..WireError::new(FailureKind::Reset, why) }
}

/// Runs a connection until it ends, or nobody has a use for it.
pub(super) async fn drive<T>(
    mut connection: Connection<Heard<T>, Bytes>,
    life: Arc<Life>,
    shared: Weak<Shared>,
    patience: Patience,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let pings = connection.ping_pong();
    let end = tokio::select! {
        ended = &mut connection => match ended {
            Ok(()) => (FailureKind::Reset, "the connection has ended".to_owned()),
            Err(error) => {
                let WireError { kind, why, .. } = life.error(error);
                (kind, why)
            }
        },
        () = silence(pings, &life, &shared, patience) => {
            (FailureKind::Timeout, "the server no longer answers on its HTTP/2 connection".to_owned())
        }
    };
    // Before the connection goes, with which its streams end.
    let _ = life.end.set(end);
}

/// Until the server has been silent for too long.
async fn silence(pings: Option<PingPong>, life: &Life, shared: &Weak<Shared>, patience: Patience) {
    // There is one for each connection, once.
    let Some(mut pings) = pings else { return std::future::pending().await };
    let mut is_asked = false;
    let mut is_abandoned = false;
    loop {
        let in_use = shared.upgrade().map(|shared| shared.in_use.load(Ordering::Acquire));
        let quiet = life.silence();
        if in_use.is_none() {
            // It says goodbye by itself, unless the server does not let it.
            if is_abandoned {
                return;
            }
            is_abandoned = true;
            sleep(patience.quiet).await;
        } else if quiet < patience.quiet {
            sleep(patience.quiet - quiet).await;
        } else if in_use == Some(0) {
            sleep(patience.quiet).await;
        } else {
            // An error: the connection is ending.
            if !is_asked && pings.send_ping(Ping::opaque()).is_err() {
                return std::future::pending().await;
            }
            let answer = timeout(patience.answer, poll_fn(|cx| pings.poll_pong(cx))).await;
            is_asked = answer.is_err();
            // Whatever came, it is a sign of life.
            if is_asked && life.silence() >= patience.answer {
                return;
            }
        }
    }
}

/// A connection that notes when something comes.
pub(super) struct Heard<T> {
    io: T,
    life: Arc<Life>,
}

impl<T> Heard<T> {
    pub(super) fn new(io: T, life: Arc<Life>) -> Heard<T> {
        Heard { io, life }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Heard<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.life.hear();
        }
        // Streams are not told more than the kind and the text of an error.
        if let Poll::Ready(Err(error)) = &read
            && refused_late(error).is_some()
        {
            let WireError { kind, why, .. } = WireError::io("the HTTP/2 connection", error);
            let _ = self.life.end.set((kind, why));
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
