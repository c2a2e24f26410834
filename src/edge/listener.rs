//! Listening sockets: bound before anything else starts, so that a failure ends the process with a clear message.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};
use pingora_proxy::HttpProxy;
use rustix::net::{self as unix, AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::connection::Connection;
use super::drain::Drain;
use super::http1;
use super::proxy::Edge;
use super::state::Shared;
use crate::config::model;
use crate::observe::NoRoom;

/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: i32 = 4096;

/// How long to wait after an accept that failed for want of file descriptors or memory: the next would too.
const PAUSE: Duration = Duration::from_millis(50);

/// A listening socket that nothing serves yet.
pub struct Bound {
    pub address: SocketAddr,
    pub h2c: bool,
    socket: OwnedFd,
}

impl Bound {
    /// Binds and listens.
    pub fn new(listener: &model::Listener) -> io::Result<Bound> {
        let family = if listener.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = unix::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        unix::bind(&socket, &listener.address)?;
        unix::listen(&socket, BACKLOG)?;
        Ok(Bound { address: listener.address, h2c: listener.h2c, socket })
    }

    /// A socket that another process has bound and hands over.
    pub fn adopt(listener: &model::Listener, socket: OwnedFd) -> io::Result<Bound> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Bound { address: listener.address, h2c: listener.h2c, socket })
    }

    /// To be handed over to another process.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// A second handle of the same socket, for the accept loop.
    pub fn share(&self) -> io::Result<Bound> {
        Ok(Bound { address: self.address, h2c: self.h2c, socket: self.socket.try_clone()? })
    }
}

/// Accepts connections and serves each with `app` until `shutdown` turns true; then takes what the kernel has queued
/// and stops.
pub async fn serve(
    bound: Bound,
    app: Arc<HttpProxy<Edge>>,
    shared: Arc<Shared>,
    drain: Drain,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let (address, h2c) = (bound.address, bound.h2c);
    let listener = TcpListener::from_std(std::net::TcpListener::from(bound.socket))?;
    let accept = |accepted: io::Result<(tokio::net::TcpStream, SocketAddr)>| match accepted {
        Ok((io, peer)) => {
            if !shared.watch.has_room() {
                shared.metrics.connection_refused(NoRoom::Total);
                return true;
            }
            let Some(present) = shared.crowd.enter(peer.ip()) else {
                shared.metrics.connection_refused(NoRoom::Address);
                return true;
            };
            let counted = shared.metrics.connection_accepted();
            // Heads and bodies leave by one write, so nothing is gained by waiting for more.
            let _ = io.set_nodelay(true);
            let connection = Connection::new(io, peer, h2c, &shared.watch);
            let (app, shutdown, busy) = (app.clone(), shutdown.clone(), drain.connection());
            tokio::spawn(async move {
                let _counted = (counted, present);
                http1::serve(Box::new(connection), app, busy, shutdown).await;
            });
            true
        }
        Err(e) => {
            if !matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) {
                warn!("accepting on {address}: {e}");
            }
            false
        }
    };
    let mut stop = shutdown.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        if !accept(accepted) {
            tokio::time::sleep(PAUSE).await;
        }
    }
    // The handshakes that the kernel has completed are ours: closing the socket would reset them.
    while let Some(accepted) = futures_util::FutureExt::now_or_never(listener.accept()) {
        if !accept(accepted) {
            break;
        }
    }
    info!("no longer listening on {address}");
    Ok(())
}
