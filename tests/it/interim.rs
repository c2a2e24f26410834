//! Interim responses: each once, to whom it is for, and nothing else taken for one.

use crate::bodies::Raw;
use crate::harness::{Ask, Connection, Edge, Gate, Origin, Reply, http_date};
use crate::over::{BOTH, Client};

const BODY: &str = "HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\n";

#[tokio::test]
async fn a_body_that_looks_like_an_interim_head_after_a_large_head_is_a_body() {
    let origin = Origin::start(|r| {
        let reply = Reply::ok(if r.path() == "/a" { BODY } else { "second" }).cache_control("no-store");
        if r.path() != "/a" {
            return reply;
        }
        // More than is held back with a head, and no Date.
        (0..17).fold(reply, |reply, n| reply.header("Set-Cookie", format!("{n}={}", "y".repeat(1000))))
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let mut client = edge.connect().await;
    assert_eq!(client.ask(&Ask::get("/a")).await.text(), BODY);
    assert_eq!(client.ask(&Ask::get("/b")).await.text(), "second");
}

#[tokio::test]
async fn a_piece_that_looks_like_an_interim_head_is_a_piece() {
    for cache in ["no-store", "max-age=60"] {
        let gate = Gate::new();
        let at = gate.clone();
        let origin = Origin::start(move |_| {
            let reply = Reply::ok("one|").wait(&at).body("HTTP/1.1 103 two|").wait(&at).body("three");
            reply.chunked().cache_control(cache)
        })
        .await;
        let edge = Edge::before(&origin, "").await;
        for version in ["1.0", "1.1"] {
            let mut client = Raw::open(&edge).await;
            client.send(format!("GET /{version} HTTP/{version}\r\nHost: edge.test\r\nConnection: close\r\n\r\n")).await;
            for (piece, last) in [("one|", false), ("two|", false), ("three", true)] {
                let got = client.until(piece).await;
                let expected = if piece == "two|" { "HTTP/1.1 103 two|" } else { piece };
                assert!(got.ends_with(expected), "{cache}, HTTP/{version}: {got:?}");
                if !last {
                    gate.let_one_through();
                }
            }
        }
    }
}

#[tokio::test]
async fn what_looks_like_an_interim_head_in_a_tunnel_is_passed() {
    let gate = Gate::new();
    let reply = Reply::raw("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .wait(&gate)
        .body("HTTP/1.1 103 one\r\n\r\n")
        .wait(&gate)
        .body("HTTP/1.1 103 two\r\n\r\n")
        .wait(&gate)
        .body("end");
    let origin = Origin::start(move |_| reply.clone()).await;
    let edge = Edge::before(&origin, "").await;
    let mut client = Raw::open(&edge).await;
    client.send("GET / HTTP/1.1\r\nHost: edge.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 101 "));
    for expected in ["HTTP/1.1 103 one\r\n\r\n", "HTTP/1.1 103 two\r\n\r\n", "end"] {
        gate.let_one_through();
        assert_eq!(client.until(expected).await, expected);
    }
}

#[tokio::test]
async fn no_more_pass_than_are_of_use() {
    let origin = Origin::start(|r| {
        let (heads, value) = if r.path() == "/many" { (100, 10) } else { (20, 8000) };
        let value = "x".repeat(value);
        (0..heads).fold(Reply::ok("page"), |reply, _| reply.interim(103, &[("Link", &value)]))
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        let many = over.get(&edge, "/many").await;
        assert_eq!((many.text(), many.interim.len()), ("page", 16), "{over:?}");
        let large = over.get(&edge, "/large").await;
        let bytes: usize = large.interim.iter().map(|(_, fields)| fields.get("Link").map_or(0, str::len)).sum();
        assert!(large.text() == "page" && (1..=64 * 1024).contains(&bytes), "{over:?}: {bytes}");
    }
}

/// Heads that an origin sends unasked, each with its status.
const HEADS: [(u16, &str); 3] = [
    (100, "HTTP/1.1 100 Continue\r\n\r\n"),
    (199, "HTTP/1.1 199 Odd\r\nX-A: 1\r\n\r\n"),
    (103, "HTTP/1.0 103 Early Hints\r\nLink: </a>\r\n\r\n"),
];

#[tokio::test]
async fn each_reaches_a_new_client_once_and_an_old_one_never() {
    for (status, head) in HEADS {
        for apart in [false, true] {
            let gate = Gate::new();
            let at = gate.clone();
            let origin = Origin::start(move |r| {
                let cache = if r.path() == "/stored" { "max-age=60" } else { "no-store" };
                let page = format!("HTTP/1.1 200 OK\r\nCache-Control: {cache}\r\nContent-Length: 4\r\n\r\npage");
                match apart {
                    true => Reply::raw(head).wait(&at).body(page),
                    false => Reply::raw(format!("{head}{page}")),
                }
            })
            .await;
            gate.open();
            let edge = Edge::before(&origin, "").await;
            for path in ["/passed", "/stored"] {
                let case = format!("{status} {path}, apart: {apart}");
                let mut old = Raw::open(&edge).await;
                old.send(format!("GET {path}?old HTTP/1.0\r\nHost: edge.test\r\n\r\n")).await;
                let all = old.until("page").await;
                assert!(all.starts_with("HTTP/1.1 200 ") && all.matches("HTTP/1.").count() == 1, "{case}: {all}");
                for over in BOTH {
                    let new = over.get(&edge, &format!("{path}?{over:?}")).await;
                    let got: Vec<_> = new.interim.iter().map(|(status, _)| *status).collect();
                    assert_eq!((new.text(), &*got), ("page", &[status][..]), "{case} over {over:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_each_once() {
    let origin = Origin::start(|r| Reply::ok(r.body.clone())).await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        let ask = Ask::new("POST", "/").header("expect", "100-continue").body("abc");
        let response = over.ask(&edge, &ask).await;
        let interim: Vec<_> = response.interim.iter().map(|(status, _)| *status).collect();
        assert_eq!((response.text(), &*interim), ("abc", &[100][..]), "{over:?}");
    }
}

#[tokio::test]
async fn one_in_a_later_read_passes_too() {
    for over in BOTH {
        let gate = Gate::new();
        let at = gate.clone();
        let hint = |name: &str| format!("HTTP/1.1 103 Early Hints\r\nLink: </{name}>\r\n\r\n");
        let origin = Origin::start(move |_| {
            let reply = Reply::raw(hint("a")).wait(&at).body(hint("b")).wait(&at).body(hint("c"));
            reply.wait(&at).body("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
        })
        .await;
        let edge = Edge::before(&origin, "").await;
        let links = match over.connect(&edge).await {
            Client::Http1(mut client) => {
                client.send(Ask::get("/").bytes()).await;
                let mut links = Vec::new();
                for _ in 0..3 {
                    links.push(client.interim().await.1);
                    gate.let_one_through();
                }
                assert_eq!(client.response("GET").await.text(), "page");
                links
            }
            Client::Http2(client) => {
                let mut waiting = client.send(&Ask::get("/"), true).await.expect("a stream");
                let mut links = Vec::new();
                for _ in 0..3 {
                    links.push(waiting.interim().await.1);
                    gate.let_one_through();
                }
                assert_eq!(waiting.try_head().await.expect("a response").rest().await.text(), "page");
                links
            }
        };
        let links: Vec<_> = links.iter().filter_map(|fields| fields.get("Link")).collect();
        assert_eq!(links, ["</a>", "</b>", "</c>"], "{over:?}");
    }
}

#[tokio::test]
async fn one_that_comes_with_the_final_head_leaves_its_date_alone() {
    let date = http_date(-7);
    let said = date.clone();
    let origin = Origin::start(move |r| {
        let cache = if r.path() == "/stored" { "max-age=60" } else { "no-store" };
        Reply::raw(format!(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nDate: {said}\r\nCache-Control: {cache}\r\nContent-Length: 4\r\n\r\npage"
        ))
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        for path in ["/passed", "/stored"] {
            for ask in [Ask::get(path), Ask::new("POST", path).header("expect", "100-continue").body("x")] {
                let response = over.ask(&edge, &ask).await;
                let case = format!("{} {path} over {over:?}: {response:?}", ask.method);
                assert_eq!((response.text(), response.headers.all("Date")), ("page", vec![&*date]), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn no_field_of_the_origins_connection_passes_with_one() {
    let fields = [
        ("Link", "</a>"),
        ("Content-Length", "7"),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Keep-Alive", "x"),
    ];
    let length = [("Content-Length", "7"), ("Link", "</a>")];
    let origin = Origin::start(move |r| {
        let fields = if r.path() == "/length" { &length[..] } else { &fields };
        Reply::ok("page").interim(103, fields)
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        for path in ["/length", "/all"] {
            let response = over.get(&edge, path).await;
            assert_eq!((response.text(), response.interim.len()), ("page", 1), "{path} over {over:?}: {response:?}");
            let (_, hints) = &response.interim[0];
            assert_eq!((hints.0.len(), hints.get("Link")), (1, Some("</a>")), "{path} over {over:?}: {hints:?}");
        }
    }
}

#[tokio::test]
async fn after_one_another_server_may_be_asked_still() {
    for over in BOTH {
        let bad = Origin::start(|_| Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").cut()).await;
        let good = Origin::start(|_| Reply::ok("page")).await;
        let edge = Edge::start(&Edge::yaml_before(&[&bad, &good], "")).await;
        for _ in 0..2 {
            assert_eq!(over.get(&edge, "/").await.text(), "page", "{over:?}");
        }
        assert!(bad.count() > 0, "{over:?}: nothing was tried");
    }
}

#[tokio::test]
async fn a_client_that_has_left_meanwhile_is_no_trouble() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |_| {
        let reply = Reply::ok("page").cache_control("max-age=60").hold(&at);
        reply.interim(103, &[("Link", "</a>")])
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let mut leaves = Connection::open(edge.address()).await;
    leaves.send(Ask::get("/").bytes()).await;
    gate.reached(1).await;
    leaves.reset();
    gate.open();
    assert_eq!(edge.get("/").await.text(), "page");
}
