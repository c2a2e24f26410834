//! Interim responses (1xx, RFC 9110 §15.2), on their way past the tries that they come in.
//!
//! They leave for the client at once. Another server may still be asked after one: nothing of the response that counts has
//! come.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::Exchange;

/// Heads that wait to be taken: nothing slows a server down that never stops sending them.
const MAX: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Interims(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    heads: VecDeque<Bytes>,
    taker: Option<Waker>,
}

impl Exchange {
    /// The head of the next interim response, in the form of HTTP/1.1. Waits for one for ever.
    pub async fn interim(&self) -> Bytes {
        poll_fn(|cx| self.interims.poll_take(cx)).await
    }

    /// The same if there is one already.
    pub fn interim_now(&self) -> Option<Bytes> {
        self.interims.lock().heads.pop_front()
    }

    /// One has come. More than anybody takes are dropped.
    pub(super) fn pass_on(&self, head: Bytes) {
        let mut waiting = self.interims.lock();
        if waiting.heads.len() < MAX {
            waiting.heads.push_back(head);
        }
        if let Some(taker) = waiting.taker.take() {
            taker.wake();
        }
    }
}

impl Interims {
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let mut waiting = self.lock();
        if let Some(head) = waiting.heads.pop_front() {
            return Poll::Ready(head);
        }
        waiting.taker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
