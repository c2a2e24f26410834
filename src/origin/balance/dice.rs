//! Chance.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use super::Candidate;

/// A sequence of random numbers (SplitMix64): not to be used where somebody gains by guessing them.
#[derive(Debug)]
pub(in crate::origin) struct Dice(u64);

impl Dice {
    /// The same seed leads to the same numbers.
    pub(in crate::origin) fn seeded(seed: u64) -> Dice {
        Dice(seed)
    }

    /// With dice of this thread's own: nobody waits for them.
    pub(in crate::origin) fn with<T>(work: impl FnOnce(&mut Dice) -> T) -> T {
        thread_local! {
            // A fresh RandomState is the standard library's source of randomness.
            static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0u8));
        }
        STATE.with(|state| {
            let mut dice = Dice::seeded(state.get());
            let result = work(&mut dice);
            state.set(dice.0);
            result
        })
    }

    /// A number below `limit`, each as likely as the next; 0 where `limit` is.
    pub(in crate::origin) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// One of the candidates, by weight; which of them is said by its index. Those in `drawn` are left out.
pub(in crate::origin) fn draw(candidates: &[Candidate], drawn: &[usize], dice: &mut Dice) -> Option<usize> {
    let left = || candidates.iter().enumerate().filter(|(index, _)| !drawn.contains(index));
    let mut point = dice.below(left().map(|(_, candidate)| candidate.weight).sum());
    for (index, candidate) in left() {
        if point < candidate.weight {
            return Some(index);
        }
        point -= candidate.weight;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_shares, candidates};
    use super::*;

    #[test]
    fn draws_are_by_weight() {
        for (seed, weights) in [&[1, 1, 1][..], &[5, 1, 2], &[256, 1], &[0, 1, 3], &[7]].into_iter().enumerate() {
            let servers: Vec<_> = weights.iter().map(|weight| (*weight, 0)).collect();
            let (servers, mut dice) = (candidates(&servers), Dice::seeded(seed as u64));
            let mut counts = vec![0; weights.len()];
            (0..20_000).for_each(|_| counts[draw(&servers, &[], &mut dice).unwrap()] += 1);
            assert_shares(&counts, weights);
        }
    }

    #[test]
    fn what_was_drawn_is_left_out() {
        let (servers, mut dice) = (candidates(&[(1, 0), (9, 0), (2, 0)]), Dice::seeded(7));
        let mut counts = [0; 3];
        (0..20_000).for_each(|_| counts[draw(&servers, &[1], &mut dice).unwrap()] += 1);
        assert_shares(&counts, &[1, 0, 2]);
        assert_eq!(draw(&servers, &[0, 1, 2], &mut dice), None);
        assert_eq!(draw(&[], &[], &mut dice), None);
    }

    #[test]
    fn threads_have_dice_of_their_own() {
        let numbers = || Dice::with(|dice| [dice.next(), dice.next()]);
        let (here, there) = (numbers(), std::thread::spawn(numbers).join().unwrap());
        assert!(here != there && here != numbers());
    }
}
