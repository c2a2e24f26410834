//! Vary: which requests may share a stored response (RFC 9111 §4.1, RFC 9110 §12.5.5).

use std::cmp::Ordering;

use http::HeaderMap;
use http::header::VARY;
use sha2::{Digest, Sha256};

use super::list::{field_members, members, trim};

/// More names in a Vary than this, and the response is taken as varying on everything: the variants of such a resource
/// would fill the cache, and hardly ever match.
pub const MAX_VARY_FIELDS: usize = 16;

/// What distinguishes the variants of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variance {
    /// No Vary: one response for all.
    None,
    /// No later request can be known to match (RFC 9111 §4.1: `*` always fails to match).
    Any,
    /// Two requests that this Vary does not tell apart have the same key, and only those: 128 bits of a SHA-256 over
    /// the normalised request fields.
    Key([u8; 16]),
}

/// The variance of a request under the Vary of a stored response. Allocates nothing.
///
/// Request fields are normalised (RFC 9111 §4.1): lines are combined, white space around list members does not count,
/// nor does it, letter case, or order in Accept, Accept-Charset and Accept-Language. Accept-Encoding is reduced to the
/// set of codings that the client takes. An absent field matches only an absent one.
pub fn variance(stored: &HeaderMap, request: &HeaderMap) -> Variance {
    let names = match Names::of(stored) {
        Some(names) if names.count == 0 => return Variance::None,
        Some(names) => names,
        None => return Variance::Any,
    };
    let mut hash = Sha256::new();
    for name in names.iter() {
        hash_bytes(&mut hash, lower(name.as_bytes()));
        hash_field(&mut hash, name, request);
    }
    let mut key = [0; 16];
    for (to, from) in key.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    Variance::Key(key)
}

/// Whether Vary says `*` anywhere, or what cannot be told from it.
pub fn is_any(headers: &HeaderMap) -> bool {
    Names::of(headers).is_none()
}

/// The request fields that Vary names, in alphabetical order, each once; `None` where [`is_any`].
pub fn varies_on(headers: &HeaderMap) -> Option<Vec<&str>> {
    Some(Names::of(headers)?.iter().collect())
}

/// The names in a Vary, in alphabetical order, each once.
struct Names<'a> {
    names: [&'a str; MAX_VARY_FIELDS],
    count: usize,
}

impl<'a> Names<'a> {
    /// `None` for `*`, for a member that is no field name, and for more than [`MAX_VARY_FIELDS`].
    fn of(headers: &'a HeaderMap) -> Option<Names<'a>> {
        let mut found = Names { names: [""; MAX_VARY_FIELDS], count: 0 };
        for member in field_members(headers, VARY) {
            let name = std::str::from_utf8(member).ok().filter(|name| *name != "*" && is_token(name))?;
            found.insert(name)?;
        }
        Some(found)
    }

    fn insert(&mut self, name: &'a str) -> Option<()> {
        let order = |known: &&str| lower(known.as_bytes()).cmp(lower(name.as_bytes()));
        let Err(at) = self.names.get(..self.count)?.binary_search_by(order) else { return Some(()) };
        let tail = self.names.get_mut(at..=self.count)?;
        tail.rotate_right(1);
        *tail.first_mut()? = name;
        self.count += 1;
        Some(())
    }

    fn iter(&self) -> impl Iterator<Item = &'a str> {
        self.names.iter().take(self.count).copied()
    }
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// How many members of a request field are brought into order. A field with more is compared as it stands: another
/// order is then another variant, which is merely less sharing.
const MAX_SORTED: usize = 32;

const ABSENT: [u8; 1] = [0];
const AS_IT_STANDS: [u8; 1] = [1];
const AS_A_SET: [u8; 1] = [2];
const AS_CODINGS: [u8; 1] = [3];

/// Each part is preceded by its length and the whole is closed, so that no two fields look alike.
fn hash_field(hash: &mut Sha256, name: &str, request: &HeaderMap) {
    if !request.contains_key(name) {
        hash.update(ABSENT);
        return;
    }
    let done = if name.eq_ignore_ascii_case("accept-encoding") {
        hash_codings(hash, request, name)
    } else if ["accept", "accept-charset", "accept-language"].iter().any(|set| name.eq_ignore_ascii_case(set)) {
        hash_set(hash, request, name)
    } else {
        false
    };
    if !done && name.eq_ignore_ascii_case("cookie") {
        // No list: a comma is a character like any other (RFC 6265 §4.2.1).
        hash.update(AS_IT_STANDS);
        for line in request.get_all(name) {
            hash_bytes(hash, trim(line.as_bytes()).iter().copied());
        }
    } else if !done {
        hash.update(AS_IT_STANDS);
        for line in request.get_all(name) {
            for member in members(line.as_bytes()) {
                hash_bytes(hash, member.iter().copied());
            }
        }
    }
    hash.update(u64::MAX.to_le_bytes());
}

/// Members whose order, case and inner white space carry no meaning. False, and nothing hashed, if there are too many.
fn hash_set(hash: &mut Sha256, request: &HeaderMap, name: &str) -> bool {
    let mut set = Sorted::<&[u8]>::new(b"");
    for member in field_members(request, name) {
        if !set.insert(member, |a, b| plain(a).cmp(plain(b))) {
            return false;
        }
    }
    hash.update(AS_A_SET);
    for member in set.iter() {
        hash_bytes(hash, plain(member));
    }
    true
}

/// One coding of Accept-Encoding, and whether it is acceptable (RFC 9110 §12.5.3).
type Coding<'a> = (&'a [u8], bool);

