//! A raw HTTP/1.1 client: sends any bytes, reads a response piece by piece, and tells a clean end from a cut.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::fields::latin1;
use super::wire::{Body, Head, Wire};
use super::{Fields, within};

/// The Host of a request that names none.
pub const HOST: &str = "edge.test";

/// A request to be sent, over HTTP/1.1 or HTTP/2.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: String,
    pub target: String,
    pub host: Option<String>,
    pub headers: Fields,
    pub body: Option<Bytes>,
}

impl Ask {
    pub fn new(method: &str, target: &str) -> Ask {
        let host = Some(HOST.to_owned());
        Ask { method: method.into(), target: target.into(), host, headers: Fields::default(), body: None }
    }

    pub fn get(target: &str) -> Ask {
        Ask::new("GET", target)
    }

    pub fn head(target: &str) -> Ask {
        Ask::new("HEAD", target)
    }

    pub fn host(mut self, host: &str) -> Ask {
        self.host = Some(host.into());
        self
    }

    pub fn no_host(mut self) -> Ask {
        self.host = None;
        self
    }

    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Ask {
        self.headers.push(name, value.as_ref());
        self
    }

    /// A body, with its Content-Length unless the headers announce another framing.
    pub fn body(mut self, body: impl Into<Bytes>) -> Ask {
        self.body = Some(body.into());
        self
    }

    /// As HTTP/1.1 has it on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = latin1(&format!("{} {} HTTP/1.1\r\n", self.method, self.target));
        if let Some(host) = &self.host {
            out.extend(latin1(&format!("Host: {host}\r\n")));
        }
        self.headers.write(&mut out);
        let announced = self.headers.has("Content-Length") || self.headers.has("Transfer-Encoding");
        if let (Some(body), false) = (&self.body, announced) {
            out.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
        }
        out.extend(b"\r\n");
        out.extend_from_slice(self.body.as_deref().unwrap_or_default());
        out
    }
}

/// A response, with as much of its body as there was.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// `HTTP/1.1`, `HTTP/1.0` or `HTTP/2`.
    pub version: String,
    pub reason: String,
    pub headers: Fields,
    /// The 1xx responses before it.
    pub interim: Vec<(u16, Fields)>,
    pub body: Vec<u8>,
    pub trailers: Fields,
    pub end: End,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As its framing says.
    Clean,
    /// The connection or stream ended before the body did.
    Cut,
    /// The connection or stream was reset before the body ended.
    Reset,
    /// The framing made no sense.
    Malformed,
}

impl Response {
    /// The first line of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The body as text; panics unless it came whole and is UTF-8.
    pub fn text(&self) -> &str {
        assert_eq!(self.end, End::Clean, "the body of {self:?} did not come whole");
        std::str::from_utf8(&self.body).expect("the body is not UTF-8")
    }

    /// The body as JSON; panics where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.text()).unwrap_or_else(|e| panic!("not JSON ({e}): {:?}", self.text()))
    }

    /// Age in seconds, where there is exactly one well-formed line.
    pub fn age(&self) -> Option<u64> {
        match self.headers.all("Age")[..] {
            [age] => age.parse().ok(),
            _ => None,
        }
    }

    /// Cache-Status (RFC 9211), or an empty string.
    pub fn cache_status(&self) -> &str {
        self.header("Cache-Status").unwrap_or_default()
    }

    /// Whether the nearest cache says that it was a hit.
    pub fn is_hit(&self) -> bool {
        self.cache_status().split(';').any(|p| p.trim() == "hit")
    }
}

enum Write {
    Plain(OwnedWriteHalf),
    Other(Box<dyn AsyncWrite + Send + Unpin>),
}

