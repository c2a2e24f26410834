//! What comes by TLS, and what does not: redirects, HSTS, certificates of clients, and objects of each.

use std::time::Instant;

use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::access::mmdb_writer::{Value, text, write};
use super::harness::{
    Ask, Authority, Connection, Edge, EdgeBuilder, Identity, Origin, Reply, Request, TlsClient, eventually, within,
};

/// `{port}` plain, `{h2c}` plain with HTTP/2, `{tls}` with a certificate for `edge.test` and further lines of its TLS.
fn listeners(tls: &str) -> String {
    let tls: String = tls.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "listeners:\n  - address: 127.0.0.1:{{port}}\n  - {{ address: \"127.0.0.1:{{h2c}}\", h2c: true }}\n  \
         - address: 127.0.0.1:{{tls}}\n    tls:\n      certificates: [{{ certificate: a.pem, key: a.key }}]\n{tls}"
    )
}

fn builder(authority: &Authority, yaml: &str) -> EdgeBuilder {
    Edge::builder(yaml).identity("a", &authority.issue(&["edge.test"])).file("ca.pem", authority.pem())
}

async fn edge(authority: &Authority, origin: &Origin, top: &str, site: &str) -> Edge {
    builder(authority, &(top.to_owned() + &listeners("") + &Edge::yaml_before(&[origin], site))).start().await
}

async fn origin() -> Origin {
    Origin::start(|request| {
        Reply::ok(request.header("X-Forwarded-Proto").unwrap_or("none").to_owned())
            .cache_control("max-age=600")
            .header("ETag", "\"one\"")
            .header("Strict-Transport-Security", "max-age=1")
    })
    .await
}

#[tokio::test]
async fn who_comes_without_tls_is_sent_to_it() {
    let (origin, authority) = (origin().await, Authority::new("ca"));
    let edge = edge(&authority, &origin, "", "https: redirect").await;
    let port = edge.tls_address().port();
    let to = |target: &str| format!("https://edge.test:{port}{target}");
    for (ask, status, location) in [
        (Ask::get("/a?b=c&d=%2f"), 301, to("/a?b=c&d=%2f")),
        (Ask::head("/a"), 301, to("/a")),
        (Ask::new("POST", "/a").body("x"), 308, to("/a")),
        (Ask::new("DELETE", "/a"), 308, to("/a")),
        (Ask::get("/a").host("EDGE.test:8080"), 301, to("/a")),
        (Ask::get("//evil.test/%2e%2e/"), 301, to("//evil.test/%2e%2e/")),
        (Ask::get("/a/../b?"), 301, to("/a/../b?")),
        (Ask::get("http://edge.test/x?y"), 301, to("/x?y")),
        (Ask::get("http://edge.test?y"), 301, to("/?y")),
        (Ask::new("OPTIONS", "*"), 308, to("")),
    ] {
        let answer = edge.ask(&ask).await;
        assert_eq!((answer.status, answer.header("Location")), (status, Some(&*location)), "{ask:?}");
        // RFC 6797 §7.2: not in the clear.
        assert_eq!(answer.header("Strict-Transport-Security"), None);
    }
    let h2 = edge.connect_h2().await;
    for (ask, status) in [(Ask::get("/a?b"), 301), (Ask::new("POST", "/a?b").body("x"), 308)] {
        let answer = h2.ask(&ask).await;
        assert_eq!((answer.status, answer.header("Location")), (status, Some(&*to("/a?b"))), "{ask:?}");
    }
    assert_eq!(origin.count(), 0);
    let client = TlsClient::new(&authority, "edge.test");
    assert_eq!(client.open(edge.tls_address()).await.ask(&Ask::get("/a")).await.text(), "https");
    // The hit is not for others either.
    assert_eq!(edge.get("/a").await.status, 301);
    assert_eq!(client.open_h2(edge.tls_address()).await.ask(&Ask::get("/a")).await.text(), "https");
}

