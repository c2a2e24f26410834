//! Services of names: SRV records (RFC 2782).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::rr::rdata::SRV;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::dns::{self, LOOKUP_LIMIT};
use super::resolver::{Failed, Resolver};
use super::{Answer, Found, MAX_SERVERS, MAX_TIER, Resolved};
use crate::config::model::Server;

/// The highest weight of a server.
const MAX_WEIGHT: usize = 256;
/// Targets that are resolved at once: a service of many must not flood the name servers.
const AT_ONCE: usize = 16;

/// One record, and what its target resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::origin) struct Target {
    /// In lower case, without the dot at its end.
    pub(in crate::origin) host: String,
    pub(in crate::origin) port: u16,
    /// 1 to 256.
    pub(in crate::origin) weight: usize,
    /// 0 for the lowest priority of the answer, 1 for the next, and so on, up to 15.
    pub(in crate::origin) rank: u8,
    pub(in crate::origin) addresses: Vec<IpAddr>,
}

impl Target {
    /// The record's weight is used as it is, but an entry of weight 0 drains all that it leads to.
    pub(super) fn servers(&self, entry: &Server) -> impl Iterator<Item = Found> {
        let weight = if entry.weight == 0 { 0 } else { self.weight };
        let tier = entry.tier.saturating_add(self.rank).min(MAX_TIER);
        self.addresses.iter().map(move |ip| Found {
            endpoint: SocketAddr::new(*ip, self.port).into(),
            text: format!("{}:{}", self.host, self.port),
            weight,
            tier,
        })
    }
}

/// Asks for the SRV records of `name` once, and for the addresses of their targets. A target that cannot be resolved
/// keeps the addresses that it has in `previous`.
///
/// # Errors
/// A sentence for the operator: there are no such records, nobody answers, or no target has an address.
pub(in crate::origin) async fn lookup(
    name: &str,
    previous: &[Target],
    resolver: &Resolver,
) -> Result<Resolved, String> {
    let (records, mut ttl) = match timeout(LOOKUP_LIMIT, resolver.services(name)).await {
        Ok(Ok(found)) => found,
        Ok(Err(Failed::NoRecords(reason) | Failed::Other(reason))) => return Err(reason),
        Err(_) => return Err(format!("no answer within {LOOKUP_LIMIT:?}")),
    };
    if records.is_empty() {
        return Err("it has no SRV records".to_owned());
    }
    let (mut targets, mut troubles) = targets(&records);
    let addresses = resolve(&targets, resolver).await;
    for target in &mut targets {
        match addresses.get(&target.host) {
            Some(Ok((addresses, holds))) => {
                ttl = ttl.min(*holds);
                target.addresses.clone_from(addresses);
            }
            failed => {
                let reason = failed.and_then(|failed| failed.as_ref().err());
                let reason = reason.map_or_else(|| format!("no answer within {LOOKUP_LIMIT:?}"), String::clone);
                troubles.push(format!("{}: {reason}", target.host));
                let before = previous.iter().find(|known| known.host == target.host);
                target.addresses = before.map(|known| known.addresses.clone()).unwrap_or_default();
            }
        }
    }
    troubles.sort_unstable();
    troubles.dedup();
    let trouble = (!troubles.is_empty()).then(|| summary(&troubles));
    targets.retain(|target| !target.addresses.is_empty());
    match trouble {
        Some(trouble) if targets.is_empty() => Err(trouble),
        trouble => Ok(Resolved { answer: Answer::Targets(targets), ttl, trouble }),
    }
}

/// The records as targets still to be resolved, in order, and what is wrong with the others. A target of `.` says that
/// there is none.
fn targets(records: &[SRV]) -> (Vec<Target>, Vec<String>) {
    let mut troubles = Vec::new();
    let mut usable: Vec<(u16, String, u16, u16)> = Vec::with_capacity(records.len());
    for record in records.iter().filter(|record| !record.target.is_root()) {
        let host = record.target.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        // What is logged, labels metrics and may become Host or a certificate's name.
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            troubles.push(format!("{}: not the name of a host", host.escape_default()));
        } else if record.port == 0 {
            troubles.push(format!("{host}: its port is 0"));
        } else {
            usable.push((record.priority, host, record.port, record.weight));
        }
    }
    // Name servers rotate their answers. Of a host and port that come twice, the lowest priority counts.
    usable.sort_unstable();
    let mut seen = HashSet::new();
    usable.retain(|(_, host, port, _)| seen.insert((host.clone(), *port)));
    if usable.len() > MAX_SERVERS {
        troubles.push(format!("{} records are too many: {MAX_SERVERS} are used", usable.len()));
        usable.truncate(MAX_SERVERS);
    }
    let mut heaviest: BTreeMap<u16, u16> = BTreeMap::new();
    for (priority, .., weight) in &usable {
        let most = heaviest.entry(*priority).or_default();
        *most = (*most).max(*weight);
    }
    let ranks: HashMap<u16, (u8, u16)> = heaviest
        .into_iter()
        .enumerate()
        .map(|(rank, (priority, most))| (priority, (u8::try_from(rank).unwrap_or(MAX_TIER).min(MAX_TIER), most)))
        .collect();
    let target = |(priority, host, port, weight): (u16, String, u16, u16)| {
        let (rank, most) = ranks.get(&priority).copied().unwrap_or_default();
        Target { host, port, weight: scaled(weight, most), rank, addresses: Vec::new() }
    };
    (usable.into_iter().map(target).collect(), troubles)
}

/// Weights mean something beside those of the same priority only: where the heaviest of them is above what a server
/// may have, all are scaled down. None becomes 0, which here would be no share at all, and there is a small one.
fn scaled(weight: u16, heaviest: u16) -> usize {
    let (weight, heaviest) = (usize::from(weight), usize::from(heaviest));
    let scaled = if heaviest > MAX_WEIGHT { weight * MAX_WEIGHT / heaviest } else { weight };
    scaled.clamp(1, MAX_WEIGHT)
}

/// What became of a host.
type Outcome = Result<(Vec<IpAddr>, Duration), String>;

/// Resolves each target's host once. Who has no entry has not answered in time.
async fn resolve(targets: &[Target], resolver: &Resolver) -> HashMap<String, Outcome> {
    let mut hosts: Vec<&str> = targets.iter().map(|target| target.host.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let (mut waiting, mut asked, mut outcomes) = (hosts.into_iter(), JoinSet::new(), HashMap::new());
    let mut ask = |asked: &mut JoinSet<(String, Outcome)>| {
        if let Some(host) = waiting.next() {
            let (host, resolver) = (host.to_owned(), resolver.clone());
            asked.spawn(async move {
                // With its dot: a target is a whole name, to which no search domain is added.
                let outcome = dns::addresses(&format!("{host}."), &resolver).await;
                (host, outcome)
            });
        }
    };
    (0..AT_ONCE).for_each(|_| ask(&mut asked));
    let deadline = Instant::now() + LOOKUP_LIMIT;
    while let Ok(Some(done)) = timeout_at(deadline, asked.join_next()).await {
        if let Ok((host, outcome)) = done {
            outcomes.insert(host, outcome);
        }
        ask(&mut asked);
    }
    outcomes
}

/// Bounded: a message for the operator, not a list.
fn summary(troubles: &[String]) -> String {
    const NAMED: usize = 5;
    let mut text = troubles.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    if troubles.len() > NAMED {
        text.push_str(&format!("; and {} more", troubles.len() - NAMED));
    }
    text
}

#[cfg(test)]
mod tests;
