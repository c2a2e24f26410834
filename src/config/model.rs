//! The checked configuration: no invalid state can exist here, so nothing downstream checks again.
//!
//! Built only by [`super::load`]. Everything is resolved: defaults filled in, references turned into indexes,
//! secrets read, relative paths made absolute.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::pattern::PathPattern;
use super::places::Places;
use crate::http_cache::Policy;

mod guard;
mod listener;
mod origin;

pub use guard::*;
pub use listener::*;
pub use origin::*;

/// The whole of one file, checked.
#[derive(Debug)]
pub struct Config {
    /// The file that it came from; `None` for the built-in demo.
    pub source: Option<PathBuf>,
    /// First 16 hex digits of the SHA-256 of the file's text: tells two loads apart.
    pub hash: String,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Longest wait for requests in flight at TERM or upgrade.
    pub drain: Duration,
    pub pid_file: Option<PathBuf>,
    pub upgrade_socket: Option<PathBuf>,
    /// Peers whose X-Forwarded-* and Forwarded are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// At least one.
    pub listeners: Vec<Listener>,
    pub admin: Option<Admin>,
    pub access_log: Option<AccessLog>,
    pub memory: MemoryTier,
    /// The disk tier. Empty: there is none. No two have the same path, and none lies inside another.
    pub disks: Vec<DiskTier>,
    /// Refreshes of stale objects that may run in the background at once, over the process; at least 1.
    pub background_fetches: usize,
    pub limits: Limits,
    pub overload: Overload,
    pub geo: Geo,
    pub session_ticket_secrets: TicketSecrets,
    /// What signs and verifies URLs.
    pub keys: Vec<UrlKey>,
    pub origins: Vec<Arc<Origin>>,
    pub sites: Vec<Site>,
    /// Non-fatal remarks of the checks (an unused origin, …), each with its place, ready to print.
    pub warnings: Vec<String>,
    /// Where in the file the origins, the sites, their routes and their settings stand.
    pub places: Places,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Admin {
    pub address: AdminAddress,
    /// The token that may do everything and has no name. Without it and without `tokens`, which there is only where the
    /// address is loopback or a Unix socket, no token is asked for.
    pub token: Option<Secret>,
    /// No two have the same name, and no two tokens at all the same secret.
    pub tokens: Vec<AdminToken>,
    /// `None`: plain. Never with a Unix socket.
    pub tls: Option<AdminTls>,
    /// Only where `tls` has a `client_ca`. No two have the same identity.
    pub clients: Vec<AdminClient>,
}

/// A token of the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken {
    /// How the log calls whoever has it.
    pub name: String,
    pub secret: Secret,
    pub role: Role,
}

/// What a token of the admin API may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Purge, and read the ledger.
    Purge,
    /// Every GET.
    Read,
    All,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Purge, Role::Read, Role::All];

    /// The word in the configuration, and in the admin API's description.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Purge => "purge",
            Role::Read => "read",
            Role::All => "all",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A secret's bytes, never printed, and the reference that they were read by (`env:NAME`, `file:/absolute/path`).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>, pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret(… from {})", self.1)
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("address", &self.address)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("tokens", &self.tokens)
            .field("tls", &self.tls)
            .field("clients", &self.clients)
            .finish()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    pub path: LogPath,
    pub format: LogFormat,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPath {
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Combined,
}

/// The memory tier's bounds, in bytes. `max_object` never exceeds `size`. Both are 0 where the tier is off, as it can be
/// only beside a disk; else both are at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryTier {
    pub size: u64,
    pub max_object: u64,
}

/// A disk of the disk tier. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskTier {
    /// The folder, which may not exist yet.
    pub path: PathBuf,
    /// All that may be taken there, metadata and temporary files included; at least 1 MiB.
    pub size: u64,
    /// The largest response that is kept: from 1 to `size`.
    pub max_object: u64,
    /// How many responses are kept, at least 1; `None`: no limit.
    pub max_objects: Option<u64>,
    /// What the disk's responses leave free on the file system.
    pub min_free: u64,
}

