//! `foreland demo`: what its banner promises.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use super::harness::{Ask, Connection, Port, eventually, exchange};

/// One demo at a time: another would take the ports of the origins that this one has killed.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Demo {
    child: Child,
    edge: Port,
    output: PathBuf,
    /// The commands of the banner, in order.
    commands: Vec<String>,
    _one: tokio::sync::MutexGuard<'static, ()>,
}

impl Demo {
    async fn start() -> Demo {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let one = ONE.lock().await;
        let name = format!("demo-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let output = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let (edge, admin) = (Port::reserve(), Port::reserve());
        let file = || File::create(&output).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_foreland"))
            .args(["demo", "--listen", &edge.address().to_string(), "--admin", &admin.address().to_string()])
            .stdin(Stdio::null())
            .stdout(file())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut demo = Demo { child, edge, output, commands: Vec::new(), _one: one };
        eventually("the banner", async || demo.text().contains("Ctrl-C ends it.")).await;
        demo.commands = demo.text().lines().filter_map(|l| l.strip_prefix("   ")).map(str::to_owned).collect();
        demo
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Runs a command of the banner as a reader would: by the shell.
    async fn paste(&self, number: usize) -> String {
        let line = self.commands[number - 1].clone();
        let run = move || Command::new("sh").arg("-c").arg(&line).stdin(Stdio::null()).output();
        let output = tokio::task::spawn_blocking(run).await.expect("a task").expect("a shell");
        assert!(output.stderr.is_empty(), "{number}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).replace('\r', "")
    }

    fn control(&self) -> std::net::SocketAddr {
        let text = self.text();
        let at = text.split("revived at http://").nth(1).expect("the control's address");
        at.split('.').take(4).collect::<Vec<_>>().join(".").parse().expect("an address")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- the demo said:\n{}---", self.text());
        }
        let _ = std::fs::remove_file(&self.output);
    }
}

fn has_curl() -> bool {
    Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[tokio::test]
async fn the_banners_commands_do_what_it_says() {
    if !has_curl() {
        println!("no curl on this machine: nothing to paste");
        return;
    }
    let demo = Demo::start().await;
    assert_eq!(demo.commands.len(), 5);

    let miss_and_hit = demo.paste(1).await.to_lowercase();
    let status: Vec<_> = miss_and_hit.lines().filter(|line| line.starts_with("cache-status: ")).collect();
    assert!(matches!(status[..], [miss, hit] if miss.contains("fwd=uri-miss") && hit.contains("; hit")), "{status:?}");
    assert_eq!(miss_and_hit.matches("hello from origin-").count(), 2);

    let round = demo.paste(2).await;
    for origin in 1..=3 {
        assert_eq!(round.matches(&format!("\"origin-{origin}\"")).count(), 2, "{round}");
    }

    let statuses = demo.paste(3).await;
    let all = statuses.lines().find(|line| line.trim() == "50 200");
    assert!(all.is_some(), "fifty requests, fifty 200s: {statuses}");

    let figures = demo.paste(4).await;
    let hits = figures.lines().find(|line| line.starts_with("foreland_requests_total{") && line.contains("\"hit\""));
    assert!(hits.is_some_and(|line| line.ends_with(" 1")), "{figures}");

    let part = demo.paste(5).await;
    let lines: Vec<_> = part.lines().collect();
    assert_eq!(lines, ["HTTP/1.1 206 Partial Content", "HTTP/1.1 304 Not Modified"]);
}

#[tokio::test]
async fn an_origins_death_goes_unnoticed() {
    let demo = Demo::start().await;
    let (edge, control) = (demo.edge.address(), demo.control());
    let post = async |path: &str| {
        let ask = Ask::new("POST", path).host(&control.to_string()).body("");
        exchange(control, &ask).await.status
    };
    let mut client = Connection::open(edge).await;
    let mut who = async |n: usize| {
        let mut origins = std::collections::BTreeSet::new();
        for _ in 0..n {
            let answer = client.ask(&Ask::get("/who").host(&edge.to_string())).await;
            assert_eq!(answer.status, 200);
            origins.insert(answer.json()["origin"].as_str().expect("a name").to_owned());
        }
        origins.len()
    };
    assert_eq!(who(6).await, 3);
    assert_eq!(post("/kill/2").await, 200);
    assert_eq!(who(30).await, 2);
    assert_eq!(post("/kill/1").await, 200);
    assert_eq!(post("/kill/3").await, 200);
    assert_eq!(post("/revive/3").await, 200);
    assert_eq!(who(30).await, 1);
    assert_eq!(post("/revive/1").await, 200);
    assert_eq!(post("/revive/2").await, 200);
    eventually("all three in the balance", async || who(6).await == 3).await;
}

#[tokio::test]
async fn it_ends_at_once() {
    let mut demo = Demo::start().await;
    kill_process(Pid::from_child(&demo.child), Signal::INT).expect("signalled");
    let mut status = None;
    eventually("its end", async || {
        status = demo.child.try_wait().expect("a status");
        status.is_some()
    })
    .await;
    assert_eq!(status.and_then(|s| s.code()), Some(0));
}
