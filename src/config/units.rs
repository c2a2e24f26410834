//! Durations and sizes with their units.

use std::time::Duration;

/// The longest duration that a configuration can hold: beyond it, adding to a clock's time could overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Longest first, as combined durations are written; in milliseconds.
const DURATIONS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Binary units first: they are what a size is printed in.
const SIZES: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("kB", 1000),
    ("B", 1),
];

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Form,
    NoUnit,
    TooLarge,
}

/// `500ms`, `30s`, `1h30m`: whole numbers, each with a unit, the longer unit first, each unit once.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let mut rest = text;
    let mut units = DURATIONS.iter();
    let mut total: u64 = 0;
    loop {
        let (number, after) = number(rest)?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let &(_, factor) = units.find(|(name, _)| *name == unit).ok_or(Fault::Form)?;
        total = number
            .and_then(|n| n.checked_mul(factor))
            .and_then(|n| total.checked_add(n))
            .filter(|n| u128::from(*n) <= LONGEST.as_millis())
            .ok_or(Fault::TooLarge)?;
        if after.is_empty() {
            return Ok(Duration::from_millis(total));
        }
        rest = after;
    }
}

/// `512MiB`, `10GB`: bytes.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    let (number, unit) = number(text)?;
    let &(_, factor) = SIZES.iter().find(|(name, _)| *name == unit).ok_or(Fault::Form)?;
    number.and_then(|n| n.checked_mul(factor)).ok_or(Fault::TooLarge)
}

/// The shortest text that [`duration`] reads as `d`.
pub fn show_duration(d: Duration) -> String {
    let mut left = u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    // Weeks are read but not written: "7d" and "14d" are what people write.
    for (unit, factor) in &DURATIONS[1..] {
        let n = left / factor;
        if n > 0 {
            text.push_str(&format!("{n}{unit}"));
            left %= factor;
        }
    }
    text
}

/// The shortest text that [`size`] reads as `bytes`.
pub fn show_size(bytes: u64) -> String {
    let unit = SIZES.iter().take(4).find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// The digits in front (`None`: more than 64 bits hold) and what follows them.
fn number(text: &str) -> Result<(Option<u64>, &str), Fault> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    match (number, rest) {
        ("", _) => Err(Fault::Form),
        (_, "") => Err(Fault::NoUnit),
        _ => Ok((number.parse().ok(), rest)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("0s", ms(0)),
            ("500ms", ms(500)),
            ("30s", ms(30_000)),
            ("5m", ms(300_000)),
            ("1h30m", ms(5_400_000)),
            ("1d", ms(86_400_000)),
            ("2w", ms(14 * 86_400_000)),
            ("1s500ms", ms(1500)),
        ] {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        for text in ["", "s", "5 s", "5min", "-5s", "1.5h", "30m1h", "1h1h", "1hm", " 5s", "5S"] {
            assert_eq!(duration(text), Err(Fault::Form), "{text}");
        }
        assert_eq!(duration("30"), Err(Fault::NoUnit));
        assert_eq!(duration("1h30"), Err(Fault::NoUnit));
        for text in ["99999999999999999999s", "40000d", "18446744073709551615w"] {
            assert_eq!(duration(text), Err(Fault::TooLarge), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0B", 0),
            ("12B", 12),
            ("1KiB", 1024),
            ("1kB", 1000),
            ("1KB", 1000),
            ("512MiB", 512 << 20),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "MiB", "1 MiB", "1mib", "1.5GiB", "-1B", "1M"] {
            assert_eq!(size(text), Err(Fault::Form), "{text}");
        }
        assert_eq!(size("1024"), Err(Fault::NoUnit));
        assert_eq!(size("99999999TiB"), Err(Fault::TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_the_same(n in 0u64..3_000_000_000_000) {
            prop_assert_eq!(duration(&show_duration(Duration::from_millis(n))), Ok(Duration::from_millis(n)));
            prop_assert_eq!(size(&show_size(n)), Ok(n));
            prop_assert_eq!(size(&show_size(n << 10)), Ok(n << 10));
        }
    }
}
