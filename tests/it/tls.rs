//! TLS towards clients: certificates, versions, sessions, reloads, upgrades.

use std::time::Duration;

use rustix::process::Signal;
use rustls::HandshakeKind;
use rustls::crypto::aws_lc_rs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Ask, Authority, Connection, Edge, EdgeBuilder, H2Connection, Identity, Origin, Reply, TlsClient, eventually, within,
};

/// A listener with TLS in front of an origin, which says what it is asked.
async fn echo() -> Origin {
    Origin::start(|request| {
        let proto = request.header("X-Forwarded-Proto").unwrap_or("none").to_owned();
        Reply::ok(format!("{} {proto}", request.path())).cache_control("max-age=60")
    })
    .await
}

/// `tls` is what the listener says of TLS, indented as below it.
fn yaml(origin: &Origin, tls: &str) -> String {
    let tls: String = tls.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "listeners:\n  - address: 127.0.0.1:{{port}}\n  - address: 127.0.0.1:{{tls}}\n    tls:\n{tls}{}",
        Edge::yaml_before(&[origin], "")
    )
}

const ONE: &str = "certificates: [{ certificate: a.pem, key: a.key }]";

fn edge(origin: &Origin, tls: &str, identities: &[(&str, &Identity)]) -> EdgeBuilder {
    let builder = Edge::builder(&yaml(origin, tls));
    identities.iter().fold(builder, |builder, (name, identity)| builder.identity(name, identity))
}

/// The names in the certificate that a client is shown.
async fn shown(client: &TlsClient, edge: &Edge) -> Vec<u8> {
    let stream = client.stream(edge.tls_address()).await;
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec()
}

fn der(identity: &Identity) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap().to_vec()
}

