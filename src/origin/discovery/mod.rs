//! Which servers there are: as the file says, as names resolve, and as a watched file lists them.

pub(super) mod dns;
pub(super) mod file;
pub(super) mod follow;
mod resolver;
#[cfg(test)]
mod script;
pub(super) mod srv;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::endpoint::Endpoint;
use crate::config::model::{Server, ServerAddress};

/// The highest tier.
const MAX_TIER: u8 = 15;
/// Servers that one name of SRV records may lead to; the first by priority and name are taken.
const MAX_SERVERS: usize = 256;

/// A server that has been found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) endpoint: Endpoint,
    /// How the operator calls it: `host:port` as configured, as an SRV record says it, or as a file lists it.
    pub(super) text: String,
    /// 0 to 256; 0 takes no new requests.
    pub(super) weight: usize,
    pub(super) tier: u8,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Of A or AAAA records: sorted, without duplicates, at least one.
    Addresses(Vec<IpAddr>),
    /// Of SRV records, in order. None: the name says that nobody offers the service.
    Targets(Vec<srv::Target>),
}

/// An answer, and how long it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) answer: Answer,
    /// From 1 s to 5 min.
    pub(super) ttl: Duration,
    /// What could not be had, though the rest is good.
    pub(super) trouble: Option<String>,
}

/// The servers that an entry stands for, by the newest good answer to its name.
pub(super) fn servers_of(server: &Server, answer: Option<&Answer>) -> Vec<Found> {
    let found = |endpoint: Endpoint| Found {
        endpoint,
        text: server.address.to_string(),
        weight: server.weight,
        tier: server.tier,
    };
    match (&server.address, answer) {
        (ServerAddress::Socket(address), _) => vec![found((*address).into())],
        (ServerAddress::Unix(path), _) => vec![found(Endpoint::Unix(path.as_path().into()))],
        (ServerAddress::Name { port, .. }, Some(Answer::Addresses(addresses))) => {
            addresses.iter().map(|ip| found(SocketAddr::new(*ip, *port).into())).collect()
        }
        (ServerAddress::Srv(_), Some(Answer::Targets(targets))) => {
            targets.iter().flat_map(|target| target.servers(server)).take(MAX_SERVERS).collect()
        }
        (ServerAddress::Name { .. } | ServerAddress::Srv(_), _) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: ServerAddress, weight: usize, tier: u8) -> Server {
        Server { address, weight, tier }
    }

    #[test]
    fn a_name_leads_to_a_server_for_each_address() {
        let name = server(ServerAddress::Name { host: "a.test".to_owned(), port: 80 }, 3, 2);
        assert_eq!(servers_of(&name, None), []);
        let answer = Answer::Addresses(vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]);
        let expected = ["10.0.0.1:80", "[2001:db8::1]:80"].map(|endpoint| Found {
            endpoint: endpoint.parse::<SocketAddr>().unwrap().into(),
            text: "a.test:80".to_owned(),
            weight: 3,
            tier: 2,
        });
        assert_eq!(servers_of(&name, Some(&answer)), expected);
    }

    #[test]
    fn what_has_no_name_is_known_at_once() {
        let socket = server(ServerAddress::Socket("[::1]:81".parse().unwrap()), 1, 0);
        let unix = server(ServerAddress::Unix("/run/app.sock".into()), 0, 1);
        let texts = [socket, unix].map(|server| servers_of(&server, None)[0].endpoint.to_string());
        assert_eq!(texts, ["[::1]:81", "unix:/run/app.sock"]);
    }

    #[test]
    fn a_slot_has_a_bounded_number_of_servers() {
        let target = |number: u8| srv::Target {
            host: format!("t{number}.test"),
            port: 80,
            weight: 1,
            rank: 0,
            addresses: (0..64).map(|last| IpAddr::from([10, 0, number, last])).collect(),
        };
        let answer = Answer::Targets((0..8).map(target).collect());
        let found = servers_of(&server(ServerAddress::Srv("_http._tcp.test".to_owned()), 1, 0), Some(&answer));
        assert_eq!(found.len(), MAX_SERVERS);
    }
}
