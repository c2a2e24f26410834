//! An exchange as the way past Pingora sees it: a request without a body, and the answer piece by piece.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;

use super::live::Live;
use super::tries::Begun;
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
}

impl Exchange {
    /// Asks for an answer to a request without a body. `wire`: its head in the form of HTTP/1.1, complete.
    ///
    /// # Errors
    /// No server has answered.
    pub async fn ask_for(self: &Arc<Self>, method: Method, wire: Bytes) -> Result<Answer, Failure> {
        let head = RequestHead { method, wire, body: BodyLength::None };
        let Begun { live, head } = self.begin(&head, None).await?;
        Ok(Answer { exchange: self.clone(), live: Some(live), failure: None, head })
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
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let Some(live) = &mut self.live else { return Ok(None) };
        match live.next_data().await {
            Ok(Some(data)) => Ok(Some(data)),
            Ok(None) => {
                if let Some(live) = self.live.take() {
                    live.finish();
                }
                Ok(None)
            }
            Err(error) => Err(self.failed(&error)),
        }
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
