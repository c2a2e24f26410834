//! TLS towards servers: who is believed, who is shown what, and what is said of failures.

use rcgen::date_time_ymd;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::pki::{ALL_TLS, Authority, ONLY_TLS_1_2};
use super::tls_front::{TlsFront, cutting};
use super::{before, detail, yaml};
use crate::harness::{Ask, Edge, End, Origin, Reply, exchange, within};

async fn hello() -> Origin {
    Origin::start(|r| Reply::ok(format!("hello {}", r.target))).await
}

#[tokio::test]
async fn a_certificate_of_the_own_authority_is_believed() {
    let (authority, origin) = (Authority::new(), hello().await);
    let front = TlsFront::start(authority.issue("127.0.0.1").server(&[]), &origin).await;
    let edge = before(&front.address(), &format!("tls: {{ ca: {} }}", authority.ca())).await;
    assert_eq!(edge.get("/a").await.text(), "hello /a");
    let body = vec![b'x'; 300_000];
    origin.answer(|r| Reply::ok(r.body.clone()));
    assert_eq!(edge.ask(&Ask::new("PUT", "/").body(body.clone())).await.body, body);
    assert_eq!(front.greetings().len(), 1, "the connection is kept: {:?}", front.greetings());
    assert_eq!(front.greetings()[0].sni, None, "an address is not asked for by name");
    assert_eq!(front.greetings()[0].alpn, None);
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_in_words_and_a_502() {
    let (authority, other, origin) = (Authority::new(), Authority::new(), hello().await);
    let expired = authority.issue_as("127.0.0.1", |p| {
        (p.not_before, p.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
    });
    let early = authority.issue_as("127.0.0.1", |p| {
        (p.not_before, p.not_after) = (date_time_ymd(3000, 1, 1), date_time_ymd(3001, 1, 1));
    });
    let ca = format!("ca: {}", authority.ca());
    let cases = [
        (expired.server(&[]), ca.clone(), "certificate expired"),
        (early.server(&[]), ca.clone(), "certificate not valid yet"),
        (authority.issue("wrong.test").server(&[]), ca.clone(), "not valid for name 127.0.0.1, but for"),
        (other.issue("127.0.0.1").server(&[]), ca.clone(), "unknown issuer"),
        (authority.issue("127.0.0.1").server(&[]), String::new(), "unknown issuer"),
        (
            authority.issue("127.0.0.1").server_as(&[], ONLY_TLS_1_2, None),
            format!("{ca}, min_version: \"1.3\""),
            "no version of TLS that is allowed",
        ),
        (
            authority.issue("127.0.0.1").server_as(&[], ALL_TLS, Some(&authority)),
            ca.clone(),
            "requires a client certificate",
        ),
        (
            authority.issue("127.0.0.1").server_as(&[], ONLY_TLS_1_2, Some(&authority)),
            format!("{ca}, {}", other.client("stranger")),
            "refused the client certificate",
        ),
    ];
    for (config, settings, words) in cases {
        let front = TlsFront::start(config, &origin).await;
        let edge = before(&front.address(), &format!("tls: {{ {settings} }}, retries: 0")).await;
        let response = edge.ask(&Ask::new("POST", "/").body("x")).await;
        assert_eq!(response.status, 502, "{words}");
        let detail = detail(&edge).await;
        assert!(detail.contains(words), "{words}: the detail is {detail:?}");
        let metrics = edge.metrics().await;
        assert_eq!(metrics.sum("foreland_origin_failures_total", &[("kind", "tls")]), 1.0, "{words}: {detail}");
    }
    assert_eq!(origin.count(), 0, "nothing was sent to a server that is not believed");
}

#[tokio::test]
async fn without_verification_any_certificate_will_do() {
    let (authority, origin) = (Authority::new(), hello().await);
    let expired = authority.issue_as("wrong.test", |p| {
        (p.not_before, p.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
    });
    for versions in [ALL_TLS, ONLY_TLS_1_2] {
        let front = TlsFront::start(expired.server_as(&[], versions, None), &origin).await;
        let edge = before(&front.address(), "tls: { verify: false }").await;
        assert_eq!(edge.get("/a").await.text(), "hello /a");
        assert!(edge.log().contains("not verified"), "it is warned of: {}", edge.log());
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks() {
    let (authority, origin) = (Authority::new(), hello().await);
    for versions in [ALL_TLS, ONLY_TLS_1_2] {
        let config = authority.issue("127.0.0.1").server_as(&[], versions, Some(&authority));
        let front = TlsFront::start(config, &origin).await;
        let settings = format!("tls: {{ ca: {}, {} }}", authority.ca(), authority.client("edge"));
        let edge = before(&front.address(), &settings).await;
        assert_eq!(edge.get("/a").await.text(), "hello /a");
        assert_eq!(front.greetings()[0].certificates, 1);
    }
}

#[tokio::test]
async fn the_name_is_sni_or_host_or_the_servers_own() {
    let (authority, origin) = (Authority::new(), hello().await);
    let ca = authority.ca();
    for (certificate, settings, sni) in [
        ("app.test", format!("tls: {{ ca: {ca}, sni: app.test }}"), "app.test"),
        ("app.test", format!("tls: {{ ca: {ca}, sni: app.test }}, host: www.test"), "app.test"),
        ("www.test", format!("tls: {{ ca: {ca} }}, host: www.test"), "www.test"),
        ("www.test", format!("tls: {{ ca: {ca} }}, host: \"www.test:8443\""), "www.test"),
        ("localhost", format!("tls: {{ ca: {ca} }}"), "localhost"),
        ("localhost", format!("tls: {{ ca: {ca} }}, host: server"), "localhost"),
    ] {
        let front = TlsFront::start(authority.issue(certificate).server(&[]), &origin).await;
        let server = format!("localhost:{}", front.port());
        let edge = before(&server, &settings).await;
        let response = edge.get("/a").await;
        assert_eq!(response.status, 200, "{settings}: {}", edge.log());
        assert_eq!(front.greetings()[0].sni.as_deref(), Some(sni), "{settings}");
    }
}

#[tokio::test]
async fn a_session_is_resumed_where_a_connection_is_not_kept() {
    let (authority, origin) = (Authority::new(), hello().await);
    let front = TlsFront::start(authority.issue("127.0.0.1").server(&[]), &origin).await;
    let edge = before(&front.address(), &format!("tls: {{ ca: {} }}, keepalive: 0", authority.ca())).await;
    for _ in 0..4 {
        assert_eq!(edge.get("/a").await.status, 200);
        front.wait_for_open(0).await;
    }
    let resumed: Vec<_> = front.greetings().iter().map(|g| g.resumed).collect();
    assert_eq!(resumed.len(), 4);
    assert!(resumed[1..].iter().all(|r| *r), "{resumed:?}");
}

#[tokio::test]
async fn an_answer_until_the_end_that_tls_does_not_end_is_cut() {
    let authority = Authority::new();
    for (answer, whole) in [
        (&b"HTTP/1.1 200 OK\r\n\r\nhalf of"[..], false),
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf of"[..], false),
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nhalf of"[..], true),
        (&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"[..], false),
    ] {
        let address = cutting(authority.issue("127.0.0.1").server(&[]), answer).await;
        let edge = before(&address.to_string(), &format!("tls: {{ ca: {} }}", authority.ca())).await;
        let response = edge.get("/").await;
        assert_eq!((response.status, response.end == End::Clean), (200, whole), "{}", String::from_utf8_lossy(answer));
    }
}

/// Upgrades, and echoes what comes then.
async fn echo(front_config: rustls::ServerConfig, settings: &str) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let answer =
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nwelcome";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let front = TlsFront::before(front_config, address);
    let edge = before(&front.address(), settings).await;
    let mut client = tokio::net::TcpStream::connect(edge.address()).await.unwrap();
    client
        .write_all(b"GET /ws HTTP/1.1\r\nHost: edge.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"welcome") {
        got.push(within("the answer", client.read_u8()).await.unwrap());
    }
    assert!(got.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&got));
    let piece: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    for _ in 0..10 {
        let mut echoed = vec![0; piece.len()];
        let (mut read, mut write) = client.split();
        let both = async { tokio::join!(write.write_all(&piece), read.read_exact(&mut echoed)) };
        let (sent, came) = within("an echo", both).await;
        assert!(sent.is_ok() && came.is_ok() && echoed == piece);
    }
    assert_eq!(front.greetings().last().unwrap().alpn.as_deref(), Some("http/1.1"));
    drop(client);
    front.wait_for_open(0).await;
}

#[tokio::test]
async fn upgrades_go_over_tls_and_never_over_http2() {
    let authority = Authority::new();
    for alpn in [&["http/1.1"][..], &["h2", "http/1.1"][..]] {
        let config = authority.issue("127.0.0.1").server(alpn);
        echo(config, &format!("tls: {{ ca: {} }}", authority.ca())).await;
    }
}

#[tokio::test]
async fn a_reload_changes_tls_under_load_and_nobody_notices() {
    let (first, second, origin) = (Authority::new(), Authority::new(), hello().await);
    let (one, two) = (
        TlsFront::start(first.issue("127.0.0.1").server(&[]), &origin).await,
        TlsFront::start(second.issue("127.0.0.1").server(&[]), &origin).await,
    );
    // Both servers change their authority at once; the edge trusts both in between.
    let both = format!("{}{}", read(&first), read(&second));
    let bundle = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bundle-{}.pem", std::process::id()));
    std::fs::write(&bundle, both).unwrap();
    let settings = |more: &str| format!("tls: {{ ca: \"{}\"{more} }}", bundle.display());
    let servers = [one.address(), two.address()];
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    let edge = Edge::start(&yaml(&servers, &settings(""))).await;
    let stop = tokio::sync::watch::Sender::new(false);
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let (address, stopped) = (edge.address(), stop.subscribe());
        clients.spawn(async move {
            let mut asked = 0;
            while !*stopped.borrow() {
                let response = exchange(address, &Ask::new("POST", "/").body("x")).await;
                assert_eq!(response.status, 200, "{response:?}");
                asked += 1;
            }
            asked
        });
    }
    let mut reloads = 0.0;
    for more in [", min_version: \"1.3\"".to_owned(), format!(", {}", first.client("edge")), String::new()] {
        for _ in 0..3 {
            origin.wait_for(origin.count() + 40).await;
            edge.write_config(&yaml(&servers, &settings(&more)));
            edge.signal(Signal::HUP);
            reloads += 1.0;
            edge.wait_metrics("the reload", |m| m.sum("foreland_config_reloads_total", &[("result", "ok")]) == reloads)
                .await;
        }
    }
    origin.wait_for(origin.count() + 40).await;
    stop.send_replace(true);
    let asked: usize = within("the clients", clients.join_all()).await.into_iter().sum();
    assert!(asked > 200, "{asked}");
    let metrics = edge.metrics().await;
    assert_eq!(metrics.sum("foreland_origin_failures_total", &[]), 0.0);
    // Of what was made by earlier settings, nothing is left.
    let kept = one.greetings().len() + two.greetings().len();
    assert!(kept < asked / 2, "{kept} connections for {asked} requests");
    let _ = std::fs::remove_file(bundle);
}

fn read(authority: &Authority) -> String {
    std::fs::read_to_string(authority.ca().trim_matches('"')).unwrap()
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up() {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap();
    let edge = before(&address.to_string(), "tls: { verify: false }, connect_timeout: 200ms, retries: 0").await;
    let response = edge.get("/").await;
    assert_eq!(response.status, 504);
    assert!(detail(&edge).await.contains("TLS with"), "{}", detail(&edge).await);
}

#[tokio::test]
async fn a_server_without_tls_is_told_of() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    let edge = before(&address.to_string(), "tls: { verify: false }, retries: 0").await;
    assert_eq!(edge.get("/").await.status, 502);
    assert!(detail(&edge).await.contains("TLS with"), "{}", detail(&edge).await);
}

#[tokio::test]
async fn a_probe_tells_what_is_wrong_with_a_certificate() {
    let (authority, origin) = (Authority::new(), hello().await);
    let front = TlsFront::start(authority.issue("wrong.test").server(&[]), &origin).await;
    let settings = format!("tls: {{ ca: {} }}, health_check: {{ interval: 100ms, timeout: 100ms }}", authority.ca());
    let edge = before(&front.address(), &settings).await;
    edge.wait_log("not valid for name 127.0.0.1").await;
    let origins = edge.admin_get("/v1/origins").await.json();
    let error = origins["origins"][0]["servers"][0]["last_error"].as_str().unwrap_or_default();
    assert!(error.contains("not valid for name 127.0.0.1"), "{origins}");
}
