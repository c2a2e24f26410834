//! The proxy, hook by hook, in the order in which Pingora calls them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use pingora_cache::key::HashBinary;
use pingora_cache::{CacheKey, CacheMeta, ForcedFreshness, HitHandler, RespCacheable};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, RangeType, Session};

use super::context::Context;
use super::framing::End;
use super::state::Shared;
use super::{
    admission, admit, body, caching, fallback, finish, framing, hit, interim, invalidate, link, pass, post,
    purge_method, ranges, respond, shed, trace, upstream,
};

/// The edge.
pub struct Edge {
    pub shared: Arc<Shared>,
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new()
    }

    /// None: each would cost every request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    // ---- the request

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        if session.subrequest_ctx.is_some() {
            // What is stale can wait for times that are better.
            if self.shared.overload.is_pressing() {
                return Ok(true);
            }
            ctx.background = self.shared.background.begin();
            if ctx.background.is_none() {
                return Ok(true);
            }
        }
        body::prepare(session, &self.shared.snapshot().config.limits);
        if let Err(answer) = admit::admit(&self.shared, session, ctx) {
            respond::respond(session, ctx, answer).await?;
            return Ok(true);
        }
        if session.subrequest_ctx.is_some() {
            return Ok(false);
        }
        if let Some(wait) = ctx.guards.as_ref().map(|passed| passed.wait).filter(|wait| !wait.is_zero()) {
            tokio::time::sleep(wait).await;
        }
        ctx.flight = self.shared.overload.enter();
        if shed::answer(&self.shared, session, ctx, true).await? {
            return Ok(true);
        }
        if purge_method::answer(&self.shared, session, ctx).await? {
            return Ok(true);
        }
        if hit::answer(&self.shared, session, ctx).await? {
            return Ok(true);
        }
        if shed::answer(&self.shared, session, ctx, false).await? {
            return Ok(true);
        }
        if !pass::takes(&self.shared, session, ctx) {
            return Ok(false);
        }
        // Apart: what the store answers is not to carry it along.
        Box::pin(pass::answer(&self.shared, session, ctx)).await.map(|()| true)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        data: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        body::received(session, data.as_ref(), end, ctx)
    }

    // ---- the cache

    fn request_cache_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        caching::enable(&self.shared, session, ctx);
        post::note(&self.shared, session, ctx);
        Ok(())
    }

    fn cache_key_callback(&self, _: &Session, ctx: &mut Context) -> Result<CacheKey> {
        caching::key(ctx)
    }

    fn cache_vary_filter(&self, meta: &CacheMeta, ctx: &mut Context, request: &RequestHeader) -> Option<HashBinary> {
        caching::variance(meta, request, ctx)
    }

    async fn cache_hit_filter(
        &self,
        session: &mut Session,
        meta: &CacheMeta,
        handler: &mut HitHandler,
        is_fresh: bool,
        ctx: &mut Context,
    ) -> Result<Option<ForcedFreshness>> {
        Ok(caching::on_hit(&self.shared, session, ctx, meta, handler, is_fresh).await)
    }

    /// Whether the client's condition is met, so that it gets a 304.
    fn cache_not_modified_filter(&self, session: &Session, head: &ResponseHeader, ctx: &mut Context) -> Result<bool> {
        Ok(caching::not_modified(session, head, ctx))
    }

    fn range_header_filter(&self, session: &mut Session, head: &mut ResponseHeader, ctx: &mut Context) -> RangeType {
        ranges::apply(session, head, ctx)
    }

    // ---- towards the origin

    async fn proxy_upstream_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        if caching::only_if_cached(session, ctx) {
            hit::only_if_cached(session, ctx).await?;
            return Ok(false);
        }
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        upstream::peer(session, ctx)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        upstream::request(&self.shared, session, request, ctx)
    }

    // ---- the origin's answer

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        upstream::response(session, response, ctx)?;
        interim::send(session, response, ctx).await;
        invalidate::by(&self.shared, session, response, ctx).await;
        if ctx.upstream.end == End::InDoubt {
            return framing::answer_once(session, response, ctx).await;
        }
        post::begin(&self.shared, session, response, ctx);
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        data: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        post::came(data.as_ref(), end, ctx);
        Ok(body::came(session, data.as_ref(), ctx))
    }

    fn response_cache_filter(
        &self,
        session: &Session,
        response: &ResponseHeader,
        ctx: &mut Context,
    ) -> Result<RespCacheable> {
        Ok(admission::on_response(&self.shared, session, response, ctx))
    }

    fn should_serve_stale(&self, session: &mut Session, ctx: &mut Context, failure: Option<&Error>) -> bool {
        caching::may_serve_stale(&self.shared, session, ctx, failure)
    }

    // ---- the answer to the client

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        trace::complete(session, response, ctx)
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        data: &mut Option<Bytes>,
        _: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        body::leaves(data, ctx);
        Ok(None)
    }

    // ---- failures

    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, ctx: &mut Context, e: Box<Error>) -> Box<Error> {
        upstream::failed(ctx, e)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        _: &mut Session,
        e: Box<Error>,
        ctx: &mut Context,
        _: bool,
    ) -> Box<Error> {
        upstream::failed(ctx, e)
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Context) -> FailToProxy {
        finish::fail(session, e, ctx).await
    }

    // ---- the end

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Context) {
        // A fill beside the way to the client that has not ended by now has failed. Whoever comes once the client has been
        // told is not to follow it.
        ctx.cache.beside = None;
        if let Some(e) = e {
            // Whoever follows another request's answer has no other place for it.
            fallback::serve(session, e, ctx).await;
        }
        finish::finish(&self.shared, session, e, ctx);
        // A connection that has become a tunnel has no request whose end could be missing.
        let unread = !session.is_body_done() && ctx.reply.status != StatusCode::SWITCHING_PROTOCOLS.as_u16();
        if let Some(connection) = link::connection(session) {
            connection.request_ended();
            connection.linger(unread);
        }
    }

    /// The access log has the reason of each failure; beside it, Pingora would write each twice more.
    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, ctx: &Context, _: &Error, what: ProxyWarnLogContext) -> bool {
        if let ProxyWarnLogContext::DownstreamCache = what {
            body::client_left(ctx);
        }
        true
    }
}
