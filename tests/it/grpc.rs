//! Calls of gRPC: two streams of messages that do not wait for each other, and an end that says how it went.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::harness::{Ask, Edge, End, Gate, H2Connection, eventually, within};
use crate::origins_wire::h2_server::{Answering, Asked, H2Server, Manners};

const MIB: usize = 1 << 20;

fn call(path: &str) -> Ask {
    Ask::new("POST", path).header("content-type", "application/grpc").header("te", "trailers")
}

fn status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static(code))])
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn server(handler: impl Fn(Asked) -> Answering + Send + Sync + 'static) -> H2Server {
    H2Server::start(Manners::default(), handler)
}

async fn before(server: &H2Server, origin: &str, top: &str) -> Edge {
    Edge::start(&format!(
        "origins: {{ o: {{ servers: [\"{}\"], http: 2{origin} }} }}\nsites: [{{ hosts: [\"*\"], origin: o }}]\n{top}",
        server.address()
    ))
    .await
}

/// Says back each message as it comes, and ends well when the client has.
fn echo(mut asked: Asked) -> Answering {
    Box::pin(async move {
        let Ok(mut stream) = asked.respond.send_response(head(), false) else { return };
        let body = asked.request.body_mut();
        while let Some(Ok(piece)) = body.data().await {
            let _ = body.flow_control().release_capacity(piece.len());
            let _ = stream.send_data(piece, false);
        }
        let _ = stream.send_trailers(status("0"));
    })
}

