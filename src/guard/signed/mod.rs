//! Signed URLs: several formats behind one interface.
//!
//! A token is found by its place (a query parameter, a cookie, the first segment of the path), taken out of the request
//! before anything else looks at it, and then verified. Comparisons are in constant time.

pub mod akamai;
pub mod cloudflare;
pub mod cloudfront;
mod find;
pub mod foreland;
pub mod jwt;
mod keyring;
mod keys;
pub mod secure_link;
pub mod sign;
mod text;

#[cfg(test)]
mod testing;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::config::model::{UrlFormat, UrlKey};
use crate::guard::Asked;
use crate::site::Resolved;
pub use crate::site::TokenPlaces as Places;

/// A request whose URL may be signed.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    pub method: &'a Method,
    /// The client came by https.
    pub secure: bool,
    /// Host and port as the client sent them, in lower case, without a default port.
    pub authority: &'a str,
    /// The path as the client sent it, percent-encoding and all, without a token of the path.
    pub path: &'a str,
    /// The query as the client sent it, tokens and all, without the `?`.
    pub query: Option<&'a str>,
    /// The token that the path began with: what followed `PARAMETER=` in its first segment.
    pub in_path: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// The client's address, as seen through trusted proxies.
    pub client: IpAddr,
}

impl<'a> Presented<'a> {
    /// `resolved`: what has become of the same request.
    pub fn of(asked: &Asked<'a>, resolved: &'a Resolved<'_>) -> Self {
        Presented {
            method: asked.method,
            secure: asked.visitor.secure,
            authority: &resolved.authority,
            path: &resolved.sent_path,
            query: resolved.sent_query.as_deref(),
            in_path: resolved.token.as_deref(),
            headers: asked.headers,
            client: asked.visitor.address,
        }
    }
}

/// A signature that holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// What tells this token from others: an id that it states, else the begin of its signature. Never enough of it to be
    /// used as one.
    pub id: String,
    /// When it ends, in seconds since the epoch; `None`: never.
    pub expires: Option<u64>,
}

/// Why a URL is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no token.
    Missing,
    /// There is one that cannot be read: why.
    Malformed(&'static str),
    /// The signature is not that of any key; or it is of another URL, method or client.
    Mismatch,
    /// It was valid until then, in seconds since the epoch.
    Expired(u64),
    /// It will be valid from then on.
    NotYet(u64),
    /// It holds, but not for this request: why (another address, another path).
    Elsewhere(&'static str),
}

/// For the log: nothing of the token is in it.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Missing => f.write_str("no token"),
            Refused::Malformed(why) | Refused::Elsewhere(why) => f.write_str(why),
            Refused::Mismatch => f.write_str("the signature is not of this URL, or of another key"),
            Refused::Expired(end) => write!(f, "the token ended at {end}"),
            Refused::NotYet(begin) => write!(f, "the token begins at {begin}"),
        }
    }
}

/// A format with its keys.
pub trait Verifier: Send + Sync {
    /// Where its tokens are.
    fn places(&self) -> &Places;

    /// Checks a request's token. `now` is in seconds since the epoch.
    ///
    /// # Errors
    /// Why it is refused.
    fn verify(&self, request: &Presented<'_>, now: u64) -> Result<Grant, Refused>;
}

/// What verifies the URLs of a key.
///
/// # Errors
/// A phrase for the operator: a public key cannot be used.
pub fn verifier(key: &UrlKey) -> Result<Arc<dyn Verifier>, String> {
    let skew = key.skew.as_secs();
    Ok(match &key.format {
        UrlFormat::Foreland { secrets, parameter } => Arc::new(foreland::Foreland::new(secrets, parameter, skew)),
        UrlFormat::SecureLink { secrets, expression, md5_parameter, expires_parameter } => {
            Arc::new(secure_link::SecureLink::new(secrets, expression, md5_parameter, expires_parameter, skew))
        }
        format @ UrlFormat::Akamai { .. } => {
            Arc::new(akamai::Akamai::new(format, skew).ok_or("the key is of another format")?)
        }
        UrlFormat::Cloudflare { secrets, parameter, lifetime } => {
            Arc::new(cloudflare::Cloudflare::new(secrets, parameter, lifetime.as_secs(), skew))
        }
        UrlFormat::CloudFront { keys } => Arc::new(cloudfront::CloudFront::new(keys, key.skew)?),
        UrlFormat::Jwt { secrets, keys, parameter, issuers, audience } => {
            Arc::new(jwt::Jwt::new(secrets, keys, parameter, issuers, audience.as_deref(), key.skew)?)
        }
    })
}
