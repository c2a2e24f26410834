//! Sockets other than those of IPv4.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::before;
use crate::harness::{Ask, Edge, Gate};

async fn answers(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let host = head.lines().find_map(|l| l.strip_prefix("host: ").or(l.strip_prefix("Host: "))).unwrap_or("-");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{host}", host.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn unix_sockets() {
    let folder = std::path::Path::new("/tmp").join(format!("foreland-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(answers(stream));
        }
    });
    let edge = before(&format!("unix:{}", path.display()), "").await;
    for _ in 0..5 {
        assert_eq!(edge.get("/").await.text(), "edge.test");
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1, "it is kept");
    std::fs::remove_file(&path).unwrap();
    let gone = before(&format!("unix:{}", path.display()), "").await;
    assert_eq!(gone.get("/").await.status, 502);
    assert!(super::detail(&gone).await.contains("app.sock"), "{}", super::detail(&gone).await);
    let _ = std::fs::remove_dir_all(folder);
}

#[tokio::test]
async fn ipv6() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answers(stream));
        }
    });
    let edge = before(&address.to_string(), "").await;
    assert_eq!(edge.get("/").await.text(), "edge.test");
    let edge = before(&address.to_string(), "host: server").await;
    assert_eq!(edge.get("/").await.text(), address.to_string());
}

/// Descriptors of the edge.
pub fn descriptors(edge: &Edge) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", edge.pid().as_raw_nonzero())).unwrap().count()
}

#[tokio::test]
async fn many_clients_at_once_over_a_unix_socket() {
    let folder = std::path::Path::new("/tmp").join(format!("foreland-many-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let gate = Gate::new();
    let held = gate.clone();
    tokio::spawn(async move {
        held.pass().await;
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answers(stream));
        }
    });
    let edge = before(&format!("unix:{}", path.display()), "").await;
    let mut clients = Vec::new();
    for _ in 0..64 {
        let mut client = edge.connect().await;
        client.send(Ask::get("/").bytes()).await;
        clients.push(client);
    }
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response("GET").await.status, 200);
    }
    let _ = std::fs::remove_dir_all(folder);
}
