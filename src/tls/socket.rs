//! A socket beneath TLS.

use std::io::{self, IoSlice, Read, Write};

use tokio::io::Interest;
use tokio::net::TcpStream;

/// A socket as rustls wants it: it never waits.
pub struct Socket<'a>(pub &'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut read = None;
        let tried = self.0.try_io(Interest::READABLE, || {
            let (_, n) = rustix::net::recv(self.0, &mut *buf, rustix::net::RecvFlags::empty())?;
            read = Some(n);
            match n {
                // The socket has no more: said so, since the next read would find it out by a system call.
                1.. if n < buf.len() => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(n),
            }
        });
        read.map_or(tried, Ok)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
