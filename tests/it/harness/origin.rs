//! A scripted HTTP/1.1 origin over plain TCP: every byte it sends is the test's, every byte it gets is recorded.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::fields::latin1;
use super::reply::{After, ReplyFraming, ReplyHead, Step};
use super::wire::{Body, Wire};
use super::{Fields, Port, Reply, within};

/// Listens from `start` to its drop, except between `stop` and `restart`.
pub struct Origin {
    port: Port,
    shared: Arc<Shared>,
    running: Option<Running>,
}

/// A request as the origin saw it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// As on the wire.
    pub target: String,
    pub version: String,
    pub headers: Fields,
    /// What has come so far.
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Has come to its end; `false` while it comes, and for good where it was cut.
    pub complete: bool,
    /// Counts the connections: two requests with the same number came over the same one.
    pub connection: usize,
}

impl Request {
    /// The first line of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The target up to its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, q)| q)
    }
}

impl Origin {
    /// Answers each request, once it is read to its end, as `handler` says.
    pub async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Origin {
        Origin::with(When::Complete, Arc::new(handler))
    }

    /// Answers as soon as it has a request's head, never reads the body, and closes after each answer.
    pub async fn start_deaf(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Origin {
        Origin::with(When::Head, Arc::new(handler))
    }

    fn with(when: When, handler: Arc<Handler>) -> Origin {
        let shared = Shared {
            when,
            handler: Mutex::new(handler),
            seen: Mutex::default(),
            count: watch::Sender::new(0),
            connections: watch::Sender::new(Connections::default()),
        };
        let mut origin = Origin { port: Port::reserve(), shared: Arc::new(shared), running: None };
        origin.listen();
        origin
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Answers differently from the next request on.
    pub fn answer(&self, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        *lock(&self.shared.handler) = Arc::new(handler);
    }

    /// Every request so far, in the order of their heads.
    pub fn seen(&self) -> Vec<Request> {
        lock(&self.shared.seen).clone()
    }

    /// The number of requests so far.
    pub fn count(&self) -> usize {
        lock(&self.shared.seen).len()
    }

    /// Waits until `n` requests in all have come (their heads, at least), and gives all that have.
    pub async fn wait_for(&self, n: usize) -> Vec<Request> {
        let mut count = self.shared.count.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = within(&format!("{n} requests at the origin"), count.wait_for(|c| *c >= n)).await;
        self.seen()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.connections.borrow().accepted
    }

    /// Waits until exactly `n` connections are open.
    pub async fn wait_for_open(&self, n: usize) {
        let mut connections = self.shared.connections.subscribe();
        let _ = within(&format!("{n} open connections at the origin"), connections.wait_for(|c| c.open == n)).await;
    }

    /// Closes the listener and every connection. New connections are refused once this returns.
    pub async fn stop(&mut self) {
        if let Some(Running { stop, task }) = self.running.take() {
            drop(stop);
            let _ = within("an origin's end", task).await;
        }
    }

    /// Listens again on the same port.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "restart follows stop");
        self.listen();
    }

    fn listen(&mut self) {
        let listener = self.port.listen();
        let shared = Arc::clone(&self.shared);
        let (stop, mut stopped) = watch::channel(());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    _ = stopped.changed() => break,
                    Ok((stream, _)) = listener.accept() => {
                        let shared = Arc::clone(&shared);
                        connections.spawn(async move { serve(stream, &shared).await });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
            drop(listener);
            connections.shutdown().await;
        });
        self.running = Some(Running { stop, task });
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

struct Running {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

struct Shared {
    when: When,
    handler: Mutex<Arc<Handler>>,
    seen: Mutex<Vec<Request>>,
    count: watch::Sender<usize>,
    connections: watch::Sender<Connections>,
}

#[derive(Clone, Copy, PartialEq)]
enum When {
    Complete,
    Head,
}

#[derive(Default)]
struct Connections {
    accepted: usize,
    open: usize,
}

/// Counts a connection as open while it lives, also where its task is aborted.
struct Open<'a>(&'a Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.send_modify(|c| c.open -= 1);
    }
}

impl Shared {
    fn record(&self, request: Request) -> usize {
        let mut seen = lock(&self.seen);
        seen.push(request);
        let count = seen.len();
        drop(seen);
        self.count.send_replace(count);
        count - 1
    }
}

/// One connection to its end. Errors need no report: the peer sees them, and the test asks the peer.
async fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut serial = 0;
    shared.connections.send_modify(|c| {
        serial = c.accepted;
        c.accepted += 1;
        c.open += 1;
    });
    let _open = Open(shared);
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut wire = Wire::new(read);
    while let Some(head) = wire.head().await? {
        let [method, target, version] = head.start;
        let mut body = Body::announced(&head.fields, Body::Done);
        let awaits = head.fields.lists("Expect", "100-continue");
        let index = shared.record(Request {
            method,
            target,
            version,
            headers: head.fields,
            connection: serial,
            ..Request::default()
        });
        if shared.when == When::Complete {
            if awaits {
                write.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
            let mut trailers = Fields::default();
            while let Some(piece) = wire.body(&mut body, &mut trailers).await? {
                lock(&shared.seen)[index].body.extend_from_slice(&piece);
            }
            let request = &mut lock(&shared.seen)[index];
            request.trailers = trailers;
            request.complete = true;
        }
        let request = lock(&shared.seen)[index].clone();
        // Taken out of the lock first: a handler may look at its own origin.
        let handler = Arc::clone(&lock(&shared.handler));
        let reply = handler(&request);
        match answer(&mut write, reply, &request).await? {
            Next::Request if shared.when == When::Complete && !request.headers.lists("Connection", "close") => {}
            Next::Request | Next::Close => break,
            Next::Reset => {
                // With no linger time the close is an RST; an owned half would send a FIN first as it is dropped.
                write.as_ref().set_zero_linger()?;
                write.forget();
                break;
            }
        }
    }
    Ok(())
}

/// What becomes of a connection after an answer.
enum Next {
    Request,
    Close,
    Reset,
}

/// Plays the script.
async fn answer(write: &mut OwnedWriteHalf, reply: Reply, request: &Request) -> io::Result<Next> {
    let after = if reply.after == After::KeepAlive { Next::Request } else { Next::Close };
    if let Some(gate) = &reply.hold {
        gate.pass().await;
    }
    for (code, fields) in &reply.interim {
        let mut out = format!("HTTP/1.1 {code} {}\r\n", reason(*code)).into_bytes();
        fields.write(&mut out);
        out.extend(b"\r\n");
        write.write_all(&out).await?;
    }
    let mut chunked = false;
    if let ReplyHead::Status { code, fields } = &reply.head {
        let bodiless = request.method == "HEAD" || matches!(code, 204 | 304);
        write.write_all(&head(*code, fields, &reply)).await?;
        chunked = reply.framing == ReplyFraming::Chunked && !bodiless;
        if bodiless {
            return Ok(after);
        }
    }
    for step in &reply.steps {
        match step {
            Step::Send(piece) if chunked => {
                let mut out = format!("{:x}\r\n", piece.len()).into_bytes();
                out.extend_from_slice(piece);
                out.extend(b"\r\n");
                write.write_all(&out).await?;
            }
            Step::Send(piece) => write.write_all(piece).await?,
            Step::Wait(gate) => gate.pass().await,
            Step::Cut => return Ok(Next::Close),
            Step::Reset => return Ok(Next::Reset),
            Step::Stall => return stall(write).await,
        }
    }
    if chunked {
        let mut out = b"0\r\n".to_vec();
        reply.trailers.write(&mut out);
        out.extend(b"\r\n");
        write.write_all(&out).await?;
    }
    Ok(after)
}

/// Says nothing more, until the peer has enough of it.
async fn stall(write: &OwnedWriteHalf) -> io::Result<Next> {
    match write.as_ref().peek(&mut [0]).await? {
        0 => Ok(Next::Close),
        // Its next request is not read.
        _ => std::future::pending().await,
    }
}

fn head(code: u16, fields: &Fields, reply: &Reply) -> Vec<u8> {
    let mut out = latin1(&format!("HTTP/1.1 {code} {}\r\n", reason(code)));
    fields.write(&mut out);
    let announced = fields.has("Content-Length") || fields.has("Transfer-Encoding");
    match reply.framing {
        _ if announced || code == 204 || (code == 304 && reply.steps.is_empty()) => {}
        ReplyFraming::Length => {
            let sent = |s: &Step| if let Step::Send(piece) = s { piece.len() } else { 0 };
            let length: usize = reply.steps.iter().map(sent).sum();
            out.extend(format!("Content-Length: {length}\r\n").bytes());
        }
        ReplyFraming::Claimed(length) => out.extend(format!("Content-Length: {length}\r\n").bytes()),
        ReplyFraming::Chunked => out.extend(b"Transfer-Encoding: chunked\r\n"),
        ReplyFraming::UntilClose => {}
    }
    if reply.after == After::Close {
        out.extend(b"Connection: close\r\n");
    }
    out.extend(b"\r\n");
    out
}

fn reason(code: u16) -> &'static str {
    http::StatusCode::from_u16(code).ok().and_then(|s| s.canonical_reason()).unwrap_or("Scripted")
}

/// A handler that panics closes its connection, as the edge will notice; the record stays good.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
