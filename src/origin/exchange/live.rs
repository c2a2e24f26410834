//! An exchange that has a connection: the rest of the request on its way out, the response on its way in.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::{Instant, Sleep, sleep_until};

use super::upload::Upload;
use crate::origin::failure::FailureKind;
use crate::origin::health::{Outcome, TryResult};
use crate::origin::member::Member;
use crate::origin::pool::Chosen;
use crate::origin::wire::{ResponseHead, Wire, WireError};

/// What of a tunnel is sent at once.
const TUNNEL_PIECE: usize = 64 * 1024;

/// A request that is with a server.
pub(super) struct Live {
    wire: Wire,
    /// Counts it as one of the server's for as long as this lives.
    pub(super) chosen: Chosen,
    upload: Sending,
    /// Why the rest of the body did not go out. The answer may be there all the same.
    unsent: Option<WireError>,
    pause: Pause,
    limits: Limits,
    verdict: Verdict,
}

/// What the server is told to have done, when all is done: an answer counts as one once it is the whole. That a client
/// does not wait for its end is no fault of the server's.
struct Verdict {
    member: Arc<Member>,
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) read: Duration,
    pub(super) write: Duration,
    /// Client and server talk to each other for as long as they like, or the client need not say more: `read` is how long
    /// both may say nothing.
    pub(super) dialogue: bool,
}

enum Sending {
    Body { upload: Upload, piece: Bytes, ended: bool },
    Done(Option<Upload>),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// More of the request's body.
    Client,
    /// The server to take more of it.
    Taking,
    /// The server to say more.
    Answer,
}

impl Live {
    pub(super) fn new(wire: Wire, chosen: Chosen, upload: Option<Upload>, limits: Limits) -> Live {
        let upload = match upload {
            Some(upload) => Sending::Body { upload, piece: Bytes::new(), ended: false },
            None => Sending::Done(None),
        };
        let verdict = Verdict { member: chosen.member.clone(), outcome: None };
        Live { wire, chosen, upload, unsent: None, pause: Pause::default(), limits, verdict }
    }

    /// A final response has begun to come, so long after the try began.
    pub(super) fn answered(&mut self, status: u16, latency: Duration) {
        self.chosen.answered(latency);
        self.verdict.outcome = Some(Outcome { result: TryResult::Answered(status), latency });
    }

    /// It does not come to its end, so long after the try began.
    pub(super) fn broke_off(&mut self, kind: FailureKind, latency: Duration) {
        self.verdict.outcome = Some(Outcome { result: TryResult::Failed(kind), latency });
    }

    /// The head of the next response: an interim one or the final one.
    pub(super) async fn next_head(&mut self) -> Result<ResponseHead, WireError> {
        poll_fn(|cx| self.poll_head(cx)).await
    }

    /// As [`Live::next_head`].
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, WireError>> {
        let waiting = self.poll_upload(cx);
        match self.wire.poll_read_head(cx) {
            Poll::Ready(Ok(head)) => {
                self.pause.over();
                self.give_up_unsent();
                Poll::Ready(Ok(head))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_pause(cx, waiting).map(Err),
        }
    }

    /// Some of the final response's body; `None`: it is complete.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, WireError>> {
        let waiting = self.poll_upload(cx);
        self.give_up_unsent();
        match self.wire.poll_read_body(cx) {
            Poll::Ready(data) => {
                self.pause.over();
                Poll::Ready(data)
            }
            Poll::Pending => self.poll_pause(cx, waiting).map(|mut error| {
                error.begun = true;
                Err(error)
            }),
        }
    }

    /// Whether the request could be sent again.
    pub(super) fn can_rewind(&self) -> bool {
        match &self.upload {
            Sending::Body { upload, .. } | Sending::Done(Some(upload)) => upload.can_rewind(),
            Sending::Done(None) => true,
        }
    }

    /// This answer is the one that counts: the request is not sent again.
    pub(super) fn settle(&mut self) {
        if let Sending::Body { upload, .. } | Sending::Done(Some(upload)) = &mut self.upload {
            upload.settle();
        }
    }

    /// The client need not send the rest of the request's body: the server's time runs though it does not.
    pub(super) fn waive_upload(&mut self) {
        self.limits.dialogue = true;
    }

    /// The fields behind the final response's body, once, after its end.
    pub(super) fn trailers(&mut self) -> Option<HeaderMap> {
        self.wire.trailers()
    }

