//! Waiting for a place.

use futures_util::FutureExt;
use tokio::time::Instant;

use super::*;
use crate::config::model::ServerLimits;

const ONE: SocketServers<'static> = &[("10.0.0.1:80", 1)];

fn pool(servers: SocketServers<'_>, pending: usize, pending_timeout: Duration) -> Arc<Pool> {
    let limits = ServerLimits { requests: Some(1), pending, pending_timeout };
    Arc::new(Pool::new(Arc::new(Origin { limits, ..origin("media", servers) })))
}

/// A request that waits, and tells when it has its place and when to give it back.
fn wait(pool: &Arc<Pool>, tried: Vec<Endpoint>) -> tokio::task::JoinHandle<Result<Chosen, NoServer>> {
    let pool = pool.clone();
    tokio::spawn(async move { pool.choose(&Ask { tried: &tried, ..Ask::default() }).await })
}

fn pending(pool: &Pool) -> usize {
    let pending = pool.pending();
    assert_eq!(pool.inner.waiting.counts()[0], pending);
    pending
}

/// Lets everything run that can.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn assert_idle(pool: &Pool) {
    assert_eq!(pool.inner.waiting.counts(), [0; 4]);
    assert!(pool.servers().iter().all(|server| server.active == 0));
}

#[tokio::test(start_paused = true)]
async fn places_go_to_those_that_wait_in_their_order() {
    let pool = pool(ONE, 3, Duration::from_secs(5));
    let mut held = pool.choose(&Ask::default()).await.unwrap();
    let mut waiting = Vec::new();
    for n in 1..=3 {
        waiting.push(wait(&pool, Vec::new()));
        settle().await;
        assert_eq!(pending(&pool), n);
    }
    while !waiting.is_empty() {
        settle().await;
        assert!(waiting.iter().all(|request| !request.is_finished()));
        drop(held);
        // One that comes now does not get past them.
        let ask = Ask::default();
        let late = pool.choose(&ask);
        tokio::pin!(late);
        assert!(late.as_mut().now_or_never().is_none() || waiting.len() == 3);
        settle().await;
        let served = waiting.iter().map(|request| request.is_finished()).collect::<Vec<_>>();
        assert!(served[0] && served[1..].iter().all(|served| !served), "{served:?}");
        held = waiting.remove(0).await.unwrap().unwrap();
    }
    drop(held);
    settle().await;
    assert_idle(&pool);
}

