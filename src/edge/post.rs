//! A response to POST that later GETs may be answered with (RFC 9110 §9.3.3).
//!
//! It is written into the store beside the way to the client: nobody who asks by POST is ever answered from there.

use bytes::Bytes;
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::caching;
use super::context::Context;
use super::state::Shared;
use crate::http_cache::{self, RequestDirectives, RequestFacts, Timestamp};
use crate::site;
use crate::store::{Head, ObjectKey, Written};

/// Begins to store the response, if it says that it is what a GET of the same URL would get. After the invalidation
/// that the POST itself brings.
pub fn begin(shared: &Shared, session: &Session, response: &ResponseHeader, ctx: &mut Context) {
    let (Some(request), header) = (&ctx.request, session.req_header()) else { return };
    if header.method != Method::POST || response.status != StatusCode::OK {
        return;
    }
    let target = header.uri.path_and_query().map_or("/", |t| t.as_str());
    if !http_cache::describes_target(&request.host, target, &response.headers) {
        return;
    }
    let get = site::key_of_get(request.site(), &request.host, target, &header.headers, ctx.is_trusted());
    let Some((policy, key, text)) = get else { return };
    let received = Timestamp::from(std::time::SystemTime::now());
    let directives = RequestDirectives::parse(&header.headers, policy);
    let sent = ctx.upstream.sent.unwrap_or(received);
    let facts = RequestFacts::new(&header.method, &header.headers, &directives, sent);
    let facts = RequestFacts { describes_target: true, ..facts };
    let Ok(stored) = http_cache::storability(&facts, response.status, &response.headers, policy, received) else {
        return;
    };
    let length = http_cache::content_length(&response.headers);
    if length.is_some_and(|length| length > shared.store.memory().max_object()) || !shared.store.has_room() {
        return;
    }
    let began = shared.store.sequence(&key.hash);
    let shareable = caching::shareable(&stored, response, received);
    let mut meta = caching::meta(text.as_bytes(), &stored, shareable, (0, began));
    if let Some(variance) = caching::variance_of(meta.headers(), &header.headers) {
        meta.set_variance(variance);
    }
    if let Some(head) = Head::of(&meta) {
        ctx.cache.beside = Some(shared.store.fill(ObjectKey::primary(key.hash), head));
        ctx.cache.stored = true;
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
                let _ = fill.finish();
            }
        }
        Ok(Written::Kept) => {}
    }
}
