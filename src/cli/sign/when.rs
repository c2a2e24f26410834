//! `--expires` and `--not-before`

/// Beyond this nobody means it.
const LONGEST: u64 = 100 * 365 * 86_400;

/// A time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So many seconds from now.
    In(u64),
    /// In seconds since 1970.
    At(u64),
}

impl When {
    /// In seconds since 1970.
    pub fn after(self, now: u64) -> u64 {
        match self {
            When::In(seconds) => now.saturating_add(seconds),
            When::At(time) => time,
        }
    }
}

/// `1h`: a whole number with its unit, from now on; without a unit a time in seconds since 1970.
///
/// # Errors
/// What was expected instead; also of nothing at all, and of more than a hundred years.
pub fn parse(text: &str) -> Result<When, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" if (1..=11).contains(&digits) => return number.parse().map(When::At).map_err(|_| expected()),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
        _ if number.is_empty() => Err(expected()),
        Some(0) => Err("more than nothing is needed".to_owned()),
        Some(seconds) if seconds <= LONGEST => Ok(When::In(seconds)),
        _ => Err("at most 36500d".to_owned()),
    }
}

fn expected() -> String {
    "expected a number with a unit, 30m, 1h or 7d, or a time in seconds since 1970".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations() {
        assert_eq!(parse("30s"), Ok(When::In(30)));
        assert_eq!(parse("5m"), Ok(When::In(300)));
        assert_eq!(parse("2h"), Ok(When::In(7200)));
        assert_eq!(parse("36500d"), Ok(When::In(LONGEST)));
        assert_eq!(parse("1767290400"), Ok(When::At(1_767_290_400)));
        assert_eq!((When::In(5).after(7), When::At(5).after(7)), (12, 5));
        assert_eq!(When::In(5).after(u64::MAX), u64::MAX);
        for wrong in
            ["", "h", "0h", "-1h", "1.5h", "1h30m", "36501d", "1w", "1 h", "99999999999999999999s", "999999999999"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
