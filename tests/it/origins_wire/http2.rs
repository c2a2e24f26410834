//! HTTP/2 towards servers.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Response};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::h2_server::{Asked, H2Server, Manners, at_once};
use super::pki::Authority;
use super::{before, detail, yaml};
use crate::harness::{Ask, Edge, End, Gate, eventually, exchange, within};

/// An answer with all its data, as far as the window allows.
async fn send_all(asked: Asked, data: Bytes) {
    let mut respond = asked.respond;
    let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
    let mut data = data;
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(room)) => {
                let piece = data.split_to(room.min(data.len()));
                let _ = stream.send_data(piece, data.is_empty());
            }
            _ => return,
        }
    }
}

/// So many requests at once; their statuses and bodies.
async fn burst(edge: &Edge, ask: impl Fn(usize) -> Ask, n: usize) -> Vec<(u16, Vec<u8>, End)> {
    let mut tasks = JoinSet::new();
    for i in 0..n {
        let (address, ask) = (edge.address(), ask(i));
        tasks.spawn(async move {
            let response = exchange(address, &ask).await;
            (response.status, response.body, response.end)
        });
    }
    within("a burst's answers", tasks.join_all()).await
}

#[tokio::test]
async fn a_hundred_requests_at_once_share_few_connections() {
    let authority = Authority::new();
    for (tls, http) in [(true, "auto"), (true, "2"), (false, "2")] {
        let gate = Gate::new();
        let held = gate.clone();
        let config = tls.then(|| Arc::new(authority.issue("127.0.0.1").server(&["h2", "http/1.1"])));
        let server = H2Server::start(Manners { tls: config, ..Manners::default() }, move |asked| {
            let held = held.clone();
            Box::pin(async move {
                held.pass().await;
                asked.ok("ok");
            })
        });
        let tls = if tls { format!(", tls: {{ ca: {} }}", authority.ca()) } else { String::new() };
        let edge = before(&server.address(), &format!("http: {http}{tls}")).await;
        let (answers, ()) = tokio::join!(burst(&edge, |n| Ask::get(&format!("/{n}")), 100), async {
            gate.reached(100).await;
            gate.open();
        });
        assert!(answers.iter().all(|(status, body, _)| *status == 200 && body == b"ok"), "{answers:?}");
        assert!(server.accepted() <= 2, "{} connections", server.accepted());
        let paths: HashSet<_> = server.targets().into_iter().map(|(_, path)| path).collect();
        assert_eq!(paths.len(), 100);
        // And the next uses what is there.
        let before = server.accepted();
        assert_eq!(edge.get("/more").await.status, 200);
        assert_eq!(server.accepted(), before);
    }
}

