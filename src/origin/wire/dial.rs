//! New connections to servers.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::io::{Io, Socket};
use super::message::WireError;
use super::proxy::{self, Proxied};
use super::tls::Tls;
use crate::config::model::{HostHeader, Origin, OriginHttp, OriginTls, ProxyProtocol};
use crate::origin::endpoint::Endpoint;
use crate::origin::failure::FailureKind;

/// What ALPN calls the versions of HTTP.
const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";

/// Counts the dialers of the process.
static SEQUENCE: AtomicU64 = AtomicU64::new(1);

/// Makes an origin's connections.
#[derive(Debug)]
pub(in crate::origin) struct Dialer {
    settings: Arc<Settings>,
    /// The higher, the newer.
    sequence: u64,
    connect_timeout: Duration,
    tls: Option<Tls>,
}

/// A new connection.
#[derive(Debug)]
pub(in crate::origin) struct Dialed {
    pub(in crate::origin) io: Io,
    pub(in crate::origin) protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::origin) enum Protocol {
    H1,
    H2,
}

/// What connections must have in common to be used one for another, and how they are kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) tls: Option<OriginTls>,
    /// The name that is asked for and verified, whatever the server's own is; of connections over TLS.
    pub(super) name: Option<String>,
    pub(super) http: OriginHttp,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    pub(super) idle_timeout: Duration,
    pub(super) keepalive: usize,
    pub(super) streams: usize,
}

impl Dialer {
    pub(in crate::origin) fn new(origin: &Origin) -> Dialer {
        let host = match &origin.host {
            HostHeader::Fixed(host) => Some(without_port(host).to_owned()),
            HostHeader::Client | HostHeader::Server => None,
        };
        let settings = Settings {
            tls: origin.tls.clone(),
            name: origin.tls.as_ref().and_then(|tls| tls.sni.clone().or(host)),
            http: origin.http,
            proxy_protocol: origin.proxy_protocol,
            idle_timeout: origin.idle_timeout,
            keepalive: if origin.idle_timeout.is_zero() { 0 } else { origin.keepalive },
            streams: origin.streams.max(1),
        };
        Dialer {
            settings: Arc::new(settings),
            sequence: SEQUENCE.fetch_add(1, Ordering::Relaxed),
            connect_timeout: origin.connect_timeout,
            tls: origin.tls.clone().map(Tls::new),
        }
    }

    /// A connection of its own to `server`'s endpoint, ready for HTTP, within the origin's `connect_timeout`. `server` is
    /// the text that the server is configured by, which its certificate must be valid for unless something else is
    /// configured; `proxied` goes into the PROXY header where the origin has one.
    pub(in crate::origin) async fn dial(
        &self,
        endpoint: &Endpoint,
        server: &str,
        proxied: Option<Proxied>,
    ) -> Result<Dialed, WireError> {
        self.dial_for(self.settings.http, endpoint, server, proxied).await
    }

    /// The same for HTTP/1.1 whatever the origin speaks else: only that has upgrades (RFC 9113 §8.6).
    pub(in crate::origin) async fn dial_http1(
        &self,
        endpoint: &Endpoint,
        server: &str,
        proxied: Option<Proxied>,
    ) -> Result<Io, WireError> {
        Ok(self.dial_for(OriginHttp::Http1, endpoint, server, proxied).await?.io)
    }

