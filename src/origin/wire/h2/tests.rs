//! A server of the `h2` crate, or one that says bytes, and what a client makes of it.

use std::future::poll_fn;
use std::time::Duration;

use ::h2::server::{self, SendResponse};
use ::h2::{Reason, RecvStream};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::drive::Patience;
use super::*;
use crate::origin::failure::FailureKind;
use crate::origin::wire::message::{BodyLength, RequestHead, ResponseHead};

const GET: &str = "GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";

fn request(method: Method, wire: &str, body: BodyLength) -> RequestHead {
    RequestHead { method, wire: Bytes::copy_from_slice(wire.as_bytes()), body }
}

fn get() -> RequestHead {
    request(Method::GET, GET, BodyLength::None)
}

/// A request as the server has it.
type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// A server that is told what to do with each request.
struct Server {
    asked: mpsc::UnboundedReceiver<Asked>,
    /// Says goodbye, once something is sent; ends the connection at once when dropped.
    goodbye: mpsc::UnboundedSender<()>,
}

impl Server {
    async fn next(&mut self) -> Asked {
        self.asked.recv().await.expect("a request")
    }

    /// Nobody asks any more, and the connection has ended.
    async fn has_ended(&mut self) {
        assert!(self.asked.recv().await.is_none());
    }
}

async fn serve(io: DuplexStream, builder: server::Builder) -> Server {
    let (asks, asked) = mpsc::unbounded_channel();
    let (goodbye, mut goodbyes) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
        loop {
            tokio::select! {
                next = connection.accept() => match next {
                    Some(Ok(next)) => drop(asks.send(next)),
                    Some(Err(_)) | None => return,
                },
                said = goodbyes.recv() => match said {
                    Some(()) => connection.graceful_shutdown(),
                    None => return,
                },
            }
        }
    });
    Server { asked, goodbye }
}

async fn pair_with(builder: server::Builder) -> (H2Client, Server) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let server = serve(theirs, builder).await;
    (H2Client::handshake(ours, 100, true).await.unwrap(), server)
}

async fn pair() -> (H2Client, Server) {
    pair_with(server::Builder::new()).await
}

async fn ask(client: &H2Client, head: &RequestHead) -> H2Stream {
    let mut stream = client.open().expect("a place");
    stream.send_head(head).await.unwrap();
    stream
}

async fn rest(stream: &mut H2Stream) -> Result<Vec<u8>, WireError> {
    let mut body = Vec::new();
    while let Some(piece) = poll_fn(|cx| stream.poll_read_body(cx)).await? {
        assert!(!piece.is_empty());
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

async fn send(stream: &mut H2Stream, data: impl Into<Bytes>, end: bool) -> Result<(), WireError> {
    let mut data = data.into();
    poll_fn(|cx| stream.poll_send_body(cx, &mut data, end)).await
}

fn text(head: &ResponseHead) -> &str {
    std::str::from_utf8(&head.wire).unwrap()
}

/// All of a request's body, as the server reads it.
async fn body_of(request: Request<RecvStream>) -> Vec<u8> {
    let (mut stream, mut body) = (request.into_body(), Vec::new());
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    body
}

#[tokio::test]
async fn a_request_says_the_same_in_http_2() {
    let (client, mut server) = pair().await;
    let wire = "GET /a?b=%20 HTTP/1.1\r\nHOST: a.test:81\r\nX-A: b\r\nx-a: c\r\nCookie: a=b; c=d\r\n\
                Connection: TE, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: x\r\n\
                Transfer-Encoding: chunked\r\nHTTP2-Settings: x\r\nTE: gzip, Trailers;q=1\r\n\r\n";
    let _stream = ask(&client, &request(Method::GET, wire, BodyLength::None)).await;
    let (asked, _respond) = server.next().await;
    assert_eq!((asked.method(), asked.uri().to_string()), (&Method::GET, "https://a.test:81/a?b=%20".to_owned()));
    let mut fields: Vec<_> = asked.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["cookie: a=b; c=d", "te: trailers", "x-a: b", "x-a: c"]);
    assert!(asked.into_body().is_end_stream());
}

/// The tables of a connection that clients share keep no secrets.
#[test]
fn secrets_are_not_compressed() {
    let wire = "GET / HTTP/1.1\r\nHost: a.test\r\nCookie: a\r\nAuthorization: b\r\nX-A: c\r\n\r\n";
    let request = head::request(&request(Method::GET, wire, BodyLength::None), true).unwrap();
    let secret = ["cookie", "authorization", "x-a"].map(|name| request.headers()[name].is_sensitive());
    assert_eq!(secret, [true, true, false]);
}

#[tokio::test]
async fn a_target_is_passed_on_as_written() {
    let (client, mut server) = pair().await;
    for (method, target, path) in [
        (Method::GET, "/", "/"),
        (Method::GET, "/a//b/../c?x=[1]&y={}", "/a//b/../c?x=[1]&y={}"),
        (Method::OPTIONS, "*", "*"),
        (Method::GET, "http://b.test/a?b", "/a?b"),
        (Method::GET, "http://b.test", "/"),
        (Method::GET, "http://b.test?b", "/?b"),
        // No URI has these as they are.
        (Method::GET, "/a<b>?c#d", "/a%3Cb%3E?c%23d"),
    ] {
        let wire = format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let _stream = ask(&client, &request(method, &wire, BodyLength::None)).await;
        let (asked, _respond) = server.next().await;
        assert_eq!(asked.uri().path_and_query().unwrap(), path, "{target}");
        assert_eq!(asked.uri().authority().unwrap(), "a.test", "{target}");
    }
    for wire in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "GET a\r\n\r\n"] {
        let mut stream = client.open().unwrap();
        let error = stream.send_head(&request(Method::GET, wire, BodyLength::None)).await.unwrap_err();
        assert_eq!((error.kind, error.untouched), (FailureKind::Other, true), "{wire:?}");
    }
}

