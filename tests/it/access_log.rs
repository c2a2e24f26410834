//! One record a request: what it says, in either format, and that nothing a client sends can break a line.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use super::harness::{Ask, Edge, Gate, Origin, Reply, eventually};

/// The names of a record's members.
fn members(record: &Value) -> Vec<&str> {
    let mut names: Vec<_> = record.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// In a record of what, these are always there.
const ALWAYS: [&str; 14] = [
    "bytes",
    "bytes_received",
    "cache",
    "cache_status",
    "client",
    "duration",
    "first_byte",
    "host",
    "method",
    "protocol",
    "request_id",
    "retries",
    "status",
    "uri",
];

fn with(further: &[&'static str]) -> Vec<&'static str> {
    let mut names = [&ALWAYS, further, &["time"]].concat();
    names.sort_unstable();
    names
}

fn seconds(record: &Value, name: &str) -> f64 {
    record[name].as_f64().unwrap_or_else(|| panic!("{name} in {record}"))
}

const SITE: &str = "name: shop\nroutes:\n  - { name: pictures, match: { path: \"/p/**\" }, cache: { ttl: 1m } }";

#[tokio::test]
async fn a_miss_and_a_hit_have_every_field() {
    let origin = Origin::start(|_| Reply::ok("hello")).await;
    let edge = Edge::before(&origin, SITE).await;
    let ask = Ask::get("/p/a?b=c")
        .host("Shop.Example:80")
        .header("User-Agent", "ua/1")
        .header("Referer", "https://shop.example/")
        .header("X-Request-Id", "abc-123-def-456");
    let miss_status = edge.ask(&ask).await.cache_status().to_owned();
    let hit_status = edge.ask(&ask).await.cache_status().to_owned();

    let log = edge.access_log_lines(2).await;
    // Workers write side by side: the order of neighbours is not that of the requests.
    let of = |cache: &str| log.iter().find(|r| r["cache"] == cache).unwrap_or_else(|| panic!("{cache} in {log:?}"));
    let (miss, hit) = (of("miss"), of("hit"));
    let common = ["referer", "route", "site", "user_agent"];
    assert_eq!(members(miss), with(&[&common[..], &["origin", "origin_duration", "server"]].concat()));
    assert_eq!(members(hit), with(&[&common[..], &["tier"]].concat()));
    for record in [miss, hit] {
        assert_eq!(record["client"], "127.0.0.1");
        assert_eq!(record["method"], "GET");
        assert_eq!(record["host"], "Shop.Example:80", "as the client sent it");
        assert_eq!(record["uri"], "/p/a?b=c");
        assert_eq!(record["protocol"], "HTTP/1.1");
        assert_eq!(record["status"], 200);
        assert_eq!(record["bytes"], 5);
        assert_eq!(record["bytes_received"], 0);
        assert_eq!(record["retries"], 0);
        assert_eq!(record["site"], "shop");
        assert_eq!(record["route"], "pictures");
        assert_eq!(record["request_id"], "abc-123-def-456");
        assert_eq!(record["referer"], "https://shop.example/");
        assert_eq!(record["user_agent"], "ua/1");
        assert!(seconds(record, "first_byte") <= seconds(record, "duration"), "{record}");
        let time = record["time"].as_str().unwrap_or_default();
        assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    }
    assert_eq!((&miss["cache_status"], &hit["cache_status"]), (&miss_status.into(), &hit_status.into()));
    assert_eq!(hit["tier"], "memory");
    assert_eq!(miss["origin"], "o");
    assert_eq!(miss["server"], origin.address().to_string());
    assert!(seconds(miss, "origin_duration") > 0.0 && seconds(miss, "origin_duration") <= seconds(miss, "duration"));
}

#[tokio::test]
async fn a_failure_says_why_and_how_often_it_was_tried() {
    let mut origin = Origin::start(|_| Reply::new(204)).await;
    let mut other = Origin::start(|_| Reply::new(204)).await;
    let edge = Edge::start(&Edge::yaml_before(&[&origin, &other], "")).await;
    origin.stop().await;
    other.stop().await;
    assert_eq!(edge.get("/a").await.status, 502);
    let log = edge.access_log_lines(1).await;
    assert_eq!(members(&log[0]), with(&["detail", "origin", "server", "site"]));
    assert_eq!((&log[0]["status"], &log[0]["cache"]), (&502.into(), &"local".into()));
    assert_eq!(log[0]["retries"], 1, "each of two servers once: {}", log[0]);
    let detail = log[0]["detail"].as_str().unwrap_or_default();
    assert!(detail.to_ascii_lowercase().contains("refused"), "{detail}");
}

#[tokio::test]
async fn an_origins_cut_is_told_beside_the_status_that_was_sent() {
    let origin = Origin::start(|_| Reply::ok("abc").claim_length(10).cut()).await;
    let edge = Edge::before(&origin, "cache: off").await;
    let response = edge.get("/a").await;
    assert_eq!((response.status, response.body.as_slice()), (200, &b"abc"[..]));
    let log = edge.access_log_lines(1).await;
    assert_eq!((&log[0]["status"], &log[0]["bytes"]), (&200.into(), &3.into()));
    assert!(!log[0]["detail"].as_str().unwrap_or_default().is_empty(), "{}", log[0]);
}

#[tokio::test]
async fn an_unknown_host_has_neither_site_nor_origin() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let yaml = Edge::yaml_before(&[&origin], "").replace("\"*\"", "known.test");
    let edge = Edge::start(&yaml).await;
    let response = edge.ask(&Ask::get("/").host("unknown.test")).await;
    assert_eq!(response.status, 421);
    let log = edge.access_log_lines(1).await;
    assert_eq!(members(&log[0]), with(&["detail"]));
    assert_eq!((&log[0]["status"], &log[0]["host"]), (&421.into(), &"unknown.test".into()));
    let detail = log[0]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("unknown.test"), "{detail}");
    // What the client is told names the record.
    let id = log[0]["request_id"].as_str().unwrap_or_default();
    assert!(!id.is_empty() && response.text().contains(id), "{id:?} in {:?}", response.text());
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn bodies_are_counted_in_both_directions_and_heads_have_none() {
    let origin = Origin::start(|_| Reply::ok("12345678")).await;
    let edge = Edge::before(&origin, "").await;
    assert_eq!(edge.ask(&Ask::new("POST", "/post").body("abc")).await.status, 200);
    assert_eq!(edge.ask(&Ask::head("/head")).await.status, 200);
    let h2 = edge.connect_h2().await;
    assert_eq!(h2.ask(&Ask::get("/h2")).await.text(), "12345678");
    let log = edge.access_log_lines(3).await;
    let of = |uri: &str| log.iter().find(|r| r["uri"] == uri).unwrap_or_else(|| panic!("{uri} in {log:?}"));
    let (post, head, h2) = (of("/post"), of("/head"), of("/h2"));
    assert_eq!((&post["bytes_received"], &post["bytes"], &post["cache"]), (&3.into(), &8.into(), &"bypass".into()));
    assert_eq!((&head["method"], &head["bytes"], &head["status"]), (&"HEAD".into(), &0.into(), &200.into()));
    assert_eq!((&h2["protocol"], &h2["bytes"]), (&"HTTP/2.0".into(), &8.into()));
    assert_eq!(h2["host"], "edge.test");
}

#[tokio::test]
async fn a_client_that_leaves_has_a_record_too() {
    let gate = Gate::new();
    let reply = Reply::ok("late").hold(&gate);
    let origin = Origin::start(move |_| reply.clone()).await;
    let edge = Edge::before(&origin, "cache: off").await;
    let mut client = edge.connect().await;
    client.send(Ask::get("/left").bytes()).await;
    origin.wait_for(1).await;
    client.reset();
    let log = edge.access_log_lines(1).await;
    assert_eq!((&log[0]["uri"], &log[0]["status"], &log[0]["bytes"]), (&"/left".into(), &0.into(), &0.into()));
    assert!(!log[0]["detail"].as_str().unwrap_or_default().is_empty(), "{}", log[0]);
    gate.open();
}

/// What a client may put where it ends up in the log, in ISO-8859-1: quotes, escapes, controls, bytes that are no
/// UTF-8.
const HOSTILE: &str = "a\"b\\c\u{e9}\u{85}\u{ff}{\"x\":1}";

#[tokio::test]
async fn hostile_bytes_stay_within_their_field() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("no-store")).await;
    let edge = Edge::before(&origin, "").await;
    let asks = [
        Ask::get("/a?q=\"},{\\n\u{e9}\u{ff}"),
        Ask::get("/b").header("User-Agent", HOSTILE).header("Referer", HOSTILE),
        Ask::get("/c").header("User-Agent", "tab\there"),
        Ask::get("/d").header("X-Request-Id", "\"},{\"forged\":\"yes"),
        Ask::get("/e").host("h\"},{"),
        Ask::new("G\u{e9}T", "/f"),
        Ask::new("GET", "/g h"),
    ];
    let mut answered = 0;
    for ask in &asks {
        let mut client = edge.connect().await;
        client.send(ask.bytes()).await;
        // Some of these are refused, some before they become a request with a record.
        if client.try_head("GET").await.is_some() {
            answered += 1;
        }
    }
    assert!(answered >= 4, "only {answered} answers");
    edge.signal(Signal::TERM);
    assert!(edge.wait_exit().await.success());

    // Each line is JSON, or `access_log` would have panicked; none has members that a client made up.
    let log = edge.access_log();
    let text = fs::read_to_string(edge.folder().join("access.log")).expect("UTF-8");
    assert!(!text.chars().any(|c| c != '\n' && c.is_control()), "{text:?}");
    for record in &log {
        assert_eq!(record.get("forged"), None, "{record}");
        assert_eq!(record.get("x"), None, "{record}");
    }
    let b = log.iter().find(|r| r["uri"] == "/b").expect("a record of /b");
    assert_eq!(b["user_agent"], "a\"b\\c\u{fffd}\u{fffd}{\"x\":1}");
    assert_eq!(b["referer"], b["user_agent"]);
    let d = log.iter().find(|r| r["uri"] == "/d").expect("a record of /d");
    assert!(!d["request_id"].as_str().unwrap_or_default().contains('"'), "{d}");
}

