//! An HTTP/2 client with prior knowledge over plain TCP.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::client::{Ask, End, HOST, Response};
use super::fields::{from_latin1, latin1};
use super::{Fields, within};

/// A connection; its streams run beside each other.
pub struct H2Connection {
    send: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

/// A request whose response has not begun.
pub struct H2Waiting {
    what: String,
    response: ResponseFuture,
    send: SendStream<Bytes>,
}

/// A response that is being read.
pub struct H2Exchange {
    /// What has come so far; a body that ended is in [`H2Exchange::rest`]'s result.
    pub response: Response,
    /// The code by which the stream was reset, once [`H2Exchange::chunk`] has found that it was.
    pub reset: Option<Reason>,
    stream: Option<RecvStream>,
    send: SendStream<Bytes>,
}

impl H2Connection {
    pub async fn open(address: SocketAddr) -> H2Connection {
        H2Connection::open_as(address, &Builder::new()).await
    }

    /// Takes so many bytes of each response before it has read some; with 0, nothing but heads.
    pub async fn open_narrow(address: SocketAddr, window: u32) -> H2Connection {
        H2Connection::open_as(address, Builder::new().initial_window_size(window)).await
    }

    async fn open_as(address: SocketAddr, builder: &Builder) -> H2Connection {
        let stream = within(&format!("a connection to {address}"), TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"));
        // Window updates are small, and would wait for each other's acknowledgements.
        let _ = stream.set_nodelay(true);
        H2Connection::over(stream, builder).await
    }

    /// Over anything that carries bytes, such as TLS.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, builder: &Builder) -> H2Connection {
        let (send, connection) =
            within("an HTTP/2 handshake", builder.handshake(stream)).await.unwrap_or_else(|e| panic!("no HTTP/2: {e}"));
        // Its errors come to light at the streams, too.
        let driver = tokio::spawn(connection);
        H2Connection { send, driver }
    }

    /// One exchange: sends, and reads the whole response.
    pub async fn ask(&self, ask: &Ask) -> Response {
        self.start(ask).await.rest().await
    }

    /// Sends, and reads the head of the response; panics where the stream ends without one.
    pub async fn start(&self, ask: &Ask) -> H2Exchange {
        self.try_start(ask).await.unwrap_or_else(|e| panic!("no response to {} {}: {e}", ask.method, ask.target))
    }

    /// As [`H2Connection::start`], with the stream's or connection's error.
    pub async fn try_start(&self, ask: &Ask) -> Result<H2Exchange, h2::Error> {
        self.send(ask, true).await?.try_head().await
    }

    /// Sends, and waits for nothing; without the end of the request's body if `whole` is false.
    pub async fn send(&self, ask: &Ask, whole: bool) -> Result<H2Waiting, h2::Error> {
        let mut send = within("an HTTP/2 stream", self.send.clone().ready()).await?;
        let request = request(ask);
        let (response, mut body) = send.send_request(request, whole && ask.body.is_none())?;
        if let Some(bytes) = &ask.body {
            body.send_data(bytes.clone(), whole)?;
        }
        Ok(H2Waiting { what: format!("a response to {} {}", ask.method, ask.target), response, send: body })
    }

    /// Whether the connection has ended.
    pub fn is_over(&self) -> bool {
        self.driver.is_finished()
    }

    /// Waits for the peer to end the connection; the reason that it gave, if it was not a good one.
    pub async fn closed(mut self) -> Option<Reason> {
        let end = within("the end of an HTTP/2 connection", &mut self.driver).await;
        end.expect("the driver does not panic").err().and_then(|e| e.reason())
    }
}

impl H2Waiting {
    /// Reads 1xx responses and the head of the final one.
    pub async fn try_head(mut self) -> Result<H2Exchange, h2::Error> {
        let mut interim = Vec::new();
        let what = format!("{} (or a 1xx before it)", self.what);
        while let Some(head) = within(&what, poll_fn(|cx| self.response.poll_informational(cx))).await {
            let head = head?;
            interim.push((head.status().as_u16(), fields(head.headers())));
        }
        let (head, stream) = within(&self.what, self.response).await?.into_parts();
        let response = Response {
            status: head.status.as_u16(),
            version: "HTTP/2".into(),
            reason: String::new(),
            headers: fields(&head.headers),
            interim,
            body: Vec::new(),
            trailers: Fields::default(),
            end: End::Clean,
        };
        Ok(H2Exchange { response, reset: None, stream: Some(stream), send: self.send })
    }

