//! QUIT and `run --upgrade`: a new process takes the sockets over, and no client notices.

use rustix::process::Signal;

use super::harness::{Ask, Connection, Edge, End, Gate, Origin, Reply, eventually, exchange};
use super::load::{Load, Manner, echo};

const UPGRADE: &str = "drain: 10m\nupgrade_socket: \"{dir}/upgrade.sock\"\npid_file: \"{dir}/foreland.pid\"\n";

fn yaml(origin: &Origin) -> String {
    Edge::yaml_before(&[origin], "") + UPGRADE
}

fn pid_in_file(edge: &Edge) -> Option<i32> {
    std::fs::read_to_string(edge.folder().join("foreland.pid")).ok()?.trim().parse().ok()
}

/// Waits for a successor to wait on the upgrade socket.
async fn waiting(edge: &Edge) {
    let socket = edge.folder().join("upgrade.sock");
    eventually("a successor on the upgrade socket", async || socket.exists()).await;
}

/// Has `old` hand over to a new process that reads the file as it is now.
async fn upgrade(old: &Edge) -> Edge {
    let new = old.successor();
    old.signal(Signal::QUIT);
    old.wait_log("the new process serves").await;
    assert!(new.is_running());
    new
}

#[tokio::test]
async fn under_load_no_request_is_refused_reset_or_lost() {
    let origin = echo().await;
    let mut edge = Edge::start(&yaml(&origin)).await;
    let load = Load::start(&edge, &[(6, Manner::Keepalive), (4, Manner::OneEach)]);
    for _ in 0..3 {
        load.more(100).await;
        let new = upgrade(&edge).await;
        load.more(100).await;
        assert_eq!(edge.wait_exit().await.code(), Some(0));
        assert_eq!(pid_in_file(&new), Some(new.pid().as_raw_nonzero().get()));
        edge = new;
    }
    load.more(100).await;
    let asked = load.finish().await;
    edge.signal(Signal::TERM);
    assert!(edge.wait_exit().await.success());
    assert_eq!(edge.access_log().len(), asked, "one record for each request, whoever served it");
}

#[tokio::test]
async fn the_old_process_finishes_what_it_has_and_ends() {
    let gate = Gate::new();
    let held = Reply::ok("held").hold(&gate).cache_control("no-store");
    let origin =
        Origin::start(
            move |r| if r.path() == "/held" { held.clone() } else { Reply::ok("x").cache_control("no-store") },
        )
        .await;
    let old = Edge::start(&yaml(&origin)).await;
    let mut client = old.connect().await;
    client.send(Ask::get("/held").bytes()).await;
    let mut kept = old.connect().await;
    assert_eq!(kept.ask(&Ask::get("/a")).await.text(), "x");
    gate.reached(1).await;
    let new = upgrade(&old).await;
    // A connection that the old process has kept gets one more answer there.
    let last = kept.ask(&Ask::get("/b")).await;
    assert_eq!((last.text(), last.header("Connection")), ("x", Some("close")));
    // New ones, the control API's included, are the new process's.
    old.wait_log(&format!("no longer listening on {}", old.address())).await;
    assert_eq!(new.get("/c").await.text(), "x");
    new.wait_metrics("the new process's own count", |m| m.sum("foreland_requests_total", &[]) == 1.0).await;
    assert!(old.is_running());
    gate.open();
    assert_eq!(client.response("GET").await.text(), "held");
    assert_eq!(old.wait_exit().await.code(), Some(0));
    assert_eq!(pid_in_file(&new), Some(new.pid().as_raw_nonzero().get()), "the old one leaves it alone");
    assert_eq!(new.get("/d").await.text(), "x");
    assert!(!new.folder().join("upgrade.sock").exists());
}

#[tokio::test]
async fn http2_clients_are_told_to_go() {
    let gate = Gate::new();
    let held = Reply::ok("held").hold(&gate);
    let origin = Origin::start(move |r| if r.path() == "/held" { held.clone() } else { Reply::ok("x") }).await;
    let old = Edge::start(&yaml(&origin)).await;
    let h2 = old.connect_h2().await;
    let ask = Ask::get("/held");
    let handed_over = async {
        gate.reached(1).await;
        let new = upgrade(&old).await;
        eventually("GOAWAY", async || h2.try_start(&Ask::get("/more")).await.is_err()).await;
        assert_eq!(new.connect_h2().await.ask(&Ask::get("/more")).await.text(), "x");
        gate.open();
        new
    };
    let (response, _new) = tokio::join!(h2.ask(&ask), handed_over);
    assert_eq!(response.text(), "held");
    assert!(old.wait_exit().await.success());
}

