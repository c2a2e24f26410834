//! Servers, and how they are chosen and spoken to.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use rustls::pki_types::ServerName;

use super::net::{host_name, looks_numeric};
use super::text::FilePath;
use crate::config::decode::{Bad, Decode, FromText, Kind, Shape, Trail, word};
use crate::config::model::{HashKey, OriginHttp, ProxyProtocol, ServerAddress, TlsVersion};
use crate::config::node::{Node, Value, quote};
use crate::config::raw::{Balance, HashSource, Server};
use crate::config::report::Report;

impl FromText for ServerAddress {
    const KIND: Kind = Kind {
        name: "address and port, `srv:NAME` or `unix:PATH`",
        expected: "a server such as 10.0.0.1:80, [::1]:80, app.internal:80, srv:_http._tcp.app.internal or unix:PATH",
        pattern: r"^(unix:.+|srv:[A-Za-z0-9._-]+|([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):[0-9]+)$",
        numbers: true,
    };

    /// A path is as written.
    fn from_text(text: &str) -> Result<Self, Bad> {
        if let Some(path) = text.strip_prefix("unix:") {
            return FilePath::from_text(path).map(|path| ServerAddress::Unix(path.0));
        }
        if let Some(name) = text.strip_prefix("srv:") {
            return service(name).map(ServerAddress::Srv);
        }
        let because = |what: String| Err(Bad::Because(format!("{}: {what}", quote(text))));
        if let Some((scheme, rest)) = text.split_once("://") {
            let port = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
            let name = rest.split('/').next().unwrap_or_default();
            let port = if name.contains(':') { String::new() } else { format!(":{port}") };
            return because(format!("a server has no scheme; did you mean `{name}{port}`?"));
        }
        if text.starts_with('/') {
            return because(format!("a Unix socket is written `unix:{text}`"));
        }
        if text.contains('/') {
            return because("a server has no path".to_owned());
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return because(format!("an IPv6 address is written in brackets, with a port: `[{text}]:80`"));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => because("the port is 0".to_owned()),
                _ => Ok(ServerAddress::Socket(address)),
            };
        }
        let Some((name, port)) = text.rsplit_once(':') else {
            return match host_name(text) {
                Ok(name) if !looks_numeric(&name) || name.parse::<IpAddr>().is_ok() => {
                    because(format!("a server needs a port, as in `{name}:80`"))
                }
                _ => Err(Bad::Form),
            };
        };
        let host = host_name(name)?;
        if host.starts_with('[') || looks_numeric(&host) {
            return Err(Bad::Form);
        }
        match port.parse::<u16>() {
            Ok(0) => because("the port is 0".to_owned()),
            Ok(port) => Ok(ServerAddress::Name { host, port }),
            Err(_) => because("a port is a number from 1 to 65535".to_owned()),
        }
    }
}

/// A name that has SRV records.
fn service(text: &str) -> Result<String, Bad> {
    let name = host_name(text)?;
    match name.starts_with('[') || looks_numeric(&name) {
        true => Err(Bad::Because(format!("{}: SRV records belong to a name, not to an address", quote(text)))),
        false => Ok(name),
    }
}

/// A server with or without details.
#[derive(Clone, Debug)]
pub(in crate::config) enum ServerEntry {
    Address(ServerAddress),
    Keys(Box<Server>),
}

impl Decode for ServerEntry {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match node.value {
            Value::Map(_) => Server::decode(node, trail, report).map(|keys| ServerEntry::Keys(Box::new(keys))),
            _ => ServerAddress::decode(node, trail, report).map(ServerEntry::Address),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![ServerAddress::shape(), Server::shape()])
    }
}

/// How a server is chosen, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum BalanceBy {
    RoundRobin,
    Random,
    LeastRequests,
    LeastLatency,
    IpHash,
    ConsistentHash,
    Failover,
}

impl BalanceBy {
    const ALL: [BalanceBy; 7] = [
        BalanceBy::RoundRobin,
        BalanceBy::Random,
        BalanceBy::LeastRequests,
        BalanceBy::LeastLatency,
        BalanceBy::IpHash,
        BalanceBy::ConsistentHash,
        BalanceBy::Failover,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            BalanceBy::RoundRobin => "round-robin",
            BalanceBy::Random => "random",
            BalanceBy::LeastRequests => "least-requests",
            BalanceBy::LeastLatency => "least-latency",
            BalanceBy::IpHash => "ip-hash",
            BalanceBy::ConsistentHash => "consistent-hash",
            BalanceBy::Failover => "failover",
        }
    }
}

