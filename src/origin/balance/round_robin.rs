//! Smooth weighted round robin.

use super::Candidate;

/// Weights are at most 256, in thousandths: this only rules out that a sum overflows.
const MAX_WEIGHT: u64 = 1 << 32;

/// Whose turn it is. Every choice gives each candidate its weight and takes the sum of the weights from the one that
/// is ahead: over a cycle (as many choices as the weights sum up to) each is chosen exactly as often as its weight
/// says, and the choices of a heavy server are spread and not bunched. Weights may change within a cycle.
#[derive(Debug, Default)]
pub(in crate::origin) struct Rotation {
    /// By position of the candidate.
    ahead: Vec<i64>,
}

impl Rotation {
    /// Begins a new cycle: for when the candidates have changed.
    pub(in crate::origin) fn restart(&mut self) {
        self.ahead.clear();
    }

    /// The next of the candidates, by its index; those of weight 0 have no turn. `None`: there is no other. `count` is how
    /// many positions there are.
    pub(in crate::origin) fn next(&mut self, count: usize, candidates: &[Candidate]) -> Option<usize> {
        self.ahead.resize(count, 0);
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| candidate.weight > 0) {
            let weight = candidate.weight.min(MAX_WEIGHT) as i64;
            let Some(ahead) = self.ahead.get_mut(candidate.position) else { continue };
            *ahead += weight;
            total += weight;
            if best.is_none_or(|(_, most)| *ahead > most) {
                best = Some((index, *ahead));
            }
        }
        let (index, _) = best?;
        if let Some(ahead) = self.ahead.get_mut(candidates.get(index)?.position) {
            *ahead -= total;
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::candidates;
    use super::*;

    fn take(rotation: &mut Rotation, weights: &[usize], choices: usize) -> Vec<usize> {
        let servers: Vec<_> = weights.iter().map(|weight| (*weight, 0)).collect();
        let servers = candidates(&servers);
        (0..choices).map(|_| rotation.next(weights.len(), &servers).unwrap()).collect()
    }

    #[test]
    fn a_heavy_server_is_interleaved() {
        assert_eq!(take(&mut Rotation::default(), &[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(take(&mut Rotation::default(), &[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn no_candidate_is_no_choice() {
        let mut rotation = Rotation::default();
        assert_eq!(rotation.next(0, &[]), None);
        assert_eq!(rotation.next(3, &candidates(&[(0, 0), (0, 0), (0, 0)])), None);
        assert_eq!(rotation.next(3, &candidates(&[(0, 0), (0, 0), (1, 0)])), Some(2));
    }

    #[test]
    fn a_huge_weight_does_not_overflow() {
        let (mut rotation, servers) = (Rotation::default(), candidates(&[(usize::MAX, 0), (usize::MAX, 0)]));
        assert!((0..100).all(|turn| rotation.next(2, &servers) == Some(turn % 2)));
    }

    #[test]
    fn a_weight_that_grows_needs_no_new_cycle() {
        let mut rotation = Rotation::default();
        let mut counts = [0; 2];
        for share in 100..=1000 {
            let servers = [Candidate::new(0, 1, 1000, 0), Candidate::new(1, 1, share, 0)];
            counts[rotation.next(2, &servers).unwrap()] += 1;
        }
        // The mean of share / (1000 + share): between a tenth of the other's turns and as many.
        assert!((295..=335).contains(&counts[1]), "{counts:?}");
        let servers = [Candidate::new(0, 1, 1000, 0), Candidate::new(1, 1, 1000, 0)];
        let after: Vec<_> = (0..6).map(|_| rotation.next(2, &servers).unwrap()).collect();
        assert!(after.windows(2).all(|pair| pair[0] != pair[1]), "{after:?}");
    }

    proptest! {
        #[test]
        fn each_cycle_is_exactly_proportional(weights in proptest::collection::vec(0usize..12, 1..8), cycles in 1usize..4) {
            let total: usize = weights.iter().sum();
            prop_assume!(total > 0);
            let mut rotation = Rotation::default();
            for _ in 0..cycles {
                let mut chosen = vec![0; weights.len()];
                for position in take(&mut rotation, &weights, total) {
                    chosen[position] += 1;
                }
                prop_assert_eq!(&chosen, &weights);
            }
        }
    }
}
