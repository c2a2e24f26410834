//! A list of servers in a file that changes.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;

use super::*;

/// A list of its own, removed as it is dropped.
struct List(PathBuf);

impl List {
    fn new(text: &str) -> List {
        let list = List::missing();
        fs::write(&list.0, text).expect("a list is written");
        list
    }

    fn missing() -> List {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("servers-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_file(&path);
        List(path)
    }

    /// As `echo > list` does.
    fn rewrite(&self, text: &str) {
        fs::write(&self.0, text).expect("a list is written");
    }

    /// As an editor does.
    fn replace(&self, text: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, text).expect("a list is written");
        fs::rename(&new, &self.0).expect("a list is put in place");
    }

    fn yaml(&self, more: &str) -> String {
        yaml(&format!("    servers_file: {}\n{more}", self.0.display()))
    }
}

impl Drop for List {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn changes_are_followed_and_no_request_fails() {
    let (a, b, c) = (server("a").await, server("b").await, server("c").await);
    let list = List::new(&format!("- {}\n", a.address()));
    let edge = Edge::start(&list.yaml("")).await;
    let mut client = edge.connect().await;
    until_only(&mut client, &["a"]).await;
    list.rewrite(&format!("- {}\n- {{ address: \"{}\", weight: 3 }}\n", a.address(), b.address()));
    until_only(&mut client, &["a", "b"]).await;
    list.replace(&format!("[\"{}\", \"{}\"]", c.address(), b.address()));
    until_only(&mut client, &["b", "c"]).await;
    // Weight 0 takes nothing new, and is there still.
    list.rewrite(&format!("- {{ address: \"{}\", weight: 0 }}\n- {}\n", b.address(), c.address()));
    until_only(&mut client, &["c"]).await;
    assert_eq!(status(&edge).await["servers"][0]["weight"], 0);
    // A name instead of an address.
    list.replace(&format!("- localhost:{}\n", a.address().port()));
    until_only(&mut client, &["a"]).await;
    edge.wait_log(&format!("came: localhost:{0} at {1}", a.address().port(), a.address())).await;
}

#[tokio::test]
async fn a_bad_list_changes_nothing_and_an_empty_one_is_nobody() {
    let a = server("a").await;
    let good = format!("- {}\n", a.address());
    let list = List::new(&good);
    let edge = Edge::start(&list.yaml("")).await;
    let mut client = edge.connect().await;
    until_only(&mut client, &["a"]).await;

    list.rewrite("- 10.0.0.1\n- { address: 10.0.0.2:80, weight: 999 }\n");
    eventually("the mistakes in the admin API", async || status(&edge).await["last_error"].is_string()).await;
    let told = status(&edge).await["last_error"].to_string();
    assert!(told.contains("1:3") && told.contains("weight"), "{told}");
    until_only(&mut client, &["a"]).await;
    assert_eq!(edge.log().matches(" ERROR ").count(), 2, "each mistake once");

    list.rewrite("");
    eventually("the empty file in the log", async || edge.log().contains("is empty")).await;
    until_only(&mut client, &["a"]).await;

    list.replace("[]");
    eventually("no server", async || edge.get("/").await.status == 503).await;
    assert!(status(&edge).await["last_error"].is_null());
    list.replace(&good);
    eventually("the server again", async || edge.get("/").await.status == 200).await;
}

#[tokio::test]
async fn without_the_file_the_configured_servers_work() {
    let (a, b) = (server("a").await, server("b").await);
    let list = List::missing();
    let edge = Edge::start(&list.yaml(&format!("    servers: [\"{}\"]\n", a.address()))).await;
    let mut client = edge.connect().await;
    until_only(&mut client, &["a"]).await;
    let told = status(&edge).await["last_error"].to_string();
    assert!(told.contains("cannot be read"), "{told}");
    // Whoever is configured is not listed once more.
    list.rewrite(&format!("- {}\n- {}\n", b.address(), a.address()));
    until_only(&mut client, &["a", "b"]).await;
    let status = status(&edge).await;
    assert!(status["last_error"].is_null());
    assert_eq!(status["servers"].as_array().map(Vec::len), Some(2));
    assert_eq!(status["servers"][0]["server"], a.address().to_string());
}

#[tokio::test]
async fn a_drain_outlives_absence_and_a_reload() {
    let (a, b) = (server("a").await, server("b").await);
    let both = format!("- {}\n- {}\n", a.address(), b.address());
    let list = List::new(&both);
    let edge = Edge::start(&list.yaml("")).await;
    let mut client = edge.connect().await;
    until_only(&mut client, &["a", "b"]).await;
    let control = |what: &str| format!("/v1/origins/o/servers/{}/{what}", b.address());
    assert_eq!(edge.admin_post(&control("drain"), "").await.status, 200);
    list.replace(&format!("- {}\n", a.address()));
    let servers = async || status(&edge).await["servers"].as_array().map_or(0, Vec::len);
    eventually("one server", async || servers().await == 1).await;
    list.replace(&both);
    eventually("two servers", async || servers().await == 2).await;
    assert_eq!(status(&edge).await["servers"][1]["drained"], true);
    edge.write_config(&list.yaml("    retries: 0\n"));
    edge.signal(Signal::HUP);
    edge.wait_log("reloaded").await;
    assert_eq!(status(&edge).await["servers"][1]["drained"], true);
    until_only(&mut client, &["a"]).await;
    assert_eq!(edge.admin_post(&control("undrain"), "").await.status, 200);
    until_only(&mut client, &["a", "b"]).await;
}
