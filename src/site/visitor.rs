//! Who asks, beside what the request itself says.

use std::net::{IpAddr, Ipv4Addr};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// The client's, as seen through trusted proxies; never an IPv4 address in IPv6 form.
    pub address: IpAddr,
    /// The request came by TLS, or a trusted proxy says so.
    pub secure: bool,
    /// The names in the client's certificate, which has been verified; empty: there is none.
    pub identities: &'a [String],
    /// ISO 3166-1 alpha-2, upper case.
    pub country: Option<[u8; 2]>,
    /// The autonomous system.
    pub asn: Option<u32>,
}

impl Visitor<'_> {
    /// One of whom nothing but the address is known.
    pub fn of(address: IpAddr) -> Visitor<'static> {
        Visitor { address: address.to_canonical(), secure: false, identities: &[], country: None, asn: None }
    }

    /// Nobody in particular: for questions that are not about a client.
    pub fn nobody() -> Visitor<'static> {
        Visitor::of(Ipv4Addr::UNSPECIFIED.into())
    }
}
