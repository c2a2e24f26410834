//! Frames as bytes: a client that may say anything, right or wrong.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Edge, within};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 32;
/// A whole request in one frame.
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the last PING of a case says.
const LAST: [u8; 8] = *b"the last";

/// A frame that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        self.payload.get(at..at + 4).map_or(u32::MAX, |code| u32::from_be_bytes(code.try_into().expect("four bytes")))
    }
}

/// A frame of any kind.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length").to_be_bytes();
    let mut all = vec![length[1], length[2], length[3], kind, flags];
    all.extend_from_slice(&stream.to_be_bytes());
    all.extend_from_slice(payload);
    all
}

pub fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// The PING that ends a case: its answer shows that the connection lives.
pub fn last_ping() -> Vec<u8> {
    frame(PING, 0, 0, &LAST)
}

/// A field as a literal that is never indexed (RFC 7541 §6.2.3). No Huffman, and at most 126 bytes each.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut all = vec![0x10, u8::try_from(name.len()).expect("short")];
    all.extend_from_slice(name.as_bytes());
    all.push(u8::try_from(value.len()).expect("short"));
    all.extend_from_slice(value.as_bytes());
    all
}

/// A header section.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The pseudo-fields of a request.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":path", path), (":authority", "edge.test")])
}

pub fn get(path: &str) -> Vec<u8> {
    request("GET", path)
}

/// A GET of `/` that is whole.
pub fn whole(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &get("/"))
}

/// A POST to `/echo` whose body is to come.
pub fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", "/echo"))
}

/// A connection that has begun as it should.
pub struct Raw(TcpStream);

impl Raw {
    /// Without a word.
    pub async fn connect(edge: &Edge) -> Raw {
        let stream = within("a connection", TcpStream::connect(edge.h2c_address())).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Raw(stream)
    }

    /// With the preface, `first` for SETTINGS, and an acknowledgement of the edge's.
    pub async fn open(edge: &Edge, first: &[u8]) -> Raw {
        let mut raw = Raw::connect(edge).await;
        raw.send(&[PREFACE, first].concat()).await;
        let theirs = raw.next().await.expect("the edge's SETTINGS");
        assert_eq!((theirs.kind, theirs.flags & ACK), (SETTINGS, 0), "{theirs:?}");
        raw.send(&frame(SETTINGS, ACK, 0, b"")).await;
        raw
    }

    /// What cannot be sent has been answered before.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = within("the edge to take it", self.0.write_all(bytes)).await;
    }

    /// The next frame; `None`: the connection has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        within("a frame", self.read()).await.ok()
    }

    async fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1), payload })
    }

    /// Frames up to the answer to [`last_ping`], or to the connection's end.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            let is_last = frame.kind == PING && frame.flags & ACK != 0 && frame.payload == LAST;
            frames.push(frame);
            if is_last {
                break;
            }
        }
        frames
    }

    /// Frames up to one of this kind, with it; or to the connection's end.
    pub async fn until(&mut self, is_end: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            let found = is_end(&frame);
            frames.push(frame);
            if found {
                break;
            }
        }
        frames
    }
}
