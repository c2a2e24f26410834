//! What is known of a request once it is over.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One request. What comes from a client or an origin is bytes: nothing promises that it is text.
///
/// In JSON each field is a member of the same name; one that is absent is left out. Durations are in seconds with
/// six decimals. The combined format has room for time, client, request line, status, bytes, referer and user agent.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the request's header section was complete. Written in UTC, in milliseconds.
    pub time: SystemTime,
    /// The client as far as it is believed: the peer, or whom a trusted proxy names.
    pub client: Option<IpAddr>,
    pub method: &'a [u8],
    /// As the client sent it.
    pub host: Option<&'a [u8]>,
    /// The request's target as the client sent it.
    pub uri: &'a [u8],
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: &'a str,
    /// The status that the client was sent; 0 where it was sent none.
    pub status: u16,
    /// Bytes of the response's body that were sent.
    pub bytes: u64,
    /// Bytes of the request's body that were received.
    pub bytes_received: u64,
    /// From the request's header section to the last byte of the answer.
    pub duration: Duration,
    /// From the request's header section to the first byte of the answer.
    pub first_byte: Option<Duration>,
    /// What the cache did, in one word; see [`CACHE_WORDS`](crate::observe::metrics::CACHE_WORDS).
    pub cache: &'a str,
    /// The whole value of the Cache-Status field (RFC 9211).
    pub cache_status: Option<&'a [u8]>,
    /// `memory` or `disk`, where the answer came from the cache.
    pub tier: Option<&'a str>,
    pub site: Option<&'a str>,
    pub route: Option<&'a str>,
    /// The origin's name, where it was asked.
    pub origin: Option<&'a str>,
    /// The address of the server that was asked last.
    pub server: Option<&'a str>,
    /// From asking the origin to the end of its answer.
    pub origin_duration: Option<Duration>,
    /// Further tries after the first.
    pub retries: u32,
    pub request_id: Option<&'a str>,
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<&'a str>,
    /// The number of the client's autonomous system.
    pub asn: Option<u32>,
    /// `TLSv1.2` or `TLSv1.3`, where the connection to this edge is by TLS.
    pub tls: Option<&'a str>,
    /// The first name in the client's certificate.
    pub identity: Option<&'a str>,
    /// What tells the signed URL's token from others.
    pub token: Option<&'a str>,
    /// Why the request went wrong, or was refused; or what was only noted.
    pub detail: Option<&'a str>,
}

impl Default for Record<'_> {
    fn default() -> Self {
        Record {
            time: UNIX_EPOCH,
            client: None,
            method: b"",
            host: None,
            uri: b"",
            protocol: "",
            status: 0,
            bytes: 0,
            bytes_received: 0,
            duration: Duration::ZERO,
            first_byte: None,
            cache: "local",
            cache_status: None,
            tier: None,
            site: None,
            route: None,
            origin: None,
            server: None,
            origin_duration: None,
            retries: 0,
            request_id: None,
            referer: None,
            user_agent: None,
            country: None,
            asn: None,
            tls: None,
            identity: None,
            token: None,
            detail: None,
        }
    }
}
