//! What a request that changes something makes stale (RFC 9111 §4.4).

use http::StatusCode;
use pingora_proxy::Session;

use super::admit;
use super::context::Context;
use super::state::Shared;
use crate::http_cache;
use crate::store::ObjectKey;

/// Removes what is stored for the request's own URL, and for those that its response names on the same host.
pub fn after(shared: &Shared, session: &Session, ctx: &Context) {
    let Some(request) = &ctx.request else { return };
    let header = session.req_header();
    let Some(status) = ctx.cache.forward_status.and_then(|s| StatusCode::from_u16(s).ok()) else { return };
    let target = header.uri.path_and_query().map_or("/", |t| t.as_str());
    let empty = http::HeaderMap::new();
    let response = session.response_written().map_or(&empty, |head| &head.headers);
    for target in http_cache::invalidated(&header.method, status, &request.host, target, response) {
        if let Some(key) = admit::key_of_get(request, header, &target) {
            shared.store.memory().remove(&ObjectKey::primary(key.hash));
        }
    }
}
