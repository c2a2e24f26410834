//! One request on a connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::h2::client::ResponseFuture;
use ::h2::{RecvStream, SendStream};
use bytes::Bytes;
use http::{HeaderMap, Method};

use super::super::message::{BodyLength, RequestHead, ResponseHead, WireError};
use super::drive::{self, Life};
use super::{MAX_SEND_BUFFER, Slot, head};
use crate::origin::failure::FailureKind;

/// A request's place on a connection, and then the request. Dropped before both directions have ended, it is reset.
///
/// Its methods are those of [`super::super::H1Conn`].
pub(in crate::origin) struct H2Stream {
    out: Option<Outgoing>,
    stage: Stage,
    /// Something of the response has come.
    begun: bool,
    /// The server has said something, be it in advance.
    touched: bool,
    /// Last: the place is free once the stream has gone.
    slot: Slot,
}

struct Outgoing {
    stream: SendStream<Bytes>,
    /// Bytes of the body that are still to come; `None`: that was not said.
    left: Option<u64>,
    /// What is to follow it.
    trailers: Option<HeaderMap>,
    is_ended: bool,
}

enum Stage {
    Idle,
    Head {
        response: ResponseFuture,
        method: Method,
    },
    Body {
        stream: RecvStream,
        /// Bytes that are still to come; `None`: that was not said.
        left: Option<u64>,
    },
    Done {
        trailers: Option<HeaderMap>,
    },
    Failed,
}

impl H2Stream {
    pub(super) fn new(slot: Slot) -> H2Stream {
        H2Stream { out: None, stage: Stage::Idle, begun: false, touched: false, slot }
    }

    /// Sends a request's head.
    ///
    /// # Errors
    /// `Reset` and the like: the connection takes no more requests; nothing was sent. `Other`: HTTP/2 cannot say it.
    pub(in crate::origin) async fn send_head(&mut self, head: &RequestHead) -> Result<(), WireError> {
        if !matches!(self.stage, Stage::Idle) {
            return Err(WireError::new(FailureKind::Other, "the stream is in use"));
        }
        let left = match head.body {
            BodyLength::None => Some(0),
            BodyLength::Known(length) => Some(length),
            BodyLength::Chunked | BodyLength::UntilClose => None,
        };
        let is_ended = left == Some(0);
        let shared = &self.slot.shared;
        let request = head::request(head, shared.is_tls)?;
        let mut sender = shared.sender.clone();
        let sent = poll_fn(|cx| sender.poll_ready(cx)).await.and_then(|()| sender.send_request(request, is_ended));
        let (response, stream) = sent.map_err(|error| WireError { untouched: true, ..shared.life.error(error) })?;
        self.out = Some(Outgoing { stream, left, trailers: None, is_ended });
        self.stage = Stage::Head { response, method: head.method.clone() };
        Ok(())
    }

    /// Sends a part of the request's body; ready when all of `data` is taken, as far as the server's window and a bounded
    /// buffer allow.
    ///
    /// # Errors
    /// `Reset` and the like: the server has reset the stream, perhaps after an answer. `Other`: it is not what the head
    /// has announced.
    pub(in crate::origin) fn poll_send_body(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), WireError>> {
        let Some(out) = &mut self.out else { return Poll::Ready(Err(out_of_turn())) };
        if let Err(why) = out.check(data.len() as u64, end) {
            return Poll::Ready(Err(WireError { begun: self.begun, ..WireError::new(FailureKind::Other, why) }));
        }
        let sent = ready!(out.poll_send(&self.slot.shared.life, cx, data, end));
        Poll::Ready(sent.map_err(|error| self.marked(error)))
    }

