//! A time limit for waiting on the client.
//!
//! The proxy begins to wait, gives the wait up for something else that happens, and begins again. So what is limited is
//! not how long a future lives: it is how long the client has not moved.

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
    waiting: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// From the next wait on.
    pub fn set_limit(&mut self, limit: Option<Duration>) {
        self.limit = limit;
        self.waiting = false;
    }

    /// To be called where the client is waited for: ready when the limit has passed since it moved.
    pub fn poll_spent(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(limit) = self.limit else { return Poll::Pending };
        let timer = match &mut self.timer {
            Some(timer) => {
                if !self.waiting {
                    timer.as_mut().reset(Instant::now() + limit.min(MAX));
                }
                timer
            }
            None => self.timer.insert(Box::pin(sleep(limit.min(MAX)))),
        };
        self.waiting = true;
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(limit)
    }

    /// The client has moved.
    pub fn moved(&mut self) {
        self.waiting = false;
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
        patience.moved();
        poll_fn(|cx| patience.poll_spent(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 20);
    }
}