impl Decode for BalanceBy {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        word(node, trail, report, &BalanceBy::ALL.map(|by| (by.as_str(), by)), &[])
    }

    fn shape() -> Shape {
        Shape::Words(BalanceBy::ALL.map(BalanceBy::as_str).to_vec())
    }
}

/// How a server is chosen: in a word, or in detail.
#[derive(Clone, Debug)]
pub(in crate::config) enum BalanceChoice {
    By(BalanceBy),
    Keys(Box<Balance>),
}

impl Decode for BalanceChoice {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match node.value {
            Value::Map(_) => Balance::decode(node, trail, report).map(|keys| BalanceChoice::Keys(Box::new(keys))),
            _ => BalanceBy::decode(node, trail, report).map(BalanceChoice::By),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![BalanceBy::shape(), Balance::shape()])
    }
}

const HASH_WORDS: [&str; 3] = ["cache-key", "path", "client-ip"];

/// What chooses a server by its hash.
#[derive(Clone, Debug)]
pub(in crate::config) struct HashChoice(pub HashKey);

impl Decode for HashChoice {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            return word(node, trail, report, &HASH_WORDS.map(|word| (word, word)), &[]).map(|word| match word {
                "path" => HashChoice(HashKey::Path),
                "client-ip" => HashChoice(HashKey::ClientIp),
                _ => HashChoice(HashKey::CacheKey),
            });
        };
        let source = HashSource::decode(node, trail, report)?;
        let given = |name: &str| entries.iter().any(|e| e.key == name);
        match (given("header"), given("cookie")) {
            (true, true) => report.error(&trail.place(node.mark), "`header` and `cookie` exclude each other"),
            (false, false) => report.error(&trail.place(node.mark), "the key `header` or `cookie` is missing"),
            // What is given and wrong has been reported.
            _ => {
                let header = source.header.map(|name| HashKey::Header(name.value.0));
                return header.or(source.cookie.map(|name| HashKey::Cookie(name.value.0))).map(HashChoice);
            }
        }
        None
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(HASH_WORDS.to_vec()), HashSource::shape()])
    }
}

/// The version of HTTP that servers are spoken to.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct HttpVersion(pub OriginHttp);

impl Decode for HttpVersion {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "auto" => return Some(HttpVersion(OriginHttp::Auto)),
            Value::Number(text) if text == "1" => return Some(HttpVersion(OriginHttp::Http1)),
            Value::Number(text) if text == "2" => return Some(HttpVersion(OriginHttp::Http2)),
            _ => {}
        }
        report.error(&trail.place(node.mark), format!("expected auto, 1 or 2, found {}", node.found()));
        None
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(vec!["auto"]), Shape::Number { min: 1, max: 2 }])
    }
}

impl Decode for ProxyProtocol {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        word(node, trail, report, &[("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)], &[])
    }

    fn shape() -> Shape {
        Shape::Words(vec!["v1", "v2"])
    }
}

/// A number without quotes is refused: YAML would take `1.20` for the same.
impl FromText for TlsVersion {
    const KIND: Kind =
        Kind { name: "`\"1.2\"` or `\"1.3\"`", expected: "\"1.2\" or \"1.3\"", pattern: r"^1\.[23]$", numbers: false };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "1.2" => Ok(TlsVersion::Tls12),
            "1.3" => Ok(TlsVersion::Tls13),
            _ => Err(Bad::Form),
        }
    }
}

/// A name, or an IP address, that a server's certificate is for.
#[derive(Clone, Debug)]
pub(in crate::config) struct ServerNameWord(pub String);

impl FromText for ServerNameWord {
    const KIND: Kind = Kind {
        name: "host name",
        expected: "a host name such as app.internal",
        pattern: "^[A-Za-z0-9._:-]+$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let name = match text.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => host_name(text)?,
        };
        match ServerName::try_from(name.as_str()) {
            Ok(_) => Ok(ServerNameWord(name)),
            Err(_) => Err(Bad::Form),
        }
    }
}
