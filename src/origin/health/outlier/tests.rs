use proptest::prelude::*;

use super::*;

fn rules() -> Outliers {
    Outliers {
        consecutive_failures: Some(5),
        failure_rate: None,
        min_requests: 20,
        latency: None,
        window: Duration::from_secs(10),
        failure_statuses: vec![(502, 504)],
        ejection_time: Duration::from_secs(10),
        max_ejection_time: Duration::from_secs(300),
        max_ejected: 50,
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A failure that took no time.
fn fail(record: &Record, rules: &Outliers, now: u64) -> Option<String> {
    record.failed(rules, Failure::Status(502), ms(0), now)
}

fn verdict(result: TryResult) -> Option<Result<(), Failure>> {
    Outcome { result, latency: ms(1) }.verdict(&rules())
}

#[test]
fn what_counts_as_a_failure() {
    for status in [100, 200, 304, 404, 500, 501, 505] {
        assert_eq!(verdict(TryResult::Answered(status)), Some(Ok(())), "{status}");
    }
    for status in [502, 503, 504] {
        assert_eq!(verdict(TryResult::Answered(status)), Some(Err(Failure::Status(status))));
    }
    for kind in FailureKind::ALL {
        let expected = (kind != FailureKind::Other).then_some(Err(Failure::Kind(kind)));
        assert_eq!(verdict(TryResult::Failed(kind)), expected, "{kind:?}");
    }
}

#[test]
fn failures_in_a_row_eject_and_an_answer_ends_the_row() {
    let (rules, record) = (rules(), Record::default());
    for _ in 0..3 {
        assert!((0..4).all(|now| fail(&record, &rules, 1 + now).is_none()));
        record.answered(&rules, ms(1), || unreachable!("no clock is needed"));
    }
    assert!((0..4).all(|_| fail(&record, &rules, 9).is_none()));
    let reason = record.failed(&rules, Failure::Kind(FailureKind::Reset), ms(3), 9);
    assert_eq!(reason.as_deref(), Some("5 failures in a row, the last: the connection ended before the answer did"));
    let never = Outliers { consecutive_failures: None, ..rules };
    assert!((0..1000).all(|_| fail(&record, &never, 9).is_none()));
}

#[test]
fn a_rate_of_failures_ejects_once_there_are_enough_requests() {
    let rules = Outliers { consecutive_failures: None, failure_rate: Some(25), min_requests: 8, ..rules() };
    let record = Record::default();
    assert!((0..2).all(|_| fail(&record, &rules, 500).is_none()), "two of two, but two are no eight");
    (0..5).for_each(|_| record.answered(&rules, ms(1), || 1500));
    assert_eq!(
        fail(&record, &rules, 1600).as_deref(),
        Some("3 failures of 8 requests within 10s, the last: status 502")
    );
    (0..5).for_each(|_| record.answered(&rules, ms(1), || 1700));
    // Fifteen with it, of which four have failed.
    (0..1).for_each(|_| record.answered(&rules, ms(1), || 1700));
    (0..3).for_each(|_| record.answered(&rules, ms(1), || 1700));
    assert_eq!(fail(&record, &rules, 1700), None, "4 of 18 are fewer than a quarter");
    // The first two are forgotten; the third is one of very few.
    assert_eq!(fail(&record, &rules, 10_999), None);
}

#[test]
fn an_ejected_server_is_judged_anew_as_it_returns() {
    let (rules, record) = (rules(), Record::default());
    (0..5).for_each(|_| drop(fail(&record, &rules, 100)));
    assert_eq!((record.is_ejected(100), record.until()), (false, None));
    assert_eq!(record.eject(&rules, 100), ms(10_000));
    assert!(record.may_be_ejected() && record.is_ejected(100) && record.is_ejected(10_099));
    assert!(!record.is_ejected(10_100));
    // What ends meanwhile, and what began before, are requests that have been judged.
    assert!((0..9).all(|_| fail(&record, &rules, 5_000).is_none()));
    assert!((0..9).all(|_| record.failed(&rules, Failure::Kind(FailureKind::Timeout), ms(60_000), 60_050).is_none()));
    assert!((0..4).all(|_| fail(&record, &rules, 60_100).is_none()));
    assert!(fail(&record, &rules, 60_100).is_some());

    assert_eq!(record.until(), Some(10_100));
    assert!(!record.end(10_099) && record.end(10_100) && !record.end(10_100));
    assert_eq!((record.until(), record.may_be_ejected(), record.ejections()), (None, false, 1));
}

#[test]
fn ejections_take_longer_each_time_and_shorter_after_calm() {
    let rules = rules();
    let mut backoff = Backoff::default();
    let mut now = 1;
    for seconds in [10, 20, 40, 80, 160, 300, 300, 300] {
        assert_eq!(backoff.eject(&rules, now), seconds * 1000);
        // It fails again as soon as it is back.
        now += seconds * 1000;
    }
    // Two times ten seconds without an ejection take two doublings back.
    assert_eq!(backoff.eject(&rules, now + 29_999), 80_000);
    assert_eq!(backoff.eject(&rules, now + 29_999 + 80_000), 160_000);
    assert_eq!(backoff.eject(&rules, now * 10), 10_000);
}

#[test]
fn of_several_servers_one_may_always_be_ejected() {
    let cases = [
        ((0, 100), 0),
        ((1, 50), 0),
        ((1, 100), 1),
        ((2, 50), 1),
        ((2, 1), 1),
        ((3, 50), 1),
        ((4, 50), 2),
        ((10, 35), 3),
        ((10, 0), 0),
        ((3, 100), 3),
    ];
    for ((servers, percent), most) in cases {
        assert_eq!(most_ejected(servers, percent), most, "{servers} {percent}");
    }
}

#[test]
fn who_is_slow_beside_the_others() {
    let slow_of = |means: &[u64], limit| -> Vec<(usize, u64)> {
        let means: Vec<_> = means.iter().copied().map(ms).collect();
        slow(&means, ms(limit)).into_iter().map(|(at, median)| (at, median.as_millis() as u64)).collect()
    };
    assert_eq!(slow_of(&[10, 500, 12], 100), [(1, 10)]);
    assert_eq!(slow_of(&[10, 90, 12], 100), [], "not above the limit");
    assert_eq!(slow_of(&[300, 500, 400], 100), [], "all are slow: it is nobody's own fault");
    assert_eq!(slow_of(&[500], 100), [], "nobody is slow alone");
    assert_eq!(slow_of(&[500, 10], 100), [(0, 10)]);
    assert_eq!(slow_of(&[400, 10, 900, 11, 12], 100), [(2, 11), (0, 11)], "the slowest first");
    assert_eq!(slow_of(&[], 0), []);
}

proptest! {
    /// Whatever the clock says, an ejection is as long as the first one at least, and as the longest one at most.
    #[test]
    fn ejections_have_bounds(
        first in 0u64..1_000_000,
        more in 0u64..10_000_000,
        times in proptest::collection::vec(any::<u64>(), 1..50),
    ) {
        let rules = Outliers { ejection_time: ms(first), max_ejection_time: ms(first + more), ..rules() };
        let record = Record::default();
        for now in times {
            let length = record.eject(&rules, now).as_millis() as u64;
            prop_assert!(length >= first.max(1) && length <= (first + more).max(1), "{}", length);
            prop_assert!(record.is_ejected(now) || now.checked_add(length).is_none());
            prop_assert!(!record.is_ejected(now.saturating_add(length)));
        }
    }

    /// Each is twice as long as the one before, where they follow one another without a pause.
    #[test]
    fn ejections_without_a_pause_double(first in 1u64..100_000, count in 1usize..70) {
        let rules = Outliers { ejection_time: ms(first), max_ejection_time: Duration::MAX, ..rules() };
        let (mut backoff, mut now, mut expected) = (Backoff::default(), 1u64, first);
        for _ in 0..count {
            let length = backoff.eject(&rules, now);
            prop_assert_eq!(length, expected);
            expected = expected.saturating_mul(2);
            now = now.saturating_add(length);
        }
    }

    #[test]
    fn no_clock_and_no_rule_is_too_odd(
        steps in proptest::collection::vec((any::<bool>(), any::<u64>(), any::<u64>()), 0..60),
        row in any::<Option<u32>>(), rate in any::<Option<u8>>(), min in any::<u32>(), window in any::<u64>(),
    ) {
        let rules = Outliers {
            consecutive_failures: row,
            failure_rate: rate,
            min_requests: min,
            window: ms(window),
            ..rules()
        };
        let record = Record::default();
        for (good, latency, now) in steps {
            if good {
                record.answered(&rules, ms(latency), || now);
            } else if record.failed(&rules, Failure::Status(503), ms(latency), now).is_some() {
                record.eject(&rules, now);
            }
            record.end(now);
        }
    }

    #[test]
    fn the_share_is_never_exceeded(servers in 2usize..300, percent in 1u8..=100) {
        let most = most_ejected(servers, percent);
        prop_assert!(most >= 1 && (most == 1 || most * 100 <= servers * usize::from(percent)));
    }
}
