//! Origins whose messages do not end as they should: the client is told, and nothing of it is stored.

use crate::harness::{Ask, Edge, End, Origin, Reply};
use crate::over::{BOTH, is_broken};

const HEAD: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";

/// What is the matter, and what the origin says.
type Case = (&'static str, fn() -> Reply);

fn raw(rest: &str) -> Reply {
    Reply::raw(format!("{HEAD}{rest}"))
}

#[tokio::test]
async fn a_broken_message_is_broken_for_the_client_and_never_stored() {
    let cases: [Case; 11] = [
        ("short", || raw("Content-Length: 10\r\n\r\nabc")),
        ("no body", || raw("Content-Length: 10\r\n\r\n")),
        ("short and reset", || Reply::ok("abc").cache_control("max-age=60").claim_length(10).reset()),
        ("no last chunk", || raw("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")),
        ("no chunk at all", || raw("Transfer-Encoding: chunked\r\n\r\n")),
        ("half a chunk", || raw("Transfer-Encoding: chunked\r\n\r\n9\r\nabc")),
        ("no chunk size", || raw("Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n")),
        ("a negative chunk size", || raw("Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n")),
        ("a chunk longer than it says", || raw("Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n")),
        ("two lengths", || raw("Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde")),
        ("a length that is none", || raw("Content-Length: 3x\r\n\r\nabc")),
    ];
    for (how, reply) in cases {
        let origin = Origin::start(move |_| reply()).await;
        let edge = Edge::before(&origin, "").await;
        for over in BOTH {
            let client = over.connect(&edge).await;
            let response = match client {
                crate::over::Client::Http1(mut c) => {
                    c.send(Ask::get("/a").bytes()).await;
                    match c.try_head("GET").await {
                        Some(head) => Some(c.rest(head).await),
                        None => None,
                    }
                }
                crate::over::Client::Http2(c) => match c.try_start(&Ask::get("/a")).await {
                    Ok(exchange) => Some(exchange.rest().await),
                    Err(_) => None,
                },
            };
            let told = response.as_ref().is_none_or(|r| r.status == 502 || is_broken(r.end));
            assert!(told, "{how} over {over:?}: {response:?}");
        }
        assert!(origin.count() >= 2, "{how}: nothing is stored");
        origin.answer(|_| Reply::ok("whole").cache_control("max-age=60"));
        let next = edge.get("/a").await;
        assert!(!next.is_hit() && next.text() == "whole", "{how}: {next:?}");
        assert!(edge.get("/a").await.is_hit(), "{how}");
    }
}

#[tokio::test]
async fn odd_but_sound_messages_are_passed_on() {
    let cases: [Case; 7] = [
        ("the same length twice", || raw("Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc")),
        ("the same length twice in a line", || raw("Content-Length: 3, 3\r\n\r\nabc")),
        ("chunks with extensions", || raw("Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n")),
        ("chunks with trailers", || raw("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n")),
        ("until the end of the connection", || raw("\r\nabc")),
        ("HTTP/1.0", || Reply::raw("HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\n\r\nabc")),
        ("byte by byte", || {
            let all = format!("{HEAD}Content-Length: 3\r\n\r\nabc");
            all.bytes().fold(Reply::raw(""), |reply, byte| reply.body(vec![byte]))
        }),
    ];
    for (how, reply) in cases {
        let origin = Origin::start(move |_| reply()).await;
        let edge = Edge::before(&origin, "").await;
        for over in BOTH {
            let target = format!("/{over:?}");
            for _ in 0..2 {
                let response = over.get(&edge, &target).await;
                assert_eq!((response.status, response.text()), (200, "abc"), "{how} over {over:?}: {response:?}");
                assert!(matches!(&response.headers.all("Content-Length")[..], [] | ["3"]), "{how}: {response:?}");
                // RFC 9112 §2.3: the edge's own version, not the origin's.
                assert_ne!(response.version, "HTTP/1.0", "{how} over {over:?}");
            }
        }
        assert_eq!(origin.count(), 2, "{how}: stored");
    }
}

#[tokio::test]
async fn a_message_with_a_length_and_chunks_is_read_one_way_by_all() {
    // RFC 9112 §6.3: chunks win, or the message is refused; never is the length passed on beside them.
    let origin =
        Origin::start(|_| raw("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nabcdefgh\r\n0\r\n\r\n"))
            .await;
    for site in ["", "cache: off"] {
        let edge = Edge::before(&origin, site).await;
        for over in BOTH {
            for _ in 0..2 {
                let response = over.get(&edge, "/a").await;
                if response.status == 200 {
                    assert_eq!((response.end, response.body.as_slice()), (End::Clean, &b"abcdefgh"[..]), "{over:?}");
                    assert!(
                        response.header("content-length").is_none_or(|l| l == "8"),
                        "{over:?} {site}: {response:?}"
                    );
                } else {
                    assert_eq!(response.status, 502, "{over:?} {site}: {response:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_follows_a_message_is_no_part_of_it_nor_of_the_next() {
    let origin = Origin::start(|r| match r.path() {
        "/long" => Reply::raw(format!(
            "{HEAD}Content-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=60\r\n\r\nevil"
        )),
        path => Reply::ok(path.to_owned()).cache_control("no-store"),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        let mut client = over.connect(&edge).await;
        let target = format!("/long?{over:?}");
        let response = client.get(&target).await;
        assert!(response.status == 502 || response.text() == "abc", "{over:?}: {response:?}");
        for path in ["/b", "/c"] {
            assert_eq!(over.get(&edge, path).await.text(), path, "{over:?}");
        }
    }
}

#[tokio::test]
async fn a_body_in_a_coding_that_nobody_decodes_is_refused() {
    let codings = [
        "gzip, chunked",
        "chunked, chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "chunked\r\nTransfer-Encoding: chunked",
        "identity",
        "gzip",
    ];
    for coding in codings {
        for cache in ["max-age=60", "no-store"] {
            let origin = Origin::start(move |r| match r.path() {
                // The connection stays open: it is for the edge to end it.
                "/a" => Reply::raw(format!(
                    "HTTP/1.1 200 OK\r\nCache-Control: {cache}\r\nTransfer-Encoding: {coding}\r\n\r\n2\r\nZZ\r\n0\r\n\r\n"
                ))
                .stall(),
                _ => Reply::ok("next"),
            })
            .await;
            let edge = Edge::before(&origin, "").await;
            for over in BOTH {
                let refused = over.get(&edge, "/a").await;
                assert_eq!(refused.status, 502, "{coding}, {cache} over {over:?}: {refused:?}");
                assert_eq!(over.get(&edge, "/b").await.text(), "next", "{coding}, {cache} over {over:?}");
            }
            let seen = origin.seen();
            for (i, refused) in seen.iter().enumerate().filter(|(_, r)| r.path() == "/a") {
                let used_again = seen[i + 1..].iter().any(|r| r.connection == refused.connection);
                assert!(!used_again, "{coding}, {cache}: {seen:?}");
            }
            let again = edge.get("/a").await;
            assert_eq!(again.status, 502, "{coding}, {cache}: nothing is stored: {again:?}");
        }
    }
}

#[tokio::test]
async fn a_204_has_no_body_whatever_it_says() {
    let fields = ["Content-Length: 2\r\n", "Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n", ""];
    for (i, field) in fields.into_iter().enumerate() {
        for cache in ["max-age=60", "no-store"] {
            let origin = Origin::start(move |_| {
                let head = format!("HTTP/1.1 204 No Content\r\nCache-Control: {cache}\r\nX-A: 1\r\n{field}\r\n");
                Reply::raw(head)
            })
            .await;
            let edge = Edge::before(&origin, "").await;
            for over in BOTH {
                let target = format!("/{over:?}");
                let mut client = over.connect(&edge).await;
                let first = client.get(&target).await;
                let second = over.get(&edge, &target).await;
                for response in [&first, &second] {
                    let case = format!("{field:?}, {cache} over {over:?}: {response:?}");
                    assert_eq!(
                        (response.status, response.header("X-A"), response.text()),
                        (204, Some("1"), ""),
                        "{case}"
                    );
                    assert!(!response.headers.has("Content-Length"), "{case}");
                    assert!(!response.headers.has("Transfer-Encoding"), "{case}");
                }
                // One whose end is in doubt is not stored: each is from the origin.
                let is_sound = i % 2 == 1;
                assert_eq!(second.is_hit(), is_sound && cache == "max-age=60", "{field:?} over {over:?}: {second:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_connection_with_a_body_to_come_after_a_204_is_not_used_again() {
    for field in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        for over in BOTH {
            let origin = Origin::start(move |r| match r.path() {
                "/204" => Reply::raw(format!("HTTP/1.1 204 No Content\r\n{field}\r\n\r\n")).stall(),
                _ => Reply::ok("next"),
            })
            .await;
            let edge = Edge::before(&origin, "").await;
            let mut client = over.connect(&edge).await;
            let empty = client.get("/204").await;
            assert_eq!(empty.status, 204, "{field} over {over:?}: {empty:?}");
            assert_eq!(over.get(&edge, "/next").await.text(), "next");
            let seen = origin.seen();
            assert_ne!(seen[0].connection, seen[1].connection, "{field} over {over:?}");
            let lines = edge.access_log_lines(2).await;
            assert!(lines.iter().any(|line| line["uri"] == "/204" && line["status"] == 204), "{lines:?}");
        }
    }
    // One that announces nothing leaves its connection to the next.
    let origin = Origin::start(|r| if r.path() == "/204" { Reply::new(204) } else { Reply::ok("next") }).await;
    let edge = Edge::before(&origin, "").await;
    assert_eq!(edge.get("/204").await.status, 204);
    assert_eq!(edge.get("/next").await.text(), "next");
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test]
async fn a_change_of_protocol_that_nobody_asked_for_is_refused() {
    let origin = Origin::start(|r| match r.path() {
        "/101" => {
            Reply::raw("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\ntunnel").stall()
        }
        _ => Reply::ok("next"),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        let refused = over.get(&edge, "/101").await;
        assert_eq!(refused.status, 502, "{over:?}: {refused:?}");
        assert_eq!(over.get(&edge, "/next").await.text(), "next", "{over:?}");
    }
    let seen = origin.seen();
    for (i, refused) in seen.iter().enumerate().filter(|(_, r)| r.path() == "/101") {
        assert!(!seen[i + 1..].iter().any(|r| r.connection == refused.connection), "{seen:?}");
    }
}
