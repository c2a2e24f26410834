//! The first checks of a request: is it well-formed, within limits, and for whom.

use std::borrow::Cow;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::RequestHeader;
use pingora_proxy::Session;

use super::client::Client;
use super::context::{Context, Request};
use super::request_id::RequestId;
use super::respond::Answer;
use super::state::Shared;
use super::{forward, link};
use crate::config::model::{Limits, RequestPolicy, Site};
use crate::http_cache::{Policy, RequestDirectives};
use crate::site::{self, KeyParts, KeyText};

/// Finds out what governs the request.
///
/// # Errors
/// The answer to a request that goes no further.
pub fn admit(shared: &Shared, session: &mut Session, ctx: &mut Context) -> Result<(), Answer> {
    let snapshot = shared.snapshot();
    // What was sent is what is limited.
    let within_limits = within_limits(session.req_header(), &snapshot.config.limits);
    if within_limits.is_ok() {
        // The origin does not get these. Were they still there, they would choose a route, a key or a variant for an
        // answer that does not depend on them.
        forward::drop_nominated(session.req_header_mut());
    }
    if let Some(peer) = link::peer(session) {
        let client = Client::of(peer, &session.req_header().headers, &snapshot.config.trusted_proxies);
        if !client.trusted {
            forward::drop_unkeyed(session.req_header_mut());
        }
        ctx.client = Some(client);
    }
    let has_content = has_content(session);
    let session = &*session;
    let header = session.req_header();
    ctx.id = RequestId::of(&header.headers);
    ctx.reply.version = Some(header.version);
    within_limits?;
    framing(session, &header.headers)?;
    if forward::loops(&header.headers, &shared.cdn_id) {
        return Err(Answer::new(
            StatusCode::LOOP_DETECTED,
            "The request has passed through this server before.",
            "loop: CDN-Loop names this server",
        ));
    }
    if header.method == Method::TRACE {
        return Err(Answer::new(StatusCode::METHOD_NOT_ALLOWED, "TRACE is not served.", "TRACE is not served"));
    }
    let host = host(header)?;
    let (path, query) = target(header)?;
    let Some(site) = snapshot.directory.find(&host) else {
        return Err(Answer::new(
            StatusCode::MISDIRECTED_REQUEST,
            "No site of this name is served here.",
            format!("no site for host {host:?}"),
        ));
    };
    let facts =
        site::Facts { method: header.method.as_str(), path: &path, query: query.as_deref(), headers: &header.headers };
    let route = site::route(&snapshot.config.sites[site], &facts);
    let mut request = Request {
        snapshot,
        site,
        route,
        host: Box::from(&*host),
        target: resolved(header, &path, query.as_deref()),
        key: None,
        directives: RequestDirectives::default(),
    };
    // What a GET with content means is between the client and the origin (RFC 9110 §9.3.1): it is not in the key.
    if let Some(policy) = request.cache_policy()
        && !has_content
    {
        request.directives = RequestDirectives::parse(&header.headers, policy);
        request.key = Some(key(request.site(), request.policy(), &facts, &host));
    }
    ctx.in_flight = Some(request.snapshot.site_metrics(site).enter());
    ctx.request = Some(request);
    Ok(())
}

/// The target for the origin where it cannot be the client's own: an origin that does not resolve dot segments as we do
/// would answer another question than the one in the cache key.
fn resolved(header: &RequestHeader, path: &str, query: Option<&str>) -> Option<Box<str>> {
    // Without an allocation for most: what is in normal form has none.
    if path == header.uri.path() || !site::has_dot_segments(header.uri.path()) {
        return None;
    }
    Some(match query {
        Some(query) => format!("{path}?{query}").into(),
        None => Box::from(path),
    })
}

/// Refuses what another server might read another length of.
fn framing(session: &Session, headers: &HeaderMap) -> Result<(), Answer> {
    let ambiguous = |reason: &'static str| {
        Err(Answer::new(StatusCode::BAD_REQUEST, "The request's length is ambiguous.", reason).closing())
    };
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if link::raw_head(session).is_some_and(|head| has_length(&head)) {
            return ambiguous("Content-Length beside Transfer-Encoding");
        }
        // RFC 9112 §6.1: a coding that is not understood. None but chunked is decoded here.
        if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            let (text, reason) =
                ("The request's transfer coding is not supported.", "Transfer-Encoding beyond chunked");
            return Err(Answer::new(StatusCode::NOT_IMPLEMENTED, text, reason).closing());
        }
    }
    // RFC 9112 §6.3 allows for a list of equal values, but not every origin counts them as one.
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let is_list = lengths.next().is_some_and(|length| length.as_bytes().contains(&b','));
    if is_list || lengths.next().is_some() {
        return ambiguous("more than one Content-Length");
    }
    Ok(())
}

