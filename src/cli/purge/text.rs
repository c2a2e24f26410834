//! Words and numbers for people.

use std::time::Duration;

/// `1 selector`, `20,000 selectors`.
pub fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// `20,000`
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `0.3 s`, `2 min 5 s`
pub fn elapsed(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 60.. => format!("{} min {} s", thousands(seconds / 60), seconds % 60),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// Text of a stranger, with nothing in it that a terminal would obey.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => plain.extend(character.escape_default()),
            false => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let expected = [(0, "0"), (999, "999"), (1000, "1,000"), (20_000, "20,000"), (1_234_567, "1,234,567")];
        for (number, text) in expected {
            assert_eq!(thousands(number), text);
        }
        assert_eq!((counted(1, "call"), counted(2, "call")), ("1 call".to_owned(), "2 calls".to_owned()));
        assert_eq!(elapsed(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(elapsed(Duration::from_secs(125)), "2 min 5 s");
    }

    #[test]
    fn a_terminal_obeys_nothing() {
        assert_eq!(plain("é\u{1b}[31m\n\u{9b}x"), "é\\u{1b}[31m\\n\\u{9b}x");
    }
}
