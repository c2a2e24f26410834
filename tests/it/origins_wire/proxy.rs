//! The PROXY protocol, byte for byte as a server gets it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::yaml;
use crate::harness::{Ask, Edge, eventually};

/// What came before the request on each connection.
#[derive(Clone, Default)]
struct Headers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Headers {
    fn all(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }
}

/// Takes what comes before a GET or a POST, and answers everything.
async fn server() -> (SocketAddr, Headers) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let headers = Headers::default();
    let seen = headers.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut first = true;
                loop {
                    let mut came = Vec::new();
                    while !came.ends_with(b"\r\n\r\n") || !came.windows(9).any(|w| w == b" HTTP/1.1") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        came.push(byte);
                    }
                    let at = came.windows(5).position(|w| w == b"GET /").unwrap();
                    let header = came[..at].to_vec();
                    assert!(first || header.is_empty());
                    if first {
                        seen.0.lock().unwrap().push(header);
                    }
                    first = false;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    (address, headers)
}

/// Asks from a loopback address; from where it was.
async fn ask_from(edge: &Edge, from: &str, fields: &str) -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    let mut stream = socket.connect(edge.address()).await.unwrap();
    let local = stream.local_addr().unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    local
}

fn v2(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let (SocketAddr::V4(client), SocketAddr::V4(local)) = (client, local) else { panic!("IPv4") };
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(client.ip().octets());
    header.extend(local.ip().octets());
    header.extend(client.port().to_be_bytes());
    header.extend(local.port().to_be_bytes());
    header
}

#[tokio::test]
async fn the_server_learns_who_the_client_is() {
    let (server, headers) = server().await;
    for version in ["v1", "v2"] {
        let edge = Edge::start(&yaml(&[&server.to_string()], &format!("proxy_protocol: {version}"))).await;
        let local = edge.address();
        for from in ["127.0.0.1", "127.0.0.7"] {
            let before = headers.all().len();
            let client = ask_from(&edge, from, "").await;
            let expected = match version {
                "v1" => format!("PROXY TCP4 {} {} {} {}\r\n", client.ip(), local.ip(), client.port(), local.port())
                    .into_bytes(),
                _ => v2(client, local),
            };
            assert_eq!(headers.all()[before..], [expected], "{version} from {from}");
        }
        // A connection names one client: the next request of the same one has its own, too.
        let before = headers.all().len();
        let mut client = edge.connect().await;
        for _ in 0..3 {
            assert_eq!(client.ask(&Ask::get("/")).await.text(), "ok");
        }
        assert_eq!(headers.all().len(), before + 3);
        let h2 = edge.connect_h2().await;
        assert_eq!(h2.ask(&Ask::get("/")).await.text(), "ok");
    }
}

#[tokio::test]
async fn behind_trusted_proxies_the_client_is_who_they_say() {
    let (server, headers) = server().await;
    let base = yaml(&[&server.to_string()], "proxy_protocol: v1");
    let edge = Edge::start(&format!("{base}trusted_proxies: [\"127.0.0.1/32\"]\n")).await;
    // From a proxy that is trusted, from one that is not, and with nothing said.
    ask_from(&edge, "127.0.0.1", "X-Forwarded-For: 192.0.2.66, 198.51.100.7\r\n").await;
    let stranger = ask_from(&edge, "127.0.0.9", "X-Forwarded-For: 198.51.100.7\r\n").await;
    let plain = ask_from(&edge, "127.0.0.1", "").await;
    ask_from(&edge, "127.0.0.1", "X-Forwarded-For: 2001:db8::7\r\n").await;
    let local = edge.address();
    let texts: Vec<_> = headers.all().iter().map(|h| String::from_utf8_lossy(h).into_owned()).collect();
    let port = local.port();
    assert_eq!(
        texts,
        [
            // The port of the client's own connection is not known.
            format!("PROXY TCP4 198.51.100.7 127.0.0.1 0 {port}\r\n"),
            format!("PROXY TCP4 127.0.0.9 127.0.0.1 {} {port}\r\n", stranger.port()),
            format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {port}\r\n", plain.port()),
            format!("PROXY TCP6 2001:db8::7 ::ffff:127.0.0.1 0 {port}\r\n"),
        ]
    );
}

#[tokio::test]
async fn a_probe_names_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Headers::default();
    let all = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut came = vec![0; 16];
            if stream.read_exact(&mut came).await.is_ok() {
                all.0.lock().unwrap().push(came);
            }
        }
    });
    let settings = "proxy_protocol: v2, health_check: { path: /h, interval: 100ms, timeout: 100ms }";
    let _edge = Edge::start(&yaml(&[&address.to_string()], settings)).await;
    eventually("a probe", async || !seen.all().is_empty()).await;
    assert_eq!(seen.all()[0], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
}
