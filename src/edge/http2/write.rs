//! A response on its way out: its head, the pieces of its body as the client's window lets them go, its end.
//!
//! What is to be written is kept here rather than in the future that writes it: the proxy drops that future whenever the
//! origin has something, and begins another one. Nothing is lost by that, and nothing sent twice.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, SERVER, TE, TRANSFER_ENCODING, UPGRADE};
use http::response::Parts;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::{HttpTask, SERVER_NAME};
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::super::fallback::Retained;
use super::super::interim::Now;
use super::super::pace::{self, Pacer};
use super::patience::Patience;
use super::tail::{Tail, Tracked};

/// Bytes that a stream asks room for at a time. What it is given of the connection's window, the others do not get, even
/// if its own client then reads nothing.
const STEP: usize = 64 * 1024;

/// Fields of HTTP/1.1's connections, of which there are none here (RFC 9113 §8.2.2).
static HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The sending half of a stream.
pub struct Outgoing {
    respond: SendResponse<Tracked>,
    /// Once the head has gone.
    stream: Option<SendStream<Tracked>>,
    /// What of the body has been handed over to HTTP/2 and not left.
    tail: Arc<Tail>,
    /// A head that waits for its body (see [`Retained`]).
    retained: Option<Box<ResponseHeader>>,
    /// The head that has gone: its status, since the fields went with it.
    head: Option<Box<ResponseHeader>>,
    is_head_request: bool,
    /// Bytes of the body, as its head says.
    length: Option<u64>,
    sent: u64,
    /// Nothing more can be sent: the end has been, or a reset.
    ended: bool,
    /// What is being written, and what comes after it.
    piece: Option<Piece>,
    tasks: VecDeque<HttpTask>,
    /// How long the client may take nothing, or less than it must.
    pub patience: Patience,
    /// How fast the response leaves (see [`pace::begin`]).
    pacer: Option<Box<Pacer>>,
}

/// What is left to be written of a part of the body.
struct Piece {
    data: Bytes,
    /// It is the last.
    last: bool,
}

impl Outgoing {
    /// `min_rate`: bytes a second that the client must take, over each time limit's worth of waiting for it.
    pub fn new(respond: SendResponse<Tracked>, tail: Arc<Tail>, method: &Method, min_rate: Option<u64>) -> Outgoing {
        Outgoing {
            respond,
            stream: None,
            tail,
            retained: None,
            head: None,
            is_head_request: method == Method::HEAD,
            length: None,
            sent: 0,
            ended: false,
            piece: None,
            tasks: VecDeque::new(),
            patience: Patience::new(min_rate),
            pacer: None,
        }
    }

    /// The status of the final response, if it has begun, in a head without fields.
    pub fn head(&self) -> Option<&ResponseHeader> {
        self.head.as_deref()
    }

    /// Bytes of the body that have been handed over to HTTP/2.
    pub fn sent(&self) -> usize {
        usize::try_from(self.sent).unwrap_or(usize::MAX)
    }

    /// Sends a head; `last`: no body follows.
    ///
    /// An interim response goes only if it is marked as one to be sent (see [`Now`]), and only before the final one, of
    /// which there is one. The origin's Date stays (RFC 9110 §6.6.1).
    ///
    /// # Errors
    /// The client has given the request up.
    pub fn write_head(&mut self, mut head: Box<ResponseHeader>, last: bool) -> Result<()> {
        if self.ended || self.head.is_some() {
            return Ok(());
        }
        let status = head.status;
        let is_interim = status.is_informational();
        if is_interim && (status == StatusCode::SWITCHING_PROTOCOLS || head.extensions.get::<Now>().is_none()) {
            return Ok(());
        }
        for name in &HOP_BY_HOP {
            head.remove_header(name);
        }
        if is_interim {
            let parts = Parts::from(*head);
            return self.respond.send_informational(Response::from_parts(parts, ())).map_err(|e| gone(&e));
        }
        self.retained = None;
        if !last && head.extensions_mut().remove::<Retained>().is_some() {
            self.retained = Some(head);
            return Ok(());
        }
        self.pacer = head.extensions_mut().remove().map(Pacer::new);
        if is_ready_made(&head) {
            head.remove_header(&DATE);
            head.remove_header(&SERVER);
        }
        if !head.headers.contains_key(DATE) {
            head.insert_header(DATE, get_cached_date())?;
        }
        let last = last || self.is_head_request || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if !last {
            self.length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        }
        // The fields need not be there twice.
        let sent = ResponseHeader::build_no_case(status, None)?;
        let parts = Parts::from(std::mem::replace(&mut *head, sent));
        let stream = self.respond.send_response(Response::from_parts(parts, ()), last).map_err(|e| gone(&e))?;
        self.stream = Some(stream);
        self.head = Some(head);
        self.ended = last;
        Ok(())
    }

