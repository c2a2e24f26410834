//! Requests: framings, full sockets, early answers.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const POST: &str = "POST /a HTTP/1.1\r\nHost: a.test\r\n\r\n";
/// Parts of a body, and whether each is the last.
type Parts = &'static [(&'static str, bool)];

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn post(body: BodyLength) -> RequestHead {
    request(Method::POST, POST, body)
}

async fn send<T: AsyncRead + AsyncWrite + Unpin>(conn: &mut H1Conn<T>, data: &str, end: bool) -> Result<(), WireError> {
    let mut data = Bytes::copy_from_slice(data.as_bytes());
    poll_fn(|cx| conn.poll_send_body(cx, &mut data, end)).await?;
    assert!(data.is_empty());
    Ok(())
}

/// What is written of a request whose body comes in parts, and in how many writes.
async fn written(body: BodyLength, parts: &[(&str, bool)]) -> (String, usize) {
    let mut conn = H1Conn::new(Script::whole(ANSWER.as_bytes(), End::Stay));
    conn.send_head(&post(body)).await.unwrap();
    for (data, end) in parts {
        send(&mut conn, data, *end).await.unwrap();
    }
    let taken = receive(&mut conn).await.unwrap();
    assert!(taken.reusable, "{parts:?}");
    (conn.io.written().split_off(POST.len()), conn.io.writes)
}

#[tokio::test]
async fn a_request_goes_out_in_one_write_where_it_can() {
    let mut conn = H1Conn::new(Script::whole(ANSWER.as_bytes(), End::Stay));
    conn.send_head(&get()).await.unwrap();
    assert_eq!((conn.io.written(), conn.io.writes), (GET.to_owned(), 1));
    use BodyLength::{Chunked, Known};
    let cases: [(BodyLength, Parts, &str, usize); 8] = [
        (Known(5), &[("hello", true)], "hello", 1),
        (Known(5), &[("hello", false)], "hello", 1),
        (Known(5), &[("he", false), ("llo", true)], "hello", 2),
        (Known(5), &[("hello", false), ("", true)], "hello", 1),
        (Chunked, &[("hello, world", true)], "c\r\nhello, world\r\n0\r\n\r\n", 1),
        (Chunked, &[("hello", false), ("!", true)], "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", 2),
        (Chunked, &[("hello", false), ("", false), ("", true)], "5\r\nhello\r\n0\r\n\r\n", 2),
        (Chunked, &[("", true)], "0\r\n\r\n", 2),
    ];
    for (body, parts, due, writes) in cases {
        let (bytes, count) = written(body, parts).await;
        assert_eq!((&*bytes, count <= writes), (due, true), "{body:?} {parts:?}: {count} writes");
    }
}

#[tokio::test]
async fn trailers_follow_the_last_chunk() {
    let trailers: HeaderMap = [("x-sum", "5"), ("x-other", "")]
        .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
        .into_iter()
        .collect();
    let cases: [(BodyLength, Parts, &str); 4] = [
        (BodyLength::Chunked, &[("hello", true)], "5\r\nhello\r\n0\r\nx-sum: 5\r\nx-other: \r\n\r\n"),
        (BodyLength::Chunked, &[("hello", false), ("", true)], "5\r\nhello\r\n0\r\nx-sum: 5\r\nx-other: \r\n\r\n"),
        (BodyLength::Chunked, &[("", true)], "0\r\nx-sum: 5\r\nx-other: \r\n\r\n"),
        // There is no place for them.
        (BodyLength::Known(5), &[("hello", true)], "hello"),
    ];
    for (body, parts, due) in cases {
        for takes in [1, 2, 3, 7, 1000] {
            let mut conn = H1Conn::new(Script::whole(ANSWER.as_bytes(), End::Stay));
            conn.io.takes = takes;
            conn.send_head(&post(body)).await.unwrap();
            conn.set_trailers(&trailers);
            for (data, end) in parts {
                send(&mut conn, data, *end).await.unwrap();
            }
            assert!(receive(&mut conn).await.unwrap().reusable, "{parts:?}");
            assert_eq!(conn.io.written().split_off(POST.len()), due, "{parts:?}, {takes} at a time");
        }
    }
}

