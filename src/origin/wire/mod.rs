//! Connections to servers, and HTTP/1.1 and HTTP/2 over them.
//!
//! Pingora's connectors are not used for this: they keep unused connections in one pool for all servers, without a bound
//! for each of them, build a TLS configuration anew for each connection, cannot say TLS versions, and can neither tell
//! two tries of a request apart nor make two at once.

mod connections;
mod counts;
mod dial;
mod h1;
mod h2;
mod io;
#[cfg(test)]
pub(in crate::origin) mod kit;
mod message;
mod proxy;
mod request;
mod tls;

pub(super) use connections::{Connections, How};
pub use counts::ConnectionCounts;
pub(super) use dial::{Dialed, Dialer, Protocol};
pub(super) use message::{BodyLength, RequestHead, ResponseHead, WireError};
pub use proxy::Proxied;
pub(super) use request::Wire;
