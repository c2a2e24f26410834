//! Fields behind a body: passed on as what they are, to those who take them, and never stored.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::harness::{Ask, Edge, Origin, Reply};
use crate::origins_wire::h2_server::{H2Server, Manners};
use crate::over::Over;

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

/// Before a server of HTTP/2.
async fn before(server: &H2Server, site: &str) -> Edge {
    Edge::start(&format!(
        "origins: {{ o: {{ servers: [\"{}\"], http: 2 }} }}\nsites: [{{ hosts: [\"*\"], origin: o, {site} }}]\n",
        server.address()
    ))
    .await
}

/// Answers with a body and trailers.
fn server() -> H2Server {
    H2Server::start(Manners::default(), |mut asked| {
        Box::pin(async move {
            let response = Response::builder().header("trailer", "x-sum").body(()).unwrap();
            if let Ok(mut stream) = asked.respond.send_response(response, false) {
                let _ = stream.send_data("0\r\n\r\n".into(), false);
                let _ =
                    stream.send_trailers(map(&[("x-sum", "5"), ("content-type", "text/html"), ("set-cookie", "a=1")]));
            }
        })
    })
}

/// The ways in which a client asks, and whether it takes trailers.
fn asks(target: &str) -> [(Over, Ask, bool); 5] {
    let te = |connection: &str| Ask::get(target).header("TE", "trailers").header("Connection", connection);
    [
        (Over::Http2, Ask::get(target), true),
        (Over::Http2, Ask::get(target).header("te", "trailers"), true),
        (Over::Http1, te("TE"), true),
        (Over::Http1, Ask::get(target).header("te", "gzip, Trailers"), true),
        (Over::Http1, Ask::get(target), false),
    ]
}

#[tokio::test]
async fn an_answers_trailers_reach_a_client_that_takes_them() {
    let origin = Origin::start(|_| {
        let reply = Reply::ok("0\r\n").body("\r\n0\r\n\r\n").header("Trailer", "X-Sum").trailer("X-Sum", "5");
        reply.trailer("Content-Length", "3").trailer("Set-Cookie", "a=1").trailer("Cache-Control", "public")
    })
    .await;
    let edge = Edge::before(&origin, "cache: off").await;
    for (over, ask, takes) in asks("/a") {
        let mut client = over.connect(&edge).await;
        // Twice: the connections on both sides are in a known state.
        for _ in 0..2 {
            let response = client.ask(&ask).await;
            assert_eq!(response.text(), "0\r\n\r\n0\r\n\r\n", "{over:?} {ask:?}");
            let came = response.trailers.0.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
            let expected = takes.then(|| ("x-sum".to_owned(), "5".to_owned()));
            assert_eq!(came.collect::<Vec<_>>(), Vec::from_iter(expected), "{over:?} {ask:?}");
            assert_eq!(response.header("Trailer"), takes.then_some("X-Sum"), "{over:?} {ask:?}");
            assert_eq!((response.header("X-Sum"), response.header("Set-Cookie")), (None, None));
        }
    }
    assert_eq!(origin.accepted(), 1, "the connection to the origin is kept");
}

#[tokio::test]
async fn those_of_an_answer_over_http2_too() {
    let server = server();
    let edge = before(&server, "cache: off").await;
    for (over, ask, takes) in asks("/a") {
        let response = over.ask(&edge, &ask).await;
        assert_eq!(response.text(), "0\r\n\r\n", "{over:?} {ask:?}");
        assert_eq!(
            (response.trailers.get("x-sum"), response.trailers.0.len()),
            match takes {
                true => (Some("5"), 1),
                false => (None, 0),
            }
        );
        assert_eq!(response.header("Trailer"), takes.then_some("x-sum"));
    }
}

#[tokio::test]
async fn a_client_of_http10_gets_none() {
    let origin = Origin::start(|_| Reply::ok("body").trailer("X-Sum", "4")).await;
    let edge = Edge::before(&origin, "cache: off").await;
    let mut client = edge.connect().await;
    client.send("GET /a HTTP/1.0\r\nHost: edge.test\r\nTE: trailers\r\nConnection: TE\r\n\r\n").await;
    let (_, all) = client.closed().await;
    let all = String::from_utf8_lossy(&all).into_owned();
    assert!(all.ends_with("\r\n\r\nbody") && !all.to_ascii_lowercase().contains("x-sum"), "{all}");
}

