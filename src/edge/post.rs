//! A response to POST that later GETs may be answered with (RFC 9110 §9.3.3).
//!
//! It is written into the store beside the way to the client: nobody who asks by POST is ever answered from there.

use bytes::Bytes;
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::admission::{self, Identity};
use super::caching;
use super::context::Context;
use super::state::Shared;
use crate::http_cache::{self, RequestDirectives, RequestFacts, Tags, Timestamp};
use crate::invalidate::Verdict;
use crate::site::{self, Key, KeyText};
use crate::store::{Head, ObjectKey, Written};

/// What a GET of the same URL would be looked up by.
pub struct Target {
    key: Key,
    text: KeyText,
    /// The ledger's head when the POST came; then, the POST's own entry.
    began: u64,
    /// Nothing else than the POST itself has purged it since.
    alive: bool,
}

impl Target {
    /// Looks at what others have purged, before the POST's own entry. `tags`: those of the POST's answer.
    pub fn look(&mut self, shared: &Shared, tags: &Tags) {
        let verdict = shared.store.ledger().verdict_on_way(self.text.as_bytes(), tags, self.began);
        self.alive = verdict == Verdict::Alive;
    }

    /// The POST's own entry has that sequence.
    pub fn set_began(&mut self, sequence: u64) {
        self.began = sequence;
    }
}

/// Notes what a GET of the POST's URL would be looked up by, before the origin hears of the POST: what changes the
/// resource meanwhile may be later than what the POST is answered with.
pub fn note(shared: &Shared, session: &Session, ctx: &mut Context) {
    let (Some(request), header) = (&ctx.request, session.req_header()) else { return };
    let Some(own) = request.cache_policy().filter(|_| header.method == Method::POST) else { return };
    let target = request.asked_for(&header.uri);
    let get =
        site::key_of_get(request.site(), &request.authority, target, &header.headers, ctx.is_trusted(), ctx.visitor());
    // Under other settings, other fields of the request would have reached the origin.
    let Some((_, key, text)) = get.filter(|(policy, ..)| std::ptr::eq(*policy, own)) else { return };
    ctx.cache.post = Some(Box::new(Target { began: shared.store.ledger().head(), alive: true, key, text }));
}

/// Begins to store the response, if it says that it is what a GET of the same URL would get. After the invalidation
/// that the POST itself brings.
pub fn begin(shared: &Shared, session: &Session, response: &ResponseHeader, ctx: &mut Context) {
    let (Some(request), header) = (&ctx.request, session.req_header()) else { return };
    let (Some(policy), Some(post), StatusCode::OK) = (request.cache_policy(), ctx.cache.post.take(), response.status)
    else {
        return;
    };
    let path = request.asked_for(&header.uri);
    if !http_cache::describes_target(&request.authority, path, &response.headers) {
        return;
    }
    let received = Timestamp::from(std::time::SystemTime::now());
    let directives = RequestDirectives::parse(&header.headers, policy);
    let sent = ctx.upstream.sent().unwrap_or(received);
    let facts = RequestFacts::new(&header.method, &header.headers, &directives, sent);
    let facts = RequestFacts { describes_target: true, ..facts };
    let Ok(stored) = http_cache::storability(&facts, response.status, &response.headers, policy, received) else {
        return;
    };
    let length = http_cache::content_length(&response.headers);
    let key = ObjectKey::primary(post.key.hash);
    if length.is_some_and(|length| !shared.store.takes(length, &key, policy.tiers)) || !shared.store.has_room() {
        return;
    }
    if !post.alive {
        return;
    }
    let shareable = admission::shareable(&stored, response, received);
    let mut meta = admission::meta(
        post.text.as_bytes(),
        &stored,
        shareable,
        Identity { id: 0, began: post.began, asked: sent, tiers: policy.tiers },
    );
    if let Some(variance) = caching::variance_of(meta.headers(), &header.headers) {
        meta.set_variance(variance);
    }
    let Some(head) = Head::of(&meta) else { return };
    // A client that reads slowly, or leaves, must hold back nobody: until it is whole, it is not to be found.
    let fill = shared.store.fill_aside(key, head);
    ctx.cache.stored = true;
    if length == Some(0) {
        // No body will be seen to come.
        fill.finish_aside();
    } else {
        ctx.cache.beside = Some(fill);
    }
}

/// Some of the body has come; `end`: it was the last.
pub fn came(data: Option<&Bytes>, end: bool, ctx: &mut Context) {
    let Some(fill) = &mut ctx.cache.beside else { return };
    let written = data.map_or(Ok(Written::Kept), |data| fill.write(data.clone()));
    match written {
        // Dropped, it has failed for those who follow it.
        Err(_) | Ok(Written::Outgrown | Written::Passed) => ctx.cache.beside = None,
        Ok(Written::Kept) if end => {
            if let Some(fill) = ctx.cache.beside.take() {
                // The client need not wait for the disk.
                fill.finish_aside();
            }
        }
        // The way to the client does not wait for the disk.
        Ok(Written::Kept) if fill.fill().is_far_behind() => ctx.cache.beside = None,
        Ok(Written::Kept) => {}
    }
}
