//! Names of servers: resolved without blocking a worker, and again as their TTL ends.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::time::{sleep, timeout};

use super::member::SlotState;

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
pub(super) struct Answer {
    /// Sorted, without duplicates, at least one.
    pub(super) addresses: Vec<IpAddr>,
    /// From 1 s to 5 min.
    pub(super) ttl: Duration,
}

/// Resolves `host` until the task is dropped, and hands over each outcome's addresses: `None` for a failure, after
/// which the last good answer stays in force. A failure is logged once, and so is the recovery.
pub(super) async fn follow(origin: &str, slot: &SlotState, host: &str, mut outcome: impl FnMut(Option<&[IpAddr]>)) {
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
pub(super) async fn lookup(host: &str) -> Result<Answer, String> {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = literal.parse() {
        return Ok(Answer { addresses: vec![address], ttl: MAX_TTL });
    }
    match timeout(LOOKUP_LIMIT, lookup_name(host)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {LOOKUP_LIMIT:?}")),
    }
}

async fn lookup_name(host: &str) -> Result<Answer, String> {
    match lookup_family(host, LookupIpStrategy::Ipv4Only).await {
        // Only where there is none: an IPv4 lookup that fails must not switch the family for a while.
        Err(Failed::NoRecords(_)) => lookup_family(host, LookupIpStrategy::Ipv6Only).await,
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

async fn lookup_family(host: &str, family: LookupIpStrategy) -> Result<Answer, Failed> {
    // Made anew each time, so that changes of the two files take effect; reading them is blocking.
    let resolver = match tokio::task::spawn_blocking(move || system_resolver(family)).await {
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
    use super::*;

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
