//! Bodies of responses, by their framing (RFC 9112 §6.3).

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::AsyncRead;

use super::super::message::{BodyLength, WireError};
use super::chunked::{Chunks, Step};
use super::input::Input;
use crate::origin::failure::FailureKind;

/// A body that is being read.
pub(super) enum Body {
    /// So many bytes are still to come.
    Known(u64),
    Chunks(Chunks),
    UntilClose,
}

impl Body {
    /// `None`: there is none.
    pub(super) fn new(length: BodyLength) -> Option<Body> {
        match length {
            BodyLength::None => None,
            BodyLength::Known(length) => Some(Body::Known(length)),
            BodyLength::Chunked => Some(Body::Chunks(Chunks::default())),
            BodyLength::UntilClose => Some(Body::UntilClose),
        }
    }

    /// The next piece; `None`: the end, and it was complete.
    pub(super) fn poll<T: AsyncRead + Unpin>(
        &mut self,
        io: &mut T,
        input: &mut Input,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, WireError>> {
        loop {
            let want = match self {
                Body::Known(0) => return Poll::Ready(Ok(None)),
                Body::Known(left) => {
                    if let Some(piece) = take(input, *left) {
                        *left -= piece.len() as u64;
                        return Poll::Ready(Ok(Some(piece)));
                    }
                    // Not a byte of what is no part of it: that stays where the next check of the connection finds it.
                    *left
                }
                Body::Chunks(chunks) => match chunks.decode(input.buffer())? {
                    Step::Data(piece) => return Poll::Ready(Ok(Some(piece))),
                    Step::End => return Poll::Ready(Ok(None)),
                    Step::More => u64::MAX,
                },
                Body::UntilClose => {
                    if let Some(piece) = take(input, u64::MAX) {
                        return Poll::Ready(Ok(Some(piece)));
                    }
                    u64::MAX
                }
            };
            match ready!(input.poll_fill(io, cx, want)) {
                Ok(0) => return Poll::Ready(self.ended()),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(WireError::io("reading the response's body", &error))),
            }
        }
    }

    /// The fields after chunks, once.
    pub(super) fn trailers(&mut self) -> Option<HeaderMap> {
        match self {
            Body::Chunks(chunks) => chunks.trailers(),
            Body::Known(_) | Body::UntilClose => None,
        }
    }

    /// The connection has ended.
    fn ended(&self) -> Result<Option<Bytes>, WireError> {
        let why = match self {
            Body::UntilClose => return Ok(None),
            Body::Known(left) => format!("the connection ended {left} bytes early"),
            Body::Chunks(_) => "the connection ended before the last chunk".to_owned(),
        };
        Err(WireError::new(FailureKind::Reset, why))
    }
}

fn take(input: &mut Input, most: u64) -> Option<Bytes> {
    let buffer = input.buffer();
    if buffer.is_empty() {
        return None;
    }
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
    Some(buffer.split_to(length).freeze())
}
