//! What becomes of a request that there is no capacity for: what is stale, else a 503.

use pingora::Result;
use pingora_proxy::Session;

use super::context::Context;
use super::hit;
use super::respond::respond;
use super::state::Shared;
use crate::http_cache::{self, Outcome, Reuse};

/// Refuses a request if the process has too much to do for it; `is_hit`: for one that the cache may answer. Whether the
/// client has its answer.
///
/// # Errors
/// The client has gone, or the disk has failed.
pub async fn answer(shared: &Shared, session: &mut Session, ctx: &mut Context, is_hit: bool) -> Result<bool> {
    let Some(shed) = shared.overload.verdict(is_hit) else { return Ok(false) };
    // What is refused is in nobody's way.
    ctx.flight = None;
    if !is_hit && stale(session, ctx).await? {
        return Ok(true);
    }
    respond(session, ctx, shed.into()).await?;
    Ok(true)
}

/// Serves what is stored and stale, where it may be served while the origin is asked or where asking fails (RFC 5861):
/// a 503 of our own is no better than one of the origin's.
async fn stale(session: &mut Session, ctx: &mut Context) -> Result<bool> {
    let (Some(object), Some(request)) = (ctx.cache.found.clone(), &ctx.request) else { return Ok(false) };
    let facts = object.head.record.facts;
    let may = match http_cache::reuse(&facts, &request.directives, ctx.now) {
        Reuse::Fresh | Reuse::Stale | Reuse::StaleWhileRevalidate => true,
        Reuse::Revalidate(_) => facts.stale_if_error_allowed(&request.directives, ctx.now),
        Reuse::OnlyIfCached => false,
    };
    if !may {
        return Ok(false);
    }
    ctx.cache.outcome = Outcome::Stale;
    ctx.cache.ttl = Some(facts.ttl(ctx.now));
    object.hit();
    hit::serve(session, ctx, &object).await?;
    Ok(true)
}
