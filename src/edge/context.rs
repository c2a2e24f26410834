//! What the edge knows of one request, from its first hook to its last.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;

use super::arrival::{self, Secured};
use super::background::Running;
use super::client::Client;
use super::framing::End;
use super::guards::Passed;
use super::overload::Flight;
use super::post;
use super::request_id::RequestId;
use super::state::Snapshot;
use crate::config::model::{RequestPolicy, Site};
use crate::guard::rate::Pace;
use crate::http_cache::{FwdReason, Outcome, Policy, RequestDirectives, Timestamp};
use crate::observe::InFlight;
use crate::origin::{Exchange, Trail};
use crate::site::{Key, KeyText, Visitor};
use crate::store::{Fill, Object, Writer};

/// One request's context.
pub struct Context {
    pub started: Instant,
    /// When the request arrived, by the wall clock.
    pub now: Timestamp,
    /// `None` until the request has passed the first checks.
    pub request: Option<Request>,
    /// Counts it as being served.
    pub in_flight: Option<InFlight>,
    /// Counts it towards the limit on requests in flight.
    pub flight: Option<Flight>,
    pub client: Option<Client>,
    /// What is known of the connection by TLS (see [`arrival`]).
    pub arrival: Option<Arc<ProxyDigest>>,
    /// The client came by https: to this edge, or to a trusted proxy that says so.
    pub secure: bool,
    /// Where the client's address is, as far as it is known: ISO 3166-1 alpha-2, and the autonomous system.
    pub country: Option<[u8; 2]>,
    pub asn: Option<u32>,
    /// What the guards have made of the request; `None`: none has had anything to do.
    pub guards: Option<Box<Passed>>,
    pub id: RequestId,
    /// Bytes of the request's body so far.
    pub request_bytes: u64,
    pub cache: CacheTrace,
    pub upstream: Upstream,
    pub reply: Reply,
    /// How fast the response may leave; `None`: as fast as the client takes it.
    pub pace: Option<Pace>,
    /// This is a refresh in the background.
    pub background: Option<Running>,
}

/// A request whose site and route are known.
pub struct Request {
    /// One snapshot for the whole of the request: a reload never changes it half-way.
    pub snapshot: Arc<Snapshot>,
    pub site: usize,
    pub route: Option<usize>,
    /// Host and port, normalised.
    pub authority: Box<str>,
    /// What the origin is asked for where it is not what the client asked for.
    pub target: Option<Box<str>>,
    pub key: Option<(Key, KeyText)>,
    pub directives: RequestDirectives,
}

/// What happened to the request in the cache.
#[derive(Default)]
pub struct CacheTrace {
    pub outcome: Outcome,
    /// The ledger's head when the request came to the cache: purges after that concern its response.
    pub began: u64,
    /// Why the request went to the origin.
    pub forwarded: Option<FwdReason>,
    /// The status that the origin answered.
    pub forward_status: Option<u16>,
    /// The response of the origin was stored.
    pub stored: bool,
    /// Why it was not, in a word.
    pub not_stored: Option<&'static str>,
    /// Another request's fill was followed.
    pub collapsed: bool,
    /// Seconds of freshness left in what was served.
    pub ttl: Option<i64>,
    pub tier: &'static str,
    /// Stale may be served while the object is refreshed in the background.
    pub stale_while_revalidate: bool,
    /// Stale was served because the origin failed.
    pub stale_if_error: bool,
    /// What was found stored when the request came, if it takes more than that to answer.
    pub found: Option<Arc<Object>>,
    /// What is stale, and may be served should the origin fail.
    pub fallback: Option<Arc<Object>>,
    /// What a GET of a POST's URL would be looked up by.
    pub post: Option<Box<post::Target>>,
    /// The 304 that a revalidation was answered with.
    pub not_modified: Option<Box<ResponseHeader>>,
    /// The fields of what a validation has confirmed, where it is not stored any more.
    pub confirmed: Option<Box<HeaderMap>>,
    /// The cache key, for a client that wants it in Cache-Status and may have it.
    pub shown_key: Option<String>,
    /// Room for the value of Cache-Status.
    pub line: Vec<u8>,
    /// Fields that are not stored, but that the client whose request this is gets all the same.
    pub unshared: Vec<(HeaderName, HeaderValue)>,
    /// The fill that this request feeds.
    pub fill: Option<Arc<Fill>>,
    /// The response goes into the store beside its way to the client.
    pub beside: Option<Writer>,
}

