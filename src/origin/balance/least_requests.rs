//! The server with the fewest requests in flight for its weight.

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::{Candidate, Dice, draw, least_by};

/// The one that would have the fewest per weight with this request, by its index; equal ones in `turn`.
pub(in crate::origin) fn of_all(candidates: &[Candidate], turn: usize) -> Option<usize> {
    least_by(candidates.len(), turn, |a, b| order(&candidates[a], &candidates[b]))
}

/// The same of as many as `choices`, drawn by weight: two are nearly as good as all, and edges side by side that see
/// the same server idle do not all run to it.
pub(in crate::origin) fn of_some(candidates: &[Candidate], choices: usize, dice: &mut Dice) -> Option<usize> {
    let mut drawn: SmallVec<[usize; 16]> = SmallVec::new();
    while drawn.len() < choices {
        let Some(index) = draw(candidates, &drawn, dice) else { break };
        drawn.push(index);
    }
    // Of equal ones the first that was drawn, which is by chance already.
    least_by(drawn.len(), 0, |a, b| order(&candidates[drawn[a]], &candidates[drawn[b]])).map(|index| drawn[index])
}

/// By requests per weight, multiplied out: no division, no rounding.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    let cross = |one: &Candidate, other: &Candidate| (one.active as u128 + 1) * u128::from(other.weight);
    cross(a, b).cmp(&cross(b, a))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_shares, candidates};
    use super::*;

    #[test]
    fn the_least_busy_for_its_weight_is_taken() {
        let least = |servers: &[(usize, usize)]| of_all(&candidates(servers), 0);
        assert_eq!(least(&[(1, 3), (1, 1), (1, 2)]), Some(1));
        assert_eq!(least(&[(4, 3), (1, 1)]), Some(0), "4/4 against 2/1");
        assert_eq!(least(&[(4, 9), (1, 1)]), Some(1), "10/4 against 2/1");
        assert_eq!(least(&[]), None);
    }

    #[test]
    fn equal_ones_take_turns() {
        let servers = candidates(&[(1, 0), (1, 5), (2, 1), (1, 0), (1, 0)]);
        let turns: Vec<_> = (0..8).map(|turn| of_all(&servers, turn).unwrap()).collect();
        assert_eq!(turns, [0, 2, 3, 4, 0, 2, 3, 4]);
    }

    #[test]
    fn two_choices_avoid_the_busiest() {
        let (servers, mut dice) = (candidates(&[(1, 0), (1, 0), (1, 9)]), Dice::seeded(1));
        let mut counts = [0; 3];
        (0..20_000).for_each(|_| counts[of_some(&servers, 2, &mut dice).unwrap()] += 1);
        assert_shares(&counts, &[1, 1, 0]);
        // Of one server there is but one choice, of none none.
        assert_eq!(of_some(&servers[..1], 2, &mut dice), Some(0));
        assert_eq!(of_some(&[], 2, &mut dice), None);
    }

    /// Keeps `load` requests in flight, of which random ones end.
    fn shares_under_load(
        weights: &[usize],
        load: usize,
        choose: impl Fn(&[Candidate], &mut Dice) -> usize,
    ) -> Vec<usize> {
        let mut dice = Dice::seeded(3);
        let servers: Vec<_> = weights.iter().map(|weight| (*weight, 0)).collect();
        let mut servers = candidates(&servers);
        let (mut in_flight, mut counts) = (Vec::new(), vec![0; weights.len()]);
        for _ in 0..20_000 {
            let chosen = choose(&servers, &mut dice);
            counts[chosen] += 1;
            servers[chosen].active += 1;
            in_flight.push(chosen);
            if in_flight.len() > load {
                let ended = in_flight.swap_remove(dice.below(in_flight.len() as u64) as usize);
                servers[ended].active -= 1;
            }
        }
        counts
    }

    #[test]
    fn under_load_the_shares_follow_the_weights() {
        for weights in [&[1, 1, 1][..], &[6, 3, 1], &[10, 1, 1, 1, 1, 1, 1, 1, 1, 1]] {
            let total: usize = weights.iter().sum();
            let all = shares_under_load(weights, 50 * total, |servers, _| of_all(servers, 0).unwrap());
            let two = shares_under_load(weights, 50 * total, |servers, dice| of_some(servers, 2, dice).unwrap());
            for (counts, kind) in [(all, "all"), (two, "two")] {
                for (count, weight) in counts.iter().zip(weights) {
                    let (share, due) = (*count as f64 / 20_000.0, *weight as f64 / total as f64);
                    assert!((share / due - 1.0).abs() < 0.1, "{kind}: {counts:?} for {weights:?}");
                }
            }
        }
    }
}
