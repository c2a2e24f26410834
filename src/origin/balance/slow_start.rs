//! How a server that comes (back) gets to its whole share.

/// A whole share, in thousandths.
pub(in crate::origin) const WHOLE: u64 = 1000;
/// What a server begins with: enough for its caches and connections to warm up.
const FIRST: u64 = 100;

/// The share of its weight that a server has at `now` which came into use at `since` (0: it was there from the
/// beginning), if it takes `time` to grow from a tenth to the whole, evenly. In thousandths; times in milliseconds.
pub(in crate::origin) fn share(since: u64, now: u64, time: u64) -> u64 {
    let passed = now.saturating_sub(since);
    if since == 0 || passed >= time {
        return WHOLE;
    }
    FIRST + ((u128::from(WHOLE - FIRST) * u128::from(passed)) / u128::from(time)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_grows_evenly_from_a_tenth() {
        let at = |now| share(1_000, now, 10_000);
        assert_eq!([1_000, 2_000, 6_000, 10_999, 11_000, 99_000].map(at), [100, 190, 550, 999, 1000, 1000]);
        assert_eq!(at(500), 100, "a clock that lags");
        assert_eq!(share(0, 5, 10_000), WHOLE, "from the beginning");
        assert_eq!(share(5, 5, 0), WHOLE, "no slow start");
    }

    proptest! {
        #[test]
        fn it_never_shrinks_nor_leaves_its_range(since: u64, now: u64, step: u64, time: u64) {
            let (before, after) = (share(since, now, time), share(since, now.saturating_add(step), time));
            prop_assert!((FIRST..=WHOLE).contains(&before) && (before..=WHOLE).contains(&after));
        }
    }
}
