//! Taking tokens out of requests, before anything else looks at them: what is left has the request's key, and goes to the
//! origin.

use std::borrow::Cow;

use super::normal::{decoded, encoded_at};
use crate::config::model::Config;

/// Where the tokens of a format of signed URLs are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenPlaces {
    /// Query parameters, by their exact names: never part of the key, never sent on.
    pub parameters: Vec<String>,
    /// Cookies.
    pub cookies: Vec<String>,
    /// Request fields, lower case.
    pub fields: Vec<String>,
    /// `PARAMETER=`, which the first segment of a path begins with where it is a token.
    pub path_prefix: Option<String>,
}

/// Where the tokens of a configuration's sites are.
#[derive(Debug, Default)]
pub struct Tokens {
    /// By site, those of all its routes: before a route is known, a path that begins with a token does so for the whole site.
    sites: Vec<UrlPlaces>,
    /// By [`crate::config::model::Guard::id`].
    policies: Vec<TokenPlaces>,
    /// Of all sites.
    all: UrlPlaces,
}

/// Where tokens are in URLs; each place once.
#[derive(Debug, Default)]
struct UrlPlaces {
    /// What a path begins with that has a token.
    prefixes: Vec<String>,
    parameters: Vec<String>,
}

impl Tokens {
    /// `keys`: the places of each of the configuration's keys.
    pub fn new(config: &Config, keys: &[TokenPlaces]) -> Tokens {
        let mut tokens = Tokens::default();
        for site in &config.sites {
            let mut of_site = UrlPlaces::default();
            for policy in site.policies() {
                let mut all = TokenPlaces::default();
                for places in policy.guard.signed_url.iter().filter_map(|key| keys.get(*key)) {
                    all.parameters.extend(places.parameters.iter().cloned());
                    all.cookies.extend(places.cookies.iter().cloned());
                    all.fields.extend(places.fields.iter().cloned());
                    of_site.add(places);
                    tokens.all.add(places);
                }
                tokens.policies.push(all);
            }
            tokens.sites.push(of_site);
        }
        tokens
    }

    /// Whether no URL has any.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What the paths of a site begin with that have a token.
    pub(super) fn prefixes(&self, site: usize) -> &[String] {
        self.sites.get(site).map_or(&[], |places| &places.prefixes)
    }

    /// Where those of a policy are; `None`: nowhere.
    pub(super) fn of_policy(&self, guard: usize) -> Option<&TokenPlaces> {
        self.policies.get(guard).filter(|places| **places != TokenPlaces::default())
    }

    /// A URL of a site, or what may be one, without anything that the site takes for a token.
    pub(super) fn redact_of_site<'a>(&self, site: usize, url: &'a str) -> Cow<'a, str> {
        self.sites.get(site).map_or(Cow::Borrowed(url), |places| places.redact(url))
    }

    /// A target or URL without anything that any site takes for a token: for a log, where it is not known whose it is.
    pub fn redact<'a>(&self, target: &'a str) -> Cow<'a, str> {
        self.all.redact(target)
    }
}

impl UrlPlaces {
    fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.parameters.is_empty()
    }

    fn add(&mut self, places: &TokenPlaces) {
        if let Some(prefix) = &places.path_prefix
            && !self.prefixes.contains(prefix)
        {
            self.prefixes.push(prefix.clone());
        }
        for parameter in &places.parameters {
            if !self.parameters.contains(parameter) {
                self.parameters.push(parameter.clone());
            }
        }
    }

    fn redact<'a>(&self, url: &'a str) -> Cow<'a, str> {
        if self.is_empty() {
            return Cow::Borrowed(url);
        }
        let (origin, target) = url.split_at(target_in(url));
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let taken = self.prefixes.iter().find_map(|prefix| from_path(path, prefix));
        let rest = taken.map_or(path, |(_, rest)| rest);
        let left = query.and_then(|query| from_query(query, &self.parameters));
        if taken.is_none() && left.as_deref() == query {
            return Cow::Borrowed(url);
        }
        Cow::Owned(match left {
            Some(query) => format!("{origin}{rest}?{query}"),
            None => format!("{origin}{rest}"),
        })
    }
}

/// Where the target begins in a URL; 0 where there is no scheme and authority before it.
fn target_in(url: &str) -> usize {
    let Some((scheme, rest)) = url.split_once("://") else { return 0 };
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return 0;
    }
    url.len() - rest.len() + rest.find(['/', '?']).unwrap_or(rest.len())
}

