//! Putting bytes of any kind into one line of text.

/// Bytes looked at together: enough for the compiler to use vector instructions.
const LANE: usize = 16;

const HEX_LOWER: &[u8; 16] = b"0123456789abcdef";
const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// Appends `text` as the inside of a JSON string (RFC 8259 §7).
///
/// What is not UTF-8 becomes U+FFFD. Control characters beyond ASCII and the line and paragraph separators are
/// escaped too: JSON allows them, but terminals obey the former and many readers break lines at the latter.
pub fn json(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let (plain, rest) = text.split_at(plain_length(text));
        out.extend_from_slice(plain);
        let Some(&first) = rest.first() else { return };
        if first.is_ascii() {
            json_ascii(out, first);
            text = &rest[1..];
        } else {
            let end = rest.iter().position(u8::is_ascii).unwrap_or(rest.len());
            json_beyond_ascii(out, &rest[..end]);
            text = &rest[end..];
        }
    }
}

/// Appends `text` with quotes, backslashes, and all that is not printable ASCII as `\xHH`.
pub fn combined(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let (plain, rest) = text.split_at(plain_length(text));
        out.extend_from_slice(plain);
        let Some(&byte) = rest.first() else { return };
        out.extend_from_slice(b"\\x");
        out.extend_from_slice(&hex(byte, HEX_UPPER));
        text = &rest[1..];
    }
}

/// How many bytes at the front need no escaping in either format.
fn plain_length(text: &[u8]) -> usize {
    let mut length = 0;
    for lane in text.chunks_exact(LANE) {
        // No early exit within a lane, so that it can be one comparison of vectors.
        if lane.iter().fold(false, |found, byte| found | special(*byte)) {
            break;
        }
        length += LANE;
    }
    length + text[length..].iter().position(|byte| special(*byte)).unwrap_or(text.len() - length)
}

#[inline(always)]
fn special(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\') | (byte > b'~')
}

fn json_ascii(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => json_unit(out, u16::from(byte)),
    }
}

fn json_beyond_ascii(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                // All of these are in the basic plane: one unit of UTF-16 each.
                '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => json_unit(out, character as u16),
                _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn json_unit(out: &mut Vec<u8>, unit: u16) {
    let [high, low] = unit.to_be_bytes();
    out.extend_from_slice(b"\\u");
    out.extend_from_slice(&hex(high, HEX_LOWER));
    out.extend_from_slice(&hex(low, HEX_LOWER));
}

fn hex(byte: u8, digits: &[u8; 16]) -> [u8; 2] {
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn escaped(escape: fn(&mut Vec<u8>, &[u8]), text: &[u8]) -> String {
        let mut out = Vec::new();
        escape(&mut out, text);
        String::from_utf8(out).expect("escaped text is UTF-8")
    }

    #[test]
    fn json_escapes_what_it_must_and_what_harms() {
        assert_eq!(escaped(json, b"plain /path?q=1 ~"), "plain /path?q=1 ~");
        assert_eq!(escaped(json, b"a\"b\\c\nd\re\tf\0g\x1bh\x7f"), r#"a\"b\\c\nd\re\tf\u0000g\u001bh\u007f"#);
        assert_eq!(escaped(json, "é\u{85}\u{2028}😀".as_bytes()), r"é\u0085\u2028😀");
        assert_eq!(escaped(json, b"a\xffb\xc3\"\xe2\x82"), "a\u{fffd}b\u{fffd}\\\"\u{fffd}");
    }

    #[test]
    fn combined_escapes_all_but_printable_ascii() {
        assert_eq!(escaped(combined, b"GET /a\"b\\c"), r"GET /a\x22b\x5Cc");
        assert_eq!(escaped(combined, "é\n\x7f".as_bytes()), r"\xC3\xA9\x0A\x7F");
    }

    proptest! {
        #[test]
        fn json_round_trips(text in vec(any::<u8>(), 0..200)) {
            let line = format!("\"{}\"", escaped(json, &text));
            prop_assert!(!line.chars().any(char::is_control));
            let back: String = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(back, String::from_utf8_lossy(&text));
        }

        #[test]
        fn json_round_trips_any_characters(text in vec(any::<char>(), 0..100)) {
            let text: String = text.into_iter().collect();
            let line = format!("\"{}\"", escaped(json, text.as_bytes()));
            let breaks = line.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
            prop_assert!(!breaks);
            prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        }

        #[test]
        fn combined_round_trips(text in vec(any::<u8>(), 0..200)) {
            let line = escaped(combined, &text);
            prop_assert!(line.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"'));
            let mut back = Vec::new();
            let mut rest = line.as_bytes();
            while let Some((&byte, after)) = rest.split_first() {
                if byte == b'\\' {
                    prop_assert_eq!(after[0], b'x');
                    let digits = std::str::from_utf8(&after[1..3]).unwrap();
                    back.push(u8::from_str_radix(digits, 16).unwrap());
                    rest = &after[3..];
                } else {
                    back.push(byte);
                    rest = after;
                }
            }
            prop_assert_eq!(back, text);
        }
    }
}
