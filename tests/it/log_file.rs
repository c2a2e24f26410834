//! The access log's file: rotation, and what becomes of traffic where the file cannot be written.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use super::harness::{Ask, Edge, Origin, Reply, eventually};
use super::load::{Load, Manner, echo};

/// The lines of a file, each of which must be JSON.
fn records(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    assert!(text.is_empty() || text.ends_with('\n'), "the last line of {} is torn", file.display());
    let json = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}: {line}", file.display()));
    text.lines().map(json).collect()
}

#[tokio::test]
async fn rotation_under_load_neither_loses_nor_tears_a_line() {
    const ROTATIONS: usize = 10;
    let origin = echo().await;
    let edge = Edge::before(&origin, "").await;
    let load = Load::start(&edge, &[(6, Manner::Keepalive), (2, Manner::OneEach)]);
    let log = edge.folder().join("access.log");
    let rotated = |n: usize| edge.folder().join(format!("access.log.{n}"));
    for n in 0..ROTATIONS {
        load.more(50).await;
        fs::rename(&log, rotated(n)).expect("the log is renamed");
        edge.signal(Signal::USR1);
        eventually("a new file", async || log.exists()).await;
    }
    load.more(50).await;
    let asked = load.finish().await;
    edge.signal(Signal::TERM);
    assert!(edge.wait_exit().await.success());

    let mut ids = HashSet::new();
    let mut lines = 0;
    for file in (0..ROTATIONS).map(rotated).chain([log.clone()]) {
        for record in records(&file) {
            lines += 1;
            assert!(ids.insert(record["request_id"].to_string()), "twice: {record}");
        }
    }
    assert_eq!(lines, asked, "one line for each request");
}

#[tokio::test]
async fn records_after_usr1_go_to_the_new_file() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::before(&origin, "").await;
    let (log, old) = (edge.folder().join("access.log"), edge.folder().join("access.log.1"));
    assert_eq!(edge.get("/before").await.status, 200);
    edge.access_log_lines(1).await;
    fs::rename(&log, &old).expect("renamed");
    assert_eq!(edge.get("/between").await.status, 200);
    eventually("the old file's second line", async || records(&old).len() == 2).await;
    edge.signal(Signal::USR1);
    eventually("a new file", async || log.exists()).await;
    assert_eq!(edge.get("/after").await.status, 200);
    let new = edge.access_log_lines(1).await;
    assert_eq!(new[0]["uri"], "/after");
    assert_eq!(records(&old).len(), 2);
    edge.wait_log("logs reopened").await;
}

#[tokio::test]
async fn usr1_is_obeyed_while_the_process_drains() {
    let gate = super::harness::Gate::new();
    let reply = Reply::ok("x").hold(&gate);
    let origin = Origin::start(move |_| reply.clone()).await;
    let edge = Edge::before(&origin, "").await;
    let mut held = edge.connect().await;
    held.send(Ask::get("/held").bytes()).await;
    gate.reached(1).await;
    edge.signal(Signal::TERM);
    edge.wait_log("stopping").await;
    let log = edge.folder().join("access.log");
    fs::rename(&log, edge.folder().join("access.log.1")).expect("renamed");
    edge.signal(Signal::USR1);
    eventually("a new file", async || log.exists()).await;
    gate.open();
    assert_eq!(held.response("GET").await.text(), "x");
    edge.wait_exit().await;
    assert_eq!(records(&log)[0]["uri"], "/held");
}

#[tokio::test]
async fn a_full_disk_costs_records_and_not_requests() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=60")).await;
    let yaml = Edge::yaml_before(&[&origin], "")
        + "access_log: { path: /dev/full, format: json }\nlimits: { header_size: 64KiB }\n";
    let edge = Edge::start(&yaml).await;
    // Each is escaped to a record of about 100 KiB: the queue that waits for the disk is full soon.
    let long = "\u{85}".repeat(16 << 10);
    let ask = Ask::get("/").header("User-Agent", &long).header("Referer", &long);
    let mut client = edge.connect().await;
    for _ in 0..500 {
        assert_eq!(client.ask(&ask).await.status, 200);
    }
    let metrics = edge.metrics().await;
    assert!(metrics.sum("foreland_access_log_records_dropped_total", &[]) > 0.0);
    assert!(metrics.sum("foreland_access_log_errors_total", &[]) > 0.0);
    assert_eq!(metrics.sum("foreland_access_log_records_written_total", &[]), 0.0);
    edge.wait_log("/dev/full cannot be written").await;
    // Said once, however long it lasts.
    assert_eq!(edge.log().matches("cannot be written").count(), 1);
    assert_eq!(client.ask(&Ask::get("/")).await.status, 200);
}

#[tokio::test]
async fn a_folder_that_is_gone_is_made_again_at_usr1() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let yaml = Edge::yaml_before(&[&origin], "") + "access_log: { path: \"{dir}/logs/a.log\", format: json }\n";
    let edge = Edge::start(&yaml).await;
    let (folder, log) = (edge.folder().join("logs"), edge.folder().join("logs/a.log"));
    fs::remove_dir_all(&folder).expect("removed");
    assert_eq!(edge.get("/gone").await.status, 200);
    edge.signal(Signal::USR1);
    eventually("the file", async || log.exists()).await;
    assert_eq!(edge.get("/back").await.status, 200);
    eventually("a line", async || records(&log).iter().any(|r| r["uri"] == "/back")).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_again_is_tried_again() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let yaml = Edge::yaml_before(&[&origin], "") + "access_log: { path: \"{dir}/logs/a.log\", format: json }\n";
    let edge = Edge::start(&yaml).await;
    let (folder, away) = (edge.folder().join("logs"), edge.folder().join("away"));
    fs::rename(&folder, &away).expect("moved away");
    // A file where the folder should be: as good as a folder without permission, and also for root.
    fs::write(&folder, "").expect("a file in its place");
    edge.signal(Signal::USR1);
    edge.wait_log("logs/a.log cannot be opened").await;
    // Meanwhile the old file goes on.
    assert_eq!(edge.get("/meanwhile").await.status, 200);
    let old = away.join("a.log");
    eventually("a line in the old file", async || records(&old).iter().any(|r| r["uri"] == "/meanwhile")).await;
    assert!(edge.metrics().await.sum("foreland_access_log_errors_total", &[]) > 0.0);

    fs::remove_file(&folder).expect("removed");
    eventually("the file by its name", async || folder.join("a.log").exists()).await;
    assert_eq!(edge.get("/after").await.status, 200);
    eventually("a line", async || records(&folder.join("a.log")).iter().any(|r| r["uri"] == "/after")).await;
    assert_eq!(edge.metrics().await.sum("foreland_access_log_records_dropped_total", &[]), 0.0);
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_stops_the_start() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let yaml = Edge::yaml_before(&[&origin], "") + "access_log: { path: /dev/null/a.log, format: json }\n";
    let edge = Edge::builder(&yaml).spawn();
    assert_eq!(edge.wait_exit().await.code(), Some(1));
    assert!(edge.log().contains("access log: "), "{}", edge.log());
    assert!(edge.log().contains("/dev/null/a.log"), "the message names the file: {}", edge.log());
}
