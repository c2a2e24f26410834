use proptest::prelude::*;

use super::*;

fn os(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

const REPEATING: [i32; 6] = [libc::ENOSPC, libc::EDQUOT, libc::EROFS, libc::EACCES, libc::ENOENT, libc::EIO];

#[test]
fn errors_have_their_causes() {
    let table = [
        (os(libc::ENOSPC), Cause::Full, "full"),
        (os(libc::EDQUOT), Cause::Full, "full"),
        (os(libc::EROFS), Cause::ReadOnly, "read_only"),
        (os(libc::EACCES), Cause::Permission, "permission"),
        (os(libc::EPERM), Cause::Permission, "permission"),
        (os(libc::ENOENT), Cause::Missing, "missing"),
        (os(libc::ENOTDIR), Cause::Missing, "missing"),
        (os(libc::ESTALE), Cause::Missing, "missing"),
        (os(libc::EMFILE), Cause::Files, "files"),
        (os(libc::ENFILE), Cause::Files, "files"),
        (os(libc::EIO), Cause::Io, "io"),
        (os(libc::ELOOP), Cause::Io, "io"),
        (io::ErrorKind::WriteZero.into(), Cause::Io, "io"),
        (io::ErrorKind::TimedOut.into(), Cause::Slow, "slow"),
        (super::super::pool::PoolError::TimedOut.into(), Cause::Slow, "slow"),
    ];
    for (error, cause, label) in table {
        assert_eq!((Cause::of(&error), Cause::of(&error).as_str()), (cause, label), "{error}");
    }
}

#[test]
fn each_kind_and_cause_has_its_own_counter() {
    let (health, now) = (Health::default(), Instant::now());
    for (k, kind) in Kind::ALL.into_iter().enumerate() {
        for (c, number) in
            [libc::ENOSPC, libc::EROFS, libc::EACCES, libc::ENOENT, libc::EMFILE, libc::EIO, libc::ETIMEDOUT]
                .into_iter()
                .enumerate()
        {
            for _ in 0..=k * 7 + c {
                health.on_error(kind, &os(number), now);
            }
        }
    }
    for (k, kind) in Kind::ALL.into_iter().enumerate() {
        for (c, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(health.errors(kind, cause), (k * 7 + c + 1) as u64, "{} {}", kind.as_str(), cause.as_str());
        }
    }
}

#[test]
fn one_write_that_will_fail_again_suspends_writing_and_is_said_once() {
    for number in REPEATING {
        let (health, now) = (Health::default(), Instant::now());
        assert!(health.may_write() && health.may_read());
        let cause = Cause::of(&os(number));
        let said = health.on_error(Kind::Write, &os(number), now);
        assert_eq!(said, Some(Transition::Suspended { kind: Kind::Write, cause }));
        assert!(!health.may_write() && health.may_read());
        assert_eq!((health.suspended(Kind::Write), health.suspended(Kind::Read)), (Some(cause), None));
        for other in REPEATING {
            assert_eq!(health.on_error(Kind::Write, &os(other), now), None);
        }
        let ended = health.probed(Kind::Write, Ok(()), after(now, 5));
        let expected = Transition::Resumed { kind: Kind::Write, cause, after: Duration::from_secs(5), errors: 7 };
        assert_eq!(ended, Some(expected));
        assert!(health.may_write());
        assert_eq!(health.probed(Kind::Write, Ok(()), after(now, 6)), None);
    }
}

#[test]
fn what_cannot_be_removed_leaves_no_room_to_write() {
    for (number, suspends) in [(libc::EROFS, true), (libc::EIO, true), (libc::EACCES, false), (libc::EMFILE, false)] {
        let (health, now) = (Health::default(), Instant::now());
        assert!(health.on_error(Kind::Remove, &os(number), now).is_some());
        assert_eq!(health.may_write(), !suspends, "{number}");
    }
}

#[test]
fn an_error_that_suspends_nothing_is_said_again_only_after_a_quiet_minute() {
    let (health, now) = (Health::default(), Instant::now());
    let said = Some(Transition::Noted { kind: Kind::Write, cause: Cause::Files });
    assert_eq!(health.on_error(Kind::Write, &os(libc::EMFILE), now), said);
    for second in 0..200 {
        assert_eq!(health.on_error(Kind::Write, &os(libc::EMFILE), after(now, second)), None);
    }
    assert!(health.may_write());
    assert!(health.on_error(Kind::Write, &os(libc::ETIMEDOUT), after(now, 200)).is_some(), "another cause");
    assert!(health.on_error(Kind::Read, &os(libc::EMFILE), after(now, 200)).is_some(), "another kind");
    assert_eq!(health.on_error(Kind::Write, &os(libc::EMFILE), after(now, 258)), None);
    assert_eq!(health.on_error(Kind::Write, &os(libc::EMFILE), after(now, 318)), said);
}

#[test]
fn reading_is_suspended_by_one_answer_that_does_not_come() {
    let (health, now) = (Health::default(), Instant::now());
    let said = health.on_error(Kind::Read, &os(libc::ETIMEDOUT), now);
    assert_eq!(said, Some(Transition::Suspended { kind: Kind::Read, cause: Cause::Slow }));
    assert!(!health.may_read() && health.may_write());
}

#[test]
fn reading_is_suspended_after_eight_errors_in_a_row() {
    for number in [libc::EIO, libc::EACCES, libc::ESTALE] {
        let (health, now) = (Health::default(), Instant::now());
        let fail = || health.on_error(Kind::Read, &os(number), now);
        (0..7).for_each(|_| assert_eq!(fail(), None));
        health.read_ok();
        (0..7).for_each(|_| assert_eq!(fail(), None));
        assert!(health.may_read());
        let cause = Cause::of(&os(number));
        assert_eq!(fail(), Some(Transition::Suspended { kind: Kind::Read, cause }));
        assert!(!health.may_read() && health.may_write());
        assert_eq!(fail(), None);
        // A read that was on its way does not end it; a probe does.
        health.read_ok();
        assert!(!health.may_read());
        assert!(health.probe_due(Kind::Read, after(now, 1)) && !health.probe_due(Kind::Write, after(now, 1)));
        let ended = health.probed(Kind::Read, Ok(()), after(now, 1));
        assert!(matches!(ended, Some(Transition::Resumed { kind: Kind::Read, errors: 2, .. })), "{ended:?}");
        assert!(health.may_read());
        (0..7).for_each(|_| assert_eq!(fail(), None, "the row begins anew"));
    }
}

#[test]
fn reading_is_suspended_after_one_that_is_not_answered() {
    let (health, now) = (Health::default(), Instant::now());
    let suspended = Some(Transition::Suspended { kind: Kind::Read, cause: Cause::Slow });
    assert_eq!(health.on_error(Kind::Read, &os(libc::ETIMEDOUT), now), suspended);
    assert!(!health.may_read() && health.may_write());
}

#[test]
fn a_lack_of_files_says_nothing_of_the_disk() {
    let (health, now) = (Health::default(), Instant::now());
    for _ in 0..100 {
        health.on_error(Kind::Read, &os(libc::EMFILE), now);
    }
    assert!(health.may_read());
}

#[test]
fn probes_come_later_and_later_and_one_at_a_time() {
    let (health, start) = (Health::default(), Instant::now());
    assert!(!health.probe_due(Kind::Write, start));
    health.on_error(Kind::Write, &os(libc::ENOSPC), start);
    let mut now = start;
    for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
        let due = after(now, seconds);
        assert!(!health.probe_due(Kind::Write, due - Duration::from_millis(1)), "{seconds}");
        assert!(health.probe_due(Kind::Write, due), "{seconds}");
        assert!(!health.probe_due(Kind::Write, due), "another has it");
        assert_eq!(health.probed(Kind::Write, Err(&os(libc::EROFS)), due), None);
        now = due;
    }
    assert_eq!(health.suspended(Kind::Write), Some(Cause::ReadOnly));
    assert_eq!(health.errors(Kind::Write, Cause::ReadOnly), 8);
    assert!(!health.may_write());
}

