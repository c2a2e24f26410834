//! One request over HTTP/2, as the proxy sees it: a session of Pingora's, on a stream of the `h2` crate.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream as Messages;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, Result};

use super::super::trailers::Behind;
use super::Common;
use super::read::Incoming;
use super::tail::{Tail, Tracked};
use super::write::Outgoing;
use crate::config::model::Limits;

/// A stream. Dropped before its response has ended, it is reset.
pub struct Stream {
    request: RequestHeader,
    incoming: Incoming,
    outgoing: Outgoing,
    common: Arc<Common>,
    /// The proxy writes to the client and takes from the origin at a time.
    by_tasks: bool,
}

impl Stream {
    pub(super) fn new(
        request: RequestHeader,
        body: RecvStream,
        (respond, tail): (SendResponse<Tracked>, Arc<Tail>),
        common: Arc<Common>,
        limits: &Limits,
    ) -> Stream {
        Stream {
            incoming: Incoming::new(body, &request, limits.body_min_rate),
            outgoing: Outgoing::new(respond, tail, &request.method, limits.send_min_rate),
            request,
            common,
            by_tasks: false,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.outgoing.head().is_none() {
            self.common.unanswered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl Session for Stream {
    // ---- the request

    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    fn request_summary(&self) -> String {
        let host = self.request.uri.authority().map_or("", |authority| authority.as_str());
        format!("{} {}, Host: {host}", self.request.method, String::from_utf8_lossy(self.request.raw_path()))
    }

    /// For a background fetch, which reads it again as HTTP/1.1.
    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        http1_head(&self.request)
    }

    // ---- its body

    /// What is behind the body lies in the request's extensions once its end has been read (see [`Behind`]).
    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let read = self.incoming.next().await;
        if let (Ok(None), Some(trailers)) = (&read, self.incoming.trailers()) {
            self.request.extensions_mut().insert(Behind(trailers));
        }
        read
    }

    /// Where no body is to come, waits for the client to leave.
    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.incoming.is_done() {
            return Err(self.outgoing.gone().await);
        }
        self.incoming.next().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.incoming.drain().await
    }

    fn is_body_done(&mut self) -> bool {
        self.incoming.is_done()
    }

    fn is_body_empty(&mut self) -> bool {
        self.incoming.is_empty()
    }

    fn body_bytes_read(&self) -> usize {
        self.incoming.received()
    }

    fn enable_retry_buffering(&mut self) {
        self.incoming.keep();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.incoming.is_past_keeping()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.incoming.kept()
    }

    // ---- the response

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.outgoing.write_head(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.outgoing.write_head(Box::new(head.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.outgoing.write_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.outgoing.write_tasks().await?;
        self.outgoing.write_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        tasks.into_iter().for_each(|task| self.outgoing.add(task));
        self.outgoing.write_tasks().await
    }

    fn proxy_tasks_enabled(&self) -> bool {
        self.by_tasks
    }

    fn set_proxy_tasks_enabled(&mut self, enabled: bool) {
        self.by_tasks = enabled;
        if !enabled {
            self.outgoing.hand_over();
        }
    }

    fn send_proxy_task(&mut self, task: HttpTask) {
        self.outgoing.add(task);
    }

    fn has_pending_proxy_tasks(&self) -> bool {
        self.outgoing.has_tasks()
    }

    async fn write_proxy_tasks(&mut self) -> Result<bool> {
        self.outgoing.write_tasks().await
    }

    /// The status alone: the fields have gone with the head.
    fn response_written(&self) -> Option<&ResponseHeader> {
        self.outgoing.head()
    }

    fn body_bytes_sent(&self) -> usize {
        self.outgoing.sent()
    }

    async fn finish(&mut self) -> Result<()> {
        self.outgoing.finish().await
    }

    /// Gives the response up. `code`: what the client is told, of RFC 9113 §7.
    async fn shutdown(&mut self, code: u32, _: &str) {
        self.outgoing.abandon(Reason::from(code));
    }

    async fn abandon(&mut self, _: &str) {
        self.outgoing.abandon(Reason::INTERNAL_ERROR);
    }

    // ---- timeouts

    fn set_read_timeout(&mut self, limit: Option<Duration>) {
        self.incoming.patience.set_limit(limit);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.incoming.patience.limit()
    }

    fn set_write_timeout(&mut self, limit: Option<Duration>) {
        self.outgoing.patience.set_limit(limit);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.outgoing.patience.limit()
    }

    fn set_total_drain_timeout(&mut self, limit: Option<Duration>) {
        self.incoming.drain_limit = limit;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.incoming.drain_limit
    }

    // ---- the connection

    fn digest(&self) -> Option<&Digest> {
        Some(&self.common.digest)
    }

    /// None: other streams have the same.
    fn digest_mut(&mut self) -> Option<&mut Digest> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.common.digest.socket_digest.as_ref()?.peer_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.common.digest.socket_digest.as_ref()?.local_addr()
    }

    // ---- messages beside the request and the response, of which HTTP/2 has none

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Messages<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Messages<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Error::e_explain(ErrorType::InternalError, "a reader of messages for an HTTP/2 stream")
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Error::e_explain(ErrorType::InternalError, "a writer of messages for an HTTP/2 stream")
    }
}

/// The header section as HTTP/1.1 has it: with the authority in Host, and without fields of a connection.
fn http1_head(request: &RequestHeader) -> Bytes {
    let mut head = BytesMut::with_capacity(1024);
    head.put_slice(request.method.as_str().as_bytes());
    head.put_u8(b' ');
    head.put_slice(request.raw_path());
    head.put_slice(b" HTTP/1.1\r\n");
    let mut field = |name: &[u8], value: &[u8]| {
        head.put_slice(name);
        head.put_slice(b": ");
        head.put_slice(value);
        head.put_slice(b"\r\n");
    };
    if !request.headers.contains_key(HOST)
        && let Some(authority) = request.uri.authority()
    {
        field(b"Host", authority.as_str().as_bytes());
    }
    for (name, value) in &request.headers {
        // Those of HTTP/1.1 alone are refused where the request comes in; TE may be there (RFC 9113 §8.2.2).
        if ![CONNECTION, TE, TRANSFER_ENCODING, UPGRADE].contains(name) {
            field(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    head.put_slice(b"\r\n");
    head.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_of(uri: &str, fields: &[(&'static str, &str)]) -> String {
        let mut request = http::Request::builder().version(http::Version::HTTP_2).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = RequestHeader::from(request.body(()).unwrap().into_parts().0);
        String::from_utf8(http1_head(&request).to_vec()).unwrap()
    }

    #[test]
    fn a_request_is_said_in_http1() {
        assert_eq!(
            head_of("http://a.test:8080/x?y=z", &[("accept", "*/*"), ("te", "trailers"), ("cookie", "a=1")]),
            "GET /x?y=z HTTP/1.1\r\nHost: a.test:8080\r\naccept: */*\r\ncookie: a=1\r\n\r\n"
        );
        assert_eq!(head_of("/x", &[("host", "a.test")]), "GET /x HTTP/1.1\r\nhost: a.test\r\n\r\n");
        assert_eq!(head_of("http://a.test/x", &[("host", "a.test")]), "GET /x HTTP/1.1\r\nhost: a.test\r\n\r\n");
    }
}
