//! Who takes the next request, by each algorithm.

use super::*;
use crate::config::model::{HashKey, Secret, Server, ServerLimits};
use crate::origin::balance::testing::assert_shares;
use crate::origin::balance::{Dice, StableHash};

const EQUAL: SocketServers<'static> = &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1), ("10.0.0.3:80", 1)];

/// A pool with health checks, so that a test can say who is healthy.
fn pool_of(servers: SocketServers<'_>, change: impl FnOnce(&mut Origin)) -> Pool {
    let mut settings = checked(origin("media", servers), HealthCheckKind::Tcp);
    change(&mut settings);
    Pool::new(Arc::new(settings))
}

fn balanced(servers: SocketServers<'_>, balance: Balance) -> Pool {
    pool_of(servers, |settings| settings.balance = balance)
}

fn consistent(bound: Option<u32>) -> Balance {
    Balance::ConsistentHash { key: HashKey::Path, bound }
}

fn all_balances() -> Vec<Balance> {
    vec![
        Balance::RoundRobin,
        Balance::Random,
        Balance::LeastRequests { choices: None },
        Balance::LeastRequests { choices: Some(2) },
        Balance::LeastLatency,
        Balance::IpHash,
        consistent(Some(125)),
        consistent(None),
        Balance::Failover,
    ]
}

fn tiers(pool: &mut Origin, tiers: &[u8]) {
    pool.servers.iter_mut().zip(tiers).for_each(|(server, tier)| server.tier = *tier);
}

fn limited(requests: usize) -> ServerLimits {
    ServerLimits { requests: Some(requests), pending: 0, pending_timeout: Duration::from_secs(1) }
}

/// Requests one after the other, each with a hash of its own.
fn counts(pool: &Pool, requests: usize) -> Vec<usize> {
    let mut counts = vec![0; pool.origin().servers.len()];
    let mut dice = Dice::seeded(1);
    for n in 0..requests as u64 {
        let hash = Some(StableHash::new().with(&n.to_be_bytes()).finish());
        counts[pool.inner.select_by(&Ask { hash, ..Ask::default() }, 1 + n, &mut dice).unwrap().member.index] += 1;
    }
    counts
}

#[test]
fn requests_are_spread_as_each_algorithm_says() {
    const REQUESTS: usize = 12_000;
    for balance in all_balances() {
        let counts = counts(&balanced(EQUAL, balance.clone()), REQUESTS);
        match balance {
            Balance::RoundRobin | Balance::LeastRequests { choices: None } | Balance::LeastLatency => {
                assert!(counts.iter().all(|count| count.abs_diff(4_000) <= 4), "{balance:?}: {counts:?}");
            }
            Balance::Random | Balance::LeastRequests { .. } => assert_shares(&counts, &[1, 1, 1]),
            Balance::IpHash | Balance::ConsistentHash { .. } => {
                assert!(counts.iter().all(|count| count.abs_diff(4_000) < 800), "{balance:?}: {counts:?}");
            }
            Balance::Failover => assert_eq!(counts, [REQUESTS, 0, 0]),
        }
    }
}

#[test]
fn shares_are_by_weight() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::IpHash, consistent(None)] {
        let counts = counts(&balanced(THREE, balance.clone()), 12_000);
        match balance {
            Balance::RoundRobin => assert_eq!(counts, [6_000, 2_000, 4_000]),
            Balance::Random => assert_shares(&counts, &[3, 1, 2]),
            _ => {
                let off = |count: usize, due: usize| count.abs_diff(due) as f64 / due as f64;
                assert!(
                    counts.iter().zip([6_000, 2_000, 4_000]).all(|(count, due)| off(*count, due) < 0.15),
                    "{counts:?}"
                );
            }
        }
    }
}