    /// Sends a part of the body; `last`: the last.
    ///
    /// # Errors
    /// The client has given the request up, or takes nothing for as long as it may (`WriteTimedout`), or the body is not
    /// as long as was said.
    pub async fn write_body(&mut self, data: Bytes, last: bool) -> Result<()> {
        self.write_tasks().await?;
        self.begin(data, last)?;
        poll_fn(|cx| self.poll_piece(cx)).await
    }

    /// Sends the trailers, which end the response.
    ///
    /// # Errors
    /// As [`Outgoing::write_body`].
    pub fn write_trailers(&mut self, mut trailers: HeaderMap) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.let_go()?;
        self.expect_whole(self.sent)?;
        let Some(stream) = &mut self.stream else { return Err(headless()) };
        for name in &HOP_BY_HOP {
            trailers.remove(name);
        }
        let sent = stream.send_trailers(trailers);
        self.ended = true;
        sent.map_err(|e| self.lost(gone(&e)))
    }

    /// Ends the response, once everything has been written. Does nothing where it has ended, or never began.
    ///
    /// # Errors
    /// As [`Outgoing::write_body`].
    pub async fn finish(&mut self) -> Result<()> {
        self.write_tasks().await?;
        self.end()
    }

    /// Gives the response up: the client is told that what it has is not the whole, and in a word why.
    pub fn abandon(&mut self, reason: Reason) {
        if !self.ended {
            self.reset(reason);
        }
    }

    /// Hands the parts of the body that are to be written over to HTTP/2 at once, beyond what the client has room for:
    /// so that whoever wants to write next waits for the client, rather than for its turn.
    pub fn hand_over(&mut self) {
        loop {
            let next = match self.piece.take() {
                Some(piece) => piece,
                None => match self.tasks.pop_front() {
                    Some(HttpTask::Body(data, last)) => Piece { data: data.unwrap_or_default(), last },
                    Some(other) => return self.tasks.push_front(other),
                    None => return,
                },
            };
            let Some(stream) = self.stream.as_mut().filter(|_| !next.last) else {
                self.piece = Some(next);
                return;
            };
            let length = next.data.len() as u64;
            // That it fails is noticed by whoever writes next.
            if length > 0 && stream.send_data(Tracked::new(next.data, &self.tail), false).is_ok() {
                self.sent += length;
                pace::sent(&mut self.pacer, usize::try_from(length).unwrap_or(usize::MAX));
            }
        }
    }

    /// Adds to what is to be written.
    pub fn add(&mut self, task: HttpTask) {
        self.tasks.push_back(task);
    }

    /// Whether there is something to be written.
    pub fn has_tasks(&self) -> bool {
        self.piece.is_some() || !self.tasks.is_empty()
    }

    /// Writes what is to be written; whether that was the end of the response. The future may be dropped at any time, and
    /// another one goes on from there.
    ///
    /// # Errors
    /// As [`Outgoing::write_body`], and a failure that was among the tasks.
    pub async fn write_tasks(&mut self) -> Result<bool> {
        let mut is_last = false;
        loop {
            if self.piece.is_some() {
                poll_fn(|cx| self.poll_piece(cx)).await?;
            }
            match self.tasks.pop_front() {
                None => break,
                Some(HttpTask::Header(head, last)) => {
                    self.write_head(head, last)?;
                    is_last |= last;
                }
                Some(HttpTask::Body(data, last)) => {
                    self.begin(data.unwrap_or_default(), last)?;
                    is_last |= last;
                }
                Some(HttpTask::Trailer(Some(trailers))) => {
                    self.write_trailers(*trailers)?;
                    is_last = true;
                }
                Some(HttpTask::Trailer(None) | HttpTask::Done) => {
                    self.end()?;
                    is_last = true;
                }
                Some(HttpTask::Failed(e)) => {
                    self.tasks.clear();
                    return Err(e);
                }
                // A tunnel belongs to HTTP/1.1 (RFC 9113 §8.6), and no request asked for one.
                Some(HttpTask::UpgradedBody(..)) => {
                    return Error::e_explain(ErrorType::InternalError, "a tunnel's bytes for an HTTP/2 stream");
                }
            }
        }
        if is_last {
            self.end()?;
        }
        Ok(is_last || self.ended)
    }

    /// Waits until the client resets the stream or its connection ends.
    pub async fn gone(&mut self) -> Box<Error> {
        let end = poll_fn(|cx| match &mut self.stream {
            Some(stream) => stream.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        });
        match end.await {
            Ok(reason) => closed(format!("the client has reset the stream: {reason}")),
            Err(e) => gone(&e),
        }
    }

    /// Takes a part of the body to be written by [`Outgoing::poll_piece`].
    fn begin(&mut self, data: Bytes, last: bool) -> Result<()> {
        if self.ended || (data.is_empty() && !last) {
            return Ok(());
        }
        self.let_go()?;
        if self.stream.is_none() {
            return Err(headless());
        }
        self.piece = Some(Piece { data, last });
        Ok(())
    }

    /// Sends a head that has waited for its body.
    fn let_go(&mut self) -> Result<()> {
        match self.retained.take() {
            Some(head) => self.write_head(head, false),
            None => Ok(()),
        }
    }

    /// Gives to HTTP/2 what the client has room for, until nothing is left of the piece.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while let (Some(piece), Some(stream)) = (&mut self.piece, &mut self.stream) {
            if piece.data.is_empty() {
                let last = piece.last;
                self.piece = None;
                return Poll::Ready(if last { self.end() } else { Ok(()) });
            }
            let room = ready!(pace::poll_room(&mut self.pacer, cx));
            let wanted = piece.data.len().min(STEP).min(room);
            stream.reserve_capacity(wanted);
            let room = match stream.capacity() {
                0 => match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(room))) => room,
                    Poll::Ready(Some(Err(e))) => return Poll::Ready(Err(self.lost(gone(&e)))),
                    Poll::Ready(None) => {
                        return Poll::Ready(Err(self.lost(closed("the client has reset the stream".into()))));
                    }
                    Poll::Pending => {
                        return self.patience.poll_spent(cx).map(|limit| {
                            self.reset(Reason::CANCEL);
                            let why =
                                format!("the client has taken nothing of a response, or too little, for {limit:?}");
                            Err(failed(ErrorType::WriteTimedout, why))
                        });
                    }
                },
                room => room,
            };
            let part = piece.data.split_to(room.min(wanted));
            self.patience.moved(part.len());
            let sent = self.sent + part.len() as u64;
            let last = piece.last && piece.data.is_empty();
            if last {
                self.expect_whole(sent)?;
            }
            let Some(stream) = &mut self.stream else { break };
            if let Err(e) = stream.send_data(Tracked::new(part, &self.tail), last) {
                return Poll::Ready(Err(self.lost(gone(&e))));
            }
            pace::sent(&mut self.pacer, usize::try_from(sent - self.sent).unwrap_or(usize::MAX));
            self.sent = sent;
            if last {
                self.ended = true;
                self.piece = None;
            } else if self.piece.as_ref().is_some_and(|piece| piece.data.is_empty()) {
                self.piece = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says that the response is whole.
    fn end(&mut self) -> Result<()> {
        self.let_go()?;
        if self.ended || self.stream.is_none() {
            return Ok(());
        }
        self.expect_whole(self.sent)?;
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let sent = stream.send_data(Tracked::new(Bytes::new(), &self.tail), true);
        self.ended = true;
        sent.map_err(|e| self.lost(gone(&e)))
    }

    /// A response that is not as long as its head says must not look whole (RFC 9113 §8.1.1).
    fn expect_whole(&mut self, sent: u64) -> Result<()> {
        match self.length {
            Some(length) if length != sent => {
                self.reset(Reason::INTERNAL_ERROR);
                let why = format!("a body of {sent} bytes for a Content-Length of {length}");
                Err(Error::explain(ErrorType::InternalError, why))
            }
            _ => Ok(()),
        }
    }

    fn reset(&mut self, reason: Reason) {
        self.respond.send_reset(reason);
        self.lose();
    }

    /// Nobody is there to write to.
    fn lost(&mut self, e: Box<Error>) -> Box<Error> {
        self.lose();
        e
    }

    fn lose(&mut self) {
        self.ended = true;
        self.piece = None;
        self.tasks.clear();
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // Left to itself, HTTP/2 would reset the stream only once the client has taken what was written.
        self.abandon(Reason::INTERNAL_ERROR);
        if let (Some(stream), Some(limit)) = (self.stream.take(), self.patience.limit()) {
            self.tail.leave(stream, limit, self.patience.rate());
        }
    }
}

