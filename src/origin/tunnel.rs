//! Connections that may become tunnels: those of requests that ask for an upgrade, such as WebSocket's.
//!
//! Pingora ends a tunnel at once if it has read the server's 101 before it has passed on that the request has no body
//! (cloudflare/pingora#946), which happens where the server is fast or the edge is busy. Both are awaited by one task in
//! random order, so a connection whose first reads are not ready yet makes the order right.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// One is enough; the second is for the case that the task's budget ends between the two.
const PUT_OFF: u8 = 2;

/// Connects for a tunnel.
#[derive(Debug)]
pub(super) struct TunnelConnect {
    pub(super) timeout: Duration,
}

#[async_trait]
impl L4Connect for TunnelConnect {
    async fn connect(&self, addr: &SocketAddr) -> Result<Stream> {
        let Some(addr) = addr.as_inet() else {
            return Error::e_explain(ErrorType::ConnectError, "a tunnel to what is no socket address");
        };
        let io = match tokio::time::timeout(self.timeout, TcpStream::connect(addr)).await {
            Ok(Ok(io)) => io,
            Ok(Err(e)) => {
                let kind = match e.kind() {
                    io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                    io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
                    _ => ErrorType::ConnectError,
                };
                return Error::e_because(kind, format!("connecting to {addr}"), e);
            }
            Err(_) => return Error::e_explain(ErrorType::ConnectTimedout, format!("connecting to {addr}")),
        };
        Ok(Stream::from(VirtualSocketStream::new(Box::new(Opening { io, put_off: PUT_OFF }))))
    }
}

/// A connection whose first reads are put off.
#[derive(Debug)]
struct Opening {
    io: TcpStream,
    put_off: u8,
}

impl VirtualSocket for Opening {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.io.set_nodelay(true),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Opening {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.put_off > 0 {
            self.put_off -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Opening {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
