//! Reducing what a client accepts to what the operator says there is (RFC 9110 §12.5): fewer variants, and an origin that
//! is asked for one of them by name.
//!
//! Where a route lists its codings or languages, the field is rewritten before anything is looked up, so that the key,
//! the variant and the origin all go by the same words.

use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::list::{field_members, trim};
use super::policy::Reduction;

/// A field and what it is to say; `None`: it goes.
pub type Rewrite = (HeaderName, Option<HeaderValue>);

/// What [`reduce`] finds.
pub type Rewrites = SmallVec<[Rewrite; 2]>;

/// What is to be rewritten in a request. Empty, without looking, where the route reduces nothing.
pub fn reduce(request: &HeaderMap, reduction: &Reduction) -> Rewrites {
    let mut rewrites = Rewrites::new();
    if !reduction.accept_encoding.is_empty() && request.contains_key(ACCEPT_ENCODING) {
        rewrites.extend(encoding(request, &reduction.accept_encoding).map(|v| (ACCEPT_ENCODING, Some(v))));
    }
    if !reduction.accept_language.is_empty() && request.contains_key(ACCEPT_LANGUAGE) {
        rewrites.push((ACCEPT_LANGUAGE, language(request, &reduction.accept_language)));
    }
    rewrites
}

/// RFC 9110 §12.5.3: the acceptable coding with the greatest weight, the first in the operator's order among equals;
/// `identity` where none is acceptable, since without the field all would be. `None`, to leave the field as it is, for a
/// client that takes neither.
fn encoding(request: &HeaderMap, offered: &[String]) -> Option<HeaderValue> {
    let mut identity = None;
    let mut any = None;
    for (name, weight) in weighted(request, ACCEPT_ENCODING) {
        if name.eq_ignore_ascii_case(b"identity") {
            identity = identity.or(Some(weight));
        } else if name == b"*" {
            any = any.or(Some(weight));
        }
    }
    let weight_of = |coding: &str| {
        let named = weighted(request, ACCEPT_ENCODING).find(|(name, _)| is_coding(name, coding));
        named.map(|(_, weight)| weight).or(any).unwrap_or(0)
    };
    let mut best: Option<(&String, u16)> = None;
    for coding in offered {
        let weight = weight_of(coding);
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((coding, weight));
        }
    }
    match (best, identity) {
        // One that is weighed in so many words, and higher.
        (Some((_, weight)), Some(identity)) if identity > weight => Some(HeaderValue::from_static("identity")),
        (Some((coding, _)), _) => HeaderValue::from_str(coding).ok(),
        (None, Some(0)) => None,
        (None, None) if any == Some(0) => None,
        (None, _) => Some(HeaderValue::from_static("identity")),
    }
}

/// RFC 9110 §12.5.4, RFC 4647 §3.4: the offered language that the range with the greatest weight matches, the first in the
/// client's order among equals. `None` where nothing matches: the origin is asked for its default.
fn language(request: &HeaderMap, offered: &[String]) -> Option<HeaderValue> {
    let mut best: Option<(&String, u16)> = None;
    for (range, weight) in weighted(request, ACCEPT_LANGUAGE) {
        if weight <= best.map_or(0, |(_, best)| best) {
            continue;
        }
        let refused = |tag: &str| {
            weighted(request, ACCEPT_LANGUAGE).any(|(range, weight)| weight == 0 && matches_range(range, tag))
        };
        // RFC 4647 §3.4: `*` is for what no other range names.
        let named =
            |tag: &str| weighted(request, ACCEPT_LANGUAGE).any(|(range, _)| range != b"*" && matches_range(range, tag));
        let found = match range {
            b"*" => offered.iter().find(|tag| !named(tag)),
            _ => lookup(range, offered).filter(|tag| !refused(tag)),
        };
        if let Some(tag) = found {
            best = Some((tag, weight));
        }
    }
    HeaderValue::from_str(best?.0).ok()
}

/// The offered tag that is the range or below it; else what is left of the range when its last subtags go, one by one.
fn lookup<'a>(range: &[u8], offered: &'a [String]) -> Option<&'a String> {
    let mut range = range;
    loop {
        if let Some(tag) = offered.iter().find(|tag| tag.as_bytes().eq_ignore_ascii_case(range)) {
            return Some(tag);
        }
        if let Some(tag) = offered.iter().find(|tag| matches_range(range, tag)) {
            return Some(tag);
        }
        let dash = range.iter().rposition(|byte| *byte == b'-')?;
        range = range.get(..dash)?;
    }
}

