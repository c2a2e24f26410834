use std::net::SocketAddr;
use std::time::Duration;

use rcgen::date_time_ymd;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, UnixListener};

use super::*;
use crate::config::model::TlsVersion;
use crate::origin::wire::kit::{Authority, ONLY_TLS_1_2, ONLY_TLS_1_3, ServerTls, origin, serve, telling};
use crate::origin::wire::tls::refused_late;

async fn dial(origin: &Origin, address: SocketAddr, server: &str) -> Result<Dialed, WireError> {
    Dialer::new(origin).dial(&address.into(), server, None).await
}

/// What a server that tells has told.
async fn told(dialed: Dialed) -> String {
    let mut line = String::new();
    BufReader::new(dialed.io).read_line(&mut line).await.unwrap();
    line.trim_end().to_owned()
}

#[track_caller]
fn fails(dialed: Result<Dialed, WireError>, kind: FailureKind, text: &str) {
    let error = dialed.unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.why.contains(text), "{error}");
    assert!(error.untouched);
}

#[tokio::test]
async fn a_server_of_the_own_authority_is_asked_for_by_its_name() {
    let authority = Authority::new();
    let issued = authority.issue("origin.test");
    let address = telling(ServerTls::of(&issued).config()).await;
    let dialer = Dialer::new(&origin(Some(authority.trusted())));

    let first = dialer.dial(&address.into(), "origin.test:443", None).await.unwrap();
    assert_eq!(first.protocol, Protocol::H1);
    assert_eq!(first.io.peer(), Some(address));
    assert!(first.io.is_tls());
    assert_eq!(told(first).await, "origin.test - Some(Full)");

    // Sessions are resumed: one configuration serves all of an origin's connections.
    let second = dialer.dial(&address.into(), "origin.test:443", None).await.unwrap();
    assert_eq!(told(second).await, "origin.test - Some(Resumed)");
}

#[tokio::test]
async fn the_name_is_sni_then_the_fixed_host_then_the_servers() {
    let authority = Authority::new();
    let issued = authority.issue("origin.test");
    let address = telling(ServerTls::of(&issued).config()).await;

    let mut settings = origin(Some(authority.trusted()));
    settings.host = HostHeader::Fixed("origin.test:8443".to_owned());
    assert!(told(dial(&settings, address, "other.test:1").await.unwrap()).await.starts_with("origin.test "));

    settings.tls.as_mut().unwrap().sni = Some("another.test".to_owned());
    fails(
        dial(&settings, address, "origin.test:1").await,
        FailureKind::Tls,
        "certificate not valid for name another.test, but for ",
    );
}