#[tokio::test]
async fn a_body_is_as_long_as_was_announced() {
    use BodyLength::{Chunked, Known, None};
    let cases: [(BodyLength, Parts); 6] = [
        (Known(5), &[("hell", true)]),
        (Known(5), &[("he", false), ("", true)]),
        (Known(5), &[("hello!", true)]),
        (Known(5), &[("hello", true), ("!", true)]),
        (None, &[("x", true)]),
        (Chunked, &[("hello", true), ("x", true)]),
    ];
    for (body, parts) in cases {
        let mut conn = H1Conn::new(Script::whole(ANSWER.as_bytes(), End::Stay));
        conn.send_head(&post(body)).await.unwrap();
        let mut last = Ok(());
        for (data, end) in parts {
            last = send(&mut conn, data, *end).await;
        }
        assert_eq!(last.unwrap_err().kind, FailureKind::Other, "{body:?} {parts:?}");
        // The answer may be read, and that is all.
        assert!(!receive(&mut conn).await.unwrap().reusable, "{body:?} {parts:?}");
        assert!(!conn.io.written().contains('!'), "{body:?} {parts:?}");
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_is_out() {
    for body in [BodyLength::Known(5), BodyLength::Chunked] {
        let mut conn = H1Conn::new(Script::whole(ANSWER.as_bytes(), End::Stay));
        conn.send_head(&post(body)).await.unwrap();
        // The head is not kept back from a server that is to answer it.
        let head = conn.read_head().await.unwrap();
        assert_eq!((head.status, conn.io.written()), (200, POST.to_owned()));
        assert!(!conn.is_reusable());
        send(&mut conn, "hello", true).await.unwrap();
        assert!(conn.is_reusable());
    }
}

#[tokio::test]
async fn an_answer_is_heard_where_nothing_can_be_sent() {
    let mut conn = H1Conn::new(Script::whole(ANSWER.as_bytes(), End::Stay));
    conn.io.takes = 0;
    conn.send_head(&post(BodyLength::Known(5))).await.unwrap();
    let taken = receive(&mut conn).await.unwrap();
    assert_eq!((taken.head.status, taken.reusable), (200, false));
}

#[tokio::test]
async fn a_failure_before_the_answer_says_so() {
    let (client, server) = tokio::io::duplex(1000);
    drop(server);
    let mut conn = H1Conn::new(client);
    let error = conn.send_head(&get()).await.unwrap_err();
    assert_eq!((error.kind, error.begun), (FailureKind::Reset, false));
    let error = conn.read_head().await.unwrap_err();
    assert_eq!(
        (error.kind, error.begun, &*error.why),
        (FailureKind::Reset, false, "the connection was closed before an answer")
    );
}

#[tokio::test]
async fn a_full_socket_is_waited_for() {
    for body in [BodyLength::Known(5000), BodyLength::Chunked] {
        let (client, mut server) = tokio::io::duplex(64);
        let mut conn = H1Conn::new(client);
        conn.send_head(&post(body)).await.unwrap();
        let mut data = Bytes::from("x".repeat(5000));
        // Given up and taken up again, as often as it takes: nothing is lost and nothing comes twice.
        let mut came = Vec::new();
        loop {
            let sent = poll_fn(|cx| Poll::Ready(conn.poll_send_body(cx, &mut data, true))).await;
            match sent {
                Poll::Ready(sent) => break sent.unwrap(),
                Poll::Pending => {
                    let mut some = [0; 50];
                    let read = server.read(&mut some).await.unwrap();
                    came.extend_from_slice(&some[..read]);
                }
            }
        }
        server.write_all(ANSWER.as_bytes()).await.unwrap();
        assert!(receive(&mut conn).await.unwrap().reusable);
        drop(conn);
        server.read_to_end(&mut came).await.unwrap();
        let x = "x".repeat(5000);
        let due = if body == BodyLength::Chunked { format!("1388\r\n{x}\r\n0\r\n\r\n") } else { x };
        assert_eq!(String::from_utf8(came).unwrap(), format!("{POST}{due}"));
    }
}

proptest! {
    /// However little the socket takes at a time, what was sent is what was meant.
    #[test]
    fn a_body_goes_out_as_it_is(
        parts in prop::collection::vec("[a-z]{0,40}", 0..8),
        takes in 1_usize..60,
        chunked in any::<bool>(),
        ends_with_data in any::<bool>(),
    ) {
        let all = parts.concat();
        let body = match (chunked, all.len() as u64) {
            (true, _) => BodyLength::Chunked,
            (false, 0) => BodyLength::None,
            (false, length) => BodyLength::Known(length),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (bytes, reusable) = runtime.block_on(async {
            let mut conn = H1Conn::new(Script::whole(ANSWER.as_bytes(), End::Stay));
            conn.io.takes = takes;
            conn.send_head(&post(body)).await.unwrap();
            for (n, part) in parts.iter().enumerate() {
                send(&mut conn, part, ends_with_data && n + 1 == parts.len()).await.unwrap();
            }
            send(&mut conn, "", true).await.unwrap();
            let reusable = receive(&mut conn).await.unwrap().reusable;
            (conn.io.written().split_off(POST.len()), reusable)
        });
        prop_assert!(reusable);
        let due = match chunked {
            false => all,
            true => {
                let chunks = parts.iter().filter(|part| !part.is_empty());
                let chunks: String = chunks.map(|part| format!("{:x}\r\n{part}\r\n", part.len())).collect();
                chunks + "0\r\n\r\n"
            }
        };
        prop_assert_eq!(bytes, due);
    }
}