/// The codings that the client takes: weights other than zero do not matter, since each coding with one is acceptable.
/// False, and nothing hashed, if there are too many or one has a malformed weight.
fn hash_codings(hash: &mut Sha256, request: &HeaderMap, name: &str) -> bool {
    let mut others_accepted = false;
    let mut others_refused = false;
    let mut identity = None;
    for member in field_members(request, name) {
        match coding(member) {
            None => return false,
            Some((b"*", accepted)) if accepted => others_accepted = true,
            Some((b"*", _)) => others_refused = true,
            Some((name, accepted)) if name.eq_ignore_ascii_case(b"identity") => identity = Some(accepted),
            Some(_) => {}
        }
    }
    let mut set = Sorted::<Coding<'_>>::new((b"", false));
    for (name, accepted) in field_members(request, name).filter_map(coding) {
        // `identity` is acceptable unless refused; another refused coding matters only where `*` would accept it.
        if name.eq_ignore_ascii_case(b"identity") || !(accepted || (others_accepted && name != b"*")) {
            continue;
        }
        if !set.insert((name, accepted), |a, b| lower(a.0).cmp(lower(b.0)).then(a.1.cmp(&b.1))) {
            return false;
        }
    }
    let identity_refused = identity == Some(false) || (identity.is_none() && others_refused);
    hash.update(AS_CODINGS);
    hash.update([u8::from(identity_refused)]);
    for (name, accepted) in set.iter() {
        hash.update([u8::from(accepted)]);
        hash_bytes(hash, lower(name));
    }
    true
}

/// A member of Accept-Encoding: `name` or `name;q=weight`. `None` when the weight is malformed.
fn coding(member: &[u8]) -> Option<Coding<'_>> {
    let Some(semicolon) = member.iter().position(|&byte| byte == b';') else { return Some((canonical(member), true)) };
    let (name, weight) = member.split_at(semicolon);
    let weight = trim(weight.get(1..)?);
    let ([b'q' | b'Q', b'=', digits @ ..] | [b'q' | b'Q', b' ', b'=', digits @ ..]) = weight else { return None };
    let accepted = match digits {
        [b'0'] => false,
        [b'0', b'.', decimals @ ..] if decimals.len() <= 3 && decimals.iter().all(u8::is_ascii_digit) => {
            decimals.iter().any(|&digit| digit != b'0')
        }
        [b'1'] => true,
        [b'1', b'.', decimals @ ..] if decimals.len() <= 3 && decimals.iter().all(|&digit| digit == b'0') => true,
        _ => return None,
    };
    Some((canonical(trim(name)), accepted))
}

/// RFC 9110 §8.4.1: `x-gzip` and `x-compress` are the same as `gzip` and `compress`.
fn canonical(coding: &[u8]) -> &[u8] {
    if coding.eq_ignore_ascii_case(b"x-gzip") {
        b"gzip"
    } else if coding.eq_ignore_ascii_case(b"x-compress") {
        b"compress"
    } else {
        coding
    }
}

/// A small sorted set on the stack.
struct Sorted<T> {
    items: [T; MAX_SORTED],
    count: usize,
}

impl<T: Copy> Sorted<T> {
    fn new(filler: T) -> Self {
        Sorted { items: [filler; MAX_SORTED], count: 0 }
    }

    /// False when it is full.
    fn insert(&mut self, item: T, order: impl Fn(&T, &T) -> Ordering) -> bool {
        let known = self.items.get(..self.count).unwrap_or_default();
        let Err(at) = known.binary_search_by(|known| order(known, &item)) else { return true };
        let Some(tail) = self.items.get_mut(at..=self.count) else { return false };
        tail.rotate_right(1);
        if let Some(first) = tail.first_mut() {
            *first = item;
        }
        self.count += 1;
        true
    }

