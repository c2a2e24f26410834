//! A stored response: that it is one, what a hit says, conditions and ranges.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::harness::{Ask, Edge, Origin, Reply, Response, eventually, http_date};
use crate::over::{BOTH, Over};

const BODY: &str = "0123456789abcdefghijklmnopqrstuvwxyz";
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// An origin with one cacheable text, generated `age` seconds ago, and an edge before it.
async fn text(age: i64) -> (Origin, Edge, String) {
    let date = http_date(-age);
    let sent = date.clone();
    let origin = Origin::start(move |_| {
        Reply::ok(BODY)
            .cache_control("max-age=60")
            .header("Date", &sent)
            .header("Content-Type", "text/plain")
            .header("ETag", "\"v1\"")
            .header("Last-Modified", MODIFIED)
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    (origin, edge, date)
}

#[tokio::test]
async fn a_miss_is_stored_and_hit_from_then_on() {
    for over in BOTH {
        let (origin, edge, date) = text(7).await;
        let mut client = over.connect(&edge).await;

        let miss = client.get("/a").await;
        assert_eq!((miss.status, miss.text()), (200, BODY), "{over:?}");
        assert!(miss.cache_status().starts_with("Foreland; fwd=uri-miss; fwd-status=200; stored; ttl="), "{miss:?}");

        let hit = client.get("/a").await;
        assert_eq!((hit.status, hit.text()), (200, BODY), "{over:?}");
        assert!(hit.cache_status().starts_with("Foreland; hit; ttl="), "{hit:?}");
        assert!(hit.age().is_some_and(|age| (7..15).contains(&age)), "Date counts towards the age: {hit:?}");
        // RFC 9111 §5.1: an Age would say that it comes from a cache.
        assert_eq!((miss.header("Age"), miss.header("Date")), (None, Some(&*date)), "{miss:?}");
        for name in ["ETag", "Last-Modified", "Content-Type", "Cache-Control", "Content-Length"] {
            assert_eq!(hit.headers.all(name), miss.headers.all(name), "{name} over {over:?}");
        }
        if over == Over::Http1 {
            assert_eq!(hit.headers.all("Date"), [date]);
        }
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn the_age_of_a_hit_grows() {
    let (_origin, edge, _) = text(0).await;
    edge.get("/a").await;
    let first = edge.get("/a").await.age().expect("an Age");
    eventually("Age to grow", async || edge.get("/a").await.age().is_some_and(|age| age > first)).await;
}

#[tokio::test]
async fn a_stored_response_to_get_answers_head() {
    for over in BOTH {
        let (origin, edge, _) = text(0).await;
        let mut client = over.connect(&edge).await;
        let get = client.get("/a").await;
        let head = client.ask(&Ask::head("/a")).await;
        assert!(head.is_hit() && head.status == 200 && head.body.is_empty(), "{over:?}: {head:?}");
        for name in ["Content-Length", "ETag", "Content-Type", "Last-Modified"] {
            assert_eq!(head.headers.all(name), get.headers.all(name), "{name} over {over:?}");
        }
        assert_eq!(client.get("/a").await.text(), BODY, "the connection is still in step");
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn a_head_that_misses_fetches_what_a_get_will_want() {
    for over in BOTH {
        let (origin, edge, _) = text(0).await;
        let mut client = over.connect(&edge).await;
        let head = client.ask(&Ask::head("/a")).await;
        assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, Some("36")), "{over:?}");
        eventually("the GET behind it to be stored", async || edge.get("/a").await.is_hit()).await;
        assert_eq!(client.get("/a").await.text(), BODY, "{over:?}");
        assert_eq!(origin.seen()[0].method, "GET");
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn conditions_are_answered_from_what_is_stored() {
    let later = http_date(0);
    let cases = [
        ("If-None-Match", "\"v1\"", 304),
        ("If-None-Match", "W/\"v1\"", 304),
        ("If-None-Match", "\"v0\", W/\"v1\", \"v2\"", 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"v0\"", 200),
        ("If-None-Match", "v1", 200),
        ("If-Modified-Since", MODIFIED, 304),
        ("If-Modified-Since", later.as_str(), 304),
        ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("If-Modified-Since", "yesterday", 200),
    ];
    for over in BOTH {
        let (origin, edge, _) = text(0).await;
        let mut client = over.connect(&edge).await;
        client.get("/a").await;
        for method in ["GET", "HEAD"] {
            for (name, value, status) in cases {
                let response = client.ask(&Ask::new(method, "/a").header(name, value)).await;
                let case = format!("{method} with {name}: {value} over {over:?}: {response:?}");
                assert_eq!(response.status, status, "{case}");
                assert!(response.is_hit(), "{case}");
                assert_eq!(response.header("etag"), Some("\"v1\""), "{case}");
                assert_eq!(response.header("cache-control"), Some("max-age=60"), "{case}");
                let body = if status == 200 && method == "GET" { BODY } else { "" };
                assert_eq!(response.text(), body, "{case}");
                assert!(status != 304 || !response.headers.has("Content-Length"), "{case}");
            }
        }
        // RFC 9110 §13.1.3: If-Modified-Since does not count beside If-None-Match.
        let both = Ask::get("/a").header("If-None-Match", "\"v0\"").header("If-Modified-Since", MODIFIED);
        assert_eq!(client.ask(&both).await.status, 200);
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn a_condition_that_misses_fetches_the_whole_and_is_then_met() {
    for over in BOTH {
        let (origin, edge, _) = text(0).await;
        let mut client = over.connect(&edge).await;
        let ask = Ask::get("/a").header("If-None-Match", "\"v1\"").header("If-Modified-Since", MODIFIED);
        let first = client.ask(&ask).await;
        assert_eq!(
            (first.status, first.text(), first.header("etag")),
            (304, "", Some("\"v1\"")),
            "{over:?}: {first:?}"
        );
        let seen = &origin.seen()[0];
        assert!(!seen.headers.has("If-None-Match") && !seen.headers.has("If-Modified-Since"), "{seen:?}");
        eventually("the whole to be stored", async || edge.get("/a").await.is_hit()).await;
        assert_eq!(client.get("/a").await.text(), BODY);
        assert_eq!(origin.count(), 1);
    }
}

/// Range, and what it gets: the status, Content-Range, and the body.
const RANGES: [(&str, u16, Option<&str>, &str); 12] = [
    ("bytes=0-0", 206, Some("bytes 0-0/36"), "0"),
    ("bytes=0-3", 206, Some("bytes 0-3/36"), "0123"),
    ("bytes=10-12", 206, Some("bytes 10-12/36"), "abc"),
    ("bytes=34-", 206, Some("bytes 34-35/36"), "yz"),
    ("bytes=34-99", 206, Some("bytes 34-35/36"), "yz"),
    ("bytes=-3", 206, Some("bytes 33-35/36"), "xyz"),
    ("bytes=-99", 206, Some("bytes 0-35/36"), BODY),
    ("bytes=36-", 416, Some("bytes */36"), ""),
    ("bytes=-0", 416, Some("bytes */36"), ""),
    ("bytes=x-y", 200, None, BODY),
    ("lines=0-3", 200, None, BODY),
    ("bytes", 200, None, BODY),
];

fn assert_part(response: &Response, (range, status, content_range, body): (&str, u16, Option<&str>, &str), at: &str) {
    let case = format!("{range}, {at}: {response:?}");
    assert_eq!(response.status, status, "{case}");
    assert_eq!(response.header("content-range"), content_range, "{case}");
    assert_eq!(response.text(), body, "{case}");
    assert!(status != 206 || response.header("etag") == Some("\"v1\""), "{case}");
}

#[tokio::test]
async fn ranges_of_a_hit() {
    for over in BOTH {
        let (origin, edge, _) = text(0).await;
        let mut client = over.connect(&edge).await;
        client.get("/a").await;
        for case in RANGES {
            let response = client.ask(&Ask::get("/a").header("Range", case.0)).await;
            assert_part(&response, case, &format!("a hit over {over:?}"));
            assert!(response.is_hit(), "{response:?}");
        }
        // RFC 9110 §14.2: Range is for GET.
        let head = client.ask(&Ask::head("/a").header("Range", "bytes=0-3")).await;
        assert_eq!((head.status, head.header("content-length")), (200, Some("36")), "{head:?}");
        // RFC 9110 §13.2.2: a condition that is met comes first.
        let unchanged = Ask::get("/a").header("Range", "bytes=0-3").header("If-None-Match", "\"v1\"");
        assert_eq!(client.ask(&unchanged).await.status, 304);
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn ranges_of_a_miss_are_cut_from_the_whole() {
    for over in BOTH {
        let (origin, edge, _) = text(0).await;
        let mut client = over.connect(&edge).await;
        for (serial, case) in RANGES.into_iter().enumerate() {
            let path = format!("/{serial}");
            let response = client.ask(&Ask::get(&path).header("Range", case.0)).await;
            assert_part(&response, case, &format!("a miss over {over:?}"));
            assert!(!origin.seen()[serial].headers.has("Range"), "the whole is fetched");
            eventually("the whole to be stored", async || edge.get(&path).await.is_hit()).await;
            assert_eq!(edge.get(&path).await.text(), BODY, "{case:?}");
            assert_eq!(origin.count(), serial + 1);
        }
    }
}

#[tokio::test]
async fn several_ranges_come_in_parts() {
    for over in BOTH {
        let (_origin, edge, _) = text(0).await;
        let mut client = over.connect(&edge).await;
        for at in ["miss", "hit"] {
            let response = client.ask(&Ask::get("/a").header("Range", "bytes=0-1,10-12,-1")).await;
            assert_eq!(response.status, 206, "{at} over {over:?}: {response:?}");
            let content_type = response.header("content-type").unwrap_or_default();
            let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap_or_default();
            assert!(!boundary.is_empty(), "{response:?}");
            let part = |range: &str, text: &str| {
                format!("\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/36\r\n\r\n{text}")
            };
            let parts = [part("0-1", "01"), part("10-12", "abc"), part("35-35", "z")].concat();
            let body = format!("{parts}\r\n--{boundary}--\r\n");
            assert_eq!(response.text().trim_start(), body.trim_start(), "{at} over {over:?}");
            if let Some(length) = response.header("content-length") {
                assert_eq!(length, response.body.len().to_string());
            }
            eventually("the whole to be stored", async || edge.get("/a").await.is_hit()).await;
        }
    }
}

#[tokio::test]
async fn if_range_decides_between_the_part_and_the_whole() {
    for over in BOTH {
        let (_origin, edge, _) = text(0).await;
        let mut client = over.connect(&edge).await;
        client.get("/a").await;
        for (if_range, status) in [
            ("\"v1\"", 206),
            ("\"v0\"", 200),
            ("W/\"v1\"", 200),
            (MODIFIED, 206),
            ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
        ] {
            let ask = Ask::get("/a").header("Range", "bytes=0-3").header("If-Range", if_range);
            let response = client.ask(&ask).await;
            assert_eq!(response.status, status, "If-Range: {if_range} over {over:?}");
            assert_eq!(response.text(), if status == 206 { "0123" } else { BODY });
        }
    }
}

#[tokio::test]
async fn hits_share_a_connection_with_everything_else() {
    let serial = AtomicU64::new(0);
    let origin = Origin::start(move |r| match r.path() {
        "/live" => Reply::ok(serial.fetch_add(1, Ordering::Relaxed).to_string()).cache_control("no-store").chunked(),
        "/empty" => Reply::new(204).cache_control("max-age=60"),
        path => Reply::ok(path.to_owned()).cache_control("max-age=60"),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        let mut client = over.connect(&edge).await;
        let from: u64 = client.get("/live").await.text().parse().expect("a number");
        for i in 1..=20 {
            assert_eq!(client.get("/a").await.text(), "/a", "{over:?}");
            assert_eq!(client.get("/live").await.text(), (from + i).to_string(), "{over:?}");
            assert_eq!(client.get("/empty").await.status, 204);
            assert_eq!(client.ask(&Ask::head("/a")).await.status, 200);
            assert_eq!(client.get("/b").await.text(), "/b", "{over:?}");
        }
    }
    let stored = origin.seen().iter().filter(|r| r.path() != "/live").count();
    assert_eq!(stored, 3, "each once");
}

#[tokio::test]
async fn an_empty_body_is_stored_too() {
    let origin = Origin::start(|r| match r.path() {
        "/chunked" => Reply::ok("").chunked().cache_control("max-age=60"),
        _ => Reply::ok("").cache_control("max-age=60"),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        for path in ["/length", "/chunked"] {
            let target = format!("{path}?{over:?}");
            assert_eq!(over.get(&edge, &target).await.text(), "");
            let hit = over.get(&edge, &target).await;
            assert!(hit.is_hit() && hit.text().is_empty(), "{target}: {hit:?}");
            assert_eq!(hit.header("content-length"), Some("0"));
        }
    }
}

#[tokio::test]
async fn a_chunked_response_is_a_hit_with_a_length() {
    let origin = Origin::start(|_| Reply::ok("abc").body("def").chunked().cache_control("max-age=60")).await;
    let edge = Edge::before(&origin, "").await;
    assert_eq!(Over::Http1.get(&edge, "/a").await.text(), "abcdef");
    for over in BOTH {
        let hit = over.get(&edge, "/a").await;
        assert!(hit.is_hit() && hit.text() == "abcdef", "{hit:?}");
        assert_eq!((hit.header("content-length"), hit.header("transfer-encoding")), (Some("6"), None), "{over:?}");
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_trusted_proxy_may_ask_for_the_key() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=60")).await;
    for (trusted, shows) in [("trusted_proxies: [127.0.0.0/8]\n", true), ("", false)] {
        let edge = Edge::start(&(trusted.to_owned() + &Edge::yaml_before(&[&origin], ""))).await;
        for over in BOTH {
            for _ in 0..2 {
                let response = over.ask(&edge, &Ask::get("/a?b=1").header("Foreland-Debug", "key")).await;
                let key = "; key=\"site=* host=edge.test path=/a query=b=1\"";
                assert_eq!(response.cache_status().contains(key), shows, "{over:?}: {response:?}");
                assert!(!over.get(&edge, "/a?b=1").await.cache_status().contains("; key="));
            }
        }
    }
    assert!(origin.seen().iter().all(|request| !request.headers.has("Foreland-Debug")));
}