#[tokio::test]
async fn where_tls_is_required_nothing_else_is_served() {
    let (origin, authority) = (origin().await, Authority::new("ca"));
    let site = "https: required\nroutes:\n  - { match: { path: \"/open/**\" }, https: optional }\n";
    let edge = edge(&authority, &origin, "trusted_proxies: [127.0.0.2/32]\n", site).await;
    for ask in [Ask::get("/a"), Ask::new("POST", "/a").body("x"), Ask::get("/a").header("X-Forwarded-Proto", "https")] {
        let answer = edge.ask(&ask).await;
        assert_eq!((answer.status, answer.header("Location")), (403, None), "{ask:?}");
        assert_eq!(edge.connect_h2().await.ask(&ask).await.status, 403, "{ask:?}");
    }
    assert_eq!((edge.get("/open/a").await.status, origin.count()), (200, 1));
    let client = TlsClient::new(&authority, "edge.test");
    assert_eq!(client.open(edge.tls_address()).await.ask(&Ask::get("/a")).await.status, 200);
}

#[tokio::test]
async fn a_trusted_proxy_may_say_that_it_has_ended_tls() {
    let (origin, authority) = (origin().await, Authority::new("ca"));
    let edge = edge(&authority, &origin, "trusted_proxies: [127.0.0.0/8]\n", "https: redirect\nhsts: on").await;
    let saying = |proto: &str| Ask::get("/a").header("X-Forwarded-For", "192.0.2.1").header("X-Forwarded-Proto", proto);
    let answer = edge.ask(&saying("https")).await;
    assert_eq!((answer.status, answer.header("Strict-Transport-Security")), (200, Some("max-age=31536000")));
    assert_eq!(edge.ask(&saying("http")).await.status, 301);
    assert_eq!(edge.get("/a").await.status, 301);
    // What it says of its client counts, however it comes itself.
    let client = TlsClient::new(&authority, "edge.test");
    assert_eq!(client.open(edge.tls_address()).await.ask(&saying("http")).await.status, 301);
}

#[tokio::test]
async fn hsts_is_on_whatever_is_said_over_tls_and_only_there() {
    let (mut origin, authority) = (origin().await, Authority::new("ca"));
    let site = "hsts: { max_age: 1d, include_subdomains: true }\naccess: { deny_paths: [\"/denied/**\"] }\nroutes:\n  \
                - { match: { path: \"/limited/**\" }, rate_limit: { rate: 1/d, burst: 1 } }\n  \
                - { match: { path: \"/off/**\" }, hsts: off }\n";
    let edge = edge(&authority, &origin, "", site).await;
    let client = TlsClient::new(&authority, "edge.test");
    let (mut h1, h2) = (client.open(edge.tls_address()).await, client.open_h2(edge.tls_address()).await);
    let asks = [
        (Ask::get("/a"), 200),
        (Ask::get("/a"), 200),
        (Ask::head("/a"), 200),
        (Ask::get("/a").header("Range", "bytes=0-1"), 206),
        (Ask::get("/a").header("If-None-Match", "\"one\""), 304),
        (Ask::new("POST", "/a").body("x"), 200),
        (Ask::get("/denied/a"), 403),
        (Ask::get("/limited/a"), 0),
        (Ask::get("/limited/a"), 429),
    ];
    let expected = ["max-age=86400; includeSubDomains"];
    for (ask, status) in &asks {
        for answer in [h1.ask(ask).await, h2.ask(ask).await] {
            assert!(*status == 0 || answer.status == *status, "{ask:?}: {answer:?}");
            assert_eq!(answer.headers.all("Strict-Transport-Security"), expected, "{ask:?}: {answer:?}");
        }
    }
    for answer in [edge.get("/a").await, edge.get("/a").await, edge.get("/denied/a").await] {
        assert_eq!(answer.header("Strict-Transport-Security"), None, "{answer:?}");
    }
    assert_eq!(h1.ask(&Ask::get("/off/a")).await.headers.all("Strict-Transport-Security"), ["max-age=1"]);
    // What has been stored with the origin's, under other settings.
    edge.write_config(&(listeners("") + &Edge::yaml_before(&[&origin], "hsts: on")));
    edge.signal(rustix::process::Signal::HUP);
    edge.wait_log("reloaded").await;
    for answer in [h1.ask(&Ask::get("/off/a")).await, h2.ask(&Ask::get("/off/a")).await] {
        assert!(answer.is_hit(), "{answer:?}");
        assert_eq!(answer.headers.all("Strict-Transport-Security"), ["max-age=31536000"], "{answer:?}");
    }
    origin.stop().await;
    for answer in [h1.ask(&Ask::get("/lost")).await, h2.ask(&Ask::get("/lost")).await] {
        assert_eq!(answer.status, 502);
        assert_eq!(answer.headers.all("Strict-Transport-Security"), ["max-age=31536000"], "{answer:?}");
    }
}