/// A connection that stays open between requests.
pub struct Connection {
    wire: Wire<Box<dyn AsyncRead + Send + Unpin>>,
    write: Write,
    body: Body,
    trailers: Fields,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Connection {
        let stream = within(&format!("a connection to {address}"), TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"));
        Connection::over(stream)
    }

    /// `None` where the connection is refused.
    pub async fn try_open(address: SocketAddr) -> Option<Connection> {
        within(&format!("a connection to {address}"), TcpStream::connect(address)).await.ok().map(Connection::over)
    }

    /// Over a connection that is there.
    pub fn over(stream: TcpStream) -> Connection {
        // Only latency depends on it.
        let _ = stream.set_nodelay(true);
        let (read, write) = stream.into_split();
        Connection {
            wire: Wire::new(Box::new(read)),
            write: Write::Plain(write),
            body: Body::Done,
            trailers: Fields::default(),
        }
    }

    /// Over anything that carries bytes, such as TLS.
    pub fn over_any(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Connection {
        let (read, write) = tokio::io::split(stream);
        Connection {
            wire: Wire::new(Box::new(read)),
            write: Write::Other(Box::new(write)),
            body: Body::Done,
            trailers: Fields::default(),
        }
    }

    /// One exchange: sends, and reads the whole response.
    pub async fn ask(&mut self, ask: &Ask) -> Response {
        self.send(ask.bytes()).await;
        self.response(&ask.method).await
    }

    /// Sends bytes as they are; panics where the peer no longer takes them.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap_or_else(|e| panic!("cannot send: {e}"));
    }

    /// Sends bytes as they are.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let sending = async {
            match &mut self.write {
                Write::Plain(write) => write.write_all(bytes.as_ref()).await,
                Write::Other(write) => {
                    write.write_all(bytes.as_ref()).await?;
                    write.flush().await
                }
            }
        };
        within("the peer to take what is sent", sending).await
    }

    /// Reads a whole response to a request with this method.
    pub async fn response(&mut self, method: &str) -> Response {
        let head = self.head(method).await;
        self.rest(head).await
    }

    /// Reads 1xx responses and the head of the final one; its body is empty so far.
    pub async fn head(&mut self, method: &str) -> Response {
        self.try_head(method).await.unwrap_or_else(|| panic!("the connection ended without a response to {method}"))
    }

    /// As [`Connection::head`]; `None` where the connection ends, or is reset, before the response's first byte.
    pub async fn try_head(&mut self, method: &str) -> Option<Response> {
        let mut interim = Vec::new();
        loop {
            let head = match within(&format!("a response to {method}"), self.wire.head()).await {
                Ok(head) => head?,
                Err(e) if reset(&e) => return None,
                Err(e) => panic!("no response to {method}: {e}"),
            };
            let Head { start: [version, status, reason], fields } = head;
            let status: u16 = status.parse().unwrap_or_else(|_| panic!("not a status: {version} {status} {reason}"));
            if (100..200).contains(&status) && status != 101 {
                interim.push((status, fields));
                continue;
            }
            self.body = match status {
                _ if method == "HEAD" => Body::Done,
                101 | 204 | 304 => Body::Done,
                _ => Body::announced(&fields, if fields.has("Content-Length") { Body::Done } else { Body::Close }),
            };
            self.trailers = Fields::default();
            let (trailers, body, end) = (Fields::default(), Vec::new(), End::Clean);
            return Some(Response { status, version, reason, headers: fields, interim, body, trailers, end });
        }
    }

    /// The next 1xx response; panics where the final one comes, or none.
    pub async fn interim(&mut self) -> (u16, Fields) {
        let head = within("a 1xx response", self.wire.head()).await;
        let Ok(Some(Head { start: [_, status, _], fields })) = head else { panic!("no 1xx response: {head:?}") };
        match status.parse() {
            Ok(status) if (100..200).contains(&status) => (status, fields),
            _ => panic!("not a 1xx response: {status} {fields:?}"),
        }
    }

    /// The next bytes of the body, as they come; `Ok(None)` at its clean end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, End> {
        within("more of a body", self.wire.body(&mut self.body, &mut self.trailers)).await.map_err(|e| end(&e))
    }

    /// Reads until `n` more bytes of the body have come; panics where it ends before.
    pub async fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < n {
            match self.chunk().await {
                Ok(Some(piece)) => out.extend_from_slice(&piece),
                other => panic!("wanted {n} bytes, got {} and then {other:?}", out.len()),
            }
        }
        out
    }

    /// Reads what is left of the body into the response.
    pub async fn rest(&mut self, mut response: Response) -> Response {
        response.end = loop {
            match self.chunk().await {
                Ok(Some(piece)) => response.body.extend_from_slice(&piece),
                Ok(None) => break End::Clean,
                Err(end) => break end,
            }
        };
        response.trailers = std::mem::take(&mut self.trailers);
        response
    }

    /// Waits for the peer to close, and gives how it did and whatever it still sent.
    pub async fn closed(&mut self) -> (End, Vec<u8>) {
        let mut sent = Vec::new();
        loop {
            match within("the peer to close", self.wire.raw()).await {
                Ok(Some(piece)) => sent.extend_from_slice(&piece),
                Ok(None) => return (End::Clean, sent),
                Err(e) => return (end(&e), sent),
            }
        }
    }

    /// Sends FIN: no more requests, but responses are still read.
    pub async fn finish_sending(&mut self) {
        // A peer that has gone is noticed by the next read.
        let _ = match &mut self.write {
            Write::Plain(write) => write.shutdown().await,
            Write::Other(write) => write.shutdown().await,
        };
    }

    /// Resets the connection.
    pub fn reset(self) {
        let Write::Plain(write) = self.write else { panic!("only a plain connection can be reset") };
        let _ = write.as_ref().set_zero_linger();
        // An owned write half sends FIN as it is dropped; without that, the close of the socket is an RST.
        write.forget();
    }
}

/// A whole exchange over a connection of its own.
pub async fn exchange(address: SocketAddr, ask: &Ask) -> Response {
    Connection::open(address).await.ask(ask).await
}

fn reset(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn end(e: &io::Error) -> End {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => End::Cut,
        io::ErrorKind::InvalidData => End::Malformed,
        _ => End::Reset,
    }
}
