//! Time limits for waiting on the client.
//!
//! The proxy begins to wait, gives the wait up for something else that happens, and begins again. So what is limited is
//! not how long a future lives: it is how long the client has not moved, and how little it has moved while it was waited
//! for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Beyond this, a limit is none: the clock has an end.
const MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Says when the client has been waited for too long. Costs nothing for as long as it is not.
#[derive(Default)]
pub struct Patience {
    limit: Option<Duration>,
    /// Bytes a second that must move, over each limit's worth of waiting.
    rate: Option<u64>,
    /// Since when it is waited for.
    waiting: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// What has been waited before, of this window, and what has moved in it.
    waited: Duration,
    moved: u64,
    /// A window has ended in which too little moved.
    is_slow: bool,
}

impl Patience {
    /// Without a time limit so far.
    pub fn new(rate: Option<u64>) -> Patience {
        Patience { rate, ..Patience::default() }
    }

    pub fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// Bytes a second that must move.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// From the next wait on.
    pub fn set_limit(&mut self, limit: Option<Duration>) {
        self.limit = limit;
        self.waiting = None;
    }

    /// To be called where the client is waited for: ready when the limit has passed since it moved, or when it has moved
    /// too little while it was waited for.
    pub fn poll_spent(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(limit) = self.limit else { return Poll::Pending };
        if self.is_slow {
            return Poll::Ready(limit);
        }
        let timer = match &mut self.timer {
            Some(timer) => {
                if self.waiting.is_none() {
                    timer.as_mut().reset(Instant::now() + limit.min(MAX));
                }
                timer
            }
            None => self.timer.insert(Box::pin(sleep(limit.min(MAX)))),
        };
        if self.waiting.is_none() {
            self.waiting = Some(Instant::now());
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(limit)
    }

    /// The client has moved, by so many bytes.
    pub fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
        let (Some(since), Some(limit)) = (self.waiting.take(), self.limit) else { return };
        let Some(rate) = self.rate else { return };
        self.waited = self.waited.saturating_add(since.elapsed());
        if self.waited >= limit {
            let wanted = u128::from(rate).saturating_mul(self.waited.as_millis());
            self.is_slow = u128::from(self.moved) * 1000 < wanted;
            (self.waited, self.moved) = (Duration::ZERO, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_begun_again_goes_on() {
        let began = Instant::now();
        let mut patience = Patience::default();
        patience.set_limit(Some(Duration::from_secs(10)));
        for _ in 0..4 {
            let wait = poll_fn(|cx| patience.poll_spent(cx));
            assert!(tokio::time::timeout(Duration::from_secs(2), wait).await.is_err());
        }
        assert_eq!(poll_fn(|cx| patience.poll_spent(cx)).await, Duration::from_secs(10));
        assert_eq!(began.elapsed().as_secs(), 10);
        // What has moved is waited for anew.
        patience.moved(1);
        poll_fn(|cx| patience.poll_spent(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 20);
    }

    /// So many bytes a second, each waited for; after how many seconds it is enough.
    async fn drip(patience: &mut Patience, bytes: usize, seconds: usize) -> Option<usize> {
        for second in 0..seconds {
            let wait = poll_fn(|cx| patience.poll_spent(cx));
            if tokio::time::timeout(Duration::from_secs(1), wait).await.is_ok() {
                return Some(second);
            }
            patience.moved(bytes);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn who_moves_a_little_now_and_then_is_too_slow() {
        let patience = |rate| {
            let mut patience = Patience::new(rate);
            patience.set_limit(Some(Duration::from_secs(10)));
            patience
        };
        assert_eq!(drip(&mut patience(None), 1, 100).await, None);
        assert_eq!(drip(&mut patience(Some(100)), 101, 100).await, None);
        assert_eq!(drip(&mut patience(Some(100)), 98, 100).await, Some(10));
        // What comes before it is waited for counts, and so does no time that is spent elsewhere.
        let mut patience = patience(Some(100));
        patience.moved(1000);
        assert_eq!(drip(&mut patience, 1, 15).await, None);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(drip(&mut patience, 1, 15).await, Some(5));
    }
}
