//! What percent-encoding hides.

use std::borrow::Cow;

/// The bytes of `text`, with every valid percent sequence decoded, once.
pub(super) fn decoded(text: &str) -> impl Iterator<Item = u8> + '_ {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (byte, left) = first(rest)?;
        rest = left;
        Some(byte)
    })
}

/// The text, decoded where it has percent sequences; `None` where that is not UTF-8.
pub(super) fn plain(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    String::from_utf8(decoded(text).collect()).ok().map(Cow::Owned)
}

/// What follows `prefix`, whose characters may be encoded.
pub(super) fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let mut rest = text.as_bytes();
    for expected in prefix.bytes() {
        let (byte, left) = first(rest)?;
        if byte != expected {
            return None;
        }
        rest = left;
    }
    text.get(text.len() - rest.len()..)
}

/// Whether a server that decodes more than it may, or that takes a backslash for a slash or cuts parameters off a segment,
/// could read a `..` in a path that is in normal form: it would then look outside of the folder that the path begins with.
pub(super) fn may_climb(path: &str) -> bool {
    // The normal form has no plain dot segments.
    if !path.bytes().any(|byte| matches!(byte, b'%' | b'\\' | b';')) {
        return false;
    }
    // How many dots the segment consists of so far; `None`: there is something else in it.
    let mut dots = Some(0u8);
    for byte in decoded(path).chain([b'/']) {
        dots = match byte {
            b'/' | b'\\' | b';' if dots == Some(2) => return true,
            b'/' | b'\\' => Some(0),
            b'.' => dots.filter(|dots| *dots < 2).map(|dots| dots + 1),
            _ => None,
        };
    }
    false
}

/// A decimal number of 1 to 12 digits and nothing else: seconds since the epoch do not need more.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let fits = (1..=12).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

fn first(bytes: &[u8]) -> Option<(u8, &[u8])> {
    if let [b'%', high, low, rest @ ..] = bytes
        && let (Some(high), Some(low)) = (digit(*high), digit(*low))
    {
        return Some((high << 4 | low, rest));
    }
    bytes.split_first().map(|(byte, rest)| (*byte, rest))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sequences_are_decoded_once() {
        let bytes = |text| decoded(text).collect::<Vec<_>>();
        assert_eq!(bytes("%41%2f%25"), b"A/%");
        assert_eq!(bytes("%2541%"), b"%41%");
        assert_eq!(bytes("%zz%4"), b"%zz%4");
        assert_eq!(plain("%ff"), None);
        assert_eq!(strip_prefix("%74oken%3Dabc", "token="), Some("abc"));
        assert_eq!(strip_prefix("toke", "token="), None);
    }

    #[test]
    fn what_could_be_read_as_a_way_up() {
        for path in [
            "/a/..%2fb",
            "/a/..%2F",
            "/a/%2e%2e%5cb",
            "/a/..\\b",
            "/a\\..",
            "/a/..;x=1/b",
            "/..;",
            "/a%2f..",
            "/%2e%2e",
        ] {
            assert!(may_climb(path), "{path}");
        }
        for path in ["/a/b", "/a;v=1/b", "/a/...%2Fb", "/a/..b;/c", "/a%2Fb", "/a/.%2Fb", "/100%", "/a;..b/c"] {
            assert!(!may_climb(path), "{path}");
        }
    }

    #[test]
    fn numbers_are_digits() {
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds("999999999999"), Some(999_999_999_999));
        for wrong in ["", "+1", "-1", "1.0", " 1", "1000000000000", "0x1", "١"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,40}", prefix in "[a-z=%]{0,6}") {
            let _ = (decoded(&text).count(), plain(&text), may_climb(&text), seconds(&text));
            if let Some(rest) = strip_prefix(&text, &prefix) {
                prop_assert!(text.ends_with(rest));
            }
        }
    }
}