#[tokio::test]
async fn each_scheme_has_its_own_objects_and_a_purge_is_of_both() {
    let (origin, authority) = (origin().await, Authority::new("ca"));
    let edge = edge(&authority, &origin, "", "purge: { from: [127.0.0.0/8] }").await;
    let client = TlsClient::new(&authority, "edge.test");
    let mut secure = client.open(edge.tls_address()).await;
    for (n, scheme) in [(1, "http"), (2, "https")] {
        let purges = [("/v1/purge", format!("{{\"urls\": [\"{scheme}://edge.test/a\"]}}")), ("", scheme.to_owned())];
        for (m, (api, what)) in purges.iter().enumerate() {
            for _ in 0..2 {
                assert_eq!((edge.get("/a").await.text(), secure.ask(&Ask::get("/a")).await.text()), ("http", "https"));
            }
            assert!(edge.get("/a").await.is_hit() && secure.ask(&Ask::get("/a")).await.is_hit());
            assert_eq!(origin.count(), 2 * (2 * (n - 1) + m + 1));
            let purged = match (*api, &**what) {
                ("", "http") => edge.ask(&Ask::new("PURGE", "/a")).await,
                ("", _) => secure.ask(&Ask::new("PURGE", "/a")).await,
                (api, what) => edge.admin_post(api, what).await,
            };
            assert_eq!(purged.status, 200, "{purged:?}");
        }
    }
    assert!(!edge.get("/a").await.is_hit() && !secure.ask(&Ask::get("/a")).await.is_hit());
}

const CLIENT_AUTH: &str = "client_auth: { mode: optional, ca: ca.pem, identity_header: X-Client }";

/// What the origin says that it was told of the client.
async fn telling() -> Origin {
    Origin::start(|request: &Request| {
        let said = |name: &str| request.headers.all(name).join("|");
        Reply::ok(format!("{};{}", said("X-Client"), said("Client-Cert")))
    })
    .await
}

fn certificate_field(identity: &Identity) -> String {
    use base64::Engine;
    let der = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("PEM");
    format!(":{}:", base64::engine::general_purpose::STANDARD.encode(&der))
}