#[tokio::test]
async fn what_the_server_allows_at_once_is_kept_to() {
    let most = Arc::new(AtomicUsize::new(0));
    let now = Arc::new(AtomicUsize::new(0));
    let (seen, in_flight) = (most.clone(), now.clone());
    let manners = Manners { streams: Some(5), ..Manners::default() };
    let server = H2Server::start(manners, move |asked| {
        let (seen, in_flight) = (seen.clone(), in_flight.clone());
        Box::pin(async move {
            seen.fetch_max(in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            in_flight.fetch_sub(1, Ordering::SeqCst);
            asked.ok("ok");
        })
    });
    let edge = before(&server.address(), "http: 2").await;
    // From the first on: nobody knows by then what it allows.
    let answers = burst(&edge, |n| Ask::new("POST", &format!("/{n}")).body("x"), 60).await;
    assert!(answers.iter().all(|(status, ..)| *status == 200), "{answers:?}");
    assert!(server.accepted() > 1, "more connections are made where one is full");
}

#[tokio::test]
async fn large_bodies_go_both_ways() {
    let server = H2Server::start(Manners::default(), |mut asked| {
        Box::pin(async move {
            let body = asked.body().await;
            send_all(asked, body.into()).await;
        })
    });
    let edge = before(&server.address(), "http: 2").await;
    let body: Bytes = (0..5_000_000u32).map(|n| (n / 7) as u8).collect::<Vec<_>>().into();
    let answers = burst(&edge, |_| Ask::new("PUT", "/").body(body.clone()), 4).await;
    for (status, came, end) in answers {
        assert_eq!((status, end), (200, End::Clean));
        assert!(came == body, "{} bytes of {}", came.len(), body.len());
    }
    // In chunks, too: of a length that nobody has said.
    let mut client = edge.connect().await;
    client
        .send(
            "POST /c HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        )
        .await;
    assert_eq!(client.response("POST").await.body, b"abcde");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn trailers_end_an_answer_and_are_no_part_of_it() {
    let server = H2Server::start(Manners::default(), |asked| {
        at_once(|| {
            let mut respond = asked.respond;
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"body"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", "1".parse().unwrap());
            trailers.insert("set-cookie", "a=b".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        })
    });
    let edge = before(&server.address(), "http: 2").await;
    for _ in 0..2 {
        let response = edge.get("/").await;
        assert_eq!((response.text(), response.header("Set-Cookie")), ("body", None));
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_goodbye_in_the_middle_of_load_loses_nothing() {
    let manners = Manners { goodbye_after: Some(7), ..Manners::default() };
    let server = H2Server::start(manners, |asked| {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            asked.ok("ok");
        })
    });
    let edge = before(&server.address(), "http: 2").await;
    let mut asked = 0;
    for method in ["GET", "POST"] {
        for _ in 0..6 {
            let ask = |n| Ask::new(method, &format!("/{n}")).header("Content-Length", "0");
            burst(&edge, ask, 40).await;
            asked += 40;
            let lines = edge.access_log_lines(asked).await;
            let failed: Vec<_> = lines.iter().filter(|l| l["status"] != 200).collect();
            assert!(failed.is_empty(), "{failed:?}");
        }
    }
    assert!(server.accepted() > 6, "{}", server.accepted());
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_whatever_its_method() {
    for warm in [false, true] {
        let refusals = Arc::new(AtomicUsize::new(if warm { 0 } else { 1 }));
        let left = refusals.clone();
        let server = H2Server::start(Manners::default(), move |asked| {
            let refuse = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            at_once(|| if refuse { asked.reset(Reason::REFUSED_STREAM) } else { asked.ok("ok") })
        });
        // The same server twice, by two names: one that has refused is not asked again.
        let port = server.address().rsplit(':').next().unwrap().to_owned();
        let second = H2Server::start(Manners::default(), |asked| at_once(|| asked.ok("ok")));
        let edge = Edge::start(&yaml(&[&format!("127.0.0.1:{port}"), &second.address()], "http: 2")).await;
        if warm {
            for _ in 0..4 {
                assert_eq!(edge.get("/warm").await.status, 200);
            }
            refusals.store(1, Ordering::SeqCst);
        }
        for _ in 0..2 {
            assert_eq!(edge.ask(&Ask::new("POST", "/").body("x")).await.status, 200);
        }
        assert_eq!(refusals.load(Ordering::SeqCst), 0);
        assert_eq!(edge.metrics().await.sum("foreland_origin_retries_total", &[]), 1.0);
    }
}

#[tokio::test]
async fn a_server_that_resets_every_stream_is_a_failing_server() {
    // The connection is fine, and stays: that it had been kept says nothing.
    for reason in [Reason::INTERNAL_ERROR, Reason::REFUSED_STREAM] {
        let server = H2Server::start(Manners::default(), move |asked| {
            at_once(|| if asked.path() == "/warm" { asked.ok("ok") } else { asked.reset(reason) })
        });
        let settings = "http: 2, retries: 0, outliers: { consecutive_failures: 3, max_ejected: 100% }, panic_below: 0%";
        let edge = before(&server.address(), settings).await;
        assert_eq!(edge.get("/warm").await.status, 200);
        for n in 1..=3 {
            assert_eq!(edge.get("/").await.status, 502, "{reason:?}");
            assert_eq!(server.requests(), 1 + n, "{reason:?}: `retries` is 0");
        }
        assert_eq!(edge.get("/").await.status, 503, "{reason:?}: it is ejected");
    }
}

#[tokio::test]
async fn a_stalled_stream_does_not_stall_others() {
    let large = Bytes::from(vec![b'x'; 8 << 20]);
    let data = large.clone();
    let server = H2Server::start(Manners::default(), move |asked| {
        let data = data.clone();
        Box::pin(async move {
            match asked.path() {
                "/large" => send_all(asked, data).await,
                "/never" => std::future::pending().await,
                _ => asked.ok("ok"),
            }
        })
    });
    let edge = before(&server.address(), "http: 2, read_timeout: 60s").await;
    // Clients that read nothing but heads, and one that waits for what does not come.
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut client = edge.connect().await;
        client.send(Ask::get("/large").bytes()).await;
        assert_eq!(client.head("GET").await.status, 200);
        stalled.push(client);
    }
    let mut waiting = edge.connect().await;
    waiting.send(Ask::get("/never").bytes()).await;
    eventually("all requests at the server", async || server.requests() == 21).await;
    for _ in 0..20 {
        assert_eq!(edge.get("/small").await.text(), "ok");
    }
    assert!(edge.get("/large").await.body == large);
    assert_eq!(server.accepted(), 1);
    // Those that go away leave the windows as they were.
    drop((stalled, waiting));
    for _ in 0..10 {
        assert!(edge.get("/large").await.body == large);
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn downloads_that_are_given_up_take_nothing_of_the_connection() {
    let data = Bytes::from(vec![b'x'; 2 << 20]);
    let large = data.clone();
    let server = H2Server::start(Manners::default(), move |asked| {
        let data = data.clone();
        Box::pin(async move { send_all(asked, data).await })
    });
    let edge = before(&server.address(), "http: 2, streams: 4").await;
    // In all, far more than the window of a connection.
    for _ in 0..60 {
        let mut client = edge.connect().await;
        client.send(Ask::get("/large").bytes()).await;
        assert_eq!(client.head("GET").await.status, 200);
        client.reset();
    }
    for _ in 0..5 {
        assert!(edge.get("/large").await.body == large);
    }
}

#[tokio::test]
async fn a_server_that_does_not_choose_http2_is_told_of() {
    let authority = Authority::new();
    let origin = crate::harness::Origin::start(|_| crate::harness::Reply::ok("ok")).await;
    let front = super::tls_front::TlsFront::start(authority.issue("127.0.0.1").server(&[]), &origin).await;
    let edge = before(&front.address(), &format!("http: 2, retries: 0, tls: {{ ca: {} }}", authority.ca())).await;
    assert_eq!(edge.get("/").await.status, 502);
    assert!(detail(&edge).await.contains("does not choose HTTP/2"), "{}", detail(&edge).await);
    // `auto` takes what there is.
    let edge = before(&front.address(), &format!("tls: {{ ca: {} }}", authority.ca())).await;
    assert_eq!(edge.get("/").await.text(), "ok");
    assert_eq!(edge.get("/").await.text(), "ok");
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_that_has_not_begun() {
    // It takes connections, and either says nothing or speaks HTTP/1.1: another one is asked, whatever the method.
    for says in [&b""[..], &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..]] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(says).await;
                held.push(stream);
            }
        });
        let server = H2Server::start(Manners::default(), |asked| at_once(|| asked.ok("ok")));
        let settings = "http: 2, connect_timeout: 500ms, balance: failover, outliers: off";
        let edge = Edge::start(&yaml(&[&other, &server.address()], settings)).await;
        for _ in 0..2 {
            assert_eq!(edge.ask(&Ask::new("POST", "/").body("x")).await.text(), "ok");
        }
    }
}