/// RFC 4647 §3.3.1: basic filtering.
fn matches_range(range: &[u8], tag: &str) -> bool {
    let tag = tag.as_bytes();
    tag.get(..range.len()).is_some_and(|start| start.eq_ignore_ascii_case(range))
        && matches!(tag.get(range.len()), None | Some(b'-'))
}

/// RFC 9110 §8.4.1.3: `x-gzip` is gzip, `x-compress` compress.
fn is_coding(name: &[u8], coding: &str) -> bool {
    let name = match name {
        [b'x' | b'X', b'-', rest @ ..] => rest,
        name => name,
    };
    name.eq_ignore_ascii_case(coding.as_bytes())
}

/// The members of a field with their weights, in thousandths (RFC 9110 §12.4.2). One with a malformed weight counts as
/// refused: it is not known to be wanted.
fn weighted(request: &HeaderMap, name: HeaderName) -> impl Iterator<Item = (&[u8], u16)> {
    field_members(request, name).map(|member| match member.iter().position(|byte| *byte == b';') {
        None => (member, 1000),
        Some(at) => {
            let (name, parameter) = member.split_at(at);
            (trim(name), weight(trim(parameter.get(1..).unwrap_or_default())).unwrap_or(0))
        }
    })
}

fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', rest @ ..] = parameter else { return None };
    let [b'=', value @ ..] = trim(rest) else { return None };
    let (whole, decimals) = match trim(value) {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut thousandths = 0;
    for place in 0..3 {
        let digit = decimals.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        thousandths = thousandths * 10 + u16::from(digit - b'0');
    }
    match whole {
        b'0' => Some(thousandths),
        _ if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::headers;
    use super::*;

    fn reduction() -> Reduction {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Reduction { accept_encoding: list(&["br", "gzip"]), accept_language: list(&["en", "de-AT", "de", "fr"]) }
    }

    fn reduced(name: &'static str, value: &str) -> String {
        match reduce(&headers(&[(name, value)]), &reduction()).first() {
            None => "as it is".to_owned(),
            Some((_, None)) => "gone".to_owned(),
            Some((_, Some(value))) => value.to_str().unwrap().to_owned(),
        }
    }

    #[test]
    fn codings() {
        for (accepted, expected) in [
            ("gzip, deflate, br, zstd", "br"),
            ("gzip", "gzip"),
            ("GZIP;q=1.0", "gzip"),
            ("x-gzip", "gzip"),
            ("gzip;q=0.8, br;q=0.2", "gzip"),
            ("br;q=0, gzip", "gzip"),
            ("*", "br"),
            ("br;q=0, *", "gzip"),
            ("zstd", "identity"),
            ("gzip;q=0", "identity"),
            ("identity, gzip;q=0.5", "identity"),
            ("identity;q=0.5, gzip", "gzip"),
            ("", "identity"),
            ("gzip;q=x", "identity"),
            ("gzip;q=1.5", "identity"),
            ("zstd, identity;q=0", "as it is"),
            ("zstd, *;q=0", "as it is"),
        ] {
            assert_eq!(reduced("accept-encoding", accepted), expected, "{accepted}");
        }
    }

    #[test]
    fn languages() {
        for (accepted, expected) in [
            ("en-US,en;q=0.9", "en"),
            ("de-CH, fr;q=0.9", "de"),
            ("de-AT", "de-AT"),
            ("de", "de"),
            ("DE-at-1996", "de-AT"),
            ("fr;q=0.5, de;q=1.0", "de"),
            ("fr, en", "fr"),
            ("en, fr", "en"),
            ("ja, *;q=0.1", "en"),
            ("*, en;q=0", "de-AT"),
            ("en;q=0.1, *;q=0.9", "de-AT"),
            ("ja", "gone"),
            ("en;q=0", "gone"),
            ("e", "gone"),
        ] {
            assert_eq!(reduced("accept-language", accepted), expected, "{accepted}");
        }
    }

    #[test]
    fn nothing_is_said_for_a_client_that_says_nothing() {
        assert!(reduce(&headers(&[("accept", "*/*")]), &reduction()).is_empty());
        assert!(reduce(&headers(&[("accept-encoding", "gzip")]), &Reduction::default()).is_empty());
    }

    proptest! {
        /// Whatever a client sends comes to one of a handful of values.
        #[test]
        fn total_and_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let mut request = HeaderMap::new();
            request.insert(ACCEPT_ENCODING, value.clone());
            request.insert(ACCEPT_LANGUAGE, value);
            for (name, value) in reduce(&request, &reduction()) {
                let Some(value) = value else { continue };
                let known: &[&str] =
                    if name == ACCEPT_ENCODING { &["br", "gzip", "identity"] } else { &["en", "de-AT", "de", "fr"] };
                prop_assert!(known.contains(&value.to_str().unwrap()));
            }
        }
    }
}
