//! The admin's thread: accepting, and seeing every connection to its end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

use super::bind::{Bound, Listener, SocketFile};
use super::desk::{self, Desk};
use super::guard::Guard;
use super::{Control, routes};

/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 256;

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
    /// Where the thread or its runtime cannot be made.
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
        let guard = match &self.listener {
            _ if !self.tokens.is_empty() => Guard::Tokens(self.tokens),
            Listener::Unix(..) => Guard::Anybody,
            Listener::Tcp(_) => Guard::NoPages,
        };
        let own_name = match &self.listener {
            Listener::Tcp(_) => None,
            Listener::Unix(_, file) => Some(file.own()),
        };
        let router = routes::router(Desk::new(control), guard);
        let acceptor = {
            let _context = runtime.enter();
            Acceptor::new(self.listener)?
        };
        let work = async move { accept(acceptor, router, shutdown).await };
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

async fn accept(acceptor: Acceptor, router: Router, shutdown: impl Future<Output = ()>) {
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
                tokio::spawn(async move {
                    serve(connection, router, stopped).await;
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

async fn serve(connection: Box<dyn Connection>, router: Router, mut stopped: watch::Receiver<()>) {
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(connection), TowerToHyperService::new(router))
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