/// Both count on in one order: what the new process stores before the old one purges is older than that.
#[tokio::test]
async fn a_purge_at_the_old_process_concerns_what_the_new_one_has_stored() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=600")).await;
    let disk = "cache: { disk: { path: \"{dir}/cache\", size: 64MiB } }\n";
    let site = "purge: { from: [127.0.0.0/8] }";
    let old = Edge::start(&(Edge::yaml_before(&[&origin], site) + UPGRADE + disk)).await;
    let mut client = old.connect().await;
    client.send("PURGE /a HTTP/1.1\r\nHost: edge.test\r\n").await;
    // The connection is the old process's by the time that it has answered another one.
    assert!(!old.get("/other").await.is_hit());
    let new = upgrade(&old).await;
    assert!(!new.get("/a").await.is_hit() && new.get("/a").await.is_hit());
    client.send("\r\n").await;
    assert_eq!(client.response("PURGE").await.status, 200);
    assert!(!new.get("/a").await.is_hit());
    assert_eq!(old.wait_exit().await.code(), Some(0));
    assert!(new.get("/a").await.is_hit());
}

#[tokio::test]
async fn a_successor_that_refuses_its_file_changes_nothing() {
    let origin = echo().await;
    let old = Edge::start(&yaml(&origin)).await;
    let load = Load::start(&old, &[(2, Manner::Keepalive), (2, Manner::OneEach)]);
    old.write_config("listeners: 7\n");
    let broken = old.successor();
    assert_eq!(broken.wait_exit().await.code(), Some(1));
    assert!(broken.log().contains("foreland.yaml:1:"), "{}", broken.log());
    old.signal(Signal::QUIT);
    old.wait_log("handing").await;
    load.more(50).await;
    // The old one waits a while for a better one.
    old.write_config(&yaml(&origin));
    let new = old.successor();
    old.wait_log("the new process serves").await;
    load.more(50).await;
    load.finish().await;
    assert!(old.wait_exit().await.success());
    assert_eq!(pid_in_file(&new), Some(new.pid().as_raw_nonzero().get()));
}

