//! The cache key: which requests are for the same stored response.
//!
//! The key's text is a sequence of parts, each framed by its kind and its length, so that no two different requests
//! can share a text. Its SHA-256 is cut to 128 bits; the text is stored with the object, so a collision of those bits
//! is a miss and never a mix-up. The method is no part: only GET and HEAD are looked up, and HEAD shares GET's key.

use std::borrow::Cow;
use std::fmt::Write;

use http::HeaderMap;
use http::header::{COOKIE, HeaderName};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use super::normal::decoded;
use crate::config::model::{KeyPolicy, QueryKey};
use crate::http_cache::Rewrite;

/// Changed with every change of the text's layout or of what goes into it: older objects are then not found.
const VERSION: u8 = 1;
/// A typical text stays on the stack.
const INLINE_TEXT: usize = 256;
/// So do the parameters of a typical query while they are sorted.
const INLINE_PARAMETERS: usize = 16;

static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What a key is made of. Host, path and query are in normal form.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a> {
    /// Sites do not share objects: the name of the site.
    pub zone: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    /// Without the `?`; `None` where the target has none.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// Fields that count with another value than that in `headers`.
    pub rewritten: &'a [Rewrite],
    /// A trusted proxy asks: what it says of the client's scheme and host is believed, by the origin too.
    pub trusted: bool,
    /// The name of the route, where it was chosen by who the client is: another client gets another answer for the URL.
    pub route: Option<&'a str>,
    pub policy: &'a KeyPolicy,
}

/// The first 128 bits of the SHA-256 of a key's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub hash: [u8; 16],
    /// The key has more than the site and the URL: there may be several for one URL.
    pub has_more: bool,
}

/// A key's text: to be stored with the object and compared on a disk hit. Reusable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyText(SmallVec<[u8; INLINE_TEXT]>);

impl KeyText {
    pub fn new() -> KeyText {
        KeyText::default()
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn part(&mut self, kind: Kind, value: &[u8]) {
        self.frame(kind, value.len());
        self.0.extend_from_slice(value);
    }

    /// The length as a LEB128 varint: one byte for nearly every part.
    fn frame(&mut self, kind: Kind, mut length: usize) {
        self.0.push(kind as u8);
        while length >= 0x80 {
            self.0.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        self.0.push(length as u8);
    }
}

/// Makes the key of a request. What `text` held before is replaced.
pub fn key(parts: &KeyParts<'_>, text: &mut KeyText) -> Key {
    text.0.clear();
    text.0.push(VERSION);
    text.part(Kind::Zone, parts.zone.as_bytes());
    text.part(Kind::Host, parts.host.as_bytes());
    text.part(Kind::Path, parts.path.as_bytes());
    write_query(parts.query, parts.policy, text);
    let url_length = text.0.len();
    if let Some(route) = parts.route {
        text.part(Kind::Route, route.as_bytes());
    }
    if parts.trusted {
        write_claims(parts.headers, text);
    }
    for name in &parts.policy.headers {
        // A name without a value says "absent", which differs from an empty value.
        text.part(Kind::Header, name.as_bytes());
        if let Some((_, value)) = parts.rewritten.iter().find(|(rewritten, _)| rewritten == name.as_str()) {
            value.iter().for_each(|value| text.part(Kind::Value, value.as_bytes()));
            continue;
        }
        for line in parts.headers.get_all(name.as_str()) {
            text.part(Kind::Value, line.as_bytes());
        }
    }
    for name in &parts.policy.cookies {
        text.part(Kind::Cookie, name.as_bytes());
        for value in cookie_values(parts.headers, name) {
            text.part(Kind::Value, value);
        }
    }
    Key { hash: digest(&text.0), has_more: text.0.len() > url_length }
}

fn digest(text: &[u8]) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(text).into();
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest[..16]);
    hash
}

/// Whether a trusted proxy says that the client came by https.
pub fn is_https(headers: &HeaderMap) -> bool {
    let said = headers.get(&FORWARDED_PROTO).and_then(|line| line.as_bytes().split(|b| *b == b',').next());
    said.is_some_and(|said| said.trim_ascii().eq_ignore_ascii_case(b"https"))
}

/// An origin answers by what it believes of the client's way: with a redirect to https, or with URLs of another host.
fn write_claims(headers: &HeaderMap, text: &mut KeyText) {
    if is_https(headers) {
        text.part(Kind::Scheme, b"https");
    }
    let mut hosts = headers.get_all(&FORWARDED_HOST).iter().peekable();
    if hosts.peek().is_some() {
        text.part(Kind::Header, FORWARDED_HOST.as_str().as_bytes());
        hosts.for_each(|host| text.part(Kind::Value, host.as_bytes()));
    }
}

