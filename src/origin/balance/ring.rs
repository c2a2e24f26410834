//! Consistent hashing: each server has many points on a ring, and a hash belongs to the server whose point comes next.
//! A server that comes takes a share of each other's hashes, and a server that goes leaves its own to all the others.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};

use pingora_ketama::{Bucket, Continuum, DEFAULT_POINT_MULTIPLE};

use super::{Candidate, StableHash};
use crate::origin::endpoint::Endpoint;

/// Ketama's 160 points a weight leave shares that are off by 8% as a rule; four times as many, by 4%.
const UNITS: usize = 4;
/// Points of a whole ring, 8 bytes each. More are not worth their memory: beyond, all servers have fewer for their weight.
const MAX_POINTS: usize = 1 << 22;
/// The ring's own limit.
const MAX_SERVERS: usize = u16::MAX as usize;

/// The ring of a pool's servers. A server's points depend on its endpoint and its weight alone.
pub(in crate::origin) struct Ring {
    continuum: Continuum,
    positions: HashMap<SocketAddr, usize>,
    /// At least as many as there are points.
    points: usize,
}

/// Who can be chosen on the ring, and how much each of them takes.
#[derive(Clone, Copy, Debug)]
pub(in crate::origin) struct Reach<'a> {
    candidates: &'a [Candidate],
    bound: Option<u32>,
    /// Requests in flight and weights of all of them.
    active: u128,
    weight: u128,
}

impl Ring {
    /// Of servers with their positions and weights (0: it has no points).
    pub(in crate::origin) fn new<'a>(servers: impl Iterator<Item = (usize, &'a Endpoint, usize)> + Clone) -> Ring {
        let servers = servers.filter(|(_, _, weight)| *weight > 0).take(MAX_SERVERS);
        let units: usize = servers.clone().map(|(_, _, weight)| weight.saturating_mul(UNITS)).sum();
        let mut divisor = 1;
        while units / divisor * DEFAULT_POINT_MULTIPLE as usize > MAX_POINTS && divisor < units {
            divisor *= 2;
        }
        let (mut positions, mut buckets, mut points) = (HashMap::new(), Vec::new(), 0);
        for (position, endpoint, weight) in servers {
            let mut address = address_of(endpoint, None);
            if positions.contains_key(&address) {
                // The same endpoint by another name: points of its own, which depend on how many there are before it.
                address = address_of(endpoint, Some(position));
            }
            let units = (weight.saturating_mul(UNITS) / divisor).clamp(1, u16::MAX.into());
            if positions.insert(address, position).is_none() {
                buckets.push(Bucket::new(address, units as u32));
                points += units * DEFAULT_POINT_MULTIPLE as usize;
            }
        }
        Ring { continuum: Continuum::new(&buckets), positions, points }
    }

    /// The candidate that a hash belongs to, by its index: the first on the ring that has not as much as it may, nor is
    /// starting slowly without this hash being one of the share that it has already.
    pub(in crate::origin) fn choose(&self, hash: u64, reach: &Reach<'_>) -> Option<usize> {
        let whole = reach.candidates.iter().map(|candidate| candidate.share).max()?;
        // Other bits than those that decide where on the ring it is.
        let level = StableHash::new().with(&hash.to_be_bytes()).finish() % whole.max(1);
        let is_below = |candidate: &Candidate| reach.cap(candidate).is_none_or(|cap| candidate.active < cap);
        self.walk(hash, reach.candidates, |candidate| is_below(candidate) && level < candidate.share)
            .or_else(|| self.walk(hash, reach.candidates, is_below))
            .or_else(|| self.walk(hash, reach.candidates, |_| true))
    }

    fn walk(&self, hash: u64, candidates: &[Candidate], accepts: impl Fn(&Candidate) -> bool) -> Option<usize> {
        if !candidates.iter().any(&accepts) {
            return None;
        }
        let mut point = self.continuum.node_idx(&hash.to_le_bytes());
        for _ in 0..self.points {
            let position = *self.positions.get(self.continuum.get_addr(&mut point)?)?;
            if let Ok(index) = candidates.binary_search_by_key(&position, |candidate| candidate.position)
                && accepts(&candidates[index])
            {
                return Some(index);
            }
        }
        None
    }
}

