use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::super::harness::{Edge, Origin, Reply};
use super::{pool, told, wait_state};

/// A server that answers with the status that it is told.
async fn server(status: u16) -> (Origin, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let said = status.clone();
    (Origin::start(move |_| Reply::new(said.load(Ordering::Relaxed))).await, status)
}

/// How many of so many requests are answered with 200.
async fn good(edge: &Edge, requests: usize) -> usize {
    let mut good = 0;
    for _ in 0..requests {
        good += usize::from(edge.get("/").await.status == 200);
    }
    good
}

async fn states(edge: &Edge) -> Vec<String> {
    let json = edge.admin_get("/v1/origins").await.json();
    let servers = json["origins"][0]["servers"].as_array().expect("servers").clone();
    servers.iter().map(|server| server["state"].as_str().expect("a word").to_owned()).collect()
}

#[tokio::test]
async fn five_failures_in_a_row_eject_a_server() {
    let ((a, _), (b, _)) = (server(200).await, server(502).await);
    let edge = pool(&[&a, &b], &["outliers: { ejection_time: 1h, max_ejection_time: 1h }"]).await;
    assert_eq!(good(&edge, 8).await, 4);
    assert_eq!(states(&edge).await, ["healthy", "healthy"]);
    assert_eq!(good(&edge, 2).await, 1);
    let out = wait_state(&edge, 1, "ejected").await;
    assert_eq!(out["reason"], "5 failures in a row, the last: status 502");
    assert_eq!((&out["ejections"], &out["healthy"], &out["drained"]), (&1.into(), &true.into(), &false.into()));
    let (since, until) = (out["since"].as_str().expect("a time"), out["ejected_until"].as_str().expect("a time"));
    assert!(since < until, "{out}");
    edge.wait_log("is ejected for 1h: 5 failures in a row, the last: status 502").await;

    let before = b.count();
    assert_eq!(good(&edge, 10).await, 10);
    assert_eq!(b.count(), before);
    // A reload that changes the origin knows it still.
    let yaml = std::fs::read_to_string(edge.config_path()).expect("the configuration");
    edge.write_config(&yaml.replace("outliers:", "connect_timeout: 7s\n    outliers:"));
    assert_eq!(edge.admin_post("/v1/reload", "").await.status, 200);
    assert_eq!(good(&edge, 4).await, 4);
    assert_eq!(states(&edge).await, ["healthy", "ejected"]);
}

#[tokio::test]
async fn half_of_the_servers_stay_though_all_fail() {
    let ((a, _), (b, _)) = (server(503).await, server(503).await);
    let edge = pool(&[&a, &b], &["outliers: { ejection_time: 1h, max_ejection_time: 1h }"]).await;
    assert_eq!(good(&edge, 30).await, 0);
    let mut states = states(&edge).await;
    states.sort();
    assert_eq!(states, ["ejected", "healthy"]);
    assert_eq!(a.count() + b.count(), 30, "each request has been sent to a server");
}

#[tokio::test]
async fn an_ejected_server_comes_back() {
    let ((a, _), (b, status)) = (server(200).await, server(502).await);
    let edge = pool(&[&a, &b], &["outliers: { consecutive_failures: 2, ejection_time: 1s }"]).await;
    assert_eq!(good(&edge, 4).await, 2);
    // It may be over by now.
    assert_eq!(told(&edge, 1).await["ejections"], 1);
    status.store(200, Ordering::Relaxed);
    let back = wait_state(&edge, 1, "healthy").await;
    assert!(back["reason"].is_null() && back["ejected_until"].is_null(), "{back}");
    edge.wait_log("is no longer ejected").await;
    let before = b.count();
    assert_eq!(good(&edge, 4).await, 4);
    assert_eq!(b.count(), before + 2);
}

#[tokio::test]
async fn what_counts_as_a_failure_can_be_said() {
    let ((a, _), (b, status)) = (server(200).await, server(502).await);
    let settings = "outliers: { failure_statuses: [500, 505-511], ejection_time: 1h, max_ejection_time: 1h }";
    let edge = pool(&[&a, &b], &[settings]).await;
    assert_eq!(good(&edge, 20).await, 10);
    assert_eq!(states(&edge).await, ["healthy", "healthy"]);
    status.store(507, Ordering::Relaxed);
    assert_eq!(good(&edge, 10).await, 5);
    let out = wait_state(&edge, 1, "ejected").await;
    assert_eq!(out["reason"], "5 failures in a row, the last: status 507");
}

#[tokio::test]
async fn a_rate_of_failures_ejects_a_server() {
    let (a, _) = server(200).await;
    let b = Origin::start(|request| Reply::new(if request.path() == "/bad" { 503 } else { 200 })).await;
    let settings = "outliers: { consecutive_failures: off, failure_rate: 50%, min_requests: 8, window: 10m, \
                    ejection_time: 1h, max_ejection_time: 1h }";
    let edge = pool(&[&a, &b], &[settings]).await;
    // Every other request is for the second server.
    for target in ["/bad", "/bad", "/good", "/good", "/bad", "/bad", "/good", "/good"] {
        edge.get(target).await;
        assert_eq!(states(&edge).await, ["healthy", "healthy"]);
    }
    for target in ["/bad", "/bad", "/good", "/good", "/bad", "/bad", "/bad", "/bad"] {
        edge.get(target).await;
    }
    let out = wait_state(&edge, 1, "ejected").await;
    assert_eq!(out["reason"], "5 failures of 8 requests within 10m, the last: status 503");
}

#[tokio::test]
async fn a_server_that_is_gone_is_ejected_and_no_request_fails() {
    let ((a, _), (mut b, _)) = (server(200).await, server(200).await);
    let edge = pool(&[&a, &b], &["outliers: { ejection_time: 1h, max_ejection_time: 1h }"]).await;
    assert_eq!(good(&edge, 4).await, 4);
    b.stop().await;
    assert_eq!(good(&edge, 12).await, 12);
    let out = wait_state(&edge, 1, "ejected").await;
    assert!(out["reason"].as_str().is_some_and(|reason| reason.starts_with("5 failures in a row")), "{out}");
}

#[tokio::test]
async fn nobody_is_ejected_where_that_is_off() {
    let ((a, _), (b, _)) = (server(200).await, server(502).await);
    let edge = pool(&[&a, &b], &["outliers: off"]).await;
    assert_eq!(good(&edge, 30).await, 15);
    assert_eq!(states(&edge).await, ["healthy", "healthy"]);
}
