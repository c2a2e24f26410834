//! Which part of a stored response answers a request (RFC 9110 §13.2, §14.2).

use std::ops::Range;

use http::{HeaderMap, Method, StatusCode};

use super::facts::Facts;
use super::ranges::Ranges;
use super::time::Timestamp;
use super::validation::{if_range_matches, not_modified};

/// What is sent of a stored response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    Whole,
    /// 304: the client has it.
    NotModified,
    /// 206 with these bytes.
    Range(Range<u64>),
    /// 206 with several ranges.
    Ranges(Vec<Range<u64>>),
    /// 416.
    Unsatisfiable,
}

/// Selects from a response that may be sent without a validation. `length`: that of its content, in bytes.
///
/// Runs on every hit: allocates nothing for a request that is neither conditional nor for a range.
pub fn select(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    stored: &HeaderMap,
    facts: &Facts,
    length: u64,
    now: Timestamp,
) -> Selection {
    if not_modified(method, request, status, stored, facts.last_modified, now) {
        return Selection::NotModified;
    }
    // RFC 9110 §14.2: Range is for GET only; and only a 200 has parts.
    if status != StatusCode::OK || method != Method::GET || !if_range_matches(request, stored, now) {
        return Selection::Whole;
    }
    match Ranges::of(request, length) {
        Ranges::Ignore => Selection::Whole,
        Ranges::Unsatisfiable => Selection::Unsatisfiable,
        Ranges::Single(range) => Selection::Range(range),
        Ranges::Multi(ranges) => Selection::Ranges(ranges),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::headers;
    use super::*;

    #[test]
    fn conditions_come_before_ranges_and_ranges_before_the_whole() {
        let stored = headers(&[("etag", "\"a\"")]);
        let ask = |method: Method, status, request: &[(&str, &str)]| {
            let now = Timestamp::from_secs(0);
            select(&method, &headers(request), status, &stored, &Facts::default(), 10, now)
        };
        let get = |request: &[(&str, &str)]| ask(Method::GET, StatusCode::OK, request);
        assert_eq!(get(&[]), Selection::Whole);
        assert_eq!(get(&[("range", "bytes=2-4")]), Selection::Range(2..5));
        assert_eq!(get(&[("range", "bytes=0-0,9-9")]), Selection::Ranges(vec![0..1, 9..10]));
        assert_eq!(get(&[("range", "bytes=10-")]), Selection::Unsatisfiable);
        assert_eq!(get(&[("range", "bytes=2-4"), ("if-none-match", "\"a\"")]), Selection::NotModified);
        assert_eq!(get(&[("range", "bytes=2-4"), ("if-range", "\"b\"")]), Selection::Whole);
        assert_eq!(ask(Method::HEAD, StatusCode::OK, &[("range", "bytes=2-4")]), Selection::Whole);
        assert_eq!(ask(Method::GET, StatusCode::NOT_FOUND, &[("range", "bytes=2-4")]), Selection::Whole);
    }
}
