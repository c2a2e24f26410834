use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::origin::failure::FailureKind;
use crate::origin::health::{TryResult, Watch};
use crate::origin::member::Slot;
use crate::origin::pool::{Ask, Pool};
use crate::origin::pools::tests::{SocketServers, origin, until};
use crate::origin::{Chosen, ServerState};

fn rules() -> Outliers {
    Outliers {
        consecutive_failures: Some(5),
        failure_rate: None,
        min_requests: 5,
        latency: None,
        window: Duration::from_secs(10),
        failure_statuses: vec![(502, 504)],
        ejection_time: Duration::from_secs(60),
        max_ejection_time: Duration::from_secs(300),
        max_ejected: 50,
    }
}

fn judged(servers: SocketServers<'_>, rules: Outliers) -> Origin {
    Origin { outliers: Some(rules), ..origin("media", servers) }
}

fn pool(servers: SocketServers<'_>, rules: Outliers) -> Pool {
    Pool::new(Arc::new(judged(servers, rules)))
}

const TWO: SocketServers<'static> = &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)];
const FOUR: SocketServers<'static> = &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1), ("10.0.0.3:80", 1), ("10.0.0.4:80", 1)];

fn answered(status: u16) -> Outcome {
    Outcome { result: TryResult::Answered(status), latency: Duration::ZERO }
}

fn choose(pool: &Pool) -> Option<Chosen> {
    pool.select(&Ask::default()).into_iter().next()
}

/// Every server of the pool once.
fn all(pool: &Pool) -> Vec<Chosen> {
    pool.servers().iter().filter_map(|_| choose(pool)).collect()
}

fn states(pool: &Pool) -> Vec<ServerState> {
    pool.servers().iter().map(|server| server.state).collect()
}

fn chosen_at(pool: &Pool, address: &str) -> Chosen {
    (0..100).find_map(|_| choose(pool).filter(|chosen| chosen.endpoint().to_string() == address)).expect("is chosen")
}

#[test]
fn five_failures_in_a_row_take_a_server_out_and_half_stay() {
    let pool = pool(FOUR, rules());
    for round in 1..=5 {
        assert!(states(&pool).iter().all(|state| *state == ServerState::Healthy), "{round}");
        // Each server has failed as often as each other.
        all(&pool).iter().for_each(|chosen| chosen.report(&answered(502)));
    }
    let ejected = |pool: &Pool| states(pool).iter().filter(|state| **state == ServerState::Ejected).count();
    assert_eq!(ejected(&pool), 2, "and no more, though all have failed");
    for _ in 0..20 {
        all(&pool).iter().for_each(|chosen| chosen.report(&answered(502)));
    }
    assert_eq!(ejected(&pool), 2);

    let servers = pool.servers();
    let out = servers.iter().find(|server| server.state == ServerState::Ejected).unwrap();
    assert_eq!(out.reason.as_deref(), Some("5 failures in a row, the last: status 502"));
    assert_eq!((out.ejections, out.healthy, out.drained), (1, true, false));
    let left = out.ejected_until.unwrap().duration_since(out.since).unwrap();
    assert!(Duration::from_secs(58) < left && left < Duration::from_secs(62), "{left:?}");
    let taken: Vec<_> = (0..8).map(|_| choose(&pool).unwrap().endpoint().clone()).collect();
    assert!(
        servers
            .iter()
            .filter(|s| s.state == ServerState::Ejected)
            .all(|s| !taken.contains(s.address.as_ref().unwrap()))
    );
}

#[test]
fn a_success_between_failures_keeps_a_server_in() {
    let pool = pool(TWO, rules());
    let chosen = chosen_at(&pool, "10.0.0.1:80");
    for _ in 0..10 {
        (0..4).for_each(|_| chosen.report(&answered(503)));
        chosen.report(&answered(404));
        let unclear = Outcome { result: TryResult::Failed(FailureKind::Other), latency: Duration::ZERO };
        chosen.report(&unclear);
    }
    assert_eq!(states(&pool), [ServerState::Healthy; 2]);
}

#[test]
fn drained_servers_are_no_reserve() {
    let pool = pool(&[("10.0.0.1:80", 1), ("10.0.0.2:80", 1), ("10.0.0.3:80", 1), ("10.0.0.4:80", 0)], rules());
    let (one, two) = (chosen_at(&pool, "10.0.0.1:80"), chosen_at(&pool, "10.0.0.2:80"));
    assert!(pool.set_drained("10.0.0.3:80", true));
    for chosen in [&one, &two] {
        (0..9).for_each(|_| chosen.report(&answered(502)));
    }
    let expected = [ServerState::Ejected, ServerState::Healthy, ServerState::Drained, ServerState::Drained];
    assert_eq!(states(&pool), expected);
    assert!(pool.set_drained("10.0.0.3:80", false));
    let reasons: Vec<_> = pool.servers().into_iter().map(|server| server.reason).collect();
    assert_eq!(reasons[3].as_deref(), Some("its weight is 0"));
}

