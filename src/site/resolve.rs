//! From a request to what governs it: its host, site, route and key, and the fields of it that count.

use std::borrow::Cow;

use http::header::{CONTENT_LENGTH, COOKIE, HOST, REFERER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use smallvec::SmallVec;

use super::fields::{Names, withheld};
use super::key::{Key, KeyParts, KeyText, key};
use super::matcher::{Facts, route};
use super::normal::{has_dot_segments, normalise_authority, normalise_path, normalise_query, other_readings};
use super::tokens::{self, TokenPlaces, Tokens};
use super::{Directory, Refusal, Visitor};
use crate::config::model::{ClientMatcher, Config, RequestPolicy, Site};
use crate::http_cache::{Policy, Rewrite, Rewrites, reduce};

/// A request, without the fields that [`super::nominated`] names.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    /// The target as it was sent (RFC 9112 §3.2).
    pub target: &'a [u8],
    pub headers: &'a HeaderMap,
    /// It has content, or may have some: what a GET with content means is between the client and the origin
    /// (RFC 9110 §9.3.1), so it has no key.
    pub content: bool,
    /// A trusted proxy sends it: what it says in forwarding fields is believed.
    pub trusted: bool,
    pub visitor: Visitor<'a>,
    /// Where tokens of signed URLs are.
    pub tokens: &'a Tokens,
}

/// What governs a request.
#[derive(Debug)]
pub struct Resolved<'a> {
    /// Index into the configuration's sites.
    pub site: usize,
    /// Index into the site's routes; `None`: the site's own settings govern.
    pub route: Option<usize>,
    /// Host and port in normal form, like the path and the query: as they are in the key, and as the origin sees them.
    pub authority: Cow<'a, str>,
    /// How much of it is the host.
    pub host_length: usize,
    pub path: Cow<'a, str>,
    pub query: Option<Cow<'a, str>>,
    /// What the origin is asked for where it cannot be the target that was sent.
    pub target: Option<Box<str>>,
    /// `None`: the cache is off, or the request has content.
    pub key: Option<(Key, KeyText)>,
    /// Fields that an untrusted client may not set and that are not in the key: they have had no part in any of this,
    /// and are to be removed before anything else looks at the request.
    pub dropped: Names,
    /// Fields that are to be written anew for the same reason: the settings in force reduce what a client may accept, and
    /// tokens are for this edge alone.
    pub rewritten: Rewrites,
    /// The path as it was sent, without its token.
    pub sent_path: Cow<'a, str>,
    /// The query as it was sent, tokens and all.
    pub sent_query: Option<Cow<'a, str>>,
    /// The token that the path began with.
    pub token: Option<Box<str>>,
    /// The routes, as above, that govern what else an origin could read the path as: it may well answer with what is theirs.
    pub otherwise: SmallVec<[Option<usize>; 1]>,
}

impl Resolved<'_> {
    /// Without the port.
    pub fn host(&self) -> &str {
        &self.authority[..self.host_length]
    }

    /// The settings in force.
    pub fn policy<'c>(&self, config: &'c Config) -> &'c RequestPolicy {
        policy(&config.sites[self.site], self.route)
    }
}

