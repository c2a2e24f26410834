//! The keys of listeners, of their TLS, of the admin API, and of what bounds clients.

use super::{CONNECTIONS, HEADER_BYTES};
use crate::config::decode::{Int, List, options};
use crate::config::model::{AdminAddress, Role, TlsVersion, UnknownSni};
use crate::config::words::*;

/// The least that a limit on memory may be: below, the process itself has no place.
const LEAST_MEMORY: u64 = 64 << 20;

options! {
    /// A listener. But for its address, a reload changes it for new connections.
    pub struct Listener {
        /// An address and a port; IPv6 in brackets: `0.0.0.0:8080`, `[::]:8080`.
        address: ListenAddress = Required;
        /// Speak HTTP/2 with prior knowledge beside HTTP/1.1. Not with TLS, where ALPN chooses.
        h2c: bool = Default("false");
        /// Peers that must begin each connection with a PROXY header (version 1 or 2), which says who the client is:
        /// addresses or networks. No other peer may connect then.
        proxy_protocol: List<Network> = Absent("no such header is read");
        /// TLS.
        tls: ListenerTls = Absent("plain HTTP");
    }

    /// TLS of a listener.
    pub struct ListenerTls {
        /// The certificates, of which the name that a client asks for (SNI) chooses: one that has the name itself, else one
        /// with a wildcard for it. There may be one with an RSA and one with an ECDSA key for the same name: the client's
        /// abilities choose. The first is the default.
        certificates: List<CertificateFiles> = Required;
        /// The lowest version of TLS: `"1.2"` or `"1.3"`.
        min_version: TlsVersion = Absent("`\"1.2\"`");
        /// Offer HTTP/2 (by ALPN) beside HTTP/1.1.
        h2: bool = Default("true");
        /// What a client gets that asks for a name no certificate has, or for none: `default` (the first certificate) or
        /// `refuse` (the alert `unrecognized_name`).
        unknown_sni: UnknownSni = Default("default");
        /// Ask clients for a certificate.
        client_auth: ClientAuth = Absent("clients are not asked for a certificate");
        /// Let clients resume sessions by tickets.
        session_tickets: bool = Default("true");
        /// From the connection to the end of the handshake.
        handshake_timeout: Timeout = Default("10s");
    }

    /// A certificate and its key. Both are read at start, at each reload and when a file changes, and may stand in one file.
    pub struct CertificateFiles {
        /// A PEM file with the certificate, then those that lead to its authority.
        certificate: FilePath = Required;
        /// A PEM file with the certificate's private key, which is not encrypted.
        key: FilePath = Required;
    }

    /// Certificates of clients.
    pub struct ClientAuth {
        /// A PEM file with the authorities that may have signed them.
        ca: FilePath = Required;
        /// `required`, or `optional`: a client without a certificate is let in too. One that is shown is verified in either
        /// case.
        mode: ClientAuthMode = Default("required");
        /// The request field that takes the certificate to the origin, as RFC 9440 has it. What a client says in it is
        /// dropped. `off`: none does.
        certificate_header: OrOff<ClientField> = Default("Client-Cert");
        /// The request field that takes the first of the certificate's names to the origin (a DNS, e-mail, URI or IP name;
        /// its common name where it has none of these). What a client says in it is dropped.
        identity_header: ClientField = Absent("no field does");
    }

    /// The admin API. All but its address follows a reload.
    pub struct Admin {
        /// An address and a port, or `unix:PATH`.
        address: AdminAddress = Required;
        /// A bearer token that may do everything, by reference: `env:NAME` or `file:PATH`. This, `tokens` or `clients` is
        /// needed unless the address is loopback or a Unix socket. Where there is any of them, every request but the
        /// probes' must carry a token or come with a client certificate.
        token: SecretRef = Absent("no such token");
        /// Further tokens, each with a name and a role.
        tokens: List<AdminToken> = Absent("no further tokens");
        /// TLS. Not on a Unix socket.
        tls: AdminTls = Absent("plain HTTP");
        /// Clients that are known by their certificates, each with a role. Beside `tls.client_ca`.
        clients: List<AdminClient> = Absent("no client is known by its certificate");
    }

    /// A token of the admin API.
    pub struct AdminToken {
        /// How the log calls whoever has it. No two tokens have the same name.
        name: Label = Required;
        /// The bearer token, by reference: `env:NAME` or `file:PATH`. No two tokens have the same secret.
        token: SecretRef = Required;
        /// What it may do: `purge` (purge, and read the ledger), `read` (every GET) or `all`. Each of them may read the
        /// API's description.
        role: Role = Required;
    }

    /// TLS of the admin API: versions 1.2 and 1.3.
    pub struct AdminTls {
        /// A PEM file with the certificate, then those that lead to its authority.
        certificate: FilePath = Required;
        /// A PEM file with the certificate's private key, which is not encrypted.
        key: FilePath = Required;
        /// A PEM file with the authorities that may have signed the certificates of `clients`. A client without one is let
        /// in with a token.
        client_ca: FilePath = Absent("clients are not asked for a certificate");
    }

    /// A client of the admin API that shows a certificate.
    pub struct AdminClient {
        /// A name in its certificate, exactly: a DNS name (in lower case), an e-mail address, a URI or an IP address; the
        /// common name where it has none of these. No two clients have the same.
        identity: CertificateName = Required;
        /// What it may do: see `admin.tokens[].role`.
        role: Role = Required;
    }

    /// Limits on clients.
    pub struct Limits {
        /// Header fields in a request.
        header_count: Int<1, 256> = Default("100");
        /// Bytes of a request's header section, request line included.
        header_size: Size<1, HEADER_BYTES> = Default("32KiB");
        /// Bytes of a request's target.
        uri_length: Size<1, HEADER_BYTES> = Default("8KiB");
        /// Bytes of a request's body, or `unlimited`.
        body_size: SizeOrUnlimited = Default("unlimited");
        /// How long a keepalive connection may wait for its next request.
        idle_timeout: Timeout = Default("60s");
        /// From the first byte of a request to the end of its header section.
        header_timeout: Timeout = Default("15s");
        /// The longest pause between two reads of a request's body.
        body_timeout: Timeout = Default("60s");
        /// The longest time that a write to the client may make no progress.
        write_timeout: Timeout = Default("60s");
        /// Client connections at once, over all listeners.
        connections: Int<1, CONNECTIONS> = Default("20000");
        /// The same from one address (IPv6: from one /64). Trusted proxies are not counted, nor peers of the PROXY protocol,
        /// for whom their clients are. No more than `connections`.
        connections_per_address: Int<1, CONNECTIONS> = Absent("no such limit");
        /// How fast a request's body must come, over each `body_timeout`.
        body_min_rate: MinRate = Absent("as slow as `body_timeout` lets it");
        /// How fast a client must take a response, over each `write_timeout`.
        send_min_rate: MinRate = Absent("as slow as `write_timeout` lets it");
        /// HTTP/2.
        http2: Http2Limits = Default("{}");
    }

    /// What a client may do on one connection of HTTP/2. Beyond `resets` and `control_frames`, the connection is ended
    /// (ENHANCE_YOUR_CALM).
    pub struct Http2Limits {
        /// Requests at once.
        streams: Int<1, 10_000> = Default("128");
        /// Streams that it may reset in ten seconds (CVE-2023-44487).
        resets: Int<1, 1_000_000> = Default("500");
        /// SETTINGS, PING, PRIORITY and empty DATA frames that it may send in ten seconds.
        control_frames: Int<1, 1_000_000> = Default("1000");
    }

    /// When some requests get a 503, with Retry-After, for the sake of the others.
    pub struct Overload {
        /// Requests in flight beyond which others are turned away. A hit needs no place, until there are twice as many.
        requests: Int<1, CONNECTIONS> = Absent("no limit");
        /// How late the event loop may be, beyond which requests that would go to an origin are turned away, and beyond twice
        /// as much all.
        delay: Timeout = Absent("no limit");
        /// Memory of the process (resident), beyond which requests that would go to an origin are turned away, and an eighth
        /// above that all. More than the memory tier's size.
        memory: Size<LEAST_MEMORY> = Absent("no limit");
        /// What Retry-After says, in whole seconds.
        retry_after: WholeSeconds = Default("5s");
    }
}