#[test]
fn nothing_of_it_counts_where_the_origin_does_not_want_it() {
    let judging = pool(TWO, rules());
    let chosen = chosen_at(&judging, "10.0.0.1:80");
    (0..5).for_each(|_| chosen.report(&answered(502)));
    assert_eq!(states(&judging), [ServerState::Ejected, ServerState::Healthy]);
    let again = Pool::from_previous(Arc::new(Origin { retries: 9, ..judged(TWO, rules()) }), &judging);
    assert_eq!(states(&again), [ServerState::Ejected, ServerState::Healthy], "what is known goes on");
    let without = Pool::from_previous(Arc::new(origin("media", TWO)), &judging);
    assert_eq!(states(&without), [ServerState::Healthy; 2]);
    let chosen = chosen_at(&without, "10.0.0.2:80");
    (0..50).for_each(|_| chosen.report(&answered(502)));
    assert_eq!(states(&without), [ServerState::Healthy; 2]);
}

#[test]
fn a_server_that_has_left_is_not_ejected() {
    let judge = Judge::new(&judged(TWO, rules())).unwrap();
    let watch = Watch { checks: None, judge: Some(judge.clone()) };
    let member = |index: usize| {
        let slot = Slot::new(index, &origin("", TWO).servers[index], |_| None);
        slot.member(slot.found(None).remove(0), &watch, Arc::default())
    };
    let changes = Arc::new(AtomicUsize::new(0));
    let counted = changes.clone();
    judge.on_change(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let (one, two) = (member(0), member(1));
    judge.watch(std::slice::from_ref(&two));
    (0..9).for_each(|_| judge.report(&one, &answered(502)));
    assert!(!one.is_ejected(clock::now()));
    judge.watch(&[one.clone(), two.clone()]);
    judge.report(&one, &answered(502));
    assert!(one.is_ejected(clock::now()) && one.is_healthy() && !one.is_usable());
    assert_eq!(changes.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_ejection_ends_by_itself() {
    let short = Outliers { ejection_time: Duration::from_millis(30), ..rules() };
    let pool = pool(TWO, short);
    pool.start(&tokio::runtime::Handle::current());
    let chosen = chosen_at(&pool, "10.0.0.1:80");
    for ejections in 1..=3 {
        (0..5).for_each(|_| chosen.report(&answered(502)));
        assert_eq!(pool.servers()[0].ejections, ejections);
        until(|| states(&pool) == [ServerState::Healthy; 2]).await;
        // It is noted too, by the pool's task.
        until(|| !chosen.member.state.health.record.may_be_ejected()).await;
        let back = &pool.servers()[0];
        assert_eq!((back.reason.as_deref(), back.ejected_until), (None, None));
    }
}

#[tokio::test]
async fn one_that_is_slow_beside_the_others_is_ejected() {
    let limit = Some(Duration::from_millis(100));
    let pool = pool(FOUR, Outliers { latency: limit, window: Duration::from_secs(600), ..rules() });
    pool.start(&tokio::runtime::Handle::current());
    for (address, millis) in [("10.0.0.1:80", 10), ("10.0.0.2:80", 400), ("10.0.0.3:80", 20)] {
        let chosen = chosen_at(&pool, address);
        let latency = Duration::from_millis(millis);
        (0..5).for_each(|_| chosen.report(&Outcome { result: TryResult::Answered(200), latency }));
    }
    until(|| states(&pool)[1] == ServerState::Ejected).await;
    let reason = pool.servers()[1].reason.clone().unwrap();
    assert_eq!(reason, "a mean latency of 400.0ms within 10m, the others' median is 10.0ms");
    let others = [states(&pool)[0], states(&pool)[2], states(&pool)[3]];
    assert_eq!(others, [ServerState::Healthy; 3]);
}

/// Many reports at once, of all servers: the share holds at every moment.
#[test]
fn the_share_holds_under_contention() {
    let servers: Vec<(String, usize)> = (1..=10).map(|n| (format!("10.0.0.{n}:80"), 1)).collect();
    let servers: Vec<(&str, usize)> = servers.iter().map(|(text, weight)| (text.as_str(), *weight)).collect();
    let pool = pool(&servers, Outliers { consecutive_failures: Some(1), max_ejected: 30, ..rules() });
    let chosen = all(&pool);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for chosen in chosen.iter().cycle().take(200) {
                    chosen.report(&answered(502));
                    let ejected = states(&pool).iter().filter(|state| **state == ServerState::Ejected).count();
                    assert!(ejected <= 3, "{ejected} of 10");
                }
            });
        }
    });
    assert_eq!(states(&pool).iter().filter(|state| **state == ServerState::Ejected).count(), 3);
}
