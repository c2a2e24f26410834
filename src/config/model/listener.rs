//! Listeners and their TLS, checked.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Pem, PrivatePem, Role, TlsVersion};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    /// HTTP/2 with prior knowledge is spoken beside HTTP/1.1. Never with TLS, where ALPN chooses.
    pub h2c: bool,
    /// Peers of these networks must begin with a PROXY header (version 1 or 2), which says who the client is; no other peer
    /// may connect. Empty: none is read.
    pub proxy_protocol: Vec<IpNet>,
    /// `None`: plain.
    pub tls: Option<Tls>,
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Chosen by SNI; the first is the default. Not empty.
    pub certificates: Vec<Identity>,
    pub min_version: TlsVersion,
    /// HTTP/2 is offered by ALPN beside HTTP/1.1 (`h2`).
    pub h2: bool,
    pub unknown_sni: UnknownSni,
    /// `None`: no certificate is asked for.
    pub client_auth: Option<ClientAuth>,
    /// Whether sessions are resumed, without state of ours (`session_tickets`).
    pub session_tickets: bool,
    /// From the connection to the end of the handshake.
    pub handshake_timeout: Duration,
}

/// A certificate chain and its private key, which belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub chain: Pem,
    pub key: PrivatePem,
    /// The DNS names that the first certificate is for: lower case, `*.example.com` for a wildcard. Its common name where it
    /// has no alternative names.
    pub names: Vec<String>,
    /// Seconds since the epoch.
    pub not_after: i64,
}

/// What a client gets that asks for a name no certificate has, or for none (`unknown_sni`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownSni {
    /// `default`: the first certificate.
    Default,
    /// `refuse`: an unrecognized_name alert.
    Refuse,
}

/// Certificates of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Who may have signed them.
    pub ca: Pem,
    /// `mode: required` or `optional`. One that is presented is verified in either case.
    pub required: bool,
    /// The request field that takes the certificate to the origin as RFC 9440 has it (`certificate_header`, default
    /// `Client-Cert`); lower case. What a client says in it is dropped.
    pub certificate_header: Option<String>,
    /// The request field that takes the first of its names to the origin: lower case.
    pub identity_header: Option<String>,
}

/// Secrets that session tickets are made with, the first, and read with, all (`session_ticket_secrets`): edges with the same
/// resume each other's sessions. Empty: one of the process's own, which it hands on in an upgrade.
pub type TicketSecrets = Vec<super::Secret>;

/// TLS of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTls {
    pub identity: Identity,
    /// `client_ca`: who may have signed the certificates of clients; `None`: none is asked for.
    pub client_ca: Option<Pem>,
}

/// A client of the admin API that is known by its certificate (`admin.clients`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminClient {
    /// A name in its certificate: a DNS, e-mail or URI name, or the common name where there is none of these.
    pub identity: String,
    pub role: Role,
}

/// When the edge gives up some requests for the sake of the others (`overload`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    /// Requests in flight beyond which others get a 503; a hit needs no place, until there are twice as many. `None`: no limit.
    pub requests: Option<usize>,
    /// How late the event loop may be, beyond which requests that would go to an origin get a 503, and beyond twice as much
    /// all. `None`: no limit.
    pub delay: Option<Duration>,
    /// Resident memory of the process, in bytes, beyond which the same holds as for `delay` (twice: an eighth more).
    /// `None`: no limit.
    pub memory: Option<u64>,
    /// What Retry-After says.
    pub retry_after: Duration,
}

/// HTTP/2 towards clients (`limits.http2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Requests at once on a connection.
    pub streams: u32,
    /// Streams that a client may reset in ten seconds, before its connection is ended (CVE-2023-44487).
    pub resets: u32,
    /// SETTINGS, PING, PRIORITY and empty DATA frames that a client may send in ten seconds.
    pub control_frames: u32,
}
