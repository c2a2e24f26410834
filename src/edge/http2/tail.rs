//! What HTTP/2 still has of a response when everything has been written: bytes that wait for the client's window.
//!
//! Nobody serves the request any more, so nobody's patience with the client applies to them. A client that closes its
//! window at the end of each response would have as much memory as it likes for as long as it likes.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use bytes::{Buf, Bytes};
use h2::{Reason, SendStream};
use tokio::time::timeout;

/// A part of a body on its way through HTTP/2: counts as unsent until it has left, or been thrown away.
pub struct Tracked {
    data: Bytes,
    tail: Arc<Tail>,
}

/// The bytes of one response that have been handed over and not left.
#[derive(Default)]
pub struct Tail {
    unsent: AtomicUsize,
    waiter: AtomicWaker,
    left: Mutex<Option<Left>>,
}

/// A response that nobody serves any more.
struct Left {
    stream: SendStream<Tracked>,
    /// How long the client may take nothing, or less than it must.
    limit: Duration,
    /// Bytes that it must take in that time.
    least: usize,
}

impl Tail {
    /// Takes over a stream that everything has been written to.
    pub fn leave(&self, stream: SendStream<Tracked>, limit: Duration, min_rate: Option<u64>) {
        if self.unsent() > 0 {
            let left = Left { stream, limit, least: least(limit, min_rate) };
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
        }
    }

    /// Waits until the rest of the stream that was left here has gone. It is reset if the client takes nothing of it for as
    /// long as it may, or less than it must; it may be twice as long, since the clock is not begun anew for each frame.
    pub async fn gone(&self) {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Left { mut stream, limit, least }) = left else { return };
        loop {
            let before = self.unsent();
            let all_gone = poll_fn(|cx| {
                self.waiter.register(cx.waker());
                if self.unsent() == 0 { Poll::Ready(()) } else { Poll::Pending }
            });
            if timeout(limit, all_gone).await.is_ok() {
                return;
            }
            if before.saturating_sub(self.unsent()) < least {
                return stream.send_reset(Reason::CANCEL);
            }
        }
    }

    fn unsent(&self) -> usize {
        self.unsent.load(Ordering::Acquire)
    }

    fn sent(&self, bytes: usize) {
        if bytes > 0 && self.unsent.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            self.waiter.wake();
        }
    }
}

/// Bytes that must leave in a time limit: one at least.
fn least(limit: Duration, min_rate: Option<u64>) -> usize {
    let bytes = u128::from(min_rate.unwrap_or(0)).saturating_mul(limit.as_millis()) / 1000;
    usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
}

impl Tracked {
    pub fn new(data: Bytes, tail: &Arc<Tail>) -> Tracked {
        tail.unsent.fetch_add(data.len(), Ordering::AcqRel);
        Tracked { data, tail: tail.clone() }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.tail.sent(self.data.len());
    }
}

impl Buf for Tracked {
    fn remaining(&self) -> usize {
        self.data.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.data
    }

    fn advance(&mut self, n: usize) {
        self.data.advance(n);
        self.tail.sent(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_asks_for_a_byte_at_least() {
        assert_eq!(least(Duration::from_secs(60), None), 1);
        assert_eq!(least(Duration::from_secs(60), Some(100)), 6000);
        assert_eq!(least(Duration::from_millis(1), Some(100)), 1);
        assert_eq!(least(Duration::MAX, Some(u64::MAX)), usize::MAX);
    }

    #[test]
    fn what_has_left_or_been_dropped_is_no_longer_unsent() {
        let tail = Arc::new(Tail::default());
        let mut first = Tracked::new(Bytes::from_static(b"abcdef"), &tail);
        let second = Tracked::new(Bytes::from_static(b"gh"), &tail);
        assert_eq!(tail.unsent(), 8);
        first.advance(4);
        assert_eq!((first.chunk(), tail.unsent()), (&b"ef"[..], 4));
        first.advance(0);
        drop(second);
        assert_eq!(tail.unsent(), 2);
        first.advance(2);
        assert_eq!((first.remaining(), tail.unsent()), (0, 0));
        drop(first);
        assert_eq!(tail.unsent(), 0);
    }
}
