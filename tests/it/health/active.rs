use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::super::harness::{Origin, Reply, Request, eventually};
use super::{pool, told, wait_state};

/// How often probes come in these tests, and how few of them decide.
const SOON: &str = "interval: 300ms, timeout: 300ms, healthy_after: 1, unhealthy_after: 2";

fn is_probe(request: &Request) -> bool {
    request.path() == "/healthz"
}

#[tokio::test]
async fn a_body_must_have_what_is_wanted() {
    let well = Arc::new(AtomicBool::new(true));
    let switch = well.clone();
    let origin = Origin::start(move |_| match switch.load(Ordering::Relaxed) {
        true => Reply::ok("queue: 3\nstatus: well\n"),
        false => Reply::ok("queue: 900\nstatus: degraded\n"),
    })
    .await;
    let check = format!("health_check: {{ path: /healthz, expect_body: \"status: well\", {SOON} }}");
    let edge = pool(&[&origin], &[&check, "panic_below: 0%"]).await;
    origin.wait_for(3).await;
    assert_eq!(told(&edge, 0).await["state"], "healthy");

    well.store(false, Ordering::Relaxed);
    let server = wait_state(&edge, 0, "unhealthy").await;
    assert_eq!(server["reason"], "the body does not contain \"status: well\"");
    assert_eq!((&server["healthy"], &server["last_error"]), (&false.into(), &server["reason"]));
    let since = server["since"].as_str().expect("a time").to_owned();
    assert!(since.ends_with('Z') && since.contains('T'), "{since}");
    assert_eq!(edge.get("/").await.status, 503);
    edge.wait_log("is unhealthy after 2 failed checks: the body does not contain").await;

    well.store(true, Ordering::Relaxed);
    let server = wait_state(&edge, 0, "healthy").await;
    assert_eq!((&server["reason"], &server["transitions"]), (&serde_json::Value::Null, &2.into()));
    assert!(server["since"].as_str().is_some_and(|later| later >= since.as_str()), "{server}");
    edge.wait_log("is healthy again").await;
}

#[tokio::test]
async fn a_status_must_be_within_the_ranges() {
    let status = Arc::new(AtomicU16::new(401));
    let said = status.clone();
    let origin = Origin::start(move |_| Reply::new(said.load(Ordering::Relaxed))).await;
    let check = format!("health_check: {{ path: /healthz, expect_status: [204, 400-404], {SOON} }}");
    let edge = pool(&[&origin], &[&check]).await;
    origin.wait_for(3).await;
    assert_eq!(told(&edge, 0).await["state"], "healthy");
    for (code, state) in [(200, "unhealthy"), (204, "healthy"), (405, "unhealthy"), (404, "healthy")] {
        status.store(code, Ordering::Relaxed);
        let server = wait_state(&edge, 0, state).await;
        if state == "unhealthy" {
            assert_eq!(server["reason"], format!("status {code}"));
        }
    }
}

#[tokio::test]
async fn a_probe_is_sent_as_it_is_configured() {
    let origin = Origin::start(|_| Reply::ok("well")).await;
    let check = format!(
        "health_check: {{ path: \"/healthz?deep=1\", method: HEAD, host: probe.test, \
         headers: {{ X-Probe: edge, User-Agent: monitor }}, {SOON} }}"
    );
    let edge = pool(&[&origin], &[&check]).await;
    for request in origin.wait_for(3).await {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("HEAD", "/healthz?deep=1"));
        assert_eq!(request.header("Host"), Some("probe.test"));
        assert_eq!((request.header("X-Probe"), request.header("User-Agent")), (Some("edge"), Some("monitor")));
        assert_eq!(request.header("Connection"), Some("close"));
    }
    assert_eq!(told(&edge, 0).await["state"], "healthy");
    // Each over a connection of its own.
    let seen = origin.seen();
    assert!(seen.iter().enumerate().all(|(number, request)| request.connection == number), "{seen:?}");
}

#[tokio::test]
async fn an_unhealthy_server_has_an_interval_of_its_own() {
    let well = Arc::new(AtomicBool::new(false));
    let switch = well.clone();
    let first = Origin::start(move |_| Reply::new(if switch.load(Ordering::Relaxed) { 200 } else { 500 })).await;
    let second = Origin::start(|_| Reply::new(500)).await;
    // Healthy servers are as good as not checked again.
    let check = "health_check: { path: /healthz, interval: 1h, interval_down: 200ms, jitter: 50%, \
                 timeout: 200ms, healthy_after: 1, unhealthy_after: 1 }";
    let edge = pool(&[&first, &second], &[check]).await;
    first.wait_for(4).await;
    well.store(true, Ordering::Relaxed);
    wait_state(&edge, 0, "healthy").await;
    let probes = first.count();
    second.wait_for(second.count() + 5).await;
    assert_eq!(first.count(), probes, "the next probe is an hour away");
}

#[tokio::test]
async fn a_silent_server_is_unhealthy_after_the_timeout() {
    let origin = Origin::start(|request| if is_probe(request) { Reply::never() } else { Reply::ok("x") }).await;
    let check = "health_check: { path: /healthz, interval: 20ms, timeout: 20ms, unhealthy_after: 2 }";
    let edge = pool(&[&origin], &[check]).await;
    assert_eq!(wait_state(&edge, 0, "unhealthy").await["reason"], "no answer within 20ms");
}

/// A server of grpc.health.v1 that answers with the serving status that it is told.
async fn grpc_server(serving: Arc<AtomicU8>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let addr = listener.local_addr().expect("an address");
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serving = serving.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let mut response = Response::new(());
                    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
                    let body = Bytes::from(vec![0, 0, 0, 0, 2, 8, serving.load(Ordering::Relaxed)]);
                    let ok = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
                    // A client that has gone is of no matter here.
                    let Ok(mut stream) = respond.send_response(response, false) else { continue };
                    let _ = stream.send_data(body, false);
                    let _ = stream.send_trailers(HeaderMap::from_iter([ok]));
                }
            });
        }
    });
    (addr, server)
}

#[tokio::test]
async fn a_grpc_server_says_whether_it_serves() {
    let serving = Arc::new(AtomicU8::new(1));
    let (addr, server) = grpc_server(serving.clone()).await;
    let yaml = format!(
        "origins:\n  o:\n    servers: [\"{addr}\"]\n    health_check: {{ grpc: shop, {SOON} }}\n\
         sites:\n  - {{ hosts: [\"*\"], origin: o, cache: off }}\n"
    );
    let edge = super::super::harness::Edge::start(&yaml).await;
    eventually("a first word", async || told(&edge, 0).await["state"] == "healthy").await;
    serving.store(2, Ordering::Relaxed);
    assert_eq!(wait_state(&edge, 0, "unhealthy").await["reason"], "NOT_SERVING");
    serving.store(1, Ordering::Relaxed);
    assert_eq!(wait_state(&edge, 0, "healthy").await["transitions"], 2);
    server.abort();
}

#[tokio::test]
async fn a_probe_may_be_plain_where_the_origin_speaks_tls() {
    let origin = Origin::start(|_| Reply::ok("well")).await;
    let check = format!("health_check: {{ path: /healthz, tls: off, {SOON} }}");
    let edge = pool(&[&origin], &["tls: on", &check]).await;
    origin.wait_for(3).await;
    assert_eq!(told(&edge, 0).await["state"], "healthy");

    let check = format!("health_check: {{ path: /healthz, {SOON} }}");
    let edge = pool(&[&origin], &["tls: on", &check]).await;
    let server = wait_state(&edge, 0, "unhealthy").await;
    assert!(server["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{server}");
}
