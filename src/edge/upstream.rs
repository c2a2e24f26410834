//! Towards the origin: choosing a server, trying again, telling what failed.

use std::time::{Instant, SystemTime};

use http::{Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use super::forward::{self, Way};
use super::framing;
use super::respond::Answer;
use super::state::{Shared, Towards};
use crate::observe::Failure;
use crate::origin::{self, Ask, FailureKind};

/// No server was there to be asked.
pub const NO_SERVER: ErrorType = ErrorType::Custom("NoServer");

/// Kept connections of a request that may turn out closed without counting as tries. More than a few, and it is the
/// server that closes them on each request: those who wait for this one must not wait for all of them.
const MAX_STALE: usize = 4;

/// Chooses a server that this request has not tried yet.
pub fn choose(session: &Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
    let Some(request) = &ctx.request else {
        return Error::e_explain(ErrorType::InternalError, "a request without a site");
    };
    let Towards { pool, metrics } = request.snapshot.towards(request.policy().origin);
    let chosen = match pool.select(&Ask { tried: &ctx.upstream.tried, ..Ask::default() }) {
        Ok(chosen) => chosen,
        Err(reason) => {
            metrics.failed(Failure::Unavailable);
            let name = &pool.origin().name;
            // As if the origin had failed: what is stale may be served.
            let (kind, why) = match ctx.upstream.failure.take() {
                // All that could be tried has been: what failed last is the answer.
                Some((kind, why)) => (kind, format!("no other server of origin {name:?} is available after {why}")),
                None => (NO_SERVER, format!("no server of origin {name:?} is available: {reason}")),
            };
            return Err(Error::create(kind, ErrorSource::Upstream, Some(why.into()), None));
        }
    };
    if ctx.upstream.tries > 0 {
        metrics.retried();
    }
    ctx.upstream.tries += 1;
    ctx.upstream.began = Some(Instant::now());
    let peer = if session.is_upgrade_req() { pool.tunnel(&chosen) } else { pool.peer(&chosen) };
    ctx.upstream.chosen = Some(chosen);
    Ok(peer)
}

/// The connection stands.
pub fn connected(ctx: &mut Context, reused: bool) {
    let (Some(request), Some(began)) = (&ctx.request, ctx.upstream.began) else { return };
    let metrics = &request.snapshot.towards(request.policy().origin).metrics;
    match reused {
        true => metrics.reused(),
        false => metrics.opened(began.elapsed()),
    }
}

/// Writes the request for the origin.
pub fn request(shared: &Shared, session: &Session, header: &mut RequestHeader, ctx: &mut Context) -> Result<()> {
    let (Some(request), Some(client), Some(chosen)) = (&ctx.request, ctx.client, &ctx.upstream.chosen) else {
        return Error::e_explain(ErrorType::InternalError, "a request without a site, a client or a server");
    };
    let asked = session.req_header();
    if let Some(target) = &request.target {
        header.set_raw_path(target.as_bytes())?;
    }
    if asked.method == Method::HEAD
        && session.subrequest_ctx.is_none()
        && session.cache.enabled()
        && session.cache.maybe_cache_meta().is_some()
    {
        // Pingora asks by GET, so that the answer can be stored. Where something is, only its fields are to be seen to.
        header.set_method(Method::HEAD);
        ctx.upstream.by_head = true;
    }
    let origin = &request.snapshot.config.origins[request.policy().origin];
    let way = Way {
        client,
        received: ctx.reply.version.unwrap_or(Version::HTTP_11),
        host: &request.authority,
        scheme: "http",
        request_id: ctx.id.as_str(),
        cdn_id: &shared.cdn_id,
        host_header: &origin.host,
        server: chosen.server(),
    };
    forward::prepare(header, &way)?;
    ctx.upstream.sent = Some(SystemTime::now().into());
    Ok(())
}

/// Looks at the origin's response before anybody else does.
///
/// # Errors
/// It is malformed: the client gets a 502, and the connection to the origin is not used again.
pub fn response(session: &Session, header: &mut ResponseHeader, ctx: &mut Context) -> Result<()> {
    if header.status == StatusCode::SWITCHING_PROTOCOLS {
        framing::switching(session, header)?;
        answered(header.status, ctx);
        return Ok(());
    }
    let end = framing::settle(header)?;
    if header.status.is_informational() {
        return Ok(());
    }
    ctx.upstream.end = end;
    answered(header.status, ctx);
    if header.status == StatusCode::NOT_MODIFIED && session.cache.maybe_cache_meta().is_some() {
        ctx.cache.not_modified = Some(Box::new(header.clone()));
    }
    Ok(())
}

/// The origin has answered.
pub fn answered(status: StatusCode, ctx: &mut Context) {
    ctx.upstream.answered = true;
    ctx.cache.forward_status = Some(status.as_u16());
    let time = ctx.upstream.began.map(|began| began.elapsed()).unwrap_or_default();
    ctx.upstream.time = Some(time);
    if let Some(request) = &ctx.request {
        request.snapshot.towards(request.policy().origin).metrics.answered(status.as_u16(), time);
    }
}

/// A connection could not be made: another server is tried, since nothing of the request has been sent.
pub fn connect_failed(ctx: &mut Context, mut e: Box<Error>) -> Box<Error> {
    let again = failed(ctx, &e);
    if let Some(chosen) = &ctx.upstream.chosen {
        ctx.upstream.tried.push(chosen.endpoint().clone());
    }
    e.set_retry(again);
    e
}

/// A connection failed that was made. The request is tried again where it may be sent twice and nothing has come back.
pub fn exchange_failed(session: &Session, ctx: &mut Context, mut e: Box<Error>, reused: bool) -> Box<Error> {
    if *e.esource() == ErrorSource::Downstream {
        e.set_retry(false);
        return e;
    }
    let silent = !ctx.upstream.answered && session.response_written().is_none();
    let lost = matches!(origin::kind(&e), FailureKind::Reset);
    // A kept connection may have been closed by the server meanwhile, which says nothing of the server. There may be
    // more of them than there are retries.
    if reused && silent && lost && ctx.upstream.stale < MAX_STALE {
        ctx.upstream.stale += 1;
    } else if let Some(chosen) = &ctx.upstream.chosen {
        ctx.upstream.tried.push(chosen.endpoint().clone());
    }
    let again = failed(ctx, &e);
    let repeatable = session.req_header().method.is_idempotent();
    e.set_retry(again && repeatable && silent && lost && !session.as_ref().retry_buffer_truncated());
    e
}

/// Notes a failed try; whether the origin's settings allow another.
fn failed(ctx: &mut Context, e: &Error) -> bool {
    let Some(request) = &ctx.request else { return false };
    let origin = request.policy().origin;
    let metrics = &request.snapshot.towards(origin).metrics;
    metrics.failed(match origin::kind(e) {
        FailureKind::Connect => Failure::Connect,
        FailureKind::ConnectTimeout => Failure::ConnectTimeout,
        FailureKind::Tls => Failure::Tls,
        FailureKind::Status => Failure::Status,
        FailureKind::Timeout => Failure::Timeout,
        FailureKind::Reset => Failure::Reset,
        FailureKind::Invalid => Failure::Protocol,
        FailureKind::Other => Failure::Other,
    });
    ctx.upstream.failure = Some((e.etype().clone(), e.to_string()));
    ctx.upstream.tries - ctx.upstream.stale <= request.snapshot.config.origins[origin].retries
}

/// What the client is told of a request that has failed; `None` where it is gone.
pub fn answer(session: &Session, e: &Error) -> Option<Answer> {
    use ErrorType::*;
    let text = |status: StatusCode, text: &'static str| Some(Answer::new(status, text, e.to_string()));
    match (e.esource(), e.etype()) {
        (_, HTTPStatus(413)) => {
            text(StatusCode::PAYLOAD_TOO_LARGE, "The request's body is too large.").map(Answer::closing)
        }
        (_, HTTPStatus(code)) => {
            text(StatusCode::from_u16(*code).unwrap_or(StatusCode::BAD_GATEWAY), "The request could not be served.")
        }
        (ErrorSource::Upstream, kind) if *kind == NO_SERVER => {
            text(StatusCode::SERVICE_UNAVAILABLE, "No server of the origin is available.")
        }
        (ErrorSource::Upstream, ConnectTimedout | ReadTimedout | WriteTimedout) => {
            text(StatusCode::GATEWAY_TIMEOUT, "The origin did not answer in time.")
        }
        (ErrorSource::Upstream, ConnectRefused | ConnectNoRoute | ConnectError) => {
            text(StatusCode::BAD_GATEWAY, "The origin could not be reached.")
        }
        (ErrorSource::Upstream, InvalidHTTPHeader) => {
            text(StatusCode::BAD_GATEWAY, "The origin's answer is not valid HTTP.")
        }
        (ErrorSource::Upstream, _) => {
            text(StatusCode::BAD_GATEWAY, "The origin ended the connection before its answer was complete.")
        }
        (ErrorSource::Downstream, ReadTimedout) => {
            text(StatusCode::REQUEST_TIMEOUT, "The request's body did not come in time.").map(Answer::closing)
        }
        (ErrorSource::Downstream, WriteError | WriteTimedout | ReadError | ConnectionClosed) => None,
        (ErrorSource::Downstream, _) => {
            text(StatusCode::BAD_REQUEST, "The request is not valid HTTP.").map(Answer::closing)
        }
        _ => text(StatusCode::INTERNAL_SERVER_ERROR, "The request could not be served."),
    }
    .filter(|_| session.response_written().is_none_or(|head| head.status.is_informational()))
}