/// What happened between here and the origin.
#[derive(Default)]
pub struct Upstream {
    /// The request's way to its origin, once it has one.
    pub exchange: Option<Arc<Exchange>>,
    /// The server that the client's cookie names.
    pub stays_with: Option<u64>,
    /// Bytes of the response's body so far.
    pub body_bytes: u64,
    /// A final response has begun: no other try is possible.
    pub answered: bool,
    /// Whether the connection may be used again, as far as the latest final response tells.
    pub end: End,
    /// The origin was asked by HEAD, about something that is stored.
    pub by_head: bool,
}

impl Upstream {
    /// What is known of the tries, if there were any.
    pub fn trail(&self) -> Option<MutexGuard<'_, Trail>> {
        self.exchange.as_ref().map(|exchange| exchange.trail()).filter(|trail| trail.tries > 0)
    }

    /// When the latest request left, by the wall clock.
    pub fn sent(&self) -> Option<Timestamp> {
        self.trail()?.sent.map(Timestamp::from)
    }
}

/// What the client got.
#[derive(Default)]
pub struct Reply {
    pub status: u16,
    /// Set where the response went past Pingora's own counter.
    pub body_bytes: Option<u64>,
    pub first_byte: Option<Duration>,
    /// Interim responses so far, and about how many bytes they took.
    pub interim: (u32, usize),
    /// A stored response is on its way past Pingora's session: no other may follow in its place.
    pub begun: bool,
    /// No body may follow the head, whatever the upstream sends.
    pub no_body: bool,
    /// Why this is an error, for the log.
    pub reason: Option<String>,
    /// The version of HTTP that the client speaks; that of a background fetch is another.
    pub version: Option<Version>,
}

impl Context {
    pub fn new() -> Context {
        Context {
            started: Instant::now(),
            now: std::time::SystemTime::now().into(),
            request: None,
            in_flight: None,
            flight: None,
            client: None,
            arrival: None,
            secure: false,
            country: None,
            asn: None,
            guards: None,
            id: RequestId::default(),
            request_bytes: 0,
            cache: CacheTrace::default(),
            upstream: Upstream::default(),
            reply: Reply::default(),
            pace: None,
            background: None,
        }
    }
}

impl Context {
    /// Whether the request comes from a trusted proxy.
    pub fn is_trusted(&self) -> bool {
        self.client.is_some_and(|client| client.trusted)
    }

    /// What is known of the connection by TLS.
    pub fn secured(&self) -> Option<&Secured> {
        arrival::secured(self.arrival.as_ref()?)
    }

    /// Who asks.
    pub fn visitor(&self) -> Visitor<'_> {
        let visitor = self.client.map_or(Visitor::nobody(), |client| Visitor::of(client.address));
        let identities = self.secured().map_or(&[][..], |secured| &secured.identities);
        Visitor { secure: self.secure, identities, country: self.country, asn: self.asn, ..visitor }
    }
}

impl Request {
    pub fn site(&self) -> &Site {
        &self.snapshot.config.sites[self.site]
    }

    pub fn policy(&self) -> &RequestPolicy {
        let site = self.site();
        match self.route {
            Some(route) => &site.routes[route].policy,
            None => &site.policy,
        }
    }

    /// `None`: the cache is off.
    pub fn cache_policy(&self) -> Option<&Policy> {
        self.policy().cache.as_ref()
    }

    /// Bytes of the request's body; `None`: unlimited.
    pub fn body_limit(&self) -> Option<u64> {
        self.policy().guard.body_size.unwrap_or(self.snapshot.config.limits.body_size)
    }

    pub fn route_name(&self) -> Option<&str> {
        self.route.map(|route| &*self.site().routes[route].name)
    }
}
