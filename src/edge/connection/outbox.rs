//! What a connection has accepted for its client and not given to the kernel yet.

use std::io;

use bytes::Bytes;
use http::HeaderValue;
use tokio::net::TcpStream;

use super::super::pace::{self, Pacer};
use super::super::watch::Watched;
use super::transport::Transport;

/// What of a connection's buffer is kept from one response to the next; more is given back, so that an idle
/// connection costs little.
const KEEP_CAPACITY: usize = 2 * 1024;

/// Bytes that have been accepted for the client but not been given to the kernel yet.
#[derive(Default)]
pub struct Outbox {
    /// What the next head says as its Date (see [`super::Connection::keep_date`]).
    pub date: Option<HeaderValue>,
    /// The next head waits for its body, however long that takes (see [`super::Connection::retain_head`]).
    pub retain: bool,
    /// What leaves in the place of the last chunk (see [`super::Connection::end_with`]).
    pub last: Vec<u8>,
    pub head: Vec<u8>,
    pub body: Bytes,
    /// How much of head and body together has been sent.
    pub sent: usize,
    /// How fast the response leaves (see [`super::Connection::pace`]).
    pub pacer: Option<Box<Pacer>>,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.sent == self.head.len() + self.body.len()
    }

    /// It holds a head that waits for its body, and nothing else.
    pub fn is_retained(&self) -> bool {
        self.retain && !self.head.is_empty() && self.body.is_empty()
    }

    pub fn rest(&self) -> (&[u8], &[u8]) {
        let in_head = self.sent.min(self.head.len());
        (&self.head[in_head..], &self.body[self.sent - in_head..])
    }

    /// Gives the kernel what is there.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` where it does not take all of it now.
    pub fn send(&mut self, io: &Transport, watched: &Watched) -> io::Result<()> {
        while !self.is_empty() {
            self.send_some(io, watched, usize::MAX)?;
        }
        self.reset();
        Ok(())
    }

    /// Gives the kernel some of what is there: no more than `room`, and at least a byte.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` where it takes nothing now.
    pub fn send_some(&mut self, io: &Transport, watched: &Watched, mut room: usize) -> io::Result<()> {
        let (head, body) = self.rest();
        match io.try_write(&[pace::part(head, &mut room), pace::part(body, &mut room)])? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            sent => {
                self.sent += sent;
                pace::sent(&mut self.pacer, sent);
                match io.moved(sent) {
                    0 => {}
                    moved => watched.write_moved(moved),
                }
            }
        }
        Ok(())
    }

    /// Gives the kernel what is there, which is to leave together with what follows it.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` where it does not take all of it now.
    pub fn send_more(&mut self, io: &TcpStream) -> io::Result<()> {
        use rustix::net::{SendFlags, send};
        self.close_up();
        while self.sent < self.head.len() {
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(io, &self.head[self.sent..], flags)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => self.sent += sent,
            }
        }
        self.reset();
        Ok(())
    }

    /// Makes room for another head behind what waits already.
    pub fn close_up(&mut self) {
        if !self.body.is_empty() {
            self.head.extend_from_slice(&std::mem::take(&mut self.body));
        }
    }

    pub fn reset(&mut self) {
        self.head.clear();
        self.head.shrink_to(KEEP_CAPACITY);
        self.body = Bytes::new();
        self.sent = 0;
    }
}

/// Whether a head is that of an interim response: any 1xx but 101, which is final. Where the next write may be something
/// else than a head, this says nothing.
pub fn is_interim(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.1 1") && !head.starts_with(b"HTTP/1.1 101")
}

/// Puts `date` in the place of the Date in the header section that begins at `start`.
pub fn replace_date(head: &mut Vec<u8>, start: usize, date: &[u8]) {
    const NAME: &[u8] = b"\ndate: ";
    let found = head[start..].windows(NAME.len()).position(|at| at.eq_ignore_ascii_case(NAME));
    let Some(from) = found.map(|at| start + at + NAME.len()) else { return };
    let Some(len) = head[from..].iter().position(|byte| *byte == b'\r') else { return };
    head.splice(from..from + len, date.iter().copied());
}
