//! Taking tokens out of requests, before anything else looks at them: what is left has the request's key, and goes to the
//! origin.

use std::borrow::Cow;

use super::find::is_named;
use super::text::strip_prefix;

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
    use crate::guard::signed::text::decoded;

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