#[test]
fn who_leaves_takes_nothing_and_who_returns_takes_its_share_again() {
    for balance in all_balances() {
        let pool = balanced(EQUAL, balance.clone());
        let before = counts(&pool, 3_000);
        set_healthy(&pool, 0, false);
        let without = counts(&pool, 3_000);
        assert!(without[0] == 0 && without[1] > 0, "{balance:?}: {without:?}");
        if balance != Balance::Failover {
            assert!(without[1].abs_diff(1_500) < 500, "{balance:?}: {without:?}");
        }
        assert!(pool.set_drained("10.0.0.2:80", true));
        assert_eq!(counts(&pool, 300), [0, 0, 300], "{balance:?}");
        set_healthy(&pool, 0, true);
        assert!(pool.set_drained("10.0.0.2:80", false));
        let after = counts(&pool, 3_000);
        assert!(after.iter().zip(&before).all(|(a, b)| a.abs_diff(*b) < 300), "{balance:?}: {before:?} {after:?}");
    }
}

#[test]
fn a_hash_comes_to_the_same_server_for_as_long_as_it_can() {
    let pool = balanced(EQUAL, Balance::IpHash);
    for hash in (0..200).map(Some) {
        let ask = Ask { hash, ..Ask::default() };
        let server = || pool.select(&ask).unwrap().member.index;
        let home = server();
        assert!((0..5).all(|_| server() == home));
        set_healthy(&pool, home, false);
        let refuge = server();
        assert!(refuge != home && server() == refuge);
        set_healthy(&pool, home, true);
        assert_eq!(server(), home);
    }
}

#[test]
fn a_request_without_a_hash_goes_in_turn() {
    for balance in [Balance::IpHash, consistent(Some(125))] {
        assert_eq!(choices(&balanced(EQUAL, balance), 6), [0, 1, 2, 0, 1, 2]);
    }
}

