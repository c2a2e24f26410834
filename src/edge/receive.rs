//! From an accepted socket to a connection: TLS, where the listener has it.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use log::debug;
use tokio::net::TcpStream;

use super::arrival::Secured;
use super::connection::{Connection, Transport};
use super::state::Shared;
use super::watch::Watched;
use crate::tls::{self, Server};

/// How the connections of one listener begin, as one configuration has it.
pub struct Doorway {
    pub address: SocketAddr,
    /// HTTP/2 with prior knowledge is looked for.
    pub h2c: bool,
    /// Who must begin with a PROXY header; empty: nobody.
    pub proxies: Vec<IpNet>,
    /// `None`: plain.
    pub tls: Option<Arc<Server>>,
}

/// The connection that an accepted socket becomes; `None`: there is none, and its client has been told as far as that goes.
pub async fn receive(
    io: TcpStream,
    peer: SocketAddr,
    watched: Watched,
    doorway: Arc<Doorway>,
    shared: &Shared,
) -> Option<Box<Connection>> {
    match &doorway.tls {
        None => Some(Box::new(Connection::plain(io, peer, doorway.h2c, watched))),
        // Apart: what a handshake takes is not to be there for as long as the connection lives.
        Some(server) => Box::pin(secure(io, peer, watched, server, shared)).await,
    }
}

async fn secure(
    mut io: TcpStream,
    peer: SocketAddr,
    watched: Watched,
    server: &Arc<Server>,
    shared: &Shared,
) -> Option<Box<Connection>> {
    match tls::accept(&mut io, server).await {
        Ok(session) => {
            let secured = Secured::of(&session, server.clone());
            shared.handshakes.done(secured.version, session.handshake_kind());
            Some(Box::new(Connection::secured(Transport::tls(io, session), peer, secured, watched)))
        }
        Err(failure) => {
            debug!("no TLS with {peer}: {failure}");
            shared.handshakes.failed(&failure);
            None
        }
    }
}
