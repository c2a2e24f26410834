//! HTTP/2 as a client of servers (RFC 9113).

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};

use super::message::{RequestHead, ResponseHead, WireError};
use crate::origin::failure::FailureKind;

/// A connection that carries many requests at once. It ends with its last clone and stream.
#[derive(Clone)]
pub(in crate::origin) struct H2Client {}

/// One request on a connection. Dropped before its end, it is reset.
pub(in crate::origin) struct H2Stream {}

impl H2Client {
    /// `streams`: how many at once; the server may allow fewer. `is_tls`: the scheme is https.
    pub(in crate::origin) async fn handshake<T>(_io: T, _streams: usize, _is_tls: bool) -> Result<H2Client, WireError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Err(WireError::new(FailureKind::Other, "not yet"))
    }

    /// A place for one request; `None`: all are taken, or the connection takes no more.
    pub(in crate::origin) fn open(&self) -> Option<H2Stream> {
        None
    }

    /// It takes no more requests.
    pub(in crate::origin) fn is_closed(&self) -> bool {
        true
    }

    pub(in crate::origin) fn streams_in_use(&self) -> usize {
        0
    }

    pub(in crate::origin) fn max_streams(&self) -> usize {
        0
    }
}

impl H2Stream {
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
}
