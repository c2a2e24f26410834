//! HTTP/2 as a client of servers (RFC 9113), on the frames and the flow control of the `h2` crate.

mod drive;
mod head;
mod stream;

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::h2::client::{Builder, SendRequest};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use self::drive::{Heard, Life, Patience};
pub(in crate::origin) use self::stream::H2Stream;
use super::message::WireError;
use crate::origin::failure::FailureKind;

/// What may come of a response before it is asked for: enough for a fast link and a round trip of some milliseconds.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// The same for all streams of a connection: at least this ...
const LEAST_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// ... and at most this. In between it is as much as all streams may have, so that slow readers of some responses never
/// hold up the others.
const MOST_CONNECTION_WINDOW: u32 = 256 * 1024 * 1024;
const MAX_FRAME: u32 = 64 * 1024;
/// Of a stream's request body, not yet written.
const MAX_SEND_BUFFER: usize = 256 * 1024;
/// In bytes, as HTTP/2 counts them.
const MAX_HEAD: u32 = 256 * 1024;
/// Streams that were given up and whose frames are still to be overlooked.
const MAX_GIVEN_UP: usize = 1024;

const PATIENCE: Patience = Patience { quiet: Duration::from_secs(10), answer: Duration::from_secs(10) };

/// A connection that carries many requests at once. It ends with its last clone and stream.
#[derive(Clone)]
pub(in crate::origin) struct H2Client {
    shared: Arc<Shared>,
}

/// What clones and streams of a connection share.
struct Shared {
    sender: SendRequest<Bytes>,
    is_tls: bool,
    streams: usize,
    in_use: AtomicUsize,
    life: Arc<Life>,
}

impl H2Client {
    /// Begins HTTP/2 on a connection, waits until the server has too, and lets it run on the current runtime.
    ///
    /// `streams`: requests at once, at least 1; the server may allow fewer. `is_tls`: the scheme is https.
    ///
    /// # Errors
    /// `Reset` and `Timeout`: the connection failed. No request has been sent.
    pub(in crate::origin) async fn handshake<T>(io: T, streams: usize, is_tls: bool) -> Result<H2Client, WireError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        H2Client::with_patience(io, streams, is_tls, PATIENCE).await
    }

    async fn with_patience<T>(io: T, streams: usize, is_tls: bool, patience: Patience) -> Result<H2Client, WireError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let life = Arc::new(Life::new());
        let window = u32::try_from(streams).unwrap_or(u32::MAX).saturating_mul(STREAM_WINDOW);
        let connecting = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(window.clamp(LEAST_CONNECTION_WINDOW, MOST_CONNECTION_WINDOW))
            .max_frame_size(MAX_FRAME)
            .max_send_buffer_size(MAX_SEND_BUFFER)
            .max_header_list_size(MAX_HEAD)
            // Until the server has said how many it allows, and so that it can be seen that it has.
            .initial_max_send_streams(0)
            .max_concurrent_reset_streams(MAX_GIVEN_UP)
            .handshake::<_, Bytes>(Heard::new(io, life.clone()));
        let (sender, mut connection) =
            connecting.await.map_err(|error| WireError { untouched: true, ..life.error(error) })?;
        // What is sent before the server's SETTINGS (RFC 9113 §3.4) may be refused, or go to one that speaks no HTTP/2.
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(WireError::new(FailureKind::Reset, "the connection has ended"))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(life.error(error))),
            Poll::Pending if sender.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await
        .map_err(|error| WireError { untouched: true, ..error })?;
        let shared = Arc::new(Shared { sender, is_tls, streams, in_use: AtomicUsize::new(0), life: life.clone() });
        tokio::spawn(drive::drive(connection, life, Arc::downgrade(&shared), patience));
        Ok(H2Client { shared })
    }

    /// A place for one request; `None`: all are taken, or the connection takes no more.
    pub(in crate::origin) fn open(&self) -> Option<H2Stream> {
        let max = self.max_streams();
        let taken = self.shared.in_use.fetch_update(Ordering::AcqRel, Ordering::Acquire, |in_use| {
            if in_use < max { Some(in_use + 1) } else { None }
        });
        taken.ok()?;
        let slot = Slot { shared: self.shared.clone() };
        if self.is_closed() {
            return None;
        }
        Some(H2Stream::new(slot))
    }

    /// It takes no more requests: the connection has ended or failed, or the server lets it end (GOAWAY).
    pub(in crate::origin) fn is_closed(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.shared.life.has_ended() || matches!(self.shared.sender.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    #[cfg(test)]
    pub(in crate::origin) fn streams_in_use(&self) -> usize {
        self.shared.in_use.load(Ordering::Acquire)
    }

    /// Requests at once, by ourselves and by the server. 0: the server allows none for now.
    pub(in crate::origin) fn max_streams(&self) -> usize {
        self.shared.streams.min(self.shared.sender.current_max_send_streams())
    }
}

/// Holds a place for a request.
struct Slot {
    shared: Arc<Shared>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.in_use.fetch_sub(1, Ordering::AcqRel);
    }
}
