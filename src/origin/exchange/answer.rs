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
        Ok(Answer { exchange: self.clone(), live: Some(live), head })
    }
}

impl Answer {
    /// The head that has come last, in the form of HTTP/1.1: interim (1xx) or final.
    pub fn head(&self) -> &Bytes {
        &self.head.wire
    }

    /// Its status.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// Whether a body follows the final head.
    pub fn has_body(&self) -> bool {
        self.head.body != BodyLength::None
    }

    /// Waits for the head that follows an interim one.
    ///
    /// # Errors
    /// The connection has failed, or takes too long.
    pub async fn next_head(&mut self) -> Result<(), Failure> {
        let Some(live) = &mut self.live else { return Ok(()) };
        match live.next_head().await {
            Ok(head) => {
                self.exchange.final_head(live, &head);
                self.head = head;
                Ok(())
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// More of the body; `None`: it is complete, and the connection has been given back.
    ///
    /// # Errors
    /// The connection has failed, or takes too long: what has come is not the whole.
    pub async fn data(&mut self) -> Result<Option<Bytes>, Failure> {
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
        if let Some(live) = self.live.take() {
            self.exchange.broke_off(&live, error);
        }
        self.exchange.fails(Failure::of(error))
    }
}
