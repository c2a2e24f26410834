//! How fast one response leaves.

use std::time::Duration;

use crate::config::model::Bandwidth;

/// How much may leave at once, as the time that it takes at the rate; and how much is waited for at least, so that a response
/// wakes its task ten to twenty times a second rather than for each packet.
const BURST: Duration = Duration::from_millis(100);

/// A wait is for at least so many bytes: a full packet.
const PACKET: u64 = 1460;

/// The pace of one response: a bucket of bytes. What a client has not taken in time is not made up for, beyond the bucket.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes a second, at least 1.
    rate: u64,
    /// Bytes that may leave at full speed.
    free: u64,
    /// The size of the bucket, in bytes.
    bucket: u64,
    /// How long the bucket takes to fill, in nanoseconds.
    fill: u64,
    /// When the bucket was empty, or will be, in nanoseconds: it fills from then on. Counted from `fill` before the caller's
    /// clock, so that a bucket can be full when that begins.
    empty: u64,
}

impl Pace {
    /// `rate` bytes a second, once `after` bytes have left.
    pub fn new(rate: u64, after: u64) -> Pace {
        let rate = rate.max(1);
        let bucket = (u128::from(rate) * BURST.as_nanos() / 1_000_000_000).max(2 * u128::from(PACKET));
        let bucket = u64::try_from(bucket).unwrap_or(u64::MAX);
        Pace { rate, free: after, bucket, fill: time(bucket, rate), empty: 0 }
    }

    /// How many bytes may leave at `now`, which counts from anything that stays.
    pub fn allow(&mut self, now: Duration) -> u64 {
        if self.free > 0 {
            return self.free;
        }
        let now = self.clock(now);
        self.empty = self.empty.max(now - self.fill);
        let bytes = u128::from(now.saturating_sub(self.empty)) * u128::from(self.rate) / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// So many bytes have left at `now`; how long the next ones are to wait, if they are.
    ///
    /// More than is allowed is made up for by a longer wait.
    pub fn sent(&mut self, bytes: u64, now: Duration) -> Option<Duration> {
        let free = bytes.min(self.free);
        self.free -= free;
        if free < bytes {
            self.allow(now);
            self.empty = self.empty.saturating_add(time(bytes - free, self.rate));
        }
        if self.free > 0 || self.allow(now) >= self.bucket / 16 {
            return None;
        }
        let half = self.empty.saturating_add(time(self.bucket / 2, self.rate));
        Some(Duration::from_nanos(half.saturating_sub(self.clock(now)).max(1)))
    }

    /// At least `fill`.
    fn clock(&self, now: Duration) -> u64 {
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).saturating_add(self.fill)
    }
}

impl From<Bandwidth> for Pace {
    fn from(bandwidth: Bandwidth) -> Pace {
        Pace::new(bandwidth.rate, bandwidth.after)
    }
}

/// How long so many bytes take, in nanoseconds: rounded up, so that the rate is never exceeded.
fn time(bytes: u64, rate: u64) -> u64 {
    u64::try_from((u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(rate))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Duration = Duration::ZERO;

    /// Sends so many bytes to a client that takes what it is given, and is woken `late`; how long it took, and in how many
    /// steps.
    fn send(pace: &mut Pace, mut bytes: u64, late: Duration) -> (Duration, u32) {
        let (mut now, mut steps) = (START, 0);
        while bytes > 0 {
            let part = pace.allow(now).min(bytes);
            assert!(part > 0, "woken for nothing");
            bytes -= part;
            steps += 1;
            if let Some(wait) = pace.sent(part, now)
                && bytes > 0
            {
                now += wait + late;
            }
        }
        (now - START, steps)
    }

    #[test]
    fn a_response_takes_as_long_as_its_rate_says() {
        const MIB: u64 = 1024 * 1024;
        for late in [0, 1, 40] {
            let (took, steps) = send(&mut Pace::new(MIB, 0), 10 * MIB, Duration::from_millis(late));
            assert!((9_850..=10_000).contains(&took.as_millis()), "{took:?} where woken {late} ms late");
            assert!((100..=200).contains(&steps), "{steps} steps");
        }
    }

    #[test]
    fn what_comes_first_is_free() {
        let mut pace = Pace::new(1024, 1_000_000);
        assert_eq!(pace.allow(START), 1_000_000);
        assert_eq!(pace.sent(999_999, START), None);
        assert_eq!(pace.allow(START), 1);
        assert_eq!(send(&mut Pace::new(1024, 1_000_000), 1_000_000, Duration::ZERO).0, Duration::ZERO);
        let (took, _) = send(&mut Pace::new(1024, 1_000_000), 1_000_000 + 10_240, Duration::ZERO);
        assert!((7_000..=10_000).contains(&took.as_millis()), "{took:?}");
    }

    #[test]
    fn the_slowest_rate_sends_whole_packets() {
        let mut pace = Pace::new(1024, 0);
        assert_eq!(pace.allow(START), 2 * PACKET);
        let wait = pace.sent(2 * PACKET, START).expect("a wait");
        assert_eq!(pace.allow(START + wait), PACKET);
    }

    #[test]
    fn a_client_that_pauses_does_not_save_up() {
        let mut pace = Pace::new(1_000_000, 0);
        pace.sent(100_000, START);
        assert_eq!(pace.allow(START + Duration::from_secs(3600)), 100_000);
    }

    #[test]
    fn too_much_at_once_is_made_up_for() {
        let mut pace = Pace::new(1_000_000, 0);
        let wait = pace.sent(1_100_000, START).expect("a wait");
        assert_eq!(wait, Duration::from_millis(1050));
    }

    #[test]
    fn a_clock_that_goes_back_stops_nothing_for_good() {
        let (mut pace, later) = (Pace::new(1_000_000, 0), Duration::from_secs(1000));
        pace.sent(50_000, later);
        assert_eq!(pace.allow(Duration::ZERO), 0);
        assert!(pace.allow(later + Duration::from_millis(50)) > 0);
        let mut fast = Pace::new(u64::MAX, 0);
        assert!(fast.allow(Duration::MAX) > 0);
        fast.sent(u64::MAX, Duration::MAX);
    }

    proptest! {
        /// In any stretch of time, no more leaves than the bucket and what the rate gives meanwhile.
        #[test]
        fn the_rate_is_never_exceeded(
            rate in 1_024..100_000_000u64,
            after in 0..100_000u64,
            takes in prop::collection::vec((1..200_000u64, 0..50_000_000u64), 1..100),
        ) {
            let mut pace = Pace::new(rate, after);
            let (mut now, mut sent) = (START, 0);
            for (takes, pause) in takes {
                let bytes = takes.min(pace.allow(now));
                sent += bytes;
                let wait = pace.sent(bytes, now);
                let earned = (now - START).as_nanos() * u128::from(rate) / 1_000_000_000;
                let most = u128::from(after + pace.bucket) + earned + 1;
                prop_assert!(u128::from(sent) <= most, "{sent} of at most {most}");
                now += Duration::from_nanos(pause) + wait.unwrap_or_default();
            }
        }
    }
}
