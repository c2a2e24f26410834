//! How many requests reach servers that fail.

use std::time::Instant;

use super::{BOTH, crowd, failures, refused, retries, statuses};
use crate::harness::{Ask, Origin, Port, Reply};

/// So that every request is one to servers that all fail, for as long as a test takes.
const UNJUDGED: &str = "outliers: off";

/// Requests in all, and of them at once.
const REQUESTS: usize = 400;
const AT_ONCE: usize = 8;

async fn servers(answer: fn() -> Reply) -> [Origin; 3] {
    [
        Origin::start(move |_| answer()).await,
        Origin::start(move |_| answer()).await,
        Origin::start(move |_| answer()).await,
    ]
}

fn asked(servers: &[Origin]) -> usize {
    servers.iter().map(Origin::count).sum()
}

#[tokio::test]
async fn an_outage_is_not_multiplied() {
    for way in BOTH {
        for (answer, status) in
            [((|| Reply::new(503).body("busy")) as fn() -> Reply, 503), (Reply::rst, 502), (Reply::hang_up, 502)]
        {
            let servers = servers(answer).await;
            let settings = format!("retry: {{ on: [reset, 503], budget: 10%, floor: 0 }}, {UNJUDGED}");
            let edge = way.pool(&[&servers[0], &servers[1], &servers[2]], &settings).await;
            let responses = crowd(&edge, AT_ONCE, REQUESTS / AT_ONCE).await;
            assert_eq!(statuses(&responses), [(status, REQUESTS)].into(), "{way:?}");
            let asked = asked(&servers);
            // A tenth, and two that take the last one at once on the two threads.
            assert!(asked <= REQUESTS + REQUESTS / 10 + 2, "{way:?} {status}: {asked} requests for {REQUESTS}");
            // Those that the budget allows are made.
            assert!(asked >= REQUESTS + REQUESTS / 20, "{way:?} {status}: {asked} requests for {REQUESTS}");
            let metrics = edge.metrics().await;
            assert_eq!(retries(&metrics), (asked - REQUESTS) as f64, "{way:?} {status}");
            assert!(refused(&metrics) >= (REQUESTS / 2) as f64, "{way:?} {status}: {}", refused(&metrics));
        }
    }
}

#[tokio::test]
async fn refused_connections_are_in_the_budget_too() {
    for way in BOTH {
        let ports = [Port::reserve(), Port::reserve(), Port::reserve()];
        let servers: Vec<_> = ports.iter().map(|p| p.address().to_string()).collect();
        let edge = way.pool_of(&servers, &format!("retry: {{ budget: 10%, floor: 0 }}, {UNJUDGED}")).await;
        let responses = crowd(&edge, AT_ONCE, REQUESTS / AT_ONCE).await;
        assert_eq!(statuses(&responses), [(502, REQUESTS)].into(), "{way:?}");
        let metrics = edge.metrics().await;
        let again = retries(&metrics);
        assert!(again > 0.0 && again <= (REQUESTS / 10 + 2) as f64, "{way:?}: {again}");
        assert_eq!(failures(&metrics, "connect"), REQUESTS as f64 + again, "{way:?}");
    }
}

#[tokio::test]
async fn a_few_retries_are_always_allowed() {
    for way in BOTH {
        let servers = servers(Reply::rst).await;
        let settings = format!("retry: {{ budget: 0%, floor: 2 }}, {UNJUDGED}");
        let edge = way.pool(&[&servers[0], &servers[1], &servers[2]], &settings).await;
        let began = Instant::now();
        crowd(&edge, 4, 10).await;
        let asked = asked(&servers);
        // Two a second over the ten seconds that are looked at, which on a slow machine go on.
        let most = 40 + 2 * (10 + began.elapsed().as_secs() as usize) + 2;
        assert!((40 + 20..=most).contains(&asked), "{way:?}: {asked} of at most {most}");
    }
}

#[tokio::test]
async fn without_a_budget_nothing_is_asked_twice() {
    for way in BOTH {
        let servers = servers(|| Reply::new(503)).await;
        let settings = format!("retry: {{ on: [reset, 503], budget: 0%, floor: 0 }}, {UNJUDGED}");
        let edge = way.pool(&[&servers[0], &servers[1], &servers[2]], &settings).await;
        assert_eq!(statuses(&crowd(&edge, 4, 5).await), [(503, 20)].into(), "{way:?}");
        assert_eq!(asked(&servers), 20, "{way:?}");
    }
}

#[tokio::test]
async fn a_budget_that_suffices_covers_a_server_that_fails() {
    for way in BOTH {
        let bad = Origin::start(|r| if r.target.len() % 2 == 0 { Reply::rst() } else { Reply::new(503) }).await;
        let good = [Origin::start(|_| Reply::ok("x")).await, Origin::start(|_| Reply::ok("x")).await];
        let settings = format!("retry: {{ on: [reset, 503], budget: 100%, floor: 1 }}, {UNJUDGED}");
        let edge = way.pool(&[&bad, &good[0], &good[1]], &settings).await;
        assert_eq!(statuses(&crowd(&edge, 6, 20).await), [(200, 120)].into(), "{way:?}");
        assert!(bad.count() >= 10, "{way:?}: {}", bad.count());
        assert_eq!(asked(&good), 120, "{way:?}");
        // What is not to be repeated is not covered by it.
        let before = bad.count() + asked(&good);
        let mut statuses = Vec::new();
        for _ in 0..9 {
            statuses.push(edge.ask(&Ask::new("POST", "/").body("x")).await.status);
        }
        assert!(statuses.contains(&200) && statuses.contains(&503), "{way:?}: {statuses:?}");
        assert_eq!(bad.count() + asked(&good), before + 9, "{way:?}");
    }
}
