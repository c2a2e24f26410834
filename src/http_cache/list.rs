//! Comma-separated field values (RFC 9110 §5.6.1), as one recipient-side reading that all rules share.

use http::HeaderMap;
use http::header::AsHeaderName;

/// The non-empty members of all lines of a field, in order, without the white space around them.
///
/// RFC 9110 §5.6.1.2: a recipient must parse and ignore a reasonable number of empty list elements.
pub(super) fn field_members(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).into_iter().flat_map(|line| members(line.as_bytes())).filter(|member| !member.is_empty())
}

/// All lines of a field as one (RFC 9110 §5.3): what a structured field is parsed from (RFC 9651 §4.2).
pub(super) fn combined(headers: &HeaderMap, name: impl AsHeaderName) -> Vec<u8> {
    let mut text = Vec::new();
    for line in headers.get_all(name) {
        if !text.is_empty() {
            text.extend_from_slice(b", ");
        }
        text.extend_from_slice(line.as_bytes());
    }
    text
}

/// The members of one line, empty ones included. A comma inside a quoted string does not separate.
pub(super) fn members(line: &[u8]) -> Members<'_> {
    Members { rest: Some(line), quoting: true }
}

/// See [`members`].
pub(super) struct Members<'a> {
    rest: Option<&'a [u8]>,
    /// Off after a quote that nothing closes. Such a quote opens no string, so that it cannot hide a `no-store`
    /// behind it; and since nothing closes it, nothing after it can be a string either, which keeps this linear.
    quoting: bool,
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let mut at = 0;
        while let Some(&byte) = rest.get(at) {
            match byte {
                b',' => {
                    self.rest = rest.get(at + 1..);
                    return Some(trim(rest.get(..at).unwrap_or_default()));
                }
                b'"' if self.quoting => match closing_quote(rest.get(at + 1..).unwrap_or_default()) {
                    Some(length) => at += length + 2,
                    None => {
                        self.quoting = false;
                        at += 1;
                    }
                },
                _ => at += 1,
            }
        }
        self.rest = None;
        Some(trim(rest))
    }
}

/// Without optional white space (RFC 9110 §5.6.3: spaces and tabs) at both ends.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// What stands between the quotes of a quoted string; anything else as it is. Escapes are left alone: no value that
/// the rules understand contains one.
pub(super) fn unquote(text: &[u8]) -> &[u8] {
    match text {
        [b'"', inner @ .., b'"'] => inner,
        other => other,
    }
}

/// An unsigned decimal number of any length, saturating; `None` for anything else, the empty string included.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, byte| match byte {
        b'0'..=b'9' => Some(value.saturating_mul(10).saturating_add(u64::from(byte - b'0'))),
        _ => None,
    })
}

/// Length of a quoted string's text, given what follows its opening quote; `None` when nothing closes it.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|&byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn splits_outside_quoted_strings_only() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[""]),
            ("a", &["a"]),
            (" a ,\tb\t", &["a", "b"]),
            ("a,,b,", &["a", "", "b", ""]),
            (r#"x="a, b", c"#, &[r#"x="a, b""#, "c"]),
            (r#"x="a\", b", c"#, &[r#"x="a\", b""#, "c"]),
            (r#"x="a, no-store"#, &[r#"x="a"#, "no-store"]),
            (r#"x="a", y="b, no-store"#, &[r#"x="a""#, r#"y="b"#, "no-store"]),
        ];
        for (line, expected) in cases {
            let got: Vec<_> = members(line.as_bytes()).map(|m| std::str::from_utf8(m).unwrap()).collect();
            assert_eq!(got, *expected, "{line}");
        }
    }

    #[test]
    fn reads_decimals() {
        assert_eq!(decimal(b"003600"), Some(3600));
        assert_eq!(decimal(b"99999999999999999999999"), Some(u64::MAX));
        for bad in ["", "-1", "+1", "1.0", "1 ", "a1", "0x1"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn members_keep_all_but_commas_and_space(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let kept: usize = members(&line).map(<[u8]>::len).sum();
            let count = members(&line).count();
            prop_assert!(kept + count <= line.len() + 1);
        }
    }
}
