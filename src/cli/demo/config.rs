//! The configuration of the demo's edge: an ordinary file's text, so that it shows what a file may say.

use std::fmt::Write;
use std::net::SocketAddr;

/// The YAML of an edge that listens at `edge` and `admin` (`ip:port`) and balances over `origins`.
pub fn config_yaml(origins: &[SocketAddr], edge: &str, admin: &str) -> String {
    let mut servers = String::new();
    for address in origins {
        // Writing to a String does not fail.
        let _ = writeln!(servers, "      - \"{address}\"");
    }
    format!(
        "\
listeners:
  - address: \"{edge}\"

admin:
  address: \"{admin}\"

access_log: {{ path: stdout, format: json }}

cache:
  memory: {{ size: 64MiB, max_object: 1MiB }}

origins:
  demo:
    servers:
{servers}    balance: round-robin
    health_check: {{ path: /healthz, interval: 1s, timeout: 500ms, healthy_after: 1, unhealthy_after: 1 }}
    connect_timeout: 1s
    retries: 2

sites:
  - hosts: [\"*\"]
    origin: demo
    cache:
      stale_if_error: 1h
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_asked_in_yaml() {
        let origins = [SocketAddr::from(([127, 0, 0, 1], 9001)), SocketAddr::from(([127, 0, 0, 1], 9007))];
        let yaml = config_yaml(&origins, "127.0.0.1:8080", "[::1]:9180");
        let value: serde_yaml::Value = serde_yaml::from_str(&yaml).expect("YAML");
        assert_eq!(value["listeners"][0]["address"], "127.0.0.1:8080");
        assert_eq!(value["admin"]["address"], "[::1]:9180");
        assert_eq!(value["origins"]["demo"]["servers"][1], "127.0.0.1:9007");
        assert_eq!(value["origins"]["demo"]["servers"].as_sequence().map(Vec::len), Some(2));
        assert_eq!(value["origins"]["demo"]["retries"], 2);
        assert_eq!(value["sites"][0]["hosts"][0], "*");
    }
}
