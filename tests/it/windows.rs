//! HTTP/2 frame by frame: a client that does with its windows what no library would.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Edge, Gate, Origin, Reply, within};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const INITIAL_WINDOW_SIZE: u16 = 4;
const CANCEL: u32 = 8;

struct Frames(TcpStream);

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frames {
    /// Whose kernel takes little on its behalf, and who takes any number of bytes over all of its streams.
    async fn open(edge: &Edge) -> Frames {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let stream = within("a connection", socket.connect(edge.h2c_address())).await.expect("a connection");
        let mut frames = Frames(stream);
        within("the preface", frames.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).await.expect("sent");
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames.send(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes()).await;
        frames
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).expect("a short frame").to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        within("the edge to take a frame", self.0.write_all(&frame)).await.expect("sent");
    }

    /// A GET, said in literals of HPACK.
    async fn get(&mut self, stream: u32, path: &str) {
        // :method GET and :scheme http of the static table, then :path and :authority with values of their own.
        let mut block = vec![0x82, 0x86];
        for (name, value) in [(0x04, path), (0x01, "edge.test")] {
            block.extend([name, value.len() as u8]);
            block.extend(value.as_bytes());
        }
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &block).await;
    }

    async fn window(&mut self, size: u32) {
        let mut setting = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        setting.extend(size.to_be_bytes());
        self.send(SETTINGS, 0, 0, &setting).await;
    }

    /// The next frame; `None` at the end of the connection. Settings are acknowledged.
    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        within("a frame", self.0.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        within("a frame's payload", self.0.read_exact(&mut payload)).await.ok()?;
        if kind == SETTINGS && flags & ACK == 0 {
            self.send(SETTINGS, ACK, 0, &[]).await;
        }
        Some(Frame { kind, flags, stream, payload })
    }
}

#[tokio::test]
async fn what_a_closed_window_keeps_back_is_given_up() {
    const EACH: usize = 60 * 1024;
    const STREAMS: usize = 100;
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |r| match r.path() {
        "/live" => Reply::ok("alive").cache_control("no-store").hold(&at),
        _ => Reply::ok(vec![b'z'; EACH]).cache_control("max-age=600"),
    })
    .await;
    let limits = "limits: { write_timeout: 2s, idle_timeout: 1s }\n".to_owned();
    let edge = Edge::start(&(limits + &Edge::yaml_before(&[&origin], ""))).await;
    edge.get("/x").await.text();

    let mut client = Frames::open(&edge).await;
    client.get(1, "/live").await;
    gate.reached(1).await;
    for n in 1..=STREAMS as u32 {
        client.get(1 + 2 * n, "/x").await;
    }
    // Everything has been written, and most of it waits behind the socket: nothing is read before the window is shut.
    edge.access_log_lines(1 + STREAMS).await;
    client.window(0).await;
    let (mut whole, mut given_up) = (0, 0);
    while whole + given_up < STREAMS {
        let frame = client.next().await.expect("the connection goes on");
        assert!(frame.stream != 1, "the live one has not begun");
        match frame.kind {
            DATA if frame.flags & END_STREAM != 0 => whole += 1,
            RST_STREAM => {
                assert_eq!(frame.payload, CANCEL.to_be_bytes());
                given_up += 1;
            }
            _ => {}
        }
    }
    assert!(whole > 0 && given_up > 0, "{whole} whole, {given_up} given up");

    // The live one is as it was, and its connection is idle when it has ended.
    client.send(WINDOW_UPDATE, 0, 1, &100u32.to_be_bytes()).await;
    gate.open();
    let mut body = Vec::new();
    while let Some(frame) = client.next().await {
        if (frame.kind, frame.stream) == (DATA, 1) {
            body.extend(frame.payload);
        }
    }
    assert_eq!(body, b"alive");
}

#[tokio::test]
async fn a_window_that_opens_in_time_gets_the_rest() {
    let origin = Origin::start(|_| Reply::ok("a body of some length").cache_control("max-age=600")).await;
    let edge = Edge::before(&origin, "").await;
    let mut client = Frames::open(&edge).await;
    client.window(4).await;
    client.get(1, "/").await;
    let mut body = Vec::new();
    while let Some(frame) = client.next().await {
        if frame.kind == DATA {
            body.extend(frame.payload);
            if frame.flags & END_STREAM != 0 {
                break;
            }
            client.send(WINDOW_UPDATE, 0, 1, &4u32.to_be_bytes()).await;
        }
    }
    assert_eq!(body, b"a body of some length");
}
