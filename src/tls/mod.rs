//! TLS towards clients: certificates chosen by SNI and read again when they change, tickets that outlive reloads and
//! upgrades, certificates of clients.

mod certificates;
mod clients;
mod counts;
mod handshake;
mod server;
mod socket;
mod suites;
mod tickets;

pub use certificates::{Certificates, Expiry, read};
pub use counts::Counts;
pub use handshake::{Failure, accept};
pub use server::Server;
pub use socket::Socket;
pub use tickets::Tickets;