#[tokio::test]
async fn a_call_ends_with_its_status() {
    let timeouts = Arc::new(Mutex::new(Vec::new()));
    let seen = timeouts.clone();
    let server = server(move |mut asked| {
        let headers = asked.request.headers();
        let field = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        seen.lock().unwrap().push((field("grpc-timeout"), field("te"), field("content-type")));
        match asked.path() {
            "/s/Fails" => {
                let head = Response::builder()
                    .header("content-type", "application/grpc")
                    .header("grpc-status", "5")
                    .header("grpc-message", "not%20found");
                let _ = asked.respond.send_response(head.body(()).unwrap(), true);
                Box::pin(std::future::ready(()))
            }
            _ => echo(asked),
        }
    });
    let edge = before(&server, "", "").await;
    let client = edge.connect_h2().await;
    let answer = client.ask(&call("/s/Echo").header("grpc-timeout", "5S").body("\0\0\0\0\x01x")).await;
    assert_eq!((answer.status, answer.body.as_slice(), &answer.end), (200, &b"\0\0\0\0\x01x"[..], &End::Clean));
    assert_eq!(answer.trailers.get("grpc-status"), Some("0"), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    // Trailers alone: the head is the end.
    let answer = client.start(&call("/s/Fails").body("x")).await;
    assert!(answer.ended_with_head());
    let said = (answer.response.header("grpc-status"), answer.response.header("grpc-message"));
    assert_eq!(said, (Some("5"), Some("not%20found")));
    let line = |timeout: &str| (timeout.to_owned(), "trailers".to_owned(), "application/grpc".to_owned());
    assert_eq!(*timeouts.lock().unwrap(), [line("5S"), line("")]);
    let lines = edge.access_log_lines(2).await;
    let first = lines.iter().find(|line| line["uri"] == "/s/Echo").expect("a line");
    assert_eq!((&first["status"], &first["bytes_received"], &first["bytes"]), (&200.into(), &6.into(), &6.into()));
}

#[tokio::test]
async fn messages_go_both_ways_at_a_time() {
    let server = server(echo);
    let edge = before(&server, "", "").await;
    let client = edge.connect_h2().await;
    // The answer begins before anything has been said.
    let mut exchange = client.send(&call("/s/Chat"), false).await.unwrap().try_head().await.expect("a head");
    for n in 0..50u32 {
        let message = format!("message {n}");
        exchange.say(message.clone(), false);
        let mut came = Vec::new();
        while came.len() < message.len() {
            came.extend_from_slice(&exchange.chunk().await.expect("a message").expect("no end"));
        }
        assert_eq!(came, message.as_bytes());
    }
    exchange.say("", true);
    let answer = exchange.rest().await;
    assert_eq!((&answer.end, answer.trailers.get("grpc-status")), (&End::Clean, Some("0")));
}

#[tokio::test]
async fn a_server_may_go_on_when_the_client_has_ended_and_end_before_it_has() {
    let gate = Gate::new();
    let at = gate.clone();
    let cut = Arc::new(Mutex::new(None));
    let seen = cut.clone();
    let server = server(move |mut asked| {
        let (at, seen) = (at.clone(), seen.clone());
        Box::pin(async move {
            let Ok(mut stream) = asked.respond.send_response(head(), false) else { return };
            if asked.path() == "/s/Feed" {
                asked.body().await;
                for _ in 0..3 {
                    at.pass().await;
                    let _ = stream.send_data("tick".into(), false);
                }
                let _ = stream.send_trailers(status("0"));
                return;
            }
            let _ = stream.send_data("enough".into(), false);
            let _ = stream.send_trailers(status("11"));
            let end = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            *seen.lock().unwrap() = end.ok();
        })
    });
    let edge = before(&server, "", "").await;
    let client = edge.connect_h2().await;
    let mut feed = client.start(&call("/s/Feed").body("x")).await;
    for _ in 0..3 {
        gate.let_one_through();
        assert_eq!(feed.chunk().await, Ok(Some("tick".into())));
    }
    assert_eq!(feed.rest().await.trailers.get("grpc-status"), Some("0"));
    // The client has not ended, and need not.
    let early = client.send(&call("/s/Enough").body("x"), false).await.unwrap().try_head().await.expect("a head");
    let answer = early.rest().await;
    assert_eq!((answer.text(), answer.trailers.get("grpc-status"), answer.end), ("enough", Some("11"), End::Clean));
    eventually("the server's stream is given up", async || cut.lock().unwrap().is_some()).await;
}

#[tokio::test]
async fn a_client_that_gives_up_is_heard_of_at_the_server() {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let seen = ends.clone();
    let begun = Gate::new();
    let at = begun.clone();
    let server = server(move |mut asked| {
        let (seen, at) = (seen.clone(), at.clone());
        Box::pin(async move {
            let end = if asked.path() == "/s/Silent" {
                at.pass().await;
                std::future::poll_fn(|cx| asked.respond.poll_reset(cx)).await
            } else {
                let Ok(mut stream) = asked.respond.send_response(head(), false) else { return };
                at.pass().await;
                std::future::poll_fn(|cx| stream.poll_reset(cx)).await
            };
            seen.lock().unwrap().push(end.expect("a reset, not the connection's end"));
        })
    });
    let edge = before(&server, "", "").await;
    let client = edge.connect_h2().await;
    begun.open();
    for whole in [true, false] {
        let waiting = client.send(&call("/s/Silent").body("x"), whole).await.unwrap();
        let requests = server.requests();
        eventually("the request at the server", async || server.requests() > requests || requests > 0).await;
        waiting.cancel();
        let exchange = client.send(&call("/s/Begun").body("x"), whole).await.unwrap().try_head().await.expect("a head");
        exchange.cancel();
    }
    eventually("four resets", async || ends.lock().unwrap().len() == 4).await;
    assert_eq!(*ends.lock().unwrap(), [Reason::CANCEL; 4]);
    assert_eq!(server.accepted(), 1, "the connection stays");
}

#[tokio::test]
async fn a_server_that_gives_up_is_heard_of_at_the_client() {
    let server = server(|mut asked| {
        Box::pin(async move {
            let reason = match asked.path() {
                "/s/Cancel" => Reason::CANCEL,
                "/s/Calm" => Reason::ENHANCE_YOUR_CALM,
                _ => Reason::FLOW_CONTROL_ERROR,
            };
            let Ok(mut stream) = asked.respond.send_response(head(), false) else { return };
            let _ = stream.send_data("some".into(), false);
            asked.body().await;
            stream.send_reset(reason);
        })
    });
    let edge = before(&server, "", "").await;
    let client = edge.connect_h2().await;
    for (path, reason) in
        [("/s/Cancel", Reason::CANCEL), ("/s/Calm", Reason::ENHANCE_YOUR_CALM), ("/s/Other", Reason::INTERNAL_ERROR)]
    {
        let mut exchange = client.send(&call(path), false).await.unwrap().try_head().await.expect("a head");
        assert_eq!(exchange.chunk().await, Ok(Some("some".into())), "{path}");
        exchange.say("", true);
        assert_eq!(exchange.chunk().await, Err(End::Reset), "{path}");
        assert_eq!(exchange.reset, Some(reason), "{path}");
    }
    // Before the head, there is a status for it.
    let refuses = H2Server::start(Manners::default(), |asked| {
        crate::origins_wire::h2_server::at_once(|| asked.reset(Reason::INTERNAL_ERROR))
    });
    let edge = before(&refuses, "", "").await;
    let answer = edge.connect_h2().await.ask(&call("/s/X").body("x")).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (502, None), "{answer:?}");
}