impl<'a> Reach<'a> {
    /// `bound`: how many of all requests in flight a server may have, in percent of its share; above 100.
    pub(in crate::origin) fn new(candidates: &'a [Candidate], bound: Option<u32>) -> Reach<'a> {
        let active = candidates.iter().map(|candidate| candidate.active as u128).sum();
        let weight = candidates.iter().map(|candidate| u128::from(candidate.weight)).sum();
        Reach { candidates, bound, active, weight }
    }

    /// The most requests that a server may have in flight while there is one more than now: its share of all of them and
    /// what the bound allows beyond, rounded up. Some candidate is always below, since all caps together are more than
    /// all requests. `None`: as many as may be.
    pub(in crate::origin) fn cap(&self, candidate: &Candidate) -> Option<usize> {
        let bound = u128::from(self.bound?);
        let cap = (bound * (self.active + 1) * u128::from(candidate.weight)).div_ceil(100 * self.weight.max(1));
        Some(usize::try_from(cap).unwrap_or(usize::MAX))
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({} servers, {} points)", self.positions.len(), self.points)
    }
}

/// What a server's points are made of. The ring knows addresses alone: others get one of the range that is for nobody
/// (RFC 6666).
fn address_of(endpoint: &Endpoint, again: Option<usize>) -> SocketAddr {
    if let (Endpoint::Inet(address), None) = (endpoint, again) {
        return *address;
    }
    let id = StableHash::new().with(&endpoint.id().to_be_bytes()).with(&again.unwrap_or(0).to_be_bytes()).finish();
    let [a, b, c, d] = [48, 32, 16, 0].map(|shift| (id >> shift) as u16);
    SocketAddr::new(Ipv6Addr::new(0x100, 0, 0, 0, a, b, c, d).into(), 0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::candidates;
    use super::super::{Dice, slow_start};
    use super::*;

    const KEYS: usize = 10_000;

    fn endpoint(n: usize) -> Endpoint {
        Endpoint::Inet(SocketAddr::new([10, 0, (n / 250) as u8, (n % 250) as u8].into(), 8080))
    }

    fn ring(servers: &[(Endpoint, usize)]) -> Ring {
        Ring::new(servers.iter().enumerate().map(|(position, (endpoint, weight))| (position, endpoint, *weight)))
    }

    fn servers(weights: &[usize]) -> Vec<(Endpoint, usize)> {
        weights.iter().enumerate().map(|(n, weight)| (endpoint(n), *weight)).collect()
    }

    fn free(weights: &[usize]) -> Vec<Candidate> {
        candidates(&weights.iter().map(|weight| (*weight, 0)).collect::<Vec<_>>())
    }

    fn owner(ring: &Ring, hash: u64, candidates: &[Candidate]) -> usize {
        candidates[ring.choose(hash, &Reach::new(candidates, None)).unwrap()].position
    }

    /// Several kinds of keys: numbers in a row, paths, addresses, and chance.
    fn key_sets() -> Vec<Vec<u64>> {
        let hash = |text: String| StableHash::new().with(text.as_bytes()).finish();
        let mut dice = Dice::seeded(11);
        vec![
            (0..KEYS as u64).collect(),
            (0..KEYS).map(|n| hash(format!("/media/film-{n}/segment-{}.ts", n % 97))).collect(),
            (0..KEYS).map(|n| hash(format!("192.168.{}.{}", n / 256, n % 256))).collect(),
            (0..KEYS).map(|_| dice.below(u64::MAX)).collect(),
        ]
    }

    #[test]
    fn a_server_more_takes_its_share_and_moves_nothing_else() {
        for keys in key_sets() {
            for count in 2..=20 {
                let (before, after) = (ring(&servers(&vec![1; count])), ring(&servers(&vec![1; count + 1])));
                let (few, more) = (free(&vec![1; count]), free(&vec![1; count + 1]));
                let mut moved = 0;
                for key in &keys {
                    let (was, is) = (owner(&before, *key, &few), owner(&after, *key, &more));
                    assert!(was == is || is == count, "a key has moved between servers that stay");
                    moved += usize::from(was != is);
                }
                assert!(moved * 2 * count <= keys.len() * 3, "{moved} of {} keys with {count} servers", keys.len());
                assert!(moved > 0);
            }
        }
    }

    #[test]
    fn a_server_that_cannot_leaves_its_keys_to_the_others() {
        let ring = ring(&servers(&[1; 5]));
        let (all, mut rest) = (free(&[1; 5]), free(&[1; 5]));
        rest.remove(2);
        let mut heirs = [0; 5];
        for key in &key_sets()[1] {
            let (with, without) = (owner(&ring, *key, &all), owner(&ring, *key, &rest));
            assert!(with == without || with == 2);
            heirs[without] += usize::from(with == 2);
        }
        assert!(heirs[2] == 0 && [0, 1, 3, 4].iter().all(|heir| heirs[*heir] > 200), "{heirs:?}");
    }

    #[test]
    fn weights_are_respected_within_15_percent() {
        let sets: [&[usize]; 6] =
            [&[1; 20], &[1, 2, 3], &[10, 1, 5, 5], &[256, 256, 128], &[100; 8], &[3, 1, 1, 1, 1, 1, 1, 1]];
        for weights in sets {
            let (ring, all) = (ring(&servers(weights)), free(weights));
            for keys in key_sets() {
                let mut counts = vec![0; weights.len()];
                keys.iter().for_each(|key| counts[owner(&ring, *key, &all)] += 1);
                let total: usize = weights.iter().sum();
                for (count, weight) in counts.iter().zip(weights) {
                    let due = KEYS as f64 * *weight as f64 / total as f64;
                    // And what chance does to so few keys.
                    let off = (*count as f64 - due).abs() - 3.0 * due.sqrt();
                    assert!(off < 0.15 * due, "{counts:?} for {weights:?}");
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_list_is_of_no_matter() {
        let forth = servers(&[1, 2, 3]);
        let mut back = forth.clone();
        back.reverse();
        let (one, other) = (ring(&forth), ring(&back));
        for key in &key_sets()[0] {
            assert_eq!(owner(&one, *key, &free(&[1, 2, 3])), 2 - owner(&other, *key, &free(&[3, 2, 1])));
        }
    }

    #[test]
    fn sockets_and_endpoints_that_come_twice_have_their_share() {
        let unix = |path: &str| Endpoint::Unix(std::path::Path::new(path).into());
        let list = [(unix("/run/a"), 1), (unix("/run/b"), 1), (endpoint(1), 1), (endpoint(1), 1)];
        let (ring, all) = (ring(&list), free(&[1; 4]));
        let mut counts = [0; 4];
        key_sets()[3].iter().for_each(|key| counts[owner(&ring, *key, &all)] += 1);
        assert!(counts.iter().all(|count| (2_000..3_000).contains(count)), "{counts:?}");
    }

    #[test]
    fn without_points_or_candidates_there_is_no_choice() {
        let (empty, full) = (ring(&[]), ring(&servers(&[1, 1])));
        let none = &Reach::new(&[], Some(125));
        assert_eq!(empty.choose(1, none), None);
        assert_eq!(full.choose(1, none), None);
        assert_eq!(empty.choose(1, &Reach::new(&free(&[1]), None)), None);
        let weightless = ring(&servers(&[0, 0]));
        assert_eq!(weightless.choose(1, &Reach::new(&free(&[1, 1]), None)), None);
    }

    #[test]
    fn a_great_pool_has_a_ring_of_bounded_size() {
        let ring = ring(&servers(&[256; 60]));
        assert!(ring.points <= MAX_POINTS, "{ring:?}");
        let all = free(&[256; 60]);
        let mut counts = [0; 60];
        key_sets()[3].iter().for_each(|key| counts[owner(&ring, *key, &all)] += 1);
        assert!(counts.iter().all(|count| (110..230).contains(count)), "{counts:?}");
    }

    #[test]
    fn no_server_gets_more_than_its_bound() {
        for (weights, bound) in [(&[1; 5][..], 125), (&[4, 2, 1, 1], 110), (&[1, 1], 101)] {
            let (ring, mut all) = (ring(&servers(weights)), free(weights));
            let mut dice = Dice::seeded(5);
            let (mut in_flight, total) = (Vec::new(), weights.iter().sum::<usize>());
            for _ in 0..KEYS {
                // Few keys: without a bound, most requests would go to one server.
                let key = dice.below(3);
                let chosen = ring.choose(key, &Reach::new(&all, Some(bound))).unwrap();
                all[chosen].active += 1;
                in_flight.push(chosen);
                let most = (bound as usize * in_flight.len() * weights[chosen]).div_ceil(100 * total);
                assert!(all[chosen].active <= most, "{all:?}");
                if in_flight.len() > 100 {
                    let ended = in_flight.swap_remove(dice.below(in_flight.len() as u64) as usize);
                    all[ended].active -= 1;
                }
            }
        }
    }

    #[test]
    fn a_server_within_its_bound_keeps_its_keys() {
        let (ring, all) = (ring(&servers(&[1; 4])), candidates(&[(1, 10); 4]));
        for key in 0..1_000 {
            let bounded = ring.choose(key, &Reach::new(&all, Some(125)));
            assert_eq!(bounded, ring.choose(key, &Reach::new(&all, None)));
        }
    }

    #[test]
    fn a_slow_start_grows_without_moving_keys_to_and_fro() {
        let ring = ring(&servers(&[1; 4]));
        let whole = free(&[1; 4]);
        let mut taken_before: Vec<u64> = Vec::new();
        for passed in [1, 25, 50, 75, 100] {
            let mut all = whole.clone();
            all[1] = Candidate::new(1, 1, slow_start::share(1, 1 + passed, 100), 0);
            let mut taken = Vec::new();
            for key in &key_sets()[1] {
                let (is, will) = (owner(&ring, *key, &all), owner(&ring, *key, &whole));
                assert!(is == will || will == 1, "another server's key has moved");
                taken.extend((is == 1).then_some(*key));
            }
            let due = 2_500.0 * all[1].share as f64 / 1000.0;
            assert!((taken.len() as f64 / due - 1.0).abs() < 0.2, "{} of {due}", taken.len());
            assert!(taken_before.iter().all(|key| taken.contains(key)), "a key has left again");
            taken_before = taken;
        }
        // All that start slowly are as good as each other.
        let slow: Vec<_> = (0..4).map(|position| Candidate::new(position, 1, 100, 0)).collect();
        key_sets()[1].iter().for_each(|key| assert_eq!(owner(&ring, *key, &slow), owner(&ring, *key, &whole)));
    }
}
