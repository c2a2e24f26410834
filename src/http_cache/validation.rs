//! Conditional requests, as a cache answers and as it sends them (RFC 9110 §13, RFC 9111 §4.3).

use http::header::{DATE, ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED};
use http::{Method, StatusCode};

use super::dates::parse_http_date;
use super::list::trim;
use super::time::Timestamp;

/// Whether a stored response answers a conditional request with 304 (RFC 9111 §4.3.2). For a response that may be sent
/// without a validation: a stale one is validated first.
///
/// `last_modified` is the stored Last-Modified as [`super::Facts`] has it. If-None-Match, where present, is all that
/// counts. If-Match and If-Unmodified-Since are for the origin alone.
///
/// Runs on every hit: returns at once for an unconditional request, and allocates nothing.
pub fn not_modified(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    stored: &HeaderMap,
    last_modified: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    // RFC 9110 §13.2.1: preconditions count where the answer without them is a success; §13.1.3: If-Modified-Since is
    // for GET and HEAD.
    if !status.is_success() || !(method == Method::GET || method == Method::HEAD) {
        return false;
    }
    if request.contains_key(IF_NONE_MATCH) {
        return none_match_fails(request, stored);
    }
    // RFC 9110 §13.1.3: ignored where it is no one date.
    let mut lines = request.get_all(IF_MODIFIED_SINCE).iter();
    let (Some(since), None) = (lines.next(), lines.next()) else { return false };
    let Some(since) = parse_http_date(since.as_bytes(), now) else { return false };
    // RFC 9111 §4.3.2: without Last-Modified, the Date tells when the response was still the current one.
    let date = || stored.get(DATE).and_then(|date| parse_http_date(date.as_bytes(), now));
    last_modified.or_else(date).is_some_and(|modified| modified <= since)
}

/// Whether a Range is to be honoured as far as If-Range is concerned (RFC 9110 §13.1.5): there is none, or it holds the
/// stored response's ETag, both strong, or its Last-Modified, to the second, where that is a strong validator.
pub fn if_range_matches(request: &HeaderMap, stored: &HeaderMap, now: Timestamp) -> bool {
    let Some(validator) = request.get(IF_RANGE) else { return true };
    let validator = trim(validator.as_bytes());
    let Some(wanted) = parse_http_date(validator, now) else {
        let etag = stored.get(ETAG).and_then(|etag| ETag::parse(etag.as_bytes()));
        return matches!((ETag::parse(validator), etag), (Some(a), Some(b)) if strong_match(a, b));
    };
    let date = |name| stored.get(name).and_then(|value: &HeaderValue| parse_http_date(value.as_bytes(), now));
    // RFC 9110 §8.8.2.2: a Last-Modified is strong when it is at least one second before the Date of its response.
    match (date(LAST_MODIFIED), date(DATE)) {
        (Some(modified), Some(date)) => modified == wanted && date.millis_since(modified) >= 1000,
        _ => false,
    }
}

/// The validators that the cache's own validation sends (RFC 9111 §4.3.1): the stored ETag for If-None-Match, and the
/// stored Last-Modified for If-Modified-Since, each as the origin wrote it.
pub fn revalidation_fields(stored: &HeaderMap) -> (Option<HeaderValue>, Option<HeaderValue>) {
    (stored.get(ETAG).cloned(), stored.get(LAST_MODIFIED).cloned())
}

/// An entity tag (RFC 9110 §8.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ETag<'a> {
    weak: bool,
    /// With its quotes; without, where the sender forgot them: such a tag equals only one that is written alike.
    opaque: &'a [u8],
}

impl<'a> ETag<'a> {
    /// Reads the value of an ETag field. `None` when it is empty.
    pub fn parse(value: &'a [u8]) -> Option<ETag<'a>> {
        let value = trim(value);
        let (weak, opaque) = match value {
            [b'W', b'/', rest @ ..] if !rest.is_empty() => (true, rest),
            other => (false, other),
        };
        (!opaque.is_empty()).then_some(ETag { weak, opaque })
    }

    /// Neither weak nor malformed.
    pub fn is_strong(self) -> bool {
        !self.weak && matches!(self.opaque, [b'"', .., b'"'])
    }
}

/// RFC 9110 §8.8.3.2: both strong, and equal.
pub fn strong_match(a: ETag<'_>, b: ETag<'_>) -> bool {
    a.is_strong() && b.is_strong() && a.opaque == b.opaque
}

/// RFC 9110 §8.8.3.2: equal, weak or not.
pub fn weak_match(a: ETag<'_>, b: ETag<'_>) -> bool {
    a.opaque == b.opaque
}

/// RFC 9110 §13.1.2: the condition is false for `*`, or when a listed tag matches by weak comparison.
fn none_match_fails(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let ours = stored.get(ETAG).and_then(|etag| ETag::parse(etag.as_bytes()));
    request.get_all(IF_NONE_MATCH).iter().any(|line| {
        let line = line.as_bytes();
        trim(line) == b"*" || ours.is_some_and(|ours| ETags(line).any(|theirs| weak_match(ours, theirs)))
    })
}

/// The tags of one line. A comma inside of a tag does not separate, and a backslash is a character like any other.
struct ETags<'a>(&'a [u8]);