#[tokio::test]
async fn who_takes_nothing_holds_up_nobody_and_fills_no_memory() {
    let (sent, got) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let (counted, taken) = (sent.clone(), got.clone());
    let server = server(move |mut asked| {
        let (counted, taken) = (counted.clone(), taken.clone());
        Box::pin(async move {
            let Ok(mut stream) = asked.respond.send_response(head(), false) else { return };
            if asked.path() == "/s/Deaf" {
                // Takes nothing at all; ends with the edge.
                return std::future::pending().await;
            }
            // Talks without an end, and listens beside that.
            let talk = async {
                loop {
                    stream.reserve_capacity(64 * 1024);
                    let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
                    *counted.lock().unwrap() += room;
                    if stream.send_data(vec![7; room].into(), false).is_err() {
                        return;
                    }
                }
            };
            let body = asked.request.body_mut();
            let listen = async {
                while let Some(Ok(piece)) = body.data().await {
                    let _ = body.flow_control().release_capacity(piece.len());
                    *taken.lock().unwrap() += piece.len();
                }
            };
            futures_util::future::join(talk, listen).await;
        })
    });
    let edge = before(&server, "", "").await;
    // The client's window is shut from the beginning.
    let client = H2Connection::open_narrow(edge.h2c_address(), 0).await;
    let mut exchange = client.send(&call("/s/Talk"), false).await.unwrap().try_head().await.expect("a head");
    // What it says goes through all the same: nothing of the answer has been taken.
    let said = exchange.pour(vec![1; 4 * MIB].into(), Duration::from_secs(10)).await;
    assert_eq!(said, 4 * MIB);
    eventually("all of it at the server", async || *got.lock().unwrap() == 4 * MIB).await;
    assert!(*sent.lock().unwrap() <= 2 * MIB, "{} bytes", sent.lock().unwrap());
    exchange.cancel();
    // And a server that takes nothing stops the client, rather than filling the edge.
    let mut deaf = client.send(&call("/s/Deaf"), false).await.unwrap().try_head().await.expect("a head");
    let said = deaf.pour(vec![1; 16 * MIB].into(), Duration::from_millis(500)).await;
    assert!(said <= MIB, "{said} bytes");
}

#[tokio::test]
async fn silence_is_of_both() {
    let server = server(echo);
    let edge = before(&server, ", read_timeout: 1500ms", "limits: { body_timeout: 200ms }\n").await;
    let client = edge.connect_h2().await;
    let mut exchange = client.send(&call("/s/Chat"), false).await.unwrap().try_head().await.expect("a head");
    // Longer than the client of an ordinary request may be silent.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        exchange.say("x", false);
        assert_eq!(exchange.chunk().await, Ok(Some("x".into())));
    }
    let began = Instant::now();
    assert_eq!(exchange.chunk().await, Err(End::Reset));
    assert!(began.elapsed() > Duration::from_millis(1000), "{:?}", began.elapsed());
    // What is no call of gRPC has to be said in time.
    let slow = client.send(&Ask::new("POST", "/s/Chat").body("x"), false).await.unwrap();
    let mut slow = slow.try_head().await.expect("a head");
    assert_eq!(slow.chunk().await, Ok(Some("x".into())));
    assert_eq!(slow.chunk().await, Err(End::Reset));
}

#[tokio::test]
async fn what_the_edge_refuses_it_refuses_in_http() {
    let server = server(|asked| echo(asked));
    let edge = before(&server, "", "limits: { body_size: 1KiB }\n").await;
    let client = edge.connect_h2().await;
    let large = client.ask(&call("/s/Echo").body(vec![0; 2000])).await;
    // The head may have gone by then.
    assert!(large.status == 413 || large.end == End::Reset, "{large:?}");
    drop(server);
    let answer = edge.connect_h2().await.ask(&call("/s/Echo").body("x")).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (502, None), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
}

#[tokio::test]
async fn a_call_is_sent_again_only_where_nobody_has_begun_with_it() {
    let server = H2Server::start(Manners { goodbye_after: Some(1), ..Manners::default() }, echo);
    let edge = before(&server, ", retries: 1", "").await;
    let client = edge.connect_h2().await;
    for _ in 0..5 {
        let answer = client.ask(&call("/s/Echo").body(Bytes::from(vec![1; 10_000]))).await;
        assert_eq!((answer.status, answer.body.len(), answer.trailers.get("grpc-status")), (200, 10_000, Some("0")));
    }
    within("the end", async { drop(client) }).await;
}