/// What a client may send, and how slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Header fields in a request.
    pub header_count: usize,
    /// Bytes of a request's header section, request line included.
    pub header_size: usize,
    /// Bytes of a request's target.
    pub uri_length: usize,
    /// Bytes of a request's body; `None`: unlimited.
    pub body_size: Option<u64>,
    /// A keepalive connection without a request.
    pub idle_timeout: Duration,
    /// From the first byte of a request to the end of its header section.
    pub header_timeout: Duration,
    /// Between two reads of a request's body.
    pub body_timeout: Duration,
    /// A write to the client that makes no progress.
    pub write_timeout: Duration,
    /// Client connections at once, over all listeners.
    pub connections: usize,
    /// The same from one address ([`client_network`]); trusted proxies and peers of the PROXY protocol are not counted by
    /// their own. `None`: no such limit.
    pub connections_per_address: Option<usize>,
    /// Bytes a second that the body of a request must come with, over each `body_timeout`; `None`: any.
    pub body_min_rate: Option<u64>,
    /// Bytes a second that a client must take of a response, over each `write_timeout`; `None`: any.
    pub send_min_rate: Option<u64>,
    pub http2: Http2Limits,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Site {
    /// How this site is called in logs and metrics: its `name`, else its first host.
    pub name: Arc<str>,
    pub hosts: Vec<HostPattern>,
    /// What governs a request that no route matches.
    pub policy: Arc<RequestPolicy>,
    /// `None`: PURGE is a method like any other.
    pub purge: Option<PurgeMethod>,
    /// First match wins.
    pub routes: Vec<Route>,
}

impl Site {
    /// The site's own policy, then its routes'.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<RequestPolicy>> {
        std::iter::once(&self.policy).chain(self.routes.iter().map(|route| &route.policy))
    }
}

impl Config {
    /// Those of all sites, in the order of their guards' ids.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<RequestPolicy>> {
        self.sites.iter().flat_map(Site::policies)
    }
}

/// Who may purge by the method PURGE. `from` and `token` are not both `None`; where there are both, both must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeMethod {
    /// The networks of the clients; not empty.
    pub from: Option<Vec<IpNet>>,
    pub token: Option<Secret>,
    /// What is purged is stale, rather than gone, whatever the request says.
    pub soft: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Normalised: lower case, no port.
    Exact(String),
    /// `*.example.com` as `.example.com`: any name below, not the name itself.
    Wildcard(String),
    Any,
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Wildcard(suffix) => write!(f, "*{suffix}"),
            HostPattern::Any => f.write_str("*"),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// How this route is called in logs, metrics and explanations: its `name`, else `routes[N]`.
    pub name: Arc<str>,
    pub matcher: Matcher,
    /// The site's settings, refined by this route's.
    pub policy: Arc<RequestPolicy>,
}

/// All that governs a request once its site and route are known.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestPolicy {
    /// Index into [`Config::origins`].
    pub origin: usize,
    /// `None`: the cache is off.
    pub cache: Option<Policy>,
    /// The default where the cache is off.
    pub key: KeyPolicy,
    pub guard: Guard,
}

/// Every condition that is present must hold; in a list, one of its members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    pub path: Vec<PathPattern>,
    /// Lower case, without the dot.
    pub extensions: Vec<String>,
    /// Upper case.
    pub methods: Vec<String>,
    /// Field names in lower case.
    pub headers: Vec<(String, ValueMatch)>,
    pub query: Vec<(String, ValueMatch)>,
    pub client: ClientMatcher,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    Present,
    Absent,
    Equals(String),
}

/// What beside host and path distinguishes two cached resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPolicy {
    pub query: QueryKey,
    /// Order of the parameters does not matter.
    pub sort: bool,
    /// Request fields that are part of the key: lower case, sorted.
    pub headers: Vec<String>,
    /// Cookies that are part of the key: sorted.
    pub cookies: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueryKey {
    #[default]
    All,
    None,
    /// Only these parameters.
    Only(Vec<String>),
    /// All but these; a trailing `*` matches any rest.
    Ignore(Vec<String>),
}
