//! Attacks on HTTP/2's framing.

use h2::Reason;

use super::super::harness::{Ask, Edge, End, H2Connection, Origin, Reply};
use super::frames::{self, *};
use super::{DRIP, limited, memory, plain_origin, serves, wait_for_open};

async fn calmed(edge: &Edge, reason: &str) -> f64 {
    edge.metrics().await.sum("foreland_client_connections_calmed_total", &[("reason", reason)])
}

#[tokio::test]
async fn floods_of_control_frames() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "http2: { control_frames: 200 }").await;
    serves(&edge).await;
    let before = memory(&edge);
    let floods = [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255, 0, 3, 0, 0, 0, 100]),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(0xbe, 0, 0, &[]),
    ];
    for bytes in &floods {
        let mut client = frames::open(&edge).await;
        let reason = flood(&mut client, |_| bytes.repeat(50), 2000).await;
        assert_eq!(reason, Some(ENHANCE_YOUR_CALM), "{bytes:?}");
        serves(&edge).await;
    }
    assert_eq!(calmed(&edge, "control-frames").await, floods.len() as f64);
    wait_for_open(&edge, 0.0).await;
    assert!(memory(&edge) < before + 32, "{} MiB, then {}", before, memory(&edge));
}

#[tokio::test]
async fn control_frames_that_are_of_use() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "http2: { control_frames: 20 }").await;
    // More PINGs than there may be, but as many responses beside them.
    let mut client = frames::open(&edge).await;
    for n in 0..30 {
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, GET)).await;
        edge.wait_metrics("an answer", |m| m.sum("foreland_requests_total", &[]) == f64::from(n + 1)).await;
        client.send(frame(PING, 0, 0, &[0; 8])).await;
    }
    client.send(frame(GOAWAY, 0, 0, &[0; 8])).await;
    client.finish_sending().await;
    let answers = frames::rest(&mut client).await;
    assert_eq!(answers.iter().filter(|(kind, ..)| *kind == HEADERS).count(), 30);
    assert_eq!(answers.iter().filter(|(kind, flags, _)| (*kind, *flags) == (PING, 1)).count(), 30);
    assert_eq!(calmed(&edge, "control-frames").await, 0.0);
}

#[tokio::test]
async fn data_and_continuations_without_measure() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "").await;
    serves(&edge).await;
    let before = memory(&edge);
    for payload in [&b""[..], b"\x00\x01x\x01y"] {
        let mut client = frames::open(&edge).await;
        client.send(frame(HEADERS, END_STREAM, 1, GET)).await;
        let reason = flood(&mut client, |_| frame(CONTINUATION, 0, 1, payload).repeat(50), 10_000).await;
        assert_eq!(reason, Some(ENHANCE_YOUR_CALM), "{payload:?}");
        serves(&edge).await;
    }
    let mut client = frames::open(&edge).await;
    client.send(frame(HEADERS, END_HEADERS, 1, POST)).await;
    assert_eq!(flood(&mut client, |_| frame(DATA, 0, 1, b""), 10_000).await, Some(ENHANCE_YOUR_CALM));
    assert_eq!(calmed(&edge, "framing").await, 3.0);
    wait_for_open(&edge, 0.0).await;
    assert!(memory(&edge) < before + 32, "{} MiB, then {}", before, memory(&edge));
}

#[tokio::test]
async fn rapid_resets() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "").await;
    serves(&edge).await;
    let before = memory(&edge);
    for batch in [1, 100] {
        let mut client = frames::open(&edge).await;
        let both = |n: u32| {
            let one = |stream| {
                [frame(HEADERS, END_HEADERS | END_STREAM, stream, GET), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
            };
            (n * batch..(n + 1) * batch).flat_map(|n| one(2 * n + 1)).flatten().collect()
        };
        assert_eq!(flood(&mut client, both, 100_000).await, Some(ENHANCE_YOUR_CALM), "by {batch}");
        serves(&edge).await;
    }
    edge.wait_metrics("nothing is left of them", |m| m.sum("foreland_requests_in_flight", &[]) == 0.0).await;
    assert!(memory(&edge) < before + 32, "{} MiB, then {}", before, memory(&edge));
}