#[test]
fn servers_that_resolving_finds_join_the_ring() {
    let settings = Origin { balance: Balance::IpHash, ..named_origin("media", "origin.test", 80) };
    let pool = Pool::new(Arc::new(settings));
    let homes = || -> Vec<Endpoint> {
        let ask = |hash| Ask { hash: Some(hash), ..Ask::default() };
        (0..1_000).map(|hash| pool.select(&ask(hash)).unwrap().endpoint().clone()).collect()
    };
    resolve_to(&pool, 0, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let before = homes();
    resolve_to(&pool, 0, &["10.0.0.4", "10.0.0.3", "10.0.0.2", "10.0.0.1"]);
    let (after, new) = (homes(), addr("10.0.0.4:80").into());
    let moved = before.iter().zip(&after).filter(|(was, is)| was != is).count();
    assert!(before.iter().zip(&after).all(|(was, is)| was == is || *is == new));
    assert!((100..=375).contains(&moved), "{moved} of 1,000");
}

#[test]
fn bounded_load_holds_over_the_pool() {
    let pool = balanced(EQUAL, consistent(Some(125)));
    let ask = Ask { hash: Some(7), ..Ask::default() };
    let mut in_flight = Vec::new();
    for _ in 0..300 {
        in_flight.push(pool.select(&ask).unwrap());
        let most = (125 * in_flight.len()).div_ceil(300);
        assert!(pool.servers().iter().all(|server| server.active <= most), "{:?}", pool.servers());
    }
    let unbounded = balanced(EQUAL, consistent(None));
    let in_flight: Vec<_> = (0..300).map(|_| unbounded.select(&ask).unwrap()).collect();
    assert!(in_flight.iter().all(|chosen| chosen.id() == in_flight[0].id()));
}

#[test]
fn the_fewest_requests_are_evened_out() {
    for choices in [None, Some(2)] {
        let pool = balanced(THREE, Balance::LeastRequests { choices });
        let mut dice = Dice::seeded(9);
        let mut select = || pool.inner.select_by(&Ask::default(), 1, &mut dice).unwrap();
        let in_flight: Vec<_> = (0..600).map(|_| select()).collect();
        let active: Vec<_> = pool.servers().iter().map(|server| server.active).collect();
        let due = [300, 100, 200];
        assert!(active.iter().zip(due).all(|(active, due)| active.abs_diff(due) <= due / 10), "{active:?}");
        drop(in_flight);
        assert!(pool.servers().iter().all(|server| server.active == 0));
    }
}

#[test]
fn the_slow_one_is_avoided() {
    let pool = balanced(EQUAL, Balance::LeastLatency);
    let mut dice = Dice::seeded(2);
    // Each is asked once, before any is asked twice.
    let mut first: Vec<_> = (0..3).map(|_| pool.inner.select_by(&Ask::default(), 1, &mut dice).unwrap()).collect();
    first.sort_by_key(|chosen| chosen.member.index);
    assert_eq!(first.iter().map(|chosen| chosen.member.index).collect::<Vec<_>>(), [0, 1, 2]);
    for (chosen, millis) in first.iter().zip([5, 500, 5]) {
        chosen.answered(Duration::from_millis(millis));
    }
    drop(first);
    let now = clock::now();
    let mut counts = [0; 3];
    for _ in 0..1_000 {
        counts[pool.inner.select_by(&Ask::default(), now, &mut dice).unwrap().member.index] += 1;
    }
    assert_eq!(counts[1], 0, "{counts:?}");
}

#[test]
fn failover_takes_the_first_that_can() {
    let pool = balanced(EQUAL, Balance::Failover);
    let first = pool.select(&Ask::default()).unwrap();
    assert_eq!(first.server(), "10.0.0.1:80");
    assert_eq!(pool.select(&tried(&[first.endpoint().clone()])).unwrap().server(), "10.0.0.2:80");
    set_healthy(&pool, 0, false);
    set_healthy(&pool, 1, false);
    assert_eq!(pool.select(&Ask::default()).unwrap().server(), "10.0.0.3:80");
    set_healthy(&pool, 1, true);
    assert_eq!(pool.select(&Ask::default()).unwrap().server(), "10.0.0.2:80");
}

#[test]
fn a_higher_tier_is_for_when_the_lower_cannot() {
    for balance in all_balances() {
        let pool = pool_of(EQUAL, |settings| {
            settings.balance = balance.clone();
            tiers(settings, &[1, 0, 2]);
        });
        assert_eq!(counts(&pool, 100), [0, 100, 0], "{balance:?}");
        set_healthy(&pool, 1, false);
        assert_eq!(counts(&pool, 100), [100, 0, 0], "{balance:?}");
        assert!(pool.set_drained("10.0.0.1:80", true));
        assert_eq!(counts(&pool, 100), [0, 0, 100], "{balance:?}");
        set_healthy(&pool, 1, true);
        assert_eq!(counts(&pool, 100), [0, 100, 0], "{balance:?}");
        // A request that has failed there is tried elsewhere.
        let retried = pool.select(&tried(&[addr("10.0.0.2:80").into()])).unwrap();
        assert_eq!(retried.server(), "10.0.0.3:80", "{balance:?}");
    }
}

#[test]
fn too_few_healthy_servers_are_a_panic() {
    let two: SocketServers<'_> = &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)];
    let pool = pool_of(two, |settings| settings.panic_below = 10);
    assert!(!pool.is_panicking());
    set_healthy(&pool, 0, false);
    assert_eq!(counts(&pool, 4), [0, 4], "half of them is enough");
    set_healthy(&pool, 1, false);
    assert!(pool.is_panicking());
    assert_eq!(counts(&pool, 4), [2, 2]);
    assert!(pool.set_drained("10.0.0.2:80", true));
    assert_eq!(counts(&pool, 4), [4, 0], "who is drained is left alone");
    set_healthy(&pool, 0, true);
    assert!(!pool.is_panicking());

    let never = pool_of(two, |settings| settings.panic_below = 0);
    (0..2).for_each(|index| set_healthy(&never, index, false));
    assert!(!never.is_panicking() && never.select(&Ask::default()).is_err());
}

#[test]
fn a_panic_uses_the_healthy_too() {
    let pool = pool_of(EQUAL, |settings| settings.panic_below = 50);
    set_healthy(&pool, 0, false);
    assert_eq!(counts(&pool, 6), [0, 3, 3]);
    set_healthy(&pool, 1, false);
    assert!(pool.is_panicking(), "one of three is less than a half");
    assert_eq!(counts(&pool, 6), [2, 2, 2]);
}

#[test]
fn nobody_panics_while_another_tier_can() {
    let pool = pool_of(EQUAL, |settings| {
        settings.panic_below = 100;
        tiers(settings, &[0, 0, 1]);
    });
    (0..2).for_each(|index| set_healthy(&pool, index, false));
    assert!(!pool.is_panicking());
    assert_eq!(counts(&pool, 4), [0, 0, 4]);
    set_healthy(&pool, 2, false);
    assert_eq!(counts(&pool, 4), [2, 2, 0], "the lowest tier is used");
}

#[test]
fn servers_of_weight_0_take_nothing_in_a_panic_either() {
    for balance in all_balances() {
        let pool = pool_of(&[("10.0.0.1:80", 0), ("10.0.0.2:80", 0)], |settings| {
            settings.balance = balance;
            settings.panic_below = 100;
        });
        set_healthy(&pool, 0, false);
        let reason = NoServer::Unusable { unhealthy: 0, drained: 0, weightless: 2 };
        let ask = Ask { hash: Some(1), stays_with: Some(Endpoint::from(addr("10.0.0.2:80")).id()), ..Ask::default() };
        assert_eq!(pool.select(&ask).unwrap_err(), reason);
        assert!(!pool.is_panicking());
    }
}

#[test]
fn who_returns_starts_slowly() {
    const TIME: u64 = 30_000;
    for balance in [Balance::RoundRobin, Balance::Random, Balance::IpHash] {
        let pool = pool_of(&[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)], |settings| {
            settings.balance = balance.clone();
            settings.slow_start = Duration::from_millis(TIME);
        });
        let share = |passed: u64| {
            let (mut dice, mut second) = (Dice::seeded(4), 0);
            let since = pool.inner.members()[1].state.load.since();
            for n in 0..10_000u64 {
                let hash = Some(StableHash::new().with(&n.to_be_bytes()).finish());
                let ask = Ask { hash, ..Ask::default() };
                let chosen = pool.inner.select_by(&ask, since + passed, &mut dice).unwrap();
                second += usize::from(chosen.member.index == 1);
            }
            second as f64 / 10_000.0
        };
        let near = |share: f64, due: f64| assert!((share / due - 1.0).abs() < 0.15, "{balance:?}: {share} of {due}");
        near(share(0), 0.5);
        set_healthy(&pool, 1, false);
        set_healthy(&pool, 1, true);
        // On a ring, a tenth of its hashes; elsewhere, a tenth of the other's requests.
        let due = |own: f64| if balance == Balance::IpHash { own / 2.0 } else { own / (1.0 + own) };
        near(share(0), due(0.1));
        near(share(TIME / 2), due(0.55));
        near(share(TIME), 0.5);
    }
}

