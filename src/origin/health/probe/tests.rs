use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use super::*;
use crate::config::model::{HttpProbe, ProxyProtocol};
use crate::origin::wire::kit::{Authority, ServerTls, serve, serve_tls};

async fn probe(origin: &Origin, check: &HealthCheck, endpoint: impl Into<Endpoint>) -> Result<(), String> {
    probe_named(origin, check, endpoint, "origin.test:80").await
}

async fn probe_named(
    origin: &Origin,
    check: &HealthCheck,
    endpoint: impl Into<Endpoint>,
    server: &str,
) -> Result<(), String> {
    let checks = Checks::new(&Origin { health_check: Some(check.clone()), ..origin.clone() }).unwrap();
    Probe::new(&checks, &endpoint.into(), server).unwrap().ask().await
}

fn plain() -> Origin {
    Origin::plain("media", Vec::new())
}

fn over_http2() -> Origin {
    Origin { http: OriginHttp::Http2, ..plain() }
}

fn check(kind: HealthCheckKind) -> HealthCheck {
    HealthCheck { kind, ..HealthCheck::tcp() }
}

fn http(probe: HttpProbe) -> HealthCheck {
    check(HealthCheckKind::Http(probe))
}

fn get() -> HttpProbe {
    HttpProbe::get("/healthz")
}

/// Probes a server that reads a request and sends `answer`; what it was sent, and the verdict.
async fn probe_answer(check: HealthCheck, answer: impl Into<Vec<u8>>) -> (String, Result<(), String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, answer) = (listener.local_addr().unwrap(), answer.into());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await.unwrap() == 0 {
                break;
            }
        }
        // Byte by byte where it is short: no answer may depend on how it is cut.
        for piece in answer.chunks((answer.len() / 200).max(1)) {
            if stream.write_all(piece).await.is_err() {
                break;
            }
        }
        String::from_utf8(request).unwrap()
    });
    let verdict = probe(&plain(), &check, addr).await;
    (server.await.unwrap(), verdict)
}

#[track_caller]
fn is(verdict: &Result<(), String>, expected: Result<(), &str>, of: &[u8]) {
    let shown = of.get(..of.len().min(80)).unwrap_or_default().escape_ascii();
    match expected {
        Ok(()) => assert_eq!(*verdict, Ok(()), "{shown}"),
        Err(why) => assert!(verdict.as_ref().is_err_and(|e| e.contains(why)), "{verdict:?}: {shown}"),
    }
}

#[tokio::test]
async fn an_http_check_asks_as_it_should() {
    let (request, verdict) = probe_answer(http(get()), "HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(verdict, Ok(()));
    let lower = request.to_lowercase();
    let version = env!("CARGO_PKG_VERSION");
    assert!(request.starts_with("GET /healthz HTTP/1.1\r\n"), "{request}");
    for line in ["host: origin.test:80", &format!("user-agent: foreland-health/{version}"), "connection: close"] {
        assert!(lower.contains(&format!("\r\n{line}\r\n")), "{line}: {request}");
    }

    let headers = [("X-Probe", "a"), ("x-probe", "b"), ("User-Agent", "edge"), ("Authorization", "Basic eA==")];
    let asked = HttpProbe {
        method: "HEAD".to_owned(),
        host: Some("www.test".to_owned()),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..HttpProbe::get("/ready?deep=1")
    };
    // An answer to HEAD has no body, whatever it says.
    let (request, verdict) = probe_answer(http(asked), "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").await;
    assert_eq!(verdict, Ok(()));
    let lower = request.to_lowercase();
    assert!(request.starts_with("HEAD /ready?deep=1 HTTP/1.1\r\n"), "{request}");
    for line in ["host: www.test", "x-probe: a", "x-probe: b", "user-agent: edge", "authorization: basic ea=="] {
        assert!(lower.contains(&format!("\r\n{line}\r\n")), "{line}: {request}");
    }
    assert_eq!(lower.matches("user-agent").count(), 1, "{request}");

    let asked = HttpProbe { method: "POST".to_owned(), ..get() };
    let (request, _) = probe_answer(http(asked), "HTTP/1.1 200 OK\r\n\r\n").await;
    assert!(request.starts_with("POST ") && request.to_lowercase().contains("\r\ncontent-length: 0\r\n"), "{request}");
}

#[tokio::test]
async fn a_status_within_the_ranges_is_healthy() {
    let cases: [(&[u8], Result<(), &str>); 8] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(())),
        (b"HTTP/1.0 299\r\n\r\n", Ok(())),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())),
        (b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n", Err("status 503")),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", Err("status 302")),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Err("")),
        (b"HTTP/1.1 20", Err("")),
        (b"", Err("connection closed")),
    ];
    for (answer, expected) in cases {
        is(&probe_answer(http(get()), answer).await.1, expected, answer);
    }
    for (status, expected) in [(204, Ok(())), (401, Ok(())), (200, Err("status 200")), (402, Err("status 402"))] {
        let asked = HttpProbe { expect_status: vec![(204, 204), (400, 401)], ..get() };
        let answer = format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n");
        is(&probe_answer(http(asked), answer.clone()).await.1, expected, answer.as_bytes());
    }
}