    /// The next 1xx response; panics where the final one comes.
    pub async fn interim(&mut self) -> (u16, Fields) {
        let head = within(&self.what, poll_fn(|cx| self.response.poll_informational(cx))).await;
        let head = head.expect("a 1xx response").expect("a 1xx response");
        (head.status().as_u16(), fields(head.headers()))
    }

    /// Sends more of the request's body; `end`: the last of it.
    pub fn say(&mut self, bytes: impl Into<Bytes>, end: bool) {
        self.send.send_data(bytes.into(), end).expect("a stream that takes more");
    }

    /// Ends the request's body with trailers.
    pub fn trail(&mut self, fields: &[(&'static str, &'static str)]) {
        self.send.send_trailers(map(fields)).expect("a stream that takes trailers");
    }

    /// Gives the request up: RST_STREAM with CANCEL.
    pub fn cancel(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

impl Drop for H2Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl H2Exchange {
    /// Sends more of the request's body; `end`: the last of it.
    pub fn say(&mut self, bytes: impl Into<Bytes>, end: bool) {
        self.send.send_data(bytes.into(), end).expect("a stream that takes more");
    }

    /// Sends as much as the edge takes of `bytes`, as it takes it; how much that is when it takes no more for `still`.
    pub async fn pour(&mut self, mut bytes: Bytes, still: std::time::Duration) -> usize {
        let all = bytes.len();
        while !bytes.is_empty() {
            self.send.reserve_capacity(bytes.len());
            let room = tokio::time::timeout(still, poll_fn(|cx| self.send.poll_capacity(cx))).await;
            let Ok(Some(Ok(room))) = room else { break };
            self.send.send_data(bytes.split_to(room.min(bytes.len())), false).expect("room for it");
        }
        all - bytes.len()
    }

    /// The head was all that came: no DATA follows it.
    pub fn ended_with_head(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    /// The next bytes of the body, as they come; `Ok(None)` at its clean end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, End> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        match within("more of a body", stream.data()).await {
            Some(Ok(piece)) => {
                // Gives the window back: a test that wants to stall a sender reads nothing at all.
                let _ = stream.flow_control().release_capacity(piece.len());
                Ok(Some(piece))
            }
            Some(Err(e)) => {
                self.reset = e.reason();
                Err(if e.is_io() { End::Cut } else { End::Reset })
            }
            None => match within("trailers", stream.trailers()).await {
                Ok(trailers) => {
                    self.response.trailers = trailers.as_ref().map(fields).unwrap_or_default();
                    self.stream = None;
                    Ok(None)
                }
                Err(e) => Err(if e.is_io() { End::Cut } else { End::Reset }),
            },
        }
    }

    /// Reads what is left of the body, and gives the whole response.
    pub async fn rest(mut self) -> Response {
        self.response.end = loop {
            match self.chunk().await {
                Ok(Some(piece)) => self.response.body.extend_from_slice(&piece),
                Ok(None) => break End::Clean,
                Err(end) => break end,
            }
        };
        self.response
    }

    /// Gives the exchange up: RST_STREAM with CANCEL.
    pub fn cancel(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

fn request(ask: &Ask) -> http::Request<()> {
    let uri = format!("http://{}{}", ask.host.as_deref().unwrap_or(HOST), ask.target);
    let mut request = http::Request::builder().method(ask.method.as_str()).uri(uri).version(http::Version::HTTP_2);
    for (name, value) in &ask.headers.0 {
        request = request.header(name.as_str(), latin1(value));
    }
    request.body(()).unwrap_or_else(|e| panic!("{ask:?} cannot be said in HTTP/2: {e}"))
}

fn map(fields: &[(&'static str, &'static str)]) -> http::HeaderMap {
    let field = |(name, value): &(&'static str, &'static str)| {
        (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
    };
    fields.iter().map(field).collect()
}

fn fields(map: &http::HeaderMap) -> Fields {
    Fields(map.iter().map(|(n, v)| (n.as_str().to_owned(), from_latin1(v.as_bytes()))).collect())
}
