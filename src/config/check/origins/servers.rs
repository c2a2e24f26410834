//! Which servers there are.

use std::collections::HashMap;
use std::path::Path;

use super::{Decode, List, is_given, resolve};
use crate::config::decode::{Placed, Trail};
use crate::config::model::{Server, ServerAddress};
use crate::config::node::{Node, Value};
use crate::config::raw;
use crate::config::report::{Finding, Place, Report};
use crate::config::words::ServerEntry;

/// The servers of an origin.
pub(super) fn servers(raw: &Placed<raw::Origin>, base: &Path, report: &mut Report) -> Option<Vec<Server>> {
    let Some(list) = &raw.servers else {
        if report.is_wrong(&format!("{}.servers", raw.place.path)) {
            return None;
        }
        if !is_given(&raw.servers_file, &raw.place, "servers_file", report) {
            report.error(&raw.place, "the key `servers` is missing (or `servers_file`)");
            return None;
        }
        return Some(Vec::new());
    };
    let servers = entries(&list.0, base, report)?;
    if raw.servers_file.is_none() && servers.iter().all(|s| s.weight == 0) {
        report.error(&list.place, "every server has weight 0: none would take a request");
    }
    Some(servers)
}

/// The servers of a file that holds a list of them, which may be empty. Relative paths start at `folder`.
pub(in crate::config) fn listed(text: &str, folder: &Path) -> Result<Vec<Server>, Vec<Finding>> {
    let node = Node::parse(text).map_err(|finding| vec![finding])?;
    let mut report = Report::default();
    let servers = if node.value == Value::Null {
        // As likely cut short as meant.
        report.error(&Place::default(), "the file is empty; no servers at all are written []");
        None
    } else {
        let list = List::<ServerEntry, 0>::decode(&node, &Trail::ROOT, &mut report);
        list.and_then(|list| entries(&list.0, folder, &mut report))
    };
    match servers {
        Some(servers) if report.errors.is_empty() => Ok(servers),
        _ => {
            report.errors.sort_by_key(|f| f.place.mark);
            report.errors.dedup();
            Err(report.errors)
        }
    }
}

/// Of one list. Each is looked at by every choice, checked by a task of its own and has its series in the metrics.
const MAX_SERVERS: usize = 1000;

fn entries(list: &[Placed<ServerEntry>], base: &Path, report: &mut Report) -> Option<Vec<Server>> {
    if let Some(first) = list.get(MAX_SERVERS) {
        report.error(&first.place, format!("{} servers are too many: at most {MAX_SERVERS} can be listed", list.len()));
        return None;
    }
    let mut servers = Vec::with_capacity(list.len());
    let mut seen: HashMap<ServerAddress, &Place> = HashMap::new();
    for entry in list {
        let (server, place) = match &entry.value {
            ServerEntry::Address(address) => (
                located(address, &entry.place, base, report).map(|address| Server { address, weight: 1, tier: 0 }),
                &entry.place,
            ),
            ServerEntry::Keys(keys) => {
                let place = keys.address.as_ref().map_or(&entry.place, |a| &a.place);
                (server(keys, base, report), place)
            }
        };
        if let Some(server) = &server {
            match seen.get(&server.address) {
                Some(first) => {
                    report.error(place, format!("the same server as {} on line {}", first.path, first.mark.line));
                }
                None => _ = seen.insert(server.address.clone(), place),
            }
        }
        servers.push(server);
    }
    servers.into_iter().collect()
}

fn server(keys: &raw::Server, base: &Path, report: &mut Report) -> Option<Server> {
    if let (Some(_), Some(backup)) = (&keys.tier, &keys.backup) {
        report.error(&backup.place, "`backup` and `tier` exclude each other: a backup is of tier 1");
    }
    let address = keys.address.as_ref().and_then(|address| located(&address.value, &address.place, base, report));
    let backup = keys.backup.as_ref().is_some_and(|backup| backup.value);
    let tier = keys.tier.as_ref().map_or(usize::from(backup), |tier| tier.0);
    Some(Server { address: address?, weight: keys.weight.as_ref()?.0, tier: u8::try_from(tier).unwrap_or(u8::MAX) })
}