/// Whether a parameter, encoded as it may be, has this name.
pub fn is_named(piece: &str, name: &str) -> bool {
    let found = piece.split_once('=').map_or(piece, |(found, _)| found);
    found == name || (found.contains('%') && decoded(found).eq(name.bytes()))
}

/// What follows `prefix`, whose characters may be encoded.
fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (bytes, mut at) = (text.as_bytes(), 0);
    for expected in prefix.bytes() {
        let (byte, length) = match encoded_at(bytes, at) {
            Some(byte) => (byte, 3),
            None => (*bytes.get(at)?, 1),
        };
        if byte != expected {
            return None;
        }
        at += length;
    }
    text.get(at..)
}

/// The token that a path begins with, and the path without it: its first segment is `prefix` (`PARAMETER=`, in whatever
/// encoding) and a token. A path that is nothing else is that of the root.
///
/// The path as it was sent: a first segment is the first before dot segments are resolved.
pub fn from_path<'a>(path: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let text = path.strip_prefix('/').filter(|_| !prefix.is_empty())?;
    let (segment, rest) = match text.find('/').and_then(|at| text.split_at_checked(at)) {
        Some(split) => split,
        None => (text, "/"),
    };
    Some((strip_prefix(segment, prefix)?, rest))
}

/// A query without the parameters of these names, in whatever encoding; `None` where nothing is left. The order and the
/// bytes of the others stay as they are.
///
/// Without an allocation where the tokens stand at the begin or at the end.
pub fn from_query<'a>(query: &'a str, parameters: &[String]) -> Option<Cow<'a, str>> {
    let taken = |piece: &str| parameters.iter().any(|name| is_named(piece, name));
    let mut rest = query;
    while let Some((before, _)) = rest.rsplit_once('&').filter(|(_, last)| taken(last)) {
        rest = before;
    }
    while let Some((_, after)) = rest.split_once('&').filter(|(first, _)| taken(first)) {
        rest = after;
    }
    if taken(rest) || (rest.is_empty() && !query.is_empty()) {
        return None;
    }
    if !rest.split('&').any(taken) {
        return Some(Cow::Borrowed(rest));
    }
    let mut left = String::with_capacity(rest.len());
    for (n, piece) in rest.split('&').filter(|piece| !taken(piece)).enumerate() {
        if n > 0 {
            left.push('&');
        }
        left.push_str(piece);
    }
    (!left.is_empty()).then_some(Cow::Owned(left))
}

