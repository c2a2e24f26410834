//! What must never happen: a broken response taken for a whole one (RFC 9112 §6.3, §7.1, §8), and one shared where it may
//! not be. More: `crate::framing`, `crate::key`, `crate::forwarding`.

use super::{Stage, fresh, later};
use crate::harness::{Ask, Edge, End, Gate, Origin, Reply, Response};
use crate::over::{BOTH, Client, Over, all};

const HEAD: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";

/// What is the matter, and what the origin says.
type Case = (&'static str, fn() -> Reply);

/// What an origin says that keeps its connection open: had the edge kept it too, the next request would come over it.
fn said(rest: &str) -> Reply {
    Reply::raw(format!("{HEAD}{rest}")).stall()
}

/// RFC 9112 §6.3, §8: a framing that is broken or ambiguous. It is never stored, its connection carries no other
/// request, and its client does not take it for whole.
#[tokio::test]
async fn safety_broken_framing() {
    let cut: [Case; 9] = [
        ("a short body", || Reply::ok("abc").cache_control("max-age=60").claim_length(10).cut()),
        ("a short body and a reset", || Reply::ok("abc").cache_control("max-age=60").claim_length(10).reset()),
        ("no last chunk", || Reply::ok("abc").cache_control("max-age=60").chunked().cut()),
        ("half a chunk", || Reply::raw(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n9\r\nabc")).cut()),
        ("an unknown coding, to the end", || Reply::raw(format!("{HEAD}Transfer-Encoding: foo\r\n\r\nabc"))),
        ("a coding and no chunks, to the end", || Reply::raw(format!("{HEAD}Transfer-Encoding: gzip\r\n\r\nabc"))),
        ("no coding, to the end", || Reply::raw(format!("{HEAD}Transfer-Encoding: identity\r\n\r\nabc"))),
        ("chunks inside of another coding", || {
            Reply::raw(format!("{HEAD}Transfer-Encoding: chunked, gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
        }),
        ("half a head", || Reply::raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Le").cut()),
    ];
    let kept: [Case; 14] = [
        ("a bad chunk size", || said("Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n")),
        ("a signed chunk size", || said("Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n")),
        ("a huge chunk size", || said("Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n")),
        ("no end of a chunk", || said("Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n")),
        ("two lengths", || said("Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde")),
        ("a list of two lengths", || said("Content-Length: 3, 5\r\n\r\nabcde")),
        ("a length that is none", || said("Content-Length: 3x\r\n\r\nabc")),
        ("a signed length", || said("Content-Length: +3\r\n\r\nabc")),
        ("a negative length", || said("Content-Length: -3\r\n\r\nabc")),
        ("a coding that is unknown", || said("Transfer-Encoding: foo\r\nContent-Length: 3\r\n\r\nabc")),
        ("chunks that are not the last coding", || {
            said("Transfer-Encoding: chunked, gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        }),
        ("chunks in HTTP/1.0", || {
            let head = HEAD.replace("HTTP/1.1", "HTTP/1.0");
            Reply::raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")).stall()
        }),
        ("chunks twice", || {
            said("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        }),
        ("chunks around another coding", || said("Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")),
    ];
    let mut wrong = Vec::new();
    for (how, reply) in cut.into_iter().chain(kept) {
        for over in BOTH {
            let (edge, origin) = one_server(reply()).await;
            let response = try_get(over, &edge, "/a").await;
            let told = response.as_ref().is_none_or(|r| r.status == 502 || r.end != End::Clean);
            origin.answer(|_| fresh("whole"));
            let next = over.get(&edge, "/a").await;
            if !told {
                wrong.push(format!("{how} over {over:?}: the client is not told: {response:?}"));
            }
            if next.is_hit() || next.text() != "whole" {
                wrong.push(format!("{how} over {over:?}: it is stored: {next:?}"));
            }
            check_connections(&origin, &format!("{how} over {over:?}"), &mut wrong);
        }
    }
    super::assert_none(&wrong);
}

/// RFC 9112 §6.3: a length beside chunks. The chunks count, for whoever reads on, and the length is not passed on.
#[tokio::test]
async fn safety_a_length_beside_chunks() {
    for over in BOTH {
        for rest in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nabcdefgh\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n8\r\nabcdefgh\r\n0\r\n\r\n",
        ] {
            let (edge, _origin) = one_server(said(rest)).await;
            for _ in 0..2 {
                // Or it is refused.
                let Some(response) = try_get(over, &edge, "/a").await.filter(|r| r.status != 502) else { continue };
                assert_eq!((response.end, &*response.body), (End::Clean, &b"abcdefgh"[..]), "{over:?}: {response:?}");
                assert!(response.header("Content-Length").is_none_or(|length| length == "8"), "{over:?}: {response:?}");
            }
        }
    }
}

/// RFC 9110 §8.6: equal lengths are one, for everybody further on.
#[tokio::test]
async fn safety_equal_lengths_become_one() {
    let stage = Stage::new().await;
    for over in BOTH {
        for lengths in ["Content-Length: 3\r\nContent-Length: 3", "Content-Length: 3, 3", "Content-Length: 3 ,3,3"] {
            let mut scene = stage.scene(over, [Reply::raw(format!("{HEAD}{lengths}\r\n\r\nabc")), later()]).await;
            for hit in [false, true] {
                let response = scene.get().await;
                assert_eq!((response.text(), response.is_hit()), ("abc", hit), "{lengths} over {over:?}: {response:?}");
                assert_eq!(response.headers.all("Content-Length"), ["3"], "{lengths} over {over:?}: {response:?}");
            }
        }
    }
}

/// RFC 9112 §5.1, §5.2, RFC 9110 §5.5: a head that one reads otherwise than another does. What some may read as a refusal
/// to be stored is not stored.
#[tokio::test]
async fn safety_odd_heads() {
    let mut wrong = Vec::new();
    for (how, fields) in [
        ("a space before the colon", "Cache-Control : no-store\r\nCache-Control: max-age=60\r\n"),
        ("a folded line", "Cache-Control: max-age=60,\r\n no-store\r\n"),
        ("a folded line after a tab", "Cache-Control: max-age=60\r\n\t, private\r\n"),
        ("a folded first line", " X: y\r\nCache-Control: max-age=60, no-store\r\n"),
        ("line feeds alone", "X: y\nCache-Control: no-store\nCache-Control: max-age=60\r\n"),
        ("a return alone", "Cache-Control: max-age=60\rCache-Control: no-store\r\n"),
        ("a zero byte", "Cache-Control: max-age=60, \0no-store\r\n"),
        ("a line without a colon", "no-store\r\nCache-Control: max-age=60, private\r\n"),
    ] {
        for over in BOTH {
            let reply = Reply::raw(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 3\r\n\r\nabc"));
            let (edge, origin) = one_server(reply).await;
            for _ in 0..2 {
                let response = try_get(over, &edge, "/a").await;
                if response.as_ref().is_some_and(|r| r.is_hit() || !matches!(r.status, 200 | 502)) {
                    wrong.push(format!("{how} over {over:?}: {response:?}"));
                }
            }
            if origin.count() != 2 {
                wrong.push(format!("{how} over {over:?}: the origin was asked {} times", origin.count()));
            }
        }
    }
    super::assert_none(&wrong);
}

/// An edge before an origin that says this, once; without retries, so that each request of the edge is one at the origin.
async fn one_server(reply: Reply) -> (Edge, Origin) {
    let origin = Origin::start(move |_| reply.clone()).await;
    let address = origin.address();
    let yaml = format!(
        "origins:\n  o: {{ servers: [\"{address}\"], retries: 0, read_timeout: 300ms }}\nsites:\n  - hosts: [\"*\"]\n    origin: o\n"
    );
    (Edge::start(&yaml).await, origin)
}

/// The first request's connection has carried no other.
fn check_connections(origin: &Origin, what: &str, wrong: &mut Vec<String>) {
    let seen = origin.seen();
    if seen.len() < 2 || seen[1..].iter().any(|request| request.connection == seen[0].connection) {
        wrong.push(format!("{what}: its connection is reused: {seen:?}"));
    }
}

/// `None` where the connection or stream ends without a head.
async fn try_get(over: Over, edge: &Edge, target: &str) -> Option<Response> {
    match over.connect(edge).await {
        Client::Http1(mut client) => {
            client.send(Ask::get(target).bytes()).await;
            let head = client.try_head("GET").await?;
            Some(client.rest(head).await)
        }
        Client::Http2(client) => Some(client.try_start(&Ask::get(target)).await.ok()?.rest().await),
    }
}

/// RFC 9111 §2, §4, §7: a response is for one URL, of one host, asked by one method, by whoever may have it.
#[tokio::test]
async fn safety_nothing_is_shared_across_hosts_methods_and_authorisations() {
    let stage = Stage::new().await;
    for over in BOTH {
        let scene = stage.scene(over, [fresh("one's"), fresh("two's"), later()]).await;
        for _ in 0..2 {
            for (host, text) in [("one.test", "one's"), ("two.test", "two's")] {
                let ask = Ask::get(&scene.target).host(host);
                assert_eq!(over.ask(&stage.edge, &ask).await.text(), text, "{host} over {over:?}");
            }
        }
        assert_eq!(scene.seen().len(), 2, "{over:?}");

        let mut scene = stage.scene(over, [fresh("posted"), fresh("got"), fresh("put"), later()]).await;
        for (method, text) in [("POST", "posted"), ("GET", "got"), ("GET", "got"), ("PUT", "put"), ("GET", "later")] {
            assert_eq!(scene.send(method, &[]).await.text(), text, "{method} over {over:?}");
        }

        let mut scene = stage.scene(over, [fresh("alice's"), fresh("bob's"), fresh("all's"), later()]).await;
        for (who, text) in [("alice", "alice's"), ("bob", "bob's")] {
            assert_eq!(scene.get_with(&[("Authorization", who)]).await.text(), text, "{who} over {over:?}");
        }
        assert_eq!(scene.get().await.text(), "all's", "{over:?}");

        // What a GET with a body means is between the client and the origin.
        let mut scene = stage.scene(over, [fresh("to a body"), fresh("to none"), later()]).await;
        let ask = Ask::get(&scene.target).body("x");
        assert_eq!(over.ask(&stage.edge, &ask).await.text(), "to a body", "{over:?}");
        assert_eq!(scene.get().await.text(), "to none", "{over:?}");
    }
}

/// RFC 9111 §3.5, §4.1, §7: nor is it while it is on its way, to those who wait for the same at the same time.
#[tokio::test]
async fn safety_nothing_is_shared_by_waiting() {
    for over in BOTH {
        for (field, further) in [
            ("Authorization", &[("Cache-Control", "max-age=60")][..]),
            ("Authorization", &[("Cache-Control", "private, max-age=60")]),
            ("Cookie", &[("Cache-Control", "max-age=60"), ("Set-Cookie", "id=1")]),
            ("Cookie", &[("Cache-Control", "no-store")]),
            ("X-A", &[("Cache-Control", "max-age=60"), ("Vary", "X-A")]),
            ("X-A", &[("Cache-Control", "max-age=60"), ("Vary", "*")]),
        ] {
            let gate = Gate::new();
            let at = gate.clone();
            let origin = Origin::start(move |request| {
                let reply = Reply::ok(request.header(field).unwrap_or("nobody").to_owned()).hold(&at);
                further.iter().fold(reply, |reply, (name, value)| reply.header(name, value))
            })
            .await;
            let edge = Edge::before(&origin, "").await;
            let asks = ["a=1", "b=2", "c=3"].map(|who| (who, Ask::get("/a").header(field, who)));
            let answers = all(asks.iter().map(|(_, ask)| over.ask(&edge, ask)));
            let (answers, ()) = tokio::join!(answers, async {
                edge.wait_metrics("three at once", |m| m.sum("foreland_requests_in_flight", &[]) == 3.0).await;
                gate.open();
            });
            for ((who, _), answer) in asks.iter().zip(answers) {
                assert_eq!(answer.text(), *who, "{field} {further:?} over {over:?}: {answer:?}");
            }
        }
    }
}

/// What could change the response, and is in no key, does not reach the origin from a client that is not trusted.
#[tokio::test]
async fn safety_unkeyed_fields_do_not_reach_the_origin() {
    let stage = Stage::new().await;
    let claims = [
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Proto",
        "X-Forwarded-Scheme",
        "X-Forwarded-Server",
        "X_Forwarded_Host",
        "X-Host",
        "X-HTTP-Method",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X-Original-Host",
        "X-Original-URL",
        "X-Real-IP",
        "X-Rewrite-URL",
    ];
    for over in BOTH {
        for control in ["max-age=60", "no-store"] {
            let mut scene = stage.scene(over, [Reply::ok("x").cache_control(control)]).await;
            scene.get_with(&claims.map(|name| (name, "evil.test"))).await;
            let seen = scene.seen();
            for (name, value) in &seen[0].headers.0 {
                assert!(!value.contains("evil.test"), "{name}: {value} over {over:?}");
            }
            // The key does not know of them.
            let next = scene.get().await;
            assert_eq!(next.is_hit(), control != "no-store", "{over:?}: {next:?}");
        }
    }
}