#[tokio::test]
async fn a_successor_that_cannot_start_changes_nothing() {
    let origin = echo().await;
    let old = Edge::start(&yaml(&origin)).await;
    let load = Load::start(&old, &[(2, Manner::Keepalive), (2, Manner::OneEach)]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address");
    let failures = [
        // Each fails when the sockets are there already.
        (
            format!("listeners:\n  - address: 127.0.0.1:{{port}}\n  - address: {taken}\n"),
            format!("listening on {taken}"),
        ),
        ("access_log: { path: /dev/null/log, format: json }\n".to_owned(), "access log: /dev/null/log".to_owned()),
        (String::new(), "writing /dev/null/pid".to_owned()),
    ];
    for (n, (more, why)) in failures.into_iter().enumerate() {
        let mut text = yaml(&origin) + &more;
        if more.is_empty() {
            text = text.replace("{dir}/foreland.pid", "/dev/null/pid");
        }
        old.write_config(&text);
        let broken = old.successor();
        waiting(&old).await;
        old.signal(Signal::QUIT);
        assert_eq!(broken.wait_exit().await.code(), Some(1));
        assert!(broken.log().contains(&why), "{why:?} in {}", broken.log());
        eventually("the old one's word", async || old.log().matches("this process goes on").count() == n + 1).await;
        load.more(50).await;
        assert_eq!(old.admin_get("/readyz").await.status, 200);
        assert_eq!(pid_in_file(&old), Some(old.pid().as_raw_nonzero().get()));
    }
    load.finish().await;
    old.write_config(&yaml(&origin));
    let _new = upgrade(&old).await;
    assert!(old.wait_exit().await.success());
}

#[tokio::test]
async fn the_new_file_may_have_other_listeners() {
    let origin = echo().await;
    let old = Edge::start(&yaml(&origin)).await;
    let (h2c, admin) = (old.h2c_address(), old.admin_address());
    // The second listener's port becomes the control API's, and the control API's a listener.
    let listeners = "listeners:\n  - address: 127.0.0.1:{port}\n  - address: 127.0.0.1:{admin}\nadmin: { address: \"127.0.0.1:{h2c}\" }\n";
    old.write_config(&(yaml(&origin) + listeners));
    let new = old.successor();
    waiting(&old).await;
    old.signal(Signal::QUIT);
    // Neither port is free before the old process has gone; so that cannot be done at once.
    assert_eq!(new.wait_exit().await.code(), Some(1));
    assert!(new.log().contains(&format!("listening on {admin}")), "{}", new.log());

    let listeners = "listeners:\n  - address: 127.0.0.1:{port}\nadmin: { address: \"127.0.0.2:{admin}\" }\n";
    old.write_config(&(yaml(&origin) + listeners));
    let _new = upgrade(&old).await;
    old.wait_exit().await;
    assert!(Connection::try_open(h2c).await.is_none(), "a listener that is gone from the file");
    assert!(Connection::try_open(admin).await.is_none(), "the control API has another address");
    let moved = std::net::SocketAddr::from(([127, 0, 0, 2], admin.port()));
    let ready = exchange(moved, &Ask::get("/readyz").host(&moved.to_string())).await;
    assert_eq!((ready.status, ready.text()), (200, "ready\n"));
}

#[tokio::test]
async fn a_control_api_on_a_unix_socket_is_handed_over_too() {
    let origin = echo().await;
    let text = yaml(&origin) + "admin: { address: \"unix:{dir}/admin.sock\" }\n";
    let old = Edge::builder(&text).spawn();
    let path = old.folder().join("admin.sock");
    eventually("the pid file", async || pid_in_file(&old).is_some()).await;
    let ready = async || over_unix(&path, "/readyz").await;
    eventually("readiness", async || ready().await.is_some_and(|text| text.starts_with("HTTP/1.1 200 "))).await;

    old.write_config(&(text.clone() + "access_log: { path: /dev/null/log, format: json }\n"));
    let broken = old.successor();
    waiting(&old).await;
    old.signal(Signal::QUIT);
    assert_eq!(broken.wait_exit().await.code(), Some(1));
    assert!(ready().await.is_some(), "a successor that failed took the name away");

    old.write_config(&text);
    let new = upgrade(&old).await;
    // The old process may still have accepted one that it does not answer any more; the name stays.
    eventually("an answer", async || ready().await.is_some()).await;
    assert!(old.wait_exit().await.success());
    assert!(ready().await.is_some(), "the old process took the name away");
    new.signal(Signal::TERM);
    assert!(new.wait_exit().await.success());
    assert!(!path.exists());
}

/// An answer over a Unix socket as text; `None` where nobody listens.
async fn over_unix(path: &std::path::Path, target: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::UnixStream::connect(path).await.ok()?;
    let ask = Ask::get(target).host("localhost").header("Connection", "close");
    stream.write_all(&ask.bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test]
async fn without_an_upgrade_socket_quit_is_refused() {
    let origin = echo().await;
    let edge = Edge::before(&origin, "").await;
    edge.signal(Signal::QUIT);
    edge.wait_log("QUIT: no upgrade_socket").await;
    assert_eq!(edge.get("/a").await.status, 200);
    let successor = edge.successor();
    assert_eq!(successor.wait_exit().await.code(), Some(1));
    assert!(successor.log().contains("--upgrade needs upgrade_socket"), "{}", successor.log());
    assert_eq!(edge.get("/b").await.status, 200);
}

#[tokio::test]
async fn only_one_successor_waits() {
    let origin = echo().await;
    let old = Edge::start(&yaml(&origin)).await;
    let first = old.successor();
    waiting(&old).await;
    let second = old.successor();
    assert_eq!(second.wait_exit().await.code(), Some(1));
    assert!(second.log().contains("another process is waiting"), "{}", second.log());
    old.signal(Signal::QUIT);
    old.wait_log("the new process serves").await;
    assert!(first.is_running());
    assert!(old.wait_exit().await.success());
    assert_eq!(first.get("/a").await.text(), "/a");
}

#[tokio::test]
async fn term_ends_a_successor_that_waits() {
    let origin = echo().await;
    let old = Edge::start(&yaml(&origin)).await;
    let new = old.successor();
    waiting(&old).await;
    new.signal(Signal::TERM);
    assert_eq!(new.wait_exit().await.code(), Some(1));
    assert_eq!(old.get("/a").await.text(), "/a");
}

#[tokio::test]
async fn a_socket_file_that_a_dead_process_left_is_no_obstacle() {
    let origin = echo().await;
    let old = Edge::start(&yaml(&origin)).await;
    drop(std::os::unix::net::UnixListener::bind(old.folder().join("upgrade.sock")).expect("a socket"));
    let new = upgrade(&old).await;
    assert!(old.wait_exit().await.success());
    assert_eq!(new.get("/a").await.text(), "/a");
}

#[tokio::test]
async fn term_ends_the_wait_for_a_successor() {
    let origin = echo().await;
    let old = Edge::start(&yaml(&origin)).await;
    old.signal(Signal::QUIT);
    old.wait_log("handing").await;
    assert_eq!(old.get("/a").await.text(), "/a");
    old.signal(Signal::TERM);
    assert_eq!(old.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn hup_and_usr1_are_obeyed_while_it_waits_for_a_successor() {
    let origin = echo().await;
    let old = Edge::start(&yaml(&origin)).await;
    old.signal(Signal::QUIT);
    old.wait_log("handing").await;
    old.signal(Signal::HUP);
    old.wait_log("reloaded").await;
    old.signal(Signal::USR1);
    old.wait_log("logs reopened").await;
    let mut kept = old.connect().await;
    let _new = old.successor();
    old.wait_log("the new process serves").await;
    kept.finish_sending().await;
    assert_eq!(kept.closed().await.0, End::Clean);
    assert!(old.wait_exit().await.success());
}
