//! Names of servers: resolved without blocking a worker, and again as their TTL ends.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::time::{sleep, timeout};

use crate::origin::member::SlotState;

/// A TTL below this would ask the name servers without pause, and 0 is common.
const MIN_TTL: Duration = Duration::from_secs(1);
/// A TTL above this would hide a change for too long; /etc/hosts has none at all.
const MAX_TTL: Duration = Duration::from_secs(300);
/// The first retry after a failure; each further one waits twice as long.
const MIN_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// The whole of one resolution, all name servers and search domains included.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// Of a name's addresses, the first so many (in their own order) are used.
const MAX_ADDRESSES: usize = 64;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::origin) struct Answer {
    /// Sorted, without duplicates, at least one.
    pub(in crate::origin) addresses: Vec<IpAddr>,
    /// From 1 s to 5 min.
    pub(in crate::origin) ttl: Duration,
}

/// Resolves `host` until the task is dropped, and hands over each outcome's addresses: `None` for a failure, after
/// which the last good answer stays in force. A failure is logged once, and so is the recovery.
pub(in crate::origin) async fn follow(
    origin: &str,
    slot: &SlotState,
    host: &str,
    mut outcome: impl FnMut(Option<&[IpAddr]>),
) {
    let mut failures = 0;
    loop {
        let pause = match lookup(host).await {
            Ok(answer) => {
                if failures > 0 {
                    log::info!("origin {origin}: {host} resolves again");
                }
                failures = 0;
                slot.unresolved.set(None);
                outcome(Some(&answer.addresses));
                answer.ttl
            }
            Err(reason) => {
                if failures == 0 {
                    log::warn!("origin {origin}: {host} cannot be resolved: {reason}");
                }
                failures += 1;
                slot.unresolved.set(Some(format!("cannot be resolved: {reason}")));
                outcome(None);
                retry_after(failures)
            }
        };
        sleep(pause).await;
    }
}

/// Resolves a name once, by /etc/hosts and the name servers of /etc/resolv.conf. IP literals and `localhost` need
/// neither.
///
/// A name with IPv4 addresses is used over IPv4 alone: the two families mostly lead to the same machines, which
/// would then count twice, and many hosts have IPv6 addresses without a way to reach others.
pub(in crate::origin) async fn lookup(host: &str) -> Result<Answer, String> {
    lookup_by(host, system_resolver).await
}

/// Makes a resolver for one family of addresses; blocking.
trait MakeResolver: Fn(LookupIpStrategy) -> Result<TokioResolver, NetError> + Clone + Send + 'static {}

impl<T> MakeResolver for T where T: Fn(LookupIpStrategy) -> Result<TokioResolver, NetError> + Clone + Send + 'static {}

async fn lookup_by(host: &str, resolver: impl MakeResolver) -> Result<Answer, String> {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = literal.parse() {
        return Ok(Answer { addresses: vec![address], ttl: MAX_TTL });
    }
    match timeout(LOOKUP_LIMIT, lookup_name(host, resolver)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {LOOKUP_LIMIT:?}")),
    }
}

async fn lookup_name(host: &str, resolver: impl MakeResolver) -> Result<Answer, String> {
    match lookup_family(host, LookupIpStrategy::Ipv4Only, resolver.clone()).await {
        // Only where there is none: an IPv4 lookup that fails must not switch the family for a while.
        Err(Failed::NoRecords(_)) => lookup_family(host, LookupIpStrategy::Ipv6Only, resolver).await,
        outcome => outcome,
    }
    .map_err(|failed| match failed {
        Failed::NoRecords(reason) | Failed::Other(reason) => reason,
    })
}

enum Failed {
    NoRecords(String),
    Other(String),
}

async fn lookup_family(host: &str, family: LookupIpStrategy, resolver: impl MakeResolver) -> Result<Answer, Failed> {
    // Made anew each time, so that changes of the two files take effect; reading them is blocking.
    let resolver = match tokio::task::spawn_blocking(move || resolver(family)).await {
        Ok(Ok(resolver)) => resolver,
        Ok(Err(error)) => return Err(Failed::Other(format!("the resolver cannot be set up: {error}"))),
        Err(error) => return Err(Failed::Other(format!("the resolver cannot be set up: {error}"))),
    };
    let found = resolver.lookup_ip(host).await.map_err(|error| {
        let reason = error.to_string();
        if error.is_no_records_found() { Failed::NoRecords(reason) } else { Failed::Other(reason) }
    })?;
    let addresses = in_order(found.iter());
    if addresses.is_empty() {
        return Err(Failed::NoRecords("it has no address".to_owned()));
    }
    let ttl = found.valid_until().saturating_duration_since(Instant::now()).clamp(MIN_TTL, MAX_TTL);
    Ok(Answer { addresses, ttl })
}

fn system_resolver(family: LookupIpStrategy) -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        // Without name servers, /etc/hosts and `localhost` still work.
        log::debug!("no name servers: {error}");
        TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
    });
    builder.options_mut().ip_strategy = family;
    builder.build()
}

