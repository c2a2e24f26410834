//! `--timeout`

use std::time::Duration;

/// Beyond this nobody waits.
const LONGEST: Duration = Duration::from_secs(86_400);

/// `30s`: a whole number with its unit.
///
/// # Errors
/// What was expected instead; also of nothing at all, and of more than a day.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("expected a number with a unit: 500ms, 30s, 5m, 1h".to_owned()),
    };
    let duration = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).map(Duration::from_millis);
    match duration {
        _ if number.is_empty() => Err("expected a number before the unit: 30s".to_owned()),
        Some(duration) if duration > LONGEST => Err("at most 24h".to_owned()),
        Some(duration) if !duration.is_zero() => Ok(duration),
        Some(_) => Err("more than nothing is needed".to_owned()),
        None => Err("at most 24h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = |ms| Ok(Duration::from_millis(ms));
        assert_eq!(parse("1ms"), ms(1));
        assert_eq!(parse("30s"), ms(30_000));
        assert_eq!(parse("5m"), ms(300_000));
        assert_eq!(parse("24h"), ms(86_400_000));
        for wrong in ["", "30", "s", "0s", "25h", "1.5s", "-1s", "1h30m", "30 s", "99999999999999999999s"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
