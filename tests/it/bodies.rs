//! Bodies on their way through: as they come, both ways, and what goes before and after them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{Ask, Edge, End, Gate, Origin, Port, Reply, eventually, within};

const MIB: usize = 1 << 20;

/// `n` bytes that differ from place to place.
fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8).collect()
}

/// A client that sees every byte, since what comes before a response is the subject.
pub struct Raw(TcpStream);

impl Raw {
    pub async fn open(edge: &Edge) -> Raw {
        Raw(within("a connection", TcpStream::connect(edge.address())).await.expect("a connection"))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("the edge to take it", self.0.write_all(bytes.as_ref())).await.expect("sent");
    }

    /// What comes, up to and with `end`; or all of it, where the stream ends before.
    pub async fn until(&mut self, end: &str) -> String {
        let mut got = Vec::new();
        while !got.ends_with(end.as_bytes()) {
            match within(end, self.0.read_u8()).await {
                Ok(byte) => got.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&got).into_owned()
    }
}

#[tokio::test]
async fn an_upload_streams() {
    let origin = Origin::start(|r| Reply::ok(r.body.len().to_string())).await;
    let edge = Edge::before(&origin, "").await;
    let body = pattern(10 * MIB);
    let mut client = edge.connect().await;
    client.send(format!("PUT /up HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    client.send(&body[..MIB]).await;
    // The origin has the first piece before the client has sent the last.
    eventually("the first MiB at the origin", async || origin.seen().first().is_some_and(|r| r.body.len() == MIB))
        .await;
    client.send(&body[MIB..]).await;
    assert_eq!(client.response("PUT").await.text(), body.len().to_string());
    let seen = &origin.seen()[0];
    assert_eq!(seen.header("Content-Length"), Some(&*body.len().to_string()));
    assert!(seen.complete && seen.body == body, "the body has changed on its way");
    assert_eq!(edge.access_log_lines(1).await[0]["bytes_received"], body.len());
}

#[tokio::test]
async fn a_chunked_upload_streams() {
    let origin = Origin::start(|r| Reply::ok(r.body.len().to_string())).await;
    let edge = Edge::before(&origin, "").await;
    let mut client = edge.connect().await;
    client.send("POST /up HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n").await;
    eventually("the first chunk at the origin", async || {
        origin.seen().first().is_some_and(|r| r.body == b"abc" && !r.complete)
    })
    .await;
    client.send("A\r\n0123456789\r\n0\r\n\r\n").await;
    assert_eq!(client.response("POST").await.text(), "13");
    let seen = &origin.seen()[0];
    assert_eq!((seen.body.as_slice(), seen.complete), (&b"abc0123456789"[..], true));
    // The connection is in a known state: another request goes over it.
    assert_eq!(client.ask(&Ask::new("POST", "/up").body("xy")).await.text(), "2");
}

#[tokio::test]
async fn a_response_streams() {
    let gate = Gate::new();
    let reply = Reply::ok("first").wait(&gate).body("second").chunked();
    let known = Reply::ok("first").wait(&gate).body("second");
    let origin = Origin::start(move |r| if r.path() == "/chunked" { reply.clone() } else { known.clone() }).await;
    let edge = Edge::before(&origin, "cache: off").await;
    let mut waiting = Vec::new();
    for path in ["/chunked", "/known"] {
        let mut client = edge.connect().await;
        client.send(Ask::get(path).bytes()).await;
        let head = client.head("GET").await;
        assert_eq!(client.bytes(5).await, b"first", "{path}");
        waiting.push((client, head));
    }
    gate.open();
    for (mut client, head) in waiting {
        assert_eq!(client.rest(head).await.text(), "second");
    }
}

#[tokio::test]
async fn expect_100_continue() {
    let origin = Origin::start(|r| Reply::ok(r.body.len().to_string())).await;
    let edge = Edge::before(&origin, "").await;
    let mut client = Raw::open(&edge).await;
    let head =
        "PUT /up HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    client.send(head).await;
    // The client is told to go on before it has sent a byte of the body.
    let interim = client.until("\r\n\r\n").await;
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    client.send("hello").await;
    let response = client.until("\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert_eq!(client.until("\0").await, "5");
    assert_eq!(origin.seen()[0].body, b"hello");
}

#[tokio::test]
async fn a_body_that_was_asked_for_is_not_the_connections_last() {
    let origin = Origin::start(|r| Reply::ok(r.body.len().to_string())).await;
    let edge = Edge::before(&origin, "").await;
    let mut client = edge.connect().await;
    for _ in 0..2 {
        client
            .send("PUT /up HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")
            .await;
        let response = client.response("PUT").await;
        assert_eq!((response.status, response.text(), response.interim.len()), (200, "5", 1));
        assert!(!response.headers.lists("Connection", "close"), "{response:?}");
    }
}

#[tokio::test]
async fn an_origin_may_refuse_before_the_body() {
    let origin = Origin::start_deaf(|_| Reply::new(417).body("no")).await;
    let edge = Edge::start(&(Edge::yaml_before(&[&origin], "") + "limits: { body_timeout: 400ms }\n")).await;
    let mut client = edge.connect().await;
    client.send("PUT /up HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    let response = client.response("PUT").await;
    assert_eq!((response.status, response.text(), response.interim.len()), (417, "no", 0));
    // The rest of the body may or may not come, so nobody can tell where the next request would begin.
    assert!(response.headers.lists("Connection", "close"), "{response:?}");
    client.closed().await;
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_does_not_cut_the_answer_short() {
    let gate = Gate::new();
    let reply = Reply::ok("first").wait(&gate).body("second");
    let origin = Origin::start_deaf(move |_| reply.clone()).await;
    let limits = "limits: { body_timeout: 400ms, body_min_rate: 1KiB/s }\n";
    let edge = Edge::start(&(Edge::yaml_before(&[&origin], "") + limits)).await;
    let mut client = edge.connect().await;
    client.send("PUT /up HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    let head = client.head("PUT").await;
    assert_eq!(client.bytes(5).await, b"first");
    // Longer than the body may take, which need not come any more.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    gate.open();
    assert_eq!(client.rest(head).await.text(), "second");
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_upload() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::before(&origin, "").await;
    for reset in [true, false] {
        let mut client = edge.connect().await;
        client.send("POST /up HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 10\r\n\r\nabc").await;
        origin.wait_for_open(1).await;
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        origin.wait_for_open(0).await;
    }
    assert!(origin.seen().iter().all(|r| !r.complete));
    assert_eq!(edge.ask(&Ask::new("POST", "/up").body("whole")).await.text(), "x");
}

#[tokio::test]
async fn trailers_do_not_break_a_response() {
    let origin = Origin::start(|_| Reply::ok("body").trailer("X-Sum", "4")).await;
    let edge = Edge::before(&origin, "routes: [{ match: { path: /off }, cache: off }]").await;
    let mut client = edge.connect().await;
    for path in ["/off", "/on", "/off"] {
        let response = client.ask(&Ask::get(path)).await;
        assert_eq!((response.status, response.text()), (200, "body"));
        // A proxy may drop them (RFC 9110 §6.5.1); it must not take them for header fields.
        assert_eq!(response.header("X-Sum"), None);
    }
    assert_eq!(origin.accepted(), 1, "the connection to the origin is in a known state");
}

#[tokio::test]
async fn early_hints_pass() {
    let gate = Gate::new();
    let reply = Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        .wait(&gate)
        .body("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\npage");
    let origin = Origin::start(move |_| reply.clone()).await;
    let yaml = Edge::yaml_before(&[&origin], "routes: [{ match: { path: /off }, cache: off }]");
    let edge = Edge::start(&yaml).await;
    for path in ["/off", "/stored"] {
        // They are of use only before the page is there.
        let mut client = Raw::open(&edge).await;
        client.send(Ask::get(path).bytes()).await;
        let hints = client.until("\r\n\r\n").await;
        assert!(hints.starts_with("HTTP/1.1 103 ") && hints.contains("</a.css>; rel=preload"), "{path}: {hints}");
        gate.let_one_through();
        let head = client.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
        assert_eq!(client.until("page").await, "page");
    }
    // They are no part of what is stored.
    let response = edge.get("/stored").await;
    assert_eq!((response.text(), response.interim.len(), origin.count()), ("page", 0, 2), "{response:?}");
}

#[tokio::test]
async fn early_hints_that_come_with_the_final_head_pass_too() {
    let reply = Reply::raw(
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Hint: 1\r\n\r\n\
         HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\npage",
    );
    let origin = Origin::start(move |_| reply.clone()).await;
    let yaml = Edge::yaml_before(&[&origin], "routes: [{ match: { path: /off }, cache: off }]");
    let edge = Edge::start(&yaml).await;
    for path in ["/off", "/stored"] {
        let response = edge.get(path).await;
        let interim: Vec<_> = response.interim.iter().map(|head| head.0).collect();
        assert_eq!((response.text(), &*interim), ("page", &[102, 103][..]), "{path}: {response:?}");
        assert_eq!(response.interim[1].1.get("Link"), Some("</a.css>; rel=preload"));
        assert_eq!(response.header("X-Hint"), None);
    }
    let response = edge.get("/stored").await;
    assert_eq!((response.text(), response.interim.len(), origin.count()), ("page", 0, 2), "{response:?}");
    assert_eq!(response.header("X-Hint"), None, "no field of theirs is stored");
    // To a client of HTTP/1.0 nothing interim may be sent.
    let mut old = Raw::open(&edge).await;
    old.send("GET /old HTTP/1.0\r\nHost: edge.test\r\n\r\n").await;
    assert!(old.until("\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_websocket_carries_both_ways() {
    let port = Port::reserve();
    let listener = port.listen();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a request"));
        }
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: x\r\n\r\nwelcome";
        stream.write_all(answer.as_bytes()).await.expect("sent");
        let mut piece = [0; 1024];
        loop {
            match stream.read(&mut piece).await {
                Ok(n) if n > 0 => stream.write_all(&piece[..n].to_ascii_uppercase()).await.expect("sent"),
                _ => return String::from_utf8_lossy(&head).into_owned(),
            }
        }
    });
    let yaml = format!(
        "origins: {{ o: {{ servers: [\"{}\"] }} }}\nsites: [{{ hosts: [\"*\"], origin: o }}]\nlimits: {{ idle_timeout: 200ms }}\n",
        port.address()
    );
    let edge = Edge::start(&yaml).await;
    let mut client = Raw::open(&edge).await;
    client
        .send("GET /ws HTTP/1.1\r\nHost: edge.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
        .await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("upgrade: websocket\r\n"), "{head}");
    // The server speaks first, then each message comes back; a pause longer than idle_timeout changes nothing.
    assert_eq!(client.until("welcome").await, "welcome");
    client.send("hello").await;
    assert_eq!(client.until("HELLO").await, "HELLO");
    let mut idle = edge.connect().await;
    assert_eq!(idle.closed().await, (End::Clean, Vec::new()));
    client.send("again").await;
    assert_eq!(client.until("AGAIN").await, "AGAIN");
    drop(client);
    let asked = within("the server's end of the connection", server).await.expect("a server without a panic");
    let asked = asked.to_ascii_lowercase();
    assert!(asked.contains("\r\nupgrade: websocket\r\n") && asked.contains("sec-websocket-key: k"), "{asked}");
    assert_eq!(edge.access_log_lines(1).await[0]["status"], 101);
}

#[tokio::test]
async fn a_tunnel_ends_without_a_word_of_the_edges() {
    let gate = Gate::new();
    let begin = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nwelcome";
    let (stalls, resets) = (Reply::raw(begin).stall(), Reply::raw(begin).wait(&gate).reset());
    let origin = Origin::start(move |r| if r.path() == "/idle" { stalls.clone() } else { resets.clone() }).await;
    let yaml = format!(
        "origins: {{ o: {{ servers: [\"{}\"], read_timeout: 300ms, outliers: {{ consecutive_failures: 1 }} }} }}\n\
         sites: [{{ hosts: [\"*\"], origin: o }}]\n",
        origin.address()
    );
    let edge = Edge::start(&yaml).await;
    for path in ["/idle", "/reset"] {
        let mut client = Raw::open(&edge).await;
        let ask = "HTTP/1.1\r\nHost: edge.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.send(&format!("GET {path} {ask}")).await;
        assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 101 "), "{path}");
        assert_eq!(client.until("welcome").await, "welcome", "{path}");
        gate.open();
        let mut rest = Vec::new();
        let _ = within("the tunnel's end", client.0.read_to_end(&mut rest)).await;
        assert_eq!(String::from_utf8_lossy(&rest), "", "{path}");
    }
    for line in edge.access_log_lines(2).await {
        assert_eq!(line["status"], 101, "{line}");
    }
    // A client that says nothing, or leaves, must not take a server away from others.
    let metrics = edge.metrics().await;
    assert_eq!(metrics.sum("foreland_origin_server_failures_total", &[("origin", "o")]), 0.0);
    assert_eq!(metrics.sum("foreland_origin_server_ejected", &[("origin", "o")]), 0.0);
}

#[tokio::test]
async fn an_upgrade_that_is_refused_is_an_ordinary_response() {
    let origin = Origin::start(|_| Reply::new(426).body("no").header("Upgrade", "websocket")).await;
    let edge = Edge::before(&origin, "").await;
    let mut client = edge.connect().await;
    let ask = Ask::get("/ws").header("Connection", "Upgrade").header("Upgrade", "websocket");
    let response = client.ask(&ask).await;
    assert_eq!((response.status, response.text()), (426, "no"));
}
