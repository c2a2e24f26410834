//! From a request to all that is to be said of it, by the functions that the proxy calls, in its order.

use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{
    ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    PRAGMA, RANGE, TRANSFER_ENCODING,
};
use http::{Method, StatusCode};
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::common::is_upgrade_req;

use super::ask::Ask;
use super::guards::{self, Knock};
use super::report::{
    At, Cache, Dropped, Explanation, Governed, Key, Note, Origin, PassedOver, Refused, Request, Rewritten, Route,
    Setting, Site, Verdict,
};
use super::{conditions, report, response};
use crate::config::model::{Config, HostHeader, RequestPolicy};
use crate::config::{self, Place};
use crate::edge::{Client, checks, join_cookies};
use crate::guard::signed::Presented;
use crate::guard::{self, Guards};
use crate::http_cache::{self, Policy, RequestDirectives, Timestamp};
use crate::site::{self, Asked, Directory, Facts, Refusal, Resolved, Visitor};

/// This many routes that do not match are named without being asked for.
const PASSED_OVER: usize = 8;

/// What the edge would do with a request that arrives `now`.
pub fn explain(config: &Config, guards: &Guards, ask: &Ask, now: Timestamp) -> Explanation {
    let mut explanation = Explanation {
        request: Request {
            method: ask.method.to_string(),
            host: ask.headers.get(HOST).map(|host| shown(host.as_bytes())),
            target: ask.target.clone(),
        },
        client: report::Client {
            address: ask.from.map(|address| address.to_string()),
            trusted: false,
            secure: ask.secure,
            country: None,
            asn: None,
            identities: ask.identities.clone(),
        },
        dropped: Vec::new(),
        rewritten: Vec::new(),
        refused: None,
        governed: None,
    };
    match govern((config, guards), ask, now, &mut explanation) {
        Ok(governed) => explanation.governed = Some(governed),
        Err(refused) => explanation.refused = Some(refused),
    }
    explanation
}

/// A field's value as text, whatever its bytes.
pub fn shown(value: &[u8]) -> String {
    match str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => value.escape_ascii().to_string(),
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        let Refusal { status, text, reason, .. } = refusal;
        Refused { status: status.as_u16(), text: text.to_owned(), reason: reason.into_owned() }
    }
}

