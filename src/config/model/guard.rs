//! Who may ask, and how much: what the sites and routes say of it, checked.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use ipnet::IpNet;

use super::{HostPattern, Secret, ValueMatch};
use crate::config::pattern::PathPattern;

/// What guards the requests of one site or route. Each key of a route replaces the site's.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Counts the guards of a configuration from 0, in the order of the file, a site's before its routes': the place of what
    /// is made of it at run time.
    pub id: usize,
    pub https: Https,
    /// `None`: no Strict-Transport-Security is sent.
    pub hsts: Option<Hsts>,
    /// `None`: any request.
    pub access: Option<Arc<Access>>,
    /// In the order of the file; each of them must let the request through.
    pub rate_limits: Vec<Arc<RateLimit>>,
    pub concurrency_limits: Vec<Arc<ConcurrencyLimit>>,
    /// `None`: as fast as the client takes it.
    pub bandwidth: Option<Bandwidth>,
    /// Indexes into [`super::Config::keys`]: one of them must have signed the URL. Empty: no signature is asked for.
    pub signed_url: Vec<usize>,
    /// Bytes of a request's body; the outer `None`: as `limits.body_size` says; the inner: unlimited.
    pub body_size: Option<Option<u64>>,
}

impl Guard {
    /// Whether it asks for something, or counts, where the other does not.
    pub fn asks_more_than(&self, other: &Guard) -> bool {
        let rates = |limit: &Arc<RateLimit>| other.rate_limits.iter().all(|known| known.name != limit.name);
        let places =
            |limit: &Arc<ConcurrencyLimit>| other.concurrency_limits.iter().all(|known| known.name != limit.name);
        (!self.signed_url.is_empty() && self.signed_url != other.signed_url)
            || (self.access.is_some() && self.access != other.access)
            || (self.https != Https::Optional && other.https == Https::Optional)
            || self.rate_limits.iter().any(rates)
            || self.concurrency_limits.iter().any(places)
    }
}

/// What becomes of a request that has not come by TLS (`https`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Https {
    /// `optional`: it is served.
    #[default]
    Optional,
    /// `redirect`: GET and HEAD get a 301 to the same URL with https, others a 308.
    Redirect,
    /// `required`: 403.
    Required,
}

/// Strict-Transport-Security (RFC 6797). Sent over TLS alone. `hsts: on` is a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    /// In whole seconds.
    pub max_age: Duration,
    pub include_subdomains: bool,
    pub preload: bool,
}

/// Which requests are let in (`access`). What is denied is denied, whatever is allowed; where something of a kind is
/// allowed, all else of that kind is not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Addresses, by networks and watched files of networks.
    pub allow: Vec<Networks>,
    pub deny: Vec<Networks>,
    /// ISO 3166-1 alpha-2, upper case. An address of which nothing is known is in none.
    pub allow_countries: Vec<[u8; 2]>,
    pub deny_countries: Vec<[u8; 2]>,
    /// Numbers of autonomous systems.
    pub allow_asns: Vec<u32>,
    pub deny_asns: Vec<u32>,
    /// Upper case; empty: any. Where there is GET, there is HEAD. Else 405 with Allow.
    pub methods: Vec<String>,
    /// All of them must hold (field names in lower case).
    pub headers: Vec<(String, ValueMatch)>,
    pub deny_paths: Vec<PathPattern>,
    /// Lower case; `*` is any run of characters. Compared with the lower-cased User-Agent; none is the empty one.
    pub deny_user_agents: Vec<String>,
    /// Hotlink protection: the hosts that a Referer may name. `None`: any.
    pub referers: Option<Referers>,
    /// Names in the client's certificate (see [`super::ClientAuth`]), one of which must be there; empty: any client. `*` at
    /// the begin stands for any.
    pub identities: Vec<String>,
    /// What the client gets: 403 (the default), 404, 410, 429, 451 or 503 …; the methods' is 405 whatever it says.
    pub status: StatusCode,
}

