use std::collections::HashMap;

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::config::model::KeyPart;
use crate::guard::Visitor;

const SECOND: Duration = Duration::from_secs(1);

fn limit(requests: u32, per: Duration, burst: u32, action: OverRate) -> RateLimit {
    RateLimit { name: "a".into(), key: vec![KeyPart::ClientIp], requests, per, burst, action, announce: false }
}

fn reject(requests: u32, per: Duration, burst: u32) -> RateLimit {
    limit(requests, per, burst, OverRate::Reject)
}

/// A hash as the keys make it: its bits tell nothing.
fn key(n: u64) -> KeyHash {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    KeyHash(z ^ (z >> 31))
}

/// How many of `n` requests at once are let through.
fn let_through(limiter: &Limiter, limit: &RateLimit, key: KeyHash, n: u32, now: Duration) -> u32 {
    (0..n).map(|_| u32::from(is_within(limiter.check(limit, key, now)))).sum()
}

fn is_within(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Within { .. })
}

/// A bucket of tokens, in rational arithmetic: a token is `per` parts, and a nanosecond brings `requests` of them.
struct Bucket {
    parts: i128,
    at: u128,
}

impl Bucket {
    fn full(limit: &RateLimit) -> Bucket {
        Bucket { parts: Bucket::size(limit), at: 0 }
    }

    fn size(limit: &RateLimit) -> i128 {
        i128::from(limit.burst) * Bucket::token(limit)
    }

    fn token(limit: &RateLimit) -> i128 {
        limit.per.as_nanos() as i128
    }

    fn check(&mut self, limit: &RateLimit, now: Duration) -> Verdict {
        let now = now.as_nanos();
        let earned = (now - self.at) as i128 * i128::from(limit.requests);
        self.parts = (self.parts + earned).min(Bucket::size(limit));
        self.at = now;
        let token = Bucket::token(limit);
        let time =
            |parts: i128| Duration::from_nanos(parts.max(0).unsigned_abs().div_ceil(u128::from(limit.requests)) as u64);
        let missing = token - self.parts;
        let patience = match limit.action {
            OverRate::Delay(patience) => patience.as_nanos() as i128 * i128::from(limit.requests),
            _ => 0,
        };
        if missing > patience.max(0) {
            return Verdict::Over { retry_after: time(missing - patience) };
        }
        self.parts -= token;
        let reset = time(Bucket::size(limit) - self.parts);
        match missing {
            ..=0 => Verdict::Within { remaining: (self.parts / token) as u64, reset },
            _ => Verdict::Wait { wait: time(missing), reset },
        }
    }
}

fn rates() -> impl Strategy<Value = RateLimit> {
    let per =
        prop_oneof![Just(1_000_000u64), Just(1_000_000_000), Just(86_400_000_000_000), 1_000_000..10_000_000_000u64];
    let requests =
        prop_oneof![1..10u32, Just(3), Just(999_999_937), Just(1_000_000_000), any::<u32>().prop_map(|n| n.max(1))];
    let action = prop_oneof![
        Just(OverRate::Reject),
        Just(OverRate::Log),
        (0..5_000_000_000u64).prop_map(|ns| OverRate::Delay(Duration::from_nanos(ns))),
    ];
    (requests, per, 1..2_000u32, action)
        .prop_map(|(requests, per, burst, action)| limit(requests, Duration::from_nanos(per), burst, action))
}

