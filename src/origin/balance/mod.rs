//! Which of the servers that can take a request takes it.
//!
//! Every algorithm is pure: it looks at candidates, and gets the time and chance as arguments. What it needs to
//! remember is in [`Rotation`] for a pool, in [`Load`] for a server.

pub(super) mod clock;
mod dice;
mod hash;
pub(super) mod latency;
pub(super) mod least_requests;
mod load;
mod ring;
mod round_robin;
pub(super) mod slow_start;

use std::cmp::Ordering;

pub(super) use dice::{Dice, draw};
pub use hash::StableHash;
pub(super) use load::Load;
pub(super) use ring::{Reach, Ring};
pub(super) use round_robin::Rotation;

/// A server that can take the request, as a choice sees it. A list of them is in the order of their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// In the pool's list of members.
    pub(super) position: usize,
    /// What it counts, `share` included: above 0.
    pub(super) weight: u64,
    /// How much of its configured weight it has, in thousandths: 100 to 1,000.
    pub(super) share: u64,
    /// Its requests in flight.
    pub(super) active: usize,
}

impl Candidate {
    /// `weight`: as configured.
    pub(super) fn new(position: usize, weight: usize, share: u64, active: usize) -> Candidate {
        Candidate { position, weight: (weight as u64).saturating_mul(share), share, active }
    }
}

/// Which of `count` is the least. Those that share the place have it in `turn`.
fn least_by(count: usize, turn: usize, compare: impl Fn(usize, usize) -> Ordering) -> Option<usize> {
    let (mut least, mut ties) = (0, 1);
    for index in 1..count {
        match compare(index, least) {
            Ordering::Less => (least, ties) = (index, 1),
            Ordering::Equal => ties += 1,
            Ordering::Greater => {}
        }
    }
    (least..count).filter(|index| compare(*index, least) == Ordering::Equal).nth(turn % ties)
}

#[cfg(test)]
pub(super) mod testing {
    use super::Candidate;

    /// Candidates by weight and requests in flight.
    pub(in crate::origin) fn candidates(servers: &[(usize, usize)]) -> Vec<Candidate> {
        let servers = servers.iter().enumerate();
        servers.map(|(position, (weight, active))| Candidate::new(position, *weight, 1000, *active)).collect()
    }

    /// Whether counts are what weights say, each within some standard deviations of a fair draw: a chance in millions
    /// to be wrong, if chance were not seeded.
    pub(in crate::origin) fn assert_shares(counts: &[usize], weights: &[usize]) {
        let (draws, total) = (counts.iter().sum::<usize>() as f64, weights.iter().sum::<usize>() as f64);
        for (count, weight) in counts.iter().zip(weights) {
            let share = *weight as f64 / total;
            let (expected, deviation) = (draws * share, (draws * share * (1.0 - share)).sqrt());
            assert!((*count as f64 - expected).abs() <= 5.0 * deviation, "{counts:?} for the weights {weights:?}");
        }
    }
}
