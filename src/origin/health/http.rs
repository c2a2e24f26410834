//! HTTP probes: a request, and what its answer must be.

use std::pin::pin;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncWrite};

use super::outlier::is_within;
use super::probe::reason;
use crate::config::model::HttpProbe;

/// Of an answer's body, so much is looked at, in bytes.
const MAX_BODY: usize = 64 << 10;
/// Of an answer's header section, in bytes.
pub(super) const MAX_HEAD: u32 = 64 << 10;

pub(super) const AGENT: HeaderValue = HeaderValue::from_static(concat!("Foreland-health/", env!("CARGO_PKG_VERSION")));

/// A request that is sent again and again.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    method: Method,
    uri: Uri,
    /// As HTTP/1.1 has them.
    fields: HeaderMap,
    expect_status: Vec<(u16, u16)>,
    expect_body: Option<Wanted>,
}

impl Asked {
    /// # Errors
    /// What of it cannot be sent.
    pub(super) fn new(probe: &HttpProbe, tls: bool, server: &str) -> Result<Asked, String> {
        let host = probe.host.as_deref().unwrap_or(server);
        let method = Method::from_bytes(probe.method.as_bytes()).map_err(|_| format!("no method: {}", probe.method))?;
        let mut fields = HeaderMap::with_capacity(probe.headers.len() + 4);
        fields.insert(USER_AGENT, AGENT);
        fields.insert(ACCEPT, HeaderValue::from_static("*/*"));
        let mut given = HeaderMap::with_capacity(probe.headers.len());
        for (name, value) in &probe.headers {
            let known = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
            let (name, value) = known.ok_or_else(|| format!("no field: {name}: {value}"))?;
            given.append(name, value);
        }
        // What is given takes the place of what is usual.
        fields.extend(given);
        // There is no body, which such a method has to say (RFC 9110 §8.6).
        fields.remove(TRANSFER_ENCODING);
        fields.remove(CONTENT_LENGTH);
        if method == Method::POST {
            fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        fields.insert(HOST, HeaderValue::from_str(host).map_err(|_| format!("no host: {host}"))?);
        Ok(Asked {
            method,
            uri: uri(tls, host, &probe.path)?,
            fields,
            expect_status: probe.expect_status.clone(),
            expect_body: probe.expect_body.as_deref().map(Wanted::new),
        })
    }

    /// # Errors
    /// What is wrong with the server, in few words.
    pub(super) async fn over_http1<T: AsyncRead + AsyncWrite + Unpin>(&self, io: T) -> Result<(), String> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD as usize);
        let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(|e| reason(&e))?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
        *request.headers_mut() = self.fields.clone();
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        let asking = async {
            let response = sender.send_request(request).await.map_err(|e| reason(&e))?;
            self.judge_status(response.status().as_u16())?;
            let Some(wanted) = &self.expect_body else { return Ok(()) };
            let (mut body, mut search) = (response.into_body(), Search::new(wanted));
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| reason(&e))?;
                if frame.into_data().is_ok_and(|data| search.found(&data)) {
                    return Ok(());
                }
                if search.is_full() {
                    break;
                }
            }
            Err(search.missed())
        };
        alongside(asking, connection).await
    }

    /// # Errors
    /// What is wrong with the server, in few words.
    pub(super) async fn over_http2<T: AsyncRead + AsyncWrite + Unpin>(&self, io: T) -> Result<(), String> {
        let (sender, connection) = http2().handshake::<_, Bytes>(io).await.map_err(|e| reason(&e))?;
        let request = request_http2(&self.method, &self.uri, &self.fields);
        let asking = async {
            let mut sender = sender.ready().await.map_err(|e| reason(&e))?;
            let (response, _) = sender.send_request(request, true).map_err(|e| reason(&e))?;
            let response = response.await.map_err(|e| reason(&e))?;
            self.judge_status(response.status().as_u16())?;
            let Some(wanted) = &self.expect_body else { return Ok(()) };
            let (mut body, mut search) = (response.into_body(), Search::new(wanted));
            while let Some(data) = body.data().await {
                let data = data.map_err(|e| reason(&e))?;
                // What has been read is given back, or the server may send no more. It cannot be too much.
                let _ = body.flow_control().release_capacity(data.len());
                if search.found(&data) {
                    return Ok(());
                }
                if search.is_full() {
                    break;
                }
            }
            Err(search.missed())
        };
        alongside(asking, connection).await
    }

    fn judge_status(&self, status: u16) -> Result<(), String> {
        if is_within(&self.expect_status, status) { Ok(()) } else { Err(format!("status {status}")) }
    }
}

/// Asks while something drives the connection, which may end before the answer has been read.
pub(super) async fn alongside<T>(
    asking: impl Future<Output = Result<T, String>>,
    connection: impl Future,
) -> Result<T, String> {
    match select(pin!(asking), pin!(connection)).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right((_, asking)) => asking.await,
    }
}

/// # Errors
/// What of it is no URI.
pub(super) fn uri(tls: bool, host: &str, path: &str) -> Result<Uri, String> {
    let authority = Authority::try_from(host).map_err(|_| format!("no host: {host}"))?;
    let path = PathAndQuery::try_from(path).map_err(|_| format!("no path: {path}"))?;
    let scheme = if tls { Scheme::HTTPS } else { Scheme::HTTP };
    Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().map_err(|e| e.to_string())
}

/// For one request.
pub(super) fn http2() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(MAX_HEAD);
    builder
}

pub(super) fn request_http2(method: &Method, uri: &Uri, fields: &HeaderMap) -> Request<()> {
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = fields.clone();
    // The authority says it, and a connection's own fields are none here (RFC 9113 §8.2.2).
    for name in ["host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        request.headers_mut().remove(name);
    }
    request
}

/// What a body must contain.
#[derive(Clone, Debug)]
struct Wanted {
    text: String,
    finder: memmem::Finder<'static>,
}

impl Wanted {
    fn new(text: &str) -> Wanted {
        Wanted { text: text.to_owned(), finder: memmem::Finder::new(text).into_owned() }
    }
}

/// The looking for it, piece by piece.
struct Search<'a> {
    wanted: &'a Wanted,
    seen: Vec<u8>,
}

impl Search<'_> {
    fn new(wanted: &Wanted) -> Search<'_> {
        Search { wanted, seen: Vec::new() }
    }

    /// Whether it is there, with this piece.
    fn found(&mut self, piece: &[u8]) -> bool {
        // It may have begun in an earlier piece.
        let from = self.seen.len().saturating_sub(self.wanted.text.len());
        let room = MAX_BODY.saturating_sub(self.seen.len());
        self.seen.extend_from_slice(piece.get(..room).unwrap_or(piece));
        self.seen.get(from..).is_some_and(|tail| self.wanted.finder.find(tail).is_some())
    }

    fn is_full(&self) -> bool {
        self.seen.len() >= MAX_BODY
    }

    fn missed(&self) -> String {
        let within = if self.is_full() { " within its first 64 KiB" } else { "" };
        format!("the body does not contain {:?}{within}", self.wanted.text)
    }
}
