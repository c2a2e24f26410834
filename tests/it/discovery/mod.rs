//! Servers that come and go while the edge runs: by a watched file, and by DNS.

mod dns;
mod file;
mod name_server;

use std::collections::BTreeSet;

use super::harness::{Ask, Connection, Edge, Origin, Reply, eventually};

/// A server that says its name.
async fn server(name: &'static str) -> Origin {
    Origin::start(move |_| Reply::ok(name)).await
}

/// Before a pool with these settings, uncached.
fn yaml(origin: &str) -> String {
    format!("origins:\n  o:\n{origin}sites:\n  - {{ hosts: [\"*\"], origin: o, cache: off }}\n")
}

/// Asks on one connection until the last few answers are of these servers, all of them and no other. Panics at a
/// request that fails.
async fn until_only(client: &mut Connection, servers: &[&str]) {
    let wanted: BTreeSet<String> = servers.iter().map(|name| name.to_string()).collect();
    eventually(&format!("answers of {servers:?}"), async || {
        let mut seen = BTreeSet::new();
        for _ in 0..4 * servers.len() {
            let response = client.ask(&Ask::get("/")).await;
            assert_eq!(response.status, 200, "{response:?}");
            seen.insert(response.text().to_owned());
        }
        seen == wanted
    })
    .await;
}

/// What `/v1/origins` says of the origin.
async fn status(edge: &Edge) -> serde_json::Value {
    edge.admin_get("/v1/origins").await.json()["origins"][0].clone()
}