/// The way of `edge::admit`, and then the questions that come after it.
fn govern(
    (config, all): (&Config, &Guards),
    ask: &Ask,
    now: Timestamp,
    so_far: &mut Explanation,
) -> Result<Governed, Refused> {
    let mut request = parsed(ask)?;
    checks::within_limits(&request.method, request.raw_path(), &request.headers, &config.limits)?;
    for name in &site::nominated(&request.headers) {
        so_far.dropped.push(dropped(name, "Connection names it: it is for one hop (RFC 9110 §7.6.1)."));
        request.remove_header(name);
    }
    if request.remove_header(&checks::DEBUG).is_some() {
        so_far.dropped.push(dropped(&checks::DEBUG, "It is for this edge."));
    }
    join_cookies(&mut request);
    let client = ask.from.map(|from| client(from, &request.headers, config));
    let mut visitor = client.map_or(Visitor::nobody(), |client| Visitor::of(client.address));
    let trusted = client.is_some_and(|client| client.trusted);
    let told = trusted && request.headers.contains_key("x-forwarded-proto");
    visitor.secure = if told { site::is_https(&request.headers) } else { ask.secure };
    visitor.identities = &ask.identities;
    let (country, asn) = if ask.from.is_some() { all.place(visitor.address) } else { (None, None) };
    (visitor.country, visitor.asn) = (ask.country.or(country), ask.asn.or(asn));
    so_far.client = report::Client {
        address: client.map(|client| client.address.to_string()),
        trusted,
        secure: visitor.secure,
        country: visitor.country.map(|code| code.escape_ascii().to_string()),
        asn: visitor.asn,
        identities: ask.identities.clone(),
    };
    checks::framing(&request.headers, || request.headers.contains_key(CONTENT_LENGTH))?;
    let asked = Asked {
        method: &request.method,
        uri: &request.uri,
        target: request.raw_path(),
        headers: &request.headers,
        content: site::announces_content(&request.headers),
        trusted,
        visitor,
        tokens: all.tokens(),
    };
    let resolved = site::resolve(&asked, config, &Directory::new(&config.sites))?;
    let policy = resolved.policy(config);
    let cache = policy.cache.as_ref();
    let bypass = http_cache::bypass(cache, asked.method, asked.content, is_upgrade_req(&request));
    let directives = match (cache, &resolved.key) {
        (Some(policy), Some(_)) => RequestDirectives::parse(asked.headers, policy),
        _ => RequestDirectives::default(),
    };
    let place = |place: Option<&Place>| at(config, place);
    let (route, passed_over) = routes(config, &asked, &resolved);
    let shown_routes = if ask.verbose { passed_over.len() } else { PASSED_OVER };
    let omitted = passed_over.len().saturating_sub(shown_routes);
    let purge = purge(config, &resolved, &request);
    let places = config.places.policy(resolved.site, resolved.route);
    let asks = guard::Asked::of(asked.method, asked.headers, visitor, &resolved);
    let sent = request.raw_path();
    let knock = Knock {
        config,
        settings: &policy.guard,
        gate: all.gate(policy),
        asked: asks,
        presented: Presented::of(&asks, &resolved),
        otherwise: guard::read_otherwise(&config.sites[resolved.site], &resolved, &policy.guard),
        target: if sent.starts_with(b"/") { sent } else { b"/" },
        nobody: ask.from.is_none(),
        now: SystemTime::from(now).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
    };
    let (passed, refused) = match purge {
        // A purge has guards of its own.
        Some(_) => (Vec::new(), None),
        None => guards::knock(&knock, |key| at(config, places.and_then(|places| places.guard(key)))),
    };
    so_far.refused = refused.or_else(|| guards::body(&knock).err());
    let mut governed = Governed {
        site: named(config, &resolved),
        route,
        passed_over: passed_over.into_iter().take(shown_routes).collect(),
        passed_over_omitted: omitted,
        purge,
        guards: passed,
        origin: origin(config, &resolved, &request),
        key: resolved
            .key
            .as_ref()
            .filter(|_| bypass.is_none())
            .map(|(key, text)| Key { text: site::describe(text.as_bytes()), hash: hex(&key.hash) }),
        cache: Cache {
            used: bypass.is_none(),
            bypass: bypass.map(|bypass| Verdict { word: bypass.as_str(), why: bypass.explain().to_owned() }),
            notes: cache.filter(|_| bypass.is_none()).map(|policy| notes(&request, policy)).unwrap_or_default(),
        },
        settings: settings(policy, places, place),
        response: None,
    };
    let site = &config.sites[resolved.site];
    let (host, gone, rewritten) = (resolved.authority.into_owned(), resolved.dropped, resolved.rewritten);
    for (name, value) in rewritten {
        let shown = value.as_ref().map(|value| shown(value.as_bytes()));
        let why = match name {
            ACCEPT_ENCODING | ACCEPT_LANGUAGE => "`vary` says what there is.",
            _ => "A token of a signed URL is for this edge.",
        };
        so_far.rewritten.push(Rewritten { field: name.as_str().to_owned(), value: shown, why });
        request.remove_header(&name);
        if let Some(value) = value {
            request.insert_header(name, value).map_err(|e| invalid(e.to_string()))?;
        }
    }
    for name in &gone {
        so_far.dropped.push(dropped(name, "The client is not trusted, and the key does not list it."));
        request.remove_header(name);
    }
    if !is_upgrade_req(&request) {
        let hop = http_cache::hop_by_hop(&request.headers);
        let hop = hop.iter().filter(|name| **name != TRANSFER_ENCODING);
        so_far.dropped.extend(hop.map(|name| dropped(name, "It is for one hop (RFC 9110 §7.6.1).")));
    }
    if let Some(answer) = ask.answer.as_ref().filter(|_| so_far.refused.is_none()) {
        let asked = response::Asked {
            config,
            request: &request,
            site,
            policy,
            host: &host,
            bypass,
            directives,
            trusted,
            visitor,
        };
        governed.response = Some(response::judge(&asked, answer, now));
    }
    Ok(governed)
}

/// What becomes of the method PURGE on a site that has it.
fn purge(config: &Config, resolved: &Resolved<'_>, request: &RequestHeader) -> Option<String> {
    let rules = config.sites[resolved.site].purge.as_ref().filter(|_| request.method.as_str() == "PURGE")?;
    let networks = |networks: &Vec<_>| networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let from = rules.from.as_ref().map(|from| format!(" from {}", networks(from))).unwrap_or_default();
    let token = rules.token.as_ref().map(|token| format!(" with the token of {}", token.1)).unwrap_or_default();
    Some(format!("answered here, and never by the origin; allowed{from}{token}"))
}

/// What Pingora makes of a request, and what it refuses as it does so.
fn parsed(ask: &Ask) -> Result<RequestHeader, Refused> {
    if ask.method == Method::CONNECT {
        let (text, reason) = ("CONNECT is not served.", "CONNECT is not served");
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text, reason).into());
    }
    for length in ask.headers.get_all(CONTENT_LENGTH) {
        if !length.to_str().is_ok_and(|length| length.trim().parse::<usize>().is_ok() && !length.starts_with('+')) {
            return Err(invalid(format!("Content-Length {:?} is no length", shown(length.as_bytes()))));
        }
    }
    let mut request = RequestHeader::build(ask.method.clone(), ask.target.as_bytes(), Some(ask.headers.len()))
        .map_err(|e| invalid(e.to_string()))?;
    for (name, value) in &ask.headers {
        request.append_header(name.clone(), value.clone()).map_err(|e| invalid(e.to_string()))?;
    }
    Ok(request)
}

fn invalid(reason: String) -> Refused {
    Refusal::new(StatusCode::BAD_REQUEST, "The request is not valid HTTP.", reason).into()
}

