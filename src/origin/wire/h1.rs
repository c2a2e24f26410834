//! HTTP/1.1 as a client of servers (RFC 9112).
//!
//! Strict, since what is taken here is stored and shared: a response is whole or an error, and a connection carries
//! another request only where nobody can be in doubt about where the last response ended. Not Pingora's client, which
//! folds lines, repairs fields and cannot be asked whether anything of a response has come.

mod body;
mod chunked;
mod head;
mod input;
mod send;

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::body::Body;
use self::head::{Asked, Finder};
use self::input::Input;
use self::send::Outgoing;
use super::message::{BodyLength, RequestHead, ResponseHead, WireError};
use crate::origin::failure::FailureKind;

/// A connection that carries one request at a time.
///
/// Sending and receiving are independent: the response may come before the request is out. Whoever then stops sending
/// finds the connection no longer reusable. All that is polled may be dropped and polled again.
pub(in crate::origin) struct H1Conn<T> {
    io: T,
    input: Input,
    out: Outgoing,
    stage: Stage,
    /// Something of the response has come.
    begun: bool,
    /// As far as the response's heads say, the connection carries another request after it.
    keeps: bool,
}

/// How far the response is.
enum Stage {
    /// Nothing has been asked.
    Idle,
    Head {
        asked: Asked,
        finder: Finder,
    },
    Body(Body),
    Done {
        trailers: Option<HeaderMap>,
    },
    Failed,
}

impl<T: AsyncRead + AsyncWrite + Unpin> H1Conn<T> {
    pub(in crate::origin) fn new(io: T) -> H1Conn<T> {
        H1Conn { io, input: Input::default(), out: Outgoing::default(), stage: Stage::Idle, begun: false, keeps: true }
    }

    /// The connection without what was kept for a request: no buffers.
    pub(in crate::origin) fn into_idle(self) -> T {
        self.io
    }

    /// Sends a request's head. Where a body follows, it is sent with what is first there of the body, or as soon as the
    /// response is waited for.
    ///
    /// # Errors
    /// `Reset` and `Timeout`: it could not be sent. `Other`: the connection is in use, or not to be used again.
    pub(in crate::origin) async fn send_head(&mut self, head: &RequestHead) -> Result<(), WireError> {
        if !self.is_free() {
            return Err(WireError::new(FailureKind::Other, "the connection is in use"));
        }
        self.out.start(head);
        self.stage = Stage::Head { asked: Asked::by(head), finder: Finder::default() };
        self.begun = false;
        self.keeps = true;
        if head.body == BodyLength::None {
            poll_fn(|cx| self.out.poll_flush(&mut self.io, cx)).await?;
        }
        Ok(())
    }

    /// Sends a part of the request's body, framed as its head says; ready when all of `data` is out, which is advanced
    /// over what is, and the body's end, if `end` says that this is it.
    ///
    /// After a 101 it is the other protocol's data, and `end` closes this direction.
    ///
    /// # Errors
    /// `Reset` and `Timeout`: it could not be sent; an answer may have come all the same. `Other`: it is not what the
    /// head has announced.
    pub(in crate::origin) fn poll_send_body(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), WireError>> {
        let sent = ready!(self.out.poll_send(&mut self.io, cx, data, end));
        Poll::Ready(sent.map_err(|error| self.marked(error)))
    }

    /// What is to follow the request's body, if that goes in chunks: there is no place for it else. Before its end is sent.
    pub(in crate::origin) fn set_trailers(&mut self, trailers: &HeaderMap) {
        self.out.set_trailers(trailers);
    }

    /// The response's next head: those of interim responses each, then the final one.
    ///
    /// # Errors
    /// See [`Self::poll_read_head`].
    #[cfg(test)]
    pub(in crate::origin) async fn read_head(&mut self) -> Result<ResponseHead, WireError> {
        poll_fn(|cx| self.poll_read_head(cx)).await
    }

