//! How a step's micro-batches are shared out among ranks of different speed.
//!
//! A rank always takes whole micro-batches, so who takes how many changes the order of floating-point additions and
//! nothing else.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::plan::share;

/// Every rank's weight in sharing out micro-batches: with unequal ones, how many of a full step's it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<u32>", into = "Vec<u32>")]
pub struct Shares {
    world_size: u32,
    /// By rank; none where all are alike, so that a world of thousands costs nothing.
    weights: Vec<u32>,
}

impl From<Vec<u32>> for Shares {
    fn from(weights: Vec<u32>) -> Self {
        // A world's ranks are counted in u32.
        let world_size = weights.len() as u32;
        let alike = weights.windows(2).all(|pair| pair[0] == pair[1]);
        Self {
            world_size,
            weights: if alike { Vec::new() } else { weights },
        }
    }
}

impl From<Shares> for Vec<u32> {
    fn from(shares: Shares) -> Self {
        if shares.is_even() {
            vec![1; shares.world_size as usize]
        } else {
            shares.weights
        }
    }
}

impl Shares {
    /// All ranks alike.
    #[must_use]
    pub fn even(world_size: u32) -> Self {
        Self {
            world_size,
            weights: Vec::new(),
        }
    }

    /// The shares of `micro_batches` with which the slowest rank is done earliest; `paces` are the ranks' times for one
    /// micro-batch, in any unit. Every rank keeps at least one where there are enough, so that its pace stays known.
    /// Ranks of equal pace get what [`share`] gives them.
    #[must_use]
    pub fn by_pace(micro_batches: u32, paces: &[u64]) -> Self {
        let alike = paces.windows(2).all(|pair| pair[0] == pair[1]);
        if alike || micro_batches as usize <= paces.len() {
            return Self::even(paces.len() as u32);
        }
        // Handing each to the rank that would be done with it first is optimal for pieces of equal size.
        let mut shares = vec![1u32; paces.len()];
        for _ in paces.len()..micro_batches as usize {
            let done = |rank: &usize| u128::from(shares[*rank] + 1) * u128::from(paces[*rank]);
            if let Some(rank) = (0..paces.len()).min_by_key(done) {
                shares[rank] += 1;
            }
        }
        shares.into()
    }

    /// How many ranks share.
    #[must_use]
    pub fn world_size(&self) -> u32 {
        self.world_size
    }

    /// Whether all ranks are alike.
    #[must_use]
    pub fn is_even(&self) -> bool {
        self.weights.is_empty()
    }

    /// By rank; none where all are alike.
    #[must_use]
    pub fn weights(&self) -> &[u32] {
        &self.weights
    }

    /// What `rank` is handed of `count` things that the ranks share in order, by weight: contiguous ranges; even shares are
    /// those of [`share`]. Ranks that do not exist get nothing.
    #[must_use]
    pub fn share(&self, count: usize, rank: u32) -> Range<usize> {
        let at = rank as usize;
        if self.is_even() || at >= self.weights.len() {
            return share(count, self.world_size(), rank);
        }
        let sum = |weights: &[u32]| weights.iter().copied().map(u64::from).sum::<u64>();
        let total = sum(&self.weights);
        // Rounded; the last one ends at `count` exactly.
        let end = |passed: u64| ((count as u64 * passed * 2 + total) / (total * 2)) as usize;
        end(sum(&self.weights[..at]))..end(sum(&self.weights[..=at]))
    }

    /// What every rank is handed, by rank.
    #[must_use]
    pub fn assign(&self, count: usize) -> Vec<Range<usize>> {
        (0..self.world_size())
            .map(|rank| self.share(count, rank))
            .collect()
    }

    /// How long a full step of `micro_batches` takes at these paces: the slowest rank's time.
    #[must_use]
    pub fn longest(&self, micro_batches: u32, paces: &[u64]) -> u64 {
        let shares = self.assign(micro_batches as usize).into_iter();
        shares
            .zip(paces)
            .map(|(range, pace)| (range.len() as u64).saturating_mul(*pace))
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rank_of_half_the_speed_takes_half_as_much() {
        let shares = Shares::by_pace(10, &[100, 100, 200]);
        assert_eq!(shares.weights(), [4, 4, 2]);
        assert_eq!(shares.longest(10, &[100, 100, 200]), 400);
        assert_eq!(Shares::even(3).longest(10, &[100, 100, 200]), 600);
    }

    #[test]
    fn the_tail_of_an_epoch_is_shared_by_the_same_weights() {
        let shares = Shares::by_pace(6, &[100, 150, 300]);
        assert_eq!(shares.weights(), [3, 2, 1]);
        assert_eq!(shares.assign(6), [0..3, 3..5, 5..6]);
        assert_eq!(shares.assign(4), [0..2, 2..3, 3..4]);
        assert_eq!(shares.assign(1), [0..1, 1..1, 1..1]);
    }

    #[test]
    fn every_rank_keeps_one_so_that_its_pace_stays_known() {
        assert!(Shares::by_pace(3, &[1, 1, 1_000]).is_even());
        assert_eq!(Shares::by_pace(4, &[1, 1, 1_000]).weights(), [2, 1, 1]);
        assert!(Shares::by_pace(2, &[1, 1, 1_000]).is_even());
    }

    proptest! {
        #[test]
        fn everything_is_handed_out_once_and_in_order(
            micro_batches in 1u32..200, count in 0usize..400, paces in prop::collection::vec(1u64..10_000, 1..40),
        ) {
            let ranges = Shares::by_pace(micro_batches, &paces).assign(count);
            prop_assert_eq!(ranges.len(), paces.len());
            let mut next = 0;
            for range in ranges {
                prop_assert_eq!(range.start, next);
                prop_assert!(range.end >= range.start);
                next = range.end;
            }
            prop_assert_eq!(next, count);
        }

        #[test]
        fn a_full_step_is_never_slower_than_shared_evenly(
            micro_batches in 1u32..200, paces in prop::collection::vec(1u64..10_000, 1..40),
        ) {
            let world_size = paces.len() as u32;
            let shares = Shares::by_pace(micro_batches, &paces);
            prop_assert!(
                shares.longest(micro_batches, &paces) <= Shares::even(world_size).longest(micro_batches, &paces)
            );
            if !shares.is_even() {
                let assigned: Vec<_> = shares.assign(micro_batches as usize).iter().map(|r| r.len() as u32).collect();
                prop_assert_eq!(&assigned[..], shares.weights());
            }
        }
    }
}
