//! The first checks of a request: is it well-formed, within limits, and for whom.

use http::StatusCode;
use pingora_proxy::Session;

use super::checks;
use super::client::Client;
use super::context::{Context, Request};
use super::guards::AtGate;
use super::request_id::RequestId;
use super::respond::Answer;
use super::state::{Shared, Snapshot};
use super::{arrival, forward, guards, link, purge_method};
use crate::http_cache::RequestDirectives;
use crate::site::{self, Asked};

/// Finds out what governs the request.
///
/// # Errors
/// The answer to a request that goes no further.
pub fn admit(shared: &Shared, session: &mut Session, ctx: &mut Context) -> Result<(), Answer> {
    let snapshot = shared.snapshot();
    // What was sent is what is limited.
    let header = session.req_header();
    let within_limits =
        checks::within_limits(&header.method, header.raw_path(), &header.headers, &snapshot.config.limits);
    if within_limits.is_ok() {
        // The origin does not get these. Were they still there, they would choose a route, a key or a variant for an
        // answer that does not depend on them.
        forward::drop_fields(session.req_header_mut(), site::nominated);
    }
    forward::join_cookies(session.req_header_mut());
    if let Some(peer) = link::peer(session) {
        ctx.client = Some(Client::of(peer, &session.req_header().headers, &snapshot.config.trusted_proxies));
    }
    identify(&snapshot, session, ctx);
    let shows_key = wants_key(session, ctx.is_trusted());
    let content = has_content(session);
    let header = session.req_header();
    ctx.id = RequestId::of(&header.headers);
    ctx.reply.version = Some(header.version);
    within_limits?;
    if let Some(head) = link::raw_head(session) {
        checks::line_ends(&head)?;
    }
    // Pingora has removed a Content-Length beside a Transfer-Encoding by now.
    checks::framing(&header.headers, || link::raw_head(session).is_some_and(|head| has_length(&head)))?;
    if forward::loops(&header.headers, &shared.cdn_id) {
        return Err(Answer::new(
            StatusCode::LOOP_DETECTED,
            "The request has passed through this server before.",
            "loop: CDN-Loop names this server",
        ));
    }
    let asked = Asked {
        method: &header.method,
        uri: &header.uri,
        target: header.raw_path(),
        headers: &header.headers,
        content,
        trusted: ctx.is_trusted(),
        visitor: ctx.visitor(),
        tokens: snapshot.guards.tokens(),
    };
    let resolved = site::resolve(&asked, &snapshot.config, &snapshot.directory)?;
    let policy = resolved.policy(&snapshot.config);
    // What a refresh in the background is for has been let in, and a purge has guards of its own.
    let purges = purge_method::rules(&header.method, &snapshot.config.sites[resolved.site]).is_some();
    let (passed, verdict) = match session.subrequest_ctx.is_some() || purges {
        true => (None, Ok(())),
        false => {
            let metrics = snapshot.site_metrics(resolved.site);
            let at_gate = AtGate { snapshot: &snapshot, policy, resolved: &resolved, header, metrics };
            guards::check(shared, &at_gate, ctx)
        }
    };
    let pace = guards::pace(policy);
    let cache = policy.cache.as_ref();
    let directives = match (cache, &resolved.key) {
        (Some(policy), Some(_)) => RequestDirectives::parse(&header.headers, policy),
        _ => RequestDirectives::default(),
    };
    let (site, route) = (resolved.site, resolved.route);
    let (dropped, rewritten) = (resolved.dropped, resolved.rewritten);
    let request = Request {
        site,
        route,
        authority: Box::from(&*resolved.authority),
        target: resolved.target,
        key: resolved.key,
        directives,
        snapshot,
    };
    forward::drop_fields(session.req_header_mut(), |_| dropped);
    forward::rewrite_fields(session.req_header_mut(), rewritten);
    if let (true, Some((_, text))) = (shows_key, &request.key) {
        ctx.cache.shown_key = Some(site::describe(text.as_bytes()));
    }
    ctx.in_flight = Some(request.snapshot.site_metrics(request.site).enter());
    let limit = request.body_limit();
    ctx.request = Some(request);
    ctx.pace = pace;
    // Only now: the answer to a request that is refused is one of its site's, too.
    ctx.guards = passed;
    verdict.map_err(|answer| *answer)?;
    checks::body_within(&session.req_header().headers, limit)?;
    Ok(())
}

/// Finds out who the client is, and has the origin told of it.
fn identify(snapshot: &Snapshot, session: &mut Session, ctx: &mut Context) {
    ctx.arrival = arrival::of(session);
    ctx.secure = match ctx.is_trusted() && session.req_header().headers.contains_key("x-forwarded-proto") {
        true => site::is_https(&session.req_header().headers),
        false => ctx.arrival.is_some(),
    };
    if let Some(client) = ctx.client {
        (ctx.country, ctx.asn) = snapshot.guards.place(client.address);
    }
    if !snapshot.client_fields.is_empty() {
        snapshot.client_fields.write(session.req_header_mut(), ctx);
    }
}

/// Whether the client asks for the cache key in Cache-Status, and may. The field goes no further.
fn wants_key(session: &mut Session, trusted: bool) -> bool {
    let header = session.req_header_mut();
    let Some(wanted) = header.remove_header(&checks::DEBUG) else { return false };
    trusted && wanted.as_bytes().split(|b| *b == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"key"))
}

/// Whether a header section states a Content-Length beside a Transfer-Encoding: an attempt to smuggle a request past
/// one that reads it otherwise (RFC 9112 §6.1).
fn has_length(head: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length:";
    head.split(|byte| *byte == b'\n')
        .any(|line| line.len() >= NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
}

/// Whether the request has a body, or may have one: over HTTP/2 it needs no field to announce it.
pub(super) fn has_content(session: &mut Session) -> bool {
    site::announces_content(&session.req_header().headers) || (link::is_http2(session) && !session.is_body_done())
}
