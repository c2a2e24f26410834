//! Towards the origin: who is asked for what, and what became of it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use super::client::Client;
use super::context::{Context, Request};
use super::forward::{self, Way};
use super::outgoing::Length;
use super::respond::Answer;
use super::state::{Shared, Towards};
use super::{affinity, framing, grpc, guards, link, outgoing};
use crate::origin::{self, Ending, Exchange, Failure, FailureKind, Proxied, Wanted};

/// No server was there to be asked.
pub const NO_SERVER: ErrorType = ErrorType::Custom("NoServer");

/// All servers have as much as they may.
pub const OVERLOADED: ErrorType = ErrorType::Custom("Overloaded");

/// What stands for the server's own name in a head that is for none yet.
const ANY_SERVER: &str = "server.invalid";

/// The request's way to its origin.
///
/// # Errors
/// The request has not been admitted.
pub fn exchange(session: &Session, ctx: &mut Context) -> Result<Arc<Exchange>> {
    let (Some(request), Some(client)) = (&ctx.request, ctx.client) else {
        return Error::e_explain(ErrorType::InternalError, "a request without a site or a client");
    };
    let index = request.policy().origin;
    let Towards { pool, witness, .. } = request.snapshot.towards(index);
    let origin = pool.origin();
    let header = session.req_header();
    let asked = affinity::Request {
        headers: &header.headers,
        key: request.key.as_ref().map(|(key, _)| key),
        host: &request.authority,
        target: request.asked_for(&header.uri),
        client: client.address,
    };
    let affinity =
        affinity::ask_of(&asked, &origin.balance, pool.sticky(), u64::try_from(ctx.now.as_secs()).unwrap_or_default());
    ctx.upstream.stays_with = affinity.stays_with;
    let wanted = Wanted {
        hash: affinity.hash,
        stays_with: affinity.stays_with,
        proxied: origin.proxy_protocol.and_then(|_| proxied(session, client)),
        repeatable: header.method.is_idempotent(),
        upgrade: session.is_upgrade_req(),
        dialogue: grpc::is_call(session, ctx),
    };
    let exchange = Exchange::new(pool.clone(), witness.clone(), wanted);
    ctx.upstream.exchange = Some(exchange.clone());
    Ok(exchange)
}

/// What Pingora takes for the connection to the origin.
pub fn peer(session: &Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
    Ok(origin::peer(exchange(session, ctx)?))
}

/// Who the client is and what it has connected to, for servers that are told by the PROXY protocol. Of one behind trusted
/// proxies, the port is not known.
fn proxied(session: &Session, client: Client) -> Option<Proxied> {
    let peer = super::link::peer(session)?;
    let client = if client.address == client.peer { peer } else { SocketAddr::new(client.address, 0) };
    let local = session.server_addr().and_then(|address| address.as_inet().copied());
    Some(Proxied { client, local: local.unwrap_or_else(|| SocketAddr::new(peer.ip(), 0)) })
}

/// Writes the request for the origin.
pub fn request(shared: &Shared, session: &Session, header: &mut RequestHeader, ctx: &mut Context) -> Result<()> {
    let (Some(request), Some(client)) = (&ctx.request, ctx.client) else {
        return Error::e_explain(ErrorType::InternalError, "a request without a site or a client");
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
    forward::prepare(header, &way(shared, request, client, ctx))
}

/// The same in one go, for a request that does not go through Pingora.
pub fn wire(shared: &Shared, session: &Session, ctx: &Context, length: Length, trailers: bool) -> Result<Bytes> {
    let (Some(request), Some(client)) = (&ctx.request, ctx.client) else {
        return Error::e_explain(ErrorType::InternalError, "a request without a site or a client");
    };
    let header = session.req_header();
    let target = request.target.as_ref().map_or(header.raw_path(), |target| target.as_bytes());
    Ok(outgoing::wire(header, target, &way(shared, request, client, ctx), length, trailers))
}

fn way<'a>(shared: &'a Shared, request: &'a Request, client: Client, ctx: &'a Context) -> Way<'a> {
    Way {
        client,
        received: ctx.reply.version.unwrap_or(Version::HTTP_11),
        host: &request.authority,
        // Of this hop: what a trusted proxy says of the one before stays in its own fields.
        scheme: if ctx.arrival.is_some() { "https" } else { "http" },
        request_id: ctx.id.as_str(),
        cdn_id: &shared.cdn_id,
        host_header: &request.snapshot.config.origins[request.policy().origin].host,
        server: ANY_SERVER,
    }
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
    guards::drop_fields(header, ctx);
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
}

