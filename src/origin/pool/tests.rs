mod discovery;
mod selection;
mod waiting;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::model::{HealthCheck, HealthCheckKind, HttpProbe, ServerAddress};
use crate::origin::endpoint::Endpoint;
use crate::origin::pools::tests::{SocketServers, named_origin, origin, until};

/// A position in the origin's list for each choice.
fn choices(pool: &Pool, count: usize) -> Vec<usize> {
    (0..count).map(|_| pool.select(&Ask::default()).unwrap().member.index).collect()
}

fn tried(tried: &[Endpoint]) -> Ask<'_> {
    Ask { tried, ..Ask::default() }
}

fn shares(pool: &Pool, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        *shares.entry(pool.select(&Ask::default()).unwrap().endpoint().to_string()).or_default() += 1;
    }
    shares
}

fn set_healthy(pool: &Pool, index: usize, healthy: bool) {
    let members = pool.inner.members();
    let member = members.iter().find(|member| member.index == index).unwrap();
    if member.state.health.set_healthy(healthy) {
        pool.inner.changed();
    }
}

fn resolve_to(pool: &Pool, index: usize, addresses: &[&str]) {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    pool.inner.resolved(index, Some(&Answer::Addresses(addresses)));
}

fn checked(mut origin: Origin, kind: HealthCheckKind) -> Origin {
    origin.health_check = Some(HealthCheck {
        kind,
        tls: true,
        interval: Duration::from_millis(5),
        interval_down: Duration::from_millis(5),
        jitter: 10,
        timeout: Duration::from_secs(5),
        healthy_after: 2,
        unhealthy_after: 2,
    });
    origin
}

fn checked_pool(servers: SocketServers<'_>) -> Pool {
    Pool::new(Arc::new(checked(origin("media", servers), HealthCheckKind::Tcp)))
}

const THREE: SocketServers<'static> = &[("10.0.0.1:80", 3), ("10.0.0.2:80", 1), ("10.0.0.3:80", 2)];

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn each_server_gets_exactly_its_share_interleaved() {
    let pool = Pool::new(Arc::new(origin("media", THREE)));
    assert_eq!(choices(&pool, 6), [0, 2, 0, 1, 2, 0]);
    assert_eq!(choices(&pool, 6), [0, 2, 0, 1, 2, 0]);
}

#[test]
fn a_server_that_leaves_and_returns_leaves_exact_shares() {
    let pool = checked_pool(THREE);
    choices(&pool, 4);
    set_healthy(&pool, 0, false);
    assert_eq!(choices(&pool, 6), [2, 1, 2, 2, 1, 2]);
    set_healthy(&pool, 0, true);
    assert_eq!(choices(&pool, 6), [0, 2, 0, 1, 2, 0]);
}

#[test]
fn without_a_healthy_server_there_is_no_choice() {
    let pool = checked_pool(THREE);
    (0..3).for_each(|index| set_healthy(&pool, index, false));
    let reason = NoServer::Unusable { unhealthy: 3, drained: 0, weightless: 0 };
    assert_eq!(pool.select(&Ask::default()).unwrap_err(), reason);
}

#[test]
fn without_checks_every_server_is_healthy() {
    let before = checked_pool(THREE);
    set_healthy(&before, 0, false);
    let pool = Pool::from_previous(Arc::new(origin("media", THREE)), &before);
    assert_eq!(choices(&pool, 6), [0, 2, 0, 1, 2, 0]);
    assert!(pool.servers()[0].healthy && !before.servers()[0].healthy);
}

#[test]
fn a_server_of_weight_0_takes_nothing() {
    let pool = Pool::new(Arc::new(origin("media", &[("10.0.0.1:80", 0), ("10.0.0.2:80", 1)])));
    assert_eq!(choices(&pool, 3), [1, 1, 1]);
    assert_eq!(pool.select(&tried(&[addr("10.0.0.2:80").into()])).unwrap_err(), NoServer::Tried);
}

#[test]
fn a_server_that_was_tried_is_not_chosen_again() {
    let pool = Pool::new(Arc::new(origin("media", THREE)));
    for _ in 0..20 {
        let mut tried = Vec::new();
        while let Ok(chosen) = pool.select(&Ask { tried: &tried, ..Ask::default() }) {
            assert!(!tried.contains(chosen.endpoint()));
            tried.push(chosen.endpoint().clone());
        }
        assert_eq!(tried.len(), 3);
    }
}

#[test]
fn a_choice_counts_as_active_until_dropped() {
    let pool = Pool::new(Arc::new(origin("media", &[("10.0.0.1:80", 1)])));
    let (first, second) = (pool.select(&Ask::default()), pool.select(&Ask::default()));
    assert_eq!(pool.servers()[0].active, 2);
    drop(first);
    assert_eq!(pool.servers()[0].active, 1);
    drop(second);
    assert_eq!(pool.servers()[0].active, 0);
}

