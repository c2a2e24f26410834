//! A request's body as it comes.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use pingora::http::RequestHeader;
use pingora::protocols::http::body_buffer::FixedBuffer;
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::patience::Patience;

/// Bytes that are kept for sending them to another server: as many as over HTTP/1.1.
const RETRY: usize = 64 * 1024;

/// The receiving half of a stream.
pub struct Incoming {
    stream: RecvStream,
    /// Its length is stated, and is nothing.
    is_nothing: bool,
    ended: bool,
    /// All of the body has come; what is behind it has not been asked for.
    bare: bool,
    trailers: Option<HeaderMap>,
    received: usize,
    retry: Option<FixedBuffer>,
    /// How long the client may send nothing, or less than it must.
    pub patience: Patience,
    /// How long throwing away the rest may take.
    pub drain_limit: Option<Duration>,
}

impl Incoming {
    /// `min_rate`: bytes a second that must come, over each time limit's worth of waiting for them.
    pub fn new(stream: RecvStream, request: &RequestHeader, min_rate: Option<u64>) -> Incoming {
        let is_nothing = request.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
        Incoming {
            stream,
            is_nothing,
            ended: false,
            bare: false,
            trailers: None,
            received: 0,
            retry: None,
            patience: Patience::new(min_rate),
            drain_limit: None,
        }
    }

    /// The next bytes of the body; `None`: that was all.
    ///
    /// # Errors
    /// The client has given the request up, or has sent nothing for as long as it may (`ReadTimedout`).
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Throws away what is left of the body.
    ///
    /// # Errors
    /// As [`Incoming::next`], and when it takes too long.
    pub async fn drain(&mut self) -> Result<()> {
        let limit = self.drain_limit;
        let rest = async {
            while !self.is_done() && self.next().await?.is_some() {}
            Ok(())
        };
        match limit {
            None => rest.await,
            Some(limit) => match tokio::time::timeout(limit, rest).await {
                Ok(result) => result,
                Err(_) => Err(failed(ErrorType::ReadTimedout, format!("throwing away a body for {limit:?}"))),
            },
        }
    }

    /// Whether there is no body at all.
    pub fn is_empty(&self) -> bool {
        self.received == 0 && (self.is_nothing || self.ended || self.stream.is_end_stream())
    }

    /// Whether all of the body has come.
    pub fn is_done(&self) -> bool {
        self.ended || self.is_empty() || self.stream.is_end_stream()
    }

    /// The fields behind the body, once, after its end.
    pub fn trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Bytes so far.
    pub fn received(&self) -> usize {
        self.received
    }

    /// From here on, what comes is kept for another try.
    pub fn keep(&mut self) {
        self.retry.get_or_insert_with(|| FixedBuffer::new(RETRY));
    }

    /// More has come than is kept.
    pub fn is_past_keeping(&self) -> bool {
        self.retry.as_ref().is_some_and(FixedBuffer::is_truncated)
    }

    /// What has been kept, if that is all of it.
    pub fn kept(&self) -> Option<Bytes> {
        self.retry.as_ref().filter(|retry| !retry.is_truncated())?.get_buffer()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        while !self.ended {
            if self.bare {
                return self.poll_trailers(cx);
            }
            match self.stream.poll_data(cx) {
                Poll::Ready(None) => self.bare = true,
                Poll::Ready(Some(Ok(data))) => {
                    self.patience.moved(data.len());
                    // It fails where the stream is over: then nobody waits for room.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    if data.is_empty() {
                        continue;
                    }
                    self.received += data.len();
                    if let Some(retry) = &mut self.retry {
                        retry.write_to_buffer(&data);
                    }
                    return Poll::Ready(Ok(Some(data)));
                }
                Poll::Ready(Some(Err(e))) => {
                    return Poll::Ready(Err(failed(ErrorType::ReadError, format!("reading a request's body: {e}"))));
                }
                Poll::Pending => {
                    return self.patience.poll_spent(cx).map(|limit| {
                        let why = format!("nothing of a request's body, or less than it must be, for {limit:?}");
                        Err(failed(ErrorType::ReadTimedout, why))
                    });
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        match self.stream.poll_trailers(cx) {
            Poll::Ready(Ok(trailers)) => {
                (self.ended, self.trailers) = (true, trailers);
                Poll::Ready(Ok(None))
            }
            Poll::Ready(Err(e)) => {
                Poll::Ready(Err(failed(ErrorType::ReadError, format!("reading a request's trailers: {e}"))))
            }
            Poll::Pending => self.patience.poll_spent(cx).map(|limit| {
                Err(failed(ErrorType::ReadTimedout, format!("nothing of a request's trailers for {limit:?}")))
            }),
        }
    }
}

fn failed(kind: ErrorType, why: String) -> Box<Error> {
    Error::create(kind, ErrorSource::Downstream, Some(why.into()), None)
}