#[tokio::test(start_paused = true)]
async fn no_one_waits_for_longer_than_is_allowed() {
    let pool = pool(ONE, 2, Duration::from_millis(1500));
    let held = pool.select(&Ask::default()).unwrap();
    let (began, first) = (Instant::now(), wait(&pool, Vec::new()));
    settle().await;
    tokio::time::advance(Duration::from_millis(500)).await;
    let second = wait(&pool, Vec::new());
    let reason = first.await.unwrap().unwrap_err();
    assert_eq!((reason, began.elapsed().as_millis() / 10), (NoServer::WaitedTooLong(Duration::from_millis(1500)), 150));
    assert!(reason.is_overload());
    // The next one has its own time still.
    drop(held);
    assert!(second.await.unwrap().is_ok());
    settle().await;
    assert_idle(&pool);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_wait_is_refused_at_once() {
    let refused = |pool: Arc<Pool>| async move {
        let began = Instant::now();
        let reason = pool.choose(&Ask::default()).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::ZERO);
        reason
    };
    let none = pool(ONE, 0, Duration::from_secs(5));
    let _held = none.select(&Ask::default()).unwrap();
    assert_eq!(refused(none.clone()).await, NoServer::Full);

    let two = pool(ONE, 2, Duration::from_secs(5));
    let _held = two.select(&Ask::default()).unwrap();
    let waiting = [wait(&two, Vec::new()), wait(&two, Vec::new())];
    settle().await;
    assert_eq!(refused(two.clone()).await, NoServer::QueueFull);
    waiting[0].abort();
    settle().await;
    assert_eq!(pending(&two), 1, "who gives up makes room");
    let third = wait(&two, Vec::new());
    settle().await;
    assert!(!third.is_finished());
    assert_eq!(pending(&two), 2);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_holds_up_nobody() {
    let pool = pool(ONE, 3, Duration::from_secs(5));
    let held = pool.select(&Ask::default()).unwrap();
    let (head, next) = (wait(&pool, Vec::new()), wait(&pool, Vec::new()));
    settle().await;
    head.abort();
    settle().await;
    drop(held);
    drop(next.await.unwrap().unwrap());
    settle().await;
    assert_idle(&pool);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_has_to_wait_lets_others_go() {
    let pool = pool(&[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)], 2, Duration::from_secs(5));
    let (first, second) = (pool.select(&Ask::default()).unwrap(), pool.select(&Ask::default()).unwrap());
    let retry = wait(&pool, vec![first.endpoint().clone()]);
    let other = wait(&pool, Vec::new());
    settle().await;
    drop(first);
    let other = other.await.unwrap().unwrap();
    settle().await;
    assert!(!retry.is_finished(), "its only server is busy");
    let expected = second.endpoint().clone();
    drop(second);
    assert_eq!(*retry.await.unwrap().unwrap().endpoint(), expected);
    drop(other);
    settle().await;
    assert_idle(&pool);
}

#[tokio::test(start_paused = true)]
async fn servers_that_change_end_a_wait() {
    let limits = ServerLimits { requests: Some(1), pending: 2, pending_timeout: Duration::from_secs(5) };
    let pool = Arc::new(Pool::new(Arc::new(Origin { limits, ..named_origin("media", "origin.test", 80) })));
    resolve_to(&pool, 0, &["10.0.0.1"]);
    let _held = pool.select(&Ask::default()).unwrap();
    let waiting = wait(&pool, Vec::new());
    settle().await;
    resolve_to(&pool, 0, &["10.0.0.1", "10.0.0.2"]);
    let chosen = waiting.await.unwrap().unwrap();
    assert_eq!(*chosen.endpoint(), addr("10.0.0.2:80").into());
    // One that cannot be answered any more is not kept waiting.
    let waiting = wait(&pool, Vec::new());
    settle().await;
    assert!(pool.set_drained("origin.test:80", true));
    assert_eq!(waiting.await.unwrap().unwrap_err(), NoServer::Unusable { unhealthy: 0, drained: 2, weightless: 0 });
}

#[tokio::test(start_paused = true)]
async fn requests_of_before_a_reload_make_room_for_those_after() {
    let before = pool(ONE, 2, Duration::from_secs(5));
    let held = before.select(&Ask::default()).unwrap();
    let settings = Origin { retries: 7, ..Origin::clone(before.origin()) };
    let after = Arc::new(Pool::from_previous(Arc::new(settings), &before));
    let waiting = wait(&after, Vec::new());
    settle().await;
    assert!(!waiting.is_finished());
    drop(held);
    drop(waiting.await.unwrap().unwrap());
    settle().await;
    assert_idle(&after);
}

#[tokio::test(start_paused = true)]
async fn higher_limits_are_of_use_while_requests_wait_by_the_former() {
    let before = pool(ONE, 1, Duration::from_secs(60));
    let held = before.select(&Ask::default()).unwrap();
    let waits = wait(&before, Vec::new());
    settle().await;
    let limits = ServerLimits { requests: Some(2), ..before.origin().limits.clone() };
    let settings = Origin { limits, ..(**before.origin()).clone() };
    let after = Arc::new(Pool::from_previous(Arc::new(settings), &before));
    let more = after.choose(&Ask::default()).now_or_never().expect("there is a place").unwrap();
    // Those of the former pool free places here.
    let second = wait(&after, Vec::new());
    settle().await;
    assert!(!second.is_finished() && !waits.is_finished());
    drop(held);
    let second = second.await.unwrap().unwrap();
    drop((more, second));
    drop(waits.await.unwrap().unwrap());
    settle().await;
    assert_idle(&after);
    assert_idle(&before);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_freed_is_told_to_whoever_has_asked_before() {
    let pool = pool(ONE, 2, Duration::from_secs(5));
    let held = pool.select(&Ask::default()).unwrap();
    let freed = pool.place_freed();
    drop(held);
    let later = pool.place_freed();
    freed.await;
    tokio::pin!(later);
    assert!(later.as_mut().now_or_never().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_starves_and_no_place_is_lost() {
    let servers: SocketServers<'_> = &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)];
    let pool = pool(servers, 100, Duration::from_secs(60));
    let requests = (0..64).map(|n| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let tried: Vec<Endpoint> = if n % 8 == 0 { vec![addr("10.0.0.1:80").into()] } else { Vec::new() };
            for _ in 0..50 {
                let chosen = pool.choose(&Ask { tried: &tried, ..Ask::default() }).await.unwrap();
                assert_eq!(chosen.member.state.load.active(), 1);
                tokio::task::yield_now().await;
            }
        })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await.unwrap();
    }
    assert_idle(&pool);
}
