//! HTTP/2 frame by frame, as no library would send it.

use super::super::harness::{Connection, Edge, within};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The reason that RFC 9113 §7 has for a peer that is up to no good.
pub const ENHANCE_YOUR_CALM: u32 = 0xb;

/// `GET http://edge.test/`, in HPACK without the dynamic table.
pub const GET: &[u8] = b"\x82\x86\x84\x01\x09edge.test";

/// `POST http://edge.test/`.
pub const POST: &[u8] = b"\x83\x86\x84\x01\x09edge.test";

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A connection after its preface.
pub async fn open(edge: &Edge) -> Connection {
    let mut client = Connection::open(edge.h2c_address()).await;
    client.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()).await;
    client
}

/// The frames that come until the connection ends: kinds, flags and payloads.
pub async fn rest(client: &mut Connection) -> Vec<(u8, u8, Vec<u8>)> {
    let (_, bytes) = client.closed().await;
    let (mut frames, mut rest) = (Vec::new(), &bytes[..]);
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let payload = rest[9..rest.len().min(9 + length)].to_vec();
        frames.push((rest[3], rest[4], payload));
        rest = &rest[rest.len().min(9 + length)..];
    }
    frames
}

/// The reason that the edge ends the connection for.
pub async fn reason(client: &mut Connection) -> Option<u32> {
    let frames = rest(client).await;
    let (.., payload) = frames.iter().rfind(|(kind, ..)| *kind == GOAWAY)?;
    payload.get(4..8).map(|code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]))
}

/// Sends this again and again until the edge takes no more of it, for `most` times at most; the edge's reason.
pub async fn flood(client: &mut Connection, mut next: impl FnMut(u32) -> Vec<u8>, most: u32) -> Option<u32> {
    let flooding = async {
        for n in 0..most {
            if client.try_send(next(n)).await.is_err() {
                break;
            }
        }
    };
    within("the end of a flood", flooding).await;
    reason(client).await
}
