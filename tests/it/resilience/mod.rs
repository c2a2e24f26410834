//! What clients notice of servers that die, fail, are slow or have enough to do; and what such servers notice of clients.
//!
//! A request goes to a server by one of two ways through the edge, [`Way`], with the same behind both.

mod breaker;
mod budget;
mod covered;
mod deaths;
mod hedging;
mod repeats;
mod timeouts;

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use crate::harness::{Ask, Edge, Metrics, Origin, Response};

/// By which way a request without a body goes to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The cache has no part in it.
    Past,
    /// The answer might be stored.
    Through,
}

const BOTH: [Way; 2] = [Way::Past, Way::Through];

impl Way {
    /// An edge before a pool of these servers; `settings` are further keys of the pool, as between braces.
    async fn pool(self, servers: &[&Origin], settings: &str) -> Edge {
        let servers: Vec<_> = servers.iter().map(|o| o.address().to_string()).collect();
        self.pool_of(&servers, settings).await
    }

    /// The same, for servers that need not be there.
    async fn pool_of(self, servers: &[String], settings: &str) -> Edge {
        let servers = servers.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
        let settings = if settings.is_empty() { String::new() } else { format!(", {settings}") };
        let cache = if self == Way::Past { "off" } else { "on" };
        Edge::start(&format!(
            "origins: {{ o: {{ servers: [{servers}]{settings} }} }}\nsites: [{{ hosts: [\"*\"], origin: o, cache: {cache} }}]\n"
        ))
        .await
    }
}

/// So many clients at once, each with so many requests one after the other, each for another target: all responses.
async fn crowd(edge: &Edge, clients: usize, each: usize) -> Vec<Response> {
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let address = edge.address();
        tasks.spawn(async move {
            let mut responses = Vec::new();
            for n in 0..each {
                responses.push(crate::harness::exchange(address, &Ask::get(&format!("/{client}/{n}"))).await);
            }
            responses
        });
    }
    crate::harness::within("a crowd's answers", tasks.join_all()).await.into_iter().flatten().collect()
}

/// How often each status was answered.
fn statuses(responses: &[Response]) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for response in responses {
        *statuses.entry(response.status).or_default() += 1;
    }
    statuses
}

fn retries(metrics: &Metrics) -> f64 {
    metrics.sum("foreland_origin_retries_total", &[("origin", "o")])
}

fn failures(metrics: &Metrics, kind: &str) -> f64 {
    metrics.sum("foreland_origin_failures_total", &[("origin", "o"), ("kind", kind)])
}

/// Retries that the budget did not allow.
fn refused(metrics: &Metrics) -> f64 {
    metrics.sum("foreland_origin_retries_refused_total", &[("origin", "o")])
}
