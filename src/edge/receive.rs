//! From an accepted socket to a connection: the PROXY protocol and TLS, where the listener has them.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use log::debug;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::arrival::Secured;
use super::connection::{Connection, Transport};
use super::crowd::Present;
use super::proxy_protocol;
use super::state::Shared;
use super::watch::Watched;
use crate::observe::NoRoom;
use crate::tls::{self, Server};

/// How the connections of one listener begin, as one configuration has it.
pub struct Doorway {
    pub address: SocketAddr,
    /// HTTP/2 with prior knowledge is looked for.
    pub h2c: bool,
    /// Who must begin with a PROXY header, and nobody else may come; empty: nobody does.
    pub proxies: Vec<IpNet>,
    /// `None`: plain.
    pub tls: Option<Arc<Server>>,
}

/// A socket that has been accepted.
pub struct Arrived {
    pub io: TcpStream,
    pub peer: SocketAddr,
    pub watched: Watched,
    /// Its place among its address's connections, if that is known by now.
    pub present: Option<Present>,
}

/// The connection that an accepted socket becomes, with its place among its client's; `None`: there is none, and its client
/// has been told as far as that goes.
pub async fn receive(arrived: Arrived, doorway: &Doorway, shared: &Shared) -> Option<(Box<Connection>, Present)> {
    match &doorway.tls {
        None if doorway.proxies.is_empty() => {
            let Arrived { io, peer, watched, present } = arrived;
            Some((Box::new(Connection::plain(io, peer, doorway.h2c, watched)), present?))
        }
        // Apart: what it takes is not to be there for as long as the connection lives.
        _ => Box::pin(behind(arrived, doorway, shared)).await,
    }
}

/// One that begins with something else than HTTP.
async fn behind(arrived: Arrived, doorway: &Doorway, shared: &Shared) -> Option<(Box<Connection>, Present)> {
    let Arrived { mut io, mut peer, watched, mut present } = arrived;
    if !doorway.proxies.is_empty() {
        peer = watched.arriving(client(&io, peer, doorway, shared)).await??;
        present = shared.crowd.enter(peer.ip());
    }
    let Some(present) = present else {
        shared.metrics.connection_refused(NoRoom::Address);
        return None;
    };
    let Some(server) = &doorway.tls else {
        watched.request_ended();
        return Some((Box::new(Connection::plain(io, peer, doorway.h2c, watched)), present));
    };
    match watched.arriving(tls::accept(&mut io, server)).await? {
        Ok(session) => {
            // From here on, a request is waited for.
            watched.request_ended();
            let secured = Secured::of(&session, server.clone());
            shared.handshakes.done(secured.version, session.handshake_kind());
            Some((Box::new(Connection::secured(Transport::tls(io, session), peer, secured, watched)), present))
        }
        Err(failure) => {
            debug!("no TLS with {peer}: {failure}");
            shared.handshakes.failed(&failure);
            None
        }
    }
}

/// Whom a proxy says that it speaks for; its own address where it says that it speaks for itself.
async fn client(io: &TcpStream, peer: SocketAddr, doorway: &Doorway, shared: &Shared) -> Option<SocketAddr> {
    let address = peer.ip().to_canonical();
    if !doorway.proxies.iter().any(|network| network.contains(&address)) {
        debug!("{peer} is none of the proxies that may connect to {}", doorway.address);
        shared.metrics.connection_refused(NoRoom::Proxy);
        return None;
    }
    let limit = shared.snapshot().config.limits.header_timeout;
    match timeout(limit, proxy_protocol::read(io)).await {
        Ok(Ok(proxied)) => Some(proxied.map_or(peer, |proxied| proxied.source)),
        Ok(Err(e)) => {
            debug!("no PROXY header from {peer}: {e}");
            shared.metrics.connection_refused(NoRoom::Proxy);
            None
        }
        Err(_) => {
            debug!("no PROXY header from {peer} within {limit:?}");
            shared.metrics.connection_refused(NoRoom::Proxy);
            None
        }
    }
}
