//! The PROXY protocol on a listener: who the client is, and who may say so.

use super::harness::{Ask, Connection, Edge, Origin, Reply};

async fn origin() -> Origin {
    Origin::start(|request| Reply::ok(request.header("X-Forwarded-For").unwrap_or("nobody").to_owned())).await
}

async fn edge(origin: &Origin, networks: &str) -> Edge {
    let listener = format!("listeners: [{{ address: \"127.0.0.1:{{port}}\", proxy_protocol: [{networks}] }}]\n");
    Edge::start(&(listener + &Edge::yaml_before(&[origin], "cache: off"))).await
}

fn version2() -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 0, 80];
    let extension = [4, 0, 2, 0, 0];
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11"[..], &addresses, &extension].concat()
}

/// The client that the origin was told of, by a connection that begins like this.
async fn client_after(edge: &Edge, header: &[u8]) -> String {
    let mut connection = Connection::open(edge.address()).await;
    connection.send(header).await;
    let first = connection.ask(&Ask::get("/a")).await;
    // It is the connection's, not a request's.
    let second = connection.ask(&Ask::get("/b")).await;
    assert_eq!((first.status, first.text()), (second.status, second.text()));
    first.text().to_owned()
}

#[tokio::test]
async fn both_versions_tell_who_the_client_is() {
    let origin = origin().await;
    let edge = edge(&origin, "127.0.0.0/8").await;
    assert_eq!(client_after(&edge, b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 80\r\n").await, "192.0.2.7");
    assert_eq!(client_after(&edge, b"PROXY TCP6 2001:db8::7 ::ffff:1.2.3.4 56324 80\r\n").await, "2001:db8::7");
    assert_eq!(client_after(&edge, &version2()).await, "192.0.2.7");
    assert_eq!(client_after(&edge, b"PROXY UNKNOWN\r\n").await, "127.0.0.1");
    // A health check of the proxy's own.
    assert_eq!(client_after(&edge, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").await, "127.0.0.1");
}

#[tokio::test]
async fn a_header_and_a_request_in_one_piece() {
    let origin = origin().await;
    let edge = edge(&origin, "127.0.0.0/8").await;
    let mut connection = Connection::open(edge.address()).await;
    connection.send([version2(), Ask::get("/a").bytes()].concat()).await;
    let head = connection.response("GET").await;
    assert_eq!(head.text(), "192.0.2.7");
    // Byte by byte, too.
    let mut connection = Connection::open(edge.address()).await;
    for byte in [version2(), Ask::get("/a").bytes()].concat() {
        connection.send([byte]).await;
    }
    assert_eq!(connection.response("GET").await.text(), "192.0.2.7");
}

#[tokio::test]
async fn without_a_header_nobody_is_served() {
    let origin = origin().await;
    let edge = edge(&origin, "127.0.0.0/8").await;
    for begin in
        [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"PROXY TCP4 nonsense\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"]
    {
        let mut connection = Connection::open(edge.address()).await;
        // It may be closed before all has been sent.
        let _ = connection.try_send(begin).await;
        let (_, said) = connection.closed().await;
        assert_eq!(said, b"", "{}", begin.escape_ascii());
    }
    assert_eq!(origin.count(), 0);
    assert_eq!(client_after(&edge, &version2()).await, "192.0.2.7");
}

#[tokio::test]
async fn from_elsewhere_nobody_may_say_so() {
    let origin = origin().await;
    let edge = edge(&origin, "192.0.2.0/24").await;
    let mut connection = Connection::open(edge.address()).await;
    let _ = connection.try_send([version2(), Ask::get("/a").bytes()].concat()).await;
    let (_, said) = connection.closed().await;
    assert_eq!((said, origin.count()), (Vec::new(), 0));
}