impl<'a> Iterator for ETags<'a> {
    type Item = ETag<'a>;

    fn next(&mut self) -> Option<ETag<'a>> {
        while let [b' ' | b'\t' | b',', rest @ ..] = self.0 {
            self.0 = rest;
        }
        let opening = match self.0 {
            [b'"', ..] => Some(1),
            [b'W', b'/', b'"', ..] => Some(3),
            _ => None,
        };
        let closing = opening.and_then(|from| {
            let length = self.0.get(from..)?.iter().position(|&byte| byte == b'"')?;
            Some(from + length + 1)
        });
        let end = closing.or_else(|| self.0.iter().position(|&byte| byte == b',')).unwrap_or(self.0.len());
        let (tag, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        ETag::parse(tag)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::headers;
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_768_435_200);
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn answers_304(request: &[(&str, &str)], stored: &[(&str, &str)]) -> bool {
        let stored = headers(stored);
        let modified = stored.get(LAST_MODIFIED).and_then(|value| parse_http_date(value.as_bytes(), NOW));
        not_modified(&Method::GET, &headers(request), StatusCode::OK, &stored, modified, NOW)
    }

    #[test]
    fn if_none_match() {
        // RFC 9110 §13.1.2.
        for (list, etag, expected) in [
            ("\"abc\"", "\"abc\"", true),
            ("\"abc\"", "\"abcd\"", false),
            ("W/\"abc\"", "\"abc\"", true),
            ("\"abc\"", "W/\"abc\"", true),
            ("W/\"abc\"", "W/\"abc\"", true),
            ("\"abc\", \"1\", \"2\"", "\"abc\"", true),
            ("\"1\", \"abc\", \"2\"", "\"abc\"", true),
            ("\"1\",W/\"2\",\"abc\"", "\"abc\"", true),
            ("\"1\" ,, \"abc\"", "\"abc\"", true),
            ("\"1, \\\", \"abc\"", "\"abc\"", true),
            ("\"a,b\"", "\"a,b\"", true),
            ("\"a,b\"", "b\"", false),
            ("\"abcdefü\"", "\"abcdefü\"", true),
            ("abc", "abc", true),
            ("abc, def", "def", true),
            ("abc", "\"abc\"", false),
            ("\"abc", "\"abc\"", false),
            ("*", "\"abc\"", true),
            ("\"*\"", "\"abc\"", false),
            ("", "\"abc\"", false),
        ] {
            assert_eq!(answers_304(&[("if-none-match", list)], &[("etag", etag)]), expected, "{list} {etag}");
        }
        let two_lines = [("if-none-match", "\"1\""), ("if-none-match", "\"2\"")];
        assert!(answers_304(&two_lines, &[("etag", "\"2\"")]));
        assert!(!answers_304(&[("if-none-match", "\"1\"")], &[]));
        assert!(answers_304(&[("if-none-match", "*")], &[]));
    }

    #[test]
    fn if_modified_since() {
        // RFC 9110 §13.1.3.
        let stored = [("last-modified", MODIFIED)];
        for (since, expected) in [
            (MODIFIED, true),
            ("Sunday, 06-Nov-94 08:49:37 GMT", true),
            ("Sun Nov  6 08:49:37 1994", true),
            ("Mon, 07 Nov 1994 08:49:37 GMT", true),
            ("Sun, 06 Nov 1994 08:49:36 GMT", false),
            ("nonsense", false),
        ] {
            // RFC 9111 §4.3.2: without Last-Modified, Date is what counts.
            let dated = [("date", MODIFIED)];
            assert_eq!(answers_304(&[("if-modified-since", since)], &dated), expected, "{since} by Date");
            assert_eq!(answers_304(&[("if-modified-since", since)], &stored), expected, "{since}");
        }
        assert!(!answers_304(&[("if-modified-since", MODIFIED)], &[("etag", "\"a\"")]));
        assert!(!answers_304(&[], &stored));
    }

