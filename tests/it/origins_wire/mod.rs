//! The connections to origins, as the servers at their other end see them: TLS, versions of HTTP, sockets, the PROXY
//! protocol, what is kept and for how long; and servers that misbehave on each of these.

mod attacks;
pub mod h2_server;
mod http2;
mod keeping;
mod pki;
mod plain;
mod proxy;
mod tls;
mod tls_front;

use crate::harness::Edge;

/// An edge before one server; `settings` are further keys of its pool, as between braces. The cache has no part.
async fn before(server: &str, settings: &str) -> Edge {
    Edge::start(&yaml(&[server], settings)).await
}

fn yaml(servers: &[&str], settings: &str) -> String {
    let servers = servers.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
    let settings = if settings.is_empty() { String::new() } else { format!(", {settings}") };
    format!(
        "origins: {{ o: {{ servers: [{servers}]{settings} }} }}\nsites: [{{ hosts: [\"*\"], origin: o, cache: off }}]\n"
    )
}

/// The `detail` of the access log's only line.
async fn detail(edge: &Edge) -> String {
    let lines = edge.access_log_lines(1).await;
    lines[0]["detail"].as_str().unwrap_or_default().to_owned()
}
