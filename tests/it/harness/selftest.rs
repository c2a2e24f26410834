//! The harness against itself, without an edge: a tool that lies makes every test worthless.

use super::*;

async fn pair(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Origin, Connection) {
    let origin = Origin::start(handler).await;
    let connection = Connection::open(origin.address()).await;
    (origin, connection)
}

#[tokio::test]
async fn exchanges_over_one_connection_and_records_them() {
    let (origin, mut client) = pair(|r| Reply::ok(format!("to {}", r.path())).header("X-A", "1")).await;
    let first = client.ask(&Ask::get("/a?b=c").header("X-Ord", "1").header("x-ord", "2")).await;
    assert_eq!((first.status, first.text(), first.header("x-a")), (200, "to /a", Some("1")));
    let second = client.ask(&Ask::new("POST", "/b").body("hello")).await;
    assert_eq!(second.text(), "to /b");

    let seen = origin.seen();
    assert_eq!((seen.len(), origin.accepted()), (2, 1));
    assert_eq!((seen[0].target.as_str(), seen[0].query()), ("/a?b=c", Some("b=c")));
    assert_eq!(seen[0].headers.0[1..], [("X-Ord".into(), "1".into()), ("x-ord".into(), "2".into())]);
    assert_eq!(seen[1].body, b"hello");
    assert!(seen.iter().all(|r| r.complete && r.connection == 0));
}

#[tokio::test]
async fn reads_chunks_trailers_and_interim_responses() {
    let reply = Reply::new(200).interim(103, &[("Link", "</a>")]).body("one").body("two").trailer("X-Sum", "6");
    let (_origin, mut client) = pair(move |_| reply.clone()).await;
    let response = client.ask(&Ask::get("/")).await;
    assert_eq!(response.text(), "onetwo");
    assert_eq!(response.trailers.get("x-sum"), Some("6"));
    assert_eq!(response.interim.len(), 1);
    assert_eq!((response.interim[0].0, response.interim[0].1.get("link")), (103, Some("</a>")));
}

