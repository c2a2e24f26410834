//! An exchange as the way past Pingora sees it: a request, with its body as it comes, and the answer piece by piece.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::live::Live;
use super::tries::Begun;
use super::upload::{Feed, Upload, upload};
use super::{Exchange, Failure};
use crate::origin::wire::{BodyLength, RequestHead, ResponseHead, WireError};

/// What a server says to a request.
#[derive(Debug)]
pub struct Answer {
    exchange: Arc<Exchange>,
    /// `None`: all of it has come.
    live: Option<Live>,
    /// The rest of it does not come.
    failure: Option<Failure>,
    head: ResponseHead,
    trailers: Option<HeaderMap>,
}

/// A request's body, while it comes.
#[derive(Debug)]
pub struct Body {
    upload: Upload,
    length: Option<u64>,
}

/// A body, and the end that it is filled from. `length`: in bytes, from 1, as the head says; `None`: the head says that it
/// comes in chunks.
pub fn body(length: Option<u64>) -> (Feed, Body) {
    let (feed, upload) = upload();
    (feed, Body { upload, length })
}

impl Exchange {
    /// Asks for an answer to a request. `wire`: its head in the form of HTTP/1.1, complete; `body`: what follows it, framed
    /// as the head says.
    ///
    /// The body goes on its way while this, and then the answer's data, is waited for.
    ///
    /// # Errors
    /// No server has answered.
    pub async fn ask_for(self: &Arc<Self>, method: Method, wire: Bytes, body: Option<Body>) -> Result<Answer, Failure> {
        let (length, upload) = match body {
            None => (BodyLength::None, None),
            Some(Body { upload, length }) => (length.map_or(BodyLength::Chunked, BodyLength::Known), Some(upload)),
        };
        let head = RequestHead { method, wire, body: length };
        let Begun { mut live, head } = self.begin(&head, upload).await?;
        live.settle();
        Ok(Answer { exchange: self.clone(), live: Some(live), failure: None, head, trailers: None })
    }
}

impl Answer {
    /// Its head, in the form of HTTP/1.1.
    pub fn head(&self) -> &Bytes {
        &self.head.wire
    }

    /// Its status, from 200.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// Whether a body follows.
    pub fn has_body(&self) -> bool {
        self.head.body != BodyLength::None
    }

    /// More of the body; `None`: it is complete, and the connection has been given back.
    ///
    /// # Errors
    /// The connection has failed, or takes too long: what has come is not the whole.
    pub async fn data(&mut self) -> Result<Option<Bytes>, Failure> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// The same, polled.
    ///
    /// # Errors
    /// As [`Answer::data`].
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        if let Some(failure) = &self.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        let Some(live) = &mut self.live else { return Poll::Ready(Ok(None)) };
        Poll::Ready(match ready!(live.poll_data(cx)) {
            Ok(Some(data)) => Ok(Some(data)),
            Ok(None) => {
                self.trailers = live.trailers();
                if let Some(live) = self.live.take() {
                    live.finish();
                }
                Ok(None)
            }
            Err(error) => Err(self.failed(&error)),
        })
    }

    /// Sends on what there is of the request's body, where the answer's is not asked for.
    pub fn push(&mut self, cx: &mut Context<'_>) {
        if let Some(live) = &mut self.live {
            live.push(cx);
        }
    }

    /// The client need not send the rest of the request's body: that it does not is no reason to wait for the server longer
    /// than its `read_timeout`.
    pub fn waive_upload(&mut self) {
        if let Some(live) = &mut self.live {
            live.waive_upload();
        }
    }

    /// The fields behind the body, once, after its end.
    pub fn trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    fn failed(&mut self, error: &WireError) -> Failure {
        if let Some(mut live) = self.live.take() {
            self.exchange.broke_off(&mut live, error);
        }
        let failure = self.exchange.fails(Failure::of(error));
        self.failure = Some(failure.clone());
        failure
    }
}
