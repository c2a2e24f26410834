//! The keys of guards: who may ask, and how much.

use crate::config::decode::{Int, List, Map, OneOrMany, options};
use crate::config::model::KeyPart;
use crate::config::pattern::PathPattern;
use crate::config::words::*;

/// A number of requests at once that no process has.
const REQUESTS: u64 = 10_000_000;

/// The slowest that a response may be sent: below, it takes longer than its connection lives.
const SLOWEST: u64 = 1024;

options! {
    /// Where addresses are: databases in MaxMind's format (`.mmdb`), read again when they change. At least one is given.
    pub struct Geo {
        /// A database of countries, or of cities: GeoLite2-Country, DB-IP and the like. Gives `countries`, `country` in the
        /// key of a limit, and the log's country.
        country: FilePath = Absent("countries are not known");
        /// A database of autonomous systems: GeoLite2-ASN and the like.
        asn: FilePath = Absent("autonomous systems are not known");
        /// The request field that tells the origin the client's country (`DE`); what a client says in it is dropped.
        country_header: EdgeField = Absent("the origin is not told");
        /// The request field that tells the origin the number of the client's autonomous system.
        asn_header: EdgeField = Absent("the origin is not told");
    }

    /// A key that URLs are signed by, in one of six formats. Which of the settings belong to which format stands with each.
    pub struct UrlKey {
        /// `foreland` (our own), `secure-link` (nginx's `secure_link_md5`), `akamai` (EdgeAuth 2.0), `cloudflare` (its timed
        /// HMAC token), `cloudfront` (AWS CloudFront's canned and custom policies) or `jwt` (URI signing for CDNs, RFC 9246).
        format: UrlFormatWord = Required;
        /// What is signed with, by reference (`env:NAME` or `file:PATH`): one, or a list, of which the first signs and all
        /// verify. For `akamai`, the key in hexadecimal digits. For all formats but `cloudfront`; for `jwt`, this or
        /// `public_keys`.
        secrets: OneOrMany<SecretRef> = Absent("none");
        /// PEM files with public keys, by the name that tokens have for them: the key pair id (`cloudfront`) or the `kid`
        /// (`jwt`). RSA of 2048 to 8192 bits, P-256, and for `jwt` P-384 too.
        public_keys: Map<PublicKeyId, FilePath> = Absent("none");
        /// Where the token is. `foreland`: the query parameter or cookie, and what a path may begin with (`/token=…/a.m3u8`).
        /// `akamai`: the query parameter, cookie or request field. `cloudflare`: the query parameter, which must be the last.
        /// `jwt`: the query parameter or cookie.
        parameter: TokenName = Absent("`token`, `hdnts`, `verify` or `URISigningPackage`");
        /// For `secure-link`: nginx's expression, with `$secret` where the secret stands. Variables:
        /// `$secure_link_expires`, `$uri`, `$host`, `$scheme`, `$remote_addr`, `$arg_NAME`, `$http_NAME`, `$cookie_NAME`.
        expression: Expression = Absent("`$secure_link_expires$uri$remote_addr $secret`");
        /// For `secure-link`: the query parameter with the signature.
        md5_parameter: TokenName = Absent("`md5`");
        /// For `secure-link`: the query parameter with the time; only where `expression` has `$secure_link_expires`.
        expires_parameter: TokenName = Absent("`expires`");
        /// For `akamai`: `sha256`, `sha1` or `md5`.
        algorithm: AkamaiWord = Absent("`sha256`");
        /// For `akamai`: a salt, by reference.
        salt: SecretRef = Absent("none");
        /// For `akamai`: what stands between a token's fields.
        field_delimiter: Delimiter = Absent("`~`");
        /// For `akamai`: what stands between the patterns of an ACL.
        acl_delimiter: Delimiter = Absent("`!`");
        /// For `akamai`: the path is escaped before it is signed, as Akamai's generators do by `escape_early`.
        escape_early: bool = Absent("`false`");
        /// For `cloudflare`, and needed there: how long a token is valid from its timestamp on, in whole seconds.
        lifetime: WholeSeconds = Absent("—");
        /// For `jwt`: whose tokens are taken; `iss` must be one of these.
        issuers: OneOrMany<Label> = Absent("anybody's");
        /// For `jwt`: what `aud` must name.
        audience: Label = Absent("any");
        /// What a URL whose time is over gets: 403, as one that is not signed, or 410.
        expired: ExpiredStatus = Default("403");
        /// How far the signer's clock may be from this one: up to 1h, in whole seconds.
        skew: Skew = Default("0s");
    }

    /// Strict-Transport-Security (RFC 6797), which is sent over TLS alone.
    pub struct Hsts {
        /// How long clients keep to https, in whole seconds. `0s` takes back what was said.
        max_age: WholeSecondsOrNone = Default("365d");
        /// All hosts below this one too.
        include_subdomains: bool = Default("false");
        /// Browsers may have the host in their lists, which takes `include_subdomains: true` and a year.
        preload: bool = Default("false");
    }

    /// A rate limit.
    pub struct RateLimit {
        /// How logs, metrics and `RateLimit-Policy` call it. Limits of the same name are one limit, and count together; they
        /// must have the same key, rate and burst.
        name: LimitName = Absent("the site's name, or `SITE/ROUTE`; with `#2` for the second of a list, and so on");
        /// What requests are counted by: one, or a list, which counts each mix by itself. `client-ip` (of IPv6, the /64),
        /// `header:NAME`, `cookie:NAME`, `path`, `host`, `token-id` (the token of the signed URL), `country`, `asn`,
        /// `identity` (the client's certificate) or `all` (one count for all).
        key: OneOrMany<KeyPart> = Default("client-ip");
        /// Requests in a time: `50/s`, `600/m`, `1000/h`, `5000/d`, `20/10s`.
        rate: Rate = Required;
        /// Requests that may come at once.
        burst: Int<1, REQUESTS> = Absent("as many as the rate has in a second, at least 1");
        /// What a request beyond that gets: `reject` (429 with Retry-After), `delay` (it waits for its turn, up to
        /// `max_delay`) or `log` (it is logged and counted, and goes on).
        action: OverRateWord = Default("reject");
        /// For `delay`: the longest wait, up to 60s; who would wait longer gets a 429.
        max_delay: DelayTime = Absent("`1s`");
        /// Send `RateLimit` and `RateLimit-Policy` with every response, rather than with rejections alone.
        announce: bool = Default("false");
    }

    /// A limit of how many requests are in flight.
    pub struct ConcurrencyLimit {
        /// As that of a `rate_limit`; limits of the same name have the same key and number.
        name: LimitName = Absent("as that of a `rate_limit`");
        /// What requests are counted by, as in `rate_limit`.
        key: OneOrMany<KeyPart> = Default("client-ip");
        /// Requests at once.
        requests: Int<1, REQUESTS> = Required;
        /// What a request beyond that gets, with Retry-After: 429 or 503.
        status: ConcurrencyStatus = Default("429");
    }

    /// How fast a response may leave, each by itself.
    pub struct Bandwidth {
        /// Bytes a second, at least 1KiB/s: `1MiB/s`.
        rate: ByteRate<SLOWEST> = Required;
        /// Bytes of the body that leave at full speed first.
        after: Size<0> = Default("0B");
    }

    /// Which requests are let in. What is denied is denied, whatever is allowed; where something of a kind is allowed, all
    /// else of that kind is denied. At least one rule is given.
    pub struct Access {
        /// Addresses and networks, and files of them as `file:PATH`: an address or network a line, `#` begins a comment. Such
        /// a file is read again when it changes; a file with mistakes changes nothing. A client behind trusted proxies is the
        /// one that they name.
        allow: List<NetworkSource, 0> = Absent("`[]`: any");
        /// The same; who is in it is denied.
        deny: List<NetworkSource, 0> = Absent("`[]`: nobody");
        /// Countries by ISO 3166-1: `[DE, FR]`. An address of which nothing is known is in none. Needs `geo.country`.
        allow_countries: List<Country, 0> = Absent("`[]`: any");
        /// The same; not beside `allow_countries`.
        deny_countries: List<Country, 0> = Absent("`[]`: none");
        /// Numbers of autonomous systems. Needs `geo.asn`.
        allow_asns: List<AsNumber, 0> = Absent("`[]`: any");
        /// The same; not beside `allow_asns`.
        deny_asns: List<AsNumber, 0> = Absent("`[]`: none");
        /// Request methods; HEAD goes with GET. Others get a 405 with Allow.
        methods: OneOrMany<Method> = Absent("any");
        /// Request fields that must be as said: `true` (present), `false` (absent) or the exact value.
        headers: Map<FieldName, Expectation> = Absent("any");
        /// Paths that nobody gets, by the patterns of a route's `path`. A path counts in each reading that a server could give
        /// it: with several slashes taken for one, encoded slashes decoded, parameters (`;…`) cut off.
        deny_paths: OneOrMany<PathPattern> = Absent("none");
        /// User-Agents that get nothing, in any case; `*` is any run of characters: `*curl*`. `""` is a request without one.
        deny_user_agents: OneOrMany<AgentPattern> = Absent("none");
        /// Hotlink protection: the hosts that Referer may name (`example.com`, `*.example.com`), and `none` for requests
        /// without one.
        referers: OneOrMany<RefererWord> = Absent("any, and none");
        /// Names in the client's certificate, one of which it must have; `*` at the begin is any run of characters. Needs a
        /// listener that asks for certificates.
        identities: OneOrMany<IdentityPattern> = Absent("any client");
        /// What a client that is denied gets: 403, 404, 410, 429, 451, 503 or another status from 400 on.
        status: DeniedStatus = Default("403");
    }
}