/// Finds out what governs a request.
///
/// Fields that an untrusted client may not set choose no route. Those that the key of the chosen settings lists stay:
/// they are in the key then, so that what the origin answers to them is for those alone who ask alike.
///
/// # Errors
/// The answer to a request that goes no further.
pub fn resolve<'a>(asked: &Asked<'a>, config: &Config, directory: &Directory) -> Result<Resolved<'a>, Refusal> {
    if asked.method == Method::TRACE {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "TRACE is not served.", "TRACE is not served"));
    }
    let (authority, host_length) = authority(asked)?;
    let host = &authority[..host_length];
    let (mut sent_path, sent_query) = target(asked)?;
    let Some(index) = directory.find(host) else {
        return Err(Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            "No site of this name is served here.",
            format!("no site for host {host:?}"),
        ));
    };
    let site = &config.sites[index];
    let token = take_from_path(&mut sent_path, asked.tokens.prefixes(index));
    let path = normal(&sent_path, normalise_path);
    let mut query = sent_query.as_ref().map(|query| normal(query, normalise_query));
    let mut dropped = withheld(asked.headers, asked.trusted);
    let method = asked.method.as_str();
    let (headers, visitor) = (asked.headers, asked.visitor);
    let facts = Facts { method, path: &path, query: query.as_deref(), headers, withheld: &dropped, visitor };
    let route = route(site, &facts);
    let otherwise = otherwise(site, route, &facts);
    let policy = policy(site, route);
    let mut rewritten = policy.cache.as_ref().map(|cache| reduce(asked.headers, &cache.vary)).unwrap_or_default();
    if let Some(referer) = asked.headers.get(REFERER)
        && let Ok(url) = referer.to_str()
        && let Cow::Owned(left) = asked.tokens.redact_of_site(index, url)
    {
        // A page or playlist whose own URL has a token names it as the referrer of what it refers to.
        rewritten.push((REFERER, HeaderValue::try_from(left).ok()));
    }
    let mut without_tokens = None;
    if let Some(places) = asked.tokens.of_policy(policy.guard.id) {
        take_from_fields(asked.headers, places, &mut rewritten);
        if let Some(sent) = &sent_query {
            let left = tokens::from_query(sent, &places.parameters);
            if left.as_deref() != Some(&**sent) {
                query = left.as_ref().map(|left| Cow::Owned(normalise_query(left).into_owned()));
                without_tokens = Some(left.map(Cow::into_owned));
            }
        }
    }
    let facts = Facts { method, path: &path, query: query.as_deref(), headers, withheld: &dropped, visitor };
    let key = policy
        .cache
        .as_ref()
        .filter(|_| !asked.content)
        .map(|_| key_of((site, route), &facts, &rewritten, (&authority, asked.trusted)));
    dropped.retain(|name| !policy.key.headers.iter().any(|listed| listed == name.as_str()));
    let target = match (&token, &without_tokens) {
        (None, None) => for_origin(asked, &path, query.as_deref()),
        _ => {
            let left = without_tokens.as_ref().map_or(sent_query.as_deref(), Option::as_deref);
            Some(for_origin_without_tokens((&sent_path, left), (&path, query.as_deref())))
        }
    };
    Ok(Resolved {
        site: index,
        route,
        authority,
        host_length,
        path,
        query,
        target,
        key,
        dropped,
        rewritten,
        sent_path,
        sent_query,
        token,
        otherwise,
    })
}

/// The other routes that a path could be of, in another reading.
fn otherwise(site: &Site, chosen: Option<usize>, facts: &Facts<'_>) -> SmallVec<[Option<usize>; 1]> {
    let mut found = SmallVec::new();
    if site.routes.is_empty() {
        return found;
    }
    for path in other_readings(facts.path) {
        let other = route(site, &Facts { path: &path, ..*facts });
        if other != chosen && !found.contains(&other) {
            found.push(other);
        }
    }
    found
}

/// What was sent, in normal form: without a copy where it is that.
fn normal<'a>(sent: &Cow<'a, str>, normalise: impl Fn(&str) -> Cow<'_, str>) -> Cow<'a, str> {
    match (sent, normalise(sent)) {
        (Cow::Borrowed(sent), Cow::Borrowed(same)) if same.len() == sent.len() => Cow::Borrowed(sent),
        (_, normal) => Cow::Owned(normal.into_owned()),
    }
}

/// Takes the token off that a path begins with.
fn take_from_path(path: &mut Cow<'_, str>, prefixes: &[String]) -> Option<Box<str>> {
    let (token, rest) = prefixes.iter().find_map(|prefix| tokens::from_path(path, prefix))?;
    let (token, rest) = (Box::from(token), rest.to_owned());
    *path = Cow::Owned(rest);
    Some(token)
}

/// Has tokens taken out of the fields that they are in.
fn take_from_fields(headers: &HeaderMap, places: &TokenPlaces, rewritten: &mut Rewrites) {
    for name in &places.fields {
        if headers.contains_key(name)
            && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
        {
            rewritten.push((name, None));
        }
    }
    if places.cookies.is_empty() {
        return;
    }
    // There is one line of cookies at most: they have been joined.
    if let Some(line) = headers.get(COOKIE)
        && let Some(left) = tokens::from_cookies(line.as_bytes(), &places.cookies)
    {
        // The bytes are those of a field's value.
        rewritten.push((COOKIE, left.and_then(|left| HeaderValue::from_bytes(&left).ok())));
    }
}

/// The target for the origin of a request that had tokens: what was sent without them, unless that has dot segments.
fn for_origin_without_tokens(sent: (&str, Option<&str>), normal: (&str, Option<&str>)) -> Box<str> {
    let (path, query) = if has_dot_segments(sent.0) { normal } else { sent };
    match query {
        Some(query) => format!("{path}?{query}").into(),
        None => Box::from(path),
    }
}

/// The settings for, and the key of, a GET for another target on the same site and authority; `None` if its answer would not
/// be stored.
///
/// The fields of the request that names it stand for those of the other, which is as near as one can come.
pub fn key_of_get<'a>(
    site: &'a Site,
    authority: &str,
    target: &str,
    headers: &HeaderMap,
    trusted: bool,
    visitor: Visitor<'_>,
) -> Option<(&'a Policy, Key, KeyText)> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(normalise_query(query))),
        None => (target, None),
    };
    let path = normalise_path(path);
    let withheld = withheld(headers, trusted);
    let method = Method::GET.as_str();
    let facts = Facts { method, path: &path, query: query.as_deref(), headers, withheld: &withheld, visitor };
    let route = route(site, &facts);
    let cache = policy(site, route).cache.as_ref()?;
    let (key, text) = key_of((site, route), &facts, &reduce(headers, &cache.vary), (authority, trusted));
    Some((cache, key, text))
}

