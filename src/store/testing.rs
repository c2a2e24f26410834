//! What the store's tests have in common: responses as a fill would store them.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora_cache::CacheMeta;

use super::{Body, Head, Object, ObjectKey, Record};
use crate::http_cache::{Policy, RequestDirectives, RequestFacts, Tiers, Timestamp, storability};
use crate::invalidate::Selector;

/// The text of the key of everything that is stored in tests: of `/` on example.com, in the site `s`.
pub const TEXT: &[u8] = b"\x01z\x01sh\x0bexample.comp\x01/";

/// The metadata of a response with these fields, fresh for a minute.
pub fn meta(fields: &[(&str, &str)], id: u64, began: u64) -> CacheMeta {
    meta_of(Bytes::from_static(TEXT), fields, id, began)
}

/// The same of what has another key.
pub fn meta_of(key: Bytes, fields: &[(&str, &str)], id: u64, began: u64) -> CacheMeta {
    let mut response = ResponseHeader::build(200, None).unwrap();
    response.insert_header("Cache-Control", "max-age=60").unwrap();
    for (name, value) in fields {
        response.insert_header((*name).to_owned(), *value).unwrap();
    }
    let now = SystemTime::now();
    let at = Timestamp::from(now);
    let request = RequestFacts::new(&http::Method::GET, &response.headers, &RequestDirectives::default(), at);
    let stored = storability(&request, response.status, &response.headers, &Policy::default(), at).unwrap();
    let mut meta = CacheMeta::new(now, now, 0, 0, response);
    meta.extensions_mut().insert(Record {
        facts: stored.facts,
        key,
        id,
        began,
        asked: stored.facts.received,
        tags: stored.tags.clone(),
        tiers: Tiers::default(),
    });
    meta
}

/// What selects all that is stored in tests.
pub fn selector() -> Box<[Selector]> {
    [Selector::Host("example.com".into())].into()
}

/// A head with a validator, of the object with that number.
pub fn head(tag: &str, id: u64) -> Head {
    Head::of(&meta(&[("etag", tag)], id, 0)).unwrap()
}

/// The validator of a head.
pub fn tag(head: &Head) -> &str {
    head.response.headers["etag"].to_str().unwrap()
}

/// An object in memory.
pub fn object(head: Head, body: impl Into<Bytes>) -> Arc<Object> {
    Arc::new(Object::new(Arc::new(head), Body::Memory(body.into())))
}

/// The key with a number; spread as SHA-256 would.
pub fn key(n: u64) -> ObjectKey {
    let mut primary = [0; 16];
    primary[..8].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    primary[8..].copy_from_slice(&n.wrapping_mul(0xC2B2_AE3D_27D4_EB4F).to_be_bytes());
    ObjectKey::primary(primary)
}

/// Bytes that tell where in a body they are, so that a hole or a repetition shows.
pub fn body(len: usize) -> Bytes {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}
