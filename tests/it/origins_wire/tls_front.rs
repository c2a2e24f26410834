//! TLS before a scripted origin: what comes out of it goes on to the origin as it is.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::harness::{Origin, Port, within};

/// How a client has greeted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// The name asked for.
    pub sni: Option<String>,
    pub alpn: Option<String>,
    /// Certificates that it has shown.
    pub certificates: usize,
    pub resumed: bool,
}

pub struct TlsFront {
    port: Port,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    config: Arc<ServerConfig>,
    greetings: Mutex<Vec<Greeting>>,
    open: watch::Sender<usize>,
}

impl TlsFront {
    pub async fn start(config: ServerConfig, origin: &Origin) -> TlsFront {
        TlsFront::before(config, origin.address())
    }

    pub fn before(config: ServerConfig, behind: SocketAddr) -> TlsFront {
        let port = Port::reserve();
        let listener = port.listen();
        let shared =
            Arc::new(Shared { config: Arc::new(config), greetings: Mutex::default(), open: watch::Sender::new(0) });
        let state = shared.clone();
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                tasks.spawn(async move {
                    state.open.send_modify(|n| *n += 1);
                    serve(stream, behind, &state).await;
                    state.open.send_modify(|n| *n -= 1);
                });
            }
        });
        TlsFront { port, shared, task: task.abort_handle() }
    }

    pub fn address(&self) -> String {
        self.port.address().to_string()
    }

    pub fn port(&self) -> u16 {
        self.port.address().port()
    }

    /// Of every handshake that succeeded.
    pub fn greetings(&self) -> Vec<Greeting> {
        self.shared.greetings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until exactly `n` connections are open.
    pub async fn wait_for_open(&self, n: usize) {
        let mut open = self.shared.open.subscribe();
        let _ = within(&format!("{n} open connections at a server"), open.wait_for(|open| *open == n)).await;
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, behind: SocketAddr, state: &Shared) {
    let _ = stream.set_nodelay(true);
    let config = state.config.clone();
    let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await else { return };
    let session = stream.get_ref().1;
    let greeting = Greeting {
        sni: session.server_name().map(str::to_owned),
        alpn: session.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned()),
        certificates: session.peer_certificates().map_or(0, |c| c.len()),
        resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
    };
    state.greetings.lock().unwrap_or_else(PoisonError::into_inner).push(greeting);
    let Ok(mut origin) = TcpStream::connect(behind).await else { return };
    let _ = origin.set_nodelay(true);
    let _ = copy_bidirectional(&mut stream, &mut origin).await;
    let _ = stream.shutdown().await;
}

/// Answers each connection's first request with this, and ends it without a word of TLS: as a cut would look.
pub async fn cutting(config: ServerConfig, answer: &'static [u8]) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer).await;
                let _ = stream.flush().await;
                // Dropped: no close_notify.
            });
        }
    });
    address
}
