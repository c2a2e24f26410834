//! A request's body, between whoever takes it from the client and whoever sends it to a server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

/// What is taken ahead of what has been sent.
const AHEAD: usize = 64 * 1024;

/// A body up to this long is kept, so that it can be sent again.
const KEPT: usize = 64 * 1024;

/// The same in pieces, which cost something however small they are.
const PIECES: usize = 1024;

/// A piece that is shorter is copied: it may be a part of a buffer that is many times as long, and would keep all of it.
const COPIED: usize = 4096;

/// The end that is filled.
#[derive(Debug)]
pub struct Feed(Arc<Mutex<Shared>>);

/// The end that is sent from.
#[derive(Debug)]
pub(in crate::origin) struct Upload(Arc<Mutex<Shared>>);

/// Tells how long a body keeps a server waiting.
#[derive(Clone, Debug)]
pub(in crate::origin) struct Pace(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    pieces: VecDeque<Bytes>,
    /// The first piece that has not been given out.
    next: usize,
    /// Bytes in `pieces`, and those of them that have not been given out.
    held: usize,
    waiting: usize,
    /// Something has been given up that was sent: there is no sending it again.
    truncated: bool,
    /// It will not be sent again: what has been sent is not kept.
    settled: bool,
    ended: bool,
    /// What follows the body.
    trailers: Option<HeaderMap>,
    /// Nobody takes any more.
    closed: bool,
    feeder: Option<Waker>,
    /// Waits for more.
    sender: Option<Waker>,
    /// When more came that was waited for.
    came: Option<Instant>,
}

/// The two ends of a body.
pub(in crate::origin) fn upload() -> (Feed, Upload) {
    let shared = Arc::new(Mutex::new(Shared::default()));
    (Feed(shared.clone()), Upload(shared))
}

impl Feed {
    /// Ready when more may be pushed.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = lock(&self.0);
        if (shared.waiting < AHEAD && shared.pieces.len() - shared.next < PIECES) || shared.closed {
            return Poll::Ready(());
        }
        shared.feeder = Some(cx.waker().clone());
        Poll::Pending
    }

    /// More of the body. What comes after it is closed goes nowhere.
    pub fn push(&mut self, piece: Bytes) {
        let mut shared = lock(&self.0);
        if shared.closed || piece.is_empty() {
            return;
        }
        let piece = if piece.len() < COPIED { Bytes::copy_from_slice(&piece) } else { piece };
        shared.held += piece.len();
        shared.waiting += piece.len();
        shared.pieces.push_back(piece);
        shared.wake_sender();
    }

    /// Whether anybody takes more.
    pub fn is_closed(&self) -> bool {
        lock(&self.0).closed
    }

    /// That was all of it; `trailers`: the fields behind it, which leave if the head has said no length.
    pub fn end(&mut self, trailers: Option<HeaderMap>) {
        let mut shared = lock(&self.0);
        (shared.ended, shared.trailers) = (true, trailers);
        shared.wake_sender();
    }
}

impl Upload {
    /// The next piece; `None`: that was all.
    pub(in crate::origin) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut shared = lock(&self.0);
        let Some(piece) = shared.pieces.get(shared.next).cloned() else {
            if shared.ended {
                return Poll::Ready(None);
            }
            shared.sender = Some(cx.waker().clone());
            return Poll::Pending;
        };
        shared.next += 1;
        shared.waiting -= piece.len();
        shared.forget();
        if let Some(feeder) = shared.feeder.take() {
            feeder.wake();
        }
        Poll::Ready(Some(piece))
    }

    /// What follows the body, once that has ended.
    pub(in crate::origin) fn trailers(&self) -> Option<HeaderMap> {
        lock(&self.0).trailers.clone()
    }

    /// Begins at the body's start again; `false`: it is not all there any more.
    pub(in crate::origin) fn rewind(&mut self) -> bool {
        let mut shared = lock(&self.0);
        if shared.truncated || shared.closed {
            return false;
        }
        shared.next = 0;
        shared.waiting = shared.held;
        shared.sender = None;
        true
    }

    pub(in crate::origin) fn pace(&self) -> Pace {
        Pace(self.0.clone())
    }

    /// It will not be sent again.
    pub(in crate::origin) fn settle(&mut self) {
        let mut shared = lock(&self.0);
        shared.settled = true;
        shared.forget();
    }

    /// Whether [`Upload::rewind`] would do.
    pub(in crate::origin) fn can_rewind(&self) -> bool {
        let shared = lock(&self.0);
        !shared.truncated && !shared.closed
    }

    /// Nobody wants the rest.
    pub(in crate::origin) fn close(&mut self) {
        let mut shared = lock(&self.0);
        shared.closed = true;
        shared.pieces.clear();
        (shared.next, shared.held, shared.waiting) = (0, 0, 0);
        if let Some(feeder) = shared.feeder.take() {
            feeder.wake();
        }
    }
}

