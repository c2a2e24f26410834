//! Path globs: `*` within a segment, `**` across segments.

use std::fmt;

/// A checked path glob, compared with the whole of a normalised path, case-sensitively.
///
/// - `*` stands for any run of characters within a segment, an empty one too: `/img-*.png`, `/*/feed`.
/// - `**` stands alone between slashes, for whole segments. At the end it stands for at least one, which may be empty:
///   `/video/**` matches `/video/` and everything below, not `/video`. Elsewhere it stands for any number:
///   `/a/**/b` matches `/a/b` and `/a/x/y/b`.
/// - Everything else stands for itself, percent-encoded as a normalised path is: `/caf%C3%A9` and `/café` are the
///   same pattern, and `/%7Euser` is `/~user`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    /// Normalised.
    text: String,
}

impl PathPattern {
    /// Reads a pattern. The error is a phrase that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = normalise(text)?;
        let Some(rest) = text.strip_prefix('/') else {
            return Err("a path pattern starts with `/`".to_owned());
        };
        let mut after_double = false;
        for segment in rest.split('/') {
            let double = segment == "**";
            match segment {
                "." | ".." => return Err(format!("`{segment}` never occurs in a normalised path")),
                "**" if after_double => return Err("`**` twice in a row says no more than once".to_owned()),
                "**" => {}
                _ if segment.contains("**") => {
                    return Err("`**` stands alone between slashes; use `*` within a segment".to_owned());
                }
                _ => {}
            }
            after_double = double;
        }
        Ok(PathPattern { text })
    }

    /// Whether a normalised path matches. Allocates nothing; no backtracking beyond the last `*` and the last `**`.
    pub fn matches(&self, path: &str) -> bool {
        covers_segments(&self.text, path, covers_bytes)
    }

    /// Whether every path that `other` matches is matched by this pattern as well. Never true wrongly; it may be false
    /// where only the parts of a pattern taken together would show it.
    pub fn covers(&self, other: &PathPattern) -> bool {
        // The other's text is read as a path whose wildcards only a wildcard can match.
        covers_segments(&self.text, &other.text, |glob, segment| segment != "**" && covers_bytes(glob, segment))
    }

    /// The normalised pattern.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Matches segment by segment; `one` compares two segments. Segments are separated by `/`, and both texts start with
/// one (a path that does not matches nothing).
fn covers_segments(pattern: &str, path: &str, one: impl Fn(&str, &str) -> bool) -> bool {
    let (Some(pattern), Some(path)) = (pattern.strip_prefix('/'), path.strip_prefix('/')) else {
        return false;
    };
    let (mut p, mut s) = (Some(pattern), Some(path));
    // Where to go on when a comparison fails: after the last `**`, with one more segment of the path given to it.
    let mut retry: Option<(&str, &str)> = None;
    loop {
        match (p, s) {
            (None, None) => return true,
            (Some("**"), Some(_)) => return true,
            (Some(left), Some(rest)) => {
                let (glob, after_glob) = head(left);
                if glob == "**" {
                    // Not the last segment: that case is above.
                    let Some(after_glob) = after_glob else { return true };
                    retry = Some((after_glob, rest));
                    p = Some(after_glob);
                    continue;
                }
                let (segment, after_segment) = head(rest);
                if one(glob, segment) {
                    (p, s) = (after_glob, after_segment);
                    continue;
                }
            }
            // More pattern than path: giving `**` more of the path leaves even less.
            (Some(_), None) => return false,
            (None, Some(_)) => {}
        }
        let Some((after_double, from)) = retry else { return false };
        let (_, Some(next)) = head(from) else { return false };
        retry = Some((after_double, next));
        (p, s) = (Some(after_double), Some(next));
    }
}

/// The first segment and, after the slash if there is one, the others.
fn head(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (text, None),
    }
}

/// Matches one segment, `*` standing for any run.
fn covers_bytes(glob: &str, segment: &str) -> bool {
    let (glob, segment) = (glob.as_bytes(), segment.as_bytes());
    let (mut g, mut s) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while s < segment.len() {
        match glob.get(g) {
            Some(b'*') => {
                retry = Some((g + 1, s));
                g += 1;
            }
            Some(b) if *b == segment[s] => {
                g += 1;
                s += 1;
            }
            _ => {
                let Some((after_star, from)) = retry else { return false };
                retry = Some((after_star, from + 1));
                (g, s) = (after_star, from + 1);
            }
        }
    }
    glob[g..].iter().all(|b| *b == b'*')
}

/// Percent-encoding as in a normalised path: unreserved characters plain, others encoded in upper case.
fn normalise(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'%' => {
                let digits = (bytes.next(), bytes.next());
                let (Some(high), Some(low)) = (digits.0.and_then(hex), digits.1.and_then(hex)) else {
                    return Err("`%` is followed by two hexadecimal digits".to_owned());
                };
                push(&mut out, high << 4 | low);
            }
            b'?' => return Err("the query is no part of the path; match it with `query`".to_owned()),
            b'#' => return Err("a fragment is never sent to a server".to_owned()),
            b'\\' => return Err("segments are separated by `/`".to_owned()),
            0..=0x1f | 0x7f => return Err("a path holds no control characters".to_owned()),
            // What no request line can hold as it is.
            b' ' | 0x80.. => push(&mut out, b),
            _ => out.push(char::from(b)),
        }
    }
    Ok(out)
}

/// Plain if unreserved (RFC 3986 §2.3), else percent-encoded.
fn push(out: &mut String, b: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
        out.push(char::from(b));
    } else {
        out.push('%');
        out.push(char::from(HEX[usize::from(b >> 4)]));
        out.push(char::from(HEX[usize::from(b & 15)]));
    }
}

