//! From a chosen server to what Pingora connects to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;

use super::endpoint::Endpoint;
use super::tunnel::TunnelConnect;
use crate::config::model::Origin;

/// An origin's settings towards its servers, worked out once.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerSettings {
    connect_timeout: Duration,
    read_timeout: Duration,
    write_timeout: Duration,
    idle_timeout: Duration,
    /// Pingora keeps unused connections by address: this keeps apart those of origins that treat them differently.
    group: u64,
}

impl PeerSettings {
    pub(super) fn new(origin: &Origin) -> PeerSettings {
        let mut hasher = DefaultHasher::new();
        origin.name.hash(&mut hasher);
        origin.idle_timeout.hash(&mut hasher);
        PeerSettings {
            connect_timeout: origin.connect_timeout,
            read_timeout: origin.read_timeout,
            write_timeout: origin.write_timeout,
            idle_timeout: origin.idle_timeout,
            group: hasher.finish(),
        }
    }

    /// The same for a request that asks for an upgrade: a connection of its own, which nobody else uses after it.
    pub(super) fn tunnel(&self, endpoint: &Endpoint) -> Box<HttpPeer> {
        let mut peer = self.peer(endpoint);
        peer.group_key = !self.group;
        peer.options.idle_timeout = Some(Duration::ZERO);
        peer.options.custom_l4 = Some(Arc::new(TunnelConnect { timeout: self.connect_timeout }));
        peer
    }

    /// Plain HTTP/1.1 to `addr`. Boxed because Pingora takes it so; nothing else is allocated.
    pub(super) fn peer(&self, endpoint: &Endpoint) -> Box<HttpPeer> {
        let addr = match endpoint {
            Endpoint::Inet(addr) => *addr,
            Endpoint::Unix(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        // Given a socket address, this resolves nothing and cannot fail.
        let mut peer = Box::new(HttpPeer::new(addr, false, String::new()));
        peer.group_key = self.group;
        peer.options.connection_timeout = Some(self.connect_timeout);
        peer.options.total_connection_timeout = Some(self.connect_timeout);
        peer.options.read_timeout = Some(self.read_timeout);
        peer.options.write_timeout = Some(self.write_timeout);
        peer.options.idle_timeout = Some(self.idle_timeout);
        peer
    }
}
