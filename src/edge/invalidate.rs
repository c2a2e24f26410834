//! What a request that changes something makes stale (RFC 9111 §4.4).

use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::state::Shared;
use crate::{http_cache, site};

/// Removes what is stored for the request's own URL, and for those that the origin's response names on the same host.
///
/// Before the client is told that the change is done: what it asks next must not be answered with what was before.
pub async fn by(shared: &Shared, session: &Session, response: &ResponseHeader, ctx: &Context) {
    let (Some(request), header) = (&ctx.request, session.req_header()) else { return };
    if http_cache::is_cached_method(&header.method) {
        return;
    }
    let target = header.uri.path_and_query().map_or("/", |t| t.as_str());
    for target in
        http_cache::invalidated(&header.method, response.status, &request.authority, target, &response.headers)
    {
        let get = site::key_of_get(request.site(), &request.authority, &target, &header.headers, ctx.is_trusted());
        if let Some((_, key, _)) = get {
            shared.store.invalidate(key.hash, &key.url.unwrap_or(key.hash)).await;
        }
    }
}