#[tokio::test]
async fn requests_are_served_over_both_versions_of_http() {
    let (origin, authority) = (echo().await, Authority::new("ca"));
    let edge = edge(&origin, ONE, &[("a", &authority.issue(&["edge.test"]))]).start().await;
    let client = TlsClient::new(&authority, "edge.test");
    let mut connection = client.open(edge.tls_address()).await;
    assert_eq!(connection.ask(&Ask::get("/a")).await.text(), "/a https");
    let hit = connection.ask(&Ask::get("/a")).await;
    assert!(hit.is_hit());
    assert_eq!(hit.text(), "/a https");
    // The origin answers by what it is told of the client's way, so http has its own.
    assert_eq!(edge.get("/a").await.text(), "/a http");
    let h2 = client.open_h2(edge.tls_address()).await;
    let hit = h2.ask(&Ask::get("/a")).await;
    assert!(hit.is_hit());
    assert_eq!(hit.text(), "/a https");
    assert_eq!(h2.ask(&Ask::get("/b")).await.text(), "/b https");
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn large_bodies_pass_whole_both_ways() {
    let body: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let sent = body.clone();
    let origin = Origin::start(move |request| {
        if request.method == "POST" {
            return Reply::ok(format!("{}", request.body.len()));
        }
        Reply::ok(sent.clone()).cache_control("max-age=60")
    })
    .await;
    let authority = Authority::new("ca");
    let site = Edge::yaml_before(&[&origin], "");
    for cache in [
        "cache: { memory: { max_object: 8MiB } }\n",
        "cache: { disk: { path: \"{dir}/cache\", size: 64MiB }, memory: { max_object: 64KiB } }\n",
    ] {
        let yaml = format!(
            "{cache}listeners:\n  - address: 127.0.0.1:{{port}}\n  - address: 127.0.0.1:{{tls}}\n    tls:\n      {ONE}\n{site}"
        );
        let edge = Edge::builder(&yaml).identity("a", &authority.issue(&["edge.test"])).start().await;
        let client = TlsClient::new(&authority, "edge.test");
        let mut connection = client.open(edge.tls_address()).await;
        for _ in 0..3 {
            assert_eq!(connection.ask(&Ask::get("/large")).await.body, body);
        }
        assert!(connection.ask(&Ask::get("/large")).await.is_hit());
        let part = connection.ask(&Ask::get("/large").header("Range", "bytes=1000000-1999999")).await;
        assert_eq!((part.status, &part.body[..]), (206, &body[1_000_000..2_000_000]));
        assert_eq!(client.open_h2(edge.tls_address()).await.ask(&Ask::get("/large")).await.body, body);
        let post = Ask::new("POST", "/up").body(body.clone());
        assert_eq!(connection.ask(&post).await.text(), "3000000");
    }
}

#[tokio::test]
async fn certificates_are_chosen_by_name_and_by_what_the_client_can_verify() {
    let (origin, authority) = (echo().await, Authority::new("ca"));
    let a = authority.issue(&["a.test"]);
    let wild = authority.issue(&["*.wild.test", "wild.test"]);
    let (both_ec, both_rsa) = (authority.issue(&["both.test"]), authority.issue_rsa(&["both.test"]));
    let tls = "certificates:\n  - { certificate: a.pem, key: a.key }\n  - { certificate: w.pem, key: w.key }\n  \
               - { certificate: r.pem, key: r.key }\n  - { certificate: e.pem, key: e.key }";
    let identities = [("a", &a), ("w", &wild), ("r", &both_rsa), ("e", &both_ec)];
    let edge = edge(&origin, tls, &identities).start().await;
    let client = |name: &str| TlsClient::new(&authority, name);
    assert_eq!(shown(&client("a.test"), &edge).await, der(&a));
    assert_eq!(shown(&client("A.Test"), &edge).await, der(&a));
    assert_eq!(shown(&client("x.wild.test"), &edge).await, der(&wild));
    assert_eq!(shown(&client("wild.test"), &edge).await, der(&wild));
    assert_eq!(shown(&client("both.test"), &edge).await, der(&both_ec), "the quicker of two that do");
    // A client without ECDSA.
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite().as_str().is_some_and(|name| name.contains("_RSA_")));
    let old = TlsClient::limited(&authority, "both.test", &[&rustls::version::TLS12], provider);
    assert_eq!(shown(&old, &edge).await, der(&both_rsa));
    // A wildcard stands for one label: the first certificate is shown, which is not for this name.
    let deep = client("x.y.wild.test").try_stream(edge.tls_address()).await.unwrap_err();
    assert!(deep.to_string().contains("not valid for name"), "{deep}");
    assert_eq!(shown(&client("a.test").nameless(), &edge).await, der(&a), "the first where no name is said");
}

#[tokio::test]
async fn an_unknown_name_can_be_refused() {
    let (origin, authority) = (echo().await, Authority::new("ca"));
    let tls = format!("{ONE}\nunknown_sni: refuse");
    let edge = edge(&origin, &tls, &[("a", &authority.issue(&["a.test"]))]).start().await;
    assert_eq!(
        TlsClient::new(&authority, "a.test").open(edge.tls_address()).await.ask(&Ask::get("/")).await.status,
        200
    );
    for client in [TlsClient::new(&authority, "b.test"), TlsClient::new(&authority, "a.test").nameless()] {
        let refused = client.try_stream(edge.tls_address()).await.unwrap_err();
        assert!(refused.to_string().contains("UnrecognisedName"), "{refused}");
    }
    edge.wait_metrics("two refusals", |m| {
        m.metric(r#"foreland_tls_handshake_failures_total{reason="unknown_name"}"#) == Some(2.0)
    })
    .await;
}

#[tokio::test]
async fn versions_and_key_exchange() {
    let (origin, authority) = (echo().await, Authority::new("ca"));
    let identity = authority.issue(&["edge.test"]);
    let both = edge(&origin, ONE, &[("a", &identity)]).start().await;
    let old = |provider| TlsClient::limited(&authority, "edge.test", &[&rustls::version::TLS12], provider);
    let stream = old(aws_lc_rs::default_provider()).stream(both.tls_address()).await;
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let stream = TlsClient::new(&authority, "edge.test").stream(both.tls_address()).await;
    let session = stream.get_ref().1;
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let group = session.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(rustls::NamedGroup::X25519MLKEM768), "post-quantum where the client has it");
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    assert_eq!(suite, Some(rustls::CipherSuite::TLS13_AES_256_GCM_SHA384), "the client's first");
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !suite.suite().as_str().unwrap().contains("CHACHA20"));
    let mobile = TlsClient::limited(&authority, "edge.test", rustls::ALL_VERSIONS, provider);
    let stream = mobile.stream(both.tls_address()).await;
    let suite = stream.get_ref().1.negotiated_cipher_suite().map(|suite| suite.suite());
    assert_eq!(suite, Some(rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256));
    let strict = edge(&origin, &format!("{ONE}\nmin_version: \"1.3\""), &[("a", &identity)]).start().await;
    let refused = old(aws_lc_rs::default_provider()).try_stream(strict.tls_address()).await.unwrap_err();
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
}