proptest! {
    /// The same words as the bucket's, to the nanosecond, for any rate and any sequence.
    #[test]
    fn verdicts_are_those_of_a_bucket_of_tokens(
        limit in rates(),
        // Of the time for one request, in thousandths.
        steps in prop::collection::vec((0..3_000u64, 1..20u32), 1..60),
    ) {
        let limiter = Limiter::with_capacity(0);
        let mut bucket = Bucket::full(&limit);
        let mut now = Duration::ZERO;
        let each = (limit.per.as_nanos() / u128::from(limit.requests)) as u64;
        for (thousandths, n) in steps {
            now += Duration::from_nanos((u128::from(each) * u128::from(thousandths) / 1000) as u64 + thousandths % 3);
            for _ in 0..n {
                prop_assert_eq!(limiter.check(&limit, key(0), now), bucket.check(&limit, now), "{:?} at {:?}", limit, now);
            }
        }
    }

    /// Whatever the clock and the settings do, there is an answer.
    #[test]
    fn nothing_makes_it_panic(
        requests in any::<u32>(), per in any::<u64>(), burst in any::<u32>(), patience in any::<u64>(),
        times in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let per = Duration::from_nanos(per);
        let action = OverRate::Delay(Duration::from_nanos(patience));
        let limiter = Limiter::with_capacity(0);
        for ns in times {
            limiter.check(&limit(requests, per, burst, action), key(0), Duration::from_nanos(ns));
            limiter.check(&reject(requests, per, burst), key(0), Duration::from_nanos(ns));
            limiter.give_back(&reject(requests, per, burst), key(0));
        }
        limiter.check(&reject(requests, Duration::MAX, burst), key(0), Duration::MAX);
    }

    /// However many keys share however little memory, none gets more than its bucket gives it: a debt does not go away by
    /// being evicted. And a stranger never owes more than an empty bucket, whatever has happened before it came.
    #[test]
    fn eviction_gives_nothing_away_and_locks_nobody_out(
        limits in prop::collection::vec((1..5u32, 1..100_000u64, 1..6u32), 1..3),
        steps in prop::collection::vec((0..3usize, 0..400u64, 0..2_000_000u64), 1..600),
    ) {
        let limits: Vec<_> = limits.iter().map(|(requests, millis, burst)| {
            reject(*requests, Duration::from_millis(*millis), *burst)
        }).collect();
        let limiter = Limiter::with_capacity(0);
        let mut buckets: HashMap<(usize, u64), Bucket> = HashMap::new();
        let mut now = Duration::ZERO;
        for (which, n, ns) in steps {
            now += Duration::from_nanos(ns);
            let place = which % limits.len();
            let limit = &limits[place];
            // All in one set: these are the bits that choose it.
            let one_set = KeyHash((key(n).0 & 0xFFFF_FFFF) ^ (limiter_apart(limit) & !0xFFFF_FFFF));
            let verdict = limiter.check(limit, one_set, now);
            let bucket = buckets.entry((place, n)).or_insert_with(|| Bucket::full(limit));
            let before = bucket.parts;
            let allowed = bucket.check(limit, now);
            if is_within(verdict) {
                prop_assert!(is_within(allowed), "let through what the bucket would not");
            } else if is_within(allowed) {
                // Stricter than the bucket: it has not been let through, so the bucket is as before.
                bucket.parts = (bucket.parts + Bucket::token(limit)).max(before.min(Bucket::size(limit)));
                let Verdict::Over { retry_after } = verdict else { panic!("{verdict:?}") };
                let worth = limit.per.as_nanos().div_ceil(u128::from(limit.requests));
                prop_assert!(retry_after.as_nanos() <= worth, "a stranger waits {retry_after:?}");
            }
        }
    }
}

/// What a limit's rate makes of a key of zeroes: with it, a test chooses the bits that a hash ends up with.
fn limiter_apart(limit: &RateLimit) -> u64 {
    Rate::of(limit).apart(KeyHash(0))
}

#[test]
fn a_burst_and_then_the_rate() {
    let (limiter, limit) = (Limiter::new(), reject(50, SECOND, 100));
    assert_eq!(let_through(&limiter, &limit, key(0), 200, Duration::ZERO), 100);
    assert_eq!(limiter.check(&limit, key(0), Duration::ZERO), Verdict::Over { retry_after: Duration::from_millis(20) },);
    assert_eq!(let_through(&limiter, &limit, key(1), 1, Duration::ZERO), 1, "another client");
    assert_eq!(let_through(&limiter, &limit, key(0), 200, SECOND), 50);
    assert_eq!(
        limiter.check(&limit, key(2), SECOND),
        Verdict::Within { remaining: 99, reset: Duration::from_millis(20) },
    );
}