    /// The server, and the request's body for another try.
    pub(super) fn into_parts(self) -> (Chosen, Option<Upload>) {
        let upload = match self.upload {
            Sending::Body { upload, .. } => Some(upload),
            Sending::Done(upload) => upload,
        };
        (self.chosen, upload)
    }

    /// The response is complete: the connection is kept for the next request if it can be.
    pub(super) fn finish(self) {
        if let Sending::Done(_) = self.upload {
            self.wire.finish();
        }
    }

    /// After a 101: sends something in the other protocol; how much.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut data = Bytes::copy_from_slice(buf.get(..TUNNEL_PIECE).unwrap_or(buf));
        let before = data.len();
        let sent = self.wire.poll_send_body(cx, &mut data, false);
        let taken = before - data.len();
        if taken > 0 {
            self.pause.over();
            return Poll::Ready(Ok(taken));
        }
        sent.map(|sent| sent.map(|()| taken).map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error.why)))
    }

    /// After a 101: nothing more is sent.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.wire.poll_send_body(cx, &mut Bytes::new(), true);
        sent.map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error.why))
    }

    /// Sends on what there is of the request's body.
    pub(super) fn push(&mut self, cx: &mut Context<'_>) {
        self.poll_upload(cx);
        self.give_up_unsent();
    }

    pub(super) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Waiting {
        loop {
            let Sending::Body { upload, piece, ended } = &mut self.upload else { return Waiting::Answer };
            if piece.is_empty() && !*ended {
                match upload.poll_next(cx) {
                    Poll::Ready(Some(next)) => *piece = next,
                    Poll::Ready(None) => {
                        *ended = true;
                        if let Some(trailers) = upload.trailers() {
                            self.wire.set_trailers(&trailers);
                        }
                    }
                    Poll::Pending => return Waiting::Client,
                }
            }
            let (before, last) = (piece.len(), *ended);
            let sent = self.wire.poll_send_body(cx, piece, last);
            if piece.len() < before {
                self.pause.over();
            }
            match sent {
                Poll::Ready(Ok(())) if !last => {}
                Poll::Ready(Ok(())) => self.sent(),
                Poll::Ready(Err(error)) => {
                    // A server may answer without reading all of it: what it says counts. If it says nothing, another
                    // one is asked, by the same body.
                    self.unsent = Some(error);
                    self.sent();
                    return Waiting::Answer;
                }
                Poll::Pending => return Waiting::Taking,
            }
        }
    }

    fn sent(&mut self) {
        if let Sending::Body { upload, .. } = std::mem::replace(&mut self.upload, Sending::Done(None)) {
            self.upload = Sending::Done(Some(upload));
        }
    }

    /// Once the server has answered, nobody takes what it has not read of the body.
    fn give_up_unsent(&mut self) {
        if let (Some(_), Sending::Done(Some(upload))) = (&self.unsent, &mut self.upload) {
            upload.close();
        }
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>, waiting: Waiting) -> Poll<WireError> {
        let limit = match waiting {
            // How long that may take is between the client and the edge.
            Waiting::Client if !self.limits.dialogue => {
                self.pause.over();
                return Poll::Pending;
            }
            Waiting::Taking => self.limits.write,
            Waiting::Client | Waiting::Answer => self.limits.read,
        };
        ready!(self.pause.poll(cx, limit));
        let what = match waiting {
            Waiting::Client => "and the client said nothing",
            Waiting::Taking => "took nothing of the request",
            Waiting::Answer => "said nothing",
        };
        Poll::Ready(WireError::new(FailureKind::Timeout, format!("the server {what} for {limit:?}")))
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        if let Some(outcome) = &self.outcome {
            self.member.report(outcome);
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("chosen", &self.chosen).finish_non_exhaustive()
    }
}

/// How long nothing has happened. A timer is made where something is waited for, and used again.
#[derive(Debug, Default)]
struct Pause {
    sleep: Option<Pin<Box<Sleep>>>,
    /// The timer has been set for what is waited for now.
    running: bool,
}

impl Pause {
    /// Something has happened.
    fn over(&mut self) {
        self.running = false;
    }

    fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let deadline = || Instant::now() + limit;
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if !self.running {
                    sleep.as_mut().reset(deadline());
                }
                sleep
            }
            none => none.insert(Box::pin(sleep_until(deadline()))),
        };
        self.running = true;
        sleep.as_mut().poll(cx)
    }
}
