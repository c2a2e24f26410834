//! Free ports that stay free until their owner listens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use tokio::net::{TcpListener, TcpSocket};

use super::DEADLINE;

/// A loopback port held by a bound socket that does not listen: connections to it are refused, no other process is
/// given it, and a server that binds with `SO_REUSEADDR` (as they all do) may listen on it meanwhile.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _holder: TcpSocket,
}

impl Port {
    pub fn reserve() -> Port {
        Port::hold(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Holds a port that was ours a moment ago.
    pub fn hold(address: SocketAddr) -> Port {
        let holder = bind(address);
        let address = holder.local_addr().expect("a bound socket has an address");
        Port { address, _holder: holder }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens on it; the port is held as before.
    pub fn listen(&self) -> TcpListener {
        // A process that is just being started may still hold a copy of a listener that has been closed here, until
        // it becomes another program.
        let deadline = Instant::now() + DEADLINE;
        while try_bind(self.address).is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        bind(self.address).listen(1024).unwrap_or_else(|e| panic!("cannot listen on {}: {e}", self.address))
    }
}

fn bind(address: SocketAddr) -> TcpSocket {
    try_bind(address).unwrap_or_else(|e| panic!("cannot bind {address}: {e}"))
}

fn try_bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
