//! Responses: framings, ends, limits.

use bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::super::chunked::{Chunks, Step};
use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// What is done with a response's head: its body's length, whether it is suspicious, whether its connection is kept.
async fn verdict(method: Method, bytes: &str) -> (BodyLength, bool, bool) {
    let mut conn = H1Conn::new(Script::whole(bytes.as_bytes(), End::Stay));
    conn.send_head(&request(method, GET, BodyLength::None)).await.unwrap();
    let head = conn.read_head().await.unwrap();
    (head.body, head.suspicious, conn.keeps)
}

#[tokio::test]
async fn a_body_is_as_long_as_its_head_says() {
    use BodyLength::{Chunked, Known, None, UntilClose};
    const TE: &str = "Transfer-Encoding: chunked\r\n";
    let cases: [(&str, BodyLength, bool, bool); 24] = [
        ("", UntilClose, false, false),
        ("Content-Length: 0\r\n", None, false, true),
        ("Content-Length: 3\r\n", Known(3), false, true),
        ("content-LENGTH:3\r\n", Known(3), false, true),
        ("Content-Length: 3, 3\r\n", Known(3), false, true),
        ("Content-Length: 3 ,3,3\r\nContent-Length: 3\r\n", Known(3), false, true),
        ("Content-Length: 18446744073709551615\r\n", Known(u64::MAX), false, true),
        ("Content-Length: 3\r\nContent-Length: 5\r\n", UntilClose, true, false),
        ("Content-Length: 3, 5\r\n", UntilClose, true, false),
        ("Content-Length: 3,\r\n", UntilClose, true, false),
        ("Content-Length:\r\n", UntilClose, true, false),
        ("Content-Length: +3\r\n", UntilClose, true, false),
        ("Content-Length: 3x\r\n", UntilClose, true, false),
        ("Content-Length: 18446744073709551616\r\n", UntilClose, true, false),
        (TE, Chunked, false, true),
        ("transfer-encoding:  CHUNKED \r\n", Chunked, false, true),
        ("Transfer-Encoding: gzip, chunked\r\n", UntilClose, true, false),
        ("Transfer-Encoding: identity\r\n", UntilClose, true, false),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", UntilClose, true, false),
        ("Transfer-Encoding:\r\n", UntilClose, true, false),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", Chunked, true, false),
        ("Transfer-Encoding: chunked\r\nContent-Length: x\r\n", Chunked, true, false),
        ("Content-Length: 3\r\nConnection: x, Close\r\n", Known(3), false, false),
        ("Content-Length: 3\r\nConnection: keep-alive\r\nConnection: close\r\n", Known(3), false, false),
    ];
    for (fields, body, suspicious, keeps) in cases {
        let due = (body, suspicious, keeps);
        assert_eq!(verdict(Method::GET, &format!("{OK}{fields}\r\n")).await, due, "{fields:?}");
    }
    // RFC 9112 §6.1, §9.3: the older version.
    let old = |fields: &str| format!("HTTP/1.0 200 OK\r\n{fields}\r\n");
    assert_eq!(verdict(Method::GET, &old("Content-Length: 3\r\n")).await, (Known(3), false, false));
    let keeps = old("Content-Length: 3\r\nConnection: Keep-Alive\r\n");
    assert_eq!(verdict(Method::GET, &keeps).await, (Known(3), false, true));
    assert_eq!(verdict(Method::GET, &old(TE)).await, (UntilClose, true, false));
    assert_eq!(verdict(Method::GET, &old("")).await, (UntilClose, false, false));
}

