//! Handing the listening sockets over to a new process, so that no connection is refused meanwhile.
//!
//! The new process (`foreland run --upgrade`) listens on the upgrade socket; the old one connects to it at QUIT and
//! sends its sockets with their addresses. The new one answers `ready` once it serves, and only then the old one
//! stops accepting: a new process that fails to start changes nothing.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::net as unix;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

/// How long each side waits for the other to come.
const MEET: Duration = Duration::from_secs(30);

/// How long the new process has from the sockets to `ready`.
const START: Duration = Duration::from_secs(30);

/// How often a connect is tried again while the other side is not there yet.
const AGAIN: Duration = Duration::from_millis(100);

/// Sockets in one hand-over.
const MAX_SOCKETS: usize = 64;

/// The names in one hand-over, joined by newlines.
const MAX_NAMES: usize = 64 * 1024;

const READY: &[u8] = b"ready\n";

/// The new process's side, after the sockets have come: to be told when it serves.
pub struct Handover {
    stream: UnixStream,
    /// Each socket with its name: an address, or `admin` and an address.
    pub sockets: Vec<(String, OwnedFd)>,
}

/// New process: waits for the old one and takes its sockets.
pub async fn take(path: &Path) -> io::Result<Handover> {
    // A socket file that nobody listens on any more is in the way; one that somebody does is not ours.
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process is waiting on it"));
    }
    if let Err(e) = tokio::fs::remove_file(path).await
        && e.kind() != io::ErrorKind::NotFound
    {
        return Err(e);
    }
    let listener = UnixListener::bind(path)?;
    tokio::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).await?;
    let taken = async {
        loop {
            let (stream, _) = listener.accept().await?;
            let sockets = stream.async_io(Interest::READABLE, || receive(&stream)).await?;
            // None: somebody who only looked whether we are there.
            if !sockets.is_empty() {
                return Ok(Handover { stream, sockets });
            }
        }
    };
    let taken = timeout(MEET, taken).await;
    let _ = tokio::fs::remove_file(path).await;
    taken.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no running process handed its sockets over within {MEET:?}; send it QUIT"),
        ))
    })
}

impl Handover {
    /// Tells the old process that this one serves.
    pub async fn ready(&mut self) -> io::Result<()> {
        self.stream.write_all(READY).await
    }

    /// Waits until the old process is not there any more.
    pub async fn gone(mut self) {
        let mut byte = [0];
        while matches!(self.stream.read(&mut byte).await, Ok(1..)) {}
    }
}

/// Why no new process has taken over.
#[derive(Debug)]
pub struct NotGiven {
    pub error: io::Error,
    /// One has the sockets, and may yet serve.
    pub is_taken: bool,
}

impl From<io::Error> for NotGiven {
    fn from(error: io::Error) -> NotGiven {
        NotGiven { error, is_taken: false }
    }
}

/// Old process: hands its sockets over and returns once the new process serves. That one sees this one's end by the end of
/// the stream.
///
/// # Errors
/// No new process serves, as far as is known.
pub async fn give(path: &Path, sockets: &[(String, BorrowedFd<'_>)]) -> Result<UnixStream, NotGiven> {
    let connected = timeout(MEET, async {
        loop {
            match UnixStream::connect(path).await {
                Ok(stream) => return stream,
                Err(_) => sleep(AGAIN).await,
            }
        }
    });
    let mut stream = connected.await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no `run --upgrade` is waiting on {}", path.display()))
    })?;
    stream.async_io(Interest::WRITABLE, || send(&stream, sockets)).await?;
    let mut answer = [0; READY.len()];
    timeout(START, stream.read_exact(&mut answer))
        .await
        .map_err(|_| NotGiven {
            error: io::Error::new(io::ErrorKind::TimedOut, format!("the new process did not serve within {START:?}")),
            is_taken: true,
        })?
        .map_err(|_| io::Error::other("the new process ended before it served"))?;
    if answer == READY { Ok(stream) } else { Err(io::Error::other("an unknown answer from the new process").into()) }
}

fn send(stream: &UnixStream, sockets: &[(String, BorrowedFd<'_>)]) -> io::Result<()> {
    if sockets.len() > MAX_SOCKETS {
        return Err(io::Error::other(format!("more than {MAX_SOCKETS} listeners cannot be handed over")));
    }
    let names = sockets.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("\n");
    let fds: Vec<_> = sockets.iter().map(|(_, fd)| *fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = unix::SendAncillaryBuffer::new(&mut space);
    if !control.push(unix::SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for the sockets in one message"));
    }
    unix::sendmsg(stream, &[IoSlice::new(names.as_bytes())], &mut control, unix::SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<Vec<(String, OwnedFd)>> {
    let mut names = vec![0; MAX_NAMES];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = unix::RecvAncillaryBuffer::new(&mut space);
    let got = unix::recvmsg(stream, &mut [IoSliceMut::new(&mut names)], &mut control, unix::RecvFlags::CMSG_CLOEXEC)?;
    let fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            unix::RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    let names = String::from_utf8_lossy(&names[..got.bytes]);
    let names: Vec<_> = names.split('\n').filter(|n| !n.is_empty()).collect();
    if names.len() != fds.len() {
        return Err(io::Error::other(format!("{} names came with {} sockets", names.len(), fds.len())));
    }
    Ok(names.into_iter().map(str::to_owned).zip(fds).collect())
}
