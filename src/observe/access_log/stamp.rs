//! Moments as text, remembering the second: many records share one.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 60 * 60;

/// The end of the year 9999: later times would not fit into either format. Clocks may say anything.
const LAST_SECOND: u64 = 253_402_300_799;

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// `2026-01-31T23:59:59.999Z` (RFC 3339). A time before 1970 counts as 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let mut text = Vec::with_capacity(24);
    Stamp::new().rfc3339(&mut text, time);
    text.into_iter().map(char::from).collect()
}

/// The second that was written last, in both formats.
#[derive(Debug)]
pub struct Stamp {
    second: u64,
    rfc3339: [u8; 19],
    common: [u8; 26],
}

impl Stamp {
    pub fn new() -> Stamp {
        let mut stamp = Stamp { second: 0, rfc3339: *b"0000-00-00T00:00:00", common: *b"00/Jan/0000:00:00:00 +0000" };
        stamp.write(0);
        stamp
    }

    /// Appends `2026-01-31T23:59:59.999Z` (RFC 3339). A time before 1970 counts as 1970.
    pub fn rfc3339(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let millis = self.turn_to(time);
        out.extend_from_slice(&self.rfc3339);
        out.push(b'.');
        out.extend_from_slice(&[digit(millis / 100), digit(millis / 10), digit(millis)]);
        out.push(b'Z');
    }

    /// Appends `31/Jan/2026:23:59:59 +0000`, as the common and combined log formats have it.
    pub fn common(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        self.turn_to(time);
        out.extend_from_slice(&self.common);
    }

    /// Returns the milliseconds within the second.
    fn turn_to(&mut self, time: SystemTime) -> u64 {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs().min(LAST_SECOND);
        if second != self.second {
            self.write(second);
        }
        u64::from(since.subsec_millis())
    }

    fn write(&mut self, second: u64) {
        self.second = second;
        let (year, month, day) = date(second / DAY);
        let of_day = second % DAY;
        let clock = [of_day / 3600, of_day / 60 % 60, of_day % 60];

        put(&mut self.rfc3339[0..4], year);
        put(&mut self.rfc3339[5..7], month);
        put(&mut self.rfc3339[8..10], day);
        put(&mut self.common[0..2], day);
        self.common[3..6].copy_from_slice(MONTHS[(month - 1) as usize % 12]);
        put(&mut self.common[7..11], year);
        for (part, value) in clock.into_iter().enumerate() {
            put(&mut self.rfc3339[11 + 3 * part..13 + 3 * part], value);
            put(&mut self.common[12 + 3 * part..14 + 3 * part], value);
        }
    }
}

/// Year, month and day of the Gregorian calendar, from days since 1970.
///
/// Counted in years that begin in March, so that the leap day is the last day of its year and every month's length
/// follows from its number.
fn date(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097; // days in 400 years
    const SHIFT: u64 = 719_468; // from 0000-03-01 to 1970-01-01
    let days = days + SHIFT;
    let (era, of_era) = (days / ERA, days % ERA);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Fills `place` with the last digits of `value`.
fn put(place: &mut [u8], mut value: u64) {
    for byte in place.iter_mut().rev() {
        *byte = digit(value);
        value /= 10;
    }
}

fn digit(value: u64) -> u8 {
    b'0' + (value % 10) as u8
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn both(time: SystemTime) -> (String, String) {
        let mut stamp = Stamp::new();
        let (mut rfc3339, mut common) = (Vec::new(), Vec::new());
        stamp.rfc3339(&mut rfc3339, time);
        stamp.common(&mut common, time);
        (String::from_utf8(rfc3339).unwrap(), String::from_utf8(common).unwrap())
    }

    fn at(seconds: u64, millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis)
    }

    #[test]
    fn known_moments() {
        for (time, rfc3339, common) in [
            (at(0, 0), "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (at(951_782_399, 999), "2000-02-28T23:59:59.999Z", "28/Feb/2000:23:59:59 +0000"),
            (at(951_782_400, 7), "2000-02-29T00:00:00.007Z", "29/Feb/2000:00:00:00 +0000"),
            (at(1_709_251_199, 0), "2024-02-29T23:59:59.000Z", "29/Feb/2024:23:59:59 +0000"),
            (at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z", "01/Mar/2100:00:00:00 +0000"),
            (at(LAST_SECOND, 0), "9999-12-31T23:59:59.000Z", "31/Dec/9999:23:59:59 +0000"),
        ] {
            assert_eq!(both(time), (rfc3339.to_owned(), common.to_owned()));
        }
    }

    #[test]
    fn a_clock_gone_astray_is_written_as_the_nearest_moment() {
        assert_eq!(both(UNIX_EPOCH - Duration::from_secs(1)).0, "1970-01-01T00:00:00.000Z");
        assert_eq!(both(at(LAST_SECOND + 1, 0)).0, "9999-12-31T23:59:59.000Z");
    }

    proptest! {
        /// `httpdate` knows the calendar too.
        #[test]
        fn agrees_with_another_calendar(second in 0..LAST_SECOND) {
            let (rfc3339, common) = both(at(second, 0));
            // "Sun, 06 Nov 1994 08:49:37 GMT"
            let other = httpdate::fmt_http_date(at(second, 0));
            let (day, month, year, clock) = (&other[5..7], &other[8..11], &other[12..16], &other[17..25]);
            prop_assert_eq!(common, format!("{day}/{month}/{year}:{clock} +0000"));
            prop_assert_eq!(&rfc3339[..4], year);
            prop_assert_eq!(&rfc3339[8..10], day);
            prop_assert_eq!(&rfc3339[11..19], clock);
        }

        /// The remembered second is never shown for another one.
        #[test]
        fn memory_changes_nothing(times in proptest::collection::vec(0..5_000u64, 1..50)) {
            let mut stamp = Stamp::new();
            for millis in times {
                let mut text = Vec::new();
                stamp.rfc3339(&mut text, at(0, millis));
                prop_assert_eq!(String::from_utf8(text).unwrap(), both(at(0, millis)).0);
            }
        }
    }
}