/// Whether a head is one of those that Pingora's session has ready for requests that it refuses itself: they say that
/// they come from Pingora, in 1994, and expect the session to put the time in its place.
fn is_ready_made(head: &ResponseHeader) -> bool {
    let has = |name, said: &[u8]| head.headers.get(name).is_some_and(|value| value.as_bytes() == said);
    has(DATE, b"Sun, 06 Nov 1994 08:49:37 GMT") && has(SERVER, SERVER_NAME)
}

fn gone(e: &h2::Error) -> Box<Error> {
    closed(format!("the client is gone: {e}"))
}

fn closed(why: String) -> Box<Error> {
    failed(ErrorType::ConnectionClosed, why)
}

fn failed(kind: ErrorType, why: String) -> Box<Error> {
    Error::create(kind, ErrorSource::Downstream, Some(why.into()), None)
}

fn headless() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a body before its head")
}

#[cfg(test)]
mod tests {
    use pingora::protocols::http::error_resp::gen_error_response;

    use super::*;

    #[test]
    fn what_pingora_has_ready_is_told_from_an_origins_head() {
        assert!(is_ready_made(&gen_error_response(400)));
        let mut other = gen_error_response(400);
        other.insert_header(SERVER, "nginx").unwrap();
        assert!(!is_ready_made(&other));
        let mut dated = gen_error_response(400);
        dated.insert_header(DATE, get_cached_date()).unwrap();
        assert!(!is_ready_made(&dated));
    }
}
