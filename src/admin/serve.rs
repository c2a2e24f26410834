//! The admin's thread: accepting, and seeing every connection to its end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::bind::{Bound, Listener, SocketFile};
use super::desk::{self, Desk};
use super::guard::Peer;
use super::in_force::InForce;
use super::{Control, routes, tls};

/// Connections at once, those included that are at their handshake; more wait to be accepted.
const CONNECTIONS: usize = 256;

/// From the connection to the end of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// For a request's header section, and for a kept connection without a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The life of a connection: one whose client does not read its answer would otherwise keep its place for ever.
const LIFETIME: Duration = Duration::from_secs(600);

/// For the answers that are under way when a connection or the listener is to end.
const GRACE: Duration = Duration::from_secs(5);

/// For the request on a connection that was opened just before the end.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

/// Before accepting again when the system is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// An admin listener that answers.
#[derive(Debug)]
pub struct Serving {
    thread: JoinHandle<()>,
    /// For a Unix socket.
    own_name: Option<Arc<AtomicBool>>,
}

impl Serving {
    /// Whether a Unix socket's name is removed when the listener ends: it belongs to the process that was handed the
    /// listener last, once that one serves. As [`bind`](super::bind) leaves it, it does; as [`Bound::adopt`] does, not.
    pub fn own_name(&self, own: bool) {
        if let Some(flag) = &self.own_name {
            flag.store(own, Ordering::Release);
        }
    }

    /// Blocks until the listener has ended: soon after `shutdown`.
    pub fn join(self) {
        if self.thread.join().is_err() {
            log::error!("admin: its thread panicked");
        }
    }
}

impl Bound {
    /// Answers until `shutdown` completes, and a few seconds more for what is under way then.
    ///
    /// `shutdown` runs on the admin's own runtime.
    ///
    /// # Errors
    /// Where the thread or its runtime cannot be made, or the certificate will not do.
    pub fn serve(
        self,
        control: Arc<dyn Control>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<Serving> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(desk::THREADS)
            .thread_name("admin-blocking")
            .build()?;
        let own_name = match &self.listener {
            Listener::Tcp(_) => None,
            Listener::Unix(_, file) => Some(file.own()),
        };
        let in_force = InForce::new(self.settings, own_name.is_some(), control.clone()).map_err(io::Error::other)?;
        let router = routes::router(Desk::new(control), in_force.clone());
        let acceptor = {
            let _context = runtime.enter();
            Acceptor::new(self.listener)?
        };
        let work = async move { accept(acceptor, in_force, router, shutdown).await };
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(work);
            // A reload that hangs on a dead file system must not keep the process.
            runtime.shutdown_background();
        })?;
        Ok(Serving { thread, own_name })
    }
}

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "removes the socket's name when it is dropped")] SocketFile),
}

impl Acceptor {
    fn new(listener: Listener) -> io::Result<Acceptor> {
        match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Acceptor::Tcp)
            }
            Listener::Unix(listener, file) => {
                listener.set_nonblocking(true)?;
                Ok(Acceptor::Unix(UnixListener::from_std(listener)?, file))
            }
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Connection>> {
        match self {
            Acceptor::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are written in one piece; to wait for more would only delay them.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Acceptor::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

async fn accept(acceptor: Acceptor, in_force: InForce, router: Router, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let (stop, stopped) = watch::channel(());
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = &mut shutdown => break,
        };
        // The semaphore is never closed.
        let Ok(place) = place else { break };
        let connection = tokio::select! {
            connection = acceptor.accept() => connection,
            () = &mut shutdown => break,
        };
        match connection {
            Ok(connection) => {
                let (router, stopped) = (router.clone(), stopped.clone());
                let tls = in_force.now().tls.clone();
                tokio::spawn(async move {
                    secure(connection, tls, router, stopped).await;
                    drop(place);
                });
            }
            Err(error) => {
                log::warn!("admin: a connection cannot be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(acceptor);
    drop(stopped);
    let _ = stop.send(());
    // Completes when the last connection has dropped its receiver; each of them ends within its own grace.
    stop.closed().await;
}

/// Ends the handshake where TLS is spoken, then serves. Whoever is at it waits for nobody else, and has a connection's place.
async fn secure(
    connection: Box<dyn Connection>,
    tls: Option<TlsAcceptor>,
    router: Router,
    mut stopped: watch::Receiver<()>,
) {
    let Some(tls) = tls else { return serve(connection, Peer::default(), router, stopped).await };
    let done = tokio::select! {
        done = tls::handshake(&tls, connection, HANDSHAKE_TIMEOUT) => done,
        _ = stopped.changed() => return,
    };
    match done {
        Ok((connection, names)) => serve(Box::new(connection), Peer { secure: true, names }, router, stopped).await,
        // For whoever wonders why a client of theirs gets no answer; and no way for strangers to fill the log.
        Err(error) => log::debug!("admin: a TLS handshake failed: {error}"),
    }
}

async fn serve(connection: Box<dyn Connection>, peer: Peer, router: Router, mut stopped: watch::Receiver<()>) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.call(request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(connection), service)
    );
    tokio::select! {
        // Its errors are the client's: a reset, a line that is not HTTP, a time that ran out.
        _ = connection.as_mut() => return,
        _ = stopped.changed() => {
            if tokio::time::timeout(ON_ITS_WAY, connection.as_mut()).await.is_ok() {
                return;
            }
        }
        () = tokio::time::sleep(LIFETIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(GRACE, connection).await;
}