#[test]
fn who_comes_after_the_start_starts_slowly_too() {
    let pool = Pool::new(Arc::new(named_origin("media", "origin.test", 80)));
    let find = |count: u8, now| {
        let addresses = (1..=count).map(|n| [10, 0, 0, n].into()).collect();
        pool.inner.resolved_at(0, Some(&Answer::Addresses(addresses)), now);
        pool.inner.members().iter().map(|member| member.state.load.since()).collect::<Vec<_>>()
    };
    assert_eq!(find(1, 50_000), [0], "before the start");
    pool.inner.began(60_000);
    assert_eq!(find(2, 61_000), [0, 0], "a start waits for names");
    assert_eq!(find(3, 90_000), [0, 0, 90_000]);
    assert_eq!(find(4, 95_000), [0, 0, 90_000, 95_000]);
    // A pool that follows it goes on.
    let after = Pool::from_previous(pool.origin().clone(), &pool);
    after.inner.began(200_000);
    assert_eq!(after.inner.began.load(Ordering::Relaxed), 60_000);
    assert!(pool.set_drained("10.0.0.1:80", true) && pool.set_drained("10.0.0.1:80", false));
    assert!(pool.inner.members()[0].state.load.since() > 0, "one that was drained");
}

#[test]
fn a_server_that_a_reload_adds_starts_slowly_where_the_pool_has_been_at_work() {
    let since = |began, now| newcomer(began, now).load.since();
    assert_eq!([since(0, 9_000), since(8_000, 9_000), since(1_000, 9_000)], [0, 0, 9_000]);
    let before = pool_of(&[("10.0.0.1:80", 1)], |_| {});
    let after = Pool::from_previous(Arc::new(origin("media", EQUAL)), &before);
    assert!(after.inner.members().iter().all(|member| member.state.load.since() == 0), "it has not been started");
}

