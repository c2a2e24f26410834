//! What a request that changes something makes stale (RFC 9111 §4.4).

use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::state::Shared;
use super::{admit, caching};
use crate::http_cache;

/// Removes what is stored for the request's own URL, and for those that the origin's response names on the same host.
///
/// Before the client is told that the change is done: what it asks next must not be answered with what was before.
pub fn by(shared: &Shared, session: &Session, response: &ResponseHeader, ctx: &Context) {
    let (Some(request), header) = (&ctx.request, session.req_header()) else { return };
    if caching::eligible(&header.method) {
        return;
    }
    let target = header.uri.path_and_query().map_or("/", |t| t.as_str());
    for target in http_cache::invalidated(&header.method, response.status, &request.host, target, &response.headers) {
        if let Some((_, key, _)) = admit::key_of_get(request, header, &target) {
            shared.store.invalidate(key.hash);
        }
    }
}