/// Networks, or a file of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Networks {
    /// Those that stand in the configuration itself.
    These(Vec<IpNet>),
    /// `file:PATH`: an address or network a line, `#` begins a comment. Read again when it changes; a file that is wrong
    /// changes nothing.
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referers {
    pub hosts: Vec<HostPattern>,
    /// `none` is in the list: a request without a Referer (or with one that is no URL) is let in.
    pub none: bool,
}

/// Databases in MaxMind's format (`geo`). Read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Geo {
    /// Has `country.iso_code` (or `registered_country`).
    pub country: Option<PathBuf>,
    /// Has `autonomous_system_number`.
    pub asn: Option<PathBuf>,
    /// The request field that tells the origin; what a client says in it is dropped. Lower case.
    pub country_header: Option<String>,
    pub asn_header: Option<String>,
}

/// A rate limit, by the generic cell rate algorithm.
#[derive(Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// `SITE`, `SITE/ROUTE` (with `#2` for the second of a list, and so on) or what `name` says: for the log, the metrics and
    /// RateLimit-Policy. Limits of the same name share what has been counted, as those do that a route has from its site:
    /// they have the same key, rate and burst. No control characters, but not ASCII alone.
    pub name: Arc<str>,
    /// The parts of the key that requests are counted by; not empty.
    pub key: Vec<KeyPart>,
    /// Requests in `per`, at least 1.
    pub requests: u32,
    /// From a millisecond to 366 days; no more than 10,000,000 requests a second.
    pub per: Duration,
    /// Requests that may come at once beyond the rate; at least 1: the size of the bucket. It is full again within 366 days.
    pub burst: u32,
    pub action: OverRate,
    /// RateLimit and RateLimit-Policy on every response, rather than on the rejections alone (`announce`).
    pub announce: bool,
}

/// What becomes of a request beyond its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverRate {
    /// 429 with Retry-After.
    Reject,
    /// It waits for its turn, if that comes within so long; else 429.
    Delay(Duration),
    /// It is logged and counted, and goes on.
    Log,
}

/// A part of the key of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// `client-ip`: an IPv4 address, or the /64 of an IPv6 address.
    ClientIp,
    /// `header:NAME`, lower case; a request without it has the empty value.
    Header(String),
    /// `cookie:NAME`.
    Cookie(String),
    /// `path`, in normal form.
    Path,
    /// `host`.
    Host,
    /// `token-id`: which signed token the request has; the URL must be signed.
    TokenId,
    /// `country`, by `geo.country`.
    Country,
    /// `asn`, by `geo.asn`.
    Asn,
    /// `identity`: the first name in the client's certificate.
    Identity,
    /// `all`: one count for all requests.
    All,
}

/// How many requests of one key may be in flight.
#[derive(Debug, PartialEq, Eq)]
pub struct ConcurrencyLimit {
    /// As [`RateLimit::name`].
    pub name: Arc<str>,
    pub key: Vec<KeyPart>,
    /// At least 1.
    pub requests: u32,
    /// 429 (the default) or 503, each with Retry-After.
    pub status: StatusCode,
}

/// How fast a response may leave, for each response by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bytes a second, at least 1024.
    pub rate: u64,
    /// Bytes of the body that leave at full speed first.
    pub after: u64,
}

/// A key of `keys`: how URLs are signed, and by what.
#[derive(Debug, PartialEq, Eq)]
pub struct UrlKey {
    pub name: Arc<str>,
    pub format: UrlFormat,
    /// What a URL whose time is over gets: 403 or 410.
    pub expired: StatusCode,
    /// How far the signer's clock may be from this one.
    pub skew: Duration,
}