#[tokio::test]
async fn the_origin_is_told_of_a_clients_certificate_and_of_nothing_made_up() {
    let (origin, authority) = (telling().await, Authority::new("ca"));
    let yaml = listeners(CLIENT_AUTH) + &Edge::yaml_before(&[&origin], "");
    let edge = builder(&authority, &yaml).start().await;
    let alice = authority.issue(&["alice.test", "second.test"]);
    let expected = format!("alice.test;{}", certificate_field(&alice));
    let lying =
        Ask::get("/a").header("X-Client", "root.test").header("Client-Cert", ":AAAA:").header("x-client", "root.test");
    let client = TlsClient::identified(&authority, "edge.test", &alice);
    // The second time by a session that is resumed.
    for _ in 0..2 {
        let mut h1 = client.open(edge.tls_address()).await;
        assert_eq!(h1.ask(&Ask::get("/a")).await.text(), expected);
        assert_eq!(h1.ask(&lying).await.text(), expected);
        let h2 = client.open_h2(edge.tls_address()).await;
        assert_eq!(h2.ask(&lying).await.text(), expected);
    }
    let nobody = TlsClient::new(&authority, "edge.test");
    assert_eq!(nobody.open(edge.tls_address()).await.ask(&lying).await.text(), ";");
    assert_eq!(nobody.open_h2(edge.tls_address()).await.ask(&lying).await.text(), ";");
    // On the plain listeners neither, with either version.
    assert_eq!(edge.ask(&lying).await.text(), ";");
    assert_eq!(edge.connect_h2().await.ask(&lying).await.text(), ";");
    let log = edge.access_log_lines(10).await;
    assert_eq!(log.iter().filter(|line| line["identity"] == "alice.test").count(), 6, "{log:?}");
}

#[tokio::test]
async fn a_resumed_session_has_the_certificate_it_began_with() {
    let (origin, authority) = (telling().await, Authority::new("ca"));
    let yaml = listeners(CLIENT_AUTH) + &Edge::yaml_before(&[&origin], "access: { identities: [\"*.staff.test\"] }");
    let edge = builder(&authority, &yaml).start().await;
    let client = TlsClient::identified(&authority, "edge.test", &authority.issue(&["eve.staff.test"]));
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut stream = client.stream(edge.tls_address()).await;
        let kind = stream.get_ref().1.handshake_kind();
        stream.write_all(b"GET /k HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut response = Vec::new();
        within("a response", stream.read_to_end(&mut response)).await.unwrap();
        let response = String::from_utf8_lossy(&response);
        assert!(response.starts_with("HTTP/1.1 200") && response.contains("eve.staff.test;:"), "{response}");
        // With a group that the first flight did not have, a handshake is full with one more round.
        assert_eq!(kind == Some(HandshakeKind::Resumed), expected == HandshakeKind::Resumed, "{kind:?}");
    }
}

#[tokio::test]
async fn identities_choose_routes_let_in_and_are_counted_by() {
    let (origin, authority) =
        (Origin::start(|r| Reply::ok(r.path().to_owned()).cache_control("max-age=60")).await, Authority::new("ca"));
    let site = "routes:\n  \
                - { name: staff, match: { path: \"/by/**\", identities: [\"*.staff.test\"] } }\n  \
                - { match: { path: \"/staff/**\" }, access: { identities: [\"*.staff.test\"] } }\n  \
                - { match: { path: \"/limited/**\" }, rate_limit: { key: identity, rate: 1/d, burst: 1 } }\n";
    let yaml = listeners(CLIENT_AUTH) + &Edge::yaml_before(&[&origin], site);
    let edge = builder(&authority, &yaml).start().await;
    let client = |name: &str| TlsClient::identified(&authority, "edge.test", &authority.issue(&[name]));
    let (eve, bob, guest) = (client("eve.staff.test"), client("bob.staff.test"), client("guest.test"));
    let nobody = TlsClient::new(&authority, "edge.test");
    let mut hits = Vec::new();
    for client in [&eve, &bob, &guest, &nobody] {
        let mut h1 = client.open(edge.tls_address()).await;
        let h2 = client.open_h2(edge.tls_address()).await;
        // Staff has objects of its own, and the others have theirs.
        hits.push(h1.ask(&Ask::get("/by/a")).await.is_hit());
        let staff = h1.ask(&Ask::get("/staff/a")).await.status;
        assert_eq!(staff, h2.ask(&Ask::get("/staff/a")).await.status);
        hits.push(staff == 200);
        assert_eq!(h1.ask(&Ask::get("/limited/a")).await.status, 200);
        assert_eq!(h2.ask(&Ask::get("/limited/a")).await.status, 429);
    }
    assert_eq!(hits, [false, true, true, true, false, false, true, false]);
    assert_eq!(edge.get("/staff/a").await.status, 403);
}