#[tokio::test]
async fn records_chunked_requests_with_trailers() {
    let (origin, mut client) = pair(|_| Reply::new(204)).await;
    client.send("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    let seen = origin.wait_for(1).await;
    assert!(!seen[0].complete);
    client.send("2;x=y\r\nde\r\n0\r\nX-T: 1\r\n\r\n").await;
    assert_eq!(client.response("POST").await.status, 204);
    let seen = origin.seen();
    assert_eq!(
        (seen[0].body.as_slice(), seen[0].trailers.get("x-t"), seen[0].complete),
        (&b"abcde"[..], Some("1"), true)
    );
}

#[tokio::test]
async fn a_gate_holds_a_body_until_it_opens() {
    let gate = Gate::new();
    let reply = Reply::ok("first").wait(&gate).body("second");
    let (_origin, mut client) = pair(move |_| reply.clone()).await;
    client.send(Ask::get("/").bytes()).await;
    let head = client.head("GET").await;
    assert_eq!(head.header("content-length"), Some("11"));
    assert_eq!(client.bytes(5).await, b"first");
    gate.reached(1).await;
    gate.open();
    assert_eq!(client.rest(head).await.text(), "second");
}

#[tokio::test]
async fn a_gate_lets_one_through_at_a_time() {
    let gate = Gate::new();
    let held = Reply::ok("x").hold(&gate);
    let origin = Origin::start(move |_| held.clone()).await;
    let ask = Ask::get("/");
    let (mut a, mut b) = (Connection::open(origin.address()).await, Connection::open(origin.address()).await);
    a.send(ask.bytes()).await;
    gate.reached(1).await;
    gate.let_one_through();
    assert_eq!(a.response("GET").await.text(), "x");
    b.send(ask.bytes()).await;
    gate.reached(2).await;
    gate.let_one_through();
    assert_eq!(b.response("GET").await.text(), "x");
}

#[tokio::test]
async fn tells_the_ends_of_a_body_apart() {
    let (origin, mut client) = pair(|r| match r.path() {
        "/short" => Reply::ok("abc").claim_length(10).cut(),
        "/reset" => Reply::ok("abc").claim_length(10).reset(),
        "/chunked-cut" => Reply::ok("abc").chunked().cut(),
        "/until-close" => Reply::ok("abc").until_close(),
        "/bad-chunk" => Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        _ => Reply::new(404).close(),
    })
    .await;
    assert_eq!(client.ask(&Ask::get("/other")).await.header("connection"), Some("close"));
    assert_eq!(client.closed().await, (End::Clean, Vec::new()));
    for (path, body, end) in [
        ("/short", "abc", End::Cut),
        ("/chunked-cut", "abc", End::Cut),
        ("/until-close", "abc", End::Clean),
        ("/bad-chunk", "", End::Malformed),
    ] {
        let response = exchange(origin.address(), &Ask::get(path)).await;
        assert_eq!((response.body.as_slice(), response.end), (body.as_bytes(), end), "{path}");
    }
    // What an RST overtakes may be lost, so only the end is certain.
    let mut client = Connection::open(origin.address()).await;
    client.send(Ask::get("/reset").bytes()).await;
    if let Some(head) = client.try_head("GET").await {
        assert_eq!(client.rest(head).await.end, End::Reset);
    }
}

#[tokio::test]
async fn misbehaves_without_a_byte() {
    let (origin, mut client) = pair(|r| match r.path() {
        "/hang-up" => Reply::hang_up(),
        "/rst" => Reply::rst(),
        _ => Reply::never(),
    })
    .await;
    client.send(Ask::get("/hang-up").bytes()).await;
    assert!(client.try_head("GET").await.is_none());
    let mut client = Connection::open(origin.address()).await;
    client.send(Ask::get("/rst").bytes()).await;
    assert_eq!(client.closed().await, (End::Reset, Vec::new()));
    let mut client = Connection::open(origin.address()).await;
    client.send(Ask::get("/never").bytes()).await;
    origin.wait_for(3).await;
    origin.wait_for_open(1).await;
}

#[tokio::test]
async fn a_client_may_reset_or_cut_a_request() {
    let (origin, mut client) = pair(|_| Reply::ok("x")).await;
    client.send("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc").await;
    origin.wait_for(1).await;
    client.reset();
    origin.wait_for_open(0).await;
    assert!(!origin.seen()[0].complete);
}

#[tokio::test]
async fn stops_and_restarts_on_its_port() {
    let (mut origin, mut client) = pair(|_| Reply::ok("x")).await;
    assert_eq!(client.ask(&Ask::get("/")).await.text(), "x");
    origin.stop().await;
    assert_eq!(client.closed().await.1, b"");
    assert!(Connection::try_open(origin.address()).await.is_none());
    origin.restart();
    origin.answer(|_| Reply::ok("y"));
    assert_eq!(exchange(origin.address(), &Ask::get("/")).await.text(), "y");
}

#[tokio::test]
async fn answers_head_and_bodiless_statuses_without_a_body() {
    let (_origin, mut client) = pair(|r| match r.path() {
        "/304" => Reply::new(304).header("ETag", "\"a\""),
        "/204" => Reply::new(204),
        _ => Reply::ok("abc"),
    })
    .await;
    let head = client.ask(&Ask::head("/")).await;
    assert_eq!((head.header("content-length"), head.body.len()), (Some("3"), 0));
    assert_eq!(client.ask(&Ask::get("/304")).await.status, 304);
    assert_eq!(client.ask(&Ask::get("/204")).await.header("content-length"), None);
    assert_eq!(client.ask(&Ask::get("/")).await.text(), "abc");
}

#[tokio::test]
async fn a_deaf_origin_answers_before_the_body() {
    let origin = Origin::start_deaf(|_| Reply::new(413)).await;
    let mut client = Connection::open(origin.address()).await;
    client.send("POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n").await;
    assert_eq!(client.response("POST").await.status, 413);
}

#[tokio::test]
async fn answers_expect_100_continue() {
    let (origin, mut client) = pair(|_| Reply::new(200)).await;
    client.send("PUT / HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n").await;
    origin.wait_for(1).await;
    client.send("abc").await;
    let response = client.response("PUT").await;
    assert_eq!((response.status, response.interim[0].0, origin.seen()[0].body.as_slice()), (200, 100, &b"abc"[..]));
}

#[tokio::test]
async fn a_reserved_port_refuses_until_its_owner_listens() {
    let port = Port::reserve();
    assert!(Connection::try_open(port.address()).await.is_none());
    let listener = std::net::TcpListener::bind(port.address()).expect("the owner may bind it");
    assert!(Connection::try_open(port.address()).await.is_some());
    drop(listener);
    assert!(Connection::try_open(port.address()).await.is_none());
}

#[tokio::test]
async fn speaks_http2_with_prior_knowledge() {
    let port = Port::reserve();
    let listener = port.listen();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut connection = h2::server::handshake(stream).await.expect("a handshake");
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            if request.uri().path() == "/reset" {
                respond.send_reset(h2::Reason::INTERNAL_ERROR);
                continue;
            }
            let response = http::Response::builder().header("x-host", request.uri().host().unwrap_or("-")).body(());
            let mut body = respond.send_response(response.expect("a response"), false).expect("sent");
            body.send_data(bytes::Bytes::from_static(b"hello"), false).expect("sent");
            let trailers = [(http::HeaderName::from_static("x-sum"), http::HeaderValue::from_static("5"))];
            body.send_trailers(trailers.into_iter().collect()).expect("sent");
        }
    });
    let client = H2Connection::open(port.address()).await;
    let response = client.ask(&Ask::get("/").host("a.test")).await;
    assert_eq!((response.text(), response.header("x-host")), ("hello", Some("a.test")));
    assert_eq!(response.trailers.get("x-sum"), Some("5"));
    assert!(client.try_start(&Ask::get("/reset")).await.is_err());
    drop(client);
    within("the server's end", server).await.expect("a server without a panic");
}

#[tokio::test]
#[should_panic(expected = "the body of")]
async fn a_cut_body_is_no_text() {
    let (_origin, mut client) = pair(|_| Reply::ok("abc").claim_length(4).cut()).await;
    client.ask(&Ask::get("/")).await.text();
}