    /// The same, polled.
    ///
    /// # Errors
    /// `Reset` and `Timeout`: the connection ended before the head did. `Invalid`: what came is no HTTP/1.1, larger than
    /// 256 KiB, or a change of protocol that nobody asked for.
    pub(in crate::origin) fn poll_read_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, WireError>> {
        // Where it cannot be sent, what the server has to say about that counts for more than the failure.
        let _ = self.out.poll_flush(&mut self.io, cx);
        let read = ready!(self.poll_head(cx));
        if read.is_err() {
            self.stage = Stage::Failed;
        }
        Poll::Ready(read.map_err(|error| self.marked(error)))
    }

    /// The next piece of the response's body, decoded and never empty; `None`: the end, and it was complete.
    ///
    /// # Errors
    /// `Reset` and `Timeout`: the connection ended before the body did. `Invalid`: chunks that are none.
    pub(in crate::origin) fn poll_read_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, WireError>> {
        let body = match &mut self.stage {
            Stage::Body(body) => body,
            Stage::Done { .. } => return Poll::Ready(Ok(None)),
            Stage::Idle | Stage::Head { .. } | Stage::Failed => return Poll::Ready(Err(out_of_turn())),
        };
        let read = ready!(body.poll(&mut self.io, &mut self.input, cx));
        match &read {
            Ok(Some(_)) => {}
            Ok(None) => self.stage = Stage::Done { trailers: body.trailers() },
            Err(_) => self.stage = Stage::Failed,
        }
        Poll::Ready(read.map_err(|error| self.marked(error)))
    }

    /// The fields after a body in chunks, once, after its end. They are not to be merged into the head's (RFC 9110
    /// §6.5.1).
    pub(in crate::origin) fn trailers(&mut self) -> Option<HeaderMap> {
        match &mut self.stage {
            Stage::Done { trailers } => trailers.take(),
            _ => None,
        }
    }

    /// The request is out, the response is in, and the next request may follow.
    pub(in crate::origin) fn is_reusable(&self) -> bool {
        matches!(self.stage, Stage::Done { .. }) && self.keeps && self.input.is_empty() && self.out.is_done()
    }

    /// While nothing is asked. Ready: the server has closed the connection, or sent something unasked; it is not to be
    /// used. What came is gone, since nobody could tell what it answers.
    pub(in crate::origin) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_free() {
            return Poll::Ready(());
        }
        let mut byte = [0; 1];
        let read = Pin::new(&mut self.io).poll_read(cx, &mut ReadBuf::new(&mut byte));
        if read.is_pending() {
            return Poll::Pending;
        }
        self.stage = Stage::Failed;
        Poll::Ready(())
    }

    fn is_free(&self) -> bool {
        matches!(self.stage, Stage::Idle) || self.is_reusable()
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, WireError>> {
        let Stage::Head { asked, finder } = &mut self.stage else { return Poll::Ready(Err(out_of_turn())) };
        let found = loop {
            if let Some(found) = finder.take(self.input.buffer())? {
                break found;
            }
            match ready!(self.input.poll_fill(&mut self.io, cx, u64::MAX)) {
                Ok(0) => return Poll::Ready(Err(ended_early(self.begun))),
                Ok(_) => self.begun = true,
                Err(error) => return Poll::Ready(Err(WireError::io("reading the response's head", &error))),
            }
        };
        let read = head::read(found, asked)?;
        self.keeps &= read.keeps;
        if read.is_final {
            // After a change of protocol, both directions carry the other one.
            if read.switches {
                self.out.switch();
            }
            self.stage = match Body::new(read.head.body) {
                Some(body) => Stage::Body(body),
                None => Stage::Done { trailers: None },
            };
        } else {
            // Of the one that counts, nothing has come but what is there behind this one.
            self.begun = !self.input.is_empty();
        }
        Poll::Ready(Ok(read.head))
    }

    fn marked(&self, mut error: WireError) -> WireError {
        error.begun = self.begun;
        error
    }
}

fn ended_early(begun: bool) -> WireError {
    let why = match begun {
        true => "the connection ended within the response's head",
        false => "the connection was closed before an answer",
    };
    WireError::new(FailureKind::Reset, why)
}

fn out_of_turn() -> WireError {
    WireError::new(FailureKind::Other, "nothing of the kind is to be read")
}