fn hex(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn matches() {
        for (p, yes, no) in [
            ("/", &["/"][..], &["", "/a", "//"][..]),
            ("/a", &["/a"], &["/", "/a/", "/A", "/ab", "a"]),
            ("/**", &["/", "/a", "/a/b/", "//"], &["", "a"]),
            ("/video/**", &["/video/", "/video/a", "/video/a/b/"], &["/video", "/videos/a", "/"]),
            ("/*", &["/", "/a", "/a.b"], &["/a/", "/a/b"]),
            ("/img-*.png", &["/img-.png", "/img-1.png", "/img-a.png.png"], &["/img-1.pn", "/img-a/b.png"]),
            ("/*/feed", &["/a/feed", "//feed"], &["/feed", "/a/b/feed"]),
            ("/a/**/b", &["/a/b", "/a/x/b", "/a/x/y/b", "/a/b/b", "/a//b"], &["/a/b/", "/a/bb", "/ab"]),
            ("/**/x/*.js", &["/x/a.js", "/a/x/x/b.js"], &["/x/y/a.js", "/x/a.css"]),
            ("/a/**/b/**", &["/a/b/", "/a/b/c", "/a/x/b/y/z"], &["/a/b", "/a/x/y"]),
            ("/caf\u{e9}/%7eu/%2f", &["/caf%C3%A9/~u/%2F"], &["/café/~u/%2F"]),
        ] {
            let p = pattern(p);
            for path in yes {
                assert!(p.matches(path), "{p} should match {path}");
            }
            for path in no {
                assert!(!p.matches(path), "{p} should not match {path}");
            }
        }
    }

    #[test]
    fn refuses() {
        for text in [
            "", "a", "**", "/a**", "/**a", "/a/**/**", "/***", "/a/../b", "/./", "/%2e%2E/", "/%zz", "/a%4", "/a?b",
            "/a#b", "/a\\b", "/\t",
        ] {
            assert!(PathPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn covers() {
        for (wide, narrow) in [
            ("/**", "/"),
            ("/**", "/**"),
            ("/a/**", "/a/b"),
            ("/a/**", "/a/*/c"),
            ("/a/**", "/a/**/c"),
            ("/**/c", "/a/**/c"),
            ("/*", "/a-*"),
            ("/*.png", "/img-*.png"),
            ("/a/**/b", "/a/b"),
            ("/a/**/b", "/a/*/x/b"),
        ] {
            assert!(pattern(wide).covers(&pattern(narrow)), "{wide} covers {narrow}");
        }
        for (narrow, wide) in
            [("/a/**", "/a"), ("/*", "/**"), ("/a/*", "/a/**"), ("/a/**/b", "/a/**"), ("/img-*", "/*-x"), ("/a", "/*")]
        {
            assert!(!pattern(narrow).covers(&pattern(wide)), "{narrow} does not cover {wide}");
        }
    }

    #[test]
    fn no_pattern_takes_exponential_time() {
        let p = pattern(&format!("/{}b", "a*".repeat(30)));
        assert!(!p.matches(&format!("/{}", "a".repeat(3000))));
        let p = pattern(&format!("{}/b", "/**/a".repeat(30)));
        assert!(!p.matches(&"/a".repeat(3000)));
    }

    /// What the documentation says, word by word, without a thought for speed.
    fn oracle(pattern: &[&str], path: &[&str]) -> bool {
        match pattern {
            [] => path.is_empty(),
            ["**"] => !path.is_empty(),
            ["**", rest @ ..] => (0..=path.len()).any(|n| oracle(rest, &path[n..])),
            [glob, rest @ ..] => match path {
                [first, others @ ..] => oracle_segment(glob.as_bytes(), first.as_bytes()) && oracle(rest, others),
                [] => false,
            },
        }
    }

    fn oracle_segment(glob: &[u8], text: &[u8]) -> bool {
        match glob {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|n| oracle_segment(rest, &text[n..])),
            [b, rest @ ..] => text.first() == Some(b) && oracle_segment(rest, &text[1..]),
        }
    }

    fn patterns() -> impl Strategy<Value = PathPattern> {
        let segment = prop_oneof![Just("**".to_owned()), "[ab*]{0,4}"];
        prop::collection::vec(segment, 1..6)
            .prop_filter_map("valid", |segments| PathPattern::parse(&format!("/{}", segments.join("/"))).ok())
    }

    fn paths() -> impl Strategy<Value = String> {
        prop::collection::vec("[ab*]{0,4}", 1..7).prop_map(|segments| format!("/{}", segments.join("/")))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn matches_as_the_oracle_does(p in patterns(), path in paths()) {
            let segments: Vec<&str> = p.as_str()[1..].split('/').collect();
            let parts: Vec<&str> = path[1..].split('/').collect();
            prop_assert_eq!(p.matches(&path), oracle(&segments, &parts), "{} {}", p, path);
        }

        #[test]
        fn covers_is_sound(wide in patterns(), narrow in patterns(), path in paths()) {
            if wide.covers(&narrow) && narrow.matches(&path) {
                prop_assert!(wide.matches(&path), "{} covers {} but misses {}", wide, narrow, path);
            }
        }

        #[test]
        fn covers_itself(p in patterns()) {
            prop_assert!(p.covers(&p));
        }

        #[test]
        fn never_panics(text in "\\PC*", path in "\\PC*") {
            if let Ok(p) = PathPattern::parse(&text) {
                p.matches(&path);
                let again = PathPattern::parse(p.as_str());
                prop_assert_eq!(again, Ok(p));
            }
        }
    }
}
