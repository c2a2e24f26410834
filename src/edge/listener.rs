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

use super::drain::Drain;
use super::http1;
use super::proxy::Edge;
use super::receive::{Arrived, receive};
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
        Ok(Bound { address: listener.address, socket })
    }

    /// A socket that another process has bound and hands over.
    pub fn adopt(listener: &model::Listener, socket: OwnedFd) -> io::Result<Bound> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Bound { address: listener.address, socket })
    }

    /// To be handed over to another process.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// A second handle of the same socket, for the accept loop.
    pub fn share(&self) -> io::Result<Bound> {
        Ok(Bound { address: self.address, socket: self.socket.try_clone()? })
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
    let address = bound.address;
    let listener = TcpListener::from_std(std::net::TcpListener::from(bound.socket))?;
    // What a reload says of this address. One that it no longer has goes on as it was: the socket is there until a restart.
    let mut doorway = shared.snapshot().doorway(address).cloned();
    let mut accept = |accepted: io::Result<(tokio::net::TcpStream, SocketAddr)>| match accepted {
        Ok((io, peer)) => {
            if !shared.watch.has_room() {
                shared.metrics.connection_refused(NoRoom::Total);
                return true;
            }
            if let Some(newest) = shared.snapshot().doorway(address)
                && !doorway.as_ref().is_some_and(|doorway| Arc::ptr_eq(doorway, newest))
            {
                doorway = Some(newest.clone());
            }
            let Some(doorway) = doorway.clone() else { return true };
            // Of a proxy's connections, it is its client's address that counts, which is yet to come.
            let present = match doorway.proxies.is_empty() {
                true => match shared.crowd.enter(peer.ip()) {
                    None => {
                        shared.metrics.connection_refused(NoRoom::Address);
                        return true;
                    }
                    present => present,
                },
                false => None,
            };
            let counted = shared.metrics.connection_accepted();
            // Heads and bodies leave by one write, so nothing is gained by waiting for more.
            let _ = io.set_nodelay(true);
            let watched = shared.watch.add();
            let (app, shared, shutdown, busy) = (app.clone(), shared.clone(), shutdown.clone(), drain.connection());
            tokio::spawn(async move {
                let _counted = counted;
                let arrived = Arrived { io, peer, watched, present };
                if let Some((connection, _present)) = receive(arrived, &doorway, &shared).await {
                    drop((shared, doorway));
                    http1::serve(busy, connection, app, shutdown).await;
                }
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
