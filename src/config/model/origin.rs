//! Origins: pools of servers that answer alike, and how they are treated.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Secret;

/// A pool of servers that answer alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub name: String,
    /// No two with the same address. At least one with a weight above 0, unless there is a `servers_file`.
    pub servers: Vec<Server>,
    /// Further servers: a YAML or JSON list that is watched for changes.
    pub servers_file: Option<PathBuf>,
    pub balance: Balance,
    /// Clients stay with the server that they were sent to first.
    pub sticky: Option<Sticky>,
    /// How long the share of a server that returns takes to grow to its whole; zero: it has it at once.
    pub slow_start: Duration,
    pub health_check: Option<HealthCheck>,
    /// How servers are judged by the requests that they get; `None`: they are not.
    pub outliers: Option<Outliers>,
    /// Where a smaller share (in percent, 0 to 100) of a tier's servers is healthy than this, and no other tier has more,
    /// all of them are used.
    pub panic_below: u8,
    /// What the servers see as Host.
    pub host: HostHeader,
    /// `None`: plain.
    pub tls: Option<OriginTls>,
    pub http: OriginHttp,
    /// The header that tells servers who the client is, before anything else on a connection.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// For a connection to be made, TLS included.
    pub connect_timeout: Duration,
    /// Between two reads of a response.
    pub read_timeout: Duration,
    /// For a write of the request that makes no progress.
    pub write_timeout: Duration,
    /// From the choice of a server to the end of the response's header section; `None`: no such limit.
    pub try_timeout: Option<Duration>,
    /// The same over all tries of a request; `None`: no such limit.
    pub timeout: Option<Duration>,
    /// How long an unused connection to a server is kept.
    pub idle_timeout: Duration,
    /// Unused connections that are kept to each server; 0: none.
    pub keepalive: usize,
    /// Requests at once on one connection of HTTP/2, at least 1. A server may allow fewer.
    pub streams: usize,
    /// Further tries on other servers after a failure.
    pub retries: usize,
    pub retry: Retry,
    pub limits: ServerLimits,
    /// `None`: a request is never sent to two servers at once.
    pub hedge: Option<Hedge>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub address: ServerAddress,
    /// 0 to 256; 0 takes no new requests.
    pub weight: usize,
    /// The servers of a higher tier take requests only where those of all lower ones cannot.
    pub tier: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    Socket(SocketAddr),
    /// A name to be resolved, again and again.
    Name {
        host: String,
        port: u16,
    },
    /// A name with SRV records (RFC 2782): they say hosts, ports, weights and tiers.
    Srv(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ServerAddress::Socket(address) => address.fmt(f),
            ServerAddress::Name { host, port } => write!(f, "{host}:{port}"),
            ServerAddress::Srv(name) => write!(f, "srv:{name}"),
            ServerAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a server is chosen. Everything is by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In turn, smoothly.
    RoundRobin,
    Random,
    /// The one with the fewest requests in flight: of all, or of as many (at least 2) as are drawn at random.
    LeastRequests {
        choices: Option<usize>,
    },
    /// The one that is expected to answer first: by a moving average of its latency that follows peaks at once, and
    /// the requests in flight (peak EWMA).
    LeastLatency,
    /// By the client's address.
    IpHash,
    /// By a hash of something, on a ring; `bound` in percent (above 100): no server takes more than that of the average
    /// of requests in flight. `None`: it may.
    ConsistentHash {
        key: HashKey,
        bound: Option<u32>,
    },
    /// The first that can, in the order of the list.
    Failover,
}

impl Balance {
    /// The bound of a consistent hash where a file says nothing, in percent.
    pub const BOUND: u32 = 125;
}

/// What chooses a server by its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// What the response is stored by; the host and the target where the cache has no part in a request.
    CacheKey,
    /// Host and path, without the query.
    Path,
    ClientIp,
    /// A request field, in lower case. Requests without it are spread.
    Header(String),
    Cookie(String),
}

/// A signed cookie says which server a client has been sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    pub cookie: String,
    /// What the cookie is signed with.
    pub secret: Secret,
    /// How long a client stays; `None`: as long as its browser runs.
    pub ttl: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub kind: HealthCheckKind,
    /// Whether TLS is spoken, where the origin's servers speak it.
    pub tls: bool,
    pub interval: Duration,
    /// The same while the server is unhealthy.
    pub interval_down: Duration,
    pub timeout: Duration,
    /// Percent (0 to 100) that an interval is longer or shorter, at random.
    pub jitter: u8,
    /// Successes in a row that make a server healthy, at least 1.
    pub healthy_after: usize,
    /// Failures in a row that make a server unhealthy, at least 1.
    pub unhealthy_after: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheckKind {
    /// The connection is accepted (and the TLS handshake made, where TLS is spoken).
    Tcp,
    Http(HttpProbe),
    /// grpc.health.v1: the service (empty: the server as a whole) is SERVING.
    Grpc {
        service: String,
    },
}

/// A request and what its answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    pub method: String,
    pub path: String,
    /// `None`: the server's own name and port.
    pub host: Option<String>,
    /// Further fields.
    pub headers: Vec<(String, String)>,
    /// Ranges of statuses that are good, both ends included; at least one.
    pub expect_status: Vec<(u16, u16)>,
    /// What the body must contain, within its first 64 KiB.
    pub expect_body: Option<String>,
}