/// How the handshake of one more connection went.
async fn kind(client: &TlsClient, address: std::net::SocketAddr) -> Option<HandshakeKind> {
    let mut stream = client.stream(address).await;
    let kind = stream.get_ref().1.handshake_kind();
    // The tickets come with, or after, the response.
    stream.write_all(b"GET /k HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut response = Vec::new();
    within("a response", stream.read_to_end(&mut response)).await.unwrap();
    assert!(response.starts_with(b"HTTP/1.1 200"));
    kind
}

#[tokio::test]
async fn sessions_are_resumed_across_a_reload_and_an_upgrade() {
    let (origin, authority) = (echo().await, Authority::new("ca"));
    let identity = authority.issue(&["edge.test"]);
    let upgradable = |tls: &str| format!("upgrade_socket: \"{{dir}}/upgrade\"\n{}", yaml(&origin, tls));
    let old = Edge::builder(&upgradable(ONE)).identity("a", &identity).start().await;
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        let client = TlsClient::limited(&authority, "edge.test", versions, aws_lc_rs::default_provider());
        assert_eq!(kind(&client, old.tls_address()).await, Some(HandshakeKind::Full));
        assert_eq!(kind(&client, old.tls_address()).await, Some(HandshakeKind::Resumed));
    }
    let client = TlsClient::new(&authority, "edge.test");
    assert!(kind(&client, old.tls_address()).await != Some(HandshakeKind::Resumed));
    old.write_config(&upgradable(&format!("{ONE}\nhandshake_timeout: 5s")));
    old.signal(Signal::HUP);
    old.wait_log("reloaded").await;
    assert_eq!(kind(&client, old.tls_address()).await, Some(HandshakeKind::Resumed));
    let new = old.successor();
    old.signal(Signal::QUIT);
    old.wait_log("the new process serves").await;
    old.wait_log(&format!("no longer listening on {}", old.tls_address())).await;
    assert_eq!(kind(&client, new.tls_address()).await, Some(HandshakeKind::Resumed));
    new.wait_metrics("a resumption", |m| {
        m.metric(r#"foreland_tls_handshakes_total{version="TLSv1.3",kind="resumed"}"#) == Some(1.0)
    })
    .await;
    // A process that begins anew has another secret, and makes nothing of it.
    new.signal(Signal::TERM);
    assert!(new.wait_exit().await.success());
    let fresh = new.again();
    fresh.wait_ready().await;
    assert!(kind(&client, fresh.tls_address()).await != Some(HandshakeKind::Resumed));
}

#[tokio::test]
async fn edges_with_the_same_secret_resume_each_others_sessions() {
    let (origin, authority) = (echo().await, Authority::new("ca"));
    let identity = authority.issue(&["edge.test"]);
    let yaml = format!("session_ticket_secrets: [env:TICKETS]\n{}", yaml(&origin, ONE));
    let start = |secret: &str| Edge::builder(&yaml).identity("a", &identity).env("TICKETS", secret).start();
    let (one, two) = (start("0123456789abcdef0123456789abcdef").await, start("0123456789abcdef0123456789abcdef").await);
    let other = start("fedcba9876543210fedcba9876543210").await;
    let client = TlsClient::new(&authority, "edge.test");
    kind(&client, one.tls_address()).await;
    assert_eq!(kind(&client, two.tls_address()).await, Some(HandshakeKind::Resumed));
    assert!(kind(&client, other.tls_address()).await != Some(HandshakeKind::Resumed));
    let none = edge(&origin, &format!("{ONE}\nsession_tickets: false"), &[("a", &identity)]).start().await;
    let client = TlsClient::new(&authority, "edge.test");
    for _ in 0..2 {
        assert!(kind(&client, none.tls_address()).await != Some(HandshakeKind::Resumed));
    }
}

#[tokio::test]
async fn certificates_are_read_again_when_their_files_change() {
    let (origin, authority) = (echo().await, Authority::new("ca"));
    let [first, second, third] = [(); 3].map(|()| authority.issue(&["edge.test"]));
    let edge = edge(&origin, ONE, &[("a", &first)]).start().await;
    let client = TlsClient::new(&authority, "edge.test");
    let mut kept = client.open(edge.tls_address()).await;
    assert_eq!(kept.ask(&Ask::get("/")).await.status, 200);
    second.write(edge.folder(), "a");
    eventually("the second certificate", async || shown(&client, &edge).await == der(&second)).await;
    // One that does not belong to its key changes nothing, and is told of.
    std::fs::write(edge.folder().join("a.pem"), &third.certificate).unwrap();
    edge.wait_log("is not the key of").await;
    assert_eq!(shown(&client, &edge).await, der(&second));
    edge.wait_metrics("a failing file", |m| m.metric(r#"foreland_watched_files{state="failing"}"#) == Some(1.0)).await;
    std::fs::write(edge.folder().join("a.key"), &third.key).unwrap();
    eventually("the third certificate", async || shown(&client, &edge).await == der(&third)).await;
    // A reload reads them too.
    first.write(edge.folder(), "a");
    edge.signal(Signal::HUP);
    eventually("the first certificate", async || shown(&client, &edge).await == der(&first)).await;
    assert_eq!(kept.ask(&Ask::get("/")).await.status, 200, "the connection has outlived it all");
}

#[tokio::test]
async fn a_reload_adds_and_removes_certificates_and_turns_http2_off() {
    let (origin, authority) = (echo().await, Authority::new("ca"));
    let (a, b) = (authority.issue(&["a.test"]), authority.issue(&["b.test"]));
    let edge = edge(&origin, ONE, &[("a", &a), ("b", &b)]).start().await;
    let client = TlsClient::new(&authority, "b.test");
    assert!(client.try_stream(edge.tls_address()).await.is_err());
    let mut kept = TlsClient::new(&authority, "a.test").open(edge.tls_address()).await;
    let two = "certificates: [{ certificate: a.pem, key: a.key }, { certificate: b.pem, key: b.key }]\nh2: false";
    edge.write_config(&yaml(&origin, two));
    edge.signal(Signal::HUP);
    edge.wait_log("reloaded").await;
    let stream = client.alpn(&["h2", "http/1.1"]).stream(edge.tls_address()).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(kept.ask(&Ask::get("/")).await.status, 200);
    // A file that is wrong changes nothing.
    std::fs::write(edge.folder().join("c.pem"), "nonsense").unwrap();
    edge.write_config(&yaml(&origin, "certificates: [{ certificate: c.pem, key: a.key }]"));
    edge.signal(Signal::HUP);
    edge.wait_log("holds no certificate in PEM form").await;
    assert_eq!(shown(&client, &edge).await, der(&b));
}

#[tokio::test]
async fn the_end_of_a_certificate_is_a_metric() {
    let (origin, authority) = (echo().await, Authority::new("ca"));
    let edge = edge(&origin, ONE, &[("a", &authority.issue(&["edge.test", "www.edge.test"]))]).start().await;
    let file = edge.folder().join("a.pem");
    let series =
        format!(r#"foreland_certificate_expiry_timestamp_seconds{{file="{}",name="edge.test"}}"#, file.display());
    edge.wait_metrics("the end", |m| m.metric(&series).is_some_and(|end| end > 1.7e9)).await;
}

#[tokio::test]
async fn clients_that_do_not_shake_hands_are_ended() {
    let (origin, authority) = (echo().await, Authority::new("ca"));
    let tls = format!("{ONE}\nhandshake_timeout: 1s");
    let edge = edge(&origin, &tls, &[("a", &authority.issue(&["edge.test"]))]).start().await;
    // One that says nothing, and one that speaks in the clear.
    let mut silent = Connection::open(edge.tls_address()).await;
    let mut plain = Connection::open(edge.tls_address()).await;
    plain.send(b"GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n").await;
    let (_, said) = plain.closed().await;
    assert_eq!(said.first(), Some(&21), "an alert: {said:?}");
    assert_eq!(silent.closed().await.1, b"");
    edge.wait_metrics("both", |m| {
        let failed = |reason: &str| m.sum("foreland_tls_handshake_failures_total", &[("reason", reason)]);
        failed("timeout") == 1.0 && failed("protocol") == 1.0
    })
    .await;
    assert_eq!(
        TlsClient::new(&authority, "edge.test").open(edge.tls_address()).await.ask(&Ask::get("/")).await.status,
        200
    );
}

#[tokio::test]
async fn a_drain_ends_connections_in_good_order() {
    let (origin, authority) = (echo().await, Authority::new("ca"));
    let edge = edge(&origin, ONE, &[("a", &authority.issue(&["edge.test"]))]).start().await;
    let client = TlsClient::new(&authority, "edge.test");
    let mut idle = client.stream(edge.tls_address()).await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n").await.unwrap();
    let mut byte = [0; 1];
    idle.read_exact(&mut byte).await.unwrap();
    let h2: H2Connection = client.open_h2(edge.tls_address()).await;
    assert_eq!(h2.ask(&Ask::get("/")).await.status, 200);
    edge.signal(Signal::TERM);
    let mut rest = Vec::new();
    // Without close_notify, this would be an error.
    tokio::time::timeout(Duration::from_secs(10), idle.read_to_end(&mut rest))
        .await
        .expect("an end")
        .expect("a clean end");
    assert!(edge.wait_exit().await.success());
}

/// `handshake_timeout` holds whatever the others are, and the wait for a request begins behind the handshake.
#[tokio::test]
async fn a_handshake_may_take_longer_than_a_request_may_be_waited_for() {
    let (origin, authority) = (echo().await, Authority::new("ca"));
    let yaml = yaml(&origin, ONE) + "limits: { idle_timeout: 500ms }\n";
    let edge = Edge::builder(&yaml).identity("a", &authority.issue(&["edge.test"])).start().await;
    let stream = tokio::net::TcpStream::connect(edge.tls_address()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let stream = TlsClient::new(&authority, "edge.test").over(stream).await.unwrap();
    assert_eq!(Connection::over_any(stream).ask(&Ask::get("/")).await.status, 200);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_those_who_do_not_shake_hands() {
    let (origin, authority) = (echo().await, Authority::new("ca"));
    let edge = edge(&origin, &format!("{ONE}\nhandshake_timeout: 60s"), &[("a", &authority.issue(&["edge.test"]))]);
    let edge = edge.start().await;
    let mut silent = Connection::open(edge.tls_address()).await;
    edge.wait_metrics("the connection", |m| m.metric("foreland_client_connections_open") == Some(1.0)).await;
    edge.signal(Signal::TERM);
    assert_eq!(silent.closed().await.1, b"");
    assert!(edge.wait_exit().await.success());
}
