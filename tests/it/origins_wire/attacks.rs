//! Servers that are broken, or mean it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::before;
use super::plain::descriptors;
use crate::harness::{Ask, End, eventually, exchange, within};

/// Does this with every connection once a request's head has come (or, with `h2`, something).
async fn server<F, T>(then: F) -> SocketAddr
where
    F: Fn(TcpStream) -> T + Send + Sync + 'static,
    T: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let mut head = [0; 16 << 10];
            let _ = stream.read(&mut head).await;
            tokio::spawn(then(stream));
        }
    });
    address
}

#[tokio::test]
async fn garbage_is_a_502_at_once() {
    let mut many = b"HTTP/1.1 200 OK\r\n".to_vec();
    for n in 0..50_000 {
        many.extend(format!("x-{n}: y\r\n").bytes());
    }
    let mut long = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    long.resize(8 << 20, b'x');
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("zeros", vec![0; 100_000]),
        ("text", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("HTTP/2", b"\0\0\x12\x04\0\0\0\0\0".to_vec()),
        ("TLS", b"\x15\x03\x01\0\x02\x02\x46".to_vec()),
        ("empty lines", b"\r\n".repeat(100_000)),
        ("fields without end", many),
        ("a field without end", long),
        ("a status that is none", b"HTTP/1.1 2000 OK\r\n\r\n".to_vec()),
        ("a status of 0", b"HTTP/1.1 000 OK\r\n\r\n".to_vec()),
        ("a protocol that nobody asked for", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_vec()),
        ("HTTP/3", b"HTTP/3.0 200 OK\r\n\r\n".to_vec()),
        ("a folded line", b"HTTP/1.1 200 OK\r\na: b\r\n c\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("a NUL", b"HTTP/1.1 200 OK\r\na: \0\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("a CR", b"HTTP/1.1 200 OK\r\na: b\rc\r\nContent-Length: 0\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in cases {
        let bytes = Bytes::from(bytes);
        let address = server(move |mut stream| {
            let bytes = bytes.clone();
            async move {
                stream.write_all(&bytes).await?;
                // It would say more, if it were asked to.
                std::future::pending().await
            }
        })
        .await;
        let edge = before(&address.to_string(), "retries: 0, read_timeout: 60s").await;
        let before = descriptors(&edge);
        let response = edge.get("/").await;
        assert_eq!(response.status, 502, "{what}");
        assert_eq!(edge.metrics().await.sum("foreland_origin_failures_total", &[("kind", "protocol")]), 1.0, "{what}");
        eventually("the connection's end", async || descriptors(&edge) <= before + 1).await;
    }
}

#[tokio::test]
async fn chunks_that_are_none_cut_the_answer() {
    let mut extensions = b"1;".to_vec();
    extensions.resize(1 << 20, b'x');
    let mut trailers = b"0\r\n".to_vec();
    while trailers.len() < 1 << 20 {
        trailers.extend(b"x: y\r\n");
    }
    let many = b"1;x=y;z=\"\"\r\na\r\n".repeat(10_000);
    for (what, chunks, good) in [
        ("an extension without end", extensions, false),
        ("trailers without end", trailers, false),
        ("a size too large", b"ffffffffffffffffff\r\n".to_vec(), false),
        ("a size of minus one", b"-1\r\n".to_vec(), false),
        ("a line feed alone", b"1\na\n0\n\n".to_vec(), false),
        ("a chunk longer than it says", b"1\r\nabc\r\n0\r\n\r\n".to_vec(), false),
        ("many extensions", [&many[..], b"0\r\n\r\n"].concat(), true),
    ] {
        let chunks = Bytes::from(chunks);
        let address = server(move |mut stream| {
            let chunks = chunks.clone();
            async move {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                stream.write_all(&chunks).await?;
                std::future::pending().await
            }
        })
        .await;
        let edge = before(&address.to_string(), "retries: 0, read_timeout: 60s").await;
        let response = edge.get("/").await;
        if good {
            assert_eq!((response.status, response.end, response.body.len()), (200, End::Clean, 10_000), "{what}");
        } else {
            assert!(response.status == 502 || response.end != End::Clean, "{what}: {response:?}");
        }
    }
}

#[tokio::test]
async fn interim_responses_without_end_come_to_one() {
    let address = server(|mut stream| async move {
        let flood = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(1000);
        loop {
            stream.write_all(&flood).await?;
        }
    })
    .await;
    let edge = before(&address.to_string(), "retries: 0, read_timeout: 500ms").await;
    let began = Instant::now();
    let response = edge.get("/").await;
    assert_eq!(response.status, 502, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_connection_that_nobody_answers_is_given_up() {
    let address = server(|stream| async move {
        let _held = stream;
        std::future::pending().await
    })
    .await;
    for http in ["1", "2"] {
        let edge = before(&address.to_string(), &format!("http: {http}, retries: 0, read_timeout: 300ms")).await;
        let before = descriptors(&edge);
        for _ in 0..3 {
            let response = edge.get("/").await;
            assert_eq!(response.status, 504, "HTTP/{http}");
        }
        if http == "1" {
            eventually("the connections' end", async || descriptors(&edge) <= before + 1).await;
        }
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test]
async fn a_bomb_of_compressed_fields_is_no_answer() {
    // Puts a field of 3 KiB into the table, and names it ten thousand times.
    let mut block = vec![0x88, 0x40, 1, b'x', 0x7f];
    let mut rest = 3000 - 127;
    while rest >= 128 {
        block.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    block.push(rest as u8);
    block.extend(vec![b'a'; 3000]);
    block.extend(vec![0xbe; 10_000]);
    let continued = vec![0xbe; 16_000];
    for endless in [false, true] {
        let (block, continued) = (block.clone(), continued.clone());
        let address = server(move |mut stream| {
            let (block, continued) = (block.clone(), continued.clone());
            async move {
                stream.write_all(&SETTINGS).await?;
                stream.write_all(&frame(1, if endless { 0 } else { 5 }, 1, &block)).await?;
                if !endless {
                    return std::future::pending().await;
                }
                loop {
                    stream.write_all(&frame(9, 0, 1, &continued)).await?;
                }
            }
        })
        .await;
        let edge = before(&address.to_string(), "http: 2, retries: 0, read_timeout: 5s").await;
        let response = edge.get("/").await;
        assert_eq!(response.status, 502, "endless: {endless}: {}", edge.log());
        assert!(memory(&edge) < 300 << 10, "{} KiB", memory(&edge));
    }
}

/// Resident, in KiB.
fn memory(edge: &crate::harness::Edge) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", edge.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn floods_of_small_frames_end_or_change_nothing() {
    let head = frame(1, 4, 1, &[0x88]);
    let floods: [(&str, Vec<u8>); 6] = [
        ("empty data", frame(0, 0, 1, b"")),
        ("pings", frame(6, 0, 0, &[7; 8])),
        ("settings", SETTINGS.to_vec()),
        ("resets of what is idle", frame(3, 0, 3, &[0, 0, 0, 8])),
        ("windows", frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("interim responses", frame(1, 4, 1, &[0x08, 3, b'1', b'0', b'3'])),
    ];
    for (what, flood) in floods {
        let head = if what == "interim responses" { Vec::new() } else { head.clone() };
        let flood = Bytes::from(flood.repeat(2000));
        let address = server(move |mut stream| {
            let (head, flood) = (head.clone(), flood.clone());
            async move {
                stream.write_all(&SETTINGS).await?;
                stream.write_all(&head).await?;
                let (mut read, mut write) = stream.split();
                let until = Instant::now() + Duration::from_secs(3);
                let sink = async { tokio::io::copy(&mut read, &mut tokio::io::sink()).await.map(drop) };
                let flood = async {
                    while Instant::now() < until {
                        write.write_all(&flood).await?;
                    }
                    Ok(())
                };
                tokio::try_join!(sink, flood).map(drop)
            }
        })
        .await;
        let edge = before(&address.to_string(), "http: 2, retries: 0, read_timeout: 1s").await;
        let before = memory(&edge);
        // A client that reads nothing of it.
        let mut client = edge.connect().await;
        client.send(Ask::get("/").bytes()).await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let after = memory(&edge);
        assert!(after < before + (60 << 10), "{what}: {before} KiB, then {after} KiB");
        assert!(edge.is_running());
        drop(client);
    }
}

#[tokio::test]
async fn a_server_that_sends_a_byte_at_a_time_is_waited_for() {
    let address = server(|mut stream| async move {
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" {
            stream.write_all(&[*byte]).await?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    })
    .await;
    let edge = before(&address.to_string(), "read_timeout: 1s").await;
    assert_eq!(edge.get("/").await.text(), "hello");
    let _ = within("nothing", async { exchange(edge.address(), &Ask::get("/")).await }).await;
}