#[tokio::test]
async fn a_body_must_have_what_is_wanted_within_its_first_64_kib() {
    let asked = || http(HttpProbe { expect_body: Some("all is well".to_owned()), ..get() });
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = |before: usize| {
        let body = "x".repeat(before) + "all is well";
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let cases = [
        (body(0), Ok(())),
        (body(65_536 - 11), Ok(())),
        (body(65_536 - 10), Err("the body does not contain \"all is well\" within its first 64 KiB")),
        (body(200_000), Err("within its first 64 KiB")),
        (format!("{chunked}5\r\nall i\r\n6\r\ns well\r\n0\r\n\r\n"), Ok(())),
        // What is wanted is there: how the rest ends is of no matter.
        (format!("{chunked}b\r\nall is well\r\n5\r\n"), Ok(())),
        (format!("{chunked}5\r\nall i\r\n"), Err("")),
        (format!("{chunked}0\r\n\r\n"), Err("the body does not contain \"all is well\"")),
        ("HTTP/1.1 200 OK\r\n\r\nso far all is well".to_owned(), Ok(())),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nall is well".to_owned(), Err("does not contain")),
        ("HTTP/1.1 204 No Content\r\n\r\nall is well".to_owned(), Err("does not contain")),
        ("HTTP/1.1 500 No\r\nContent-Length: 11\r\n\r\nall is well".to_owned(), Err("status 500")),
    ];
    for (answer, expected) in cases {
        is(&probe_answer(asked(), answer.clone()).await.1, expected, answer.as_bytes());
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let patience = HealthCheck { timeout: Duration::from_millis(20), ..http(get()) };
    let verdict = probe(&plain(), &patience, listener.local_addr().unwrap()).await;
    assert_eq!(verdict, Err("no answer within 20ms".to_owned()));
}

#[tokio::test]
async fn a_tcp_check_wants_a_connection_and_no_more() {
    let listener = TcpListener::bind("127.83.7.2:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    assert_eq!(probe(&plain(), &check(HealthCheckKind::Tcp), addr).await, Ok(()));
    drop(listener);
    let verdict = probe(&plain(), &check(HealthCheckKind::Tcp), addr).await;
    is(&verdict, Err("refused"), b"");
}

#[tokio::test]
async fn a_unix_socket_is_probed() {
    let folder = std::env::temp_dir().join(format!("foreland-probe-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("s");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap() > 0 {}
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(request).unwrap()
    });
    let endpoint = Endpoint::Unix(Arc::from(path.as_path()));
    assert_eq!(probe(&plain(), &http(get()), endpoint).await, Ok(()));
    assert!(server.await.unwrap().to_lowercase().contains("\r\nhost: localhost\r\n"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_cannot_be_sent_is_said() {
    let error = |probe| {
        let checks = Checks::new(&Origin { health_check: Some(http(probe)), ..plain() }).unwrap();
        Probe::new(&checks, &SocketAddr::from(([10, 0, 0, 1], 80)).into(), "a:80").err().unwrap_or_default()
    };
    assert!(error(HttpProbe { host: Some("a b".to_owned()), ..get() }).contains("no host"));
    assert!(error(HttpProbe { headers: vec![("a b".to_owned(), String::new())], ..get() }).contains("no field"));
    assert!(error(HttpProbe { headers: vec![("a".to_owned(), "\n".to_owned())], ..get() }).contains("no field"));
    assert!(error(HttpProbe { method: "G E".to_owned(), ..get() }).contains("no method"));
    assert!(error(HttpProbe::get("/ x")).contains("no path"));
}

/// How a server of HTTP/2 answers.
#[derive(Clone, Default)]
struct Reply {
    status: u16,
    fields: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
    trailers: Option<&'static [(&'static str, &'static str)]>,
}

fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

/// Answers one request over HTTP/2; what it was.
async fn http2_server(reply: Reply) -> (SocketAddr, JoinHandle<Option<(Request<()>, Vec<u8>)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.ok()?;
        let (request, mut respond) = connection.accept().await?.ok()?;
        let answering = async move {
            let (request, mut body) = request.into_parts();
            let mut asked = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                asked.extend_from_slice(&data);
            }
            let mut response = Response::new(());
            *response.status_mut() = reply.status.try_into().unwrap();
            *response.headers_mut() = fields(reply.fields);
            let headless = reply.body.is_empty() && reply.trailers.is_none();
            let mut stream = respond.send_response(response, headless).unwrap();
            if !headless {
                stream.send_data(Bytes::from(reply.body), reply.trailers.is_none()).unwrap();
            }
            if let Some(trailers) = reply.trailers {
                stream.send_trailers(fields(trailers)).unwrap();
            }
            (Request::from_parts(request, ()), asked)
        };
        // Until the client is gone: what is left to send is sent meanwhile.
        let (outcome, _) = tokio::join!(answering, async { while connection.accept().await.is_some() {} });
        Some(outcome)
    });
    (addr, server)
}

#[tokio::test]
async fn http2_is_spoken_where_the_origin_speaks_it() {
    let headers = vec![("X-Probe".to_owned(), "a".to_owned()), ("Connection".to_owned(), "x".to_owned())];
    let asked = || http(HttpProbe { headers: headers.clone(), ..get() });
    let (addr, server) = http2_server(Reply { status: 204, ..Reply::default() }).await;
    assert_eq!(probe(&over_http2(), &asked(), addr).await, Ok(()));
    let (request, body) = server.await.unwrap().unwrap();
    assert_eq!((request.method().as_str(), request.uri().to_string()), ("GET", "http://origin.test:80/healthz".into()));
    assert_eq!(request.headers()["x-probe"], "a");
    assert!(!request.headers().contains_key("connection") && !request.headers().contains_key("host"));
    assert!(body.is_empty());

    let (addr, _server) = http2_server(Reply { status: 503, ..Reply::default() }).await;
    assert_eq!(probe(&over_http2(), &asked(), addr).await, Err("status 503".to_owned()));

    // More than a window of flow control holds.
    let wanted = http(HttpProbe { expect_body: Some("well".to_owned()), ..get() });
    for (before, expected) in [(65_532, Ok(())), (100_000, Err("within its first 64 KiB")), (0, Ok(()))] {
        let body = ["x".repeat(before).as_bytes(), b"well"].concat();
        let (addr, _server) = http2_server(Reply { status: 200, body, ..Reply::default() }).await;
        is(&probe(&over_http2(), &wanted, addr).await, expected, b"");
    }

    // One that speaks HTTP/1.1 does not do.
    let (addr, _server) = http2_server(Reply::default()).await;
    assert!(probe(&plain(), &asked(), addr).await.is_err());
}

#[tokio::test]
async fn a_grpc_check_wants_to_hear_serving() {
    const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc+proto")];
    const OK: Option<&[(&str, &str)]> = Some(&[("grpc-status", "0")]);
    let serving = b"\0\0\0\0\x02\x08\x01".to_vec();
    let reply = Reply { status: 200, fields: GRPC, body: serving, trailers: OK };
    let shop = check(HealthCheckKind::Grpc { service: "shop".to_owned() });

    let (addr, server) = http2_server(reply.clone()).await;
    // Whatever version other requests are sent with.
    assert_eq!(probe(&plain(), &shop, addr).await, Ok(()));
    let (request, body) = server.await.unwrap().unwrap();
    assert_eq!(request.uri().to_string(), "http://origin.test:80/grpc.health.v1.Health/Check");
    assert_eq!((request.method().as_str(), &request.headers()["te"]), ("POST", &"trailers".parse().unwrap()));
    assert_eq!(
        (&request.headers()["content-type"], &body[..]),
        (&"application/grpc".parse().unwrap(), &b"\0\0\0\0\x06\x0a\x04shop"[..])
    );

    let unknown: &[_] = &[("content-type", "application/grpc"), ("grpc-status", "5"), ("grpc-message", "no shop")];
    let cases = [
        (Reply { body: b"\0\0\0\0\x02\x08\x02".to_vec(), ..reply.clone() }, "NOT_SERVING"),
        (Reply { fields: unknown, body: Vec::new(), trailers: None, ..reply.clone() }, "grpc-status 5: no shop"),
        (Reply { trailers: Some(&[("grpc-status", "14")]), ..reply.clone() }, "grpc-status 14"),
        (Reply { trailers: Some(&[]), ..reply.clone() }, "grpc-status missing"),
        (Reply { status: 404, ..reply.clone() }, "status 404"),
        (Reply { fields: &[("content-type", "text/html")], ..reply.clone() }, "not gRPC: text/html"),
        (Reply { body: vec![0; 10_000], ..reply.clone() }, "too long"),
    ];
    for (reply, expected) in cases {
        let (addr, _server) = http2_server(reply).await;
        is(&probe(&plain(), &shop, addr).await, Err(expected), expected.as_bytes());
    }

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let patience = HealthCheck { timeout: Duration::from_millis(20), ..shop };
    let verdict = probe(&plain(), &patience, silent.local_addr().unwrap()).await;
    assert_eq!(verdict, Err("no answer within 20ms".to_owned()));
}

/// Answers a request, whatever it is.
async fn answer_http1(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
    // A client that has gone is of no matter here.
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell").await;
    let _ = stream.flush().await;
}

#[tokio::test]
async fn tls_is_spoken_where_the_origin_speaks_it_and_the_check_does_too() {
    let authority = Authority::new();
    let (good, wrong) = (authority.issue("shop.test"), authority.issue("other.test"));
    let over_tls = serve_tls(ServerTls::of(&good).config(), answer_http1).await;
    let misnamed = serve_tls(ServerTls::of(&wrong).config(), answer_http1).await;
    let plainly = serve(answer_http1).await;
    let origin = Origin { tls: Some(authority.trusted()), ..plain() };
    let wanted = HttpProbe { expect_body: Some("well".to_owned()), ..get() };
    for kind in [HealthCheckKind::Tcp, HealthCheckKind::Http(wanted)] {
        let (with, without) = (check(kind.clone()), HealthCheck { tls: false, ..check(kind) });
        assert_eq!(probe_named(&origin, &with, over_tls, "shop.test:443").await, Ok(()));
        is(&probe_named(&origin, &with, misnamed, "shop.test:443").await, Err("shop.test"), b"");
        assert_eq!(probe_named(&origin, &without, plainly, "shop.test:443").await, Ok(()));
        // A port that speaks no TLS closes the connection at once, or says what is none.
        let patience = HealthCheck { timeout: Duration::from_millis(300), ..with };
        assert!(probe_named(&origin, &patience, plainly, "shop.test:443").await.is_err());
    }
}

#[tokio::test]
async fn over_tls_the_version_is_what_was_agreed_on() {
    let authority = Authority::new();
    let issued = authority.issue("shop.test");
    let origin = Origin { tls: Some(authority.trusted()), ..plain() };
    for (alpn, version) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"], "http/1.1"), (&[], "http/1.1")] {
        let config = ServerTls { alpn, ..ServerTls::of(&issued) }.config();
        let addr = serve_tls(config, move |stream| async move {
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                assert_eq!(version, "http/1.1");
                return answer_http1(stream).await;
            }
            assert_eq!(version, "h2");
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let status = if *request.uri() == "https://shop.test:443/healthz" { 204 } else { 500 };
                let mut response = Response::new(());
                *response.status_mut() = status.try_into().unwrap();
                // A client that has gone is of no matter here.
                let _ = respond.send_response(response, true);
            }
        })
        .await;
        assert_eq!(probe_named(&origin, &http(get()), addr, "shop.test:443").await, Ok(()), "{alpn:?}");
    }
}

#[tokio::test]
async fn a_proxy_header_says_that_it_is_nobodys_request() {
    let cases = [
        (ProxyProtocol::V1, &b"PROXY UNKNOWN\r\nGET "[..]),
        (ProxyProtocol::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET "),
    ];
    for (version, expected) in cases {
        let addr = serve(move |mut stream| async move {
            let mut start = vec![0; expected.len()];
            let read = stream.read_exact(&mut start).await;
            if read.is_ok() && start == expected {
                answer_http1(stream).await;
            }
        })
        .await;
        let origin = Origin { proxy_protocol: Some(version), ..plain() };
        assert_eq!(probe(&origin, &http(get()), addr).await, Ok(()), "{version:?}");
    }
}