    fn iter(&self) -> impl Iterator<Item = T> {
        self.items.iter().take(self.count).copied()
    }
}

fn lower(text: &[u8]) -> impl Iterator<Item = u8> + Clone {
    text.iter().map(u8::to_ascii_lowercase)
}

/// In lower case and without white space, save within quoted strings.
fn plain(text: &[u8]) -> impl Iterator<Item = u8> + Clone {
    let (mut quoted, mut escaped) = (false, false);
    text.iter().filter_map(move |&byte| {
        if quoted {
            quoted = byte != b'"' || escaped;
            escaped = byte == b'\\' && !escaped;
            return Some(byte);
        }
        quoted = byte == b'"';
        (byte != b' ' && byte != b'\t').then(|| byte.to_ascii_lowercase())
    })
}

fn hash_bytes(hash: &mut Sha256, bytes: impl Iterator<Item = u8> + Clone) {
    hash.update((bytes.clone().count() as u64).to_le_bytes());
    let mut chunk = [0; 64];
    let mut filled = 0;
    for byte in bytes {
        if let Some(slot) = chunk.get_mut(filled) {
            *slot = byte;
            filled += 1;
        }
        if filled == chunk.len() {
            hash.update(chunk);
            filled = 0;
        }
    }
    hash.update(chunk.get(..filled).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::super::testing::headers;
    use super::*;

    fn key(vary: &[&str], request: &[(&str, &str)]) -> Variance {
        let vary: Vec<_> = vary.iter().map(|value| ("vary", *value)).collect();
        variance(&headers(&vary), &headers(request))
    }

    #[track_caller]
    fn same(vary: &str, a: &[(&str, &str)], b: &[(&str, &str)]) {
        assert_eq!(key(&[vary], a), key(&[vary], b), "{a:?} {b:?}");
    }

    #[track_caller]
    fn differ(vary: &str, a: &[(&str, &str)], b: &[(&str, &str)]) {
        assert_ne!(key(&[vary], a), key(&[vary], b), "{a:?} {b:?}");
    }

    #[test]
    fn absent_empty_or_star() {
        // RFC 9110 §12.5.5.
        assert_eq!(variance(&headers(&[]), &headers(&[("foo", "1")])), Variance::None);
        assert_eq!(key(&["", " , "], &[("foo", "1")]), Variance::None);
        for vary in
            [&["*"] as &[_], &["*, *"], &["*", "*"], &[", *"], &["", "*"], &["*, Foo"], &["Foo, *"], &["Foo", "*"]]
        {
            assert_eq!(key(vary, &[("foo", "1")]), Variance::Any, "{vary:?}");
        }
        assert_eq!(key(&["foo bar"], &[]), Variance::Any, "what cannot be read");
        let many = |count: usize| (0..count).map(|n| format!("f{n}")).collect::<Vec<_>>().join(",");
        assert!(matches!(key(&[&many(16)], &[]), Variance::Key(_)));
        assert_eq!(key(&[&many(17)], &[]), Variance::Any);
    }

    #[test]
    fn every_listed_field_must_match() {
        // RFC 9111 §4.1.
        let all = [("foo", "1"), ("bar", "abc"), ("baz", "789")];
        same("Foo, Bar, Baz", &all, &[all[2], all[0], all[1], ("other", "2")]);
        for changed in [("foo", "2"), ("bar", "abc4"), ("baz", "")] {
            let other: Vec<_> = all.iter().map(|f| if f.0 == changed.0 { changed } else { *f }).collect();
            differ("Foo, Bar, Baz", &all, &other);
        }
        differ("Foo, Bar, Baz", &all, &all[..2]);
        differ("Foo", &[("foo", "")], &[]);
        differ("Foo, Bar", &[("foo", "1")], &[("bar", "1")]);
        differ("Foo", &[("foo", "a")], &[("foo", "A")]);
        differ("Foo", &[("foo", "1,2")], &[("foo", "2,1")]);
        differ("Foo", &[("foo", "\"1, 2\"")], &[("foo", "\"1,2\"")]);
        differ("Foo", &[("foo", "1 2")], &[("foo", "12")]);
        same("Foo, Bar, Baz", &[all[0], all[2]], &[all[2], all[0]]);
    }

    #[test]
    fn how_vary_is_written_does_not_matter() {
        let request = [("foo", "1"), ("bar", "2")];
        let expected = key(&["foo, bar"], &request);
        for vary in [&["bar,foo"] as &[_], &["Foo", "BAR"], &["foo, foo, bar,"]] {
            assert_eq!(key(vary, &request), expected, "{vary:?}");
        }
    }

    #[test]
    fn lines_and_white_space() {
        same("Foo", &[("foo", "1,2")], &[("foo", " 1, 2 ")]);
        same("Foo", &[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")]);
    }

    #[test]
    fn order_and_case_where_the_field_allows_it() {
        for field in ["accept", "accept-language", "Accept-Charset"] {
            same(field, &[(field, "en, de;q=0.5")], &[(field, "DE; q=0.5 ,en")]);
            differ(field, &[(field, "en, de;q=0.5")], &[(field, "en, de")]);
            differ(field, &[(field, "")], &[]);
        }
        differ("accept", &[("accept", "a/b;p=\"X\"")], &[("accept", "a/b;p=\"x\"")]);
        let many =
            |range: &mut dyn Iterator<Item = usize>| range.map(|n| format!("l{n}")).collect::<Vec<_>>().join(",");
        let (up, down) = (many(&mut (0..40)), many(&mut (0..40).rev()));
        differ("accept-language", &[("accept-language", &up)], &[("accept-language", &down)]);
    }

    #[test]
    fn accept_encoding_is_the_set_of_codings() {
        // RFC 9110 §12.5.3.
        let ae = |value: &str| key(&["Accept-Encoding"], &[("accept-encoding", value)]);
        for (a, b) in [
            ("gzip, br", "br,gzip"),
            ("gzip;q=0.1, br", "gzip, br;q=1.0"),
            ("GZIP", "x-gzip"),
            ("gzip, identity", "gzip"),
            ("gzip, br;q=0", "gzip"),
            ("", "identity"),
            ("identity;q=0, gzip", "*;q=0, gzip"),
            ("gzip;q=0.000", "br;q=0"),
        ] {
            assert_eq!(ae(a), ae(b), "{a} {b}");
        }
        for (a, b) in [
            ("gzip", "br"),
            ("gzip", "gzip, br"),
            ("gzip", ""),
            ("gzip", "*"),
            ("*", "*, br;q=0"),
            ("gzip", "gzip, identity;q=0"),
            ("gzip", "gzip, exotic"),
            ("gzip;q=0", "gzip;q=0.001"),
            ("gzip;q=x", "gzip"),
        ] {
            assert_ne!(ae(a), ae(b), "{a} {b}");
        }
        assert_ne!(ae(""), key(&["Accept-Encoding"], &[]));
    }

    /// The fields as their definition has them, in the plainest code: the model for the property below.
    fn model(vary: &[String], request: &HeaderMap) -> Vec<(String, Option<Vec<String>>)> {
        let mut names: Vec<_> = vary.iter().map(|name| name.to_lowercase()).collect();
        names.sort();
        names.dedup();
        let values = |name: &String| {
            let lines: Vec<_> = request.get_all(name).iter().map(|line| line.to_str().unwrap()).collect();
            let members = |line: &&str| line.split(',').map(|m| m.trim().to_owned()).collect::<Vec<_>>();
            let mut members: Vec<_> = lines.iter().flat_map(members).collect();
            if name == "accept-language" {
                members = members.iter().map(|m| m.to_lowercase()).filter(|m| !m.is_empty()).collect();
                members.sort();
                members.dedup();
            }
            (!lines.is_empty()).then_some(members)
        };
        names.into_iter().map(|name| (name.clone(), values(&name))).collect()
    }

    fn any_request() -> impl Strategy<Value = Vec<(String, String)>> {
        let name = proptest::sample::select(vec!["foo", "bar", "accept-language"]).prop_map(str::to_owned);
        proptest::collection::vec((name, "[abA]{0,1}(,? ?[ab]){0,2}"), 0..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn equal_exactly_when_the_normalised_fields_are(
            vary in proptest::collection::vec("(?i)(foo|bar|accept-language)", 1..4),
            a in any_request(),
            b in any_request(),
        ) {
            let of = |fields: &[(String, String)]| {
                // Inner white space is not the model's subject.
                let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.replace(' ', ""))).collect();
                headers(&fields.iter().map(|(n, v)| (*n, v.as_str())).collect::<Vec<_>>())
            };
            let (a, b) = (of(&a), of(&b));
            let stored = headers(&[("vary", &vary.join(", "))]);
            let equal = variance(&stored, &a) == variance(&stored, &b);
            prop_assert_eq!(equal, model(&vary, &a) == model(&vary, &b));
        }

        #[test]
        fn total_on_arbitrary_bytes(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
            let mut fields = HeaderMap::new();
            for name in ["vary", "accept", "accept-encoding", "foo"] {
                fields.insert(HeaderName::from_static(name), value.clone());
            }
            variance(&fields, &fields);
            variance(&headers(&[("vary", "accept, accept-encoding, foo")]), &fields);
        }
    }
}