    /// What is to follow the request's body, if its length was not said: it has ended else with its last byte. Before its
    /// end is sent.
    pub(in crate::origin) fn set_trailers(&mut self, trailers: &HeaderMap) {
        if let Some(out) = &mut self.out
            && out.left.is_none()
            && !trailers.is_empty()
        {
            out.trailers = Some(trailers.clone());
        }
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
    /// `Reset`: the stream or the connection ended. `Timeout`: the server no longer answers. `Invalid`: what came is no
    /// response.
    pub(in crate::origin) fn poll_read_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, WireError>> {
        let Stage::Head { response, method } = &mut self.stage else { return Poll::Ready(Err(out_of_turn())) };
        // The response's own future throws interim responses away: it is asked only where there is none ahead.
        let interim = match ready!(response.poll_informational(cx)) {
            Some(Ok(interim)) => Some(interim),
            Some(Err(error)) => return Poll::Ready(Err(self.fail(error))),
            None => None,
        };
        if let Some(interim) = interim {
            self.touched = true;
            let read = head::response(interim.status(), interim.headers(), BodyLength::None, true);
            return Poll::Ready(read.map_err(|error| self.refuse(error)));
        }
        let response = match ready!(Pin::new(response).poll(cx)) {
            Ok(response) => response,
            Err(error) => return Poll::Ready(Err(self.fail(error))),
        };
        self.begun = true;
        let (parts, stream) = response.into_parts();
        let body = head::body(parts.status, &parts.headers, method, stream.is_end_stream());
        let is_bodiless = head::is_bodiless(parts.status, method);
        let read = head::response(parts.status, &parts.headers, body, is_bodiless);
        self.stage = match body {
            BodyLength::None if is_bodiless => Stage::Done { trailers: None },
            BodyLength::None => Stage::Body { stream, left: Some(0) },
            BodyLength::Known(length) => Stage::Body { stream, left: Some(length) },
            BodyLength::Chunked | BodyLength::UntilClose => Stage::Body { stream, left: None },
        };
        Poll::Ready(read.map_err(|error| self.refuse(error)))
    }

    /// The next piece of the response's body, never empty; `None`: the end, and it was complete.
    ///
    /// # Errors
    /// As for heads.
    pub(in crate::origin) fn poll_read_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, WireError>> {
        let (stream, left) = match &mut self.stage {
            Stage::Body { stream, left } => (stream, left),
            Stage::Done { .. } => return Poll::Ready(Ok(None)),
            Stage::Idle | Stage::Head { .. } | Stage::Failed => return Poll::Ready(Err(out_of_turn())),
        };
        loop {
            let data = match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => data,
                Some(Err(error)) => return Poll::Ready(Err(self.fail(error))),
                None => break,
            };
            // The server may send as much again as has been taken. What fails here fails with the next read.
            let _ = stream.flow_control().release_capacity(data.len());
            if let Some(left) = left {
                match left.checked_sub(data.len() as u64) {
                    Some(rest) => *left = rest,
                    None => return Poll::Ready(Err(self.refuse(invalid("a body longer than it says")))),
                }
            }
            if !data.is_empty() {
                return Poll::Ready(Ok(Some(data)));
            }
        }
        if let Some(left @ 1..) = *left {
            let why = format!("the stream ended {left} bytes early");
            return Poll::Ready(Err(self.refuse(WireError::new(FailureKind::Reset, why))));
        }
        match ready!(stream.poll_trailers(cx)) {
            Ok(trailers) => self.stage = Stage::Done { trailers },
            Err(error) => return Poll::Ready(Err(self.fail(error))),
        }
        Poll::Ready(Ok(None))
    }

    /// The fields after the body, once, after its end. They are not to be merged into the head's (RFC 9110 §6.5.1).
    pub(in crate::origin) fn trailers(&mut self) -> Option<HeaderMap> {
        match &mut self.stage {
            Stage::Done { trailers } => trailers.take(),
            _ => None,
        }
    }

    fn fail(&mut self, error: ::h2::Error) -> WireError {
        self.stage = Stage::Failed;
        self.marked(self.slot.shared.life.error(error))
    }

    fn refuse(&mut self, error: WireError) -> WireError {
        self.stage = Stage::Failed;
        self.marked(error)
    }

    fn marked(&self, error: WireError) -> WireError {
        WireError { begun: self.begun, untouched: error.untouched && !self.begun && !self.touched, ..error }
    }
}

impl Outgoing {
    fn check(&self, length: u64, end: bool) -> Result<(), &'static str> {
        match self.left {
            Some(0) if length > 0 => Err("the request has no body, or no more of it"),
            Some(left) if length > left => Err("the request's body is longer than it says"),
            Some(left) if end && length < left => Err("the request's body is shorter than it says"),
            None if self.is_ended && length > 0 => Err("the request's body has ended"),
            _ => Ok(()),
        }
    }

    fn poll_send(
        &mut self,
        life: &Life,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), WireError>> {
        while !data.is_empty() {
            self.stream.reserve_capacity(data.len().min(MAX_SEND_BUFFER));
            let room = self.stream.capacity();
            if room == 0 {
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Poll::Ready(Err(self.lost(life, cx, Some(error)))),
                    None => return Poll::Ready(Err(self.lost(life, cx, None))),
                }
            }
            let piece = data.split_to(room.min(data.len()));
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(piece.len() as u64);
            }
            self.is_ended = self.left == Some(0) || end && data.is_empty() && self.trailers.is_none();
            if let Err(error) = self.stream.send_data(piece, self.is_ended) {
                return Poll::Ready(Err(self.lost(life, cx, Some(error))));
            }
        }
        if end && !self.is_ended {
            self.is_ended = true;
            let sent = match self.trailers.take() {
                Some(trailers) => self.stream.send_trailers(trailers),
                None => self.stream.send_data(Bytes::new(), true),
            };
            if let Err(error) = sent {
                return Poll::Ready(Err(self.lost(life, cx, Some(error))));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Why nothing more can be sent: mostly, the stream or the connection has ended, which `error` does not say.
    fn lost(&mut self, life: &Life, cx: &mut Context<'_>, error: Option<::h2::Error>) -> WireError {
        match (self.stream.poll_reset(cx), error) {
            (Poll::Ready(Ok(reason)), _) => drive::reset(reason),
            (Poll::Ready(Err(error)), _) | (Poll::Pending, Some(error)) => life.error(error),
            (Poll::Pending, None) => WireError::new(FailureKind::Reset, "the stream has ended"),
        }
    }
}

fn out_of_turn() -> WireError {
    WireError::new(FailureKind::Other, "nothing of the kind is to be sent or read")
}

fn invalid(why: &'static str) -> WireError {
    WireError::new(FailureKind::Invalid, why)
}
