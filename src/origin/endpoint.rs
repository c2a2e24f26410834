//! Where a server is to be found.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::balance::StableHash;

/// What a connection is made to. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    Inet(SocketAddr),
    Unix(Arc<Path>),
}

impl Endpoint {
    /// A short name, the same in every process.
    pub(super) fn id(&self) -> u64 {
        let mut hash = StableHash::new();
        // A hash takes every text.
        let _ = write!(hash, "{self}");
        hash.finish()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint::Inet(address)
    }
}

/// As the configuration has it: `address:port` or `unix:PATH`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Inet(address) => address.fmt(f),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_text() {
        let endpoint = Endpoint::from(SocketAddr::from(([10, 0, 0, 1], 80)));
        assert_eq!(endpoint.id(), StableHash::new().with(b"10.0.0.1:80").finish());
        assert_ne!(endpoint.id(), Endpoint::Unix(Path::new("10.0.0.1:80").into()).id());
    }
}