#[tokio::test]
async fn a_response_says_the_same_in_http_1() {
    /// The request's method; the status, the fields, and whether that is all; the form in HTTP/1.1 and the body's length.
    type Case = (Method, u16, &'static [(&'static str, &'static str)], bool, &'static str, BodyLength);
    let (client, mut server) = pair().await;
    let cases: [Case; 10] = [
        (
            Method::GET,
            200,
            &[("x-a", "b"), ("x-a", "c")],
            false,
            "200 OK\r\nx-a: b\r\nx-a: c\r\ntransfer-encoding: chunked",
            BodyLength::Chunked,
        ),
        (Method::GET, 200, &[("content-length", "3")], false, "200 OK\r\ncontent-length: 3", BodyLength::Known(3)),
        (Method::GET, 200, &[], true, "200 OK\r\ncontent-length: 0", BodyLength::None),
        (Method::GET, 200, &[("content-length", "0")], true, "200 OK\r\ncontent-length: 0", BodyLength::None),
        (Method::GET, 599, &[], true, "599 \r\ncontent-length: 0", BodyLength::None),
        (Method::HEAD, 200, &[("content-length", "3")], true, "200 OK\r\ncontent-length: 3", BodyLength::None),
        (Method::HEAD, 200, &[], true, "200 OK", BodyLength::None),
        (Method::GET, 304, &[("content-length", "3")], true, "304 Not Modified\r\ncontent-length: 3", BodyLength::None),
        (Method::GET, 204, &[("content-length", "3")], true, "204 No Content", BodyLength::None),
        (Method::GET, 204, &[], true, "204 No Content", BodyLength::None),
    ];
    for (method, status, fields, end, due, body) in cases {
        let wire = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let mut stream = ask(&client, &request(method.clone(), &wire, BodyLength::None)).await;
        let (_, mut respond) = server.next().await;
        let mut response = Response::new(());
        *response.status_mut() = status.try_into().unwrap();
        for (name, value) in fields {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        let mut sending = respond.send_response(response, end).unwrap();
        if !end {
            sending.send_data(Bytes::from_static(b"abc"), true).unwrap();
        }
        let head = stream.read_head().await.unwrap();
        assert_eq!(text(&head), format!("HTTP/1.1 {due}\r\n\r\n"), "{method} {status} {fields:?}");
        assert_eq!((head.status, head.body, head.suspicious), (status, body, false));
        assert_eq!(rest(&mut stream).await.unwrap(), if end { &b""[..] } else { b"abc" });
    }
}

#[tokio::test]
async fn interim_responses_come_one_by_one() {
    let (client, mut server) = pair().await;
    let mut stream = ask(&client, &get()).await;
    let (_, mut respond) = server.next().await;
    for value in ["</a>", "</b>"] {
        let hint = Response::builder().status(103).header("link", value).body(()).unwrap();
        respond.send_informational(hint).unwrap();
    }
    for value in ["</a>", "</b>"] {
        let head = stream.read_head().await.unwrap();
        assert_eq!(text(&head), format!("HTTP/1.1 103 Early Hints\r\nlink: {value}\r\n\r\n"));
    }
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(stream.read_head().await.unwrap().status, 200);
    assert!(rest(&mut stream).await.unwrap().is_empty());
}

#[tokio::test]
async fn large_bodies_go_both_ways() {
    let (client, mut server) = pair().await;
    let body: Bytes = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    let length = body.len() as u64;
    let wire = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n");
    for announced in [BodyLength::Known(length), BodyLength::Chunked] {
        let mut stream = ask(&client, &request(Method::POST, &wire, announced)).await;
        let (asked, mut respond) = server.next().await;
        let echo = tokio::spawn(async move {
            let body = Bytes::from(body_of(asked).await);
            let mut sending = respond.send_response(Response::new(()), false).unwrap();
            sending.send_data(body, false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("1"));
            sending.send_trailers(trailers).unwrap();
        });
        send(&mut stream, body.slice(..10), false).await.unwrap();
        send(&mut stream, body.slice(10..), true).await.unwrap();
        assert_eq!(stream.read_head().await.unwrap().body, BodyLength::Chunked);
        assert!(rest(&mut stream).await.unwrap() == body);
        assert_eq!(stream.trailers().unwrap()["x-sum"], "1");
        assert!(stream.trailers().is_none());
        echo.await.unwrap();
    }
}

#[tokio::test]
async fn a_body_is_as_long_as_was_announced() {
    let (client, _server) = pair().await;
    for (announced, data, end) in
        [(BodyLength::Known(5), "hell", true), (BodyLength::Known(5), "hello!", false), (BodyLength::None, "x", true)]
    {
        let mut stream = ask(&client, &request(Method::POST, POST, announced)).await;
        assert_eq!(send(&mut stream, data, end).await.unwrap_err().kind, FailureKind::Other, "{announced:?} {data}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_read_is_waited_for() {
    let (client, mut server) = pair().await;
    let mut stream = ask(&client, &request(Method::POST, POST, BodyLength::Chunked)).await;
    let (asked, mut respond) = server.next().await;
    let mut data = Bytes::from(vec![b'x'; 1_000_000]);
    let sent = poll_fn(|cx| Poll::Ready(stream.poll_send_body(cx, &mut data, true))).await;
    assert!(sent.is_pending(), "more is taken than the server's window of 64 KiB");
    assert!(data.len() > 900_000);
    // An answer comes all the same, and then the reading.
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(stream.read_head().await.unwrap().status, 200);
    let reading = tokio::spawn(body_of(asked));
    poll_fn(|cx| stream.poll_send_body(cx, &mut data, true)).await.unwrap();
    assert_eq!(reading.await.unwrap().len(), 1_000_000);
}

#[tokio::test]
async fn a_slow_reader_of_one_response_holds_up_no_other() {
    let (client, mut server) = pair().await;
    let large = Bytes::from(vec![b'x'; 2_000_000]);
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = ask(&client, &get()).await;
        let (_, mut respond) = server.next().await;
        respond.send_response(Response::new(()), false).unwrap().send_data(large.clone(), true).unwrap();
        stream.read_head().await.unwrap();
        slow.push(stream);
    }
    let mut quick = ask(&client, &get()).await;
    let (_, mut respond) = server.next().await;
    respond.send_response(Response::new(()), false).unwrap().send_data(large.clone(), true).unwrap();
    quick.read_head().await.unwrap();
    let body = tokio::time::timeout(Duration::from_secs(10), rest(&mut quick)).await;
    assert_eq!(body.expect("it is held up").unwrap().len(), large.len());
    for mut stream in slow {
        assert_eq!(rest(&mut stream).await.unwrap().len(), large.len());
    }
}

#[tokio::test]
async fn what_was_not_begun_may_be_sent_again() {
    let (client, mut server) = pair().await;
    let mut stream = ask(&client, &request(Method::POST, POST, BodyLength::Chunked)).await;
    let (_, mut respond) = server.next().await;
    respond.send_reset(Reason::REFUSED_STREAM);
    let error = stream.read_head().await.unwrap_err();
    assert_eq!((error.kind, error.untouched, error.begun), (FailureKind::Reset, true, false), "{error}");
    for data in ["x", ""] {
        let error = send(&mut stream, data, true).await.unwrap_err();
        assert_eq!((error.kind, error.untouched), (FailureKind::Reset, true), "{error}");
    }

    let mut stream = ask(&client, &get()).await;
    let (_, mut respond) = server.next().await;
    respond.send_reset(Reason::INTERNAL_ERROR);
    let error = stream.read_head().await.unwrap_err();
    assert_eq!((error.kind, error.untouched, error.begun), (FailureKind::Reset, false, false), "{error}");

    let mut stream = ask(&client, &get()).await;
    let (_, mut respond) = server.next().await;
    let mut sending = respond.send_response(Response::new(()), false).unwrap();
    stream.read_head().await.unwrap();
    sending.send_reset(Reason::REFUSED_STREAM);
    let error = rest(&mut stream).await.unwrap_err();
    assert_eq!((error.kind, error.untouched, error.begun), (FailureKind::Reset, false, true), "{error}");
}

#[tokio::test]
async fn a_connection_that_goes_away_finishes_what_it_has() {
    let (client, mut server) = pair().await;
    let mut stream = ask(&client, &get()).await;
    let mut waiting = client.open().unwrap();
    let (_, mut respond) = server.next().await;
    server.goodbye.send(()).unwrap();
    while !client.is_closed() {
        tokio::task::yield_now().await;
    }
    assert!(client.open().is_none());
    let error = waiting.send_head(&get()).await.unwrap_err();
    assert_eq!((error.untouched, error.begun), (true, false), "{error}");
    respond.send_response(Response::new(()), false).unwrap().send_data(Bytes::from_static(b"abc"), true).unwrap();
    stream.read_head().await.unwrap();
    assert_eq!(rest(&mut stream).await.unwrap(), b"abc");
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_reset() {
    let (client, mut server) = pair().await;
    let stream = ask(&client, &get()).await;
    assert_eq!(client.streams_in_use(), 1);
    let (_, mut respond) = server.next().await;
    drop(stream);
    assert_eq!(client.streams_in_use(), 0);
    assert_eq!(poll_fn(|cx| respond.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    // The connection goes on.
    let mut stream = ask(&client, &get()).await;
    server.next().await.1.send_response(Response::new(()), true).unwrap();
    assert_eq!(stream.read_head().await.unwrap().status, 200);
}

#[tokio::test]
async fn there_are_as_many_places_as_both_allow() {
    let (client, _server) = pair_with(server::Builder::new()).await;
    let all: Vec<_> = (0..100).map_while(|_| client.open()).collect();
    assert_eq!((all.len(), client.open().is_none(), client.streams_in_use()), (100, true, 100));
    drop(all);
    assert!(client.open().is_some());

    let (client, mut server) = pair_with(server::Builder::new().max_concurrent_streams(2).clone()).await;
    // The server's word has come with its answer.
    let mut stream = ask(&client, &get()).await;
    server.next().await.1.send_response(Response::new(()), true).unwrap();
    stream.read_head().await.unwrap();
    assert_eq!((client.max_streams(), client.streams_in_use()), (2, 1));
    let _second = client.open().unwrap();
    assert!(client.open().is_none());
    drop(stream);
    assert!(client.open().is_some());
}

#[tokio::test]
async fn a_connection_ends_with_its_last_use() {
    let (client, mut server) = pair().await;
    let mut stream = ask(&client.clone(), &get()).await;
    drop(client);
    let (_, mut respond) = server.next().await;
    respond.send_response(Response::new(()), false).unwrap().send_data(Bytes::from_static(b"abc"), true).unwrap();
    stream.read_head().await.unwrap();
    assert_eq!(rest(&mut stream).await.unwrap(), b"abc");
    drop(stream);
    server.has_ended().await;
}

#[tokio::test]
async fn a_connection_that_breaks_breaks_its_streams() {
    let (client, mut server) = pair().await;
    let (mut early, mut late) = (ask(&client, &get()).await, ask(&client, &get()).await);
    let _unanswered = server.next().await;
    let (_, mut respond) = server.next().await;
    let mut sending = respond.send_response(Response::new(()), false).unwrap();
    sending.send_data(Bytes::from_static(b"abc"), false).unwrap();
    late.read_head().await.unwrap();
    drop(server);
    let error = early.read_head().await.unwrap_err();
    assert_eq!((error.kind, error.untouched, error.begun), (FailureKind::Reset, false, false), "{error}");
    let error = rest(&mut late).await.unwrap_err();
    assert_eq!((error.kind, error.untouched, error.begun), (FailureKind::Reset, false, true), "{error}");
    while !client.is_closed() {
        tokio::task::yield_now().await;
    }
    assert!(client.open().is_none());
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let patience = Patience { quiet: Duration::from_millis(20), answer: Duration::from_millis(20) };
    // It begins, takes what comes, and says nothing more.
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    theirs.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
    let client = H2Client::with_patience(ours, 100, false, patience).await.unwrap();
    let mut stream = ask(&client, &get()).await;
    let given_up = tokio::time::timeout(Duration::from_secs(10), stream.read_head()).await;
    let error = given_up.expect("no end of waiting").unwrap_err();
    assert_eq!((error.kind, error.begun), (FailureKind::Timeout, false), "{error}");
    assert!(client.is_closed());
    drop(theirs);

    // One that answers pings takes as long as it likes.
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let mut server = serve(theirs, server::Builder::new()).await;
    let patience = Patience { answer: Duration::from_secs(60), ..patience };
    let client = H2Client::with_patience(ours, 100, false, patience).await.unwrap();
    let mut stream = ask(&client, &get()).await;
    let (_, mut respond) = server.next().await;
    let slow = tokio::time::timeout(Duration::from_millis(200), stream.read_head()).await;
    assert!(slow.is_err());
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(stream.read_head().await.unwrap().status, 200);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const DATA: u8 = 0;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a client makes of a server that says `bytes` after the request, and closes.
async fn said(bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    theirs.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
    let client = H2Client::handshake(ours, 100, true).await.unwrap();
    let mut stream = ask(&client, &get()).await;
    let mut came = BytesMut::new();
    // The preface, then frames until the request's.
    let mut at = 24;
    loop {
        if let Some([a, b, c, kind, ..]) = came.get(at..) {
            if *kind == HEADERS {
                break;
            }
            at += 9 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
        } else {
            assert_ne!(theirs.read_buf(&mut came).await.unwrap(), 0);
        }
    }
    theirs.write_all(bytes).await.unwrap();
    theirs.shutdown().await.unwrap();
    stream.read_head().await?;
    rest(&mut stream).await
}

#[tokio::test]
async fn what_is_cut_is_never_taken_for_whole() {
    // 0x88: the status 200; 0x5c: Content-Length.
    let plain = [0x88];
    let measured = [0x88, 0x5c, 0x01, b'5'];
    for fields in [&plain[..], &measured] {
        let head = frame(HEADERS, END_HEADERS, 1, fields);
        let ends = [
            [frame(DATA, 0, 1, b"he"), frame(DATA, END_STREAM, 1, b"llo")].concat(),
            [frame(DATA, 0, 1, b"hello"), frame(DATA, END_STREAM, 1, b"")].concat(),
        ];
        for end in ends {
            let all = [head.clone(), end].concat();
            assert_eq!(said(&all).await.unwrap(), b"hello");
            for cut in 0..all.len() {
                let error = said(&all[..cut]).await.expect_err("an error");
                assert_eq!((error.kind, error.begun), (FailureKind::Reset, cut >= head.len()), "{cut}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn what_contradicts_itself_is_refused() {
    let head = |fields: &[u8]| frame(HEADERS, END_HEADERS, 1, fields);
    let five = head(&[0x88, 0x5c, 0x01, b'5']);
    let cases = [
        ("too short", [five.clone(), frame(DATA, END_STREAM, 1, b"hell")].concat()),
        ("too long", [five.clone(), frame(DATA, END_STREAM, 1, b"hello!")].concat()),
        ("none", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88, 0x5c, 0x01, b'5'])),
        ("two lengths", head(&[0x88, 0x5c, 0x01, b'5', 0x5c, 0x01, b'6'])),
        ("a length that is none", head(&[0x88, 0x5c, 0x01, b'x'])),
        // 0x08: a status as text.
        ("a 101", head(&[0x08, 0x03, b'1', b'0', b'1'])),
        // 0x39 as an index of names: Transfer-Encoding.
        ("a coding", head(&[0x88, 0x0f, 0x2a, 0x07, b'c', b'h', b'u', b'n', b'k', b'e', b'd'])),
        ("no status", head(&[0x5c, 0x01, b'5'])),
        ("no frame", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec()),
    ];
    for (how, bytes) in cases {
        let error = said(&bytes).await.expect_err(how);
        assert_eq!((error.kind, error.untouched), (FailureKind::Invalid, false), "{how}: {error}");
    }
}