#[test]
fn a_client_stays_with_its_server_while_it_can() {
    for balance in all_balances() {
        let pool = pool_of(EQUAL, |settings| {
            settings.balance = balance.clone();
            settings.limits = limited(2);
        });
        let home = Endpoint::from(addr("10.0.0.3:80"));
        let ask = Ask { hash: Some(1), stays_with: Some(home.id()), ..Ask::default() };
        let goes_home = |ask: &Ask<'_>| *pool.select(ask).unwrap().endpoint() == home;
        assert!((0..10).all(|_| goes_home(&ask)), "{balance:?}");
        assert_eq!(pool.select(&ask).unwrap().id(), home.id());
        assert!(!goes_home(&Ask { tried: std::slice::from_ref(&home), ..ask }), "{balance:?}");
        let full = [pool.select(&ask).unwrap(), pool.select(&ask).unwrap()];
        assert!(!goes_home(&ask), "{balance:?}");
        drop(full);
        assert!(pool.set_drained("10.0.0.3:80", true));
        assert!(!goes_home(&ask), "{balance:?}");
        assert!(pool.set_drained("10.0.0.3:80", false));
        set_healthy(&pool, 2, false);
        assert!(!goes_home(&ask), "{balance:?}");
        set_healthy(&pool, 2, true);
        assert!(goes_home(&ask), "{balance:?}");
        assert!(pool.select(&Ask { stays_with: Some(1), ..ask }).is_ok(), "nobody has that name");
    }
}

#[test]
fn a_client_stays_with_its_server_in_a_panic_too() {
    let pool = pool_of(EQUAL, |settings| settings.panic_below = 50);
    let home = Endpoint::from(addr("10.0.0.3:80"));
    let ask = Ask { stays_with: Some(home.id()), ..Ask::default() };
    let visits = || (0..6).filter(|_| *pool.select(&ask).unwrap().endpoint() == home).count();
    set_healthy(&pool, 2, false);
    assert_eq!(visits(), 0);
    (0..2).for_each(|index| set_healthy(&pool, index, false));
    assert!(pool.is_panicking());
    assert_eq!(visits(), 6);
    assert!(pool.set_drained("10.0.0.3:80", true));
    assert_eq!(visits(), 0);
}

#[test]
fn a_pool_makes_the_cookies_of_its_origin() {
    let secret = Secret(b"secret".to_vec(), "env:KEY".to_owned());
    let settings = crate::config::model::Sticky { cookie: "stay".to_owned(), secret, ttl: None };
    let pool = pool_of(EQUAL, |origin| origin.sticky = Some(settings));
    let chosen = pool.select(&Ask::default()).unwrap();
    let set = pool.sticky().unwrap().set_cookie(chosen.id(), 1, false).unwrap();
    let pair = set.to_str().unwrap().split(';').next().unwrap();
    assert_eq!(pool.sticky().unwrap().read([pair.as_bytes()], 1), Some(chosen.id()));
    assert!(pool_of(EQUAL, |_| {}).sticky().is_none());
}

#[test]
fn a_server_never_has_more_requests_than_it_may() {
    for balance in all_balances() {
        let pool = pool_of(EQUAL, |settings| {
            settings.balance = balance.clone();
            settings.limits = limited(2);
        });
        let ask = Ask { hash: Some(3), ..Ask::default() };
        let in_flight: Vec<_> = (0..6).map(|_| pool.select(&ask).unwrap()).collect();
        assert!(pool.servers().iter().all(|server| server.active == 2), "{balance:?}");
        let refused = pool.select(&ask).unwrap_err();
        assert!(refused == NoServer::Full && refused.is_overload(), "{balance:?}");
        let freed = in_flight[4].endpoint().clone();
        drop(in_flight.into_iter().nth(4));
        assert!(pool.servers().iter().all(|server| server.active == 0));
        let again: Vec<_> = (0..6).map(|_| pool.select(&ask).unwrap()).collect();
        assert!(again.iter().any(|chosen| *chosen.endpoint() == freed));
    }
}

