//! Telling HTTP/2 with prior knowledge (RFC 9113 §3.3) from HTTP/1.1 by the first bytes of a connection.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::watch::Watched;

/// RFC 9113 §3.4: the client connection preface.
pub const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long to wait before looking again where the preface has come only in part: the socket stays readable, so
/// readiness cannot say when more is there. A client that cuts its first 24 bytes in two is rare.
const AGAIN: Duration = Duration::from_millis(2);

/// Fills `buf` with the connection's first bytes, without consuming them, if they are those of the preface.
///
/// `false`: they are not, or the client has gone.
pub async fn peek(io: &TcpStream, watched: &Watched, buf: &mut [u8]) -> io::Result<bool> {
    loop {
        let n = poll_fn(|cx| {
            let mut read = ReadBuf::new(&mut *buf);
            match io.poll_peek(cx, &mut read) {
                Poll::Pending => {
                    ready!(watched.read_blocked::<()>(cx))?;
                    Poll::Pending
                }
                ready => ready,
            }
        })
        .await?;
        watched.read_some(0);
        let wanted = buf.len().min(PREFACE.len());
        if n == 0 || buf[..n.min(wanted)] != PREFACE[..n.min(wanted)] {
            return Ok(false);
        }
        if n >= wanted {
            return Ok(true);
        }
        tokio::time::sleep(AGAIN).await;
        if watched.expired() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}