#[test]
fn a_drained_server_takes_nothing_and_returns() {
    let pool = Pool::new(Arc::new(origin("media", THREE)));
    assert!(pool.set_drained("10.0.0.1:80", true));
    assert!(pool.servers()[0].drained);
    assert_eq!(choices(&pool, 3), [2, 1, 2]);
    assert!(pool.set_drained("10.0.0.1:80", false));
    assert_eq!(choices(&pool, 6), [0, 2, 0, 1, 2, 0]);
    assert!(!pool.set_drained("10.0.0.9:80", true));
}

#[test]
fn a_name_is_a_server_for_each_of_its_addresses() {
    let mut settings = named_origin("media", "origin.test", 80);
    settings.servers[0].weight = 2;
    settings.servers.extend(origin("", &[("192.0.2.1:81", 1)]).servers);
    let pool = Pool::new(Arc::new(settings));
    assert_eq!(choices(&pool, 2), [1, 1]);
    let unresolved = &pool.servers()[0];
    assert_eq!(
        (unresolved.server.as_str(), unresolved.address.clone(), unresolved.healthy),
        ("origin.test:80", None, false)
    );

    resolve_to(&pool, 0, &["10.0.0.1", "10.0.0.2"]);
    let expected = [("10.0.0.1:80", 2), ("10.0.0.2:80", 2), ("192.0.2.1:81", 1)];
    assert_eq!(shares(&pool, 5), expected.map(|(addr, share)| (addr.to_owned(), share)).into());
    assert_eq!(pool.select(&tried(&[addr("192.0.2.1:81").into()])).unwrap().server(), "origin.test:80");
    let addresses: Vec<_> = pool.servers().iter().map(|server| server.address.clone().unwrap()).collect();
    assert_eq!(addresses, expected.map(|(text, _)| addr(text).into()));
}

#[test]
fn an_address_that_stays_keeps_its_state() {
    let settings = checked(named_origin("media", "origin.test", 80), HealthCheckKind::Tcp);
    let pool = Pool::new(Arc::new(settings));
    resolve_to(&pool, 0, &["10.0.0.1", "10.0.0.2"]);
    let in_flight = pool.select(&tried(&[addr("10.0.0.2:80").into()])).unwrap();
    set_healthy(&pool, 0, false);
    resolve_to(&pool, 0, &["10.0.0.1", "10.0.0.3"]);
    let states: Vec<_> =
        pool.servers().iter().map(|server| (server.address.clone().unwrap(), server.healthy, server.active)).collect();
    assert_eq!(states, [(addr("10.0.0.1:80").into(), false, 1), (addr("10.0.0.3:80").into(), true, 0)]);
    drop(in_flight);
    assert_eq!(pool.servers()[0].active, 0);
}

#[test]
fn a_name_is_drained_as_a_whole_or_by_address() {
    let pool = Pool::new(Arc::new(named_origin("media", "origin.test", 80)));
    resolve_to(&pool, 0, &["10.0.0.1", "10.0.0.2"]);
    assert!(pool.set_drained("10.0.0.1:80", true));
    assert_eq!(shares(&pool, 2), [("10.0.0.2:80".to_owned(), 2)].into());
    assert!(pool.set_drained("origin.test:80", true));
    assert!(pool.select(&Ask::default()).is_err());
    // A new address of a drained name is drained too.
    resolve_to(&pool, 0, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert!(pool.select(&Ask::default()).is_err());
    assert!(pool.set_drained("origin.test:80", false));
    assert_eq!(shares(&pool, 3).len(), 3);
}

#[test]
fn a_reload_carries_over_what_is_known_of_servers_that_stay() {
    let mut settings = checked(named_origin("media", "origin.test", 80), HealthCheckKind::Tcp);
    settings.servers.extend(origin("", &[("192.0.2.1:81", 1), ("192.0.2.2:81", 1)]).servers);
    let before = Pool::new(Arc::new(settings));
    resolve_to(&before, 0, &["10.0.0.1"]);
    set_healthy(&before, 0, false);
    set_healthy(&before, 2, false);
    assert!(before.set_drained("192.0.2.1:81", true));

    let mut settings = checked(origin("media", &[("192.0.2.2:81", 5), ("192.0.2.1:81", 1)]), HealthCheckKind::Tcp);
    settings.servers.extend(named_origin("", "origin.test", 80).servers);
    settings.servers.extend(origin("", &[("192.0.2.3:81", 1)]).servers);
    let after = Pool::from_previous(Arc::new(settings), &before);
    let states: Vec<_> = after
        .servers()
        .into_iter()
        .map(|server| (server.address.clone().unwrap().to_string(), server.healthy, server.drained, server.weight))
        .collect();
    let expected = [
        ("192.0.2.2:81", false, false, 5),
        ("192.0.2.1:81", true, true, 1),
        ("10.0.0.1:80", false, false, 1),
        ("192.0.2.3:81", true, false, 1),
    ];
    assert_eq!(states, expected.map(|(addr, healthy, drained, weight)| (addr.to_owned(), healthy, drained, weight)));
}

/// Answers every request with the status that it is told.
async fn http_server(status: watch::Receiver<u16>) -> io::Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
            let answer = format!("HTTP/1.1 {} Said\r\nContent-Length: 0\r\n\r\n", *status.borrow());
            // A check that has gone is of no matter here.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok((addr, server))
}

