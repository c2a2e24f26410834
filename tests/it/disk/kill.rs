//! What a client has had whole is there after `kill -9`.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::{body_of, bytes_of, census, folder, length, objects, settled, stored, yaml};
use crate::harness::{Ask, Connection, Edge, End, Origin, Reply, eventually, within};

/// How often the edge is killed; more by the environment, for a night.
fn rounds() -> usize {
    std::env::var("FORELAND_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// What a round ends after: so many answers and so long, which differ from round to round.
fn end_of(round: usize) -> (usize, Duration) {
    let noise = body_of(&format!("round {round} of {}", std::process::id()), 2);
    (10 + usize::from(noise[0]) % 50, Duration::from_micros(u64::from(noise[1]) * 100))
}

const SIZES: [usize; 9] = [1, 300, 5_000, 70_000, 0, 300_000, 1_200_000, 20_000, 3_000_000];

/// Clients that ask without a pause until the edge dies, each for what `target` says.
struct Clients {
    edge: std::net::SocketAddr,
    /// URLs whose bodies have come whole.
    whole: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
    next: AtomicUsize,
}

impl Clients {
    fn new(edge: &Edge) -> Arc<Clients> {
        let (count, _) = watch::channel(0);
        Arc::new(Clients { edge: edge.address(), whole: Mutex::default(), count, next: AtomicUsize::new(0) })
    }

    /// Has `n` clients at work until the edge is killed, which is after `end`.
    async fn until_killed(
        self: &Arc<Self>,
        edge: &Edge,
        n: usize,
        end: (usize, Duration),
        target: fn(usize) -> String,
    ) {
        let work: Vec<_> = (0..n).map(|_| tokio::spawn(self.clone().work(target))).collect();
        let mut count = self.count.subscribe();
        let (answers, more) = end;
        let _ = within("answers before the kill", count.wait_for(|count| *count >= answers)).await;
        tokio::time::sleep(more).await;
        edge.kill().await;
        for client in work {
            within("a client's end", client).await.expect("a client");
        }
    }

    async fn work(self: Arc<Self>, target: fn(usize) -> String) {
        let mut connection: Option<Connection> = None;
        loop {
            let url = target(self.next.fetch_add(1, Ordering::Relaxed));
            let mut kept = match connection.take() {
                Some(kept) => kept,
                None => match Connection::try_open(self.edge).await {
                    Some(opened) => opened,
                    None => return,
                },
            };
            if kept.try_send(Ask::get(&url).bytes()).await.is_err() {
                return;
            }
            let Some(head) = kept.try_head("GET").await else { return };
            let response = kept.rest(head).await;
            let right = body_of(&url, length(&url));
            if response.end != End::Clean {
                assert!(right.starts_with(&response.body), "{url}: other bytes before the end");
                return;
            }
            assert!(
                response.status == 200 && response.body == right,
                "{url}: {} {:?}",
                response.status,
                response.headers
            );
            self.whole.lock().unwrap_or_else(PoisonError::into_inner).push(url);
            self.count.send_modify(|count| *count += 1);
            connection = Some(kept);
        }
    }

    fn whole(&self) -> Vec<String> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_has_had_whole_is_there() {
    for memory in ["32MiB", "off"] {
        let origin = Origin::start(|r| {
            let reply = Reply::ok(body_of(&r.target, length(&r.target))).cache_control("max-age=3600");
            if r.target.starts_with("/chunked") { reply.chunked() } else { reply }
        })
        .await;
        let mut edge = Edge::start(&yaml(&origin, memory, "size: 4GiB")).await;
        let mut all = 0;
        for round in 0..rounds() {
            // Each round has URLs of its own.
            let clients = Clients::new(&edge);
            clients.next.store(round * 1_000_000, Ordering::Relaxed);
            let target = |n: usize| {
                let how = if n.is_multiple_of(4) { "chunked" } else { "length" };
                format!("/{how}/{n}/{}", SIZES[n % SIZES.len()])
            };
            clients.until_killed(&edge, 6, end_of(round), target).await;
            let whole = clients.whole();
            let log = edge.log();
            edge = edge.again();
            edge.wait_ready().await;
            let mut missing = Vec::new();
            for url in &whole {
                match stored(&edge, url).await {
                    Some(hit) => assert!(hit.end == End::Clean && hit.body == body_of(url, length(url)), "{url}"),
                    None => missing.push(url),
                }
            }
            assert!(
                missing.is_empty(),
                "round {round}: {} of {} are gone: {missing:?}\n{log}",
                missing.len(),
                whole.len()
            );
            // What was cut off is fetched again as if it had never been.
            let last = target(clients.next.load(Ordering::Relaxed) - 1);
            let again = edge.get(&last).await;
            assert!(again.end == End::Clean && again.body == body_of(&last, length(&last)), "{last}");
            settled(&edge).await;
            assert_is_accounted(&edge).await;
            all += whole.len();
        }
        println!("memory: {memory}: {all} responses were whole before {} kills", rounds());
    }
}

/// Nothing but what is known of is on the disk: no temporary file, and no room without a name.
async fn assert_is_accounted(edge: &Edge) {
    let folder = folder(edge);
    let left = || fs::read_dir(folder.join("tmp")).map_or(0, |dir| dir.count());
    eventually("the temporary files to go", async || left() == 0).await;
    let files: Vec<_> = objects(&folder);
    let bytes: u64 =
        files.iter().map(|file| fs::metadata(file).map_or(0, |meta| meta.len().div_ceil(4096) * 4096)).sum();
    eventually("what is in use to be written down", async || state(&folder) == bytes / 4096).await;
    // The files beside the objects: marks and the like.
    let (all, beside) = (bytes_of(&census(&folder)), 1 << 20);
    assert!(all <= bytes + beside, "{all} bytes on the disk, {bytes} of them objects");
}

/// The units in use, as the disk's keeper notes them each second.
fn state(folder: &Path) -> u64 {
    let bytes = fs::read(folder.join("state")).unwrap_or_default();
    bytes.try_into().map_or(u64::MAX, u64::from_le_bytes)
}

/// A response that is stale at once, so that each request validates it; `version` makes the heads differ, in their length
/// too.
fn always_stale(reply: Reply, version: usize) -> Reply {
    reply
        .cache_control("max-age=60")
        .header("Age", "60")
        .header("ETag", "\"v\"")
        .header("X-Version", version.to_string())
        // Now and then it outgrows the room that the file has for it.
        .header("X-Pad", "x".repeat(version % 7 * 50))
}

const VALIDATED: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validation_that_is_cut_off_loses_nothing() {
    for memory in ["32MiB", "off"] {
        let version = Arc::new(AtomicUsize::new(0));
        let origin = Origin::start(move |r| {
            let version = version.fetch_add(1, Ordering::Relaxed);
            if r.headers.has("If-None-Match") {
                return always_stale(Reply::new(304), version);
            }
            always_stale(Reply::ok(body_of(&r.target, length(&r.target))), version)
        })
        .await;
        let target = |n: usize| {
            let n = n % VALIDATED;
            format!("/{n}/{}", [200, 20_000, 1_500_000][n % 3])
        };
        let mut edge = Edge::start(&yaml(&origin, memory, "size: 1GiB")).await;
        for n in 0..VALIDATED {
            edge.get(&target(n)).await;
        }
        for round in 0..rounds() {
            let (answers, more) = end_of(round);
            Clients::new(&edge).until_killed(&edge, 6, (answers * 3, more), target).await;
            edge = edge.again();
            edge.wait_ready().await;
            for n in 0..VALIDATED {
                let url = target(n);
                let response = edge.get(&url).await;
                assert!(response.end == End::Clean && response.body == body_of(&url, length(&url)), "{url}");
                assert_eq!(response.headers.all("X-Version").len(), 1, "{response:?}");
            }
            settled(&edge).await;
            assert!(!edge.log().contains("damaged"), "{}", edge.log());
        }
        let fetched: Vec<_> = origin.seen().into_iter().filter(|r| !r.headers.has("If-None-Match")).collect();
        let again: Vec<_> = fetched.iter().skip(VALIDATED).map(|r| &r.target).collect();
        assert!(again.is_empty(), "memory: {memory}: lost, and fetched again: {again:?}");
        let distinct: HashSet<_> = fetched.iter().map(|r| &r.target).collect();
        assert_eq!(distinct.len(), VALIDATED);
    }
}