#[tokio::test]
async fn resets_of_what_has_been_answered() {
    // The head comes at once, so nothing is given up before it is answered.
    let large = vec![b'x'; 4 << 20];
    let origin = Origin::start(move |_| Reply::ok(large.clone()).cache_control("no-store")).await;
    let edge = limited(&origin, "http2: { resets: 20 }").await;
    let client = edge.connect_h2().await;
    let mut resets = 0;
    while let Ok(exchange) = client.try_start(&Ask::get("/")).await {
        exchange.cancel();
        resets += 1;
        assert!(resets < 100, "nobody ends it");
    }
    assert!(resets > 20, "{resets}");
    assert_eq!(client.closed().await, Some(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(calmed(&edge, "resets").await, 1.0);
}

#[tokio::test]
async fn header_lists_that_are_small_only_on_the_wire() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "").await;
    serves(&edge).await;
    let before = memory(&edge);
    // An entry of the dynamic table of almost its size, and then that entry 12,000 times: 48 MB in 16 KiB.
    let mut block = GET.to_vec();
    block.extend(b"\x40\x01a\x7f\xa1\x1e");
    block.extend([b'b'; 4000]);
    block.resize(block.len() + 12_000, 0xbe);
    for _ in 0..20 {
        let mut client = frames::open(&edge).await;
        let _ = client.try_send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
        client.finish_sending().await;
        let frames = frames::rest(&mut client).await;
        let calmed = frames.iter().any(|(kind, _, payload)| *kind == GOAWAY && payload.get(7) == Some(&0xb));
        // 431 is no status of the static table: its digits are Huffman's, or themselves.
        let refused = frames.iter().any(|(kind, flags, _)| *kind == HEADERS && flags & END_STREAM != 0);
        assert!(calmed || refused, "{frames:?}");
        serves(&edge).await;
    }
    assert_eq!(origin.seen().iter().filter(|request| request.path() == "/").count(), 0);
    assert!(memory(&edge) < before + 32, "{} MiB, then {}", before, memory(&edge));
}

#[tokio::test]
async fn many_streams_that_nobody_reads() {
    // In the cache, so that each stream is answered at once with as much as HTTP/2 takes.
    let large = vec![b'x'; 900 << 10];
    let origin = Origin::start(move |r| match r.path() {
        "/normal" => Reply::ok("fine").cache_control("max-age=60"),
        _ => Reply::ok(large.clone()).cache_control("max-age=60"),
    })
    .await;
    let edge = limited(&origin, "write_timeout: 1s, http2: { streams: 100 }").await;
    serves(&edge).await;
    edge.get("/").await;
    let before = memory(&edge);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = frames::open(&edge).await;
        // As large as windows get: nothing but the socket holds the edge back.
        client.send(frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await;
        client.send(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0])).await;
        for n in 0..100 {
            client.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, GET)).await;
        }
        clients.push(client);
    }
    edge.wait_metrics("all are being answered", |m| m.sum("foreland_requests_in_flight", &[]) > 300.0).await;
    serves(&edge).await;
    let grown = memory(&edge).saturating_sub(before);
    assert!(grown < 64, "{grown} MiB for 400 streams");
    wait_for_open(&edge, 0.0).await;
    edge.wait_metrics("nothing is left of them", |m| m.sum("foreland_requests_in_flight", &[]) == 0.0).await;
}

#[tokio::test]
async fn bodies_that_come_drop_by_drop() {
    let origin = plain_origin().await;
    let edge = limited(&origin, "body_timeout: 1s, body_min_rate: 1KiB/s").await;
    let mut client = frames::open(&edge).await;
    for stream in [1, 3, 5] {
        client.send(frame(HEADERS, END_HEADERS, stream, POST)).await;
    }
    let logged = async {
        let lines = edge.access_log_lines(3).await;
        lines.iter().filter(|line| line["status"] == 408).count() == 3
    };
    tokio::pin!(logged);
    loop {
        tokio::select! {
            all = &mut logged => break assert!(all),
            () = tokio::time::sleep(DRIP) => for stream in [1, 3, 5] {
                client.send(frame(DATA, 0, stream, b"x")).await;
            },
        }
    }
}

#[tokio::test]
async fn a_window_that_opens_drop_by_drop() {
    let body = vec![b'x'; 512 << 10];
    let origin = Origin::start(move |_| Reply::ok(body.clone()).cache_control("max-age=60")).await;
    let edge = limited(&origin, "write_timeout: 1s, send_min_rate: 1MiB/s").await;
    edge.get("/").await;
    let client = H2Connection::open_narrow(edge.h2c_address(), 2000).await;
    let mut slow = client.start(&Ask::get("/")).await;
    let mut taken = 0;
    let end = loop {
        match slow.chunk().await {
            Ok(Some(piece)) => taken += piece.len(),
            other => break other,
        }
        tokio::time::sleep(DRIP).await;
    };
    assert_eq!(end, Err(End::Reset), "after {taken} bytes");
    assert!(taken < 300 << 10, "{taken}");
}