#[tokio::test]
async fn some_responses_have_no_body() {
    use BodyLength::None;
    for fields in ["", "Content-Length: 7\r\n", "Transfer-Encoding: chunked\r\n"] {
        let found = verdict(Method::HEAD, &format!("{OK}{fields}\r\n")).await;
        assert_eq!(found, (None, false, true), "HEAD {fields:?}");
        let found = verdict(Method::GET, &format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n")).await;
        assert_eq!(found, (None, false, true), "304 {fields:?}");
        // These may not announce one: what is announced may come.
        let announced = !fields.is_empty();
        for status in ["204 No Content", "103 Early Hints"] {
            let found = verdict(Method::GET, &format!("HTTP/1.1 {status}\r\n{fields}\r\n")).await;
            assert_eq!(found, (None, announced, !announced), "{status} {fields:?}");
        }
    }
    let found = verdict(Method::GET, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(found, (None, false, true));
}

/// Responses that are whole, with their bodies.
const WHOLE: [(&str, &str); 8] = [
    ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0A  ; x=\"\\\"\"\r\n0123456789\r\n0\r\n\r\n",
        "abc0123456789",
    ),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n000;x\r\nX-Sum: 1\r\nX-B:\r\n\r\n", "a"),
    (
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Nope\r\nContent-Length: 2\r\n\r\nno",
        "no",
    ),
    ("\r\nHTTP/1.1 200 OK\nX: y\nContent-Length: 3\r\n\nabc", "abc"),
    ("HTTP/1.1 200\r\nX-Odd: \u{e9}\t\r\nContent-Length: 1\r\n\r\nx", "x"),
    ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", "x"),
];

#[tokio::test]
async fn however_it_comes_it_is_the_same() {
    for (bytes, body) in WHOLE {
        let whole = said(bytes).await.unwrap_or_else(|error| panic!("{bytes:?}: {error}"));
        assert_eq!(String::from_utf8_lossy(&whole.body), body, "{bytes:?}");
        assert!(whole.reusable, "{bytes:?}");
        let pieces: Vec<Bytes> = bytes.bytes().map(|byte| Bytes::copy_from_slice(&[byte])).collect();
        let mut script = Script::new(pieces, End::Stay);
        script.is_slow = true;
        let slow = take(script, &get()).await.unwrap();
        assert_eq!(format!("{slow:?}"), format!("{whole:?}"));
    }
}

/// Where heads begin: the first one, and each one after an interim one.
fn beginnings(bytes: &str) -> Vec<usize> {
    let mut beginnings = vec![0];
    while let Some(&at) = beginnings.last()
        && bytes[at..].starts_with("HTTP/1.1 1")
        && let Some(length) = bytes[at..].find("\r\n\r\n")
    {
        beginnings.push(at + length + 4);
    }
    beginnings
}

#[tokio::test]
async fn what_is_cut_is_never_taken_for_whole() {
    for (bytes, _) in WHOLE {
        for end in [End::Close, End::Reset] {
            for cut in 0..bytes.len() {
                let error = match take(Script::whole(&bytes.as_bytes()[..cut], end), &get()).await {
                    Ok(taken) => panic!("{bytes:?}, cut at {cut}: {taken:?}"),
                    Err(error) => error,
                };
                assert_eq!(error.kind, FailureKind::Reset, "{bytes:?}, cut at {cut}: {error}");
                // Of a response that counts, nothing has come where an interim one has just ended.
                assert_eq!(error.begun, !beginnings(bytes).contains(&cut), "{bytes:?}, cut at {cut}");
                assert!(!error.untouched);
            }
            let whole = take(Script::whole(bytes.as_bytes(), end), &get()).await.unwrap();
            assert!(whole.reusable);
        }
    }
}

#[tokio::test]
async fn a_body_until_the_end_of_the_connection() {
    let bytes = format!("{OK}\r\nabc");
    let taken = take(Script::whole(bytes.as_bytes(), End::Close), &get()).await.unwrap();
    assert_eq!((&*taken.body, taken.reusable), (&b"abc"[..], false));
    let error = take(Script::whole(bytes.as_bytes(), End::Reset), &get()).await.unwrap_err();
    assert_eq!((error.kind, error.begun), (FailureKind::Reset, true));
}

#[tokio::test]
async fn what_is_no_http_is_refused_at_once() {
    let field = |line: &str| format!("{OK}{line}\r\nContent-Length: 0\r\n\r\n");
    let chunks = |rest: &str| format!("{OK}Transfer-Encoding: chunked\r\n\r\n{rest}");
    let cases = [
        "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
        "\0\0\u{12}\u{4}".to_owned(),
        "\nHTTP/1.1 200 OK\r\n\r\n".to_owned(),
        "\rX".to_owned(),
        "\r\n".repeat(5),
        "HTTP/2.0 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.2 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 banana OK\r\n\r\n".to_owned(),
        "HTTP/1.1 099 Odd\r\n\r\n".to_owned(),
        "HTTP/1.1 2000 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 20\r\n\r\n".to_owned(),
        "HTTP/1.1  200 OK\r\n\r\n".to_owned(),
        field("X : y"),
        field(" X: y"),
        field("X: y\r\n z"),
        field("X: y\r\n\tz"),
        field("X: y\rZ: a"),
        field("X: y\0z"),
        field("X: \u{7f}"),
        field("no colon"),
        field(": y"),
        field("X y: z"),
        chunks("zz\r\n"),
        chunks("-3\r\nabc\r\n"),
        chunks("+3\r\nabc\r\n"),
        chunks(" 3\r\nabc\r\n"),
        chunks("0x3\r\nabc\r\n"),
        chunks("3 x\r\nabc\r\n"),
        chunks("3\nabc\r\n"),
        chunks("3;a\nb\r\nabc\r\n"),
        chunks("3;a\rb\r\nabc\r\n"),
        chunks("3;a\0b\r\nabc\r\n"),
        chunks("\r\n"),
        chunks(";a\r\n"),
        chunks("00000000000000003\r\nabc\r\n"),
        chunks("2\r\nabc\r\n0\r\n\r\n"),
        chunks("3\r\nabc\n0\r\n\r\n"),
        chunks("3\r\nabc\rx"),
        chunks("0\r\nX-A : b\r\n\r\n"),
        chunks("0\r\nX: a\nY: b\r\n\r\n"),
        chunks("0\r\nX: a\r\n b\r\n\r\n"),
        chunks("0\r\nno colon\r\n\r\n"),
    ];
    for bytes in cases {
        // The server keeps the connection open: nothing waits for more of it.
        let error = said(&bytes).await.err().unwrap_or_else(|| panic!("{bytes:?} is taken"));
        assert_eq!((error.kind, error.begun), (FailureKind::Invalid, true), "{bytes:?}: {error}");
    }
}

#[tokio::test]
async fn nothing_grows_without_bound() {
    let long = "x".repeat(300 * 1024);
    let fields = |count| "X: y\r\n".repeat(count);
    let chunked = format!("{OK}Transfer-Encoding: chunked\r\n\r\n");
    let refused = [
        (format!("{OK}X: {long}"), "header section too large"),
        (format!("{OK}X: {long}\r\n\r\n"), "header section too large"),
        (format!("{OK}{}", "X: y\r\n".repeat(50_000)), "header section too large"),
        (format!("{OK}{}\r\n", fields(257)), "more than 256 header fields"),
        (format!("{chunked}3;{}", &long[..5000]), "a chunk's size line too long"),
        (format!("{chunked}3;{}\r\nabc\r\n", &long[..5000]), "a chunk's size line too long"),
        (format!("{chunked}0\r\nX: {}", &long[..20_000]), "trailers too large"),
        (format!("{chunked}0\r\n{}\r\n", "X-Long: y\r\n".repeat(65)), "malformed trailers"),
    ];
    for (bytes, why) in refused {
        assert_eq!(said(&bytes).await.unwrap_err().why, why);
    }
    let large = format!("{OK}{}X: {}\r\nContent-Length: 1\r\n\r\nx", fields(254), &long[..200_000]);
    assert_eq!(said(&large).await.unwrap().head.wire.len(), large.len() - 1);
    let edge = format!("{chunked}1;{}\r\nx\r\n0\r\nX: {}\r\n\r\n", &long[..4000], &long[..16_000]);
    assert_eq!(said(&edge).await.unwrap().body, b"x");
}

#[tokio::test]
async fn a_head_is_handed_on_as_it_came() {
    let head = "HTTP/1.1 200  Very  OK\r\nx-a:b \r\nX-A: c\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(said(head).await.unwrap().head.wire, head);
    // Empty lines before it are nothing of it, and lines end one way.
    let odd = "\r\n\r\nHTTP/1.1 200 OK\nx-a:b \nX-A: c\r\nContent-Length: 0\n\n";
    let wire = "HTTP/1.1 200 OK\r\nx-a: b\r\nX-A: c\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(said(odd).await.unwrap().head.wire, wire);
}

#[tokio::test]
async fn trailers_are_kept_apart() {
    let taken = said(WHOLE[3].0).await.unwrap();
    assert_eq!(taken.trailers, ["x-sum: 1", "x-b: "]);
    assert!(said(WHOLE[2].0).await.unwrap().trailers.is_empty());
}

#[tokio::test]
async fn a_change_of_protocol_is_for_those_who_asked() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let bytes = format!("{head}HTTP/1.1 103 tunnel");
    let error = said(&bytes).await.unwrap_err();
    assert_eq!((error.kind, error.begun), (FailureKind::Invalid, true));
    let asked = request(Method::GET, UPGRADE, BodyLength::None);
    let old = bytes.replace("HTTP/1.1 101", "HTTP/1.0 101");
    assert!(take(Script::whole(old.as_bytes(), End::Close), &asked).await.is_err());

    let mut conn = H1Conn::new(Script::whole(bytes.as_bytes(), End::Close));
    conn.send_head(&asked).await.unwrap();
    let mut data = Bytes::from_static(b"raw");
    let taken = receive(&mut conn).await.unwrap();
    assert_eq!((taken.head.status, taken.head.body), (101, BodyLength::UntilClose));
    assert_eq!((&*taken.body, taken.reusable), (&b"HTTP/1.1 103 tunnel"[..], false));
    poll_fn(|cx| conn.poll_send_body(cx, &mut data, true)).await.unwrap();
    assert_eq!(conn.io.written(), format!("{UPGRADE}raw"));
    assert!(conn.io.is_shut);
}

