//! Smooth weighted round robin.

/// Weights are at most 256: this only rules out that a sum overflows.
const MAX_WEIGHT: usize = 1 << 20;

/// Whose turn it is. Every choice gives each candidate its weight and takes the sum of the weights from the one that
/// is ahead: over a cycle (as many choices as the weights sum up to) each is chosen exactly as often as its weight
/// says, and the choices of a heavy server are spread and not bunched.
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

    /// The next of `count` candidates; those of weight 0 have no turn. `None`: there is no other.
    pub(in crate::origin) fn next(&mut self, count: usize, weight: impl Fn(usize) -> usize) -> Option<usize> {
        self.ahead.resize(count, 0);
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (position, ahead) in self.ahead.iter_mut().enumerate() {
            let weight = weight(position).min(MAX_WEIGHT) as i64;
            if weight == 0 {
                continue;
            }
            *ahead += weight;
            total += weight;
            if best.is_none_or(|(_, most)| *ahead > most) {
                best = Some((position, *ahead));
            }
        }
        let (position, _) = best?;
        self.ahead[position] -= total;
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(rotation: &mut Rotation, weights: &[usize], choices: usize) -> Vec<usize> {
        (0..choices).map(|_| rotation.next(weights.len(), |position| weights[position]).unwrap()).collect()
    }

    #[test]
    fn a_heavy_server_is_interleaved() {
        assert_eq!(take(&mut Rotation::default(), &[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(take(&mut Rotation::default(), &[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn no_candidate_is_no_choice() {
        let mut rotation = Rotation::default();
        assert_eq!(rotation.next(0, |_| 1), None);
        assert_eq!(rotation.next(3, |_| 0), None);
        assert_eq!(rotation.next(3, |position| usize::from(position == 2)), Some(2));
    }

    #[test]
    fn a_huge_weight_does_not_overflow() {
        let mut rotation = Rotation::default();
        assert!((0..100).all(|turn| rotation.next(2, |_| usize::MAX) == Some(turn % 2)));
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
