//! Who of a pool's servers is well: by probes, and by what becomes of requests.

mod active;
mod passive;

use serde_json::Value;

use super::harness::{Edge, Origin, eventually};

/// An edge before a pool with these servers; `settings` is further YAML of the origin, a line for each key.
async fn pool(servers: &[&Origin], settings: &[&str]) -> Edge {
    let servers: Vec<_> = servers.iter().map(|server| format!("\"{}\"", server.address())).collect();
    let settings: String = settings.iter().map(|line| format!("    {line}\n")).collect();
    let origin = format!("origins:\n  o:\n    servers: [{}]\n{settings}", servers.join(", "));
    Edge::start(&format!("{origin}sites:\n  - {{ hosts: [\"*\"], origin: o, cache: off }}\n")).await
}

/// What the control API says of a server, by its position.
async fn told(edge: &Edge, server: usize) -> Value {
    edge.admin_get("/v1/origins").await.json()["origins"][0]["servers"][server].clone()
}

/// Waits for a server's state; what the control API says then.
async fn wait_state(edge: &Edge, server: usize, state: &str) -> Value {
    eventually(&format!("server {server} to be {state}"), async || told(edge, server).await["state"] == state).await;
    told(edge, server).await
}
