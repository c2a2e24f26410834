//! Two processes over one folder.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{assert_stored, body_of, bytes_of, census, folder, length, objects, settled, sized, stored, yaml};
use crate::harness::{Ask, Connection, Edge, End, Gate, Origin, Reply, eventually, within};

const UPGRADE: &str = "drain: 10m\nupgrade_socket: \"{dir}/upgrade.sock\"\n";

/// A successor that waits for the hand-over, and has looked at the disks.
async fn waiting(edge: &Edge) -> Edge {
    let new = edge.successor();
    let socket = edge.folder().join("upgrade.sock");
    eventually("a successor on the upgrade socket", async || socket.exists()).await;
    new
}

async fn hand_over(old: &Edge) {
    old.signal(Signal::QUIT);
    old.wait_log("the new process serves").await;
}

/// The disk is the new process's, which stores on it.
async fn taken_over(new: &Edge) {
    eventually("the disk to be taken over", async || {
        let log = new.log();
        log.contains("cache: taken over") || log.contains(" objects, ")
    })
    .await;
}

/// Clients that ask for new URLs, and again for those that they have had.
struct Load {
    had: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    count: watch::Sender<usize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(edge: &Edge, name: &'static str, n: usize, sizes: &'static [usize]) -> Load {
        let (had, stop, next) =
            (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (count, _) = watch::channel(0);
        let clients = (0..n).map(|_| {
            let (had, stop, next, count, address) =
                (had.clone(), stop.clone(), next.clone(), count.clone(), edge.address());
            tokio::spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let again = lock(&had).get(n / 2).cloned().filter(|_| n % 3 == 0);
                    let url = again.unwrap_or_else(|| format!("/{name}-{n}/{}", sizes[n % sizes.len()]));
                    match fetch(address, &url).await {
                        Ok(()) => lock(&had).push(url),
                        Err(why) => failures.push(format!("{url}: {why}")),
                    }
                    count.send_modify(|count| *count += 1);
                }
                failures
            })
        });
        Load { clients: clients.collect(), had, stop, count }
    }

    async fn more(&self, n: usize) {
        let mut count = self.count.subscribe();
        let until = *count.borrow() + n;
        let _ = within(&format!("{n} more answers"), count.wait_for(|count| *count >= until)).await;
    }

    fn had(&self) -> Vec<String> {
        lock(&self.had).clone()
    }

    /// Panics where any request has failed.
    async fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(within("a client's end", client).await.expect("a client"));
        }
        assert!(failures.is_empty(), "{failures:#?}");
        lock(&self.had).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn fetch(address: std::net::SocketAddr, url: &str) -> Result<(), String> {
    let mut connection = Connection::try_open(address).await.ok_or("refused")?;
    let ask = Ask::get(url).header("Connection", "close");
    connection.try_send(ask.bytes()).await.map_err(|e| format!("not sent: {e}"))?;
    let head = connection.try_head("GET").await.ok_or("no answer")?;
    let response = connection.rest(head).await;
    match response.end {
        End::Clean if response.status == 200 && response.body == body_of(url, length(url)) => Ok(()),
        end => Err(format!("{} {end:?}, {} bytes", response.status, response.body.len())),
    }
}

