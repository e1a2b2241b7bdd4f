//! How a step's micro-batches are shared out among ranks of different speed.
//!
//! A rank always takes whole micro-batches, so who takes how many changes the order of floating-point additions and
//! nothing else.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::plan::assign;

/// Every rank's weight in sharing out micro-batches: with unequal ones, how many of a full step's it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shares(Vec<u32>);

impl Shares {
    /// All ranks alike.
    #[must_use]
    pub fn even(world_size: u32) -> Self {
        Self(vec![1; world_size as usize])
    }

    /// The shares of `micro_batches` with which the slowest rank is done earliest; `paces` are the ranks' times for one
    /// micro-batch, in any unit. Every rank keeps at least one where there are enough, so that its pace stays known.
    /// Ranks of equal pace get what [`assign`] gives them.
    #[must_use]
    pub fn by_pace(micro_batches: u32, paces: &[u64]) -> Self {
        let alike = paces.windows(2).all(|pair| pair[0] == pair[1]);
        if alike || micro_batches as usize <= paces.len() {
            return Self(vec![1; paces.len()]);
        }
        // Handing each to the rank that would be done with it first is optimal for pieces of equal size.
        let mut shares = vec![1u32; paces.len()];
        for _ in paces.len()..micro_batches as usize {
            let done = |rank: &usize| u128::from(shares[*rank] + 1) * u128::from(paces[*rank]);
            if let Some(rank) = (0..paces.len()).min_by_key(done) {
                shares[rank] += 1;
            }
        }
        Self(shares)
    }

    /// How many ranks share.
    #[must_use]
    pub fn world_size(&self) -> u32 {
        // Made from a u32 or from a world's ranks.
        self.0.len() as u32
    }

    /// Whether all ranks are alike.
    #[must_use]
    pub fn is_even(&self) -> bool {
        self.0.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// By rank.
    #[must_use]
    pub fn weights(&self) -> &[u32] {
        &self.0
    }

    /// Hands `count` things in order to the ranks: contiguous ranges, by weight; even shares are those of [`assign`].
    #[must_use]
    pub fn assign(&self, count: usize) -> Vec<Range<usize>> {
        if self.is_even() {
            return assign(count, self.world_size());
        }
        let total: u64 = self.0.iter().copied().map(u64::from).sum();
        let mut passed = 0;
        let mut start = 0;
        self.0
            .iter()
            .map(|&weight| {
                passed += u64::from(weight);
                // Rounded; the last one ends at `count` exactly.
                let end = ((count as u64 * passed * 2 + total) / (total * 2)) as usize;
                let range = start..end;
                start = end;
                range
            })
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
        assert_eq!(Shares::by_pace(3, &[1, 1, 1_000]).weights(), [1, 1, 1]);
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
