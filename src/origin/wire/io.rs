//! A connection to a server, as bytes.

use std::io::{self, IoSlice};
#[cfg(test)]
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::counts::Counted;

/// A connection, over TLS or not. Dropping it closes it.
#[derive(Debug)]
pub(in crate::origin) struct Io {
    stream: Stream,
    /// Counts the connection as open for as long as it exists.
    _counted: Option<Counted>,
}

#[derive(Debug)]
enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// What TLS may run over.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Io {
    pub(super) fn plain(socket: Socket) -> Io {
        Io { stream: Stream::Plain(socket), _counted: None }
    }

    pub(super) fn tls(stream: TlsStream<Socket>) -> Io {
        Io { stream: Stream::Tls(Box::new(stream)), _counted: None }
    }

    pub(super) fn counted(self, counted: Counted) -> Io {
        Io { _counted: Some(counted), ..self }
    }

    pub(in crate::origin) fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// The server's address; `None` of a Unix socket, and of a connection that is gone.
    #[cfg(test)]
    pub(in crate::origin) fn peer(&self) -> Option<SocketAddr> {
        self.tcp()?.peer_addr().ok()
    }

    /// Our own address, likewise.
    #[cfg(test)]
    pub(in crate::origin) fn local(&self) -> Option<SocketAddr> {
        self.tcp()?.local_addr().ok()
    }

    #[cfg(test)]
    fn tcp(&self) -> Option<&TcpStream> {
        let socket = match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => tls.get_ref().0,
        };
        match socket {
            Socket::Tcp(tcp) => Some(tcp),
            Socket::Unix(_) => None,
        }
    }
}

/// Hands a call on to whatever the value is.
macro_rules! forward {
    ($value:expr, $one:path | $other:path => $method:ident($($arg:expr),*)) => {
        match $value {
            $one(inner) => Pin::new(inner).$method($($arg),*),
            $other(inner) => Pin::new(inner).$method($($arg),*),
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        forward!(&mut self.stream, Stream::Plain | Stream::Tls => poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        forward!(&mut self.stream, Stream::Plain | Stream::Tls => poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(&mut self.stream, Stream::Plain | Stream::Tls => poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(&mut self.stream, Stream::Plain | Stream::Tls => poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(&mut self.stream, Stream::Plain | Stream::Tls => poll_shutdown(cx))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        forward!(&mut *self, Socket::Tcp | Socket::Unix => poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        forward!(&mut *self, Socket::Tcp | Socket::Unix => poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(&mut *self, Socket::Tcp | Socket::Unix => poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(&mut *self, Socket::Tcp | Socket::Unix => poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(&mut *self, Socket::Tcp | Socket::Unix => poll_shutdown(cx))
    }
}
