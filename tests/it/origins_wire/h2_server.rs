//! A server of HTTP/2, with prior knowledge or over TLS.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::harness::Port;

pub type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;
type Handler = dyn Fn(Asked) -> Answering + Send + Sync;

/// A request, and the way to its answer.
pub struct Asked {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
}

/// How its connections behave.
#[derive(Clone, Default)]
pub struct Manners {
    /// Streams that it allows at once.
    pub streams: Option<u32>,
    /// Says GOAWAY after so many requests on a connection.
    pub goodbye_after: Option<usize>,
    pub tls: Option<Arc<ServerConfig>>,
}

pub struct H2Server {
    port: Port,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    handler: Box<Handler>,
    manners: Manners,
    accepted: AtomicUsize,
    requests: AtomicUsize,
    targets: Mutex<Vec<(usize, String)>>,
}

impl H2Server {
    pub fn start(manners: Manners, handler: impl Fn(Asked) -> Answering + Send + Sync + 'static) -> H2Server {
        let port = Port::reserve();
        let listener = port.listen();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            manners,
            accepted: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            targets: Mutex::default(),
        });
        let state = shared.clone();
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                let _ = stream.set_nodelay(true);
                tasks.spawn(async move {
                    let number = state.accepted.fetch_add(1, Ordering::SeqCst);
                    match state.manners.tls.clone() {
                        None => serve(stream, number, &state).await,
                        Some(config) => {
                            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                                serve(stream, number, &state).await;
                            }
                        }
                    }
                });
            }
        });
        H2Server { port, shared, task: task.abort_handle() }
    }

    pub fn address(&self) -> String {
        self.port.address().to_string()
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The connection and the path of each request so far.
    pub fn targets(&self) -> Vec<(usize, String)> {
        self.shared.targets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for H2Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Asked {
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// Answers 200 with this.
    pub fn ok(self, body: impl Into<Bytes>) {
        let mut respond = self.respond;
        if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
            let _ = stream.send_data(body.into(), true);
        }
    }

    pub fn reset(mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }

    /// The whole of the request's body.
    pub async fn body(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let stream = self.request.body_mut();
        while let Some(Ok(piece)) = stream.data().await {
            let _ = stream.flow_control().release_capacity(piece.len());
            all.extend_from_slice(&piece);
        }
        all
    }
}

/// Answers at once.
pub fn at_once(answer: impl FnOnce()) -> Answering {
    answer();
    Box::pin(std::future::ready(()))
}

async fn serve<T: AsyncRead + AsyncWrite + Unpin>(stream: T, number: usize, state: &Shared) {
    let mut builder = Builder::new();
    if let Some(streams) = state.manners.streams {
        builder.max_concurrent_streams(streams);
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut answers = JoinSet::new();
    let mut left = state.manners.goodbye_after;
    while let Some(Ok((request, respond))) = connection.accept().await {
        let path = request.uri().path().to_owned();
        state.targets.lock().unwrap_or_else(PoisonError::into_inner).push((number, path));
        state.requests.fetch_add(1, Ordering::SeqCst);
        answers.spawn((state.handler)(Asked { request, respond }));
        if let Some(left) = &mut left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                connection.graceful_shutdown();
            }
        }
    }
}
