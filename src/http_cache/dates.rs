//! HTTP dates (RFC 9110 §5.6.7), exactly: the three forms that a recipient must accept, and no other.

use http::HeaderValue;

use super::time::Timestamp;

/// Reads an IMF-fixdate (`Sun, 06 Nov 1994 08:49:37 GMT`), an RFC 850 date (`Sunday, 06-Nov-94 08:49:37 GMT`) or an
/// asctime date (`Sun Nov  6 08:49:37 1994`).
///
/// Names are accepted in any letter case, since senders get it wrong and no other reading exists. A weekday must be
/// one, but is not checked against the date. `now` settles the century of a two-digit year.
pub fn parse_http_date(text: &[u8], now: Timestamp) -> Option<Timestamp> {
    match text.get(3)? {
        b',' => imf_fixdate(text),
        b' ' => asctime(text),
        _ => rfc850(text, now),
    }
}

/// The value of a Date field: an IMF-fixdate. A time beyond the year 9999 has none, so the last second before is used.
pub fn http_date(time: Timestamp) -> HeaderValue {
    const YEAR_10000: i64 = 253_402_300_800;
    let time = Timestamp::from_secs(time.as_secs().clamp(0, YEAR_10000 - 1));
    let text = httpdate::fmt_http_date(time.into());
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

const MONTHS: [&[u8; 3]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
const WEEKDAYS: [&[u8]; 7] = [b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday", b"sunday"];

fn imf_fixdate(text: &[u8]) -> Option<Timestamp> {
    let mut text = Cursor(text);
    text.short_weekday()?;
    text.literal(b", ")?;
    let day = text.digits(2)?;
    text.literal(b" ")?;
    let month = text.month()?;
    text.literal(b" ")?;
    let year = text.digits(4)?;
    text.literal(b" ")?;
    let second = text.time_of_day()?;
    text.literal(b" gmt")?;
    text.end()?;
    timestamp(i64::from(year), month, day, second)
}

fn rfc850(text: &[u8], now: Timestamp) -> Option<Timestamp> {
    let comma = text.iter().position(|&byte| byte == b',')?;
    let (weekday, rest) = text.split_at_checked(comma)?;
    if !WEEKDAYS.iter().any(|name| name.eq_ignore_ascii_case(weekday)) {
        return None;
    }
    let mut text = Cursor(rest);
    text.literal(b", ")?;
    let day = text.digits(2)?;
    text.literal(b"-")?;
    let month = text.month()?;
    text.literal(b"-")?;
    let year = text.digits(2)?;
    text.literal(b" ")?;
    let second = text.time_of_day()?;
    text.literal(b" gmt")?;
    text.end()?;
    timestamp(full_year(year, month, day, now), month, day, second)
}

fn asctime(text: &[u8]) -> Option<Timestamp> {
    let mut text = Cursor(text);
    text.short_weekday()?;
    text.literal(b" ")?;
    let month = text.month()?;
    text.literal(b" ")?;
    let day = if text.literal(b" ").is_some() { text.digits(1)? } else { text.digits(2)? };
    text.literal(b" ")?;
    let second = text.time_of_day()?;
    text.literal(b" ")?;
    let year = text.digits(4)?;
    text.end()?;
    timestamp(i64::from(year), month, day, second)
}

/// RFC 9110 §5.6.7: a two-digit year that appears to be more than 50 years in the future is the most recent year in
/// the past with the same last two digits. So: the latest such date that is at most 50 years ahead.
fn full_year(two_digits: u32, month: u32, day: u32, now: Timestamp) -> i64 {
    const FIFTY_YEARS: i64 = 50 * 31_556_952; // of 365.2425 days, in seconds
    let today = now.as_secs().div_euclid(86_400);
    let limit = now.as_secs().saturating_add(FIFTY_YEARS).div_euclid(86_400);
    // The mean year is close enough to start from a century that is surely too late.
    let mut year = (1970 + today * 400 / 146_097).div_euclid(100) * 100 + 200 + i64::from(two_digits);
    while days_from_civil(year, month, day) > limit {
        year -= 100;
    }
    year
}

fn timestamp(year: i64, month: u32, day: u32, second_of_day: u32) -> Option<Timestamp> {
    if day == 0 || day > days_in_month(year, month) {
        return None;
    }
    Some(Timestamp::from_secs(days_from_civil(year, month, day) * 86_400 + i64::from(second_of_day)))
}

fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years are counted from March, so that the leap day is
/// the last of its year, and in eras of 400 years, which all have 146,097 days.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let months_since_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * months_since_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    /// Consumes `expected` (letters in any case), or nothing.
    fn literal(&mut self, expected: &[u8]) -> Option<()> {
        let (head, tail) = self.0.split_at_checked(expected.len())?;
        head.eq_ignore_ascii_case(expected).then(|| self.0 = tail)
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        self.take(count)?.iter().try_fold(0, |value, byte| match byte {
            b'0'..=b'9' => Some(value * 10 + u32::from(byte - b'0')),
            _ => None,
        })
    }

    fn short_weekday(&mut self) -> Option<()> {
        let name = self.take(3)?;
        WEEKDAYS.iter().any(|day| day.get(..3).is_some_and(|day| day.eq_ignore_ascii_case(name))).then_some(())
    }

    /// 1 to 12.
    fn month(&mut self) -> Option<u32> {
        let name = self.take(3)?;
        (1..).zip(MONTHS).find(|(_, month)| month.eq_ignore_ascii_case(name)).map(|(number, _)| number)
    }

    /// `hh:mm:ss` as the second of the day. Second 60 is a leap second (RFC 9110 §5.6.7).
    fn time_of_day(&mut self) -> Option<u32> {
        let hour = self.digits(2)?;
        self.literal(b":")?;
        let minute = self.digits(2)?;
        self.literal(b":")?;
        let second = self.digits(2)?;
        (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-01-15.
    const NOW: Timestamp = Timestamp::from_secs(1_768_435_200);

    fn secs(text: &str) -> Option<i64> {
        parse_http_date(text.as_bytes(), NOW).map(Timestamp::as_secs)
    }

    #[test]
    fn accepts_the_three_forms() {
        // RFC 9110 §5.6.7 gives these three for the same instant.
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(secs(text), Some(784_111_777), "{text}");
        }
        assert_eq!(secs("Thu Nov 16 08:49:37 1995"), Some(816_511_777));
    }

    #[test]
    fn accepts_any_letter_case() {
        let expected = secs("Thu, 18 Aug 2050 02:01:18 GMT");
        assert_eq!(expected, Some(2_544_400_878));
        for text in [
            "THU, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 AUG 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 gMT",
            "tHURSDAY, 18-aUG-50 02:01:18 Gmt",
        ] {
            assert_eq!(secs(text), expected, "{text}");
        }
    }

    #[test]
    fn rejects_everything_else() {
        for text in [
            "",
            "0",
            "-1",
            "abc",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 +0000",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 2050 02:01:18 GMT ",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu,  18 Aug 2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 8 Aug 2050 02:01:18 GMT",
            "Xyz, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Xxx 2050 02:01:18 GMT",
            "Thu, 31 Apr 2050 02:01:18 GMT",
            "Thu, 29 Feb 2050 02:01:18 GMT",
            "Thu, 00 Apr 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu, 18 Aug 2050 02:60:18 GMT",
            "Thu, 18 Aug 2050 02:01:61 GMT",
            "Sun Nov 06 08:49:37 1994 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
        ] {
            assert_eq!(secs(text), None, "{text}");
        }
    }

    #[test]
    fn knows_leap_days_and_the_far_ends() {
        assert_eq!(secs("Tue, 29 Feb 2000 00:00:00 GMT"), Some(951_782_400));
        assert_eq!(secs("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(secs("Wed, 31 Dec 1969 23:59:59 GMT"), Some(-1));
        assert_eq!(secs("Fri, 31 Dec 9999 23:59:59 GMT"), Some(253_402_300_799));
        assert_eq!(secs("Sat, 01 Jan 0000 00:00:00 GMT"), Some(-62_167_219_200));
        assert_eq!(secs("Sat, 31 Dec 2016 23:59:60 GMT"), Some(1_483_228_800));
    }

    #[test]
    fn two_digit_years_are_at_most_fifty_years_ahead() {
        let year = |text: &str| secs(text).map(|s| 1970 + s / 31_556_952);
        assert_eq!(year("Sunday, 06-Nov-75 08:49:37 GMT"), Some(2075));
        assert_eq!(year("Sunday, 06-Nov-77 08:49:37 GMT"), Some(1977));
        assert_eq!(year("Sunday, 06-Nov-00 08:49:37 GMT"), Some(2000));
        let in_2099 = Timestamp::from_secs(4_089_000_000);
        let date = parse_http_date(b"Sunday, 06-Nov-01 08:49:37 GMT", in_2099).unwrap();
        assert!(date > in_2099, "2101 rather than 2001");
    }

    proptest! {
        #[test]
        fn total_on_arbitrary_bytes(text in proptest::collection::vec(any::<u8>(), 0..40), now in any::<i64>()) {
            parse_http_date(&text, Timestamp::from_millis(now));
        }

        #[test]
        fn agrees_with_an_independent_formatter(secs in 0i64..253_402_300_799) {
            let time = Timestamp::from_secs(secs);
            let text = httpdate::fmt_http_date(time.into());
            prop_assert_eq!(parse_http_date(text.as_bytes(), NOW), Some(time));
        }
    }
}