impl Pace {
    /// Until when the body has last been waited for: now, if it still is.
    pub(in crate::origin) fn waited(&self) -> Option<Instant> {
        let shared = lock(&self.0);
        if shared.sender.is_some() && !shared.closed { Some(Instant::now()) } else { shared.came }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Gives up what has been sent, as far as it is not kept.
    fn forget(&mut self) {
        let is_kept = |shared: &Shared| !shared.settled && shared.held <= KEPT && shared.pieces.len() <= 2 * PIECES;
        while self.next > 0 && !is_kept(self) {
            let Some(sent) = self.pieces.pop_front() else { break };
            self.held -= sent.len();
            self.next -= 1;
            self.truncated = true;
        }
    }

    fn wake_sender(&mut self) {
        if let Some(sender) = self.sender.take() {
            self.came = Some(Instant::now());
            sender.wake();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(upload: &mut Upload) -> Poll<Option<Bytes>> {
        upload.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    fn has_room(feed: &mut Feed) -> bool {
        feed.poll_room(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn pieces_come_out_in_order_and_again() {
        let (mut feed, mut upload) = upload();
        assert!(take(&mut upload).is_pending());
        feed.push(Bytes::from_static(b"a"));
        feed.push(Bytes::from_static(b"b"));
        assert_eq!(take(&mut upload), Poll::Ready(Some(Bytes::from_static(b"a"))));
        assert!(upload.rewind());
        assert_eq!(take(&mut upload), Poll::Ready(Some(Bytes::from_static(b"a"))));
        assert_eq!(take(&mut upload), Poll::Ready(Some(Bytes::from_static(b"b"))));
        assert!(take(&mut upload).is_pending());
        feed.end(None);
        assert_eq!(take(&mut upload), Poll::Ready(None));
        assert!(upload.rewind());
        assert_eq!(take(&mut upload), Poll::Ready(Some(Bytes::from_static(b"a"))));
    }

    #[test]
    fn what_is_long_is_not_kept() {
        let (mut feed, mut upload) = upload();
        let piece = Bytes::from(vec![7; KEPT / 2]);
        for _ in 0..2 {
            assert!(has_room(&mut feed));
            feed.push(piece.clone());
            assert!(take(&mut upload).is_ready());
        }
        assert!(upload.can_rewind());
        feed.push(piece.clone());
        assert!(take(&mut upload).is_ready());
        assert!(!upload.can_rewind() && !upload.rewind());
        assert!(lock(&upload.0).held <= KEPT);
    }

    #[test]
    fn no_more_is_taken_ahead_than_may_be() {
        let (mut feed, mut upload) = upload();
        feed.push(Bytes::from(vec![7; AHEAD - 1]));
        assert!(has_room(&mut feed));
        feed.push(Bytes::from(vec![7; 1]));
        assert!(!has_room(&mut feed));
        assert!(take(&mut upload).is_ready());
        assert!(has_room(&mut feed));
    }

    #[test]
    fn small_pieces_are_as_good_as_large_ones() {
        let (mut feed, mut upload) = upload();
        let mut pushed = 0;
        while has_room(&mut feed) {
            feed.push(Bytes::from_static(b"x"));
            pushed += 1;
        }
        assert_eq!(pushed, PIECES);
        for _ in 0..3 * PIECES {
            assert!(take(&mut upload).is_ready());
            feed.push(Bytes::from_static(b"x"));
            assert!(lock(&feed.0).pieces.len() <= 3 * PIECES + 1);
        }
        assert!(!upload.can_rewind());
    }

    #[test]
    fn a_small_piece_does_not_keep_a_large_buffer() {
        let (mut feed, mut upload) = upload();
        let buffer = Bytes::from(vec![7; KEPT]);
        feed.push(buffer.slice(..1));
        assert!(buffer.is_unique(), "held by a byte that waits");
        assert_eq!(take(&mut upload), Poll::Ready(Some(Bytes::from_static(&[7]))));
        assert!(buffer.is_unique(), "held by a byte that may be sent again");
    }

    #[test]
    fn what_will_not_be_sent_again_is_not_kept() {
        let (mut feed, mut upload) = upload();
        feed.push(Bytes::from_static(b"abc"));
        feed.push(Bytes::from_static(b"de"));
        assert!(take(&mut upload).is_ready());
        upload.settle();
        assert!(!upload.can_rewind());
        assert_eq!(lock(&feed.0).held, 2);
        assert_eq!(take(&mut upload), Poll::Ready(Some(Bytes::from_static(b"de"))));
        assert_eq!(lock(&feed.0).held, 0);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("1"));
        feed.end(Some(trailers.clone()));
        assert_eq!((take(&mut upload), upload.trailers()), (Poll::Ready(None), Some(trailers)));
    }

    #[test]
    fn a_body_that_nobody_wants_holds_up_nobody() {
        let (mut feed, upload) = upload();
        feed.push(Bytes::from(vec![7; 2 * AHEAD]));
        assert!(!has_room(&mut feed));
        drop(upload);
        assert!(has_room(&mut feed));
        feed.push(Bytes::from_static(b"x"));
        assert_eq!(lock(&feed.0).held, 0);
    }
}