#[test]
fn no_rate_drifts() {
    // Thirds of a second: two at once, and then each as soon as it may come.
    let (limiter, limit) = (Limiter::new(), reject(3, SECOND, 2));
    assert_eq!(let_through(&limiter, &limit, key(0), 3, Duration::ZERO), 2);
    for n in 1..200_000u64 {
        let due = Duration::from_nanos((n * 1_000_000_000).div_ceil(3));
        let early = limiter.check(&limit, key(0), due - Duration::from_nanos(1));
        assert_eq!(early, Verdict::Over { retry_after: Duration::from_nanos(1) }, "request {n}");
        assert!(is_within(limiter.check(&limit, key(0), due)), "request {n}");
    }
}

#[test]
fn the_fastest_and_the_slowest() {
    let limiter = Limiter::new();
    let fast = reject(1_000_000_000, SECOND, 10);
    assert_eq!(let_through(&limiter, &fast, key(0), 100, SECOND), 10);
    assert_eq!(let_through(&limiter, &fast, key(0), 100, SECOND + Duration::from_nanos(7)), 7);
    let day = 86_400 * SECOND;
    let slow = reject(1, day, 1);
    assert_eq!(let_through(&limiter, &slow, key(0), 2, SECOND), 1);
    assert_eq!(limiter.check(&slow, key(0), day), Verdict::Over { retry_after: SECOND });
    assert_eq!(let_through(&limiter, &slow, key(0), 2, day + SECOND), 1);
}

#[test]
fn what_is_delayed_leaves_at_the_rate() {
    let (limiter, limit) = (Limiter::new(), limit(10, SECOND, 1, OverRate::Delay(Duration::from_millis(250))));
    let waits: Vec<_> = (0..5).map(|_| limiter.check(&limit, key(0), SECOND)).collect();
    let wait = |ms| Verdict::Wait { wait: Duration::from_millis(ms), reset: Duration::from_millis(ms + 100) };
    assert!(is_within(waits[0]));
    assert_eq!(waits[1..], [wait(100), wait(200), over(50), over(50)]);
}

fn over(ms: u64) -> Verdict {
    Verdict::Over { retry_after: Duration::from_millis(ms) }
}

#[test]
fn a_request_that_a_later_limit_rejects_has_cost_nothing() {
    let (limiter, keys, headers) = (Limiter::new(), Keys::new(), HeaderMap::new());
    let address = "192.0.2.1".parse().unwrap();
    let visitor = Visitor { address, secure: false, identities: &[], country: None, asn: None };
    let asked = Asked { method: &Method::GET, host: "a.test", path: "/", headers: &headers, visitor };
    let named = |name: &str, limit| Arc::new(RateLimit { name: name.into(), ..limit });
    let wide = named("wide", reject(1, SECOND, 10));
    let limits =
        [wide.clone(), named("log", limit(1, SECOND, 1, OverRate::Log)), named("narrow", reject(1, SECOND, 2))];
    let judge = |now| limiter.judge(&limits, &keys, &asked, None, now);
    for remaining in [9, 8] {
        let judgement = judge(Duration::ZERO);
        assert_eq!((judgement.rejected, judgement.verdicts.len()), (None, 3));
        assert!(matches!(judgement.verdicts[0], Verdict::Within { remaining: left, .. } if left == remaining));
    }
    for _ in 0..100 {
        let judgement = judge(Duration::ZERO);
        assert_eq!(judgement.rejected, Some((2, SECOND)));
        assert_eq!(judgement.verdicts[1], Verdict::Over { retry_after: SECOND }, "that is only logged");
    }
    let own = keys.of("wide", &wide.key, &asked, None);
    assert_eq!(let_through(&limiter, &wide, own, 100, Duration::ZERO), 8);
}