/// Whether a header section states a Content-Length, which Pingora has removed by now where there is a
/// Transfer-Encoding: an attempt to smuggle a request past one that reads it otherwise (RFC 9112 §6.1).
fn has_length(head: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length:";
    head.split(|byte| *byte == b'\n')
        .any(|line| line.len() >= NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
}

/// Whether the request has a body, or may have one: over HTTP/2 it needs no field to announce it.
fn has_content(session: &mut Session) -> bool {
    let headers = &session.req_header().headers;
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
        || (link::is_http2(session) && !session.is_body_done())
}

fn key(site: &Site, policy: &RequestPolicy, facts: &site::Facts<'_>, host: &str) -> (site::Key, KeyText) {
    let mut text = KeyText::new();
    let parts = KeyParts {
        zone: &site.name,
        host,
        path: facts.path,
        query: facts.query,
        headers: facts.headers,
        policy: &policy.key,
    };
    (site::key(&parts, &mut text), text)
}

/// The key under which a GET for another target on this request's host would be stored; `None` if it would not.
///
/// The fields of this request stand for those of the other, which is as near as one can come.
pub fn key_of_get<'a>(
    request: &'a Request,
    header: &RequestHeader,
    target: &str,
) -> Option<(&'a Policy, site::Key, KeyText)> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(site::normalise_query(query))),
        None => (target, None),
    };
    let path = site::normalise_path(path);
    let facts =
        site::Facts { method: Method::GET.as_str(), path: &path, query: query.as_deref(), headers: &header.headers };
    let site = request.site();
    let route = site::route(site, &facts);
    let policy = route.map_or(&site.policy, |route| &site.routes[route].policy);
    let cache = policy.cache.as_ref()?;
    let (key, text) = key(site, policy, &facts, &request.host);
    Some((cache, key, text))
}

fn within_limits(header: &RequestHeader, limits: &Limits) -> Result<(), Answer> {
    let target = header.raw_path().len();
    if target > limits.uri_length {
        return Err(Answer::new(
            StatusCode::URI_TOO_LONG,
            "The request's target is too long.",
            format!("target of {target} bytes, limits.uri_length is {}", limits.uri_length),
        )
        .closing());
    }
    let count = header.headers.len();
    let size = header.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
        + target
        + header.method.as_str().len();
    if count > limits.header_count || size > limits.header_size {
        return Err(Answer::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "The request's header section is too large.",
            format!(
                "header section of {count} fields and {size} bytes, limits are {} and {}",
                limits.header_count, limits.header_size
            ),
        )
        .closing());
    }
    let announced = header.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.trim().parse::<u64>().ok());
    if let (Some(announced), Some(limit)) = (announced, limits.body_size)
        && announced > limit
    {
        return Err(too_large(announced, limit));
    }
    Ok(())
}

/// The answer to a request whose body is larger than it may be.
pub fn too_large(size: u64, limit: u64) -> Answer {
    Answer::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "The request's body is too large.",
        format!("request body of {size} bytes, limits.body_size is {limit}"),
    )
    .closing()
}

/// The normalised host. An absolute target and :authority name it; else Host does (RFC 9112 §3.2.2).
fn host(header: &RequestHeader) -> Result<Cow<'_, str>, Answer> {
    let bad =
        |reason: String| Answer::new(StatusCode::BAD_REQUEST, "The request names no valid host.", reason).closing();
    let mut lines = header.headers.get_all(HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(bad("several Host fields".into()));
    }
    let host = match header.uri.authority() {
        Some(authority) => authority.as_str(),
        None => line.and_then(|v| v.to_str().ok()).ok_or_else(|| bad("no Host field, or not a name".into()))?,
    };
    site::normalise_host(host).map_err(|e| bad(e.as_str().to_owned()))
}

/// The normalised path and query.
fn target(header: &RequestHeader) -> Result<(Cow<'_, str>, Option<Cow<'_, str>>), Answer> {
    let invalid = |reason: &str| {
        Err(Answer::new(StatusCode::BAD_REQUEST, "The request's target is not valid.", reason).closing())
    };
    let sent = header.raw_path();
    let is_url = |scheme: &[u8]| sent.len() > scheme.len() && sent[..scheme.len()].eq_ignore_ascii_case(scheme);
    let is_form = sent.starts_with(b"/") || is_url(b"http://") || is_url(b"https://");
    // A bare name belongs to CONNECT, and the asterisk to OPTIONS (RFC 9112 §3.2): neither is a path.
    if !is_form && (sent != b"*" || header.method != Method::OPTIONS) {
        return invalid("a target that is neither a path nor a URL");
    }
    if header.raw_path_is_utf8() && header.uri.path().is_ascii() && header.uri.query().is_none_or(str::is_ascii) {
        return Ok((site::normalise_path(header.uri.path()), header.uri.query().map(site::normalise_query)));
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
    Ok((
        Cow::Owned(site::normalise_path(path).into_owned()),
        query.map(|query| Cow::Owned(site::normalise_query(query).into_owned())),
    ))
}
