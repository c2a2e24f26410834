//! What the YAML says: every key there is, once. Parsing, the reference page and the JSON Schema follow from here.

mod guard;
mod listener;
mod origin;

use std::time::Duration;

pub(super) use guard::*;
pub(super) use listener::*;
pub(super) use origin::*;

use super::decode::{Int, List, Map, OneOrMany, options};
use super::model::{HostPattern, Https, LogFormat};
use super::pattern::PathPattern;
use super::words::*;

/// Most of what a limit on header bytes may be: Pingora's own limit.
const HEADER_BYTES: u64 = 1_048_575;

/// A number that no process can have more open connections than.
const CONNECTIONS: u64 = 10_000_000;

/// The smallest disk: below, hardly anything would be kept.
const SMALLEST_DISK: u64 = 1 << 20;

/// A number that no disk holds more files than.
const OBJECTS: u64 = 1_000_000_000_000;

options! {
    /// The whole file.
    pub struct Root {
        /// Worker threads: `auto` (one for each core) or a number.
        threads: Threads = Default("auto");
        /// The longest wait for requests in flight at TERM or upgrade.
        drain: Duration = Default("30s");
        /// Where the process writes its number.
        pid_file: FilePath = Absent("none is written");
        /// The Unix socket over which a running process hands its listeners to the next one (`run --upgrade`).
        upgrade_socket: FilePath = Absent("no upgrade without a restart");
        /// Peers whose `X-Forwarded-*` and `Forwarded` fields are believed: addresses or networks.
        trusted_proxies: List<Network, 0> = Default("[]");
        /// Where clients are served.
        listeners: List<Listener> = Required;
        /// The admin API: metrics, health, purging, reload.
        admin: Admin = Absent("no admin API");
        /// One line for each request.
        access_log: OffOr<AccessLog> = Default("{}");
        /// Where responses are kept.
        cache: Tiers = Default("{}");
        /// What a client may send, and how slowly.
        limits: Limits = Default("{}");
        /// When some requests are turned away for the sake of the others.
        overload: Overload = Absent("none are");
        /// What session tickets are made with (the first) and read with (all): edges that have the same resume each other's
        /// TLS sessions, and sessions outlast a restart. Each by reference (`env:NAME` or `file:PATH`), at least 32 bytes. To
        /// change it, put the new one in front, and take the old one away a day later.
        session_ticket_secrets: List<SecretRef> = Absent("one of the process's own, which it hands on in an upgrade");
        /// Where clients are, by databases of addresses.
        geo: Geo = Absent("neither countries nor autonomous systems are known");
        /// Keys that sign and verify URLs, by name, for `signed_url`.
        keys: Map<KeyName, UrlKey> = Absent("none");
        /// Pools of servers, by name.
        origins: Map<OriginName, Origin> = Required;
        /// Which hosts are served, and how. A request goes to the site with the exact host, else to the one with the
        /// longest matching wildcard, else to the one with `*`, wherever they stand in the file.
        sites: List<Site> = Required;
    }

    /// The access log. `access_log: off` turns it off.
    pub struct AccessLog {
        /// `stdout` or a file; the file is reopened on USR1.
        path: LogTarget = Default("stdout");
        /// `json`, or `combined` as Apache and nginx write it.
        format: LogFormat = Default("json");
    }

    /// The cache's tiers.
    pub struct Tiers {
        /// The memory tier. `off`: there is none, and responses are kept on disk alone.
        memory: OffOr<Memory> = Default("{}");
        /// The disk tier: a disk, or a list of disks. Each response is kept on one of them, which its key chooses.
        disk: OneOrMany<Disk> = Absent("no disk tier");
        /// How many stale objects may be refreshed in the background at once (stale-while-revalidate), over the whole
        /// process. Beyond, what is stale is served without a refresh, which a later request brings.
        background_fetches: Int<1, 100_000> = Default("128");
    }

    /// The memory tier.
    pub struct Memory {
        /// All that it may take, metadata included.
        size: Size<1> = Default("512MiB");
        /// The largest response kept in memory.
        max_object: Size<1> = Default("1MiB");
    }

    /// A disk of the disk tier.
    pub struct Disk {
        /// The folder that responses are kept in, and nothing else. It is made at start if it is not there. No two disks
        /// have the same folder, or one inside the other's.
        path: FolderPath = Required;
        /// All that it may take, metadata and temporary files included: at least 1MiB.
        size: Size<SMALLEST_DISK> = Required;
        /// The largest response kept on this disk; no more than `size`.
        max_object: Size<1> = Absent("as `size`");
        /// How many responses it may hold.
        max_objects: Int<1, OBJECTS> = Absent("no limit");
        /// Space that this disk's responses leave free on the file system.
        min_free: Size<0> = Default("0B");
    }

    /// A site.
    pub struct Site {
        /// How logs and metrics call it.
        name: Label = Absent("its first host");
        /// Host names without ports: `www.example.com`, `*.example.com` (every name below it) or `*` (any).
        hosts: List<HostPattern> = Required;
        /// The origin that is asked.
        origin: OriginName = Required;
        /// How responses are cached: `on`, `off` or settings.
        cache: CacheChoice = Absent("`on`");
        /// What becomes of a request that has not come by TLS: `optional` (it is served), `redirect` (to the same URL with
        /// https; GET and HEAD by 301, others by 308) or `required` (403).
        https: Https = Absent("`optional`");
        /// Strict-Transport-Security: `on` (for a year), `off` or settings.
        hsts: Choice<Hsts> = Absent("`off`");
        /// Which requests are let in; or `off`.
        access: OffOr<Access> = Absent("`off`");
        /// The name of the key that must have signed the URL, of `keys`, or a list of names, any of which will do; or `off`.
        signed_url: OffOrMany<KeyName> = Absent("`off`");
        /// How fast requests may come: a limit, or a list of limits that must all let a request through; or `off`.
        rate_limit: OffOrMany<RateLimit> = Absent("`off`");
        /// How many requests may be in flight: a limit, or a list of limits; or `off`.
        concurrency_limit: OffOrMany<ConcurrencyLimit> = Absent("`off`");
        /// How fast each response may leave; or `off`.
        bandwidth: OffOr<Bandwidth> = Absent("`off`");
        /// Bytes of a request's body, or `unlimited`.
        body_size: SizeOrUnlimited = Absent("as `limits.body_size`");
        /// Who may purge by the method PURGE.
        purge: PurgeMethod = Absent("PURGE goes to the origin, like any other method");
        /// Exceptions to the site's settings. The first that matches a request governs it.
        routes: List<Route, 0> = Default("[]");
    }

    /// The method PURGE: it purges the URL that it names in all variants; or, where the path ends in `*`, all whose path
    /// begins with what stands before that. It never goes to the origin. At least one of `from` and `token` is given.
    pub struct PurgeMethod {
        /// The clients that may purge: addresses or networks. A client behind trusted proxies is the one that they name.
        from: List<Network> = Absent("any client that has the token");
        /// The bearer token that each PURGE must carry, by reference: `env:NAME` or `file:PATH`. Beside `from`, both must
        /// hold.
        token: SecretRef = Absent("no token is asked for");
        /// What is purged is stale from then on, rather than gone. Without it, a client can ask for that by the field
        /// `Soft-Purge: 1` or `Fastly-Soft-Purge: 1`.
        soft: bool = Default("false");
    }

    /// A route.
    pub struct Route {
        /// How logs and metrics call it.
        name: Label = Absent("`routes[N]`");
        /// Which requests it governs: every condition given must hold.
        r#match: Match = Required;
        /// The origin that is asked.
        origin: OriginName = Absent("the site's");
        /// Refines the site's cache settings key by key; `off` and `on` turn the cache off and on.
        cache: CacheChoice = Absent("the site's");
        /// What becomes of a request that has not come by TLS: `optional` (it is served), `redirect` (to the same URL with
        /// https; GET and HEAD by 301, others by 308) or `required` (403).
        https: Https = Absent("the site's");
        /// Strict-Transport-Security: `on` (for a year), `off` or settings.
        hsts: Choice<Hsts> = Absent("the site's");
        /// Which requests are let in; or `off`.
        access: OffOr<Access> = Absent("the site's");
        /// The name of the key that must have signed the URL, of `keys`, or a list of names, any of which will do; or `off`.
        signed_url: OffOrMany<KeyName> = Absent("the site's");
        /// How fast requests may come: a limit, or a list of limits that must all let a request through; or `off`.
        rate_limit: OffOrMany<RateLimit> = Absent("the site's");
        /// How many requests may be in flight: a limit, or a list of limits; or `off`.
        concurrency_limit: OffOrMany<ConcurrencyLimit> = Absent("the site's");
        /// How fast each response may leave; or `off`.
        bandwidth: OffOr<Bandwidth> = Absent("the site's");
        /// Bytes of a request's body, or `unlimited`.
        body_size: SizeOrUnlimited = Absent("the site's");
    }

    /// The conditions of a route. At least one is given; in a list, one member must hold.
    pub struct Match {
        /// Patterns for the whole path, case-sensitive. `*` is any run of characters within a segment; `**` alone
        /// between slashes is any number of segments. `/video/**` matches `/video/` and everything below, but not
        /// `/video`. `/a/*` matches `/a/` too.
        path: OneOrMany<PathPattern> = Absent("any path");
        /// What follows the last dot of the path's last segment, in any case: `png`.
        extensions: OneOrMany<Extension> = Absent("any");
        /// Request methods.
        methods: OneOrMany<Method> = Absent("any");
        /// Request fields: `true` (present), `false` (absent) or the exact value.
        headers: Map<FieldName, Expectation> = Absent("any");
        /// Query parameters: `true` (present), `false` (absent) or the exact value.
        query: Map<ParameterName, Expectation> = Absent("any");
        /// Clients: addresses or networks. A client behind trusted proxies is the one that they name.
        clients: OneOrMany<Network> = Absent("any");
        /// Countries of clients, by ISO 3166-1: `DE`. Needs `geo.country`.
        countries: OneOrMany<Country> = Absent("any");
        /// Autonomous systems of clients, by number. Needs `geo.asn`.
        asns: OneOrMany<AsNumber> = Absent("any");
        /// Names in the client's certificate; `*` at the begin is any run of characters. Needs a listener that asks for
        /// certificates.
        identities: OneOrMany<IdentityPattern> = Absent("any");
        /// How the request has come: `https` or `http`.
        scheme: SchemeWord = Absent("either");
    }

    /// Cache settings of a site or a route. A key that a route leaves out keeps the site's value.
    pub struct Cache {
        /// Freshness lifetime for responses that state none themselves.
        ttl: Duration = Absent("none");
        /// Ignore what the origin says about freshness, `no-store` and `private` included, and use `ttl`.
        r#override: bool = Absent("`false`");
        /// Upper bound of any freshness lifetime.
        max_ttl: Duration = Absent("none");
        /// How long a stale response may be served while it is revalidated, where the origin neither says nor forbids
        /// it.
        stale_while_revalidate: Duration = Absent("none");
        /// How long a stale response may be served when the origin fails, where it neither says nor forbids it.
        stale_if_error: Duration = Absent("none");
        /// Heuristic freshness (a tenth of the age since Last-Modified) where nothing else is known.
        heuristics: bool = Absent("`true`");
        /// Store responses that set cookies, without the cookies.
        store_set_cookie: bool = Absent("`false`");
        /// Freshness lifetime by status, for responses that state none themselves: `{404: 30s}`.
        ttl_by_status: Map<Status, Duration, 0> = Absent("`{}`");
        /// Do not obey `Cache-Control` in requests. `Pragma` never is.
        ignore_client_cache_control: bool = Absent("`false`");
        /// What beside host and path tells two responses apart.
        key: Key = Absent("the whole query");
        /// Which codings and languages there are: what clients accept is reduced to one of them, for the origin too.
        vary: Vary = Absent("what clients accept stays as they say it");
        /// The tiers that a response may be kept in: `[memory]` keeps it off the disk, `[disk]` out of memory. At least one
        /// of them must be there.
        tiers: List<Tier> = Absent("`[memory, disk]`");
        /// With which request for it a response is stored, counted over `within`: `1` is the first; `2` keeps out what is
        /// asked for only once.
        after: Int<1, 15> = Absent("`1`");
        /// How long a request counts towards `after`. Only where `after` is more than 1.
        within: Window = Absent("`1h`");
        /// The response fields that list a response's tags, by which it can be purged: one, or a list. `off`: tags are not
        /// read. `Cache-Groups` (RFC 9875) is always read.
        tags: TagChoice = Absent("`[surrogate-key, cache-tag]`");
        /// Do not send clients the fields that `tags` names. `Cache-Groups` is for all caches, and always sent.
        strip_tags: bool = Absent("`false`");
    }

    /// The cache key, beside host and path.
    pub struct Key {
        /// Which query parameters count: `all`, `none`, `{only: [a, b]}` or `{ignore: [utm_*]}`.
        query: QueryChoice = Absent("`all`");
        /// Whether their order does not matter.
        sort: bool = Absent("`false`");
        /// Request fields that count. What a client says in forwarding fields (`X-Forwarded-Host`, `X-Original-URL` and
        /// the like) reaches the origin only if the field is listed here, or if a trusted proxy says it.
        headers: List<FieldName, 0> = Absent("`[]`");
        /// Cookies that count.
        cookies: List<CookieName, 0> = Absent("`[]`");
    }

    /// The variants that there are. A client's field is rewritten to the one that suits it best, before the stored
    /// responses are looked at and before the origin is asked: there are then no more variants than are listed.
    pub struct Vary {
        /// Content codings that the origin makes, the preferred first: `[br, gzip]`. `Accept-Encoding` becomes one of
        /// them, or `identity`.
        accept_encoding: List<Coding, 0> = Absent("`[]`");
        /// Languages that the origin has, the preferred first: `[en, de, pt-BR]`. `Accept-Language` becomes one of them,
        /// or is taken away.
        accept_language: List<LanguageTag, 0> = Absent("`[]`");
    }

    /// A choice of query parameters: one of the two keys.
    pub struct QueryLists {
        /// Only these count.
        only: List<ParameterName> = Absent("—");
        /// All but these count; a `*` at the end stands for any rest.
        ignore: List<ParameterPattern> = Absent("—");
    }
}
