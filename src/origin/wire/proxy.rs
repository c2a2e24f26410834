//! The PROXY protocol: what tells a server who the client is, before anything else on a connection.
//!
//! As specified by HAProxy (proxy-protocol.txt, §2.1 and §2.2).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::model::ProxyProtocol;

/// Both ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    pub client: SocketAddr,
    /// What the client has connected to.
    pub local: SocketAddr,
}

/// Begins every header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and the commands.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Address families over TCP.
const UNSPEC: u8 = 0x00;
const INET: u8 = 0x11;
const INET6: u8 = 0x21;

/// The header of a connection; `None`: it is made on nobody's behalf, such as a health check's.
pub(super) fn header(version: ProxyProtocol, proxied: Option<&Proxied>) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => text(proxied),
        ProxyProtocol::V2 => binary(proxied),
    }
}

fn text(proxied: Option<&Proxied>) -> Vec<u8> {
    let Some(Proxied { client, local }) = proxied else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let (from, to) = (client.port(), local.port());
    match alike(client.ip(), local.ip()) {
        (client @ IpAddr::V4(_), local) => format!("PROXY TCP4 {client} {local} {from} {to}\r\n"),
        (client, local) => format!("PROXY TCP6 {client} {local} {from} {to}\r\n"),
    }
    .into_bytes()
}

fn binary(proxied: Option<&Proxied>) -> Vec<u8> {
    let mut header = Vec::with_capacity(SIGNATURE.len() + 4 + 36);
    header.extend_from_slice(&SIGNATURE);
    let Some(Proxied { client, local }) = proxied else {
        header.extend_from_slice(&[LOCAL, UNSPEC, 0, 0]);
        return header;
    };
    match alike(client.ip(), local.ip()) {
        (IpAddr::V4(client), IpAddr::V4(local)) => {
            header.extend_from_slice(&[PROXY, INET, 0, 12]);
            header.extend_from_slice(&client.octets());
            header.extend_from_slice(&local.octets());
        }
        (client, local) => {
            header.extend_from_slice(&[PROXY, INET6, 0, 36]);
            header.extend_from_slice(&six(client).octets());
            header.extend_from_slice(&six(local).octets());
        }
    }
    header.extend_from_slice(&client.port().to_be_bytes());
    header.extend_from_slice(&local.port().to_be_bytes());
    header
}

/// The two in one family: a header has a single one for both. An IPv4 address that a socket of both families has
/// written as IPv6 is IPv4 again.
fn alike(client: IpAddr, local: IpAddr) -> (IpAddr, IpAddr) {
    match (client.to_canonical(), local.to_canonical()) {
        both @ (IpAddr::V4(_), IpAddr::V4(_)) => both,
        (client, local) => (six(client).into(), six(local).into()),
    }
}

fn six(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(client: &str, local: &str) -> Proxied {
        Proxied { client: client.parse().unwrap(), local: local.parse().unwrap() }
    }

    #[test]
    fn version_1_is_a_line_of_text() {
        let cases = [
            (None, "PROXY UNKNOWN\r\n"),
            (Some(proxied("192.0.2.7:56324", "198.51.100.9:443")), "PROXY TCP4 192.0.2.7 198.51.100.9 56324 443\r\n"),
            (
                Some(proxied("[2001:db8::7]:56324", "[2001:db8::1]:443")),
                "PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n",
            ),
            (Some(proxied("192.0.2.7:1", "[2001:db8::1]:2")), "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n"),
            // A socket that listens for both families.
            (
                Some(proxied("[::ffff:192.0.2.7]:1", "[::ffff:198.51.100.9]:2")),
                "PROXY TCP4 192.0.2.7 198.51.100.9 1 2\r\n",
            ),
        ];
        for (proxied, expected) in cases {
            let header = header(ProxyProtocol::V1, proxied.as_ref());
            assert_eq!(String::from_utf8(header).unwrap(), expected);
            assert!(expected.len() <= 107, "the longest that the specification allows");
        }
    }

    #[test]
    fn version_2_is_binary() {
        let signature = *b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A";
        let cases: [(Option<Proxied>, Vec<u8>); 4] = [
            (None, vec![0x20, 0x00, 0, 0]),
            (
                Some(proxied("192.0.2.7:258", "198.51.100.9:443")),
                vec![0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 9, 1, 2, 1, 187],
            ),
            (Some(proxied("[2001:db8::7]:258", "[2001:db8::1]:443")), {
                let mut bytes = vec![0x21, 0x21, 0, 36];
                bytes.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
                bytes.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
                bytes.extend([1, 2, 1, 187]);
                bytes
            }),
            (Some(proxied("[2001:db8::7]:258", "198.51.100.9:443")), {
                let mut bytes = vec![0x21, 0x21, 0, 36];
                bytes.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
                bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 9]);
                bytes.extend([1, 2, 1, 187]);
                bytes
            }),
        ];
        for (proxied, expected) in cases {
            let header = header(ProxyProtocol::V2, proxied.as_ref());
            assert_eq!(header.get(..12), Some(&signature[..]));
            assert_eq!(header.get(12..), Some(&expected[..]), "{proxied:?}");
        }
    }
}