/// What has failed towards the origin, in the terms in which it is answered and logged.
pub fn failed(ctx: &Context, mut e: Box<Error>) -> Box<Error> {
    // All that could be tried has been.
    e.set_retry(false);
    if *e.esource() == ErrorSource::Downstream {
        return e;
    }
    let Some(exchange) = &ctx.upstream.exchange else { return e };
    if let Some(failure) = exchange.trail().ended.clone() {
        return error(&failure);
    }
    if let Some(request) = &ctx.request {
        // What came is no answer.
        request.snapshot.towards(request.policy().origin).witness.failed(origin::kind(&e));
    }
    e
}

/// A failure as Pingora has it.
pub fn error(failure: &Failure) -> Box<Error> {
    let kind = match failure.ending {
        Ending::NoServer => NO_SERVER,
        Ending::Full => OVERLOADED,
        Ending::TooLong => ErrorType::ReadTimedout,
        Ending::Failed(kind) => match kind {
            FailureKind::Connect => ErrorType::ConnectError,
            FailureKind::ConnectTimeout => ErrorType::ConnectTimedout,
            FailureKind::Tls => ErrorType::TLSHandshakeFailure,
            FailureKind::Timeout => ErrorType::ReadTimedout,
            FailureKind::Reset => ErrorType::ConnectionClosed,
            FailureKind::Invalid => ErrorType::InvalidHTTPHeader,
            FailureKind::Status | FailureKind::Other => ErrorType::InternalError,
        },
    };
    Error::create(kind, ErrorSource::Upstream, Some(failure.why.clone().into()), None)
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
        (ErrorSource::Upstream, kind) if *kind == OVERLOADED => {
            text(StatusCode::SERVICE_UNAVAILABLE, "The origin has as many requests as it can take.")
        }
        (ErrorSource::Upstream, ConnectTimedout | ReadTimedout | WriteTimedout) => {
            text(StatusCode::GATEWAY_TIMEOUT, "The origin did not answer in time.")
        }
        (ErrorSource::Upstream, ConnectRefused | ConnectNoRoute | ConnectError | TLSHandshakeFailure) => {
            text(StatusCode::BAD_GATEWAY, "The origin could not be reached.")
        }
        (ErrorSource::Upstream, InvalidHTTPHeader) => {
            text(StatusCode::BAD_GATEWAY, "The origin's answer is not valid HTTP.")
        }
        (ErrorSource::Upstream, _) => {
            text(StatusCode::BAD_GATEWAY, "The origin ended the connection before its answer was complete.")
        }
        (ErrorSource::Downstream, kind) if *kind == ReadTimedout || is_slow(session, kind) => {
            text(StatusCode::REQUEST_TIMEOUT, "The request's body did not come in time.").map(Answer::closing)
        }
        (ErrorSource::Downstream, WriteError | WriteTimedout | ReadError | ConnectionClosed) => None,
        (ErrorSource::Downstream, _) => {
            text(StatusCode::BAD_REQUEST, "The request is not valid HTTP.").map(Answer::closing)
        }
        _ => text(StatusCode::INTERNAL_SERVER_ERROR, "The request could not be served."),
    }
    .filter(|_| !link::has_answered(session))
}

/// Whether a read has failed because the client sends its body too slowly.
fn is_slow(session: &Session, kind: &ErrorType) -> bool {
    *kind == ErrorType::ReadError
        && link::connection(session).is_some_and(|connection| connection.watched().had_slow_body())
}
