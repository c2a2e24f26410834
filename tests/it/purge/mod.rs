//! Purging, as clients see it: what is purged is not served to a request that begins afterwards, wherever it is kept and
//! whatever becomes of the process; and nothing else is purged.

mod damage;
mod durable;
mod faults;
mod flight;
mod groups;
mod selectors;
mod soft;
mod sweep;
mod tags;
mod upgrade;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::harness::{
    Ask, Connection, Edge, Gate, H2Connection, H2Waiting, Metrics, Origin, Reply, Request, Response, eventually,
};
use crate::over::{Client, Over};

/// Where an edge keeps what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    Memory,
    Disk,
    Both,
}

const TIERS: [Tier; 3] = [Tier::Memory, Tier::Disk, Tier::Both];

impl Tier {
    fn yaml(self) -> &'static str {
        match self {
            Tier::Memory => "cache: { memory: { size: 64MiB, max_object: 8MiB } }\n",
            Tier::Disk => "cache: { memory: off, disk: { path: \"{dir}/cache\", size: 64MiB } }\n",
            Tier::Both => "cache: { memory: { size: 64MiB }, disk: { path: \"{dir}/cache\", size: 64MiB } }\n",
        }
    }
}

/// Starts an edge, and waits until its disks, if it has any, have their copies of the ledger.
async fn start(yaml: &str) -> Edge {
    let edge = Edge::start(yaml).await;
    durable(&edge).await;
    edge
}

/// An edge with a site for every host before this origin.
async fn before(origin: &Origin, tier: Tier, site: &str) -> Edge {
    start(&(Edge::yaml_before(&[origin], site) + tier.yaml())).await
}

/// Kills the process, and starts another on the same files and ports.
async fn killed(edge: &Edge) -> Edge {
    edge.kill().await;
    let next = edge.again();
    next.wait_ready().await;
    durable(&next).await;
    next
}

/// Ends the process in good order, and starts another.
async fn restarted(edge: &Edge) -> Edge {
    let next = edge.restart().await;
    durable(&next).await;
    next
}

/// Waits until all that has been purged is written down.
async fn durable(edge: &Edge) {
    eventually("a durable ledger", async || ledger(edge).await["durable"] == true).await;
}

async fn ledger(edge: &Edge) -> Value {
    edge.admin_get("/v1/ledger").await.json()
}

/// Purges; its place in the ledger.
async fn purge(edge: &Edge, what: &Value) -> u64 {
    let answer = edge.admin_post("/v1/purge", &what.to_string()).await;
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    answer.json()["sequence"].as_u64().expect("a sequence")
}

/// The purge of a URL of the host that a request names if nothing else is said.
fn url(target: &str) -> Value {
    json!({ "urls": [format!("http://edge.test{target}")] })
}

fn tag(tag: &str) -> Value {
    json!({ "tags": [tag] })
}

fn softly(mut what: Value) -> Value {
    what["soft"] = true.into();
    what
}

/// Whether something usable is stored; the origin is not asked for it.
async fn is_stored(edge: &Edge, ask: &Ask) -> bool {
    let answer = edge.ask(&ask.clone().header("Cache-Control", "only-if-cached")).await;
    assert!(answer.status == 504 || answer.is_hit(), "{answer:?}");
    answer.is_hit()
}

/// An origin that never gives the same answer twice, and what it is asked for in the meantime.
struct Stage {
    origin: Origin,
    gates: Gates,
}

type Gates = Arc<Mutex<HashMap<(String, usize), Gate>>>;

impl Stage {
    /// `reply` is given the request, how many have been for this target (this one included), and a gate that is this
    /// answer's alone. Nothing is held where it does not say so.
    async fn new(reply: impl Fn(&Request, usize, &Gate) -> Reply + Send + Sync + 'static) -> Stage {
        let (gates, counts) = (Gates::default(), Mutex::new(HashMap::<String, usize>::new()));
        let of_origin = gates.clone();
        let origin = Origin::start(move |request| {
            let n = {
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                let count = counts.entry(request.target.clone()).or_default();
                *count += 1;
                *count
            };
            reply(request, n, &gate(&of_origin, &request.target, n))
        })
        .await;
        Stage { origin, gates }
    }