    #[test]
    fn if_none_match_outranks_if_modified_since() {
        // RFC 9110 §13.2.2.
        let stored = [("last-modified", MODIFIED), ("etag", "\"a\"")];
        assert!(!answers_304(&[("if-none-match", "\"b\""), ("if-modified-since", MODIFIED)], &stored));
        let old = ("if-modified-since", "Sun, 06 Nov 1984 08:49:37 GMT");
        assert!(answers_304(&[("if-none-match", "\"a\""), old], &stored));
    }

    #[test]
    fn only_for_successful_get_and_head() {
        // RFC 9110 §13.2.1.
        let (request, stored) = (headers(&[("if-none-match", "\"a\"")]), headers(&[("etag", "\"a\"")]));
        let ask = |method: Method, status| not_modified(&method, &request, status, &stored, None, NOW);
        assert!(ask(Method::GET, StatusCode::OK) && ask(Method::HEAD, StatusCode::OK));
        assert!(!ask(Method::POST, StatusCode::OK));
        assert!(!ask(Method::GET, StatusCode::NOT_FOUND));
        assert!(!ask(Method::GET, StatusCode::MOVED_PERMANENTLY));
    }

    #[test]
    fn if_range() {
        // RFC 9110 §13.1.5.
        let dated = [("last-modified", MODIFIED), ("date", "Sun, 06 Nov 1994 08:49:38 GMT")];
        let weak_date = [("last-modified", MODIFIED), ("date", MODIFIED)];
        for (validator, stored, expected) in [
            ("\"a\"", &[("etag", "\"a\"")] as &[_], true),
            ("\"a\"", &[("etag", "\"b\"")], false),
            ("W/\"a\"", &[("etag", "W/\"a\"")], false),
            ("W/\"a\"", &[("etag", "\"a\"")], false),
            ("\"a\"", &[("etag", "W/\"a\"")], false),
            ("a", &[("etag", "a")], false),
            ("\"a\"", &[], false),
            (MODIFIED, &dated, true),
            ("Sunday, 06-Nov-94 08:49:37 GMT", &dated, true),
            ("Mon, 07 Nov 1994 08:49:37 GMT", &dated, false),
            (MODIFIED, &weak_date, false),
            (MODIFIED, &[("last-modified", MODIFIED)], false),
        ] {
            let got = if_range_matches(&headers(&[("if-range", validator)]), &headers(stored), NOW);
            assert_eq!(got, expected, "{validator} {stored:?}");
        }
        assert!(if_range_matches(&headers(&[]), &headers(&[]), NOW));
    }

    #[test]
    fn own_validations_send_the_stored_validators() {
        // RFC 9111 §4.3.1.
        let (etag, modified) = revalidation_fields(&headers(&[("etag", "W/\"a\""), ("last-modified", MODIFIED)]));
        assert_eq!(etag.unwrap(), "W/\"a\"");
        assert_eq!(modified.unwrap(), MODIFIED);
        assert_eq!(revalidation_fields(&headers(&[])), (None, None));
    }

    proptest! {
        #[test]
        fn total_on_arbitrary_bytes(
            asked in proptest::collection::vec(any::<u8>(), 0..60),
            stored in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let (Ok(asked), Ok(stored)) = (HeaderValue::from_bytes(&asked), HeaderValue::from_bytes(&stored)) else {
                return Ok(());
            };
            let mut request = HeaderMap::new();
            for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE] {
                request.insert(name, asked.clone());
            }
            let mut response = HeaderMap::new();
            response.insert(ETAG, stored.clone());
            response.insert(LAST_MODIFIED, stored);
            not_modified(&Method::GET, &request, StatusCode::OK, &response, None, NOW);
            if_range_matches(&request, &response, NOW);
        }

        #[test]
        fn a_listed_tag_is_found(
            tags in proptest::collection::vec("[a-z,]{0,5}", 1..6),
            at in any::<proptest::sample::Index>(),
        ) {
            let list: Vec<_> = tags.iter().map(|tag| format!("\"{tag}\"")).collect();
            let etag = at.get(&list).clone();
            prop_assert!(answers_304(&[("if-none-match", &list.join(", "))], &[("etag", &etag)]));
        }
    }
}
