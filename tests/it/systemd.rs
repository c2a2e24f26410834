//! What the service manager is told (sd_notify(3), `Type=notify-reload`).

use rustix::process::Signal;
use tokio::net::UnixDatagram;

use super::harness::{Edge, Origin, Reply, within};
use super::load::echo;

/// The service manager's end of NOTIFY_SOCKET.
struct Manager {
    socket: UnixDatagram,
    folder: std::path::PathBuf,
}

impl Manager {
    fn new(name: &str) -> Manager {
        let folder = std::env::temp_dir().join(format!("foreland-{}-{name}", std::process::id()));
        // A process with the same number may have left one behind.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let socket = UnixDatagram::bind(folder.join("notify")).expect("a socket");
        Manager { socket, folder }
    }

    fn path(&self) -> String {
        self.folder.join("notify").display().to_string()
    }

    /// The next message's assignments, in order.
    async fn hear(&self) -> Vec<(String, String)> {
        let mut buffer = [0; 4096];
        let length = within("a message", self.socket.recv(&mut buffer)).await.expect("received");
        let text = std::str::from_utf8(&buffer[..length]).expect("UTF-8");
        let pair = |line: &str| {
            let (name, value) = line.split_once('=').expect("an assignment");
            (name.to_owned(), value.to_owned())
        };
        text.lines().map(pair).collect()
    }

    async fn hear_ready(&self, edge: &Edge) {
        assert_eq!(self.hear().await, [pair("READY", 1), pair("MAINPID", edge.pid().as_raw_nonzero())]);
    }

    fn has_nothing(&self) -> bool {
        self.socket.try_recv(&mut [0; 64]).is_err()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn pair(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

/// RELOADING=1 with a time of the monotonic clock, as microseconds.
async fn hear_reloading(manager: &Manager) -> i64 {
    let message = manager.hear().await;
    let [reloading, (name, micros)] = &message[..] else { panic!("{message:?}") };
    assert_eq!((reloading, name.as_str()), (&pair("RELOADING", 1), "MONOTONIC_USEC"));
    micros.parse().expect("a number")
}

fn monotonic_micros() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

#[tokio::test]
async fn a_life_is_told_from_start_to_stop() {
    let manager = Manager::new("life");
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::builder(&Edge::yaml_before(&[&origin], "")).env("NOTIFY_SOCKET", &manager.path()).start().await;
    manager.hear_ready(&edge).await;

    let before = monotonic_micros();
    edge.signal(Signal::HUP);
    let at = hear_reloading(&manager).await;
    assert!((before..=monotonic_micros()).contains(&at), "{before} {at}");
    manager.hear_ready(&edge).await;

    // A reload that fails has an end as well, or `systemctl reload` would wait for it.
    edge.write_config("nonsense: 1\n");
    edge.signal(Signal::HUP);
    assert!(hear_reloading(&manager).await >= at);
    manager.hear_ready(&edge).await;

    assert!(manager.has_nothing());
    edge.signal(Signal::TERM);
    assert_eq!(manager.hear().await, [pair("STOPPING", 1)]);
    edge.wait_exit().await;
    assert!(manager.has_nothing());
}

#[tokio::test]
async fn ready_is_said_when_it_is_so() {
    let manager = Manager::new("ready");
    let origin = echo().await;
    let edge = Edge::builder(&Edge::yaml_before(&[&origin], "")).env("NOTIFY_SOCKET", &manager.path()).spawn();
    manager.hear_ready(&edge).await;
    // No waiting: whoever was told may ask.
    assert_eq!(edge.get("/a").await.text(), "/a");
    assert_eq!(edge.admin_get("/readyz").await.status, 200);

    let refused = Edge::builder("nonsense: 1\n").env("NOTIFY_SOCKET", &manager.path()).spawn();
    refused.wait_exit().await;
    assert!(manager.has_nothing());
}

#[tokio::test]
async fn after_an_upgrade_the_new_process_is_the_main_one() {
    let manager = Manager::new("upgrade");
    let origin = echo().await;
    let yaml = Edge::yaml_before(&[&origin], "") + "upgrade_socket: \"{dir}/upgrade.sock\"\n";
    let old = Edge::builder(&yaml).env("NOTIFY_SOCKET", &manager.path()).start().await;
    manager.hear_ready(&old).await;
    let new = old.successor();
    old.signal(Signal::QUIT);
    manager.hear_ready(&new).await;
    old.wait_exit().await;
    assert!(manager.has_nothing(), "the old one's end is not the service's");
    new.signal(Signal::TERM);
    assert_eq!(manager.hear().await, [pair("STOPPING", 1)]);
    new.wait_exit().await;
}

#[tokio::test]
async fn an_abstract_address_works_too() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("foreland-notify-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("an address");
    let socket = std::os::unix::net::UnixDatagram::bind_addr(&address).expect("a socket");
    socket.set_nonblocking(true).expect("not blocking");
    let socket = UnixDatagram::from_std(socket).expect("a socket");
    let origin = echo().await;
    let yaml = Edge::yaml_before(&[&origin], "");
    let _edge = Edge::builder(&yaml).env("NOTIFY_SOCKET", &format!("@{name}")).start().await;
    let mut buffer = [0; 256];
    let length = within("a message", socket.recv(&mut buffer)).await.expect("received");
    assert!(buffer[..length].starts_with(b"READY=1\n"));
}

#[tokio::test]
async fn a_manager_that_has_gone_hurts_nothing() {
    let manager = Manager::new("gone");
    let path = manager.path();
    drop(manager);
    let origin = echo().await;
    let edge = Edge::builder(&Edge::yaml_before(&[&origin], "")).env("NOTIFY_SOCKET", &path).start().await;
    assert_eq!(edge.get("/a").await.text(), "/a");
    edge.signal(Signal::TERM);
    assert!(edge.wait_exit().await.success());
}

/// What the messages above need of the unit.
#[test]
fn the_unit_takes_these_messages() {
    let unit = include_str!("../../systemd/foreland.service");
    let has = |line: &str| unit.lines().any(|l| l == line);
    assert!(has("Type=notify-reload"));
    // After an upgrade they come from another process than the one that systemd has started.
    assert!(has("NotifyAccess=all"));
    assert!(has("RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"));
}
