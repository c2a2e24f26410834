//! How many connections each client has: a bound on what one address may take of `limits.connections`.
//!
//! Counted by the address that limits count by ([`client_network`]): whole networks are one client's over IPv6. There are
//! as many entries as there are addresses with an open connection, and no more.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::config::model::{Config, client_network};

/// Independent tables, so that connections that open and close at once seldom meet at a lock.
const SHARDS: usize = 64;

/// Below this, a table is not worth shrinking.
const SMALL: usize = 64;

/// The connections of all clients. Those of trusted proxies are of many clients, and not counted.
pub struct Crowd {
    /// 0: no limit. They are counted all the same, since a reload may bring one.
    limit: AtomicUsize,
    trusted: ArcSwap<Vec<IpNet>>,
    /// Keyed by the process's own secret: nobody can choose addresses that meet in one table.
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<IpAddr, u32>>>,
}

/// A connection that is counted, for as long as this lives.
#[must_use = "the connection is counted only while this lives"]
pub struct Present {
    /// `None`: it is a trusted proxy's.
    counted: Option<(Arc<Crowd>, IpAddr)>,
}

impl Crowd {
    /// With this configuration's limits.
    pub fn new(config: &Config) -> Arc<Crowd> {
        let crowd = Crowd {
            limit: AtomicUsize::new(0),
            trusted: ArcSwap::default(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        };
        crowd.set_limits(config);
        Arc::new(crowd)
    }

    /// Another configuration's limits, for connections that come from now on.
    pub fn set_limits(&self, config: &Config) {
        self.set(config.limits.connections_per_address, &config.trusted_proxies);
    }

    fn set(&self, limit: Option<usize>, trusted: &[IpNet]) {
        self.limit.store(limit.unwrap_or(0), Ordering::Relaxed);
        self.trusted.store(Arc::new(trusted.to_vec()));
    }

    /// Counts a connection from this address: the peer's, or the client's that a PROXY header names. `None`: it has as many
    /// as it may.
    pub fn enter(self: &Arc<Crowd>, address: IpAddr) -> Option<Present> {
        let address = address.to_canonical();
        if self.trusted.load().iter().any(|network| network.contains(&address)) {
            return Some(Present { counted: None });
        }
        let client = client_network(address);
        let limit = self.limit.load(Ordering::Relaxed);
        {
            let mut shard = self.shard(&client);
            let present = shard.get(&client).copied().unwrap_or(0);
            if limit > 0 && present as usize >= limit {
                return None;
            }
            shard.insert(client, present.saturating_add(1));
        }
        Some(Present { counted: Some((self.clone(), client)) })
    }

    fn leave(&self, client: &IpAddr) {
        let mut shard = self.shard(client);
        let Some(present) = shard.get_mut(client) else { return };
        *present -= 1;
        if *present == 0 {
            shard.remove(client);
            // What an attack has made of it is given back.
            if shard.capacity() > SMALL && shard.len() < shard.capacity() / 8 {
                shard.shrink_to(SMALL);
            }
        }
    }

    fn shard(&self, client: &IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let at = self.hasher.hash_one(client) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        if let Some((crowd, client)) = &self.counted {
            crowd.leave(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(limit: Option<usize>, trusted: &[&str]) -> Arc<Crowd> {
        let crowd = Crowd {
            limit: AtomicUsize::new(0),
            trusted: ArcSwap::default(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        };
        let trusted: Vec<_> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        crowd.set(limit, &trusted);
        Arc::new(crowd)
    }

    fn counted(crowd: &Crowd) -> usize {
        crowd.shards.iter().map(|shard| shard.lock().unwrap().values().map(|n| *n as usize).sum::<usize>()).sum()
    }

    fn enter(crowd: &Arc<Crowd>, address: &str) -> Option<Present> {
        crowd.enter(address.parse().unwrap())
    }

    #[test]
    fn each_client_has_so_many() {
        let crowd = crowd(Some(2), &[]);
        let first = enter(&crowd, "192.0.2.1");
        // The same client, as a socket for both families has it.
        let second = enter(&crowd, "::ffff:192.0.2.1");
        assert!(first.is_some() && second.is_some());
        assert!(enter(&crowd, "192.0.2.1").is_none());
        let other = enter(&crowd, "192.0.2.2");
        assert!(other.is_some());
        drop(first);
        assert!(enter(&crowd, "192.0.2.1").is_some());
        drop((second, other));
        assert_eq!(counted(&crowd), 0);
        assert!(crowd.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let crowd = crowd(Some(1), &[]);
        let one = enter(&crowd, "2001:db8:0:1::1");
        assert!(one.is_some());
        assert!(enter(&crowd, "2001:db8:0:1:ffff::2").is_none());
        assert!(enter(&crowd, "2001:db8:0:2::1").is_some());
    }

    #[test]
    fn proxies_are_not_counted() {
        let crowd = crowd(Some(1), &["10.0.0.0/8", "2001:db8::/32"]);
        let all: Vec<_> = ["10.0.0.1", "10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "2001:db8::1"]
            .iter()
            .map(|address| enter(&crowd, address))
            .collect();
        assert!(all.iter().all(Option::is_some));
        assert_eq!(counted(&crowd), 0);
        // One that is trusted no more is still not counted, and what has been counted leaves as it came.
        let one = enter(&crowd, "192.0.2.1");
        crowd.set(Some(1), &["192.0.2.0/24".parse().unwrap()]);
        drop(all);
        assert_eq!(counted(&crowd), 1);
        drop(one);
        assert_eq!(counted(&crowd), 0);
    }

    #[test]
    fn a_limit_that_comes_later_counts_those_before() {
        let crowd = crowd(None, &[]);
        let all: Vec<_> = (0..3).map(|_| enter(&crowd, "192.0.2.1")).collect();
        assert!(all.iter().all(Option::is_some));
        crowd.set(Some(3), &[]);
        assert!(enter(&crowd, "192.0.2.1").is_none());
    }

    #[test]
    fn what_many_clients_took_is_given_back() {
        let crowd = crowd(Some(1), &[]);
        let all: Vec<_> = (0..100_000u32).map(|n| crowd.enter(IpAddr::V4(n.into())).unwrap()).collect();
        assert_eq!(counted(&crowd), 100_000);
        drop(all);
        let capacity: usize = crowd.shards.iter().map(|shard| shard.lock().unwrap().capacity()).sum();
        assert!(capacity <= SHARDS * SMALL * 4, "{capacity}");
    }
}