#[tokio::test]
async fn an_address_is_verified_but_not_asked_for() {
    let authority = Authority::new();
    let issued = authority.issue("127.0.0.1");
    let address = telling(ServerTls::of(&issued).config()).await;
    let settings = origin(Some(authority.trusted()));

    assert_eq!(told(dial(&settings, address, &address.to_string()).await.unwrap()).await, "- - Some(Full)");
    fails(dial(&settings, address, "127.0.0.2:1").await, FailureKind::Tls, "not valid for name 127.0.0.2");
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_in_words() {
    let authority = Authority::new();
    let good = authority.issue("origin.test");
    let expired = authority.issue_as("origin.test", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let early = authority.issue_as("origin.test", |params| params.not_before = date_time_ymd(4000, 1, 1));
    let unknown = Authority::new().issue("origin.test");
    let cases = [
        (&expired, "origin.test:1", "certificate expired"),
        (&early, "origin.test:1", "certificate not valid yet"),
        (&unknown, "origin.test:1", "certificate of an unknown issuer"),
        (&good, "other.test:1", "certificate not valid for name other.test"),
        (&good, "127.0.0.1:1", "certificate not valid for name 127.0.0.1"),
    ];
    let verified = origin(Some(authority.trusted()));
    let mut unverified = verified.clone();
    unverified.tls = Some(OriginTls { verify: false, ca: None, ..authority.trusted() });
    for (issued, server, text) in cases {
        let address = telling(ServerTls::of(issued).config()).await;
        fails(dial(&verified, address, server).await, FailureKind::Tls, text);
        assert!(dial(&unverified, address, server).await.is_ok(), "{text}");
    }
}

/// Without verification too, a server must have the key of what it shows.
#[tokio::test]
async fn a_certificate_without_its_key_is_never_taken() {
    #[derive(Debug)]
    struct Thief(Arc<CertifiedKey>);
    impl ResolvesServerCert for Thief {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }

    let authority = Authority::new();
    let (owner, thief) = (authority.issue("origin.test"), authority.issue("origin.test"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(thief.key_der()).unwrap();
    let stolen = Thief(Arc::new(CertifiedKey::new(vec![owner.certificate.clone()], key)));
    for versions in [ONLY_TLS_1_2, ONLY_TLS_1_3] {
        let config = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).unwrap();
        let stolen = Arc::new(Thief(stolen.0.clone()));
        let address = telling(config.with_no_client_auth().with_cert_resolver(stolen)).await;
        let settings = origin(Some(OriginTls { verify: false, ca: None, ..authority.trusted() }));
        fails(dial(&settings, address, "origin.test:1").await, FailureKind::Tls, "certificate with a wrong signature");
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_required() {
    let authority = Authority::new();
    let clients = Authority::new();
    let issued = authority.issue("origin.test");
    let own = clients.issue("edge.test");
    let foreign = authority.issue("edge.test");
    for versions in [ONLY_TLS_1_2, ONLY_TLS_1_3] {
        let config = ServerTls { clients: Some(&clients), versions, ..ServerTls::of(&issued) }.config();
        let address = telling(config).await;
        let mut settings = origin(Some(authority.trusted()));
        let cases = [
            (None, Some("the server requires a client certificate")),
            (Some(foreign.pem()), Some("the server refused the client certificate")),
            (Some(own.pem()), None),
        ];
        for (certificate, refused) in cases {
            settings.tls.as_mut().unwrap().certificate = certificate;
            let dialed = dial(&settings, address, "origin.test:1").await;
            match refused {
                None => assert_eq!(told(dialed.unwrap()).await, "origin.test - Some(Full)"),
                // The client is done before the server has looked at its certificate.
                Some(text) if versions == ONLY_TLS_1_3 => {
                    let error = dialed.unwrap().io.read_u8().await.unwrap_err();
                    assert!(refused_late(&error).unwrap().contains(text), "{error}");
                }
                Some(text) => fails(dialed, FailureKind::Tls, text),
            }
        }
    }
}

#[tokio::test]
async fn versions_of_tls_below_the_least_are_refused() {
    let authority = Authority::new();
    let issued = authority.issue("origin.test");
    let address = telling(ServerTls { versions: ONLY_TLS_1_2, ..ServerTls::of(&issued) }.config()).await;
    let mut settings = origin(Some(authority.trusted()));
    assert!(dial(&settings, address, "origin.test:1").await.is_ok());

    settings.tls.as_mut().unwrap().min_version = TlsVersion::Tls13;
    let dialed = dial(&settings, address, "origin.test:1").await;
    fails(dialed, FailureKind::Tls, "the server speaks no version of TLS that is allowed");
}

#[tokio::test]
async fn alpn_decides_which_http_is_spoken() {
    use OriginHttp::{Auto, Http1, Http2};

    let authority = Authority::new();
    let issued = authority.issue("origin.test");
    let none: &[&str] = &[];
    let cases = [
        (Http1, none, Ok((Protocol::H1, "-"))),
        (Http1, &["h2", "http/1.1"], Ok((Protocol::H1, "http/1.1"))),
        (Http1, &["h2"], Err("speaks no version of HTTP")),
        (Http2, none, Err("does not choose HTTP/2")),
        (Http2, &["http/1.1", "h2"], Ok((Protocol::H2, "h2"))),
        (Http2, &["http/1.1"], Err("speaks no version of HTTP")),
        (Auto, none, Ok((Protocol::H1, "-"))),
        (Auto, &["http/1.1"], Ok((Protocol::H1, "http/1.1"))),
        (Auto, &["h2", "http/1.1"], Ok((Protocol::H2, "h2"))),
    ];
    for (http, alpn, expected) in cases {
        let address = telling(ServerTls { alpn, ..ServerTls::of(&issued) }.config()).await;
        let mut settings = origin(Some(authority.trusted()));
        settings.http = http;
        let dialed = dial(&settings, address, "origin.test:1").await;
        match expected {
            Ok((protocol, seen)) => {
                let dialed = dialed.unwrap();
                assert_eq!(dialed.protocol, protocol, "{http:?} {alpn:?}");
                assert_eq!(told(dialed).await, format!("origin.test {seen} Some(Full)"));
            }
            Err(text) => fails(dialed, FailureKind::Tls, text),
        }
    }
}

#[tokio::test]
async fn for_an_upgrade_it_is_always_http_1() {
    let authority = Authority::new();
    let issued = authority.issue("origin.test");
    let address = telling(ServerTls { alpn: &["h2", "http/1.1"], ..ServerTls::of(&issued) }.config()).await;
    let mut settings = origin(Some(authority.trusted()));
    settings.http = OriginHttp::Http2;
    let io = Dialer::new(&settings).dial_http1(&address.into(), "origin.test:1", None).await.unwrap();
    assert_eq!(told(Dialed { io, protocol: Protocol::H1 }).await, "origin.test http/1.1 Some(Full)");
}

#[tokio::test]
async fn without_tls_http_2_takes_prior_knowledge() {
    let address = serve(|_| async {}).await;
    let mut settings = origin(None);
    for (http, protocol) in
        [(OriginHttp::Http1, Protocol::H1), (OriginHttp::Auto, Protocol::H1), (OriginHttp::Http2, Protocol::H2)]
    {
        settings.http = http;
        let dialed = dial(&settings, address, "s:1").await.unwrap();
        assert_eq!(dialed.protocol, protocol);
        assert!(!dialed.io.is_tls());
    }
}

#[tokio::test]
async fn the_proxy_header_comes_before_all_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = "192.0.2.7:56324".parse().unwrap();
    let local = "198.51.100.9:443".parse().unwrap();
    let mut settings = origin(None);
    settings.proxy_protocol = Some(ProxyProtocol::V1);

    let expected = b"PROXY TCP4 192.0.2.7 198.51.100.9 56324 443\r\n";
    let dialed = Dialer::new(&settings).dial(&address.into(), "s:1", Some(Proxied { client, local })).await.unwrap();
    drop(dialed);
    let mut seen = Vec::new();
    listener.accept().await.unwrap().0.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, expected);

    // Before the handshake too: 0x16 begins a record of it.
    let authority = Authority::new();
    settings.tls = Some(authority.trusted());
    let dialing = tokio::spawn(async move {
        let _ = Dialer::new(&settings).dial(&address.into(), "s:1", None).await;
    });
    let mut seen = [0; 16];
    let (mut tcp, _) = listener.accept().await.unwrap();
    tcp.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"PROXY UNKNOWN\r\n\x16");
    dialing.abort();
}

#[tokio::test]
async fn unix_sockets_and_ipv6() {
    let folder = std::env::temp_dir().join(format!("foreland-dial-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("s.sock");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let endpoint = Endpoint::Unix(path.as_path().into());
    let dialed = Dialer::new(&origin(None)).dial(&endpoint, "unix:s.sock", None).await.unwrap();
    assert_eq!((dialed.io.peer(), dialed.io.local()), (None, None));
    listener.accept().await.unwrap();
    drop(listener);
    std::fs::remove_dir_all(&folder).unwrap();
    let gone = Dialer::new(&origin(None)).dial(&endpoint, "unix:s.sock", None).await;
    fails(gone, FailureKind::Connect, "No such file");

    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dialed = dial(&origin(None), address, "[::1]:1").await.unwrap();
    let (_, from) = listener.accept().await.unwrap();
    assert_eq!(dialed.io.local(), Some(from));
}

#[tokio::test]
async fn who_does_not_answer_is_told_from_who_refuses() {
    // A port that nobody listens on: it was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    fails(dial(&origin(None), free, "s:1").await, FailureKind::Connect, "Connection refused");

    // Accepted by the system, but nobody speaks TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = origin(Some(Authority::new().trusted()));
    settings.connect_timeout = Duration::from_millis(20);
    let dialed = dial(&settings, listener.local_addr().unwrap(), "s:1").await;
    fails(dialed, FailureKind::ConnectTimeout, "TLS with");

    let closing = serve(|tcp| async { drop(tcp) }).await;
    settings.connect_timeout = Duration::from_secs(20);
    assert_eq!(dial(&settings, closing, "s:1").await.unwrap_err().kind, FailureKind::Tls);
}

#[test]
fn names_are_taken_from_what_is_configured() {
    let inet = Endpoint::Inet(SocketAddr::from(([192, 0, 2, 1], 443)));
    let unix = Endpoint::Unix(std::path::Path::new("/run/s").into());
    let cases = [
        (None, &inet, "a.test:8443", Ok("a.test")),
        (None, &inet, "a.test.:8443", Ok("a.test")),
        (None, &inet, "192.0.2.1:443", Ok("192.0.2.1")),
        (None, &inet, "[2001:db8::1]:443", Ok("2001:db8::1")),
        (None, &unix, "unix:/run/s", Ok("localhost")),
        (Some("b.test"), &unix, "unix:/run/s", Ok("b.test")),
        (Some("b.test"), &inet, "a.test:1", Ok("b.test")),
        (Some("2001:db8::1"), &inet, "a.test:1", Ok("2001:db8::1")),
        (None, &inet, "a b:1", Err(())),
        (None, &inet, ":1", Err(())),
    ];
    for (fixed, endpoint, server, expected) in cases {
        let name = server_name(fixed, endpoint, server);
        let text = name.as_ref().map(|name| name.to_str().into_owned()).map_err(|_| ());
        assert_eq!(text.as_deref().map_err(|_| ()), expected, "{server}");
        if let Ok(name) = name {
            let is_address = text.unwrap().parse::<std::net::IpAddr>().is_ok();
            assert_eq!(matches!(name, ServerName::IpAddress(_)), is_address);
        }
    }
    assert_eq!(without_port("[::1]:80"), "::1");
    assert_eq!(without_port("::1"), "::1");
    assert_eq!(without_port("a.test"), "a.test");
}
