//! The end of a request: the answer to one that failed, the access log, the figures.

use std::time::SystemTime;

use http::Version;
use http::header::{HOST, REFERER, USER_AGENT};
use pingora::{Error, ErrorSource};
use pingora_proxy::{FailToProxy, Session};

use super::context::{Context, Request};
use super::respond::respond;
use super::state::Shared;
use super::{fallback, guards, trace, upstream};
use crate::http_cache::Outcome;
use crate::observe::{Finished, Record};

/// Tells the client of a failure, if it is still there and has heard nothing yet.
pub async fn fail(session: &mut Session, e: &Error, ctx: &mut Context) -> FailToProxy {
    // Before the client knows, which may ask again at once: what has failed is not to be followed.
    ctx.cache.beside = None;
    // What has not come whole is not stored, whatever the head has said that has left.
    ctx.cache.stored &= *e.esource() != ErrorSource::Upstream;
    let gone = FailToProxy { error_code: 0, can_reuse_downstream: false };
    if ctx.reply.begun {
        return gone;
    }
    if fallback::serve(session, e, ctx).await {
        return FailToProxy { error_code: ctx.reply.status, can_reuse_downstream: false };
    }
    // That may have failed in its middle.
    if ctx.reply.begun {
        return gone;
    }
    let Some(answer) = upstream::answer(session, e) else {
        return gone;
    };
    let status = answer.status.as_u16();
    ctx.cache.outcome = Outcome::Local;
    ctx.cache.stored = false;
    // Pingora does not keep the client's connection after a failure, so the client must be told: else it would send
    // its next request into a connection that ends.
    match respond(session, ctx, answer.closing()).await {
        Ok(()) => FailToProxy { error_code: status, can_reuse_downstream: false },
        Err(_) => gone,
    }
}

/// Writes down what became of the request.
pub fn finish(shared: &Shared, session: &mut Session, e: Option<&Error>, ctx: &mut Context) {
    if session.subrequest_ctx.is_some() {
        return;
    }
    let duration = ctx.started.elapsed();
    let sent = ctx.reply.body_bytes.unwrap_or(session.body_bytes_sent() as u64);
    let outcome = if ctx.reply.status == 0 { Outcome::Local } else { ctx.cache.outcome };
    let cache = outcome.as_str();
    let tier = Some(ctx.cache.tier).filter(|tier| !tier.is_empty() && served_from_store(outcome));
    let metrics = match &ctx.request {
        Some(request) => request.snapshot.site_metrics(request.site),
        None => shared.no_site(),
    };
    metrics.record(&Finished {
        status: ctx.reply.status,
        cache,
        tier,
        bytes_sent: sent,
        bytes_received: ctx.request_bytes,
        duration,
        first_byte: ctx.reply.first_byte,
    });
    if let Some(request) = &ctx.request
        && ctx.upstream.body_bytes > 0
    {
        request.snapshot.towards(request.policy().origin).metrics.received(ctx.upstream.body_bytes);
    }
    let log = shared.access_log.load();
    let Some(log) = &*log else { return };
    let failure = e.map(|e| e.to_string());
    let passed = ctx.guards.as_deref();
    let detail =
        ctx.reply.reason.as_deref().or(failure.as_deref()).or(passed.and_then(|passed| passed.noted.as_deref()));
    let mut line = std::mem::take(&mut ctx.cache.line);
    trace::status(ctx).write(&mut line);
    let header = session.req_header();
    let field = |name| header.headers.get(name).map(|v: &http::HeaderValue| v.as_bytes());
    let snapshot = ctx.request.as_ref().map_or_else(|| shared.snapshot(), |request| request.snapshot.clone());
    let uri = guards::shown(&snapshot, header.raw_path());
    let referer = field(REFERER).map(|referer| guards::shown(&snapshot, referer));
    let authority = header.uri.authority().map(|a| a.as_str().as_bytes());
    let request = ctx.request.as_ref();
    let trail = ctx.upstream.trail();
    let asked = request.filter(|_| trail.is_some());
    log.log(&Record {
        time: SystemTime::from(ctx.now),
        client: ctx.client.map(|c| c.address),
        method: header.method.as_str().as_bytes(),
        host: field(HOST).or(authority),
        uri: &uri,
        protocol: protocol(ctx.reply.version.unwrap_or(header.version)),
        status: ctx.reply.status,
        bytes: sent,
        bytes_received: ctx.request_bytes,
        duration,
        first_byte: ctx.reply.first_byte,
        cache,
        cache_status: Some(&line),
        tier,
        site: request.map(|r| &*r.site().name),
        route: request.and_then(Request::route_name),
        origin: asked.map(|r| r.snapshot.config.origins[r.policy().origin].name.as_str()),
        server: trail.as_ref().and_then(|trail| Some(trail.server.as_ref()?.text())),
        origin_duration: trail.as_ref().and_then(|trail| trail.time),
        retries: trail.as_ref().map_or(0, |trail| u32::try_from(trail.tries.saturating_sub(1)).unwrap_or(u32::MAX)),
        request_id: Some(ctx.id.as_str()).filter(|id| !id.is_empty()),
        referer: referer.as_deref(),
        country: ctx.country.as_ref().and_then(|code| str::from_utf8(code).ok()),
        asn: ctx.asn,
        tls: ctx.secured().map(|secured| secured.version),
        identity: ctx.secured().and_then(|secured| secured.identities.first()).map(String::as_str),
        token: passed.and_then(|passed| passed.grant.as_ref()).map(|grant| grant.id.as_str()),
        user_agent: field(USER_AGENT),
        detail,
    });
}

fn served_from_store(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Hit | Outcome::Stale | Outcome::Updating | Outcome::Revalidated)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}