/// The formats of signed URLs. Where there are several secrets, the first signs and all verify. No list of secrets or keys
/// is empty.
#[derive(Debug, PartialEq, Eq)]
pub enum UrlFormat {
    /// `foreland`: our own.
    Foreland {
        secrets: Vec<Secret>,
        /// The query parameter that has the token (`parameter`, default `token`); the cookie of that name has it too, and a
        /// path may begin with it: `/token=…/video/a.m3u8`.
        parameter: String,
    },
    /// `secure-link`: nginx's `secure_link_md5`.
    SecureLink {
        secrets: Vec<Secret>,
        /// nginx's expression, where `$secret` stands for the secret: `$secure_link_expires$uri$remote_addr $secret`.
        /// Variables: $secure_link_expires, $uri, $host, $scheme, $remote_addr, $arg_NAME, $http_NAME, $cookie_NAME,
        /// $secret, which is always there. Without $secure_link_expires, URLs have no time and never expire.
        expression: Vec<Piece>,
        /// The query parameters: `md5` and `expires` unless said otherwise.
        md5_parameter: String,
        expires_parameter: String,
    },
    /// `akamai`: EdgeAuth token 2.0.
    Akamai {
        /// The key's bytes: what the file has in hex.
        secrets: Vec<Secret>,
        /// The query parameter, cookie or request field with the token: `hdnts` unless said otherwise.
        parameter: String,
        algorithm: AkamaiAlgorithm,
        /// Appended to what is signed.
        salt: Option<Secret>,
        /// Between the fields: `~`.
        field_delimiter: char,
        /// Between the patterns of an ACL: `!`.
        acl_delimiter: char,
        /// The path is escaped before it is signed (`escape_early` of Akamai's generators).
        escape_early: bool,
    },
    /// `cloudflare`: what `is_timed_hmac_valid_v0` checks.
    Cloudflare {
        secrets: Vec<Secret>,
        /// The query parameter: `verify` unless said otherwise. It must be the last.
        parameter: String,
        /// How long a token is valid from its timestamp on.
        lifetime: Duration,
    },
    /// `cloudfront`: AWS CloudFront, canned and custom policies, in the query or in cookies.
    CloudFront {
        /// By key pair id: RSA or ECDSA P-256.
        keys: Vec<PublicKey>,
    },
    /// `jwt`: URI signing for CDNs (RFC 9246).
    Jwt {
        /// HS256, HS384, HS512.
        secrets: Vec<Secret>,
        /// ES256, ES384, RS256 …, by `kid`.
        keys: Vec<PublicKey>,
        /// The query parameter or cookie: `URISigningPackage` unless said otherwise.
        parameter: String,
        /// If given, `iss` must be one of these, and `aud` must name this.
        issuers: Vec<String>,
        audience: Option<String>,
    },
}

/// A piece of nginx's expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Secret,
    Expires,
    Uri,
    Host,
    Scheme,
    RemoteAddress,
    /// A query parameter, as it was sent.
    Argument(String),
    /// A request field, lower case with hyphens.
    Header(String),
    Cookie(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AkamaiAlgorithm {
    Sha256,
    Sha1,
    Md5,
}

/// A public key from a PEM file (SubjectPublicKeyInfo).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Its name in the tokens.
    pub id: String,
    pub path: PathBuf,
    pub kind: PublicKeyKind,
    /// For RSA the DER of SubjectPublicKeyInfo, for a curve the uncompressed point.
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKeyKind {
    /// 2048 to 8192 bits.
    Rsa,
    P256,
    P384,
}

/// What of the client a route can be chosen by, beside the request itself. Objects of such a route have its name in their
/// key: others of the same URL are answered from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientMatcher {
    pub networks: Vec<IpNet>,
    pub countries: Vec<[u8; 2]>,
    pub asns: Vec<u32>,
    /// As [`Access::identities`].
    pub identities: Vec<String>,
    /// `https` or `http`.
    pub secure: Option<bool>,
}

/// Whether a name in a client's certificate is as [`Access::identities`] has it. Case counts, as in URIs and e-mail addresses.
pub fn identity_matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => name.len() > end.len() && name.ends_with(end),
        None => name == pattern,
    }
}

/// The part of an IPv6 address that one client has.
pub const CLIENT_PREFIX: u8 = 64;

/// The address that limits count by: IPv4 whole, IPv6 by [`CLIENT_PREFIX`] bits.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6) >> (128 - u32::from(CLIENT_PREFIX)) << (128 - u32::from(CLIENT_PREFIX));
            IpAddr::V6(bits.into())
        }
    }
}
