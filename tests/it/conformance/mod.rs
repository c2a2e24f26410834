//! What RFC 9113 and RFC 7541 ask of a server of HTTP/2, rule by rule: bytes in, and how the edge takes them.
//!
//! The cases are those that a server is usually examined by: what is allowed must work, and what is not must be answered by
//! the error that the RFC names. An error of a stream may be taken for one of its connection (RFC 9113 §5.4.2).

mod wire;

use self::wire::*;
use crate::harness::{Edge, Origin, Reply};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

/// A frame of the wrong size (§4.2). The `h2` crate ends the connection as it must, but most often calls that by the more
/// general name.
const WRONG_SIZE: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];

/// A header section that cannot be decompressed (§4.3). The same holds.
const UNREADABLE: &[u32] = &[COMPRESSION_ERROR, PROTOCOL_ERROR];

/// How a case is to end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The connection lives: it answers a PING.
    Lives,
    /// Stream 1 is answered with this status, and the connection lives.
    Status(u16),
    /// Stream 1 is answered with what was sent.
    Echo(&'static [u8]),
    /// A RST_STREAM or GOAWAY with one of these codes.
    Stream(&'static [u32]),
    /// A GOAWAY with one of these codes, and the connection ends.
    Connection(&'static [u32]),
}

use End::{Connection, Echo, Lives, Status, Stream};

struct Case {
    rule: &'static str,
    what: &'static str,
    says: Vec<u8>,
    end: End,
}

fn case(rule: &'static str, what: &'static str, says: &[Vec<u8>], end: End) -> Case {
    Case { rule, what, says: says.concat(), end }
}

/// An ordinary origin; `/echo` says back what it is told.
async fn edge() -> (Origin, Edge) {
    let origin = Origin::start(|r| match r.path() {
        "/echo" => Reply::ok(r.body.clone()),
        "/stored" => Reply::ok("stored").cache_control("max-age=60"),
        _ => Reply::ok("hello"),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    (origin, edge)
}

/// Runs cases, each on a connection of its own, and tells of all that do not end as they should.
async fn run(cases: Vec<Case>) {
    let (_origin, edge) = edge().await;
    let mut failures = Vec::new();
    for case in &cases {
        if let Err(why) = examine(&edge, case).await {
            failures.push(format!("{} {}: expected {:?}, but {why}", case.rule, case.what, case.end));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

async fn examine(edge: &Edge, case: &Case) -> Result<(), String> {
    let mut raw = Raw::open(edge, &settings(&[])).await;
    raw.send(&case.says).await;
    let is_answered = |frame: &Frame| frame.flags & END_STREAM != 0 && matches!(frame.kind, HEADERS | DATA);
    let mut came = Vec::new();
    if let Status(_) | Echo(_) = case.end {
        came = raw.until(|frame| frame.stream == 1 && (is_answered(frame) || frame.kind == RST_STREAM)).await;
    }
    // A PING is answered before anything else.
    if let Stream(_) = case.end {
        came = raw.until(|frame| is_answered(frame) || matches!(frame.kind, RST_STREAM | GOAWAY)).await;
    }
    raw.send(&last_ping()).await;
    came.extend(raw.rest().await);
    let lives = came.last().is_some_and(|frame| frame.kind == PING);
    let ends_well = lives || came.last().is_some_and(|frame| frame.kind == GOAWAY && frame.code() == 0);
    let code = |kinds: &[u8]| came.iter().find(|frame| kinds.contains(&frame.kind)).map(Frame::code);
    let body = || {
        let data = came.iter().filter(|frame| frame.kind == DATA && frame.stream == 1);
        data.flat_map(|frame| frame.payload.clone()).collect::<Vec<u8>>()
    };
    let is_so = match case.end {
        Lives => lives && code(&[GOAWAY, RST_STREAM]).is_none(),
        Status(status) => ends_well && status_of(&came) == Some(status),
        Echo(said) => lives && status_of(&came) == Some(200) && body() == said,
        Stream(codes) => code(&[RST_STREAM, GOAWAY]).is_some_and(|code| codes.contains(&code)),
        Connection(codes) => !lives && code(&[GOAWAY]).is_some_and(|code| codes.contains(&code)),
    };
    let kinds: Vec<_> = came.iter().map(|frame| (frame.kind, frame.flags, frame.stream, frame.payload.len())).collect();
    if is_so { Ok(()) } else { Err(format!("there came {kinds:?}, of code {:?}", code(&[GOAWAY, RST_STREAM]))) }
}

/// The status of stream 1, which the edge says by the static table (RFC 7541 appendix A) or as a literal for index 8.
fn status_of(frames: &[Frame]) -> Option<u16> {
    let head = frames.iter().find(|frame| frame.kind == HEADERS && frame.stream == 1)?;
    match head.payload.first()? {
        0x88 => Some(200),
        0x89 => Some(204),
        0x8a => Some(206),
        0x8b => Some(304),
        0x8c => Some(400),
        0x8d => Some(404),
        0x8e => Some(500),
        // A literal with the static table's name: three digits, in Huffman code or plain.
        0x08 | 0x48 => match head.payload.get(1)? {
            3 => std::str::from_utf8(head.payload.get(2..5)?).ok()?.parse().ok(),
            _ => huffman_digits(head.payload.get(2..5)?),
        },
        _ => None,
    }
}

/// Three digits at the beginning of three bytes: `0`, `1` and `2` have five bits, the others six (RFC 7541 appendix B).
fn huffman_digits(bytes: &[u8]) -> Option<u16> {
    let bits = bytes.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << 8;
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = (bits << at) >> 27;
        let digit = if five < 3 {
            at += 5;
            five
        } else {
            let six = (bits << at) >> 26;
            at += 6;
            six.checked_sub(0x19)? + 3
        };
        number = number * 10 + digit;
    }
    u16::try_from(number).ok()
}

/// `N` bytes of padding behind `payload`, as a padded frame has them.
fn padded(padding: u8, payload: &[u8], there: usize) -> Vec<u8> {
    [&[padding][..], payload, &vec![0; there]].concat()
}

/// A priority: on which stream, and how much.
fn priority(on: u32) -> Vec<u8> {
    [&on.to_be_bytes()[..], &[15]].concat()
}

#[tokio::test]
async fn what_is_allowed_works() {
    let post = |fields: &[(&str, &str)]| [request("POST", "/echo"), block(fields)].concat();
    run(vec![
        case("§8.3.1", "GET", &[whole(1)], Status(200)),
        case("§8.3.1", "HEAD", &[frame(HEADERS, WHOLE, 1, &request("HEAD", "/"))], Status(200)),
        case("§8.3.1", "OPTIONS", &[frame(HEADERS, WHOLE, 1, &request("OPTIONS", "/"))], Status(200)),
        case("§8.1", "POST", &[open(1), frame(DATA, END_STREAM, 1, b"test")], Echo(b"test")),
        case(
            "§8.1",
            "POST with a length",
            &[frame(HEADERS, END_HEADERS, 1, &post(&[("content-length", "4")])), frame(DATA, END_STREAM, 1, b"test")],
            Echo(b"test"),
        ),
        case(
            "§8.1",
            "POST with trailers",
            &[open(1), frame(DATA, 0, 1, b"test"), frame(HEADERS, WHOLE, 1, &block(&[("x-test", "ok")]))],
            Echo(b"test"),
        ),
        case(
            "§6.1",
            "DATA in several frames, one of them empty",
            &[
                open(1),
                frame(DATA, 0, 1, b"te"),
                frame(DATA, 0, 1, b""),
                frame(DATA, 0, 1, b"st"),
                frame(DATA, END_STREAM, 1, b""),
            ],
            Echo(b"test"),
        ),
        case(
            "§6.1",
            "DATA with padding",
            &[open(1), frame(DATA, END_STREAM | PADDED, 1, &padded(6, b"test", 6))],
            Echo(b"test"),
        ),
        case(
            "§6.2",
            "HEADERS with padding",
            &[frame(HEADERS, WHOLE | PADDED, 1, &padded(6, &get("/"), 6))],
            Status(200),
        ),
        case(
            "§6.2",
            "HEADERS with a priority",
            &[frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[priority(0), get("/")].concat())],
            Status(200),
        ),
        case(
            "§6.2",
            "HEADERS with a priority and padding",
            &[frame(HEADERS, WHOLE | WITH_PRIORITY | PADDED, 1, &padded(3, &[priority(0), get("/")].concat(), 3))],
            Status(200),
        ),
        case(
            "§6.10",
            "CONTINUATION",
            &[
                frame(HEADERS, END_STREAM, 1, &get("/")),
                frame(CONTINUATION, END_HEADERS, 1, &field("x-dummy", "dummy")),
            ],
            Status(200),
        ),
        case(
            "§6.10",
            "CONTINUATION, several",
            &[
                frame(HEADERS, END_STREAM, 1, &get("/")[..3]),
                frame(CONTINUATION, 0, 1, &get("/")[3..20]),
                frame(CONTINUATION, END_HEADERS, 1, &get("/")[20..]),
            ],
            Status(200),
        ),
        case("§6.3", "PRIORITY, of an idle stream", &[frame(PRIORITY, 0, 1, &priority(0)), whole(1)], Status(200)),
        case(
            "§6.3",
            "PRIORITY, of a closed stream",
            &[whole(1), reset(1, 8), frame(PRIORITY, 0, 1, &priority(0))],
            Lives,
        ),
        case("§6.5.2", "SETTINGS of an unknown identifier", &[settings(&[(0xff, 1)])], Lives),
        case(
            "§6.5.3",
            "SETTINGS twice the same identifier",
            &[settings(&[(4, 100), (4, 1000)]), whole(1)],
            Status(200),
        ),
        case("§6.7", "PING with ACK", &[frame(PING, ACK, 0, b"unasked!")], Lives),
        case("§6.9", "WINDOW_UPDATE", &[whole(1), window_update(0, 1), window_update(1, 1)], Status(200)),
        case(
            "§6.8",
            "GOAWAY of an unknown code",
            &[whole(1), frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff])],
            Status(200),
        ),
        case("§7", "RST_STREAM of an unknown code", &[open(1), reset(1, 0xff)], Lives),
        case("§6.4", "RST_STREAM", &[open(1), reset(1, 8)], Lives),
        case("§5.5", "an unknown kind of frame", &[frame(0x16, 0, 0, b"unknown"), whole(1)], Status(200)),
        case("§4.1", "unknown flags", &[frame(PING, 0x16, 0, b"flagged!")], Lives),
        case("§4.1", "the reserved bit", &[frame(PING, 0, 1 << 31, b"reserved")], Lives),
        case(
            "§4.2",
            "DATA of 2^14 bytes",
            &[open(1), frame(DATA, END_STREAM, 1, &[b'x'; 1 << 14])],
            Echo(&[b'x'; 1 << 14]),
        ),
        case(
            "§8.2.2",
            "TE: trailers",
            &[frame(HEADERS, WHOLE, 1, &[get("/"), field("te", "trailers")].concat())],
            Status(200),
        ),
        case(
            "§8.2.3",
            "Cookie in pieces",
            &[frame(HEADERS, WHOLE, 1, &[get("/"), field("cookie", "a=1"), field("cookie", "b=2")].concat())],
            Status(200),
        ),
        case(
            "§8.3.1",
            "no :authority, but Host",
            &[frame(
                HEADERS,
                WHOLE,
                1,
                &block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "edge.test")]),
            )],
            Status(200),
        ),
        case(
            "§8.5",
            "CONNECT, which is refused",
            &[frame(HEADERS, WHOLE, 1, &block(&[(":method", "CONNECT"), (":authority", "edge.test:80")]))],
            Status(405),
        ),
        case(
            "RFC 7541 §6.1",
            "indexed fields",
            &[frame(HEADERS, WHOLE, 1, &[&[0x82, 0x86, 0x84][..], &field(":authority", "edge.test")].concat())],
            Status(200),
        ),
        case(
            "RFC 7541 §6.2.1",
            "a literal that is indexed, and is used",
            &[
                frame(HEADERS, WHOLE, 1, b"\x82\x86\x84\x41\x09edge.test"),
                frame(HEADERS, WHOLE, 3, b"\x82\x86\x84\xbe"),
            ],
            Status(200),
        ),
        case(
            "RFC 7541 §5.2",
            "Huffman code",
            &[
                // `/index.html` has an index; `www.example.com` is the RFC's own example (C.4.1).
                frame(HEADERS, WHOLE, 1, b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"),
            ],
            Status(200),
        ),
        case(
            "RFC 7541 §6.3",
            "a smaller table",
            &[frame(HEADERS, WHOLE, 1, &[&[0x20][..], &get("/")].concat())],
            Status(200),
        ),
    ])
    .await;
}

#[tokio::test]
async fn frames_are_as_they_must_be() {
    const LARGE: &[u8] = &[0; (1 << 14) + 1];
    run(vec![
        case(
            "§4.2",
            "DATA beyond the largest frame",
            &[open(1), frame(DATA, END_STREAM, 1, LARGE)],
            Stream(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "§4.2",
            "HEADERS beyond the largest frame",
            &[frame(HEADERS, WHOLE, 1, LARGE)],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case("§6.1", "DATA on no stream", &[frame(DATA, END_STREAM, 0, b"test")], Connection(&[PROTOCOL_ERROR])),
        case(
            "§6.1",
            "DATA with more padding than payload",
            &[open(1), frame(DATA, END_STREAM | PADDED, 1, &padded(6, b"test", 0))],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case("§6.2", "HEADERS on no stream", &[frame(HEADERS, WHOLE, 0, &get("/"))], Connection(&[PROTOCOL_ERROR])),
        case(
            "§6.2",
            "HEADERS with more padding than payload",
            &[frame(HEADERS, WHOLE | PADDED, 1, &[&[255][..], &get("/")].concat())],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "§6.2",
            "HEADERS with half a priority",
            &[frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[0, 0, 0])],
            Connection(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
        ),
        case(
            "§6.2",
            "HEADERS within the header section of another stream",
            &[frame(HEADERS, END_STREAM, 1, &get("/")), whole(3)],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "§6.2",
            "PRIORITY within a header section",
            &[frame(HEADERS, END_STREAM, 1, &get("/")), frame(PRIORITY, 0, 1, &priority(0))],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "§5.5",
            "an unknown kind of frame within a header section",
            &[frame(HEADERS, END_STREAM, 1, &get("/")), frame(0x16, 0, 0, b"unknown")],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case("§6.3", "PRIORITY on no stream", &[frame(PRIORITY, 0, 0, &priority(0))], Connection(&[PROTOCOL_ERROR])),
        case("§6.3", "PRIORITY of four bytes", &[open(1), frame(PRIORITY, 0, 1, &[0; 4])], Stream(WRONG_SIZE)),
        case("§6.4", "RST_STREAM on no stream", &[reset(0, 8)], Connection(&[PROTOCOL_ERROR])),
        case("§6.4", "RST_STREAM of an idle stream", &[reset(1, 8)], Connection(&[PROTOCOL_ERROR])),
        case("§6.4", "RST_STREAM of three bytes", &[open(1), frame(RST_STREAM, 0, 1, &[0; 3])], Connection(WRONG_SIZE)),
        case("§6.5", "SETTINGS with ACK and a payload", &[frame(SETTINGS, ACK, 0, &[0; 6])], Connection(WRONG_SIZE)),
        case(
            "§6.5",
            "SETTINGS of a stream",
            &[frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case("§6.5", "SETTINGS of three bytes", &[frame(SETTINGS, 0, 0, &[0; 3])], Connection(WRONG_SIZE)),
        case("§6.5.2", "ENABLE_PUSH of 2", &[settings(&[(2, 2)])], Connection(&[PROTOCOL_ERROR])),
        case(
            "§6.5.2",
            "INITIAL_WINDOW_SIZE of 2^31",
            &[settings(&[(4, 1 << 31)])],
            Connection(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR]),
        ),
        case("§6.5.2", "MAX_FRAME_SIZE below 2^14", &[settings(&[(5, (1 << 14) - 1)])], Connection(&[PROTOCOL_ERROR])),
        case("§6.5.2", "MAX_FRAME_SIZE above 2^24 - 1", &[settings(&[(5, 1 << 24)])], Connection(&[PROTOCOL_ERROR])),
        case("§6.7", "PING of a stream", &[frame(PING, 0, 1, &[0; 8])], Connection(&[PROTOCOL_ERROR])),
        case("§6.7", "PING of six bytes", &[frame(PING, 0, 0, &[0; 6])], Connection(WRONG_SIZE)),
        case("§6.8", "GOAWAY of a stream", &[frame(GOAWAY, 0, 1, &[0; 8])], Connection(&[PROTOCOL_ERROR])),
        case("§6.9", "WINDOW_UPDATE of nothing", &[window_update(0, 0)], Connection(&[PROTOCOL_ERROR])),
        case(
            "§6.9",
            "WINDOW_UPDATE of nothing, of a stream",
            &[open(1), window_update(1, 0)],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case("§6.9", "WINDOW_UPDATE of three bytes", &[frame(WINDOW_UPDATE, 0, 0, &[0; 3])], Connection(WRONG_SIZE)),
        case(
            "§6.9.1",
            "a window beyond 2^31 - 1",
            &[window_update(0, u32::MAX >> 1), window_update(0, u32::MAX >> 1)],
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "§6.9.1",
            "a stream's window beyond 2^31 - 1",
            &[open(1), window_update(1, u32::MAX >> 1), window_update(1, u32::MAX >> 1)],
            Stream(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "§6.10",
            "CONTINUATION on no stream",
            &[
                frame(HEADERS, END_STREAM, 1, &get("/")),
                frame(CONTINUATION, END_HEADERS, 0, &field("x-dummy", "dummy")),
            ],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "§6.10",
            "CONTINUATION behind a whole header section",
            &[
                frame(HEADERS, END_HEADERS, 1, &request("POST", "/echo")),
                frame(CONTINUATION, END_HEADERS, 1, &field("x-dummy", "dummy")),
            ],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "§6.10",
            "CONTINUATION behind the last CONTINUATION",
            &[
                frame(HEADERS, 0, 1, &request("POST", "/echo")),
                frame(CONTINUATION, END_HEADERS, 1, &field("x-dummy", "dummy")),
                frame(CONTINUATION, END_HEADERS, 1, &field("x-dummy", "dummy")),
            ],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "§6.10",
            "CONTINUATION behind DATA",
            &[open(1), frame(DATA, 0, 1, b"test"), frame(CONTINUATION, END_HEADERS, 1, &field("x-dummy", "dummy"))],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "§6.10",
            "DATA within a header section",
            &[frame(HEADERS, 0, 1, &request("POST", "/echo")), frame(DATA, END_STREAM, 1, b"test")],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "§8.4",
            "PUSH_PROMISE",
            &[frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &get("/")].concat())],
            Connection(&[PROTOCOL_ERROR]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn streams_are_in_their_states() {
    let doubtful = &[STREAM_CLOSED, PROTOCOL_ERROR];
    let continued = frame(CONTINUATION, END_HEADERS, 1, &field("x-dummy", "dummy"));
    let data = frame(DATA, END_STREAM, 1, b"test");
    run(vec![
        case("§5.1", "DATA of an idle stream", std::slice::from_ref(&data), Connection(&[PROTOCOL_ERROR])),
        case("§5.1", "WINDOW_UPDATE of an idle stream", &[window_update(1, 100)], Connection(&[PROTOCOL_ERROR])),
        case("§5.1", "CONTINUATION of an idle stream", std::slice::from_ref(&continued), Connection(&[PROTOCOL_ERROR])),
        case("§5.1", "DATA of a half-closed stream", &[whole(1), data.clone()], Stream(doubtful)),
        case("§5.1", "HEADERS of a half-closed stream", &[whole(1), whole(1)], Stream(doubtful)),
        case("§5.1", "CONTINUATION of a half-closed stream", &[whole(1), continued.clone()], Stream(doubtful)),
        case("§5.1", "HEADERS of a stream that was reset", &[open(1), reset(1, 8), whole(1)], Stream(doubtful)),
        case("§5.1", "DATA of a stream that was reset", &[open(1), reset(1, 8), data], Stream(doubtful)),
        case("§5.1", "CONTINUATION of a stream that was reset", &[open(1), reset(1, 8), continued], Stream(doubtful)),
        case("§5.1.1", "an even stream", &[whole(2)], Connection(&[PROTOCOL_ERROR])),
        case("§5.1.1", "a stream below the last", &[whole(5), whole(3)], Connection(&[PROTOCOL_ERROR, STREAM_CLOSED])),
        case(
            "§5.1.2",
            "more streams than may be",
            &[(0..200).flat_map(|n| open(2 * n + 1)).collect()],
            Stream(&[REFUSED_STREAM, PROTOCOL_ERROR]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn header_sections_are_as_they_must_be() {
    let wrong =
        |rule, what, head: Vec<u8>| case(rule, what, &[frame(HEADERS, WHOLE, 1, &head)], Stream(&[PROTOCOL_ERROR]));
    let with = |name: &str, value: &str| [get("/"), field(name, value)].concat();
    let length = |said: &str, pieces: &[&[u8]]| {
        let head = [request("POST", "/echo"), field("content-length", said)].concat();
        let mut says = vec![frame(HEADERS, END_HEADERS, 1, &head)];
        let last = pieces.len() - 1;
        says.extend(pieces.iter().enumerate().map(|(n, piece)| frame(DATA, u8::from(n == last), 1, piece)));
        says
    };
    run(vec![
        wrong("§8.2", "a name in upper case", with("X-TEST", "ok")),
        wrong("§8.2", "a name with a space", with("x test", "ok")),
        wrong("§8.2.1", "a name with a colon", with("x:test", "ok")),
        wrong("§8.2.1", "an empty name", with("", "ok")),
        wrong("§8.2.1", "a value with a line feed", with("x-test", "a\nb")),
        wrong("§8.2.1", "a value with a carriage return", with("x-test", "a\rb")),
        wrong("§8.2.1", "a value with a NUL", with("x-test", "a\0b")),
        wrong("§8.2.2", "Connection", with("connection", "keep-alive")),
        wrong("§8.2.2", "Keep-Alive", with("keep-alive", "timeout=5")),
        wrong("§8.2.2", "Proxy-Connection", with("proxy-connection", "keep-alive")),
        wrong("§8.2.2", "Transfer-Encoding", with("transfer-encoding", "chunked")),
        wrong("§8.2.2", "Upgrade", with("upgrade", "h2c")),
        wrong("§8.2.2", "TE of something else", with("te", "trailers, deflate;q=0.5")),
        wrong("§8.3", "an unknown pseudo-field", with(":test", "ok")),
        wrong("§8.3", "a response's pseudo-field", with(":status", "200")),
        wrong("§8.3", "a pseudo-field behind a field", [field("x-test", "ok"), get("/")].concat()),
        wrong("§8.3.1", "an empty :path", get("")),
        wrong("§8.3.1", "no :method", block(&[(":scheme", "http"), (":path", "/"), (":authority", "edge.test")])),
        wrong("§8.3.1", "no :scheme", block(&[(":method", "GET"), (":path", "/"), (":authority", "edge.test")])),
        wrong("§8.3.1", "no :path", block(&[(":method", "GET"), (":scheme", "http"), (":authority", "edge.test")])),
        wrong("§8.3.1", "two :method", [field(":method", "GET"), get("/")].concat()),
        wrong("§8.3.1", "two :scheme", [field(":scheme", "http"), get("/")].concat()),
        wrong("§8.3.1", "two :path", [field(":path", "/"), get("/")].concat()),
        wrong("§8.3.1", "two :authority", [field(":authority", "edge.test"), get("/")].concat()),
        case(
            "§8.1",
            "HEADERS again, without an end of the stream",
            &[open(1), frame(DATA, 0, 1, b"test"), frame(HEADERS, END_HEADERS, 1, &block(&[("x-test", "ok")]))],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case("§8.1.1", "less than the length", &length("5", &[b"test"]), Stream(&[PROTOCOL_ERROR])),
        case("§8.1.1", "more than the length", &length("3", &[b"test"]), Stream(&[PROTOCOL_ERROR])),
        case(
            "§8.1.1",
            "more than the length, in two frames",
            &length("5", &[b"test", b"test"]),
            Stream(&[PROTOCOL_ERROR]),
        ),
        case("§8.1.1", "a length that is none", &length("x", &[b"test"]), Stream(&[PROTOCOL_ERROR])),
        case(
            "§8.1.1",
            "a length, and no body",
            &[frame(HEADERS, WHOLE, 1, &[request("POST", "/echo"), field("content-length", "4")].concat())],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "§8.3.1",
            "neither :authority nor Host",
            &[frame(HEADERS, WHOLE, 1, &block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]))],
            Status(400),
        ),
        case(
            "§8.3.1",
            ":authority and Host that differ",
            &[frame(HEADERS, WHOLE, 1, &with("host", "other.test"))],
            Status(400),
        ),
    ])
    .await;
}

#[tokio::test]
async fn compression_is_as_it_must_be() {
    let wrong = |rule, what, head: &[u8]| {
        case(rule, what, &[frame(HEADERS, WHOLE, 1, &[&get("/"), head].concat())], Connection(UNREADABLE))
    };
    run(vec![
        case(
            "§4.3",
            "bytes that are no header section",
            &[frame(HEADERS, WHOLE, 1, &[0x82, 0x86, 0x84, 0x41, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])],
            Connection(UNREADABLE),
        ),
        wrong("RFC 7541 §2.3.3", "an index beyond both tables", &[0xff, 0x00]),
        wrong("RFC 7541 §2.3.3", "a literal with a name beyond both tables", &[0x7f, 0x40, 1, b'a']),
        wrong("RFC 7541 §6.1", "the index 0", &[0x80]),
        wrong("RFC 7541 §4.2", "another size of the table behind a field", &[0x20]),
        wrong("RFC 7541 §6.3", "a table larger than was allowed", &[0x3f, 0xff, 0xff, 0x7f]),
        wrong("RFC 7541 §5.2", "more than seven bits of padding", b"\x00\x04test\x82\x1f\xff"),
        wrong("RFC 7541 §5.2", "padding that is not of ones", b"\x00\x04test\x81\x00"),
        wrong("RFC 7541 §5.2", "the end of the string within it", b"\x00\x04test\x84\xff\xff\xff\xff"),
        wrong("RFC 7541 §5.1", "a number beyond 32 bits", &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        case(
            "RFC 7541 §5.2",
            "a string longer than its frame",
            &[frame(HEADERS, WHOLE, 1, &[&get("/"), &b"\x00\x04test\x7etoo short"[..]].concat())],
            Connection(UNREADABLE),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_preface_is_one() {
    let (_origin, edge) = edge().await;
    // Something else is a request of HTTP/1.1, which this is not.
    let mut raw = Raw::connect(&edge).await;
    raw.send(b"INVALID CONNECTION PREFACE\r\n\r\n").await;
    while raw.next().await.is_some() {}
    // SETTINGS and PING are acknowledged, each once.
    let mut raw = Raw::open(&edge, &settings(&[(4, 100)])).await;
    raw.send(&[frame(PING, 0, 0, b"12345678"), settings(&[]), last_ping()].concat()).await;
    let came = raw.rest().await;
    let acks = |kind| came.iter().filter(|frame| frame.kind == kind && frame.flags & ACK != 0).count();
    assert_eq!((acks(SETTINGS), acks(PING)), (2, 2), "{came:?}");
}

/// What the `h2` crate lets pass although the RFC calls it an error, and what becomes of it: nothing that anybody is harmed by.
#[tokio::test]
async fn what_is_let_pass_does_no_harm() {
    run(vec![case(
        "§8.1",
        "a pseudo-field in trailers goes no further",
        &[open(1), frame(DATA, 0, 1, b"test"), frame(HEADERS, WHOLE, 1, &block(&[(":method", "GET")]))],
        Echo(b"test"),
    )])
    .await;
    // §3.4: SETTINGS should be the first frame.
    let (_origin, edge) = edge().await;
    let mut raw = Raw::connect(&edge).await;
    raw.send(&[PREFACE, &last_ping(), &settings(&[])].concat()).await;
    let came = raw.rest().await;
    assert!(came.iter().all(|frame| frame.kind != GOAWAY), "{came:?}");
}

#[tokio::test]
async fn windows_are_kept_to() {
    let (_origin, edge) = edge().await;
    let data = |frames: &[Frame]| frames.iter().filter(|f| f.kind == DATA).map(|f| f.payload.len()).collect::<Vec<_>>();
    // §6.9.2: one byte at a time.
    let mut raw = Raw::open(&edge, &settings(&[(4, 1)])).await;
    raw.send(&whole(1)).await;
    let mut came = raw.until(|frame| frame.stream == 1 && frame.kind == DATA).await;
    assert_eq!(data(&came), [1]);
    raw.send(&[window_update(1, 1), last_ping()].concat()).await;
    came = raw.until(|frame| frame.stream == 1 && frame.kind == DATA).await;
    assert_eq!(data(&came), [1]);
    // A larger window from now on, for this stream too.
    raw.send(&settings(&[(4, 4)])).await;
    came = raw.until(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0 && frame.kind == DATA).await;
    assert_eq!(data(&came).iter().sum::<usize>(), 3, "{came:?}");
    // A window that has become negative has to be made up for.
    let mut raw = Raw::open(&edge, &settings(&[(4, 3)])).await;
    raw.send(&whole(1)).await;
    assert_eq!(data(&raw.until(|frame| frame.stream == 1 && frame.kind == DATA).await), [3]);
    raw.send(&[settings(&[(4, 2)]), window_update(1, 1), last_ping()].concat()).await;
    assert_eq!(data(&raw.rest().await), [0; 0]);
    raw.send(&window_update(1, 2)).await;
    assert_eq!(
        data(&raw.until(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0 && frame.kind == DATA).await),
        [2]
    );
    // And the client's: what it sends beyond the edge's window is an error. Nobody takes it: the server is deaf.
    let deaf = Origin::start_deaf(|_| Reply::never()).await;
    let edge = Edge::before(&deaf, "").await;
    let mut raw = Raw::open(&edge, &settings(&[])).await;
    raw.send(&open(1)).await;
    for _ in 0..400 {
        raw.send(&frame(DATA, 0, 1, &[0; 1 << 14])).await;
    }
    let came = raw.until(|frame| frame.stream == 1 && frame.kind == RST_STREAM).await;
    let end = came.iter().find(|frame| matches!(frame.kind, RST_STREAM | GOAWAY)).map(Frame::code);
    assert_eq!(end, Some(FLOW_CONTROL_ERROR));
}

#[tokio::test]
async fn what_has_no_body_has_no_data() {
    let (_origin, edge) = edge().await;
    let conditional = [get("/stored"), field("if-none-match", "*")].concat();
    // A miss or what is passed, a hit, and a 304.
    for (head, status) in [
        (request("HEAD", "/"), 200),
        (request("HEAD", "/stored"), 200),
        (request("HEAD", "/stored"), 200),
        (get("/stored"), 200),
        (conditional, 304),
    ] {
        let has_body = head == get("/stored");
        let mut raw = Raw::open(&edge, &settings(&[])).await;
        raw.send(&frame(HEADERS, WHOLE, 1, &head)).await;
        let came = raw
            .until(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0 && matches!(frame.kind, HEADERS | DATA))
            .await;
        assert_eq!(status_of(&came), Some(status), "{came:?}");
        assert_eq!(came.iter().any(|frame| frame.kind == DATA), has_body, "{came:?}");
    }
}