/// How servers are judged by the requests that they get (passive health checks).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outliers {
    /// Failures in a row that eject a server; `None`: any number is borne.
    pub consecutive_failures: Option<u32>,
    /// Percent (1 to 100) of failures within `window` that eject a server.
    pub failure_rate: Option<u8>,
    /// Requests within `window` below which neither `failure_rate` nor `latency` is looked at, at least 1.
    pub min_requests: u32,
    /// A server is ejected whose mean latency within `window` is above this, and above twice the median of the others.
    pub latency: Option<Duration>,
    pub window: Duration,
    /// Statuses that count as failures, beside answers that do not come.
    pub failure_statuses: Vec<(u16, u16)>,
    /// The first ejection; each further one is twice as long, and each time as long without one makes it shorter again.
    pub ejection_time: Duration,
    pub max_ejection_time: Duration,
    /// Percent (0 to 100) of the pool's servers that may be ejected at once; of more than one server at least one may,
    /// unless it is 0.
    pub max_ejected: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// As the client sent it.
    Client,
    /// The server's own name and port.
    Server,
    Fixed(String),
}

/// TLS towards servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginTls {
    /// Whether certificates are verified.
    pub verify: bool,
    /// The authorities that are trusted instead of the system's.
    pub ca: Option<Pem>,
    /// The name that is asked for and verified; `None`: the fixed `host`, else the server's own name or address.
    pub sni: Option<String>,
    /// The certificate (with its chain) and the private key that clients of the server must show.
    pub certificate: Option<(Pem, PrivatePem)>,
    pub min_version: TlsVersion,
}

/// The certificates of a PEM file, in DER; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem {
    pub path: PathBuf,
    pub certificates: Arc<[Vec<u8>]>,
}

/// A private key's PEM file.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivatePem {
    pub path: PathBuf,
    /// The file's text: one private key, which has been parsed.
    pub text: Arc<[u8]>,
}

impl std::fmt::Debug for PrivatePem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivatePem({})", self.path.display())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// The version of HTTP that is spoken to servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OriginHttp {
    Http1,
    /// Over TLS by ALPN, which must lead to it; without TLS with prior knowledge.
    Http2,
    /// Over TLS what ALPN leads to; without TLS HTTP/1.1.
    Auto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    V1,
    V2,
}

/// What is tried again, and how often at most. Only requests that may be sent twice (RFC 9110 §9.2.2) whose body is at
/// hand are, unless nothing of them has been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// A connection that ends before the response's first byte.
    pub on_reset: bool,
    /// A try that takes longer than it may, before the response's first byte.
    pub on_timeout: bool,
    /// Statuses, in ranges with both ends included.
    pub on_statuses: Vec<(u16, u16)>,
    /// Retries and hedged requests, in percent of the requests of the last ten seconds ...
    pub budget: u32,
    /// ... and so many a second besides.
    pub budget_floor: u32,
}

/// Where a server has as much as it can take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Requests in flight on each server, at least 1; `None`: no limit.
    pub requests: Option<usize>,
    /// Requests that may wait for a server while all have as much as they may; beyond, they are refused at once.
    pub pending: usize,
    /// How long they wait.
    pub pending_timeout: Duration,
}

/// A request without an answer is sent to a second server too; the first answer wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// How long the first server has.
    pub after: Duration,
}

#[cfg(test)]
impl Origin {
    /// An origin as a file without further settings has it, for tests.
    pub fn plain(name: &str, servers: Vec<Server>) -> Origin {
        Origin {
            name: name.to_owned(),
            servers,
            servers_file: None,
            balance: Balance::RoundRobin,
            sticky: None,
            slow_start: Duration::ZERO,
            health_check: None,
            outliers: None,
            panic_below: 0,
            host: HostHeader::Client,
            tls: None,
            http: OriginHttp::Auto,
            proxy_protocol: None,
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(2),
            write_timeout: Duration::from_secs(3),
            try_timeout: None,
            timeout: None,
            idle_timeout: Duration::from_secs(4),
            keepalive: 64,
            streams: 100,
            retries: 2,
            retry: Retry::usual(),
            limits: ServerLimits { requests: None, pending: 0, pending_timeout: Duration::from_secs(1) },
            hedge: None,
        }
    }
}

#[cfg(test)]
impl HealthCheck {
    /// A connection each second, for tests.
    pub fn tcp() -> HealthCheck {
        HealthCheck {
            kind: HealthCheckKind::Tcp,
            tls: true,
            interval: Duration::from_secs(1),
            interval_down: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            jitter: 10,
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }
}

#[cfg(test)]
impl HttpProbe {
    /// A GET that must be answered 200-299, for tests.
    pub fn get(path: &str) -> HttpProbe {
        HttpProbe {
            method: "GET".to_owned(),
            path: path.to_owned(),
            host: None,
            headers: Vec::new(),
            expect_status: vec![(200, 299)],
            expect_body: None,
        }
    }
}

impl Retry {
    /// What holds where a file says nothing.
    pub fn usual() -> Retry {
        Retry { on_reset: true, on_timeout: false, on_statuses: Vec::new(), budget: 20, budget_floor: 10 }
    }
}
