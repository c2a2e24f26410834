//! Servers that come and go while a pool runs.

use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::config::model::{OriginHttp, OriginTls, TlsVersion};
use crate::origin::discovery::srv::Target;

fn named(host: &str) -> Server {
    Server { address: ServerAddress::Name { host: host.to_owned(), port: 80 }, weight: 1, tier: 0 }
}

fn sockets(servers: SocketServers<'_>) -> Vec<Server> {
    origin("", servers).servers
}

/// An origin with these servers and a watched file, which nobody reads before the pool starts.
fn watched(servers: SocketServers<'_>, file: impl Into<PathBuf>) -> Origin {
    Origin { servers_file: Some(file.into()), ..origin("media", servers) }
}

fn service(weight: usize) -> Origin {
    let address = ServerAddress::Srv("_http._tcp.test".to_owned());
    Origin { servers: vec![Server { address, weight, tier: 0 }], ..origin("media", &[]) }
}

/// What each target is: host, last part of its address, weight and rank.
fn targets(targets: &[(&str, u8, usize, u8)]) -> Answer {
    let target = |(host, last, weight, rank): &(&str, u8, usize, u8)| Target {
        host: host.to_string(),
        port: 80,
        weight: *weight,
        rank: *rank,
        addresses: vec![[10, 0, 0, *last].into()],
    };
    Answer::Targets(targets.iter().map(target).collect())
}

fn nobody_takes(pool: &Pool) -> bool {
    pool.select(&Ask::default()).is_err()
}

/// Server, health and drain of all, in order.
fn states(pool: &Pool) -> Vec<(String, bool, bool)> {
    let state = |server: ServerStatus| {
        (server.address.map_or(server.server, |address| address.to_string()), server.healthy, server.drained)
    };
    pool.servers().into_iter().map(state).collect()
}

fn expected(states: &[(&str, bool, bool)]) -> Vec<(String, bool, bool)> {
    states.iter().map(|(server, healthy, drained)| (server.to_string(), *healthy, *drained)).collect()
}

/// A file of its own, removed as it is dropped.
struct Listing(PathBuf);