#[test]
fn a_probe_that_is_never_heard_of_again_is_followed_by_another() {
    let (health, now) = (Health::default(), Instant::now());
    health.on_error(Kind::Write, &os(libc::EIO), now);
    assert!(health.probe_due(Kind::Write, after(now, 1)));
    assert!(!health.probe_due(Kind::Write, after(now, 1)));
    assert!(health.probe_due(Kind::Write, after(now, 2)));
}

#[test]
fn a_disk_that_fails_again_at_once_is_probed_later() {
    let (health, mut now) = (Health::default(), Instant::now());
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        assert!(health.on_error(Kind::Write, &os(libc::ENOSPC), now).is_some());
        assert!(!health.probe_due(Kind::Write, after(now, seconds - 1)));
        now = after(now, seconds);
        assert!(health.probe_due(Kind::Write, now));
        assert!(health.probed(Kind::Write, Ok(()), now).is_some());
    }
    now = after(now, 60);
    health.on_error(Kind::Write, &os(libc::ENOSPC), now);
    assert!(health.probe_due(Kind::Write, after(now, 1)), "a minute of health is forgotten");
}

#[test]
fn many_threads_that_fail_at_once_say_it_once() {
    let (health, now) = (Health::default(), Instant::now());
    let said = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    if health.on_error(Kind::Write, &os(libc::EIO), now).is_some() {
                        said.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!((said.into_inner(), health.errors(Kind::Write, Cause::Io)), (1, 800));
}

#[test]
fn what_is_logged_reads_well() {
    let lines = [
        Transition::Suspended { kind: Kind::Write, cause: Cause::Full },
        Transition::Resumed { kind: Kind::Read, cause: Cause::Io, after: Duration::from_secs(31), errors: 9 },
        Transition::Noted { kind: Kind::Write, cause: Cause::Files },
    ]
    .map(|transition| transition.to_string());
    let expected = [
        "writing to the disk is suspended: it is full",
        "reading from the disk is resumed after 31 s and 9 errors (io)",
        "the disk failed to write: no file can be opened",
    ];
    assert_eq!(lines, expected);
}

#[derive(Clone, Debug)]
enum Step {
    Error(Kind, i32),
    ReadOk,
    Probe(Kind, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || proptest::sample::select(&Kind::ALL[..]);
    let numbers = &[libc::ENOSPC, libc::EROFS, libc::EACCES, libc::ENOENT, libc::EMFILE, libc::EIO, libc::ETIMEDOUT];
    prop_oneof![
        6 => (kind(), proptest::sample::select(&numbers[..])).prop_map(|(kind, number)| Step::Error(kind, number)),
        1 => Just(Step::ReadOk),
        2 => (kind(), any::<bool>()).prop_map(|(kind, ok)| Step::Probe(kind, ok)),
        2 => (0..40_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens: beginnings and ends alternate and agree with what may be done, and whoever is suspended is
    /// probed within the last back-off.
    #[test]
    fn suspensions_begin_and_end_in_turn(steps in proptest::collection::vec(step(), 0..200)) {
        let (health, mut now) = (Health::default(), Instant::now());
        let mut suspended = [false; 2];
        for step in steps {
            let said = match step {
                Step::Error(kind, number) => health.on_error(kind, &os(number), now),
                Step::ReadOk => {
                    health.read_ok();
                    None
                }
                Step::Wait(ms) => {
                    now += Duration::from_millis(ms);
                    None
                }
                Step::Probe(kind, ok) => match health.probe_due(kind, now) {
                    true if ok => health.probed(kind, Ok(()), now),
                    true => health.probed(kind, Err(&os(libc::EIO)), now),
                    false => None,
                },
            };
            match said {
                Some(Transition::Suspended { kind, .. }) => {
                    prop_assert!(!std::mem::replace(&mut suspended[kind as usize], true));
                }
                Some(Transition::Resumed { kind, .. }) => {
                    prop_assert!(std::mem::replace(&mut suspended[kind as usize], false));
                }
                Some(Transition::Noted { .. }) | None => {}
            }
            prop_assert_eq!(suspended, [!health.may_read(), !health.may_write()]);
            for kind in [Kind::Read, Kind::Write] {
                prop_assert_eq!(health.suspended(kind).is_some(), suspended[kind as usize]);
            }
        }
        for kind in [Kind::Read, Kind::Write] {
            prop_assert_eq!(health.probe_due(kind, now + LAST_BACKOFF), suspended[kind as usize]);
        }
    }
}
