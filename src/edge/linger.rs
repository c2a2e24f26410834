//! Ending a connection whose client may still be sending.
//!
//! A socket that is closed with bytes unread is reset, and a reset takes the answer away from a client that has not
//! read it yet: the 413 to an upload that is too large, say. So the end is announced first, and what still comes is
//! thrown away for a while (RFC 9112 §9.6).

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::watch::Watched;

/// How long the client has to read the answer and to close its side.
const LIMIT: Duration = Duration::from_secs(2);

/// Bytes thrown away at a time.
const PIECE: usize = 16 * 1024;

/// Keeps the socket open beyond its owner's end, which is now. `watched` has it counted meanwhile.
///
/// # Errors
/// There are no file descriptors left, or the process ends: then the socket is closed at once.
pub fn linger(io: &TcpStream, watched: Watched) -> io::Result<()> {
    let Ok(runtime) = Handle::try_current() else { return Ok(()) };
    let socket = std::net::TcpStream::from(io.as_fd().try_clone_to_owned()?);
    let mut socket = TcpStream::from_std(socket)?;
    runtime.spawn(async move {
        let _watched = watched;
        let discard = async {
            socket.shutdown().await?;
            let mut piece = vec![0; PIECE];
            while socket.read(&mut piece).await? > 0 {}
            io::Result::Ok(())
        };
        // However it ends: nobody is left to be told.
        let _ = tokio::time::timeout(LIMIT, discard).await;
    });
    Ok(())
}
