//! Who may ask, and how much: signed URLs, rates, addresses, and what else a request must be to be let in.
//!
//! The rules take the time as an argument and know no session; what lasts (what has been counted, lists and databases that
//! are read from files) is made once and handed to them.

pub mod access;
pub mod rate;
pub mod signed;

use std::net::IpAddr;

use http::{HeaderMap, Method};

/// Who asks, and for what: what the guards look at.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub method: &'a Method,
    /// In normal form, without the port.
    pub host: &'a str,
    /// In normal form, without a token.
    pub path: &'a str,
    pub headers: &'a HeaderMap,
    pub visitor: Visitor<'a>,
}

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

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    pub status: http::StatusCode,
    /// For the log, in a few words: which rule, and what did not hold. Never a token or a secret.
    pub reason: String,
}