    async fn dial_for(
        &self,
        http: OriginHttp,
        endpoint: &Endpoint,
        server: &str,
        proxied: Option<Proxied>,
    ) -> Result<Dialed, WireError> {
        let until = self.deadline();
        let mut socket = within(until, endpoint, "connecting to", FailureKind::Connect, connect(endpoint)).await?;
        if let Some(version) = self.settings.proxy_protocol {
            let header = proxy::header(version, proxied.as_ref());
            let sent = async { socket.write_all(&header).await.map_err(|error| error.to_string()) };
            within(until, endpoint, "sending the PROXY header to", FailureKind::Connect, sent).await?;
        }
        let Some(tls) = &self.tls else {
            let protocol = if http == OriginHttp::Http2 { Protocol::H2 } else { Protocol::H1 };
            return Ok(Dialed { io: Io::plain(socket), protocol });
        };
        let shaken = async {
            let name = server_name(self.settings.name.as_deref(), endpoint, server)?;
            let stream = tls.handshake(socket, name, alpn(http)).await?;
            let protocol = agreed(http, stream.get_ref().1.alpn_protocol())?;
            Ok(Dialed { io: Io::tls(stream), protocol })
        };
        within(until, endpoint, "TLS with", FailureKind::Tls, shaken).await
    }

    pub(super) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Of a connection that is begun now.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.connect_timeout
    }
}

impl Settings {
    /// Whether the server's own name is what its certificate must be valid for.
    pub(super) fn asks_for_server(&self) -> bool {
        self.tls.is_some() && self.name.is_none()
    }
}

/// What `doing` leads to, if it does in time.
pub(super) async fn within<T>(
    until: Instant,
    endpoint: &Endpoint,
    what: &str,
    kind: FailureKind,
    doing: impl Future<Output = Result<T, String>>,
) -> Result<T, WireError> {
    match timeout_at(until, doing).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(why)) => Err(WireError::new(kind, format!("{what} {endpoint}: {why}"))),
        Err(_) => Err(WireError::new(FailureKind::ConnectTimeout, format!("{what} {endpoint} took too long"))),
    }
}

async fn connect(endpoint: &Endpoint) -> Result<Socket, String> {
    let made: io::Result<Socket> = match endpoint {
        Endpoint::Inet(address) => TcpStream::connect(address).await.and_then(|tcp| {
            // Heads and the ends of bodies are not to wait for more to send.
            tcp.set_nodelay(true)?;
            Ok(Socket::Tcp(tcp))
        }),
        Endpoint::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
    };
    made.map_err(|error| error.to_string())
}

fn alpn(http: OriginHttp) -> Vec<Vec<u8>> {
    let offered: &[&[u8]] = match http {
        OriginHttp::Http1 => &[HTTP_1],
        OriginHttp::Http2 => &[HTTP_2],
        OriginHttp::Auto => &[HTTP_2, HTTP_1],
    };
    offered.iter().map(|protocol| protocol.to_vec()).collect()
}

/// What a server has chosen of it. A server without ALPN speaks HTTP/1.1 (RFC 9113 §3.2).
fn agreed(http: OriginHttp, chosen: Option<&[u8]>) -> Result<Protocol, String> {
    match (http, chosen) {
        (OriginHttp::Http2 | OriginHttp::Auto, Some(HTTP_2)) => Ok(Protocol::H2),
        (OriginHttp::Http2, _) => Err("the server does not choose HTTP/2 (ALPN)".to_owned()),
        (OriginHttp::Http1 | OriginHttp::Auto, _) => Ok(Protocol::H1),
    }
}

/// What is asked for (SNI, RFC 6066 §3) and verified. An address is verified too, but not asked for.
fn server_name(fixed: Option<&str>, endpoint: &Endpoint, server: &str) -> Result<ServerName<'static>, String> {
    let name = match (fixed, endpoint) {
        (Some(name), _) => name,
        (None, Endpoint::Inet(_)) => without_port(server),
        // Nothing better is known of it.
        (None, Endpoint::Unix(_)) => "localhost",
    };
    // The dot of a name that is complete is no part of it there.
    let name = name.strip_suffix('.').unwrap_or(name);
    ServerName::try_from(name.to_owned()).map_err(|_| format!("{name} is no name that a certificate can be valid for"))
}

/// The host of `host:port`, `[address]:port` or of either without a port.
fn without_port(text: &str) -> &str {
    if let Some((address, _)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        // No port, or an address of IPv6 without brackets.
        _ => text,
    }
}

#[cfg(test)]
mod tests;
