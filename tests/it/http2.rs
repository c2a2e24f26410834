//! What is HTTP/2's own: streams beside each other, windows, resets; and what must be there as it is over HTTP/1.1.

use h2::Reason;

use crate::harness::{Ask, Edge, End, Gate, H2Connection, Origin, Reply, eventually, http_date};
use crate::over::{BOTH, Over, all};

const KIB: usize = 1024;

async fn limited(origin: &Origin, limits: &str) -> Edge {
    Edge::start(&format!("limits: {{ {limits} }}\n{}", Edge::yaml_before(&[origin], ""))).await
}

/// Stale on arrival, by a second.
fn stale(body: &'static str, directives: &str) -> Reply {
    Reply::ok(body).cache_control(&format!("max-age=60{directives}")).header("Age", "61").header("ETag", "\"v1\"")
}

#[tokio::test]
async fn the_date_is_the_origins() {
    let gate = Gate::new();
    let at = gate.clone();
    let date = http_date(-5);
    let said = date.clone();
    let origin = Origin::start(move |r| match r.path() {
        "/passed" => Reply::ok("x").cache_control("no-store").header("Date", &said),
        "/revalidated" if r.header("If-None-Match").is_some() => Reply::new(304).header("Date", &said),
        "/revalidated" => stale("x", ""),
        "/followed" => {
            Reply::ok("x").body("y").wait(&at).body("z").chunked().cache_control("max-age=60").header("Date", &said)
        }
        _ => Reply::ok("x").cache_control("max-age=60").header("Date", &said),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let client = edge.connect_h2().await;
    let date = Some(&*date);
    for (target, what) in [("/a", "a miss"), ("/a", "a hit"), ("/passed", "what is passed")] {
        assert_eq!(client.ask(&Ask::get(target)).await.header("Date"), date, "{what}");
    }
    assert_eq!(client.ask(&Ask::head("/a")).await.header("Date"), date, "a hit for HEAD");
    client.ask(&Ask::get("/revalidated")).await;
    let revalidated = client.ask(&Ask::get("/revalidated")).await;
    assert!(revalidated.cache_status().contains("fwd-status=304"), "{revalidated:?}");
    assert_eq!(revalidated.header("Date"), date);
    let first = client.start(&Ask::get("/followed")).await;
    let follower = client.start(&Ask::get("/followed")).await;
    gate.open();
    for exchange in [first, follower] {
        assert_eq!(exchange.response.header("Date"), date, "{:?}", exchange.response);
        assert_eq!(exchange.rest().await.text(), "xyz");
    }
}

#[tokio::test]
async fn a_response_without_a_date_gets_one() {
    let origin = Origin::start(|r| match r.path() {
        "/stored" => Reply::ok("x").cache_control("max-age=60"),
        _ => Reply::ok("x").cache_control("no-store"),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let client = edge.connect_h2().await;
    for target in ["/passed", "/stored", "/stored"] {
        let response = client.ask(&Ask::get(target)).await;
        let dates = response.headers.all("Date");
        assert!(dates.len() == 1 && httpdate::parse_http_date(dates[0]).is_ok(), "{target}: {response:?}");
    }
    let own = client.ask(&Ask::new("TRACE", "/")).await;
    assert_eq!((own.status, own.headers.all("Date").len()), (405, 1));
}

#[tokio::test]
async fn interim_responses_pass() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |r| {
        let cache = if r.path() == "/stored" { "max-age=60" } else { "no-store" };
        let reply = Reply::ok("page").cache_control(cache).interim(103, &[("Link", "</a.css>; rel=preload")]);
        match r.path() {
            // In a read of its own: the client has it before there is anything else.
            "/early" => Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\n\r\n")
                .wait(&at)
                .body("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage"),
            "/two" => reply.interim(103, &[("Link", "</b.css>; rel=preload")]),
            _ => reply,
        }
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let client = edge.connect_h2().await;
    let mut waiting = client.send(&Ask::get("/early"), true).await.expect("a stream");
    let (status, fields) = waiting.interim().await;
    assert_eq!((status, fields.get("Link"), fields.has("Connection")), (103, Some("</a.css>; rel=preload"), false));
    gate.open();
    let page = waiting.try_head().await.expect("a response").rest().await;
    assert_eq!((page.status, page.text(), page.interim.len()), (200, "page", 0));
    // In one read with what follows, too.
    for (target, hints) in [("/passed", 1), ("/stored", 1), ("/two", 2), ("/stored", 0)] {
        let page = client.ask(&Ask::get(target)).await;
        assert_eq!((page.status, page.text(), page.interim.len()), (200, "page", hints), "{target}: {page:?}");
        for (status, fields) in &page.interim {
            assert_eq!((*status, fields.all("Link").len()), (103, 1), "{page:?}");
        }
    }
    // One to a client that waits for it.
    origin.answer(|_| Reply::ok("taken"));
    let taken = client.ask(&Ask::new("POST", "/").header("expect", "100-continue").body("x")).await;
    assert_eq!(
        (taken.text(), taken.interim.iter().map(|(status, _)| *status).collect::<Vec<_>>()),
        ("taken", vec![100])
    );
}

#[tokio::test]
async fn a_body_must_come_in_time() {
    let origin = Origin::start(|r| Reply::ok(r.body.clone())).await;
    let edge = limited(&origin, "body_timeout: 400ms").await;
    let client = edge.connect_h2().await;
    let slow = client.send(&Ask::new("POST", "/slow").body("abc"), false).await.expect("a stream");
    let response = slow.try_head().await.expect("a response").rest().await;
    assert_eq!(response.status, 408, "{response:?}");
    assert!(response.header("Connection").is_none() && !response.text().is_empty());
    origin.wait_for_open(0).await;
    assert!(origin.seen().iter().all(|r| !r.complete));
    // It is the stream's own affair.
    assert_eq!(client.ask(&Ask::new("POST", "/").body("fine")).await.text(), "fine");
    // Its line comes when the client has the last of its answer, which may be after the other's.
    let lines = edge.access_log_lines(2).await;
    let line = lines.iter().find(|line| line["uri"] == "/slow").expect("a line");
    assert_eq!((&line["status"], &line["protocol"]), (&408.into(), &"HTTP/2.0".into()), "{line}");
}

#[tokio::test]
async fn a_first_client_that_takes_nothing_delays_nobody() {
    const SIZE: usize = 16 * 1024 * KIB;
    for first in BOTH {
        let (begun, gate) = (Gate::new(), Gate::new());
        let at = (begun.clone(), gate.clone());
        // More than the buffers of both kernels hold.
        let half = vec![b'x'; SIZE / 2];
        let origin = Origin::start(move |_| {
            let reply = Reply::ok(half.clone()).claim_length(SIZE as u64).cache_control("max-age=60");
            reply.wait(&at.0).wait(&at.1).body(half.clone())
        })
        .await;
        begun.let_one_through();
        let cache = "cache: { memory: { size: 128MiB, max_object: 32MiB } }\n".to_owned();
        let edge = Edge::start(&(cache + &Edge::yaml_before(&[&origin], ""))).await;
        // One that asks, and then does nothing.
        let (mut on_http1, on_http2) = (edge.connect().await, H2Connection::open_narrow(edge.h2c_address(), 0).await);
        let mut idle = None;
        match first {
            Over::Http1 => on_http1.send(Ask::get("/a").bytes()).await,
            Over::Http2 => idle = Some(on_http2.send(&Ask::get("/a"), true).await.expect("a stream")),
        }
        // The origin got rid of the first half, so the edge has taken it from it.
        begun.reached(1).await;
        gate.open();
        let followers = all(BOTH.iter().map(|over| over.get(&edge, "/a"))).await;
        for follower in followers {
            assert_eq!((follower.end, follower.body.len()), (End::Clean, SIZE), "after a first over {first:?}");
        }
        assert!(edge.get("/a").await.is_hit());
        assert_eq!(origin.count(), 1);
        drop(idle);
    }
}

#[tokio::test]
async fn a_narrow_window_loses_and_repeats_nothing() {
    // What is written to the first client is interrupted by each piece that comes.
    let origin = Origin::start(|r| {
        let cache = if r.path() == "/stored" { "max-age=60" } else { "no-store" };
        let reply = Reply::new(200).chunked().cache_control(cache);
        (0..200u32).fold(reply, |reply, n| reply.body(vec![b'a' + (n % 26) as u8; 997]))
    })
    .await;
    let expected: Vec<u8> = (0..200u32).flat_map(|n| vec![b'a' + (n % 26) as u8; 997]).collect();
    let edge = Edge::before(&origin, "").await;
    for window in [1000, 100_000] {
        let client = H2Connection::open_narrow(edge.h2c_address(), window).await;
        for target in ["/passed", &format!("/stored?{window}"), &format!("/stored?{window}")] {
            let response = client.ask(&Ask::get(target)).await;
            assert_eq!(response.end, End::Clean, "{target}");
            assert!(response.body == expected, "{target}: {} bytes", response.body.len());
        }
    }
}

#[tokio::test]
async fn what_is_stale_is_refreshed_once_in_the_background() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |_| stale("old", ", stale-while-revalidate=600")).await;
    let edge = Edge::before(&origin, "").await;
    let client = edge.connect_h2().await;
    let ask = Ask::get("/a?b=c").header("te", "trailers").header("accept", "text/plain");
    assert_eq!(client.ask(&ask).await.text(), "old");
    origin.answer(move |_| Reply::ok("new").cache_control("max-age=60").hold(&at));
    for response in all((0..4).map(|_| client.ask(&ask))).await {
        assert_eq!(response.text(), "old", "{response:?}");
        assert!(response.cache_status().contains("detail=stale-while-revalidate"), "{response:?}");
    }
    gate.open();
    eventually("the new one is stored", async || client.ask(&ask).await.text() == "new").await;
    let seen = origin.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    let refresh = &seen[1];
    assert_eq!((refresh.method.as_str(), refresh.target.as_str()), ("GET", "/a?b=c"));
    assert_eq!(refresh.headers.all("Host"), ["edge.test"]);
    assert_eq!((refresh.header("Accept"), refresh.header("TE")), (Some("text/plain"), None), "{refresh:?}");
}

#[tokio::test]
async fn a_stream_that_is_reset_leaves_its_siblings_whole() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |r| {
        let cache = if r.path() == "/stored" { "max-age=60" } else { "no-store" };
        Reply::ok("begin ").wait(&at).body(vec![b'x'; 300 * KIB]).chunked().cache_control(cache)
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let client = edge.connect_h2().await;
    for target in ["/passed", "/stored"] {
        let mut left = client.start(&Ask::get(target)).await;
        let stays = client.start(&Ask::get(target)).await;
        left.chunk().await.expect("the beginning");
        left.cancel();
        gate.let_one_through();
        gate.let_one_through();
        let stays = stays.rest().await;
        assert_eq!((stays.end, stays.body.len()), (End::Clean, 6 + 300 * KIB), "{target}");
    }
    gate.open();
    assert_eq!(client.ask(&Ask::get("/passed")).await.end, End::Clean);
}

#[tokio::test]
async fn a_truncated_body_is_no_end() {
    for cache in ["no-store", "max-age=60"] {
        for chunked in [false, true] {
            let gate = Gate::new();
            let at = gate.clone();
            let origin = Origin::start(move |_| {
                let reply = Reply::ok("only this").cache_control(cache).wait(&at).cut();
                if chunked { reply.chunked() } else { reply.claim_length(100) }
            })
            .await;
            let edge = Edge::before(&origin, "").await;
            let client = edge.connect_h2().await;
            let exchange = client.start(&Ask::get("/a")).await;
            gate.open();
            let response = exchange.rest().await;
            // The stream alone is broken. What was still on its way out of it may be lost.
            assert_eq!(response.end, End::Reset, "{cache}, {chunked}");
            assert!(b"only this".starts_with(&response.body), "{cache}, {chunked}: {response:?}");
            origin.answer(|_| Reply::ok("whole"));
            assert_eq!(client.ask(&Ask::get("/a")).await.text(), "whole", "{cache}, {chunked}");
        }
    }
}

#[tokio::test]
async fn a_response_to_head_has_no_body() {
    let origin = Origin::start(|r| match r.path() {
        "/stored" => Reply::ok("a body").cache_control("max-age=60"),
        "/none" => Reply::new(204),
        _ => Reply::ok("a body").cache_control("no-store"),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let client = edge.connect_h2().await;
    for target in ["/stored", "/passed"] {
        let head = client.ask(&Ask::head(target)).await;
        assert_eq!((head.status, head.text(), head.header("Content-Length")), (200, "", Some("6")), "{target}");
    }
    // The whole has been fetched for the store.
    let hit = client.ask(&Ask::get("/stored")).await;
    assert!(hit.is_hit() && hit.text() == "a body", "{hit:?}");
    let unchanged = client.ask(&Ask::get("/stored").header("if-modified-since", http_date(60))).await;
    assert_eq!(unchanged.text().len() + usize::from(unchanged.status != 200) * 6, 6, "{unchanged:?}");
    assert_eq!((client.ask(&Ask::get("/none")).await.status, client.ask(&Ask::head("/none")).await.status), (204, 204));
}

#[tokio::test]
async fn a_request_for_two_hosts_is_refused_and_its_siblings_are_not() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |r| Reply::ok(r.headers.all("Host").join("|")).hold(&at)).await;
    let edge = Edge::before(&origin, "").await;
    let client = edge.connect_h2().await;
    let sibling = client.send(&Ask::get("/a"), true).await.expect("a stream");
    gate.reached(1).await;
    for wrong in ["evil.test", "EDGE.test", "edge.test:80", "user@edge.test"] {
        let refused = client.ask(&Ask::get("/b").header("host", wrong)).await;
        assert_eq!((refused.status, refused.body.len()), (400, 0), "{wrong}");
    }
    let twice = client.ask(&Ask::get("/b").header("host", "edge.test").header("host", "edge.test")).await;
    assert_eq!(twice.status, 400);
    gate.open();
    assert_eq!(sibling.try_head().await.expect("a response").rest().await.text(), "edge.test");
    assert_eq!(client.ask(&Ask::get("/c").header("host", "edge.test")).await.text(), "edge.test");
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn too_many_malformed_requests_end_the_connection() {
    let origin = Origin::start(|_| Reply::ok("fine")).await;
    let edge = Edge::before(&origin, "").await;
    let client = edge.connect_h2().await;
    let mut refused = 0;
    while let Ok(exchange) = client.try_start(&Ask::get("/").header("host", "evil.test")).await {
        assert_eq!(exchange.response.status, 400);
        refused += 1;
        assert!(refused < 100, "nobody ends it");
    }
    assert!(refused >= 30, "{refused}");
    assert_eq!(client.closed().await, Some(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(edge.get("/").await.text(), "fine");
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let origin = Origin::start(|_| Reply::ok("fine").cache_control("no-store")).await;
    let edge = Edge::before(&origin, "").await;
    let client = edge.connect_h2().await;
    for n in 0.. {
        assert!(n < 10_000, "nobody ends it");
        match client.send(&Ask::get("/"), true).await {
            Ok(waiting) => waiting.cancel(),
            Err(_) => break,
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(client.closed().await, Some(Reason::ENHANCE_YOUR_CALM));
    // It was nobody else's.
    let client = edge.connect_h2().await;
    assert_eq!(client.ask(&Ask::get("/")).await.text(), "fine");
    assert_eq!(edge.get("/").await.text(), "fine");
    edge.wait_metrics("nothing is left of them", |m| m.sum("foreland_requests_in_flight", &[]) == 0.0).await;
}

#[tokio::test]
async fn resets_of_what_is_under_way_end_the_connection_too() {
    // What is not for the store ends with its client, what is does not.
    for method in ["POST", "GET"] {
        let origin = Origin::start(|r| if r.path() == "/fine" { Reply::ok("fine") } else { Reply::never() }).await;
        let edge = Edge::before(&origin, "").await;
        let client = edge.connect_h2().await;
        let mut given_up = 0;
        while let Ok(waiting) = client.send(&Ask::new(method, &format!("/slow?{given_up}")), true).await {
            given_up += 1;
            assert!(given_up < 1000, "nobody ends it");
            let asked = given_up + usize::from(given_up > 200);
            eventually("the origin is asked", async || origin.count() >= asked || client.is_over()).await;
            waiting.cancel();
            if given_up == 200 {
                // So many are nothing: so does a browser whose user goes on to another page.
                assert_eq!(client.ask(&Ask::get("/fine")).await.text(), "fine");
            }
        }
        assert!(given_up > 200, "{given_up}");
        assert_eq!(client.closed().await, Some(Reason::ENHANCE_YOUR_CALM), "{method}");
        assert_eq!(edge.connect_h2().await.ask(&Ask::get("/fine")).await.text(), "fine");
    }
}

#[tokio::test]
async fn a_connection_without_streams_is_ended_and_one_with_streams_is_not() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |r| {
        let reply = Reply::ok("fine");
        if r.path() == "/slow" { reply.hold(&at) } else { reply }
    })
    .await;
    let edge = limited(&origin, "idle_timeout: 300ms").await;
    let busy = edge.connect_h2().await;
    let slow = busy.send(&Ask::get("/slow"), true).await.expect("a stream");
    gate.reached(1).await;
    // The clock of this test: idle for as long as the other one is busy, at least.
    for _ in 0..2 {
        let idle = edge.connect_h2().await;
        assert_eq!(idle.ask(&Ask::get("/")).await.text(), "fine");
        assert_eq!(idle.closed().await, None);
    }
    gate.open();
    assert_eq!(slow.try_head().await.expect("a response").rest().await.text(), "fine");
    assert_eq!(busy.closed().await, None);
}

#[tokio::test]
async fn a_tunnel_is_refused_and_the_refusal_is_of_now() {
    let origin = Origin::start(|_| Reply::ok("fine")).await;
    let edge = Edge::before(&origin, "").await;
    let client = edge.connect_h2().await;
    let refused = client.ask(&Ask::new("CONNECT", "/")).await;
    assert_eq!((refused.status, refused.text(), refused.header("Server")), (405, "", None), "{refused:?}");
    assert!(refused.headers.lists("Allow", "GET"), "{refused:?}");
    let date = refused.header("Date").and_then(|date| httpdate::parse_http_date(date).ok()).expect("a date");
    assert!(date.elapsed().is_ok_and(|age| age.as_secs() < 3600), "{refused:?}");
    assert_eq!(client.ask(&Ask::get("/")).await.text(), "fine");
    assert_eq!(origin.count(), 1);
}
