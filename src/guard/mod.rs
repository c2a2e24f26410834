//! Who may ask, and how much: signed URLs, rates, addresses, and what else a request must be to be let in.
//!
//! The rules take the time as an argument and know no session; what lasts (what has been counted, lists and databases that
//! are read from files) is made once and handed to them.

pub mod access;
mod gate;
pub mod rate;
pub mod signed;

use http::{HeaderMap, Method};

pub use self::gate::{Gate, Guards, Insecure, insecure};
use crate::config::model::{self, Site};
use crate::site::Resolved;
pub use crate::site::Visitor;

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

impl<'a> Asked<'a> {
    /// `headers`: as the client sent them.
    pub fn of(method: &'a Method, headers: &'a HeaderMap, visitor: Visitor<'a>, resolved: &'a Resolved<'_>) -> Self {
        Asked { method, host: resolved.host(), path: &resolved.path, headers, visitor }
    }
}

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    pub status: http::StatusCode,
    /// For the log, in a few words: which rule, and what did not hold. Never a token or a secret.
    pub reason: String,
}

/// Why a request is refused for its path: an origin that merges or decodes slashes would answer it with what another route
/// guards, and this one, which `guard` stands before, does not. `None`: there is no such route.
pub fn read_otherwise(site: &Site, resolved: &Resolved<'_>, guard: &model::Guard) -> Option<String> {
    let asks_more = |other: &&Option<usize>| crate::site::policy(site, **other).guard.asks_more_than(guard);
    let other = resolved.otherwise.iter().find(asks_more)?;
    let name = other.and_then(|route| site.routes.get(route)).map_or("the site itself", |route| &*route.name);
    Some(format!("the path could be read as one of {name}, which is guarded otherwise"))
}
