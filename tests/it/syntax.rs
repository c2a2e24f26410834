//! The syntax of requests: what is refused before an origin sees it, and the odd forms that are not.

use super::harness::{Ask, Connection, Edge, End, Origin, Reply};

/// Answers with what it was asked.
async fn echo() -> Origin {
    Origin::start(|r| Reply::ok(format!("{} {} {}", r.method, r.target, String::from_utf8_lossy(&r.body)))).await
}

/// Sends bytes over a connection of its own; the status of the answer, and that the connection ends with it.
async fn refused(edge: &Edge, bytes: &[u8]) -> u16 {
    // Shown where the test fails.
    println!("{}", String::from_utf8_lossy(bytes));
    let mut client = edge.connect().await;
    client.send(bytes).await;
    let head = client.try_head("GET").await;
    let status = head.as_ref().map_or(0, |h| h.status);
    if let Some(head) = head {
        client.rest(head).await;
    }
    // What follows is not to be believed: it may be the rest of what was refused.
    client.closed().await;
    status
}

#[tokio::test]
async fn malformed_requests_reach_nobody() {
    let origin = echo().await;
    let edge = Edge::before(&origin, "").await;
    for fields in [
        // Whose request is it?
        "Host: edge.test\r\nHost: edge.test\r\n",
        "Host: edge.test\r\nHost: evil.test\r\n",
        "",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: user@edge.test\r\n",
        "Host: edge.test:port\r\n",
        "Host: edge.test, evil.test\r\n",
        // Where does its body end?
        "Host: edge.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Host: edge.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Host: edge.test\r\nContent-Length: x\r\n",
        "Host: edge.test\r\nContent-Length: -1\r\n",
        "Host: edge.test\r\nContent-Length: +3\r\n",
        "Host: edge.test\r\nContent-Length: 0x3\r\n",
        "Host: edge.test\r\nContent-Length: 99999999999999999999999\r\n",
        "Host: edge.test\r\nContent-Length:\r\n",
        "Host: edge.test\r\nContent-Length: 3, 4\r\n",
        "Host: edge.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n",
        "Host: edge.test\r\nContent-Length: 3, 3\r\n",
        "Host: edge.test\r\nContent-Length: 0,0\r\n",
        "Host: edge.test\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
        "Host: edge.test\r\nTransfer-Encoding: gzip\r\n",
        "Host: edge.test\r\nTransfer-Encoding: chunked, gzip\r\n",
        "Host: edge.test\r\nTransfer-Encoding: identity\r\n",
        "Host: edge.test\r\nTransfer-Encoding: xchunked\r\n",
        // Where does a field end?
        "Host: edge.test\r\nX-A : 1\r\n",
        "Host: edge.test\r\nX A: 1\r\n",
        " Host: edge.test\r\n",
        "Host: edge.test\r\nX-A: 1\r\n folded\r\n",
        "Host: edge.test\r\nX-A: 1\rX-B: 2\r\n",
        "Host: edge.test\r\nX-A: 1\0\r\n",
        "Host: edge.test\r\n: nameless\r\n",
        "Host: edge.test\r\nno colon\r\n",
        "Host: edge.test\r\nX-A: 1\nX-B: 2\r\n",
        "Host: edge.test\n",
        "Host: edge.test\r\nX-A: 1\n",
    ] {
        let status = refused(&edge, format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes()).await;
        assert_eq!(status, 400, "{fields:?}");
    }
    for whole in [
        "GET /\r\n\r\n",
        "GET / HTTP/3.7\r\nHost: edge.test\r\n\r\n",
        "GE(T / HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        "GET http://user@edge.test/ HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        "GET http://other.test/ HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        "GET http:///x HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        "GET relative HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        "GET relative/path HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        "GET evil.test:80 HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
    ] {
        assert_eq!(refused(&edge, whole.as_bytes()).await, 400, "{whole:?}");
    }
    assert_eq!(origin.seen().iter().map(|r| &r.target).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[tokio::test]
async fn a_transfer_coding_that_is_not_understood_is_refused() {
    let origin = echo().await;
    let edge = Edge::before(&origin, "").await;
    for codings in ["gzip, chunked", "gzip\r\nTransfer-Encoding: chunked", "identity, chunked", "chunked, chunked"] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: {codings}\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        assert_eq!(refused(&edge, request.as_bytes()).await, 501, "{codings:?}");
    }
    assert_eq!(origin.count(), 0);
    let chunked = Ask::new("POST", "/").header("Transfer-Encoding", "Chunked").body("3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(edge.ask(&chunked).await.text(), "POST / abc");
}

#[tokio::test]
async fn methods_that_are_not_proxied_are_refused() {
    let origin = echo().await;
    let edge = Edge::before(&origin, "").await;
    assert_eq!(refused(&edge, b"CONNECT edge.test:443 HTTP/1.1\r\nHost: edge.test:443\r\n\r\n").await, 405);
    let response = edge.ask(&Ask::new("TRACE", "/")).await;
    assert_eq!(response.status, 405);
    assert!(response.headers.lists("Allow", "GET"), "{response:?}");
    assert_eq!(origin.count(), 0);
    // What is merely unknown is the origin's to judge.
    assert_eq!(edge.ask(&Ask::new("BREW", "/pot")).await.text(), "BREW /pot ");
}

#[tokio::test]
async fn a_broken_chunk_is_no_end_of_a_body() {
    let origin = echo().await;
    let edge = Edge::before(&origin, "").await;
    for body in ["zz\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "-1\r\n\r\n", "fffffffffffffffff\r\nabc"] {
        let request = format!("POST / HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let status = refused(&edge, request.as_bytes()).await;
        assert!(matches!(status, 0 | 400), "{body:?}: {status}");
    }
    origin.wait_for_open(0).await;
    assert!(origin.seen().iter().all(|r| !r.complete), "{:?}", origin.seen());
}

#[tokio::test]
async fn an_absolute_target_names_the_host() {
    let origin = Origin::start(|r| Reply::ok(format!("{} {}", r.header("Host").unwrap_or("-"), r.target))).await;
    let yaml = Edge::yaml_before(&[&origin], "").replace("\"*\"", "a.test");
    let edge = Edge::start(&yaml).await;
    for (target, sent) in [
        ("http://a.test/x?y=z", "a.test /x?y=z"),
        ("http://a.test", "a.test /"),
        ("http://a.test?q", "a.test /?q"),
        ("HTTP://a.test/x", "a.test /x"),
    ] {
        assert_eq!(edge.ask(&Ask::get(target).host("a.test")).await.text(), sent, "{target}");
    }
    assert_eq!(edge.ask(&Ask::get("http://b.test/").host("b.test")).await.status, 421);
    // The target's host is the one that counts (RFC 9112 §3.2.2); a request that contradicts itself may be refused.
    let response = edge.ask(&Ask::get("http://b.test/").host("a.test")).await;
    assert!(matches!(response.status, 400 | 421), "{response:?}");
    assert_eq!(origin.count(), 4);
    assert_eq!(edge.ask(&Ask::new("OPTIONS", "*").host("a.test")).await.text(), "a.test *");
}

#[tokio::test]
async fn an_old_client_gets_what_it_understands() {
    let origin = Origin::start(|r| match r.path() {
        "/chunked" => Reply::ok("one ").body("two").chunked(),
        "/cached" => Reply::ok("cached").cache_control("max-age=60"),
        _ => Reply::ok("plain"),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    for (path, body) in [("/plain", "plain"), ("/chunked", "one two"), ("/cached", "cached"), ("/cached", "cached")] {
        let mut client = edge.connect().await;
        client.send(format!("GET {path} HTTP/1.0\r\nHost: edge.test\r\n\r\n")).await;
        let response = client.response("GET").await;
        assert_eq!(response.text(), body, "{path}");
        // HTTP/1.0 has no chunks (RFC 9112 §6.1).
        assert_eq!(response.header("Transfer-Encoding"), None, "{path}");
        assert_eq!(client.closed().await, (End::Clean, Vec::new()), "{path}");
    }
    let mut client = edge.connect().await;
    for path in ["/plain", "/cached", "/plain"] {
        client.send(format!("GET {path} HTTP/1.0\r\nHost: edge.test\r\nConnection: keep-alive\r\n\r\n")).await;
        let response = client.response("GET").await;
        assert_eq!(response.text(), &path[1..]);
        assert!(response.headers.lists("Connection", "keep-alive"), "{response:?}");
    }
}

#[tokio::test]
async fn a_connection_is_kept_or_closed_as_the_client_says() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=60")).await;
    let edge = Edge::before(&origin, "").await;
    let mut client = edge.connect().await;
    // A miss, a hit, then both with the client's last word.
    for path in ["/a", "/a", "/b"] {
        assert_eq!(client.ask(&Ask::get(path)).await.text(), "x");
    }
    for path in ["/a", "/c"] {
        let mut client = edge.connect().await;
        let response = client.ask(&Ask::get(path).header("Connection", "close")).await;
        assert_eq!(response.text(), "x", "{path}");
        assert!(response.headers.lists("Connection", "close"), "{path}: {response:?}");
        assert_eq!(client.closed().await, (End::Clean, Vec::new()), "{path}");
    }
}

#[tokio::test]
async fn requests_in_a_row_get_their_own_answers() {
    let origin = Origin::start(|r| match r.path() {
        "/cached" => Reply::ok("cached").cache_control("max-age=60"),
        _ => Reply::ok(format!("{} {} {}", r.method, r.target, String::from_utf8_lossy(&r.body))),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    edge.get("/cached").await.text();
    let mut client = edge.connect().await;
    let row = [
        (Ask::get("/1"), "GET /1 "),
        (Ask::get("/cached"), "cached"),
        // A body that looks like a request is a body.
        (Ask::new("POST", "/2").body("GET /evil HTTP/1.1\r\nHost: edge.test\r\n\r\n"), ""),
        (Ask::get("/cached"), "cached"),
        (Ask::new("PUT", "/3").header("Transfer-Encoding", "chunked").body("3\r\nabc\r\n0\r\n\r\n"), "PUT /3 abc"),
        (Ask::get("/4"), "GET /4 "),
    ];
    client.send(row.iter().flat_map(|(ask, _)| ask.bytes()).collect::<Vec<_>>()).await;
    for (ask, body) in &row {
        let response = client.response(&ask.method).await;
        assert_eq!(response.status, 200);
        assert!(response.text().starts_with(body), "{ask:?}: {response:?}");
    }
    let seen = origin.seen();
    assert_eq!(seen.iter().map(|r| &*r.target).collect::<Vec<_>>(), ["/cached", "/1", "/2", "/3", "/4"]);
}

#[tokio::test]
async fn a_client_that_has_said_all_still_gets_its_answer() {
    let origin = echo().await;
    let edge = Edge::before(&origin, "").await;
    let mut client = Connection::open(edge.address()).await;
    client.send("GET /x HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n").await;
    origin.wait_for(1).await;
    assert_eq!(client.response("GET").await.text(), "GET /x ");
    // Lines that are empty before a request are allowed for (RFC 9112 §2.2).
    let mut client = Connection::open(edge.address()).await;
    client.send("\r\n\r\nGET /y HTTP/1.1\r\nHost: edge.test\r\n\r\n").await;
    assert_eq!(client.response("GET").await.text(), "GET /y ");
}