#[tokio::test]
async fn combined_is_what_its_readers_expect() {
    let origin = Origin::start(|_| Reply::ok("hello").cache_control("max-age=60")).await;
    let yaml = Edge::yaml_before(&[&origin], "") + "access_log: { path: \"{dir}/combined.log\", format: combined }\n";
    let edge = Edge::start(&yaml).await;
    let file = edge.folder().join("combined.log");
    let plain = Ask::get("/a\"b\"?c").header("User-Agent", "ua \"1\"\\").header("Referer", "https://r.test/");
    assert_eq!(edge.ask(&plain).await.status, 200);
    let lines = || fs::read_to_string(&file).unwrap_or_default();
    eventually("a line", async || lines().lines().count() == 1).await;
    assert_eq!(edge.ask(&Ask::get("/n")).await.status, 200);
    eventually("two lines", async || lines().lines().count() == 2).await;
    let text = lines();
    let (first, second) = text.split_once('\n').expect("two lines");
    let (start, rest) = first.split_once(" [").expect("a time");
    let (time, rest) = rest.split_once("] ").expect("the time's end");
    assert_eq!(start, "127.0.0.1 - -");
    assert!(time.len() == 26 && time.ends_with(" +0000") && time.as_bytes()[2] == b'/', "{time}");
    assert_eq!(rest, r#""GET /a\x22b\x22?c HTTP/1.1" 200 5 "https://r.test/" "ua \x221\x22\x5C""#);
    assert!(second.ends_with("\"GET /n HTTP/1.1\" 200 5 \"-\" \"-\"\n"), "{second}");
}

#[tokio::test]
async fn standard_output_takes_records_and_nothing_else() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let yaml = Edge::yaml_before(&[&origin], "") + "access_log: { path: stdout, format: json }\n";
    let edge = Edge::start(&yaml).await;
    for n in 0..3 {
        assert_eq!(edge.get(&format!("/{n}")).await.status, 200);
    }
    eventually("three lines", async || edge.stdout().lines().count() == 3).await;
    for line in edge.stdout().lines() {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(record["status"], 200);
    }
}

