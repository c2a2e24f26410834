//! The text of a list of servers.

use std::path::Path;

use serde_yaml::Value;

use crate::config::model::{Server, ServerAddress};

/// Reads a YAML or JSON list of `address:port` and `name:port`.
pub(super) fn servers_list(text: &str, _folder: &Path) -> Result<Vec<Server>, Vec<String>> {
    let value: Value = serde_yaml::from_str(text).map_err(|why| vec![why.to_string()])?;
    let Value::Sequence(entries) = value else { return Err(vec!["a list of servers is expected".to_owned()]) };
    let (mut servers, mut mistakes) = (Vec::new(), Vec::new());
    for (index, entry) in entries.iter().enumerate() {
        match entry.as_str().and_then(address) {
            Some(address) => servers.push(Server { address, weight: 1, tier: 0 }),
            None => mistakes.push(format!("[{index}]: not a server such as 10.0.0.1:80, [::1]:80 or app.internal:80")),
        }
    }
    if mistakes.is_empty() { Ok(servers) } else { Err(mistakes) }
}

fn address(text: &str) -> Option<ServerAddress> {
    if let Ok(address) = text.parse() {
        return Some(ServerAddress::Socket(address));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    Some(ServerAddress::Name { host: host.to_owned(), port })
}
