//! Byte ranges (RFC 9110 §14).

use std::ops::Range;

use http::HeaderMap;
use http::header::RANGE;

use super::list::{decimal, members};

/// A request for more ranges than this gets the whole: each costs a part header, and RFC 9110 §14.2 warns of clients
/// that ask for many small ones.
pub const MAX_RANGES: usize = 16;

/// What a request's Range comes to for a representation of known length. All ranges lie within it and are not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// There is none, or it is to be ignored: send the whole.
    Ignore,
    /// Answer 416 with `Content-Range: bytes */length`.
    Unsatisfiable,
    Single(Range<u64>),
    /// Two to [`MAX_RANGES`] ranges that do not overlap, in the order of the request.
    Multi(Vec<Range<u64>>),
}

impl Ranges {
    /// Reads the Range field of a GET. If-Range is for the caller to look at first.
    ///
    /// A field that is malformed, occurs twice, has another unit, asks for overlapping ranges or for too many is
    /// ignored, as RFC 9110 §14.2 allows for any Range.
    pub fn of(request: &HeaderMap, length: u64) -> Ranges {
        let mut lines = request.get_all(RANGE).iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) => parse(line.as_bytes(), length),
            _ => Ranges::Ignore,
        }
    }
}

fn parse(line: &[u8], length: u64) -> Ranges {
    let Some((unit, set)) = line.split_at_checked(6) else { return Ranges::Ignore };
    // RFC 9110 §14.1: range units are case-insensitive.
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return Ranges::Ignore;
    }
    let mut found: [Range<u64>; MAX_RANGES] = [const { 0..0 }; MAX_RANGES];
    let (mut asked, mut satisfiable) = (0, 0);
    for member in members(set).filter(|member| !member.is_empty()) {
        asked += 1;
        if asked > MAX_RANGES {
            return Ranges::Ignore;
        }
        match resolve(member, length) {
            Err(Malformed) => return Ranges::Ignore,
            Ok(None) => {}
            Ok(Some(range)) => {
                let overlaps = |other: &Range<u64>| range.start < other.end && other.start < range.end;
                if found.iter().take(satisfiable).any(overlaps) {
                    return Ranges::Ignore;
                }
                if let Some(slot) = found.get_mut(satisfiable) {
                    *slot = range;
                    satisfiable += 1;
                }
            }
        }
    }
    match (asked, satisfiable) {
        (0, _) => Ranges::Ignore,
        (_, 0) => Ranges::Unsatisfiable,
        (_, 1) => Ranges::Single(std::mem::take(&mut found[0])),
        _ => Ranges::Multi(found.into_iter().take(satisfiable).collect()),
    }
}

struct Malformed;

/// One range-spec: `first-`, `first-last` or `-suffix`; `None` when it is not satisfiable (RFC 9110 §14.1.2).
fn resolve(spec: &[u8], length: u64) -> Result<Option<Range<u64>>, Malformed> {
    let dash = spec.iter().position(|&byte| byte == b'-').ok_or(Malformed)?;
    let (first, last) = spec.split_at(dash);
    let last = last.get(1..).unwrap_or_default();
    if first.is_empty() {
        let suffix = decimal(last).ok_or(Malformed)?;
        let start = length - suffix.min(length);
        return Ok((start < length).then_some(start..length));
    }
    let start = decimal(first).ok_or(Malformed)?;
    let end = if last.is_empty() {
        length
    } else {
        let last = decimal(last).ok_or(Malformed)?;
        if last < start {
            return Err(Malformed);
        }
        last.saturating_add(1).min(length)
    };
    Ok((start < length).then_some(start..end))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::Ranges::*;
    use super::*;

    fn of(value: &str, length: u64) -> Ranges {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_str(value).unwrap());
        Ranges::of(&headers, length)
    }

    #[test]
    fn resolves_against_the_length() {
        // RFC 9110 §14.1.2, §14.2.
        for (value, length, expected) in [
            ("bytes=0-1", 10, Single(0..2)),
            ("bytes=1-", 10, Single(1..10)),
            ("bytes=-1", 10, Single(9..10)),
            ("bytes=-100", 10, Single(0..10)),
            ("bytes=0-0", 10, Single(0..1)),
            ("bytes=9-99999999999999999999999", 10, Single(9..10)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-20", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-1", 0, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=0-", u64::MAX, Single(0..u64::MAX)),
            ("Bytes=0-1", 10, Single(0..2)),
            ("bytes=0-1,4-5", 10, Multi(vec![0..2, 4..6])),
            ("bytes=0-1, 2-3,-1", 10, Multi(vec![0..2, 2..4, 9..10])),
            ("bytes=4-5,0-1", 10, Multi(vec![4..6, 0..2])),
            ("bytes=0-1,20-30", 10, Single(0..2)),
            ("bytes= 0-1 ,, ", 10, Single(0..2)),
            ("bytes=0-5,5-6", 10, Ignore),
            ("bytes=0-,-1", 10, Ignore),
            ("bytes=1-0", 10, Ignore),
            ("bytes=0-1,5-4", 10, Ignore),
            ("bytes=", 10, Ignore),
            ("bytes=,", 10, Ignore),
            ("bytes=-", 10, Ignore),
            ("bytes=a-b", 10, Ignore),
            ("bytes=0 - 1", 10, Ignore),
            ("bytes=0-1-2", 10, Ignore),
            ("bytes=--1", 10, Ignore),
            ("bytes =0-1", 10, Ignore),
            ("lines=0-1", 10, Ignore),
            ("bytes", 10, Ignore),
            ("", 10, Ignore),
        ] {
            assert_eq!(of(value, length), expected, "{value:?} of {length}");
        }
    }

    #[test]
    fn too_many_or_repeated_fields_are_ignored() {
        let many = |count: u64| (0..count).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect::<Vec<_>>().join(",");
        assert!(matches!(of(&format!("bytes={}", many(16)), 100), Multi(ranges) if ranges.len() == 16));
        assert_eq!(of(&format!("bytes={}", many(17)), 100), Ignore);
        let mut headers = HeaderMap::new();
        assert_eq!(Ranges::of(&headers, 10), Ignore);
        headers.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        headers.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        assert_eq!(Ranges::of(&headers, 10), Ignore);
    }

    proptest! {
        #[test]
        fn never_out_of_bounds(value in "(bytes=)?[0-9,\\- ]{0,60}", length in prop_oneof![0u64..200, any::<u64>()]) {
            let ranges = match of(&value, length) {
                Single(range) => vec![range],
                Multi(ranges) => {
                    prop_assert!(ranges.len() > 1 && ranges.len() <= MAX_RANGES);
                    ranges
                }
                Ignore | Unsatisfiable => vec![],
            };
            let mut total = 0u64;
            for range in ranges {
                prop_assert!(range.start < range.end && range.end <= length);
                total += range.end - range.start;
            }
            prop_assert!(total <= length);
        }

        #[test]
        fn total_on_arbitrary_bytes(value in proptest::collection::vec(any::<u8>(), 0..80), length in any::<u64>()) {
            parse(&value, length);
        }
    }
}