#[tokio::test]
async fn a_certificate_of_nobody_known_is_refused_and_none_where_it_is_required() {
    let (origin, authority, foreign) = (telling().await, Authority::new("ca"), Authority::new("other"));
    for (mode, none) in [("optional", true), ("required", false)] {
        let auth = CLIENT_AUTH.replace("optional", mode);
        let yaml = listeners(&auth) + &Edge::yaml_before(&[&origin], "");
        let edge = builder(&authority, &yaml).start().await;
        let served = async |client: TlsClient| {
            let Ok(mut stream) = client.try_stream(edge.tls_address()).await else { return false };
            if stream.write_all(b"GET / HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n").await.is_err() {
                return false;
            }
            let mut response = Vec::new();
            let _ = within("an end", stream.read_to_end(&mut response)).await;
            response.starts_with(b"HTTP/1.1 200")
        };
        assert_eq!(served(TlsClient::new(&authority, "edge.test")).await, none, "{mode}");
        let known = authority.issue(&["alice.test"]);
        assert!(served(TlsClient::identified(&authority, "edge.test", &known)).await, "{mode}");
        let unknown = foreign.issue(&["alice.test"]);
        assert!(!served(TlsClient::identified(&authority, "edge.test", &unknown)).await, "{mode}");
    }
    assert!(origin.seen().iter().all(|request| request.path() == "/"));
}

#[tokio::test]
async fn tls_behind_the_proxy_protocol_and_limits_by_the_address_it_tells() {
    let (origin, authority) = (origin().await, Authority::new("ca"));
    let listeners = "listeners:\n  - address: 127.0.0.1:{port}\n  - address: 127.0.0.1:{tls}\n    \
                     proxy_protocol: [127.0.0.0/8]\n    tls:\n      certificates: [{ certificate: a.pem, key: a.key }]\n";
    let site = "rate_limit: { key: client-ip, rate: 2/d, burst: 2 }\naccess: { deny: [198.51.100.0/24] }";
    let yaml = listeners.to_owned() + &Edge::yaml_before(&[&origin], site);
    let edge = builder(&authority, &yaml).start().await;
    let client = TlsClient::new(&authority, "edge.test");
    let told = async |address: &str, h2: bool| {
        let mut stream = TcpStream::connect(edge.tls_address()).await.unwrap();
        stream.write_all(format!("PROXY TCP4 {address} 192.0.2.200 50000 443\r\n").as_bytes()).await.unwrap();
        if h2 {
            let stream = client.alpn(&["h2"]).over(stream).await.unwrap();
            let h2 = super::harness::H2Connection::over(stream, &h2::client::Builder::new()).await;
            return h2.ask(&Ask::get("/a")).await.status;
        }
        Connection::over_any(client.over(stream).await.unwrap()).ask(&Ask::get("/a")).await.status
    };
    assert_eq!((told("192.0.2.1", false).await, told("192.0.2.1", true).await), (200, 200));
    assert_eq!((told("192.0.2.1", false).await, told("192.0.2.1", true).await), (429, 429));
    assert_eq!(told("192.0.2.2", true).await, 200);
    assert_eq!(told("198.51.100.2", false).await, 403);
    let log = edge.access_log_lines(6).await;
    assert_eq!(log.iter().filter(|line| line["client"] == "192.0.2.1").count(), 4, "{log:?}");
}

