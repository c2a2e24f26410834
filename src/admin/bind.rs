//! Taking the address, before the edge says that it has started.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::config::model::{Admin, AdminAddress};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// An admin listener that has its address and does not answer yet.
#[derive(Debug)]
pub struct Bound {
    pub(super) listener: Listener,
    pub(super) settings: Admin,
}

#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Takes the address.
///
/// A Unix socket is open to its owner alone (mode 0600). A socket file that is left from an earlier process is
/// replaced; one that somebody listens on is not.
///
/// # Errors
/// The system's, with the address in its text.
pub fn bind(config: &Admin) -> io::Result<Bound> {
    let listener = match &config.address {
        AdminAddress::Tcp(address) => {
            TcpListener::bind(address).map(Listener::Tcp).map_err(|error| with_address(&error, address))
        }
        AdminAddress::Unix(path) => bind_unix(path).map_err(|error| with_address(&error, path.display())),
    }?;
    Ok(Bound { listener, settings: config.clone() })
}

impl Bound {
    /// The listener of a process that this one replaces. A Unix socket's name stays that process's until
    /// [`Serving::own_name`](super::Serving::own_name) says otherwise.
    pub fn adopt(config: &Admin, socket: OwnedFd) -> Bound {
        let listener = match &config.address {
            AdminAddress::Tcp(_) => Listener::Tcp(TcpListener::from(socket)),
            AdminAddress::Unix(path) => Listener::Unix(UnixListener::from(socket), SocketFile::new(path, false)),
        };
        Bound { listener, settings: config.clone() }
    }

    /// To be handed over to a process that replaces this one.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.listener {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }

    /// An address that somebody else took: one that a test chose.
    pub fn from_listener(listener: TcpListener, config: &Admin) -> Bound {
        Bound { listener: Listener::Tcp(listener), settings: config.clone() }
    }

    /// The TCP address, with the port that the system chose if it was asked to; `None` for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }
}

/// The name of a Unix socket, removed when nobody answers there any more.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
    /// The name is this process's to remove.
    own: Arc<AtomicBool>,
}

impl SocketFile {
    fn new(path: &Path, own: bool) -> SocketFile {
        SocketFile { path: path.to_owned(), identity: identity(path), own: Arc::new(AtomicBool::new(own)) }
    }

    pub(super) fn own(&self) -> Arc<AtomicBool> {
        self.own.clone()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have put another socket in its place.
        let same = self.identity.is_some() && identity(&self.path) == self.identity;
        if same && self.own.load(Ordering::Acquire) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    remove_stale(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let file = SocketFile::new(path, true);
    // Before `listen`, nobody can connect: there is no moment at which others could have slipped in.
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(Listener::Unix(UnixListener::from(socket), file))
}

/// Removes a socket that nobody listens on. Anything else by that name is left for `bind` to stumble over.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn with_address(error: &io::Error, address: impl std::fmt::Display) -> io::Error {
    io::Error::new(error.kind(), format!("admin listener {address}: {error}"))
}
