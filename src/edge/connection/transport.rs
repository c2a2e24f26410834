//! What carries a connection's bytes: a socket, or TLS over one.
//!
//! Everything is done through shared references: a response can be sent past the session that owns the connection. The lock
//! of a TLS session is never contended, since one task serves a connection, and never held across an await.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::Socket;

/// Bytes of encrypted data that may wait for the socket: with more, writing waits.
const SEND_BUFFER: usize = 64 * 1024;

/// A connection's way to its client.
pub enum Transport {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

/// A TLS session whose handshake is over, and its socket.
pub struct Tls {
    io: TcpStream,
    session: Mutex<ServerConnection>,
    /// Encrypted bytes that the socket has taken and nobody has asked about.
    moved: AtomicUsize,
}

impl Transport {
    /// TLS whose handshake is over.
    pub fn tls(io: TcpStream, mut session: ServerConnection) -> Transport {
        session.set_buffer_limit(Some(SEND_BUFFER));
        Transport::Tls(Box::new(Tls { io, session: Mutex::new(session), moved: AtomicUsize::new(0) }))
    }

    pub fn socket(&self) -> &TcpStream {
        match self {
            Transport::Plain(io) => io,
            Transport::Tls(tls) => &tls.io,
        }
    }

    /// Whether the kernel may be told to send a file by itself.
    pub fn is_plain(&self) -> bool {
        matches!(self, Transport::Plain(_))
    }

    /// Reads what is there into `buf`; nothing: the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Transport::Tls(tls) => tls.poll_read(cx, buf),
        }
    }

    /// Waits until there is something to read, or the end.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(io) => io.poll_read_ready(cx),
            Transport::Tls(tls) => tls.poll_plaintext(cx).map_ok(|_| ()),
        }
    }

    /// Whether the client has ended its side; `None`: it has sent something that is still to be read, which may hide the end.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<()>>> {
        match self {
            Transport::Plain(io) => loop {
                ready!(io.poll_read_ready(cx))?;
                let peek = || Ok(rustix::net::recv(io, &mut [0; 1], rustix::net::RecvFlags::PEEK)?);
                match io.try_io(Interest::READABLE, peek) {
                    Ok((_, n)) => return Poll::Ready(Ok((n == 0).then_some(()))),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Poll::Ready(Err(e)),
                }
            },
            Transport::Tls(tls) => tls.poll_plaintext(cx).map_ok(|there| (!there).then_some(())),
        }
    }

    /// Takes bytes to be sent; how many. With TLS they may wait here for the socket, until [`Transport::poll_flush`].
    pub fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(slices) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.socket().poll_write_ready(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` where nothing has been taken.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Transport::Plain(io) => io.try_write_vectored(slices),
            Transport::Tls(tls) => tls.try_write(slices),
        }
    }

    /// Gives the socket all that has been taken.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(_) => Poll::Ready(Ok(())),
            Transport::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Whether something that has been taken waits for the socket.
    pub fn is_flushed(&self) -> bool {
        match self {
            Transport::Plain(_) => true,
            Transport::Tls(tls) => !tls.session().wants_write(),
        }
    }

    /// Bytes that the socket has taken: of a write of `taken` bytes, or since this was last asked where TLS is between.
    pub fn moved(&self, taken: usize) -> usize {
        match self {
            Transport::Plain(_) => taken,
            Transport::Tls(tls) => tls.moved.swap(0, Ordering::Relaxed),
        }
    }

    /// Says that nothing more will be sent, and gives the socket all that has been taken.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Transport::Tls(tls) = self {
            tls.session().send_close_notify();
            ready!(tls.poll_flush(cx))?;
        }
        match rustix::net::shutdown(self.socket(), rustix::net::Shutdown::Write) {
            // The client was faster.
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(e) => Poll::Ready(Err(e.into())),
        }
    }

    /// Says so as far as that goes without waiting.
    pub fn close(&self) {
        if let Transport::Tls(tls) = self {
            let mut session = tls.session();
            session.send_close_notify();
            // Whoever does not hear of it sees the socket's end.
            let _ = tls.give(&mut session);
        }
    }
}

impl Tls {
    fn session(&self) -> MutexGuard<'_, ServerConnection> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !ready!(self.poll_plaintext(cx))? {
                return Poll::Ready(Ok(()));
            }
            let mut session = self.session();
            let before = buf.filled().len();
            // Several records may be there.
            while buf.remaining() > 0 {
                let taken = match session.reader().into_first_chunk() {
                    Ok([]) | Err(_) => break,
                    Ok(chunk) => {
                        let n = chunk.len().min(buf.remaining());
                        buf.put_slice(&chunk[..n]);
                        n
                    }
                };
                io::BufRead::consume(&mut session.reader(), taken);
            }
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Waits for something to read; `false`: it is the end. One without a `close_notify` counts as well: what HTTP sends has
    /// lengths of its own.
    fn poll_plaintext(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            let mut session = self.session();
            match session.reader().into_first_chunk() {
                Ok([]) => return Poll::Ready(Ok(false)),
                Ok(_) => return Poll::Ready(Ok(true)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(false)),
                Err(e) => return Poll::Ready(Err(e)),
            }
            match session.read_tls(&mut Socket(&self.io)) {
                Ok(_) => {
                    let processed = session.process_new_packets();
                    // An alert, or what the protocol wants said.
                    if session.wants_write() {
                        let _ = self.give(&mut session);
                    }
                    if let Err(e) = processed {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, e)));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // Whoever waits to read has nothing more to say for now. What the socket does not take leaves with the
                    // next write.
                    if session.wants_write() {
                        let _ = self.give(&mut session);
                    }
                    drop(session);
                    ready!(self.io.poll_read_ready(cx))?;
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut session = self.session();
        // What waits leaves together with this, as far as there is room.
        let mut taken = session.writer().write_vectored(slices)?;
        if taken == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            self.give(&mut session)?;
            taken = session.writer().write_vectored(slices)?;
        }
        match self.give(&mut session) {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            _ => Ok(taken),
        }
    }

    /// Gives the socket what is encrypted.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` where it does not take all of it now.
    fn give(&self, session: &mut ServerConnection) -> io::Result<()> {
        while session.wants_write() {
            match session.write_tls(&mut Socket(&self.io))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                moved => _ = self.moved.fetch_add(moved, Ordering::Relaxed),
            }
        }
        Ok(())
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.give(&mut self.session()) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.io.poll_write_ready(cx))?,
                given => return Poll::Ready(given),
            }
        }
    }
}