#[tokio::test]
async fn a_connection_carries_one_request_after_the_other() {
    let one = format!("{OK}Content-Length: 3\r\n\r\nabc");
    let mut conn = H1Conn::new(Script::new(vec![one.clone(), one.clone(), format!("{one}evil")], End::Stay));
    for reusable in [true, true, false] {
        conn.send_head(&get()).await.unwrap();
        assert!(!conn.is_reusable());
        let taken = receive(&mut conn).await.unwrap();
        assert_eq!((&*taken.body, taken.reusable), (&b"abc"[..], reusable));
    }
    // What was not asked for is no answer to anything.
    assert_eq!(conn.send_head(&get()).await.unwrap_err().kind, FailureKind::Other);
}

#[tokio::test]
async fn what_follows_a_body_is_left_for_the_check() {
    let head = format!("{OK}Content-Length: 3\r\n\r\n");
    let mut conn = H1Conn::new(Script::new(vec![head, "abcevil".to_owned()], End::Stay));
    conn.send_head(&get()).await.unwrap();
    assert!(receive(&mut conn).await.unwrap().reusable);
    poll_fn(|cx| conn.poll_idle(cx)).await;
    assert!(conn.send_head(&get()).await.is_err());
}

#[tokio::test]
async fn an_idle_connection_is_watched() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for speaks in [false, true] {
        let mut conn = H1Conn::new(TcpStream::connect(address).await.unwrap());
        let (mut server, _) = listener.accept().await.unwrap();
        assert!(poll_fn(|cx| Poll::Ready(conn.poll_idle(cx))).await.is_pending());
        if speaks {
            server.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        } else {
            drop(server);
        }
        poll_fn(|cx| conn.poll_idle(cx)).await;
        assert!(conn.send_head(&get()).await.is_err());
    }
}