/// An address whose path, if it is one, is absolute and short enough for a socket.
fn located(address: &ServerAddress, place: &Place, base: &Path, report: &mut Report) -> Option<ServerAddress> {
    let ServerAddress::Unix(path) = address else { return Some(address.clone()) };
    let path = resolve(base, path);
    match std::os::unix::net::SocketAddr::from_pathname(&path) {
        Ok(_) => Some(ServerAddress::Unix(path)),
        Err(why) => {
            report.error(place, format!("{} cannot be a Unix socket: {why}", path.display()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use crate::config::model::{Server, ServerAddress};
    use crate::config::servers_list;

    fn list(text: &str) -> Result<Vec<Server>, Vec<String>> {
        servers_list(text, Path::new("/srv/lists"))
    }

    fn server(address: ServerAddress, weight: usize, tier: u8) -> Server {
        Server { address, weight, tier }
    }

    /// All that a list may hold.
    fn everything() -> Vec<Server> {
        vec![
            server(ServerAddress::Socket("10.0.0.1:80".parse().unwrap()), 1, 0),
            server(ServerAddress::Socket("[::1]:80".parse().unwrap()), 0, 3),
            server(ServerAddress::Name { host: "app.internal".into(), port: 80 }, 7, 1),
            server(ServerAddress::Srv("_http._tcp.app.internal".into()), 1, 0),
            server(ServerAddress::Unix(PathBuf::from("/srv/lists/run/app.sock")), 1, 0),
        ]
    }

    #[test]
    fn a_list_has_an_end() {
        let text =
            |count: usize| -> String { (0..count).map(|n| format!("- 10.0.{}.{}:80\n", n >> 8, n & 255)).collect() };
        assert_eq!(list(&text(1000)).map(|servers| servers.len()), Ok(1000));
        let refused = vec!["1001:3: [1000]: 1002 servers are too many: at most 1000 can be listed".to_owned()];
        assert_eq!(list(&text(1002)), Err(refused));
    }

    #[test]
    fn a_list_in_yaml_or_json() {
        let yaml = "# ours\n- 10.0.0.1:80\n- { address: '[::1]:80', weight: 0, tier: 3 }\n\
                    - address: App.Internal:80\n  weight: 7\n  backup: true\n- srv:_http._tcp.app.internal\n\
                    - unix:run/app.sock\n";
        assert_eq!(list(yaml), Ok(everything()));
        let json = "[\n\t\"10.0.0.1:80\",\n\t{\"address\": \"[::1]:80\", \"weight\": 0, \"tier\": 3},\n\
                    \t{\"address\": \"app.internal:80\", \"weight\": 7, \"backup\": true},\n\
                    \t\"srv:_http._tcp.app.internal\", \"unix:run\\/app.sock\"]\n";
        assert_eq!(list(json), Ok(everything()));
    }

    #[test]
    fn a_list_may_be_empty_but_not_missing() {
        assert_eq!(list("[]"), Ok(Vec::new()));
        assert_eq!(list("[]\n"), Ok(Vec::new()));
        for text in ["", "\n", "# nothing\n", "~", "---\n"] {
            assert_eq!(list(text).unwrap_err(), ["the file is empty; no servers at all are written []"], "{text:?}");
        }
        assert_eq!(list("{a: b}").unwrap_err(), ["1:2: expected a list, found a mapping"]);
        assert_eq!(list("10.0.0.1:80").unwrap_err().len(), 1);
    }

    #[test]
    fn all_servers_of_a_list_may_be_drained() {
        assert_eq!(list("- { address: '10.0.0.1:80', weight: 0 }\n").map(|list| list.len()), Ok(1));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = "- 10.0.0.1:80\n- 10.0.0.2\n- { address: '10.0.0.1:80', weight: 300 }\n- 10.0.0.1:80\n\
                    - { adress: '10.0.0.3:80' }\n- { address: '10.0.0.4:80', backup: false, tier: 2 }\n";
        assert_eq!(
            list(text).unwrap_err(),
            [
                "2:3: [1]: \"10.0.0.2\": a server needs a port, as in `10.0.0.2:80`",
                "3:37: [2].weight: expected a number from 0 to 256, found 300",
                "4:3: [3]: the same server as [0] on line 1",
                "5:5: [4].adress: unknown key `adress`; did you mean `address`?",
                "5:5: [4]: the key `address` is missing",
                "6:37: [5].backup: `backup` and `tier` exclude each other: a backup is of tier 1",
            ]
        );
        assert_eq!(list("- [\n").unwrap_err().len(), 1);
    }

    #[test]
    fn a_list_of_nothing_but_mistakes_is_cut() {
        let messages = list(&"- x\n".repeat(1000)).unwrap_err();
        assert_eq!(messages.len(), 101);
        assert_eq!(messages.last().unwrap(), "and 900 more errors");
    }

    #[test]
    fn a_socket_has_a_short_path() {
        let messages = list(&format!("- unix:/{}\n", "x".repeat(108))).unwrap_err();
        assert!(
            messages[0].starts_with("1:3: [0]: /xxx") && messages[0].contains("cannot be a Unix socket"),
            "{messages:?}"
        );
    }

    proptest::proptest! {
        /// Whatever the text, there is an answer.
        #[test]
        fn no_list_panics(text in "([\\[\\]{}\"',:&*!#%<~\t\n -]|[a-z0-9.:]{0,6}|address|weight|srv:|unix:){0,30}") {
            _ = list(&text);
        }

        /// A server that was read is written so that it is read as the same.
        #[test]
        fn what_is_shown_reads_the_same(weight in 0usize..=256, tier in 0u8..=15, port in 1u16.., octet: u8) {
            for address in [format!("10.0.0.{octet}:{port}"), format!("[fe80::{octet:x}]:{port}"), format!("n{octet}.a:{port}")] {
                let text = |address: &str| format!("- {{ address: '{address}', weight: {weight}, tier: {tier} }}");
                let read = list(&text(&address)).unwrap();
                proptest::prop_assert_eq!((read[0].weight, read[0].tier), (weight, tier));
                proptest::prop_assert_eq!(list(&text(&read[0].address.to_string())), Ok(read));
            }
        }
    }
}
