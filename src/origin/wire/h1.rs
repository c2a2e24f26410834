//! HTTP/1.1 as a client of servers (RFC 9112).

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};

use super::message::{RequestHead, ResponseHead, WireError};
use crate::origin::failure::FailureKind;

/// A connection that carries one request at a time.
pub(in crate::origin) struct H1Conn<T> {
    io: T,
}

impl<T: AsyncRead + AsyncWrite + Unpin> H1Conn<T> {
    pub(in crate::origin) fn new(io: T) -> H1Conn<T> {
        H1Conn { io }
    }

    /// The connection without what was kept for a request.
    pub(in crate::origin) fn into_idle(self) -> T {
        self.io
    }

    pub(in crate::origin) async fn send_head(&mut self, _head: &RequestHead) -> Result<(), WireError> {
        Err(WireError::new(FailureKind::Other, "not yet"))
    }

    pub(in crate::origin) fn poll_send_body(
        &mut self,
        _cx: &mut Context<'_>,
        _data: &mut Bytes,
        _end: bool,
    ) -> Poll<Result<(), WireError>> {
        Poll::Pending
    }

    pub(in crate::origin) async fn read_head(&mut self) -> Result<ResponseHead, WireError> {
        Err(WireError::new(FailureKind::Other, "not yet"))
    }

    pub(in crate::origin) fn poll_read_head(&mut self, _cx: &mut Context<'_>) -> Poll<Result<ResponseHead, WireError>> {
        Poll::Pending
    }

    pub(in crate::origin) fn poll_read_body(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, WireError>> {
        Poll::Pending
    }

    pub(in crate::origin) fn trailers(&mut self) -> Option<HeaderMap> {
        None
    }

    pub(in crate::origin) fn is_reusable(&self) -> bool {
        false
    }

    /// Ready: the server has closed the connection, or sent something unasked.
    pub(in crate::origin) fn poll_idle(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}