fn client(from: IpAddr, headers: &HeaderMap, config: &Config) -> Client {
    Client::of(SocketAddr::new(from, 0), headers, &config.trusted_proxies)
}

fn dropped(name: &http::HeaderName, why: &'static str) -> Dropped {
    Dropped { field: name.as_str().to_owned(), why }
}

fn named(config: &Config, resolved: &Resolved<'_>) -> Site {
    let (site, places) = (&config.sites[resolved.site], config.places.sites.get(resolved.site));
    let host = site::pattern_of(site, resolved.host());
    Site {
        name: site.name.to_string(),
        at: at(config, places.map(|places| &places.place)),
        host: host.map(|host| site.hosts[host].to_string()).unwrap_or_default(),
        host_at: at(config, host.and_then(|host| places?.hosts.get(host))),
    }
}

/// The route that governs, and those before it.
fn routes(config: &Config, asked: &Asked<'_>, resolved: &Resolved<'_>) -> (Option<Route>, Vec<PassedOver>) {
    let withheld = site::withheld(asked.headers, asked.trusted);
    let facts = Facts {
        method: asked.method.as_str(),
        path: &resolved.path,
        query: resolved.query.as_deref(),
        headers: asked.headers,
        withheld: &withheld,
        visitor: asked.visitor,
    };
    let routes = &config.sites[resolved.site].routes;
    let places = config.places.sites.get(resolved.site);
    let place = |route: usize| at(config, places.and_then(|places| Some(&places.routes.get(route)?.place)));
    let before = routes.iter().enumerate().take(resolved.route.unwrap_or(routes.len()));
    let passed_over = before.map(|(index, route)| PassedOver {
        name: route.name.to_string(),
        at: place(index),
        why: site::unmet(&route.matcher, &facts)
            .map(|unmet| conditions::not_met(&route.matcher, unmet, &facts))
            .unwrap_or_default(),
    });
    let governing = resolved.route.map(|index| Route {
        name: routes[index].name.to_string(),
        at: place(index),
        conditions: conditions::met(&routes[index].matcher, &facts),
    });
    (governing, passed_over.collect())
}

fn origin(config: &Config, resolved: &Resolved<'_>, request: &RequestHeader) -> Origin {
    let index = resolved.policy(config).origin;
    let origin = &config.origins[index];
    let places = config.places.policy(resolved.site, resolved.route);
    let sent = || shown(request.raw_path());
    Origin {
        name: origin.name.clone(),
        at: at(config, config.places.origins.get(index)),
        named_at: at(config, places.and_then(|places| places.origin())),
        target: resolved.target.as_deref().map_or_else(sent, str::to_owned),
        host: match &origin.host {
            HostHeader::Client => "client".to_owned(),
            HostHeader::Server => "server".to_owned(),
            HostHeader::Fixed(name) => name.clone(),
        },
    }
}

/// What of a request bears on the cache.
fn notes(request: &RequestHeader, policy: &Policy) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut note = |what: &str, effect: &str| notes.push(Note { what: what.to_owned(), effect: effect.to_owned() });
    if request.method == Method::HEAD {
        note("HEAD", "it shares what is stored for GET, and where nothing is, the origin is asked by GET");
    }
    let said = RequestDirectives::parse(&request.headers, &Policy::default());
    let effect = match policy.ignore_client_cache_control {
        true => "ignored: `ignore_client_cache_control` says so",
        false => "obeyed (RFC 9111 §5.2.1)",
    };
    for directive in said.words() {
        note(&format!("cache-control: {directive}"), effect);
    }
    if request.headers.contains_key(PRAGMA) {
        note("pragma", "ignored (RFC 9111 §5.4)");
    }
    if request.headers.contains_key(AUTHORIZATION) {
        note("authorization", "the response is stored only where the origin gives it to all (RFC 9111 §3.5)");
    }
    if request.headers.contains_key(RANGE) {
        note("range", "the origin is asked for the whole, and a part is cut from that (RFC 9110 §14.2)");
    }
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE] {
        if request.headers.contains_key(&name) {
            note(name.as_str(), "compared with what is stored; the origin is asked without it (RFC 9111 §4.3.2)");
        }
    }
    notes
}

fn settings(
    policy: &RequestPolicy,
    places: Option<&config::PolicyPlaces>,
    at: impl Fn(Option<&Place>) -> Option<At>,
) -> Vec<Setting> {
    let whole = at(places.and_then(|places| places.cache()));
    let Some(cache) = &policy.cache else {
        return vec![Setting { name: "cache".to_owned(), value: "off".to_owned(), at: whole }];
    };
    let settings = config::cache_settings(cache, &policy.key).into_iter();
    let setting = |(name, value): (String, String)| {
        let at = at(places.and_then(|places| places.setting(&name)));
        Setting { name, value, at }
    };
    settings.map(setting).collect()
}

fn at(config: &Config, place: Option<&Place>) -> Option<At> {
    let place = place?;
    let file = config.source.as_ref().map_or_else(|| "(built in)".to_owned(), |file| file.display().to_string());
    Some(At { file, line: place.mark.line, column: place.mark.column, path: place.path.clone() })
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