/// Whether the fields of a request announce content.
pub fn announces_content(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

/// The settings of a route, or the site's own.
pub fn policy(site: &Site, route: Option<usize>) -> &RequestPolicy {
    match route {
        Some(route) => &site.routes[route].policy,
        None => &site.policy,
    }
}

/// Of the fields, those that the policy lists are read, and no others: the withheld ones among them stay in the request.
fn key_of(
    (site, route): (&Site, Option<usize>),
    facts: &Facts<'_>,
    rewritten: &[Rewrite],
    (authority, trusted): (&str, bool),
) -> (Key, KeyText) {
    let mut text = KeyText::new();
    let by_client =
        route.map(|route| &site.routes[route]).filter(|route| route.matcher.client != ClientMatcher::default());
    let parts = KeyParts {
        zone: &site.name,
        host: authority,
        path: facts.path,
        query: facts.query,
        headers: facts.headers,
        rewritten,
        secure: facts.visitor.secure,
        trusted,
        route: by_client.map(|route| &*route.name),
        policy: &policy(site, route).key,
    };
    (key(&parts, &mut text), text)
}

/// The normalised host and port. An absolute target and :authority name them; else Host does (RFC 9112 §3.2.2).
fn authority<'a>(asked: &Asked<'a>) -> Result<(Cow<'a, str>, usize), Refusal> {
    let bad = |reason: &'static str| {
        Refusal::new(StatusCode::BAD_REQUEST, "The request names no valid host.", reason).closing()
    };
    let mut lines = asked.headers.get_all(HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(bad("several Host fields"));
    }
    let named = match asked.uri.authority() {
        Some(authority) => authority.as_str(),
        None => line.and_then(|v| v.to_str().ok()).ok_or_else(|| bad("no Host field, or not a name"))?,
    };
    let default_port = if asked.visitor.secure { 443 } else { 80 };
    normalise_authority(named, default_port).map_err(|e| bad(e.as_str()))
}

/// The path and query as they were sent, in ASCII.
fn target<'a>(asked: &Asked<'a>) -> Result<(Cow<'a, str>, Option<Cow<'a, str>>), Refusal> {
    let invalid = |reason: &'static str| {
        Err(Refusal::new(StatusCode::BAD_REQUEST, "The request's target is not valid.", reason).closing())
    };
    let (sent, uri) = (asked.target, asked.uri);
    let is_url = |scheme: &[u8]| sent.len() > scheme.len() && sent[..scheme.len()].eq_ignore_ascii_case(scheme);
    let is_form = sent.starts_with(b"/") || is_url(b"http://") || is_url(b"https://");
    // A bare name belongs to CONNECT, and the asterisk to OPTIONS (RFC 9112 §3.2): neither is a path.
    if !is_form && (sent != b"*" || asked.method != Method::OPTIONS) {
        return invalid("a target that is neither a path nor a URL");
    }
    let readable = || str::from_utf8(sent).is_ok() && uri.path().is_ascii() && uri.query().is_none_or(str::is_ascii);
    if sent.is_ascii() || readable() {
        return Ok((Cow::Borrowed(uri.path()), uri.query().map(Cow::Borrowed)));
    }
    if !sent.starts_with(b"/") {
        return invalid("an absolute target with bytes beyond ASCII");
    }
    // Bytes that are no ASCII mean what their percent-encoding means (RFC 3986 §2.5).
    let mut text = String::with_capacity(sent.len() * 2);
    for &byte in sent {
        match byte.is_ascii() {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text.as_str(), None),
    };
    Ok((Cow::Owned(path.to_owned()), query.map(|query| Cow::Owned(query.to_owned()))))
}

/// The target for the origin where it cannot be the client's own. An origin that does not resolve dot segments as we do
/// would answer another question than the one in the cache key; and it is asked in origin form (RFC 9112 §3.2.1).
fn for_origin(asked: &Asked<'_>, path: &str, query: Option<&str>) -> Option<Box<str>> {
    // Without an allocation for most: what is in normal form has no dot segments.
    if path != asked.uri.path() && has_dot_segments(asked.uri.path()) {
        return Some(match query {
            Some(query) => format!("{path}?{query}").into(),
            None => Box::from(path),
        });
    }
    if asked.target.starts_with(b"/") || asked.target == b"*" {
        return None;
    }
    Some(Box::from(asked.uri.path_and_query().map_or("/", |target| target.as_str())))
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
