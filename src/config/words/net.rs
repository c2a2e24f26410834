//! Addresses and hosts.

use std::net::{Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::text::FilePath;
use crate::config::decode::{Bad, FromText, Kind};
use crate::config::model::{AdminAddress, HostHeader, HostPattern};
use crate::config::networks;
use crate::config::node::quote;

/// An address or a network.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Network(pub IpNet);

impl FromText for Network {
    const KIND: Kind = Kind {
        name: "IP address or network",
        expected: "an IP address or network such as 10.0.0.0/8",
        pattern: "^[0-9A-Fa-f.:]+(/[0-9]+)?$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        networks::network(text).map(Network).map_err(Bad::Because)
    }
}

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct ListenAddress(pub SocketAddr);

impl FromText for ListenAddress {
    const KIND: Kind = Kind {
        name: "IP address and port",
        expected: "an IP address and a port such as 0.0.0.0:8080 or [::]:8080",
        pattern: r"^([0-9.]+|\[[0-9A-Fa-f:.%]+\]):[0-9]+$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => Err(Bad::Because(format!("the port of {} is 0", quote(text)))),
            Ok(address) => Ok(ListenAddress(address)),
            Err(_) => Err(Bad::Form),
        }
    }
}

impl FromText for AdminAddress {
    const KIND: Kind = Kind {
        name: "IP address and port, or `unix:PATH`",
        expected: "an IP address and a port such as 127.0.0.1:9180, or unix:PATH",
        pattern: r"^(unix:.+|([0-9.]+|\[[0-9A-Fa-f:.%]+\]):[0-9]+)$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.strip_prefix("unix:") {
            Some(path) => FilePath::from_text(path).map(|path| AdminAddress::Unix(path.0)),
            None => ListenAddress::from_text(text).map(|address| AdminAddress::Tcp(address.0)),
        }
    }
}

impl FromText for HostPattern {
    const KIND: Kind = Kind {
        name: "host name, `*.` and a host name, or `*`",
        expected: "a host name such as www.example.com, *.example.com or *",
        pattern: r"^(\*|(\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.strip_prefix('*') {
            Some("") => Ok(HostPattern::Any),
            Some(rest) => match rest.strip_prefix('.') {
                Some(name) if !name.starts_with('[') => Ok(HostPattern::Wildcard(format!(".{}", host_name(name)?))),
                _ => Err(Bad::Because(format!("{}: a wildcard is `*` alone or `*.` before a name", quote(text)))),
            },
            None => host_name(text).map(HostPattern::Exact),
        }
    }
}

/// A host's name in lower case, without a trailing dot; or an IP address in its usual form.
pub(super) fn host_name(text: &str) -> Result<String, Bad> {
    let because = |what: &str| Err(Bad::Because(format!("{}: {what}", quote(text))));
    if let Some(inner) = text.strip_prefix('[') {
        return match inner.split_once(']') {
            Some((address, "")) => match address.parse::<Ipv6Addr>() {
                Ok(address) => Ok(format!("[{address}]")),
                Err(_) => Err(Bad::Form),
            },
            Some((address, port)) if port.starts_with(':') => {
                because(&format!("a host is named without its port; did you mean `[{address}]`?"))
            }
            _ => Err(Bad::Form),
        };
    }
    if let Some((_, rest)) = text.split_once("://") {
        let name = rest.split(['/', ':']).next().unwrap_or_default();
        return because(&format!("a host is named without a scheme; did you mean `{name}`?"));
    }
    if let Some((name, _)) = text.split_once('/') {
        return because(&format!("a host is named without a path; did you mean `{name}`?"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return because(&format!("an IPv6 address is written in brackets: `[{text}]`"));
    }
    if let Some((name, port)) = text.rsplit_once(':') {
        return if port.bytes().all(|b| b.is_ascii_digit()) {
            because(&format!("a host is named without its port; did you mean `{name}`?"))
        } else {
            Err(Bad::Form)
        };
    }
    if !text.is_ascii() {
        return because("an internationalised name is written in its ASCII form (`xn--…`)");
    }
    if text.contains('*') {
        return because("`*` stands only at the start, before a dot");
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(fits) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(Bad::Form);
    }
    Ok(name)
}

/// A name whose last label is a number is a mistaken IP address: no such name can be registered.
pub(super) fn looks_numeric(host: &str) -> bool {
    host.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()))
}

impl FromText for HostHeader {
    const KIND: Kind = Kind {
        name: "`client`, `server` or a host name",
        expected: "client, server or a host name",
        pattern: r"^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "client" => Ok(HostHeader::Client),
            "server" => Ok(HostHeader::Server),
            _ => authority(text).map(HostHeader::Fixed),
        }
    }
}

/// A host's name, with or without a port.
pub(super) fn authority(text: &str) -> Result<String, Bad> {
    if let Some((name, port)) = text.rsplit_once(':')
        && !name.contains("//")
        && !text.ends_with(']')
        && let Ok(port) = port.parse::<u16>()
        && port > 0
    {
        return Ok(format!("{}:{port}", host_name(name)?));
    }
    host_name(text)
}
