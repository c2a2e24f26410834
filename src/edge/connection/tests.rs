//! Connections over TLS: what waits in the session is not forgotten, and not held against anybody.

use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::super::watch::Watch;
use super::{Connection, Transport};
use crate::config::model::{Http2Limits, Limits};

const LIMITS: Limits = Limits {
    header_count: 100,
    header_size: 1024,
    uri_length: 1024,
    body_size: None,
    idle_timeout: Duration::from_secs(60),
    header_timeout: Duration::from_secs(60),
    body_timeout: Duration::from_secs(60),
    write_timeout: Duration::from_millis(300),
    connections: 10,
    connections_per_address: None,
    body_min_rate: None,
    send_min_rate: None,
    http2: Http2Limits { streams: 128, resets: 1000, control_frames: 1000 },
};

/// A connection whose client has shaken hands, and now takes bytes as they are.
struct Bench {
    connection: Connection,
    socket: std::net::TcpStream,
    watch: Arc<Watch>,
}

impl Bench {
    async fn new(limits: Limits) -> Bench {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (io, peer) = listener.accept().await.unwrap();
        let server = hands();
        let watch = Watch::new(limits);
        let connection = Connection::new(Transport::tls(io, server), peer, watch.add(), false, None);
        Bench { connection, socket: socket.into_std().unwrap(), watch }
    }

    /// Takes what has come; how much that was.
    fn drain(&mut self) -> usize {
        let (mut all, mut piece) = (0, vec![0; 1 << 16]);
        loop {
            match self.socket.read(&mut piece) {
                Ok(0) => return all,
                Ok(n) => all += n,
                Err(_) => return all,
            }
        }
    }

    /// Writes until nothing more is taken.
    async fn fill(&mut self) {
        let piece = vec![0; 1 << 16];
        let connection = &mut self.connection;
        poll_fn(|cx| {
            while let Poll::Ready(written) = Pin::new(&mut *connection).poll_write(cx, &piece) {
                written.unwrap();
            }
            Poll::Ready(())
        })
        .await;
    }

    /// One look for something to read: how much there was.
    async fn read(&mut self) -> Option<std::io::Result<usize>> {
        let connection = &mut self.connection;
        poll_fn(|cx| {
            let mut buffer = [0; 1024];
            let mut buffer = ReadBuf::new(&mut buffer);
            Poll::Ready(match Pin::new(&mut *connection).poll_read(cx, &mut buffer) {
                Poll::Ready(read) => Some(read.map(|()| buffer.filled().len())),
                Poll::Pending => None,
            })
        })
        .await
    }
}

fn hands() -> ServerConnection {
    let provider = Arc::new(default_provider());
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from("a").unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.wants_write() || server.wants_write() {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut there).unwrap();
        }
        let mut there = &there[..];
        while !there.is_empty() {
            server.read_tls(&mut there).unwrap();
            server.process_new_packets().unwrap();
        }
        while server.wants_write() {
            server.write_tls(&mut back).unwrap();
        }
        let mut back = &back[..];
        while !back.is_empty() {
            client.read_tls(&mut back).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    server
}

/// HTTP/2 reads and writes at once: what a write has left behind may leave with a read.
#[tokio::test]
async fn a_client_that_has_taken_everything_is_not_too_slow() {
    let mut bench = Bench::new(LIMITS).await;
    bench.fill().await;
    tokio::spawn(bench.watch.clone().run());
    for _ in 0..200 {
        bench.drain();
        assert!(bench.read().await.is_none());
        tokio::task::yield_now().await;
        if bench.connection.io.is_flushed() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(bench.connection.io.is_flushed());
    poll_fn(|cx| Pin::new(&mut bench.connection).poll_flush(cx)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(!bench.connection.watched().expired());
}

/// A read that moves some of what waits to be written does not stop the clock of the rest.
#[tokio::test]
async fn a_client_that_takes_no_more_is_too_slow_though_it_is_read_from() {
    let mut bench = Bench::new(LIMITS).await;
    bench.fill().await;
    tokio::spawn(bench.watch.clone().run());
    assert!(bench.read().await.is_none());
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if bench.connection.watched().expired() {
            return;
        }
    }
    panic!("not ended");
}

/// The end of a response that was absorbed is not left to wait for the next request.
#[tokio::test]
async fn what_was_absorbed_leaves_while_the_next_request_is_waited_for() {
    let mut bench = Bench::new(Limits { write_timeout: Duration::from_secs(60), ..LIMITS }).await;
    bench.fill().await;
    bench.connection.absorb(true);
    let connection = &mut bench.connection;
    poll_fn(|cx| Pin::new(&mut *connection).poll_write(cx, &[1; 100_000])).await.unwrap();
    poll_fn(|cx| Pin::new(&mut *connection).poll_flush(cx)).await.unwrap();
    bench.connection.request_ended();
    let mut last = 0;
    for round in 0..2000 {
        let came = bench.drain();
        last = if came > 0 { round } else { last };
        if round > last + 100 {
            break;
        }
        let _ = tokio::time::timeout(Duration::from_millis(1), bench.connection.readable()).await;
    }
    let none = super::lock(&bench.connection.outbox).is_empty();
    assert!(none && bench.connection.io.is_flushed());
}
