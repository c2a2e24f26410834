//! The connections to one server: who gets which, and which are made.

mod flight;
mod group;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::task::unconstrained;
use tokio::time::timeout_at;

pub(super) use self::group::Group;
use self::group::Taken;
use super::counts::{ConnectionCounts, Counted, Counts};
use super::dial::{Dialed, Dialer, Protocol};
use super::h1::H1Conn;
use super::h2::H2Client;
use super::io::Io;
use super::message::WireError;
use super::proxy::Proxied;
use super::request::Wire;
use crate::origin::endpoint::Endpoint;
use crate::origin::failure::FailureKind;

/// How often a request looks for a place before it has a connection made for itself: more than once only after it has
/// waited for one that others have had made.
const LOOKS: usize = 4;

/// The connections to one server. Unused ones are closed with it; those in use are closed when they are not any more.
#[derive(Default)]
pub(in crate::origin) struct Connections {
    counts: Arc<Counts>,
    /// Those that are used one for another. Connections that other settings have led to are not.
    group: ArcSwapOption<Group>,
    /// Held while `group` is replaced.
    replacing: Mutex<()>,
}

/// How a request has got its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::origin) enum How {
    /// It was there, or another request has had it made.
    Kept,
    /// It has been made for the request, in this time.
    Opened(Duration),
}

impl Connections {
    /// A connection for one request: one that was kept, a place on one that is shared, or a new one. As
    /// [`Dialer::dial`]; `dialer` is that of the origin's settings in force. An error is always one of before sending.
    pub(in crate::origin) async fn checkout(
        &self,
        dialer: &Arc<Dialer>,
        endpoint: &Endpoint,
        server: &str,
        proxied: Option<Proxied>,
    ) -> Result<(Wire, How), WireError> {
        // A connection whose PROXY header names a client carries that client's requests alone.
        let taken = match dialer.settings().proxy_protocol {
            None => self.look(dialer, endpoint, server).await,
            Some(_) => None,
        };
        match taken {
            Some((_, Taken::Wire(wire))) => Ok((wire, How::Kept)),
            // Apart, and only where it is needed: what makes a connection is large.
            taken => Box::pin(self.open(taken, dialer, endpoint, server, proxied)).await,
        }
    }

    /// What is there for a request. `None`: newer settings are in force, and nothing is kept for these.
    async fn look(&self, dialer: &Dialer, endpoint: &Endpoint, server: &str) -> Option<(Arc<Group>, Taken)> {
        let group = self.group(dialer, endpoint, server)?;
        // Where a task's budget is at its end, connections would look unused that the server has closed.
        let taken = unconstrained(async { group.take() }).await;
        Some((group, taken))
    }

    /// The connection for a request that has found none.
    async fn open(
        &self,
        mut taken: Option<(Arc<Group>, Taken)>,
        dialer: &Arc<Dialer>,
        endpoint: &Endpoint,
        server: &str,
        proxied: Option<Proxied>,
    ) -> Result<(Wire, How), WireError> {
        let begun = Instant::now();
        let mut looks = LOOKS;
        while let Some((group, found)) = taken {
            match found {
                Taken::Wire(wire) => return Ok((wire, How::Kept)),
                Taken::Takeoff(takeoff) => {
                    let wire = takeoff.lead(dialer, endpoint, server).await?;
                    return Ok((wire, How::Opened(begun.elapsed())));
                }
                Taken::Flight(flight) if looks > 1 => flight.landed().await?,
                Taken::Flight(_) | Taken::Nothing => {
                    let fresh = open(&self.counts, dialer, endpoint, server, None).await?;
                    return Ok((group.adopt(fresh)?, How::Opened(begun.elapsed())));
                }
            }
            looks -= 1;
            taken = self.look(dialer, endpoint, server).await;
        }
        let fresh = open(&self.counts, dialer, endpoint, server, proxied).await?;
        Ok((fresh.alone()?, How::Opened(begun.elapsed())))
    }

    /// A new connection of HTTP/1.1 for a request that asks for an upgrade: nobody uses it after it.
    pub(in crate::origin) async fn open_http1(
        &self,
        dialer: &Dialer,
        endpoint: &Endpoint,
        server: &str,
        proxied: Option<Proxied>,
    ) -> Result<(Wire, How), WireError> {
        let begun = Instant::now();
        let io = dialer.dial_http1(endpoint, server, proxied).await?;
        let conn = H1Conn::new(io.counted(Counted::new(&self.counts)));
        Ok((Wire::h1(conn, None), How::Opened(begun.elapsed())))
    }

    pub(in crate::origin) fn counts(&self) -> ConnectionCounts {
        self.counts.now()
    }

    /// The connections that `dialer`'s settings lead to. `None`: newer settings are in force, and connections of these are
    /// not kept any more.
    fn group(&self, dialer: &Dialer, endpoint: &Endpoint, server: &str) -> Option<Arc<Group>> {
        if let Some(group) = self.group.load_full()
            && group.serves(dialer, endpoint, server)
        {
            return Some(group);
        }
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.group.load_full();
        if let Some(old) = &old {
            if old.serves(dialer, endpoint, server) {
                return Some(old.clone());
            }
            if old.is_newer_than(dialer) {
                return None;
            }
        }
        let group = Group::new(dialer, endpoint, server, &self.counts);
        self.group.store(Some(group.clone()));
        if let Some(old) = old {
            old.retire();
        }
        Some(group)
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        // What is in use now would be kept for nobody.
        if let Some(group) = self.group.swap(None) {
            group.retire();
        }
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts().fmt(f)
    }
}

/// A connection that has just been made.
#[expect(clippy::large_enum_variant, reason = "it is there for a moment: to allocate would take longer than to move")]
enum Fresh {
    H1(H1Conn<Io>),
    H2(H2Client),
}

impl Fresh {
    /// For one request, and then no more.
    fn alone(self) -> Result<Wire, WireError> {
        match self {
            Fresh::H1(conn) => Ok(Wire::h1(conn, None)),
            Fresh::H2(client) => Ok(Wire::h2(client.open().ok_or_else(closed_at_once)?, None)),
        }
    }
}

/// A new connection, and what HTTP/2 needs to begin.
async fn open(
    counts: &Arc<Counts>,
    dialer: &Dialer,
    endpoint: &Endpoint,
    server: &str,
    proxied: Option<Proxied>,
) -> Result<Fresh, WireError> {
    let until = dialer.deadline();
    let Dialed { io, protocol } = dialer.dial(endpoint, server, proxied).await?;
    let io = io.counted(Counted::new(counts));
    match protocol {
        Protocol::H1 => Ok(Fresh::H1(H1Conn::new(io))),
        Protocol::H2 => {
            let is_tls = io.is_tls();
            match timeout_at(until, H2Client::handshake(io, dialer.settings().streams, is_tls)).await {
                Ok(Ok(client)) => Ok(Fresh::H2(client)),
                Ok(Err(error)) => {
                    let why = format!("HTTP/2 with {endpoint}: {error}");
                    // A client certificate that does not please is told of late.
                    let kind = if error.kind == FailureKind::Tls { FailureKind::Tls } else { FailureKind::Connect };
                    Err(WireError::new(kind, why))
                }
                Err(_) => {
                    let why = format!("HTTP/2 with {endpoint} took too long to begin");
                    Err(WireError::new(FailureKind::ConnectTimeout, why))
                }
            }
        }
    }
}

/// A new connection of HTTP/2 that takes no request.
fn closed_at_once() -> WireError {
    WireError::new(FailureKind::Connect, "the server takes no request on a new connection (HTTP/2)")
}

#[cfg(test)]
mod tests;
