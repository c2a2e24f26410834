//! What a request that changes something makes unusable (RFC 9111 §4.4, RFC 9875 §3).

use std::time::Duration;

use log::debug;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::state::Shared;
use crate::config::model::{ClientMatcher, Route};
use crate::http_cache::Tags;
use crate::invalidate::{By, Selector};
use crate::{http_cache, site};

/// How long the client waits for the disks to have it too.
const DURABLE_WITHIN: Duration = Duration::from_millis(250);

/// Purges the request's own URL, and the URLs and groups that the origin's response names on the same host.
///
/// Before the client is told that the change is done: what it asks next must not be answered with what was before.
pub async fn by(shared: &Shared, session: &Session, response: &ResponseHeader, ctx: &mut Context) {
    let (Some(request), header) = (&ctx.request, session.req_header()) else { return };
    if http_cache::is_cached_method(&header.method) {
        return;
    }
    let target = request.asked_for(&header.uri);
    let targets =
        http_cache::invalidated(&header.method, response.status, &request.authority, target, &response.headers);
    // Where another client may have another answer for the same URL, nobody knows all that is stored for it.
    let by_client = |route: &Route| route.matcher.client != ClientMatcher::default();
    let (mut lasting, mut keys) = (request.site().routes.iter().any(by_client), Vec::new());
    let selector = |target: String| {
        let (headers, trusted, visitor) = (&header.headers, ctx.is_trusted(), ctx.visitor());
        let get = site::key_of_get(request.site(), &request.authority, &target, headers, trusted, visitor);
        let (_, key, text) = get?;
        // So it is where the key has more than the URL.
        lasting |= key.has_more;
        keys.push(key.hash);
        let site::Parts { host, path, query, .. } = site::parts(text.as_bytes())?;
        Some(Selector::Url { host: host.into(), path: path.into(), query: query.map(Into::into) })
    };
    let urls: Vec<Selector> = targets.into_iter().filter_map(selector).collect();
    let groups = http_cache::invalidated_groups(&header.method, response.status, &response.headers);
    // RFC 9875 §2.1: groups are of one origin.
    let group = |name: String| Selector::Group { host: request.authority.clone(), name: name.into() };
    lasting |= !groups.is_empty();
    let selectors: Box<[Selector]> = urls.into_iter().chain(groups.into_iter().map(group)).collect();
    if selectors.is_empty() {
        return;
    }
    let mut post = ctx.cache.post.take();
    // What it is answered with may have been purged by one of these since it came.
    let tags = post.as_ref().and_then(|_| Tags::read(&response.headers, &request.cache_policy()?.tags).ok());
    let tags = tags.unwrap_or_default();
    let look = || post.iter_mut().for_each(|post| post.look(shared, &tags));
    let lasts = || lasting || keys.iter().any(|key| shared.store.may_hold(key));
    let appended = shared.store.ledger().append_after(look, selectors, By::Unsafe, lasts);
    post.iter_mut().for_each(|post| post.set_began(appended.sequence));
    ctx.cache.post = post;
    // It is in force. A disk that takes longer to have it holds up no client.
    if let Ok(Err(why)) = tokio::time::timeout(DURABLE_WITHIN, appended.written()).await {
        debug!("an invalidation is not written down: {why}");
    }
}