/// Name servers rotate their answers: sorted, the same addresses are the same answer.
fn in_order(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

fn retry_after(failures: u32) -> Duration {
    MIN_RETRY.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(MAX_RETRY)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::{RData, Record, RecordType};
    use tokio::net::UdpSocket;

    use super::*;

    /// A name server that knows by heart: what it says about the A and the AAAA records of any name.
    struct Script {
        a: Result<&'static [&'static str], ResponseCode>,
        aaaa: Result<&'static [&'static str], ResponseCode>,
        ttl: u32,
    }

    async fn name_server(script: Script) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut packet = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut packet).await {
                let asked = Message::from_vec(&packet[..length]).unwrap();
                let query = asked.queries[0].clone();
                let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
                match if query.query_type() == RecordType::A { script.a } else { script.aaaa } {
                    Ok(addresses) => answer.add_answers(addresses.iter().map(|address| {
                        let address: IpAddr = address.parse().unwrap();
                        Record::from_rdata(query.name().clone(), script.ttl, RData::from(address))
                    })),
                    Err(code) => {
                        answer.metadata.response_code = code;
                        &mut answer
                    }
                };
                answer.add_query(query);
                socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
            }
        });
        addr
    }

    async fn ask(script: Script) -> Result<Answer, String> {
        let server = name_server(script).await;
        lookup_by("origin.test.", move |family| {
            let mut connection = ConnectionConfig::udp();
            connection.port = server.port();
            let server = NameServerConfig::new(server.ip(), true, vec![connection]);
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.options_mut().ip_strategy = family;
            builder.build()
        })
        .await
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn ipv4_is_used_alone_where_there_is_any() {
        let answer = ask(Script { a: Ok(&["10.0.0.2", "10.0.0.1"]), aaaa: Ok(&["2001:db8::1"]), ttl: 100 }).await;
        let answer = answer.unwrap();
        assert_eq!(answer.addresses, addresses(&["10.0.0.1", "10.0.0.2"]));
        assert!(answer.ttl > Duration::from_secs(50) && answer.ttl <= Duration::from_secs(100), "{answer:?}");
    }

    #[tokio::test]
    async fn ipv6_is_used_where_there_is_no_ipv4() {
        let answer = ask(Script { a: Ok(&[]), aaaa: Ok(&["2001:db8::1"]), ttl: 100 }).await.unwrap();
        assert_eq!(answer.addresses, addresses(&["2001:db8::1"]));
    }

    #[tokio::test]
    async fn a_failing_name_server_does_not_switch_the_family() {
        let script = Script { a: Err(ResponseCode::ServFail), aaaa: Ok(&["2001:db8::1"]), ttl: 100 };
        assert!(ask(script).await.is_err());
        assert!(ask(Script { a: Ok(&[]), aaaa: Ok(&[]), ttl: 100 }).await.is_err());
    }

    #[tokio::test]
    async fn the_ttl_has_bounds() {
        for (ttl, expected) in [(0, MIN_TTL), (86_400, MAX_TTL)] {
            let answer = ask(Script { a: Ok(&["10.0.0.1"]), aaaa: Ok(&[]), ttl }).await.unwrap();
            assert_eq!(answer.ttl, expected);
        }
    }

    #[tokio::test]
    async fn literals_are_their_own_answer() {
        for (host, address) in [("192.0.2.1", "192.0.2.1"), ("::1", "::1"), ("[2001:db8::1]", "2001:db8::1")] {
            let answer = lookup(host).await.unwrap();
            assert_eq!(answer.addresses, [address.parse::<IpAddr>().unwrap()], "{host}");
        }
    }

    #[tokio::test]
    async fn localhost_needs_no_network() {
        let answer = lookup("localhost").await.unwrap();
        assert!(answer.addresses.contains(&IpAddr::from([127, 0, 0, 1])), "{answer:?}");
        assert!(answer.addresses.iter().all(IpAddr::is_ipv4), "{answer:?}");
        assert!((MIN_TTL..=MAX_TTL).contains(&answer.ttl), "{answer:?}");
    }

    #[tokio::test]
    async fn what_cannot_exist_is_an_error() {
        // RFC 6761 §6.4: answered without asking anyone.
        assert!(lookup("name.invalid.").await.is_err());
        assert!(lookup("a..b").await.is_err());
    }

    #[test]
    fn answers_are_in_order_and_bounded() {
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        assert_eq!(in_order([ip(3), ip(1), ip(3), ip(2)].into_iter()), [ip(1), ip(2), ip(3)]);
        assert_eq!(in_order((0..=255).map(ip)).len(), MAX_ADDRESSES);
    }

    #[test]
    fn retries_become_rarer() {
        let seconds: Vec<u64> = (1..8).map(|failures| retry_after(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(retry_after(u32::MAX), MAX_RETRY);
    }
}