impl Listing {
    fn new(text: &str) -> Listing {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("foreland-pool-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Listing(path)
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_list_of_no_servers_is_a_pool_of_none() {
    let pool = Pool::new(Arc::new(watched(&[], "list")));
    assert!(nobody_takes(&pool) && pool.servers().is_empty());
    pool.inner.listed(Ok(sockets(&[("10.0.0.1:80", 1), ("10.0.0.2:80", 2)])));
    assert_eq!(shares(&pool, 3), [("10.0.0.1:80".to_owned(), 1), ("10.0.0.2:80".to_owned(), 2)].into());
    pool.inner.listed(Ok(sockets(&[("10.0.0.1:80", 0), ("10.0.0.2:80", 0)])));
    assert!(nobody_takes(&pool));
    pool.inner.listed(Ok(Vec::new()));
    assert!(nobody_takes(&pool) && pool.servers().is_empty());
}

#[test]
fn a_bad_list_changes_nothing() {
    let pool = Pool::new(Arc::new(watched(&[("10.0.0.1:80", 1)], "list")));
    pool.inner.listed(Err(vec!["gone".to_owned(), "really".to_owned()]));
    assert_eq!(pool.last_error().as_deref(), Some("servers_file list: gone; really"));
    assert_eq!(shares(&pool, 1).len(), 1);
    pool.inner.listed(Ok(sockets(&[("10.0.0.2:80", 1)])));
    assert_eq!(pool.last_error(), None);
    pool.inner.listed(Err(vec!["gone".to_owned()]));
    assert_eq!(states(&pool), expected(&[("10.0.0.1:80", true, false), ("10.0.0.2:80", true, false)]));
}

#[test]
fn the_state_of_an_endpoint_goes_on_whoever_names_it() {
    let settings = checked(watched(&[("10.0.0.1:80", 1)], "list"), HealthCheckKind::Tcp);
    let pool = Pool::new(Arc::new(settings.clone()));
    pool.inner.listed(Ok([named("a.test")].into_iter().chain(sockets(&[("10.0.0.3:80", 1)])).collect()));
    resolve_to(&pool, 1, &["10.0.0.2"]);
    let in_flight = pool.select(&tried(&[addr("10.0.0.1:80").into(), addr("10.0.0.3:80").into()])).unwrap();
    [1, 2].into_iter().for_each(|index| set_healthy(&pool, index, false));

    // From a name to an address, and into another slot.
    pool.inner.listed(Ok(sockets(&[("10.0.0.4:80", 1), ("10.0.0.2:80", 1), ("10.0.0.3:80", 1)])));
    let all = [("10.0.0.1:80", true), ("10.0.0.4:80", true), ("10.0.0.2:80", false), ("10.0.0.3:80", false)];
    assert_eq!(states(&pool), expected(&all.map(|(server, healthy)| (server, healthy, false))));
    assert_eq!(pool.servers()[2].active, 1);

    // From the file to the configuration, by a reload.
    let moved = Origin { servers: sockets(&[("10.0.0.3:80", 5)]), ..settings };
    let after = Pool::from_previous(Arc::new(moved), &pool);
    let all = [("10.0.0.3:80", false), ("10.0.0.4:80", true), ("10.0.0.2:80", false)];
    assert_eq!(states(&after), expected(&all.map(|(server, healthy)| (server, healthy, false))));
    assert_eq!(after.servers()[2].active, 1);
    drop(in_flight);
    assert_eq!(after.servers()[2].active, 0);
}

#[test]
fn a_request_in_flight_goes_on_as_its_server_leaves() {
    let pool = Pool::new(Arc::new(watched(&[], "list")));
    pool.inner.listed(Ok(sockets(&[("10.0.0.1:80", 1)])));
    let in_flight = pool.select(&Ask::default()).unwrap();
    pool.inner.listed(Ok(sockets(&[("10.0.0.2:80", 1)])));
    assert_eq!(in_flight.endpoint(), &addr("10.0.0.1:80").into());
    drop(in_flight);
    assert_eq!(shares(&pool, 2), [("10.0.0.2:80".to_owned(), 2)].into());
}

#[test]
fn a_server_that_is_verified_by_another_name_is_another_server() {
    let tls = OriginTls { verify: true, ca: None, sni: None, certificate: None, min_version: TlsVersion::Tls12 };
    let plain = checked(watched(&[], "list"), HealthCheckKind::Tcp);
    for (settings, kept) in [
        (plain.clone(), true),
        (Origin { tls: Some(tls.clone()), http: OriginHttp::Http1, ..plain.clone() }, false),
        (Origin { tls: Some(OriginTls { sni: Some("o.test".to_owned()), ..tls }), ..plain }, true),
    ] {
        let pool = Pool::new(Arc::new(settings));
        pool.inner.listed(Ok(sockets(&[("10.0.0.1:80", 1)])));
        set_healthy(&pool, 0, false);
        pool.inner.listed(Ok(vec![named("a.test")]));
        resolve_to(&pool, 1, &["10.0.0.1"]);
        assert_eq!(pool.servers()[0].healthy, !kept);
    }
}

#[test]
fn srv_records_say_weights_and_tiers() {
    let pool = Pool::new(Arc::new(service(1)));
    pool.inner.resolved(0, Some(&targets(&[("a.test", 1, 3, 0), ("b.test", 2, 1, 0), ("c.test", 3, 7, 1)])));
    let servers: Vec<_> =
        pool.servers().into_iter().map(|server| (server.server, server.weight, server.tier)).collect();
    let all = [("a.test:80", 3, 0), ("b.test:80", 1, 0), ("c.test:80", 7, 1)];
    assert_eq!(servers, all.map(|(server, weight, tier)| (server.to_owned(), weight, tier)));
    // With weight 0 in the configuration, none takes anything.
    let drained = Pool::from_previous(Arc::new(service(0)), &pool);
    assert!(drained.servers().iter().all(|server| server.weight == 0) && nobody_takes(&drained));
    // And where the name says that nobody offers the service, nobody does.
    pool.inner.resolved(0, Some(&targets(&[])));
    assert!(nobody_takes(&pool));
    assert_eq!(states(&pool), expected(&[("srv:_http._tcp.test", false, false)]));
}

#[test]
fn a_drain_outlives_the_server() {
    let pool = Pool::new(Arc::new(service(1)));
    let both = targets(&[("a.test", 1, 1, 0), ("b.test", 2, 1, 0)]);
    pool.inner.resolved(0, Some(&both));
    assert!(pool.set_drained("b.test:80", true));
    pool.inner.resolved(0, Some(&targets(&[("a.test", 1, 1, 0)])));
    assert!(!pool.set_drained("c.test:80", true));
    // Elsewhere by now, but it is the same server to the operator. A reload does not change that.
    let moved = targets(&[("a.test", 1, 1, 0), ("b.test", 3, 1, 0)]);
    pool.inner.resolved(0, Some(&moved));
    let after = Pool::from_previous(Arc::new(Origin { retries: 9, ..service(1) }), &pool);
    for pool in [&pool, &after] {
        assert_eq!(states(pool), expected(&[("10.0.0.1:80", true, false), ("10.0.0.3:80", true, true)]));
    }
    assert!(after.set_drained("srv:_http._tcp.test", true));
    assert!(nobody_takes(&after));
    assert!(after.set_drained("srv:_http._tcp.test", false));
    assert!(states(&after).iter().all(|(.., drained)| !drained));
}

#[test]
fn a_server_of_the_file_is_drained_while_it_is_away() {
    let pool = Pool::new(Arc::new(watched(&[("10.0.0.1:80", 1)], "list")));
    pool.inner.listed(Ok(sockets(&[("10.0.0.2:80", 1)])));
    assert!(pool.set_drained("10.0.0.2:80", true));
    pool.inner.listed(Ok(Vec::new()));
    pool.inner.listed(Ok(sockets(&[("10.0.0.2:80", 1)])));
    assert_eq!(states(&pool), expected(&[("10.0.0.1:80", true, false), ("10.0.0.2:80", true, true)]));
    pool.inner.listed(Ok(Vec::new()));
    assert!(pool.set_drained("10.0.0.2:80", false));
    pool.inner.listed(Ok(sockets(&[("10.0.0.2:80", 1)])));
    assert_eq!(shares(&pool, 2).len(), 2);
}

#[tokio::test]
async fn a_pool_is_ready_when_the_file_and_its_names_are() {
    let list = Listing::new("[\"localhost:9003\", \"10.0.0.1:80\"]");
    let pool = Pool::new(Arc::new(watched(&[], &list.0)));
    pool.start(&Handle::current());
    pool.ready().await;
    assert_eq!(states(&pool), expected(&[("127.0.0.1:9003", true, false), ("10.0.0.1:80", true, false)]));
}

#[tokio::test]
async fn a_file_that_is_missing_keeps_nobody_waiting() {
    let pool = Pool::new(Arc::new(watched(&[("10.0.0.1:80", 1)], "/nonexistent/list")));
    pool.start(&Handle::current());
    pool.ready().await;
    assert!(pool.last_error().is_some_and(|error| error.starts_with("servers_file /nonexistent/list: cannot be read")));
    assert_eq!(shares(&pool, 1).len(), 1);
}

#[tokio::test]
async fn names_and_checks_follow_the_list() {
    let pool = Pool::new(Arc::new(checked(watched(&[], "/nonexistent/list"), HealthCheckKind::Tcp)));
    pool.start(&Handle::current());
    pool.ready().await;
    let running = || pool.inner.tasks().as_ref().unwrap().counts();
    assert_eq!(running(), (0, 0));
    let mut servers = sockets(&[("127.0.0.1:1", 1)]);
    servers.extend([named("a.invalid."), named("b.invalid.")]);
    pool.inner.listed(Ok(servers.clone()));
    assert_eq!(running(), (2, 1));
    servers.remove(1);
    pool.inner.listed(Ok(servers));
    assert_eq!(running(), (1, 1));
    pool.inner.listed(Ok(Vec::new()));
    assert_eq!(running(), (0, 0));
}

#[tokio::test]
async fn a_change_of_the_file_is_followed() {
    let list = Listing::new("- 10.0.0.1:80\n");
    let pool = Pool::new(Arc::new(watched(&[], &list.0)));
    pool.start(&Handle::current());
    pool.ready().await;
    std::fs::write(&list.0, "- 10.0.0.1:80\n- 10.0.0.2:80\n").unwrap();
    until(|| pool.servers().len() == 2).await;
}