/// A line of Cookie without the cookies of these names: the outer `None` where it has none of them, the inner one where
/// nothing is left. Bytes, as others' cookies need not be text.
pub fn from_cookies(line: &[u8], names: &[String]) -> Option<Option<Vec<u8>>> {
    let taken = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        names.iter().any(|taken| taken.as_bytes() == name)
    };
    let pairs = || line.split(|byte| *byte == b';');
    if !pairs().any(taken) {
        return None;
    }
    let mut left = Vec::with_capacity(line.len());
    for (n, pair) in pairs().filter(|pair| !taken(pair)).enumerate() {
        if n > 0 {
            left.push(b';');
        }
        left.extend_from_slice(pair);
    }
    let left = left.trim_ascii();
    Some((!left.is_empty()).then(|| left.to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::site::normal::decoded;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_path_begins_with_its_token() {
        for (path, expected) in [
            ("/token=abc/video/a.m3u8", Some(("abc", "/video/a.m3u8"))),
            ("/%74oken%3Dabc%7E1/video/", Some(("abc%7E1", "/video/"))),
            ("/token=abc", Some(("abc", "/"))),
            ("/token=/a", Some(("", "/a"))),
            ("/token=a/token=b/c", Some(("a", "/token=b/c"))),
            ("/token=a/../b", Some(("a", "/../b"))),
            ("/tokens/a", None),
            ("/a/token=abc/b", None),
            ("/./token=abc/b", None),
            ("//token=abc/b", None),
            ("token=abc/b", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(from_path(path, "token="), expected, "{path}");
        }
        assert_eq!(from_path("/a/b", ""), None);
    }

    #[test]
    fn a_query_loses_its_tokens_and_nothing_else() {
        let tokens = names(&["token", "exp"]);
        for (query, left) in [
            ("", Some("")),
            ("a=1", Some("a=1")),
            ("token=x", None),
            ("token", None),
            ("token=x&exp=1", None),
            ("a=1&token=x", Some("a=1")),
            ("token=x&a=1", Some("a=1")),
            ("a=1&token=x&b=%2f", Some("a=1&b=%2f")),
            ("a&%74%6Fken=x&&exp=2&b=", Some("a&&b=")),
            ("tokens=1&Token=2&a=token", Some("tokens=1&Token=2&a=token")),
            ("&token=x", None),
            ("&token=x&", Some("&")),
        ] {
            assert_eq!(from_query(query, &tokens).as_deref(), left, "{query}");
        }
        assert!(matches!(from_query("token=a&b=1&c&exp=2", &tokens), Some(Cow::Borrowed("b=1&c"))));
    }

    #[test]
    fn cookies_lose_their_tokens_and_nothing_else() {
        let tokens = names(&["token"]);
        let left = |line: &[u8]| {
            from_cookies(line, &tokens).map(|left| left.map(|l| String::from_utf8_lossy(&l).into_owned()))
        };
        assert_eq!(left(b"a=1; b=2"), None);
        assert_eq!(left(b"token=x"), Some(None));
        assert_eq!(left(b"token=x; token=y;"), Some(None));
        assert_eq!(left(b"a=1; token=x; b=2"), Some(Some("a=1; b=2".to_owned())));
        assert_eq!(left(b"token=x; b=2"), Some(Some("b=2".to_owned())));
        assert_eq!(from_cookies(b"a=\xff; token", &tokens), Some(Some(b"a=\xff".to_vec())));
        assert_eq!(left(b""), None);
    }

    #[test]
    fn targets_and_urls_lose_theirs() {
        let places = UrlPlaces { prefixes: names(&["token="]), parameters: names(&["token"]) };
        for (url, left) in [
            ("/a?token=x", "/a"),
            ("/token=x/a?b=1&token=y&c", "/a?b=1&c"),
            ("https://a.test/token=x/a.m3u8", "https://a.test/a.m3u8"),
            ("HTTP://a.test:81?token=x", "HTTP://a.test:81"),
            ("https://a.test", "https://a.test"),
            ("/a?u=https://b.test/token=x", "/a?u=https://b.test/token=x"),
            ("/a?u=://&token=x", "/a?u=://"),
            ("", ""),
        ] {
            assert_eq!(places.redact(url), left, "{url}");
        }
    }

    #[test]
    fn a_prefix_may_be_encoded() {
        assert_eq!(strip_prefix("%74oken%3Dabc", "token="), Some("abc"));
        assert_eq!(strip_prefix("toke", "token="), None);
    }

    /// Names that look like the token's, in many encodings.
    fn piece() -> impl Strategy<Value = String> {
        let letter = |plain: &'static str, upper: &'static str, lower: &'static str| {
            prop_oneof![Just(plain), Just(upper), Just(lower), Just("")]
        };
        let token = (letter("k", "%6B", "%6b"), letter("=", "%3D", "%3d"), "[a-z%;=]{0,4}")
            .prop_map(|(k, is, value)| format!("to{k}en{is}{value}"));
        prop_oneof![token, "[a-z0-9%=;&]{0,8}", Just(String::new())]
    }

    proptest! {
        #[test]
        fn what_is_left_of_a_query_has_no_token(pieces in prop::collection::vec(piece(), 0..6)) {
            let query = pieces.join("&");
            let tokens = names(&["token"]);
            let left = from_query(&query, &tokens);
            for piece in left.iter().flat_map(|left| left.split('&')) {
                let name: Vec<u8> = decoded(piece.split('=').next().unwrap_or_default()).collect();
                prop_assert_ne!(&name, b"token");
            }
            if let Some(left) = left {
                let again = from_query(&left, &tokens);
                prop_assert_eq!(again.as_deref(), Some(&*left));
                let kept: Vec<_> = query.split('&').filter(|piece| !is_named(piece, "token")).collect();
                prop_assert_eq!(&*left, kept.join("&"));
            }
        }

        #[test]
        fn what_is_left_of_cookies_has_no_token(line in "[to=; ken]{0,30}", extra in "(; ?token=[a-z]{0,3}){0,2}") {
            let (line, tokens) = (line + &extra, names(&["token"]));
            if let Some(Some(left)) = from_cookies(line.as_bytes(), &tokens) {
                prop_assert_eq!(from_cookies(&left, &tokens), None);
            }
        }

        #[test]
        fn a_path_is_its_token_and_its_rest(path in "[/a-z=%.~]{0,30}") {
            if let Some((token, rest)) = from_path(&path, "t=") {
                prop_assert!(rest.starts_with('/') && !token.contains('/'));
            }
        }
    }
}