/// A key's text for people: one line, safe to print whatever the client sent.
///
/// `site=shop host=example.com path=/a query=b=1 accept-language="en" x-absent=- cookie.theme="dark"`
pub fn describe(text: &[u8]) -> String {
    let mut line = String::new();
    let mut valueless = false;
    for frame in Frames::new(text) {
        let Some((kind, value)) = frame else {
            return format!("unreadable key {}", text.escape_ascii());
        };
        if valueless && kind != Kind::Value {
            line.push('-');
        }
        let value = value.escape_ascii();
        // Writing to a String cannot fail.
        let _ = match kind {
            Kind::Zone => write!(line, "site={value}"),
            Kind::Host => write!(line, " host={value}"),
            Kind::Scheme => write!(line, " scheme={value}"),
            Kind::Path => write!(line, " path={value}"),
            Kind::Query => write!(line, " query={value}"),
            Kind::Route => write!(line, " route={value}"),
            Kind::Header => write!(line, " {value}="),
            Kind::Cookie => write!(line, " cookie.{value}="),
            Kind::Value if valueless => write!(line, "\"{value}\""),
            Kind::Value => write!(line, ",\"{value}\""),
        };
        valueless = matches!(kind, Kind::Header | Kind::Cookie);
    }
    if valueless {
        line.push('-');
    }
    line
}

/// What a key's text says of the site and the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    pub zone: &'a str,
    /// With the port, where that is not the scheme's own.
    pub host: &'a str,
    pub path: &'a str,
    /// What of it is in the key; `None`: none, as without a `?`.
    pub query: Option<&'a str>,
}

/// The site and the URL of a key's text; `None` where it is none of this version. What follows them is not looked at.
pub fn parts(text: &[u8]) -> Option<Parts<'_>> {
    let mut frames = Frames::new(text);
    let mut expected = |kind| match frames.next()?? {
        (found, value) if found == kind => str::from_utf8(value).ok(),
        _ => None,
    };
    let (zone, host, path) = (expected(Kind::Zone)?, expected(Kind::Host)?, expected(Kind::Path)?);
    let query = match frames.next() {
        Some(Some((Kind::Query, query))) => Some(str::from_utf8(query).ok()?),
        Some(Some(_)) | None => None,
        Some(None) => return None,
    };
    Some(Parts { zone, host, path, query })
}

/// What of a query (in normal form) is in the key of a request that has it: [`Parts::query`].
pub fn query_in_key<'q>(query: Option<&'q str>, policy: &KeyPolicy) -> Option<Cow<'q, str>> {
    let query = query?;
    if is_whole(policy) {
        return Some(Cow::Borrowed(query));
    }
    let kept = kept(query, policy);
    (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Zone = b'z',
    Host = b'h',
    Scheme = b's',
    Path = b'p',
    Query = b'q',
    Route = b'r',
    Header = b'f',
    Cookie = b'c',
    /// Of the header or cookie before it.
    Value = b'v',
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        let all = [
            Kind::Zone,
            Kind::Host,
            Kind::Scheme,
            Kind::Path,
            Kind::Query,
            Kind::Route,
            Kind::Header,
            Kind::Cookie,
            Kind::Value,
        ];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The parts of a text; `Some(None)` and then the end where it is none of ours.
struct Frames<'a> {
    rest: &'a [u8],
    broken: bool,
}