    /// The gate of the `n`th answer for a target.
    fn gate(&self, target: &str, n: usize) -> Gate {
        gate(&self.gates, target, n)
    }

    /// How often the origin has been asked for a target.
    fn asked(&self, target: &str) -> usize {
        self.origin.seen().iter().filter(|request| request.target == target).count()
    }
}

fn gate(gates: &Gates, target: &str, n: usize) -> Gate {
    gates.lock().unwrap_or_else(PoisonError::into_inner).entry((target.to_owned(), n)).or_default().clone()
}

/// A request whose answer has not been read.
enum Pending {
    Http1(Connection),
    Http2(H2Connection, H2Waiting),
}

impl Pending {
    async fn get(over: Over, edge: &Edge, target: &str) -> Pending {
        let ask = Ask::get(target);
        match over.connect(edge).await {
            Client::Http1(mut connection) => {
                connection.send(ask.bytes()).await;
                Pending::Http1(connection)
            }
            Client::Http2(connection) => {
                let waiting = connection.send(&ask, true).await.expect("a stream");
                Pending::Http2(connection, waiting)
            }
        }
    }

    async fn response(self) -> Response {
        match self {
            Pending::Http1(mut connection) => connection.response("GET").await,
            Pending::Http2(_connection, waiting) => waiting.try_head().await.expect("a response").rest().await,
        }
    }
}

/// An origin whose answers are numbered, so that no two have the same body.
async fn numbered(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Origin {
    let next = AtomicUsize::new(1);
    Origin::start(move |request| reply(request).body(format!("answer {}", next.fetch_add(1, Ordering::Relaxed)))).await
}

/// What is stored, as clients have had it: each by a name.
struct Stock(Vec<(String, Ask, String)>);

impl Stock {
    /// Asks for all of it, and sees that it is stored.
    async fn fill(edge: &Edge, asks: impl IntoIterator<Item = (String, Ask)>) -> Stock {
        let (mut stock, mut client) = (Vec::new(), edge.connect().await);
        for (name, ask) in asks {
            let first = client.ask(&ask).await.text().to_owned();
            let hit = client.ask(&ask).await;
            assert!(hit.is_hit() && hit.text() == first, "{name} is not stored: {hit:?}");
            stock.push((name, ask, first));
        }
        Stock(stock)
    }

    /// Sees that exactly these are fetched anew, and what of the rest is left is a hit. From then on what has been fetched
    /// is what clients have had.
    async fn assert_gone(&mut self, client: &mut Client, by_head: bool, gone: &[&str], how: &str) {
        for name in gone {
            assert!(self.0.iter().any(|(known, ..)| known == name), "{name}: no such thing");
        }
        let mut wrong = Vec::new();
        for (name, ask, had) in &mut self.0 {
            let expected = !gone.contains(&name.as_str());
            if by_head {
                let head = client.ask(&Ask { method: "HEAD".to_owned(), ..ask.clone() }).await;
                if head.is_hit() != expected {
                    wrong.push(format!("HEAD {name}: {}", head.cache_status()));
                }
            }
            let answer = client.ask(ask).await;
            let same = answer.text() == had;
            // What a HEAD has brought is a hit already.
            if same != expected || !by_head && answer.is_hit() != expected || answer.status != 200 {
                wrong.push(format!("{name}: {} {}, had {had}", answer.text(), answer.cache_status()));
            }
            *had = answer.text().to_owned();
        }
        assert!(wrong.is_empty(), "{how}: to be gone: {gone:?}\n{}", wrong.join("\n"));
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, ..)| name.as_str()).collect()
    }
}

/// Waits until no answer is under way from the origin to the store.
async fn settled(edge: &Edge) {
    let quiet = |m: &Metrics| {
        let names = ["foreland_cache_fills_in_progress", "foreland_cache_background_fetches"];
        names.iter().all(|name| m.sum(name, &[]) == 0.0)
    };
    edge.wait_metrics("nothing under way", quiet).await;
}