#[test]
fn a_full_tier_hands_on_to_the_next() {
    let pool = pool_of(EQUAL, |settings| {
        settings.limits = limited(1);
        tiers(settings, &[0, 0, 1]);
    });
    let in_flight: Vec<_> = (0..3).map(|_| pool.select(&Ask::default()).unwrap()).collect();
    assert_eq!(in_flight.iter().map(|chosen| chosen.member.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(pool.select(&Ask::default()).unwrap_err(), NoServer::Full);
}

#[test]
fn requests_at_once_neither_exceed_limits_nor_leak_places() {
    const LIMIT: usize = 3;
    for balance in all_balances() {
        let pool = pool_of(EQUAL, |settings| {
            settings.balance = balance.clone();
            settings.limits = limited(LIMIT);
        });
        let refused = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (pool, refused) = (&pool, &refused);
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for n in 0..2_000 {
                        let ask = Ask { hash: Some(thread * 10_000 + n), ..Ask::default() };
                        match pool.select(&ask) {
                            Ok(chosen) => {
                                let active = chosen.member.state.load.active();
                                assert!((1..=LIMIT).contains(&active), "{active}");
                                held.push(chosen);
                            }
                            Err(reason) => {
                                assert_eq!(reason, NoServer::Full);
                                refused.fetch_add(1, Ordering::Relaxed);
                                held.clear();
                            }
                        }
                        if held.len() > 2 {
                            held.remove(0);
                        }
                    }
                });
            }
        });
        assert!(pool.servers().iter().all(|server| server.active == 0), "{balance:?}");
        let all: Vec<_> = (0..3 * LIMIT).map(|_| pool.select(&Ask::default()).unwrap()).collect();
        assert_eq!(pool.select(&Ask::default()).unwrap_err(), NoServer::Full);
        drop(all);
    }
}

#[test]
fn servers_may_come_and_go_while_they_are_chosen() {
    for balance in [Balance::RoundRobin, Balance::IpHash, Balance::LeastLatency] {
        let settings = Origin { balance, ..named_origin("media", "origin.test", 80) };
        let pool = Pool::new(Arc::new(settings));
        resolve_to(&pool, 0, &["10.0.0.1"]);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for hash in 0..2_000 {
                        pool.select(&Ask { hash: Some(hash), ..Ask::default() }).unwrap();
                    }
                });
            }
            for n in 1..200 {
                let all: Vec<_> = (0..1 + n % 5).map(|n| format!("10.0.0.{}", n + 1)).collect();
                resolve_to(&pool, 0, &all.iter().map(String::as_str).collect::<Vec<_>>());
            }
        });
        assert!(pool.servers().iter().all(|server| server.active == 0));
    }
}

#[test]
fn the_reason_is_what_stands_in_the_way() {
    let reason = |pool: &Pool| pool.select(&Ask::default()).unwrap_err();
    assert_eq!(reason(&Pool::new(Arc::new(named_origin("media", "origin.test", 80)))), NoServer::Unresolved);
    let pool = pool_of(&[("10.0.0.1:80", 1), ("10.0.0.2:80", 1), ("10.0.0.3:80", 0)], |_| {});
    set_healthy(&pool, 0, false);
    assert!(pool.set_drained("10.0.0.2:80", true));
    assert_eq!(reason(&pool), NoServer::Unusable { unhealthy: 1, drained: 1, weightless: 1 });
}

#[test]
fn the_same_server_twice_is_one() {
    let server = Server { address: ServerAddress::Socket(addr("10.0.0.1:80")), weight: 1, tier: 0 };
    for balance in [Balance::RoundRobin, Balance::IpHash] {
        let settings = Origin { balance, ..Origin::plain("media", vec![server.clone(), server.clone()]) };
        assert_eq!(counts(&Pool::new(Arc::new(settings)), 1_000), [1_000, 0]);
    }
}