#[tokio::test]
async fn off_is_off() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::start(&(Edge::yaml_before(&[&origin], "") + "access_log: off\n")).await;
    assert_eq!(edge.get("/").await.status, 200);
    edge.wait_metrics("the request to be counted", |m| m.sum("foreland_requests_total", &[]) == 1.0).await;
    let metrics = edge.metrics().await;
    assert_eq!(metrics.metric("foreland_access_log_records_written_total"), None);
    edge.signal(Signal::TERM);
    edge.wait_exit().await;
    assert!(edge.access_log().is_empty() && edge.stdout().is_empty());
}

#[tokio::test]
async fn what_broke_off_was_not_stored() {
    let gate = Gate::new();
    let reply = Reply::ok("begin").cache_control("max-age=60").claim_length(100).wait(&gate).cut();
    let origin = Origin::start(move |_| reply.clone()).await;
    let edge = Edge::before(&origin, "").await;
    let mut client = edge.connect().await;
    client.send(Ask::get("/").bytes()).await;
    assert_eq!(client.head("GET").await.status, 200);
    assert_eq!(client.bytes(5).await, b"begin");
    gate.open();
    client.closed().await;
    let line = &edge.access_log_lines(1).await[0];
    assert!(line["cache_status"].as_str().is_some_and(|status| !status.contains("stored")), "{line}");
}