#[tokio::test]
async fn checks_take_a_failing_server_out_and_back_in() {
    let (status, receiver) = watch::channel(200);
    let (failing, _server) = http_server(receiver).await.unwrap();
    let (steady, _steady) = http_server(watch::channel(200).1).await.unwrap();
    let (failing_text, steady_text) = (failing.to_string(), steady.to_string());
    let settings = origin("media", &[(&failing_text, 1), (&steady_text, 1)]);
    let kind = HealthCheckKind::Http(HttpProbe::get("/healthz"));
    let pool = Pool::new(Arc::new(checked(settings, kind)));
    pool.start(&Handle::current());
    assert_eq!(choices(&pool, 4), [0, 1, 0, 1]);

    status.send(503).unwrap();
    until(|| !pool.servers()[0].healthy).await;
    assert_eq!(choices(&pool, 4), [1, 1, 1, 1]);
    let broken = &pool.servers()[0];
    assert_eq!((broken.last_error.as_deref(), broken.transitions), (Some("status 503"), 1));

    status.send(200).unwrap();
    until(|| pool.servers()[0].healthy).await;
    assert_eq!(choices(&pool, 4), [0, 1, 0, 1]);
    let recovered = &pool.servers()[0];
    assert_eq!((recovered.last_error.as_deref(), recovered.transitions), (None, 2));
    assert_eq!(pool.servers()[1].transitions, 0);
}

#[tokio::test]
async fn localhost_is_resolved_before_the_pool_is_ready() {
    let pool = Pool::new(Arc::new(named_origin("media", "localhost", 9003)));
    assert!(pool.select(&Ask::default()).is_err());
    pool.start(&Handle::current());
    pool.ready().await;
    let chosen = pool.select(&Ask::default()).unwrap();
    assert_eq!((chosen.endpoint(), chosen.server()), (&addr("127.0.0.1:9003").into(), "localhost:9003"));
}

#[tokio::test]
async fn a_name_that_does_not_exist_keeps_nobody_waiting() {
    let settings = Arc::new(named_origin("media", "name.invalid.", 80));
    let pool = Pool::new(settings.clone());
    pool.start(&Handle::current());
    pool.ready().await;
    assert!(pool.select(&Ask::default()).is_err());
    let reason = pool.servers()[0].last_error.clone().unwrap();
    assert!(reason.starts_with("cannot be resolved: "), "{reason}");

    // A failure takes no address away that was good before.
    let before = Pool::new(settings.clone());
    resolve_to(&before, 0, &["10.0.0.1"]);
    let pool = Pool::from_previous(settings, &before);
    pool.start(&Handle::current());
    until(|| pool.servers()[0].last_error.is_some()).await;
    assert_eq!(pool.select(&Ask::default()).unwrap().endpoint(), &addr("10.0.0.1:80").into());
}

#[tokio::test]
async fn the_checks_follow_the_addresses() {
    let pool = Pool::new(Arc::new(checked(named_origin("media", "name.invalid.", 1), HealthCheckKind::Tcp)));
    pool.start(&Handle::current());
    let watched = || {
        let tasks = pool.inner.tasks();
        let mut watched: Vec<_> = tasks.as_ref().unwrap().checks.keys().map(|(_, addr)| addr.to_string()).collect();
        watched.sort();
        watched
    };
    assert!(watched().is_empty());
    resolve_to(&pool, 0, &["127.0.0.1", "127.0.0.2"]);
    assert_eq!(watched(), ["127.0.0.1:1", "127.0.0.2:1"]);
    resolve_to(&pool, 0, &["127.0.0.2", "127.0.0.3"]);
    assert_eq!(watched(), ["127.0.0.2:1", "127.0.0.3:1"]);
}

#[tokio::test]
async fn a_dropped_pool_ends_its_tasks() {
    let mut settings = checked(origin("media", &[("127.0.0.1:1", 1)]), HealthCheckKind::Tcp);
    settings.servers.extend(named_origin("", "localhost", 1).servers);
    let pool = Pool::new(Arc::new(settings));
    pool.start(&Handle::current());
    pool.ready().await;
    let inner = Arc::downgrade(&pool.inner);
    drop(pool);
    until(|| inner.upgrade().is_none()).await;
}