impl<'a> Frames<'a> {
    fn new(text: &'a [u8]) -> Frames<'a> {
        match text.split_first() {
            Some((&VERSION, rest)) => Frames { rest, broken: false },
            _ => Frames { rest: text, broken: true },
        }
    }

    fn frame(&mut self) -> Option<(Kind, &'a [u8])> {
        let (&kind, mut rest) = self.rest.split_first()?;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            // Lengths fit in 32 bits by far.
            if shift > 28 {
                return None;
            }
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (value, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some((Kind::from_byte(kind)?, value))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Option<(Kind, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() && !self.broken {
            return None;
        }
        if self.broken {
            // Said once, then the end.
            self.broken = false;
            self.rest = &[];
            return Some(None);
        }
        let frame = self.frame();
        if frame.is_none() {
            self.rest = &[];
        }
        Some(frame)
    }
}

/// Writes the query's part. Where parameters are chosen or sorted, a query of which nothing is left counts as absent;
/// otherwise `/a` and `/a?` stay two resources, as they are to the origin.
fn write_query(query: Option<&str>, policy: &KeyPolicy, text: &mut KeyText) {
    let Some(query) = query else { return };
    if is_whole(policy) {
        return text.part(Kind::Query, query.as_bytes());
    }
    let kept = kept(query, policy);
    if kept.is_empty() {
        return;
    }
    text.frame(Kind::Query, kept.iter().map(|parameter| parameter.len()).sum::<usize>() + kept.len() - 1);
    for (index, parameter) in kept.iter().enumerate() {
        if index > 0 {
            text.0.push(b'&');
        }
        text.0.extend_from_slice(parameter.as_bytes());
    }
}

/// The query counts as it is.
fn is_whole(policy: &KeyPolicy) -> bool {
    policy.query == QueryKey::All && !policy.sort
}

/// The parameters that count, in the key's order.
fn kept<'q>(query: &'q str, policy: &KeyPolicy) -> SmallVec<[&'q str; INLINE_PARAMETERS]> {
    let mut kept: SmallVec<[&str; INLINE_PARAMETERS]> =
        query.split('&').filter(|parameter| !parameter.is_empty() && is_kept(parameter, &policy.query)).collect();
    if policy.sort {
        // By name and stable: among parameters of one name the order may well matter to the origin.
        kept.sort_by_key(|parameter| name_of(parameter));
    }
    kept
}

fn is_kept(parameter: &str, query: &QueryKey) -> bool {
    let listed = |names: &[String]| names.iter().any(|name| name_matches(name, name_of(parameter)));
    match query {
        QueryKey::All => true,
        QueryKey::None => false,
        QueryKey::Only(names) => listed(names),
        QueryKey::Ignore(names) => !listed(names),
    }
}

fn name_of(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

/// Compared decoded; a trailing `*` in the policy's name stands for any rest.
fn name_matches(listed: &str, name: &str) -> bool {
    match listed.strip_suffix('*') {
        Some(prefix) => {
            let mut name = decoded(name);
            prefix.bytes().all(|byte| name.next() == Some(byte))
        }
        None => decoded(name).eq(listed.bytes()),
    }
}

/// The values of one cookie over all Cookie lines (HTTP/2 may split them, RFC 9113 §8.2.3), in order.
fn cookie_values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b';'))
        .map(|pair| pair.trim_ascii())
        .filter_map(move |pair| match pair.strip_prefix(name.as_bytes())? {
            [b'=', value @ ..] => Some(value),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn text_of(target: &str, lines: &[(&'static str, &str)], policy: &KeyPolicy) -> KeyText {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        of(path, query, lines, false, policy)
    }

    fn of(
        path: &str,
        query: Option<&str>,
        lines: &[(&'static str, &str)],
        trusted: bool,
        policy: &KeyPolicy,
    ) -> KeyText {
        let mut text = KeyText::new();
        let headers = headers(lines);
        key(
            &KeyParts {
                zone: "shop",
                host: "example.com",
                path,
                query,
                headers: &headers,
                rewritten: &[],
                trusted,
                route: None,
                policy,
            },
            &mut text,
        );
        text
    }

    fn shown(target: &str, lines: &[(&'static str, &str)], policy: &KeyPolicy) -> String {
        describe(text_of(target, lines, policy).as_bytes())
    }

    fn by_query(query: QueryKey, sort: bool) -> KeyPolicy {
        KeyPolicy { query, sort, ..KeyPolicy::default() }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_layout_and_the_hash_are_fixed() {
        // These bytes name files on disk: they change only together with VERSION.
        let mut text = KeyText::new();
        let headers = HeaderMap::new();
        let policy = KeyPolicy::default();
        let parts = KeyParts {
            zone: "s",
            host: "h",
            path: "/",
            query: Some("q"),
            headers: &headers,
            rewritten: &[],
            trusted: false,
            route: None,
            policy: &policy,
        };
        let key = key(&parts, &mut text);
        assert_eq!(text.as_bytes(), b"\x01z\x01sh\x01hp\x01/q\x01q");
        assert_eq!(key.hash[..], Sha256::digest(b"\x01z\x01sh\x01hp\x01/q\x01q")[..16]);
        assert!(!text.0.spilled());
    }

    #[test]
    fn a_text_is_replaced_and_not_added_to() {
        let (headers, policy) = (HeaderMap::new(), KeyPolicy::default());
        let parts = |path| KeyParts {
            zone: "s",
            host: "h",
            path,
            query: None,
            headers: &headers,
            rewritten: &[],
            trusted: false,
            route: None,
            policy: &policy,
        };
        let (mut used, mut fresh) = (KeyText::new(), KeyText::new());
        key(&parts("/other"), &mut used);
        assert_eq!(key(&parts("/a"), &mut used), key(&parts("/a"), &mut fresh));
        assert_eq!(used, fresh);
    }

    #[test]
    fn zone_and_host_tell_resources_apart() {
        let (headers, policy) = (HeaderMap::new(), KeyPolicy::default());
        let hash = |zone, host| {
            key(
                &KeyParts {
                    zone,
                    host,
                    path: "/",
                    query: None,
                    headers: &headers,
                    rewritten: &[],
                    trusted: false,
                    route: None,
                    policy: &policy,
                },
                &mut KeyText::new(),
            )
        };
        assert_ne!(hash("a", "h"), hash("b", "h"));
        assert_ne!(hash("a", "h"), hash("a", "g"));
        assert_ne!(hash("ab", "c"), hash("a", "bc"));
    }

    #[test]
    fn the_query_follows_its_policy() {
        let cases: &[(QueryKey, bool, &str, &str)] = &[
            (QueryKey::All, false, "/?b=2&a=1", " query=b=2&a=1"),
            (QueryKey::All, false, "/?", " query="),
            (QueryKey::All, false, "/", ""),
            (QueryKey::All, true, "/?b=2&a=1&&b=1", " query=a=1&b=2&b=1"),
            (QueryKey::All, true, "/?", ""),
            (QueryKey::None, false, "/?b=2", ""),
            (QueryKey::Only(names(&["q", "page"])), false, "/?x=1&page=2&q=a&qq=1", " query=page=2&q=a"),
            (QueryKey::Only(names(&["q"])), false, "/?%71=a", " query=%71=a"),
            (QueryKey::Only(names(&["q"])), false, "/?x=1", ""),
            (QueryKey::Ignore(names(&["utm_*", "fbclid"])), false, "/?utm_a=1&b=2&fbclid&utm=3", " query=b=2&utm=3"),
            (QueryKey::Ignore(names(&["*"])), false, "/?a=1&b", ""),
            (QueryKey::Ignore(names(&["x"])), true, "/?b&x=1&a", " query=a&b"),
        ];
        for (query, sort, target, expected) in cases {
            let line = shown(target, &[], &by_query(query.clone(), *sort));
            assert_eq!(line, format!("site=shop host=example.com path=/{expected}"), "{query:?} {target}");
            let policy = by_query(query.clone(), *sort);
            let text = text_of(target, &[], &policy);
            let asked = target.split_once('?').map(|(_, query)| query);
            assert_eq!(query_in_key(asked, &policy).as_deref(), parts(text.as_bytes()).unwrap().query, "{target}");
        }
    }

    #[test]
    fn sorting_does_not_confuse_names_that_share_a_beginning() {
        let sorted = by_query(QueryKey::All, true);
        assert_eq!(text_of("/?a=1&a-b=2&ab=3", &[], &sorted), text_of("/?ab=3&a-b=2&a=1", &[], &sorted));
    }

    #[test]
    fn listed_headers_distinguish_absent_empty_and_present() {
        let policy = KeyPolicy { headers: names(&["accept-language", "x-a"]), ..KeyPolicy::default() };
        let base = "site=shop host=example.com path=/";
        let en_de = [("accept-language", "en"), ("accept-language", "de")];
        assert_eq!(shown("/", &[], &policy), format!("{base} accept-language=- x-a=-"));
        assert_eq!(shown("/", &[("x-a", "")], &policy), format!(r#"{base} accept-language=- x-a="""#));
        assert_eq!(shown("/", &en_de, &policy), format!(r#"{base} accept-language="en","de" x-a=-"#));
        assert_eq!(shown("/", &[("unlisted", "1")], &policy), shown("/", &[], &policy));
        assert_ne!(text_of("/", &en_de, &policy), text_of("/", &[("accept-language", "en,de")], &policy));
    }

    #[test]
    fn listed_cookies_distinguish_absent_empty_and_present() {
        let policy = KeyPolicy { cookies: names(&["theme"]), ..KeyPolicy::default() };
        let base = "site=shop host=example.com path=/ cookie.theme=";
        let cookie = |value: &str| shown("/", &[("cookie", value)], &policy);
        assert_eq!(cookie("id=1;  theme=dark ; x=y"), format!(r#"{base}"dark""#));
        assert_eq!(cookie("theme="), format!(r#"{base}"""#));
        assert_eq!(cookie("theme2=a; xtheme=b; theme"), format!("{base}-"));
        assert_eq!(shown("/", &[("cookie", "a=1"), ("cookie", "theme=b=c")], &policy), format!(r#"{base}"b=c""#));
    }

    #[test]
    fn what_a_trusted_proxy_says_is_described() {
        let lines = [("x-forwarded-proto", "https"), ("x-forwarded-host", "shop.example")];
        let text = of("/a", None, &lines, true, &KeyPolicy::default());
        let expected = r#"site=shop host=example.com path=/a scheme=https x-forwarded-host="shop.example""#;
        assert_eq!(describe(text.as_bytes()), expected);
    }

    #[test]
    fn what_is_no_key_is_described_without_harm() {
        for text in [&b""[..], b"\x02", b"\x01z", b"\x01z\x05ab", b"\x01?\x00", b"\x01z\xff\xff\xff\xff\xff\xff\x01"] {
            assert!(describe(text).starts_with("unreadable key"), "{text:?}");
        }
        assert_eq!(shown("/\u{1b}[0m", &[], &KeyPolicy::default()), r"site=shop host=example.com path=/\x1b[0m");
    }

    #[test]
    fn the_parts_are_those_that_it_was_made_of() {
        let policy = KeyPolicy { headers: names(&["x-a"]), ..KeyPolicy::default() };
        let said = |query| Parts { zone: "shop", host: "example.com", path: "/a", query };
        for (target, query) in [("/a", None), ("/a?", Some("")), ("/a?b=1", Some("b=1"))] {
            assert_eq!(parts(text_of(target, &[], &KeyPolicy::default()).as_bytes()), Some(said(query)), "{target}");
            assert_eq!(parts(text_of(target, &[("x-a", "q")], &policy).as_bytes()), Some(said(query)), "{target}");
        }
        let https = of("/a", None, &[("x-forwarded-proto", "https")], true, &KeyPolicy::default());
        assert_eq!(parts(https.as_bytes()), Some(said(None)));
    }

    #[test]
    fn what_is_no_key_has_no_parts() {
        for text in [
            &b""[..],
            b"\x01",
            b"\x02z\x01sh\x01hp\x01/",
            b"\x01z\x01sh\x01h",
            b"\x01h\x01hz\x01sp\x01/",
            b"\x01z\x01sh\x01hp\x02/",
            b"\x01z\x01sh\x01hp\x01\xff",
            b"\x01z\x01sh\x01hp\x01/q\x01\xff",
            b"\x01z\x01sh\x01hp\x01/q\x02a",
        ] {
            assert_eq!(parts(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_parts_or_none(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parts(&text);
        }

        /// A text reads back as the parts that made it: so no two sequences of parts share one.
        #[test]
        fn the_framing_is_injective(parts in proptest::collection::vec((0usize..8, proptest::collection::vec(any::<u8>(), 0..300)), 0..8)) {
            let kinds =
                [Kind::Zone, Kind::Host, Kind::Scheme, Kind::Path, Kind::Query, Kind::Header, Kind::Cookie, Kind::Value];
            let mut text = KeyText::new();
            text.0.push(VERSION);
            for (kind, value) in &parts {
                text.part(kinds[*kind], value);
            }
            let read: Option<Vec<_>> = Frames::new(text.as_bytes()).collect();
            let written: Vec<_> = parts.iter().map(|(kind, value)| (kinds[*kind], &value[..])).collect();
            prop_assert_eq!(read, Some(written));
        }

        #[test]
        fn different_requests_have_different_texts(a in request(), b in request()) {
            let policy = KeyPolicy { headers: names(&["x-a"]), cookies: names(&["c"]), ..KeyPolicy::default() };
            let text = |request: &Request| {
                let mut map = HeaderMap::new();
                for line in &request.4 {
                    map.append("x-a", HeaderValue::from_str(line).unwrap());
                }
                for value in &request.5 {
                    map.append("cookie", HeaderValue::from_str(&format!("c={value}")).unwrap());
                }
                let (zone, host, path, query, ..) = request;
                let mut text = KeyText::new();
                let hash = key(
                    &KeyParts { zone, host, path, query: query.as_deref(), headers: &map, rewritten: &[], trusted: false, route: None, policy: &policy },
                    &mut text,
                );
                (text, hash)
            };
            prop_assert_eq!(a == b, text(&a) == text(&b));
            prop_assert_eq!(a == b, text(&a).1 == text(&b).1);
        }

        #[test]
        fn describing_never_fails(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(!describe(&text).is_empty() || text == [VERSION]);
        }
    }

    type Request = (String, String, String, Option<String>, Vec<String>, Vec<String>);

    /// Few letters, so that parts often differ only in where one ends and the next begins.
    fn request() -> impl Strategy<Value = Request> {
        let word = || "[ab]{0,2}";
        let words = || proptest::collection::vec("[ab]{0,2}", 0..3);
        (word(), word(), word(), proptest::option::of(word()), words(), words())
    }
}