/// An origin that answers in two halves, and for `/held...` waits in between.
async fn in_halves(gate: &Gate) -> Origin {
    let held = gate.clone();
    Origin::start(move |r| {
        let body = body_of(&r.target, length(&r.target));
        let (first, rest) = body.split_at(body.len() / 2);
        let reply = Reply::ok(first.to_vec()).cache_control("max-age=3600");
        let reply = if r.target.starts_with("/held") { reply.wait(&held) } else { reply };
        reply.body(rest.to_vec())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_whole_is_there_afterwards() {
    for memory in ["32MiB", "off"] {
        let gate = Gate::new();
        let origin = in_halves(&gate).await;
        let mut old = Edge::start(&(yaml(&origin, memory, "size: 1GiB") + UPGRADE)).await;
        let before: Vec<_> = (0..40).map(|n| format!("/first-{n}/{}", 100 + n * n * 1000)).collect();
        for url in &before {
            old.get(url).await;
        }
        // One that is written when it is whole, and one that is written as it comes.
        let held: Vec<_> = ["/held/100000", "/held/4000000"]
            .map(|url| {
                let address = old.address();
                tokio::spawn(async move { fetch(address, url).await })
            })
            .into_iter()
            .collect();
        gate.reached(2).await;
        const SIZES: &[usize] = &[300, 20_000, 600_000, 2_000_000];
        let load = Load::start(&old, "before", 4, SIZES);
        load.more(30).await;
        let new = waiting(&old).await;
        load.more(30).await;
        // What is fetched while the disk changes hands is not kept.
        let had = load.had();
        hand_over(&old).await;
        taken_over(&new).await;
        load.more(20).await;
        load.finish().await;
        let load = Load::start(&new, "after", 4, SIZES);
        load.more(20).await;
        assert!(old.is_running(), "the old process has something to finish");
        for url in before.iter().chain(&had) {
            assert_stored(&new, url).await;
        }
        assert!(!new.log().contains(" objects, "), "the disk is not wholly known while two write to it");
        gate.open();
        for held in held {
            within("what was held", held).await.expect("a client").expect("the whole response");
        }
        assert!(old.wait_exit().await.success());
        new.wait_log("looked through").await;
        settled(&new).await;
        load.more(10).await;
        let after = load.finish().await;
        for url in before.iter().chain(&had).chain(&after).map(String::as_str).chain(["/held/100000", "/held/4000000"])
        {
            assert_stored(&new, url).await;
        }
        assert!(!new.log().contains("damaged"), "{}", new.log());
        // The next stop is an ordinary one.
        old = new.restart().await;
        settled(&old).await;
        assert!(!old.log().contains("looked through"), "{}", old.log());
        for url in &before {
            assert_stored(&old, url).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_for_both_together() {
    const LIMIT: u64 = 12 << 20;
    let gate = Gate::new();
    let origin = in_halves(&gate).await;
    let old = Edge::start(&(yaml(&origin, "off", &format!("size: {LIMIT}B")) + UPGRADE)).await;
    let (stop, path) = (Arc::new(AtomicBool::new(false)), folder(&old));
    let stopped = stop.clone();
    let watcher = std::thread::spawn(move || {
        let (mut most, mut before) = (0, census(&path));
        while !stopped.load(Ordering::Relaxed) {
            // Two that are the same say what there was at one moment.
            let now = census(&path);
            if now == before {
                most = most.max(bytes_of(&now));
            }
            before = now;
        }
        most
    });
    let load = Load::start(&old, "load", 3, &[20_000, 300_000, 1_200_000]);
    load.more(60).await;
    let client = tokio::spawn({
        let address = old.address();
        async move { fetch(address, "/held/3000000").await }
    });
    gate.reached(1).await;
    let new = waiting(&old).await;
    hand_over(&old).await;
    taken_over(&new).await;
    load.more(60).await;
    gate.open();
    within("what was held", client).await.expect("a client").expect("the whole response");
    assert!(old.wait_exit().await.success());
    settled(&new).await;
    load.more(60).await;
    load.finish().await;
    stop.store(true, Ordering::Relaxed);
    let most = watcher.join().expect("the watcher");
    assert!(most > LIMIT / 2 && most <= LIMIT, "{most} bytes where {LIMIT} may be");
    assert!(objects(&folder(&new)).len() > 10, "and nearly all of it is used");
}

/// What is stored under more than its URL is not removed one by one: its URL is marked, and the successor has to know.
#[tokio::test]
async fn what_the_old_process_invalidates_is_invalid_for_the_new_one() {
    for during in [false, true] {
        let (version, gate) = (Arc::new(AtomicUsize::new(1)), Gate::new());
        let (current, held) = (version.clone(), gate.clone());
        let origin = Origin::start(move |r| match r.method.as_str() {
            "GET" => Reply::ok(format!("version {}", current.load(Ordering::Relaxed))).cache_control("max-age=3600"),
            _ => Reply::new(204).hold(&held),
        })
        .await;
        let mut text = Edge::yaml_before(&[&origin], "cache: { key: { headers: [X-Part] } }");
        text.push_str("cache:\n  memory: off\n  disk: { path: \"{dir}/cache\", size: 64MiB }\n");
        let old = Edge::start(&(text + UPGRADE)).await;
        let ask = |part: &str| Ask::get("/a").header("X-Part", part);
        for part in ["one", "two"] {
            old.ask(&ask(part)).await;
            assert!(old.ask(&ask(part)).await.is_hit());
        }
        let mut client = old.connect().await;
        client.send(Ask::new("POST", "/a").header("X-Part", "two").body("x").bytes()).await;
        gate.reached(1).await;
        let new = waiting(&old).await;
        if !during {
            gate.open();
            assert_eq!(client.response("POST").await.status, 204);
        }
        hand_over(&old).await;
        taken_over(&new).await;
        version.store(2, Ordering::Relaxed);
        if during {
            gate.open();
            assert_eq!(client.response("POST").await.status, 204);
        }
        client.finish_sending().await;
        assert!(old.wait_exit().await.success());
        settled(&new).await;
        for part in ["one", "two"] {
            assert_eq!(new.ask(&ask(part)).await.text(), "version 2", "{part}, during: {during}");
            assert!(new.ask(&ask(part)).await.is_hit());
        }
        let new = new.restart().await;
        assert!(new.ask(&ask("one")).await.is_hit());
        assert!(new.ask(&ask("two")).await.is_hit());
    }
}

#[tokio::test]
async fn a_successor_that_only_waits_changes_nothing() {
    let origin = sized().await;
    let old = Edge::start(&(yaml(&origin, "off", "size: 64MiB") + UPGRADE)).await;
    old.get("/a/1000").await;
    old.get("/b/2000000").await;
    let new = waiting(&old).await;
    new.kill().await;
    old.get("/c/1000").await;
    for url in ["/a/1000", "/b/2000000", "/c/1000"] {
        assert_stored(&old, url).await;
    }
    let old = old.restart().await;
    settled(&old).await;
    assert!(!old.log().contains("looked through"), "{}", old.log());
    for url in ["/a/1000", "/b/2000000", "/c/1000"] {
        assert_stored(&old, url).await;
    }
}

#[tokio::test]
async fn a_new_process_that_dies_after_the_hand_over_leaves_all_of_it() {
    let origin = sized().await;
    let old = Edge::start(&(yaml(&origin, "off", "size: 64MiB") + UPGRADE)).await;
    old.get("/a/1000").await;
    let new = waiting(&old).await;
    hand_over(&old).await;
    taken_over(&new).await;
    new.get("/b/2000000").await;
    new.kill().await;
    assert!(old.wait_exit().await.success());
    let next = new.again();
    next.wait_ready().await;
    for url in ["/a/1000", "/b/2000000"] {
        assert_stored(&next, url).await;
    }
    settled(&next).await;
    for url in ["/a/1000", "/b/2000000"] {
        assert_stored(&next, url).await;
    }
}

#[tokio::test]
async fn another_process_may_not_use_the_folder() {
    let origin = sized().await;
    let first = Edge::start(&yaml(&origin, "off", "size: 64MiB")).await;
    first.get("/a/1000").await;
    let path = folder(&first).display().to_string();
    let text = Edge::yaml_before(&[&origin], "") + &format!("cache:\n  disk: {{ path: \"{path}\", size: 64MiB }}\n");
    let second = Edge::builder(&text).spawn();
    assert_eq!(second.wait_exit().await.code(), Some(1));
    assert!(second.log().contains(&format!("{path} is in use by another process")), "{}", second.log());
    assert!(first.is_running());
    assert!(stored(&first, "/a/1000").await.is_some());
    // Its lock goes with the process, however that ends.
    first.kill().await;
    let third = first.again();
    third.wait_ready().await;
    assert_stored(&third, "/a/1000").await;
}
