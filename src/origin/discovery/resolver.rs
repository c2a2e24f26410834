//! Who is asked what names mean: /etc/hosts and the name servers of /etc/resolv.conf.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};

/// A TTL below this would ask the name servers without pause, and 0 is common.
pub(super) const MIN_TTL: Duration = Duration::from_secs(1);
/// A TTL above this would hide a change for too long; /etc/hosts has none at all.
pub(super) const MAX_TTL: Duration = Duration::from_secs(300);

/// Names another name server than the system's, for tests: `address:port`. No part of release builds.
#[cfg(debug_assertions)]
const NAME_SERVER: &str = "FORELAND_NAME_SERVER";

/// Asks for as long as the two files say the same. Cheap to clone.
#[derive(Clone)]
pub(in crate::origin) struct Resolver {
    ipv4: TokioResolver,
    ipv6: TokioResolver,
}

/// Why there is no answer.
pub(super) enum Failed {
    /// It is certain that there are no such records.
    NoRecords(String),
    Other(String),
}

/// Addresses of one family.
#[derive(Clone, Copy)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

impl Resolver {
    /// Made anew for each round of questions, so that changes of the two files take effect.
    ///
    /// # Errors
    /// A sentence: one of the files makes no sense.
    pub(in crate::origin) async fn system() -> Result<Resolver, String> {
        // Reading the files is blocking.
        match tokio::task::spawn_blocking(|| Resolver::make(system_builder)).await {
            Ok(Ok(resolver)) => Ok(resolver),
            Ok(Err(error)) => Err(format!("the resolver cannot be set up: {error}")),
            Err(error) => Err(format!("the resolver cannot be set up: {error}")),
        }
    }

    fn make(builder: impl Fn() -> ResolverBuilder<TokioRuntimeProvider>) -> Result<Resolver, NetError> {
        let family = |strategy| {
            let mut builder = builder();
            builder.options_mut().ip_strategy = strategy;
            builder.build()
        };
        Ok(Resolver { ipv4: family(LookupIpStrategy::Ipv4Only)?, ipv6: family(LookupIpStrategy::Ipv6Only)? })
    }

    /// The addresses of a name in the order of the answer, and how long they hold.
    pub(super) async fn addresses(&self, host: &str, family: Family) -> Result<(Vec<IpAddr>, Duration), Failed> {
        let resolver = match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        };
        let found = resolver.lookup_ip(host).await.map_err(failed)?;
        Ok((found.iter().collect(), time_to(found.valid_until())))
    }

    /// The SRV records of a name, and how long they hold.
    pub(super) async fn services(&self, name: &str) -> Result<(Vec<SRV>, Duration), Failed> {
        let found = self.ipv4.lookup(name, RecordType::SRV).await.map_err(failed)?;
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv.clone()),
            _ => None,
        });
        Ok((records.collect(), time_to(found.valid_until())))
    }
}

fn failed(error: NetError) -> Failed {
    let reason = error.to_string();
    if error.is_no_records_found() { Failed::NoRecords(reason) } else { Failed::Other(reason) }
}

fn time_to(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).clamp(MIN_TTL, MAX_TTL)
}

fn system_builder() -> ResolverBuilder<TokioRuntimeProvider> {
    #[cfg(debug_assertions)]
    if let Some(server) = std::env::var(NAME_SERVER).ok().and_then(|address| address.parse().ok()) {
        return builder_asking(server);
    }
    TokioResolver::builder_tokio().unwrap_or_else(|error| {
        // Without name servers, /etc/hosts and `localhost` still work.
        log::debug!("no name servers: {error}");
        TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
    })
}

#[cfg(any(test, debug_assertions))]
fn builder_asking(server: std::net::SocketAddr) -> ResolverBuilder<TokioRuntimeProvider> {
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig};

    let mut connection = ConnectionConfig::udp();
    connection.port = server.port();
    let server = NameServerConfig::new(server.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
}

#[cfg(test)]
impl Resolver {
    pub(super) fn asking(server: std::net::SocketAddr) -> Resolver {
        Resolver::make(|| builder_asking(server)).unwrap()
    }
}
