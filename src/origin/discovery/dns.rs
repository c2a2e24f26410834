//! Addresses of names (A and AAAA).

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::resolver::{Failed, Family, MAX_TTL, Resolver};
use super::{Answer, Resolved};

/// The whole of one resolution, all name servers and search domains included.
pub(super) const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// Of a name's addresses, the first so many (in their own order) are used.
const MAX_ADDRESSES: usize = 64;

/// Resolves a name once. IP literals and `localhost` need no name server.
///
/// A name with IPv4 addresses is used over IPv4 alone: the two families mostly lead to the same machines, which
/// would then count twice, and many hosts have IPv6 addresses without a way to reach others.
///
/// # Errors
/// A sentence for the operator: there is no such name, or nobody answers.
pub(in crate::origin) async fn lookup(host: &str, resolver: &Resolver) -> Result<Resolved, String> {
    let (addresses, ttl) = addresses(host, resolver).await?;
    Ok(Resolved { answer: Answer::Addresses(addresses), ttl, trouble: None })
}

/// The addresses of a name, in order and at least one, and how long they hold.
pub(super) async fn addresses(host: &str, resolver: &Resolver) -> Result<(Vec<IpAddr>, Duration), String> {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = literal.parse() {
        return Ok((vec![address], MAX_TTL));
    }
    match timeout(LOOKUP_LIMIT, addresses_of_name(host, resolver)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {LOOKUP_LIMIT:?}")),
    }
}

async fn addresses_of_name(host: &str, resolver: &Resolver) -> Result<(Vec<IpAddr>, Duration), String> {
    match family(host, Family::Ipv4, resolver).await {
        // Only where there is none: an IPv4 lookup that fails must not switch the family for a while.
        Err(Failed::NoRecords(_)) => family(host, Family::Ipv6, resolver).await,
        outcome => outcome,
    }
    .map_err(|failed| match failed {
        Failed::NoRecords(reason) | Failed::Other(reason) => reason,
    })
}

async fn family(host: &str, family: Family, resolver: &Resolver) -> Result<(Vec<IpAddr>, Duration), Failed> {
    let (addresses, ttl) = resolver.addresses(host, family).await?;
    let addresses = in_order(addresses);
    if addresses.is_empty() {
        return Err(Failed::NoRecords("it has no address".to_owned()));
    }
    Ok((addresses, ttl))
}

/// Name servers rotate their answers: sorted, the same addresses are the same answer.
fn in_order(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::ResponseCode;

    use super::*;
    use crate::origin::discovery::resolver::MIN_TTL;
    use crate::origin::discovery::script::{NameServer, Script};

    /// What a name server that answers so leads to.
    async fn ask(
        a: Result<&[&str], ResponseCode>,
        aaaa: Result<&[&str], ResponseCode>,
        ttl: u32,
    ) -> Result<(Vec<IpAddr>, Duration), String> {
        let server = NameServer::start(Script::default().ttl(ttl).a("origin.test", a).aaaa("origin.test", aaaa)).await;
        addresses("origin.test.", &server.resolver()).await
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn ipv4_is_used_alone_where_there_is_any() {
        let (addresses, ttl) = ask(Ok(&["10.0.0.2", "10.0.0.1"]), Ok(&["2001:db8::1"]), 100).await.unwrap();
        assert_eq!(addresses, ips(&["10.0.0.1", "10.0.0.2"]));
        assert!(ttl > Duration::from_secs(50) && ttl <= Duration::from_secs(100), "{ttl:?}");
    }

    #[tokio::test]
    async fn ipv6_is_used_where_there_is_no_ipv4() {
        let (addresses, _) = ask(Ok(&[]), Ok(&["2001:db8::1"]), 100).await.unwrap();
        assert_eq!(addresses, ips(&["2001:db8::1"]));
    }

    #[tokio::test]
    async fn a_failing_name_server_does_not_switch_the_family() {
        assert!(ask(Err(ResponseCode::ServFail), Ok(&["2001:db8::1"]), 100).await.is_err());
        assert!(ask(Ok(&[]), Ok(&[]), 100).await.is_err());
    }

    #[tokio::test]
    async fn the_ttl_has_bounds() {
        for (ttl, expected) in [(0, MIN_TTL), (86_400, MAX_TTL)] {
            assert_eq!(ask(Ok(&["10.0.0.1"]), Ok(&[]), ttl).await.unwrap().1, expected);
        }
    }

    #[tokio::test]
    async fn literals_are_their_own_answer() {
        let resolver = Resolver::system().await.unwrap();
        for (host, address) in [("192.0.2.1", "192.0.2.1"), ("::1", "::1"), ("[2001:db8::1]", "2001:db8::1")] {
            let (addresses, _) = addresses(host, &resolver).await.unwrap();
            assert_eq!(addresses, [address.parse::<IpAddr>().unwrap()], "{host}");
        }
    }

    #[tokio::test]
    async fn localhost_needs_no_network() {
        let (addresses, ttl) = addresses("localhost", &Resolver::system().await.unwrap()).await.unwrap();
        assert!(addresses.contains(&IpAddr::from([127, 0, 0, 1])), "{addresses:?}");
        assert!(addresses.iter().all(IpAddr::is_ipv4), "{addresses:?}");
        assert!((MIN_TTL..=MAX_TTL).contains(&ttl), "{ttl:?}");
    }

    #[tokio::test]
    async fn what_cannot_exist_is_an_error() {
        let resolver = Resolver::system().await.unwrap();
        // RFC 6761 §6.4: answered without asking anyone.
        assert!(addresses("name.invalid.", &resolver).await.is_err());
        assert!(addresses("a..b", &resolver).await.is_err());
    }

    #[test]
    fn answers_are_in_order_and_bounded() {
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        assert_eq!(in_order(vec![ip(3), ip(1), ip(3), ip(2)]), [ip(1), ip(2), ip(3)]);
        assert_eq!(in_order((0..=255).map(ip).collect()).len(), MAX_ADDRESSES);
    }
}