#[tokio::test]
async fn connections_are_limited_by_the_address_that_a_proxy_tells() {
    let (origin, authority) = (origin().await, Authority::new("ca"));
    let listeners = "limits: { connections_per_address: 2 }\nlisteners:\n  - address: 127.0.0.1:{port}\n  \
                     - { address: \"127.0.0.1:{h2c}\", proxy_protocol: [127.0.0.0/8] }\n";
    let yaml = listeners.to_owned() + &Edge::yaml_before(&[&origin], "");
    let edge = builder(&authority, &yaml).start().await;
    let open = async |address: &str| {
        let mut connection = Connection::open(edge.h2c_address()).await;
        let header = format!("PROXY TCP4 {address} 192.0.2.200 50000 80\r\n").into_bytes();
        let _ = connection.try_send([header, Ask::get("/a").bytes()].concat()).await;
        let answer = connection.try_head("GET").await;
        let status = answer.as_ref().map(|answer| answer.status);
        if let Some(answer) = answer {
            connection.rest(answer).await;
        }
        (connection, status)
    };
    let (one, two) = (open("192.0.2.1").await, open("192.0.2.1").await);
    assert_eq!((one.1, two.1), (Some(200), Some(200)));
    assert_ne!(open("192.0.2.1").await.1, Some(200));
    assert_eq!(open("192.0.2.2").await.1, Some(200));
    drop(one);
    eventually("a place", async || open("192.0.2.1").await.1 == Some(200)).await;
}

#[tokio::test]
async fn countries_choose_routes_and_objects() {
    let origin =
        Origin::start(|request| Reply::ok(request.headers.all("X-Country").join("|")).cache_control("max-age=600"))
            .await;
    let geo = "geo: { country: \"{dir}/geo.mmdb\", country_header: X-Country }\ntrusted_proxies: [127.0.0.0/8]\n";
    let site = "routes:\n  - { name: nordic, match: { countries: [SE, NO] } }\n";
    let record = |code: &'static str| Value::Map(vec![("country", Value::Map(vec![("iso_code", text(code))]))]);
    let database = write(24, &[("192.0.2.0/25", record("SE")), ("192.0.2.128/25", record("DE"))]);
    let yaml = geo.to_owned() + &Edge::yaml_before(&[&origin], site);
    let edge = Edge::builder(&yaml).file("geo.mmdb", database).start().await;
    let from = |address: &str| Ask::get("/a").header("X-Forwarded-For", address).header("X-Country", "NO");
    for (address, country, hit) in [
        ("192.0.2.1", "SE", false),
        ("192.0.2.2", "SE", true),
        ("192.0.2.129", "DE", false),
        ("198.51.100.1", "DE", true),
    ] {
        let answer = edge.ask(&from(address)).await;
        assert_eq!((answer.text(), answer.is_hit()), (country, hit), "{address}");
    }
    let log = edge.access_log_lines(4).await;
    let of = |address: &str| log.iter().find(|line| line["client"] == address).map(|line| line["country"].clone());
    assert_eq!((of("192.0.2.1"), of("192.0.2.129")), (Some("SE".into()), Some("DE".into())));
    assert!(of("198.51.100.1").is_some_and(|country| country.is_null()));
}

#[tokio::test]
async fn a_response_leaves_no_faster_over_tls() {
    const MIB: usize = 1024 * 1024;
    for cached in ["max-age=600", "no-store"] {
        let origin = Origin::start(move |_| Reply::ok(vec![b'z'; MIB]).cache_control(cached)).await;
        let authority = Authority::new("ca");
        // Half a MiB leaves at once, and the other half in a quarter of a second.
        let edge = edge(&authority, &origin, "", "bandwidth: { rate: 2MiB/s, after: 512KiB }").await;
        let client = TlsClient::new(&authority, "edge.test");
        for which in ["first", "second"] {
            let mut h1 = client.open(edge.tls_address()).await;
            let began = Instant::now();
            assert_eq!(h1.ask(&Ask::get("/a")).await.body.len(), MIB);
            assert!(began.elapsed().as_millis() >= 100, "{cached}, the {which}: {:?}", began.elapsed());
            let h2 = client.open_h2(edge.tls_address()).await;
            let began = Instant::now();
            assert_eq!(h2.ask(&Ask::get("/a")).await.body.len(), MIB);
            assert!(began.elapsed().as_millis() >= 100, "{cached}, the {which}, HTTP/2: {:?}", began.elapsed());
        }
    }
}
