//! The keys of origins.

use std::time::Duration;

use crate::config::decode::{Int, List, Map, OneOrMany, options};
use crate::config::model::{HostHeader, ProxyProtocol, ServerAddress, TlsVersion};
use crate::config::words::*;

options! {
    /// An origin: a pool of servers that answer alike.
    pub struct Origin {
        /// The servers: each as `address:port`, `[IPv6]:port`, `name:port`, `srv:NAME` or `unix:PATH`, or a mapping with a
        /// weight and a tier; at most 1000. This or `servers_file` is needed.
        servers: List<ServerEntry> = Absent("those of `servers_file` alone");
        /// A file with further servers: a YAML or JSON list of what `servers` takes, at most 1000 of them and 1 MiB. It is
        /// read at start and whenever it changes; a file with mistakes changes nothing.
        servers_file: FilePath = Absent("no further servers");
        /// How a server is chosen, always by weight: `round-robin` (in turn), `random`, `least-requests` (fewest requests
        /// in flight), `least-latency` (expected to answer first), `ip-hash` (by the client's address), `consistent-hash`
        /// (by the cache key) or `failover` (the first that can, in the order of the list); or a mapping with details.
        balance: BalanceChoice = Default("round-robin");
        /// Clients stay with the server that they were sent to first, whatever `balance` says, for as long as it can take
        /// requests.
        sticky: Sticky = Absent("clients stay with no server");
        /// How long the share of a server that returns, or is new, takes to grow to its whole.
        slow_start: Duration = Default("0s");
        /// How servers are probed. An empty mapping probes with the defaults.
        health_check: HealthCheck = Absent("no probes: every server counts as healthy");
        /// How servers are judged by the requests that they get: one that fails is ejected, which means that it gets none
        /// for a while. `off`: none is.
        outliers: OffOr<Outliers> = Default("{}");
        /// Where less than this share of a tier's servers can be used (they are unhealthy or ejected), and no other tier
        /// has any, all of them are used: 0% to 100%. `0%`: never.
        panic_below: Percent<0, 100> = Default("10%");
        /// The Host that servers see: `client` (what the client asks for, in lower case), `server` (the server's own name
        /// and port) or a name.
        host: HostHeader = Default("client");
        /// TLS towards the servers: `off`, `on` (certificates are verified by the system's authorities) or settings.
        tls: Choice<OriginTls> = Default("off");
        /// The version of HTTP that servers are spoken to: `1`, `2` (over TLS by ALPN, without TLS with prior knowledge) or
        /// `auto` (over TLS what the server chooses, without TLS HTTP/1.1).
        http: HttpVersion = Default("auto");
        /// Requests at once on one connection of HTTP/2. A server may allow fewer.
        streams: Int<1, 1000> = Default("100");
        /// The PROXY protocol's header, which tells servers the client's address at the start of each connection: `v1` or
        /// `v2`.
        proxy_protocol: ProxyProtocol = Absent("none is sent");
        /// For a connection to be made, TLS included.
        connect_timeout: Timeout = Default("2s");
        /// Between two reads of a response.
        read_timeout: Timeout = Default("30s");
        /// For a write of the request that makes no progress.
        write_timeout: Timeout = Default("30s");
        /// For one try: from the choice of a server to the end of the response's header section. No longer than `timeout`.
        try_timeout: Timeout = Absent("no such limit");
        /// For all tries of a request together, to the end of the response's header section.
        timeout: Timeout = Absent("no such limit");
        /// How long an unused connection is kept.
        idle_timeout: Timeout = Default("60s");
        /// Unused connections that are kept to each server.
        keepalive: Int<0, 100_000> = Default("64");
        /// Further tries on other servers while nothing has been sent to the client.
        retries: Int<0, 16> = Default("2");
        /// What is tried again, and how much of that there may be.
        retry: Retry = Default("{}");
        /// What each server takes at once.
        limits: ServerLimits = Default("{}");
        /// A request that gets no answer is sent to a second server too; the first answer wins.
        hedge: Hedge = Absent("no request is sent to two servers");
    }

    /// A server.
    pub struct Server {
        /// `address:port`, `[IPv6]:port`, `name:port`, `srv:NAME` or `unix:PATH`. A name is resolved again and again.
        /// `srv:NAME` stands for the servers that the name's SRV records (RFC 2782) list, with the records' weights, and
        /// their priorities as tiers.
        address: ServerAddress = Required;
        /// Its share of requests beside the others'; 0 takes none.
        weight: Int<0, 256> = Default("1");
        /// The servers of a higher tier take requests only where those of all lower ones cannot.
        tier: Int<0, 15> = Absent("`0`");
        /// `true` is short for `tier: 1`.
        backup: bool = Absent("`false`");
    }

    /// How a server is chosen, in detail.
    pub struct Balance {
        /// One of the words that `balance` takes.
        by: BalanceBy = Required;
        /// For `least-requests`: how many servers are drawn at random, of which the one with the fewest requests is taken.
        choices: Int<2, 16> = Absent("all are compared");
        /// For `consistent-hash`, what is hashed: `cache-key` (what the response is stored by), `path` (host and path,
        /// without the query), `client-ip`, `{header: NAME}` or `{cookie: NAME}`. Requests without it are spread.
        key: HashChoice = Absent("`cache-key`");
        /// For `consistent-hash`: no server has more requests in flight than this share of the average, from 101% to
        /// 1000%; what is beyond goes to the next one. `off`: no such bound.
        bound: OrOff<Percent<101, 1000>> = Absent("`125%`");
    }

    /// What is hashed: one of the two keys.
    pub struct HashSource {
        /// A request field.
        header: FieldName = Absent("—");
        /// A cookie.
        cookie: CookieName = Absent("—");
    }

    /// Sticky sessions: a signed cookie says which server a client was sent to.
    pub struct Sticky {
        /// The cookie's name.
        cookie: CookieName = Default("foreland_server");
        /// What the cookie is signed with, by reference: `env:NAME` or `file:PATH`. All edges of a site have the same.
        secret: SecretRef = Required;
        /// How long a client stays; at least a second.
        ttl: StickyTtl = Absent("as long as the browser runs");
    }

    /// Health probes: a connection, a request (`path`) or a gRPC call (`grpc`).
    pub struct HealthCheck {
        /// The path of a request that must be answered well.
        path: ProbePath = Absent("a connection is enough");
        /// The method of that request: `GET`, `HEAD`, `OPTIONS` or `POST`, without a body.
        method: ProbeMethod = Absent("`GET`");
        /// The Host of that request.
        host: ProbeHost = Absent("the server's own name and port");
        /// Further fields of that request.
        headers: Map<ProbeField, ProbeValue> = Absent("none");
        /// Which statuses are good: a status, a range such as `200-299`, or a list of them.
        expect_status: OneOrMany<Statuses<200>> = Absent("`200-299`");
        /// A text that the answer's body must contain, within its first 64 KiB.
        expect_body: ProbeBody = Absent("any body");
        /// The service that must be SERVING by grpc.health.v1; `""` is the server as a whole. Not beside `path`.
        grpc: GrpcService = Absent("no gRPC call");
        /// Whether probes speak TLS, where the origin has `tls`.
        tls: OnOff = Absent("as the origin");
        /// Between two probes.
        interval: Timeout = Default("2s");
        /// The same while the server is unhealthy.
        interval_down: Timeout = Absent("as `interval`");
        /// For one probe; no longer than the intervals.
        timeout: Timeout = Default("1s");
        /// How much longer or shorter an interval is, at random: 0% to 50%.
        jitter: Percent<0, 50> = Default("10%");
        /// Successes in a row that make a server healthy.
        healthy_after: Int<1, 100> = Default("2");
        /// Failures in a row that make a server unhealthy.
        unhealthy_after: Int<1, 100> = Default("2");
    }

    /// Outlier detection, which ejects servers by what their answers are like. A failure is an answer that does not come, or
    /// one with a status of `failure_statuses`.
    pub struct Outliers {
        /// Failures in a row that eject a server, or `off`.
        consecutive_failures: OrOff<Int<1, 1000>> = Default("5");
        /// The share of failures within `window` that ejects a server, from 1% to 100%, or `off`.
        failure_rate: OrOff<Percent<1, 100>> = Default("off");
        /// A server is ejected whose mean latency within `window` is above this, and above twice the median of the others;
        /// or `off`.
        latency: OrOff<Timeout> = Default("off");
        /// Requests within `window` below which neither `failure_rate` nor `latency` is looked at.
        min_requests: Int<1, 1_000_000> = Default("20");
        /// What `failure_rate` and `latency` look back on, from 1s to 10m.
        window: OutlierWindow = Default("10s");
        /// Statuses that are failures: a status, a range, or a list of them.
        failure_statuses: OneOrMany<Statuses<400>, 0> = Default("[502-504]");
        /// How long a server is ejected the first time; each further time, twice as long.
        ejection_time: Timeout = Default("10s");
        /// The longest that a server is ejected; no less than `ejection_time`.
        max_ejection_time: Timeout = Default("5m");
        /// The share of the servers that may be ejected at once: 0% to 100%.
        max_ejected: Percent<0, 100> = Default("50%");
    }

    /// TLS towards servers.
    pub struct OriginTls {
        /// Whether certificates are verified. Without that, whoever stands between can read and change everything.
        verify: bool = Default("true");
        /// A PEM file with the authorities that are trusted instead of the system's.
        ca: FilePath = Absent("the system's authorities");
        /// The name that is asked for and verified.
        sni: ServerNameWord = Absent("the name in `host`, else the server's own name or address");
        /// A PEM file with the certificate, and its chain, that is shown to servers. Beside `key`.
        certificate: FilePath = Absent("none is shown");
        /// A PEM file with the certificate's private key. Beside `certificate`.
        key: FilePath = Absent("none");
        /// The lowest version of TLS: `"1.2"` or `"1.3"`.
        min_version: TlsVersion = Absent("`\"1.2\"`");
    }

    /// What is tried again. Only requests that may be sent twice are, or those of which nothing has been sent; a connection
    /// that cannot be made always is.
    pub struct Retry {
        /// `reset` (a connection that ends before the response's first byte), `timeout` (a try that takes too long before
        /// it), statuses from 400 on, or ranges of them.
        on: OneOrMany<RetryCause, 0> = Default("[reset]");
        /// How many retries and hedged requests there may be, as a share of the requests of the last ten seconds: 0% to
        /// 1000%.
        budget: Percent<0, 1000> = Default("20%");
        /// So many a second may always be.
        floor: Int<0, 100_000> = Default("10");
    }

    /// What each server of an origin takes at once.
    pub struct ServerLimits {
        /// Requests in flight on each server.
        requests: Int<1, 1_000_000> = Absent("no limit");
        /// Requests that may wait for a server while all have as many as they may; beyond, they are refused at once.
        pending: Int<0, 100_000> = Default("0");
        /// How long they wait.
        pending_timeout: Timeout = Default("1s");
    }

    /// Hedging.
    pub struct Hedge {
        /// How long the first server has before a second one is asked.
        after: Timeout = Required;
    }
}