#[tokio::test]
async fn a_large_body_is_whole() {
    let body: Vec<u8> = (0..10_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (client, mut server) = tokio::io::duplex(100_000);
    let mut conn = H1Conn::new(client);
    let sent = body.clone();
    let serving = tokio::spawn(async move {
        server.write_all(format!("{OK}Content-Length: {}\r\n\r\n", sent.len()).as_bytes()).await.unwrap();
        server.write_all(&sent).await.unwrap();
        server
    });
    conn.send_head(&get()).await.unwrap();
    let taken = receive(&mut conn).await.unwrap();
    assert!(taken.body == body && taken.reusable);
    serving.await.unwrap();
}

/// All that is taken out of chunks, in pieces of some sizes.
fn decoded(bytes: &[u8], sizes: &[usize]) -> Result<Option<Vec<u8>>, WireError> {
    let (mut chunks, mut input, mut body) = (Chunks::default(), BytesMut::new(), Vec::new());
    let (mut rest, mut sizes) = (bytes, sizes.iter().copied().chain(std::iter::repeat(7)));
    loop {
        match chunks.decode(&mut input)? {
            Step::Data(data) => body.extend_from_slice(&data),
            Step::End => return Ok(input.is_empty().then_some(body)),
            Step::More if rest.is_empty() => return Ok(None),
            Step::More => {
                let (now, later) = rest.split_at(sizes.next().unwrap().clamp(1, rest.len()));
                input.extend_from_slice(now);
                rest = later;
            }
        }
    }
}

proptest! {
    /// Whatever is chunked comes out as it was, however it is cut; and nothing short of all of it is an end.
    #[test]
    fn chunks_come_out_as_they_went_in(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
        sizes in prop::collection::vec(1_usize..20, 0..50),
        extension in "(;[a-z]{1,8}(=[a-z]{1,3})?)?",
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        for part in &parts {
            bytes.extend_from_slice(format!("{:X}{extension}\r\n", part.len()).as_bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\nX-A: b\r\n\r\n");
        prop_assert_eq!(decoded(&bytes, &sizes).unwrap(), Some(parts.concat()));
        prop_assert_eq!(decoded(&bytes[..cut.index(bytes.len())], &sizes).unwrap(), None);
    }

    /// No bytes whatsoever do any harm, whether they come at once or in pieces; and both ways say the same.
    #[test]
    fn nothing_that_comes_does_harm(
        whole in prop::sample::select(&WHOLE[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[\r\n:;,0-9a-zA-Z \t\0\\xff]{0,3}"), 0..4),
        sizes in prop::collection::vec(1_usize..30, 0..20),
        method in prop::sample::select(vec![Method::GET, Method::HEAD]),
    ) {
        let mut bytes = whole.0.as_bytes().to_vec();
        for (at, change) in changes {
            let at = at.index(bytes.len().max(1));
            bytes.splice(at..(at + 1).min(bytes.len()), change.bytes());
        }
        check_alike(&bytes, &sizes, method)?;
    }

    #[test]
    fn noise_does_no_harm(
        start in prop::sample::select(vec!["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        sizes in prop::collection::vec(1_usize..30, 0..20),
    ) {
        check_alike(&[start.as_bytes(), &noise].concat(), &sizes, Method::GET)?;
    }
}

fn check_alike(bytes: &[u8], sizes: &[usize], method: Method) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let head = request(method, UPGRADE, BodyLength::None);
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for size in sizes {
        let (now, later) = rest.split_at((*size).min(rest.len()));
        pieces.push(Bytes::copy_from_slice(now));
        rest = later;
    }
    pieces.push(Bytes::copy_from_slice(rest));
    let whole = runtime.block_on(take(Script::whole(bytes, End::Close), &head));
    let parts = runtime.block_on(take(Script::new(pieces, End::Close), &head));
    match (&whole, &parts) {
        // What came too much may be left in the socket.
        (Ok(whole), Ok(parts)) => {
            prop_assert_eq!((&whole.head.wire, &whole.body), (&parts.head.wire, &parts.body));
            prop_assert_eq!(&whole.trailers, &parts.trailers);
        }
        (Err(whole), Err(parts)) => prop_assert_eq!(whole.kind, parts.kind),
        _ => prop_assert!(false, "{:?}, but in pieces {:?}", whole, parts),
    }
    Ok(())
}

#[tokio::test]
async fn interim_responses_come_one_by_one() {
    let bytes = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 Gone\r\n\r\n";
    let taken = said(bytes).await.unwrap();
    assert_eq!((taken.interim, taken.head.status), (vec![103, 100], 204));
}