#[tokio::test]
async fn none_is_stored_and_none_is_announced_by_what_is() {
    let origin = Origin::start(|_| {
        Reply::ok("body").cache_control("max-age=60").header("Trailer", "X-Sum").trailer("X-Sum", "4")
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let client = edge.connect_h2().await;
    for is_hit in [false, true, true] {
        let response = client.ask(&Ask::get("/a").header("te", "trailers")).await;
        assert_eq!((response.text(), response.is_hit()), ("body", is_hit));
        assert_eq!((response.trailers.0.len(), response.header("Trailer"), response.header("X-Sum")), (0, None, None));
    }
}

#[tokio::test]
async fn a_post_that_may_be_stored_has_its_trailers() {
    let origin = Origin::start(|r| Reply::ok(r.body.clone()).cache_control("max-age=60").trailer("X-Sum", "4")).await;
    let edge = Edge::before(&origin, "").await;
    let response = edge.connect_h2().await.ask(&Ask::new("POST", "/a").body("body")).await;
    assert_eq!((response.text(), response.trailers.get("x-sum")), ("body", Some("4")));
}

const SENT: [(&str, &str); 9] = [
    ("x-sum", "4"),
    ("content-length", "9"),
    ("host", "other.test"),
    ("authorization", "Basic x"),
    ("x-forwarded-for", "192.0.2.1"),
    ("x_real_ip", "192.0.2.1"),
    ("via", "1.1 other"),
    ("x-role", "admin"),
    ("transfer-encoding", "chunked"),
];

/// A request with trailers, which says nothing of its length.
async fn post(edge: &Edge) -> String {
    let client = edge.connect_h2().await;
    let ask = Ask::new("POST", "/a").header("x-role", "guest").header("trailer", "x-sum").body("body");
    let mut waiting = client.send(&ask, false).await.expect("a stream");
    // What is of a connection alone, h2 does not send.
    waiting.trail(&SENT[..8]);
    waiting.try_head().await.expect("a head").rest().await.text().to_owned()
}

#[tokio::test]
async fn a_requests_trailers_reach_the_origin() {
    let origin = Origin::start(|r| Reply::ok(r.body.clone())).await;
    let edge = Edge::before(&origin, "").await;
    assert_eq!(post(&edge).await, "body");
    let seen = &origin.seen()[0];
    assert_eq!(seen.trailers.0, [("x-sum".to_owned(), "4".to_owned())]);
    assert_eq!((seen.header("Trailer"), seen.header("Transfer-Encoding")), (Some("x-sum"), Some("chunked")));
    assert_eq!((seen.header("X-Sum"), seen.headers.all("X-Role")), (None, vec!["guest"]));
    assert!(seen.complete);
    // The connection is kept.
    assert_eq!(post(&edge).await, "body");
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test]
async fn and_one_of_http2() {
    let behind = Arc::new(Mutex::new(None));
    let seen = behind.clone();
    let server = H2Server::start(Manners::default(), move |mut asked| {
        let seen = seen.clone();
        Box::pin(async move {
            let body = asked.body().await;
            let trailers = asked.request.body_mut().trailers().await.ok().flatten();
            *seen.lock().unwrap() = trailers;
            asked.ok(body);
        })
    });
    let edge = before(&server, "cache: off").await;
    assert_eq!(post(&edge).await, "body");
    assert_eq!(behind.lock().unwrap().take(), Some(map(&[("x-sum", "4")])));
}

#[tokio::test]
async fn those_of_a_request_over_http1_go_no_further() {
    let origin = Origin::start(|r| Reply::ok(r.body.clone())).await;
    let edge = Edge::before(&origin, "").await;
    let mut client = edge.connect().await;
    for _ in 0..2 {
        client
            .send("POST /a HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
            .await;
        client.send("4\r\nbody\r\n0\r\nX-Sum: 4\r\nContent-Length: 1\r\n\r\n").await;
        assert_eq!(client.response("POST").await.text(), "body");
    }
    for seen in origin.seen() {
        assert_eq!((seen.trailers.0.len(), seen.header("Trailer"), seen.header("X-Sum")), (0, None, None), "{seen:?}");
    }
}

#[tokio::test]
async fn an_origin_is_told_who_takes_trailers() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::before(&origin, "cache: off").await;
    for (over, ask, _) in asks("/a") {
        over.ask(&edge, &ask).await;
    }
    let told: Vec<_> = origin
        .seen()
        .iter()
        .map(|r| (r.header("TE") == Some("trailers"), r.headers.lists("Connection", "TE")))
        .collect();
    assert_eq!(told, [false, true, true, true, false].map(|told| (told, told)));
    let server = H2Server::start(Manners::default(), |asked| {
        let te = asked.request.headers().get("te").map_or("", |te| te.to_str().unwrap()).to_owned();
        crate::origins_wire::h2_server::at_once(|| asked.ok(te))
    });
    let edge = before(&server, "cache: off").await;
    for ((over, ask, _), te) in asks("/a").into_iter().zip(["", "trailers", "trailers", "trailers", ""]) {
        assert_eq!(over.ask(&edge, &ask).await.text(), te, "{over:?} {ask:?}");
    }
}
