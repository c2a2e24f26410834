//! Which fields are stored and forwarded, and how a 304 or a HEAD freshens them (RFC 9110 §7.6.1, RFC 9111 §3.1, §3.2,
//! §4.3.4, §4.3.5).

use http::HeaderMap;
use http::header::{
    AGE, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, EXPIRES, HOST,
    HeaderName, LAST_MODIFIED, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VARY,
};

use super::list::field_members;
use super::targeted::{CDN_CACHE_CONTROL, FORELAND_CDN_CACHE_CONTROL, SURROGATE_CONTROL};
use super::validation::{ETag, strong_match, weak_match};

/// The length of the content as Content-Length states it, in bytes; `None` where there is none, or no number.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The names of the hop-by-hop fields that are present (RFC 9110 §7.6.1, RFC 9111 §3.1): the known ones and those that
/// Connection names. Each name occurs once. To be removed before a message is forwarded or stored.
///
/// RFC 9110 §7.6.1 forbids to name a field that is meant for all recipients. Such a request is not obeyed: dropping
/// Vary or Cache-Control would make a response public that is not, dropping Content-Length would unframe it.
pub fn hop_by_hop(headers: &HeaderMap) -> Vec<HeaderName> {
    // There are about as few fields as names, and comparing two names is cheaper than looking one up.
    let mut names: Vec<HeaderName> = headers.keys().filter(|name| HOP_BY_HOP.contains(name)).cloned().collect();
    if !names.contains(&CONNECTION) {
        return names;
    }
    for option in field_members(headers, CONNECTION) {
        let Ok(name) = HeaderName::from_bytes(option) else { continue };
        if headers.contains_key(&name) && !END_TO_END.contains(&name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Removes the hop-by-hop fields.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in hop_by_hop(headers) {
        headers.remove(name);
    }
}

/// Whether a 304 is about this stored response (RFC 9111 §4.3.4). One with a strong ETag is about the response with
/// that ETag only; one with a weak ETag or a Last-Modified about a response with the same; one without any validator
/// about the response that was asked for.
pub fn update_applies(stored: &HeaderMap, update: &HeaderMap) -> bool {
    if let Some(etag) = update.get(ETAG).and_then(|value| ETag::parse(value.as_bytes())) {
        let Some(ours) = stored.get(ETAG).and_then(|value| ETag::parse(value.as_bytes())) else { return false };
        return if etag.is_strong() { strong_match(ours, etag) } else { weak_match(ours, etag) };
    }
    match (update.get(LAST_MODIFIED), stored.get(LAST_MODIFIED)) {
        (Some(theirs), Some(ours)) => theirs == ours,
        _ => true,
    }
}

/// The stored fields after a 304 that [applies](update_applies) to them (RFC 9111 §3.2): each field of the 304 replaces
/// all stored lines of that name, the others stay.
///
/// Never taken over: hop-by-hop fields; Content-Length, Content-Encoding and Content-Range, which describe the stored
/// content rather than the 304; and Set-Cookie, which is for the client that caused the validation. Age and Date tell
/// when a message was generated: the old ones go even if the 304 has none.
///
/// The result is judged like any response: [`super::storability`] makes its facts.
pub fn merge_304(stored: &HeaderMap, update: &HeaderMap) -> HeaderMap {
    let dropped = hop_by_hop(update);
    let mut merged = stored.clone();
    merged.remove(AGE);
    merged.remove(DATE);
    for name in update.keys() {
        if NEVER_UPDATED.contains(name) || dropped.contains(name) {
            continue;
        }
        merged.remove(name);
        for value in update.get_all(name) {
            merged.append(name, value.clone());
        }
    }
    merged
}

/// The stored fields after a 200 to HEAD (RFC 9111 §4.3.5). `None` when it shows that the stored response is no longer
/// what a GET would get, by a validator or a Content-Length that differs: it is then to be considered stale.
pub fn merge_head(stored: &HeaderMap, head: &HeaderMap) -> Option<HeaderMap> {
    let same = |name: HeaderName| head.get(&name).is_none_or(|theirs| stored.get(&name) == Some(theirs));
    (same(ETAG) && same(LAST_MODIFIED) && same(CONTENT_LENGTH)).then(|| merge_304(stored, head))
}

/// RFC 9110 §7.6.1 and the fields of RFC 9111 §3.1 that are about the proxy on the way; `Keep-Alive` and
/// `Proxy-Connection` are older than both.
static HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    TE,
    TRAILER,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authentication-info"),
];

/// Fields that a Connection option cannot make hop-by-hop: they frame the content or decide about its reuse.
static END_TO_END: [HeaderName; 15] = [
    AGE,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    DATE,
    ETAG,
    EXPIRES,
    HOST,
    LAST_MODIFIED,
    SET_COOKIE,
    VARY,
    CDN_CACHE_CONTROL,
    FORELAND_CDN_CACHE_CONTROL,
    SURROGATE_CONTROL,
];

static NEVER_UPDATED: [HeaderName; 4] = [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE, SET_COOKIE];

#[cfg(test)]
mod tests {

    use super::super::testing::headers;
    use super::*;

    #[test]
    fn hop_by_hop_fields_go_and_all_others_stay() {
        // RFC 9110 §7.6.1, RFC 9111 §3.1.
        let mut fields = headers(&[
            ("connection", "close, X-Hop"),
            ("connection", ", x-other ,bad name"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("keep-alive", "1"),
            ("proxy-authenticate", "1"),
            ("proxy-authorization", "1"),
            ("proxy-authentication-info", "1"),
            ("proxy-connection", "1"),
            ("te", "1"),
            ("trailer", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "1"),
            ("content-type", "text/plain"),
            ("www-authenticate", "Basic"),
            ("x-custom", "1"),
            ("x-custom", "2"),
        ]);
        strip_hop_by_hop(&mut fields);
        let expected = headers(&[
            ("content-type", "text/plain"),
            ("www-authenticate", "Basic"),
            ("x-custom", "1"),
            ("x-custom", "2"),
        ]);
        assert_eq!(fields, expected);
    }

    #[test]
    fn connection_cannot_name_what_decides_about_reuse() {
        let mut fields = headers(&[
            ("connection", "cache-control, vary, content-length, set-cookie, cdn-cache-control"),
            ("cache-control", "private"),
            ("vary", "cookie"),
            ("content-length", "1"),
            ("set-cookie", "a=b"),
            ("cdn-cache-control", "no-store"),
        ]);
        assert_eq!(hop_by_hop(&fields), [CONNECTION]);
        strip_hop_by_hop(&mut fields);
        assert_eq!(fields.len(), 5);
    }

    #[test]
    fn a_304_replaces_fields_and_keeps_the_others() {
        // RFC 9111 §3.2.
        let stored = headers(&[
            ("x-kept", "1"),
            ("x-new", "old"),
            ("x-new", "old too"),
            ("cache-control", "max-age=1"),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("content-type", "text/plain"),
            ("etag", "\"a\""),
            ("age", "100"),
            ("date", "yesterday"),
        ]);
        let update = headers(&[
            ("x-new", "1"),
            ("x-new", "2"),
            ("x-added", "1"),
            ("cache-control", "max-age=3600"),
            ("content-length", "10"),
            ("content-encoding", "br"),
            ("content-range", "bytes 0-1/5"),
            ("content-type", "text/html"),
            ("set-cookie", "a=b"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("proxy-authenticate", "1"),
            ("date", "today"),
        ]);
        let expected = headers(&[
            ("x-kept", "1"),
            ("x-new", "1"),
            ("x-new", "2"),
            ("x-added", "1"),
            ("cache-control", "max-age=3600"),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("content-type", "text/html"),
            ("etag", "\"a\""),
            ("date", "today"),
        ]);
        assert_eq!(merge_304(&stored, &update), expected);
    }

    #[test]
    fn which_stored_response_a_304_is_about() {
        // RFC 9111 §4.3.4.
        for (stored, update, expected) in [
            (("etag", "\"a\""), ("etag", "\"a\""), true),
            (("etag", "\"a\""), ("etag", "\"b\""), false),
            (("etag", "W/\"a\""), ("etag", "\"a\""), false),
            (("etag", "W/\"a\""), ("etag", "W/\"a\""), true),
            (("etag", "\"a\""), ("etag", "W/\"a\""), true),
            (("x", "1"), ("etag", "\"a\""), false),
            (("etag", "\"a\""), ("x", "1"), true),
            (("last-modified", "a"), ("last-modified", "a"), true),
            (("last-modified", "a"), ("last-modified", "b"), false),
            (("etag", "\"a\""), ("last-modified", "b"), true),
        ] {
            assert_eq!(update_applies(&headers(&[stored]), &headers(&[update])), expected, "{stored:?} {update:?}");
        }
    }

    #[test]
    fn a_head_updates_or_outdates() {
        // RFC 9111 §4.3.5.
        let stored = headers(&[("etag", "\"a\""), ("content-length", "5"), ("x", "1")]);
        let merged = merge_head(&stored, &headers(&[("etag", "\"a\""), ("content-length", "5"), ("x", "2")]));
        assert_eq!(merged, Some(headers(&[("etag", "\"a\""), ("content-length", "5"), ("x", "2")])));
        assert_eq!(merge_head(&stored, &headers(&[("etag", "\"b\"")])), None);
        assert_eq!(merge_head(&stored, &headers(&[("content-length", "6")])), None);
        assert!(merge_head(&stored, &headers(&[])).is_some());
    }
}
