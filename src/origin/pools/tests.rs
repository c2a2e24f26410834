use std::time::Duration;

use super::*;
use crate::config::model::{
    HealthCheck, HealthCheckKind, Http2Limits, HttpProbe, Limits, MemoryTier, Overload, Server, ServerAddress,
};
use crate::origin::pool::Ask;

/// Addresses and weights.
pub(in crate::origin) type SocketServers<'a> = &'a [(&'a str, usize)];

pub(in crate::origin) fn origin(name: &str, servers: SocketServers<'_>) -> Origin {
    let server = |(addr, weight): &(&str, usize)| Server {
        address: ServerAddress::Socket(addr.parse().unwrap()),
        weight: *weight,
        tier: 0,
    };
    Origin::plain(name, servers.iter().map(server).collect())
}

pub(in crate::origin) fn named_origin(name: &str, host: &str, port: u16) -> Origin {
    let address = ServerAddress::Name { host: host.to_owned(), port };
    Origin { servers: vec![Server { address, weight: 1, tier: 0 }], ..origin(name, &[]) }
}

/// Waits for a condition; fails the test if it does not come true.
pub(in crate::origin) async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the condition never came true");
}

fn config(origins: Vec<Origin>) -> Config {
    Config {
        source: None,
        hash: String::new(),
        threads: 1,
        drain: Duration::ZERO,
        pid_file: None,
        upgrade_socket: None,
        trusted_proxies: Vec::new(),
        listeners: Vec::new(),
        admin: None,
        access_log: None,
        memory: MemoryTier { size: 0, max_object: 0 },
        disks: Vec::new(),
        background_fetches: 1,
        limits: Limits {
            header_count: 0,
            header_size: 0,
            uri_length: 0,
            body_size: None,
            idle_timeout: Duration::ZERO,
            header_timeout: Duration::ZERO,
            body_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
            connections: 0,
            connections_per_address: None,
            body_min_rate: None,
            send_min_rate: None,
            http2: Http2Limits { streams: 0, resets: 0, control_frames: 0 },
        },
        overload: Overload { requests: None, delay: None, memory: None, retry_after: Duration::ZERO },
        geo: Default::default(),
        session_ticket_secrets: Vec::new(),
        keys: Vec::new(),
        origins: origins.into_iter().map(Arc::new).collect(),
        sites: Vec::new(),
        warnings: Vec::new(),
        places: Default::default(),
    }
}

fn checked_by(mut origin: Origin, kind: HealthCheckKind) -> Origin {
    origin.health_check = Some(HealthCheck {
        kind,
        tls: true,
        interval: Duration::from_millis(1),
        interval_down: Duration::from_millis(1),
        jitter: 10,
        timeout: Duration::from_secs(5),
        healthy_after: 1,
        unhealthy_after: 1,
    });
    origin
}

#[test]
fn an_unchanged_origin_keeps_its_pool() {
    let servers: SocketServers<'_> = &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)];
    let before = Pools::new(&config(vec![origin("a", servers), origin("b", servers)]), None);
    before.set_drained("a", "10.0.0.1:80", true).unwrap();
    before.set_drained("b", "10.0.0.1:80", true).unwrap();

    let changed = Origin { retries: 5, ..origin("a", servers) };
    let after = Pools::new(&config(vec![origin("c", servers), origin("b", servers), changed]), Some(&before));
    let [a, b] = [0, 1].map(|index| before.get(index).unwrap());
    let [new_c, new_b, new_a] = [0, 1, 2].map(|index| after.get(index).unwrap());
    assert!(Arc::ptr_eq(b, new_b) && !Arc::ptr_eq(a, new_a));
    assert_eq!(new_a.origin().retries, 5);
    assert!(new_a.servers()[0].drained, "a drain is kept over a reload");
    assert!(!new_c.servers()[0].drained);
    assert!(after.get(3).is_none());
}

#[tokio::test]
async fn the_checks_of_an_earlier_configuration_stop() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let accepting = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let servers: SocketServers<'_> = &[(&addr, 1)];

    // Nothing ever answers the path, so the first configuration finds the server unhealthy.
    let http = HealthCheckKind::Http(HttpProbe::get("/"));
    let before = Pools::new(&config(vec![checked_by(origin("a", servers), http)]), None);
    before.start(&Handle::current(), None);
    until(|| !before.servers()[0].healthy).await;

    let after = Pools::new(&config(vec![checked_by(origin("a", servers), HealthCheckKind::Tcp)]), Some(&before));
    assert!(!after.servers()[0].healthy, "the state is carried over");
    after.start(&Handle::current(), Some(&before));
    assert!(!before.get(0).unwrap().is_running() && after.get(0).unwrap().is_running());
    until(|| after.servers()[0].healthy).await;
    accepting.abort();
}

#[tokio::test]
async fn ready_waits_for_all_names() {
    let pools = Pools::new(&config(vec![named_origin("a", "localhost", 1), named_origin("b", "localhost", 2)]), None);
    pools.start(&Handle::current(), None);
    pools.ready().await;
    assert!(pools.iter().all(|pool| pool.select(&Ask::default()).is_ok()));
}

#[test]
fn the_status_says_all_about_each_server() {
    let pools =
        Pools::new(&config(vec![origin("a", &[("10.0.0.1:80", 3)]), named_origin("b", "origin.test", 81)]), None);
    let _chosen = pools.get(0).unwrap().select(&Ask::default()).unwrap();
    pools.set_drained("a", "10.0.0.1:80", true).unwrap();
    let status = pools.status();
    let since = |origin: usize| status["origins"][origin]["servers"][0]["since"].clone();
    let expected = json!({ "origins": [
        { "name": "a", "last_error": null, "servers": [{
            "server": "10.0.0.1:80", "address": "10.0.0.1:80", "weight": 3, "tier": 0, "state": "drained",
            "reason": "by the operator", "since": since(0), "healthy": true, "drained": true, "active": 1,
            "transitions": 0, "ejections": 0, "ejected_until": null, "last_error": null,
        }] },
        { "name": "b", "last_error": null, "servers": [{
            "server": "origin.test:81", "address": null, "weight": 1, "tier": 0, "state": "unresolved",
            "reason": "no answer yet", "since": since(1), "healthy": false, "drained": false, "active": 0,
            "transitions": 0, "ejections": 0, "ejected_until": null, "last_error": null,
        }] },
    ] });
    assert_eq!(status, expected);
    for origin in [0, 1] {
        let since = since(origin);
        assert!(since.as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')), "{since}");
    }
}

#[test]
fn what_cannot_be_drained_is_said() {
    let pools = Pools::new(&config(vec![origin("a", &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)])]), None);
    assert_eq!(pools.set_drained("b", "10.0.0.1:80", true), Err("there is no origin `b`".to_owned()));
    assert_eq!(
        pools.set_drained("a", "10.0.0.9:80", true),
        Err("origin `a` has no server `10.0.0.9:80`; it has 10.0.0.1:80, 10.0.0.2:80".to_owned())
    );
}