#[test]
fn the_longest_wait_is_the_requests() {
    let (limiter, keys, mut headers) = (Limiter::new(), Keys::new(), HeaderMap::new());
    headers.insert("x-user", HeaderValue::from_static("u"));
    let address = "192.0.2.1".parse().unwrap();
    let visitor = Visitor { address, secure: false, identities: &[], country: None, asn: None };
    let asked = Asked { method: &Method::GET, host: "a.test", path: "/", headers: &headers, visitor };
    let delay = |key, rate| {
        let limit = limit(rate, SECOND, 1, OverRate::Delay(SECOND));
        Arc::new(RateLimit { key: vec![key], ..limit })
    };
    let limits = [delay(KeyPart::Header("x-user".into()), 2), delay(KeyPart::ClientIp, 10)];
    assert_eq!(limiter.judge(&limits, &keys, &asked, None, SECOND).wait, Duration::ZERO);
    assert_eq!(limiter.judge(&limits, &keys, &asked, None, SECOND).wait, Duration::from_millis(500));
}

#[test]
fn another_rate_of_the_same_name_counts_anew() {
    let limiter = Limiter::new();
    assert_eq!(let_through(&limiter, &reject(1, 86_400 * SECOND, 5), key(0), 9, SECOND), 5);
    assert_eq!(let_through(&limiter, &reject(2, SECOND, 5), key(0), 9, SECOND), 5);
    // The burst is not the rate: what has been had counts.
    assert_eq!(let_through(&limiter, &reject(2, SECOND, 7), key(0), 9, SECOND), 2);
}

#[test]
fn ten_million_clients_fit_and_do_not_disturb_those_who_behave() {
    const CLIENTS: u64 = 10_000_000;
    const BEHAVED: u64 = 1_000;
    let (limiter, limit) = (Limiter::new(), reject(10, SECOND, 20));
    let (mut kept, mut refused) = (0u64, 0u64);
    // A million new clients a second, for ten seconds; and a thousand that come ten times a second, as they may.
    for n in 0..CLIENTS {
        let now = Duration::from_micros(n);
        assert!(is_within(limiter.check(&limit, key(n), now)), "a stranger at {now:?}");
        if n % 100 == 0 {
            let client = n / 100 % BEHAVED;
            match limiter.check(&limit, key(u64::MAX - client), now) {
                Verdict::Within { .. } => kept += 1,
                _ => refused += 1,
            }
        }
    }
    assert_eq!((kept, refused), (CLIENTS / 100, 0));
    assert_eq!(limiter.evicted(), 0);
    assert!(limiter.bytes() < 34 * 1024 * 1024, "{} bytes", limiter.bytes());

    // And who does not behave is held to it, as if nobody else were there.
    let now = Duration::from_secs(60);
    assert_eq!(let_through(&limiter, &limit, key(u64::MAX), 100, now), 20);
    for n in 0..200_000 {
        limiter.check(&limit, key(CLIENTS + n), now);
    }
    assert_eq!(let_through(&limiter, &limit, key(u64::MAX), 100, now), 0);
}

#[test]
fn a_full_table_goes_on_at_the_rate_of_its_entries() {
    // One group, and an hour's debt for each of its keys.
    let (limiter, limit) = (Limiter::with_capacity(0), reject(1, 3600 * SECOND, 1));
    let room = (0..100_000).filter(|n| is_within(limiter.check(&limit, key(*n), SECOND))).count();
    // Of 16 sets, each has 15 entries, and makes one of them go before it has a floor.
    assert!((200..=16 * 16).contains(&room), "{room} let through");
    assert!(limiter.evicted() <= 16, "who is refused makes nobody go");
    // An hour later, it is as if nothing had been.
    let again = (0..100_000).filter(|n| is_within(limiter.check(&limit, key(n + 500_000), 3602 * SECOND))).count();
    assert_eq!(again, room);
}
