//! What percent-encoding hides.

use std::borrow::Cow;

pub(super) use crate::site::decoded;

/// The text, decoded where it has percent sequences; `None` where that is not UTF-8.
pub(super) fn plain(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    String::from_utf8(decoded(text).collect()).ok().map(Cow::Owned)
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
        fn nothing_panics(text in "\\PC{0,40}") {
            let _ = (decoded(&text).count(), plain(&text), may_climb(&text), seconds(&text));
        }
    }
}
