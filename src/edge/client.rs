//! Who the client is, and what its forwarding fields are worth.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use smallvec::SmallVec;

/// The client as seen through trusted proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Whose connection it is.
    pub peer: IpAddr,
    /// Who asks: the peer, or the last address in X-Forwarded-For that is not a trusted proxy's.
    pub address: IpAddr,
    /// The peer is a trusted proxy: what it says of the request is believed.
    pub trusted: bool,
}

impl Client {
    /// Looks at X-Forwarded-For from right to left, for as long as it was written by trusted proxies.
    pub fn of(peer: SocketAddr, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> Client {
        let peer = peer.ip().to_canonical();
        let is_trusted = |address: &IpAddr| trusted_proxies.iter().any(|net| net.contains(address));
        if trusted_proxies.is_empty() || !is_trusted(&peer) {
            return Client { peer, address: peer, trusted: false };
        }
        let mut address = peer;
        // In bytes: what a client has put into the line that its proxy continues must not hide what the proxy says.
        let lines: SmallVec<[_; 4]> = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes).collect();
        let hops = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        // RFC 9110 §5.6.1.2: empty members are none.
        for hop in hops.filter(|hop| !hop.is_empty()) {
            let Some(hop) = str::from_utf8(hop).ok().and_then(parse) else { break };
            address = hop;
            if !is_trusted(&hop) {
                break;
            }
        }
        Client { peer, address, trusted: true }
    }
}

/// An address, perhaps with a port or in brackets.
fn parse(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|h| h.split(']').next()).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|a| a.ip())).map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, xff: &[&str], trusted: &[&str]) -> Client {
        let mut headers = HeaderMap::new();
        for line in xff {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|t| t.parse().unwrap()).collect();
        Client::of(format!("{peer}:5000").parse().unwrap(), &headers, &trusted)
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        let c = client("203.0.113.9", &["1.1.1.1"], &["10.0.0.0/8"]);
        assert_eq!((c.address.to_string().as_str(), c.trusted), ("203.0.113.9", false));
    }

    #[test]
    fn the_chain_is_read_from_the_right_across_lines() {
        let c = client("10.0.0.1", &["6.6.6.6, 1.1.1.1", "10.0.0.2"], &["10.0.0.0/8"]);
        assert_eq!((c.address.to_string().as_str(), c.trusted), ("1.1.1.1", true));
    }

    #[test]
    fn garbage_ends_the_chain_and_a_chain_of_proxies_yields_the_first() {
        assert_eq!(
            client("10.0.0.1", &["1.1.1.1, nonsense, 10.0.0.3"], &["10.0.0.0/8"]).address.to_string(),
            "10.0.0.3"
        );
        assert_eq!(client("10.0.0.1", &["10.0.0.9,10.0.0.8"], &["10.0.0.0/8"]).address.to_string(), "10.0.0.9");
        assert_eq!(client("10.0.0.1", &[], &["10.0.0.0/8"]).address.to_string(), "10.0.0.1");
    }

    #[test]
    fn what_a_client_has_begun_a_line_with_hides_nothing() {
        let of = |lines: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_bytes(line).unwrap());
            }
            let trusted = ["10.0.0.0/8".parse().unwrap()];
            Client::of("10.0.0.1:5000".parse().unwrap(), &headers, &trusted).address.to_string()
        };
        assert_eq!(of(&[b"\xff, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(of(&[b"10.9.9.9", b"10.8.8.8\xe9, 203.0.113.9, 10.0.0.2"]), "203.0.113.9");
        assert_eq!(of(&[b"10.9.9.9", b"\xff"]), "10.0.0.1");
        // An empty member is none.
        assert_eq!(of(&[b"10.9.9.9, 203.0.113.9, ,", b""]), "203.0.113.9");
    }

    #[test]
    fn ports_brackets_and_mapped_addresses() {
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:443"], &["10.0.0.0/8"]).address.to_string(), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7:1234"], &["10.0.0.0/8"]).address.to_string(), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["::ffff:198.51.100.7"], &["10.0.0.0/8"]).address.to_string(), "198.51.100.7");
    }
}
