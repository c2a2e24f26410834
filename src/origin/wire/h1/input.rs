//! What has come over a connection and has not been taken yet.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Room that is made at first: most heads fit, many with their bodies.
const FIRST_PIECE: usize = 8 * 1024;
/// The most that is read at once.
const MAX_PIECE: usize = 64 * 1024;
/// With less room than this left of a piece, a new one is made.
const LEAST_ROOM: usize = 1024;

/// Pieces are cut from larger blocks, without a copy: a response that comes in small reads costs no block for each.
#[derive(Default)]
pub(super) struct Input {
    buffer: BytesMut,
    /// How large the next block is: doubled where one was filled at once.
    piece: usize,
}

impl Input {
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Reads once, at most `want` bytes (at least 1); 0: the connection has ended.
    pub(super) fn poll_fill<T: AsyncRead + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        want: u64,
    ) -> Poll<io::Result<usize>> {
        let want = usize::try_from(want).unwrap_or(usize::MAX).min(MAX_PIECE);
        if self.buffer.capacity() - self.buffer.len() < want.min(LEAST_ROOM) {
            self.piece = self.piece.clamp(FIRST_PIECE, MAX_PIECE);
            self.buffer.reserve(want.min(self.piece));
        }
        let room = want.min(self.buffer.capacity() - self.buffer.len());
        let mut limited = (&mut self.buffer).limit(room);
        let read = ready!(pin!(io.read_buf(&mut limited)).poll(cx))?;
        if read == room {
            self.piece = self.piece.saturating_mul(2);
        }
        Poll::Ready(Ok(read))
    }
}
