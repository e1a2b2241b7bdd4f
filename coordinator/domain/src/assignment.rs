//! Which micro-batches of a step each rank of a generation is handed.
//!
//! In every step these are contiguous ranges by [`Shares`], but for the first step where a generation before had begun it:
//! its survivors keep the gradients of the micro-batches that they had done, so each is handed those again, and only the
//! rest is shared out. A worker skips what it keeps; to one that has lost it the list is a list like any other.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use serde::{Deserialize, Serialize};

use crate::shares::Shares;

/// How one generation hands out micro-batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    shares: Shares,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<FirstStep>,
}

/// A step that is handed out by other rules than [`Shares`], because parts of it are done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstStep {
    /// The step's number in the run.
    pub step: u64,
    /// By rank, the micro-batches' numbers in the step: first those that the rank says it has done, in its own order.
    pub micro_batches: Vec<Vec<u32>>,
}

impl From<Shares> for Assignment {
    fn from(shares: Shares) -> Self {
        Self {
            shares,
            first: None,
        }
    }
}

impl Assignment {
    /// Every step by shares that are all alike.
    #[must_use]
    pub fn even(world_size: u32) -> Self {
        Shares::even(world_size).into()
    }

    /// By `shares`, but for the given first step, if there is one.
    #[must_use]
    pub fn new(shares: Shares, first: Option<FirstStep>) -> Self {
        Self { shares, first }
    }

    /// How many ranks there are.
    #[must_use]
    pub fn world_size(&self) -> u32 {
        self.shares.world_size()
    }

    /// How steps are shared out but for the first.
    #[must_use]
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// The step that is handed out by other rules.
    #[must_use]
    pub fn first(&self) -> Option<&FirstStep> {
        self.first.as_ref()
    }

    /// The numbers of the micro-batches that `rank` is handed of the `count` of a step. Ranks that do not exist get nothing.
    #[must_use]
    pub fn micro_batches(&self, step: u64, count: u32, rank: u32) -> Vec<u32> {
        match &self.first {
            Some(first) if first.step == step => first
                .micro_batches
                .get(rank as usize)
                .cloned()
                .unwrap_or_default(),
            _ => {
                let mine = self.shares.share(count as usize, rank);
                (mine.start as u32..mine.end as u32).collect()
            }
        }
    }
}

impl FirstStep {
    /// Shares out the `count` micro-batches of `step` of which each rank says it has done some: it is handed these, and
    /// the rest goes, one by one, to whoever would be done with it first. `None` where nobody has done any.
    ///
    /// What a rank has done is one sum of gradients, which cannot be taken apart. So a rank that claims what there is not,
    /// one thing twice, or what a rank before it has done as well, has done nothing.
    #[must_use]
    pub fn sharing(step: u64, count: u32, shares: &Shares, done: &[&[u32]]) -> Option<Self> {
        let mut taken = BTreeSet::new();
        let mut micro_batches = vec![Vec::new(); shares.world_size() as usize];
        for (mine, claimed) in micro_batches.iter_mut().zip(done) {
            let claim: BTreeSet<u32> = claimed.iter().copied().collect();
            let valid = claim.len() == claimed.len()
                && claim.iter().all(|index| *index < count)
                && claim.is_disjoint(&taken);
            if valid {
                taken.extend(claim);
                mine.extend_from_slice(claimed);
            }
        }
        if taken.is_empty() {
            return None;
        }
        // Unequal weights say how many micro-batches ranks do in the same time.
        let time = |rank: u32, batches: u64| {
            let weight = shares.weights().get(rank as usize).copied().unwrap_or(1);
            (batches << 32) / u64::from(weight.max(1))
        };
        let mut next: BinaryHeap<_> = (0..shares.world_size())
            .map(|rank| Reverse((time(rank, 1), rank, 1u64)))
            .collect();
        for index in (0..count).filter(|index| !taken.contains(index)) {
            let Some(Reverse((_, rank, batches))) = next.pop() else {
                break;
            };
            if let Some(mine) = micro_batches.get_mut(rank as usize) {
                mine.push(index);
            }
            next.push(Reverse((time(rank, batches + 1), rank, batches + 1)));
        }
        Some(Self {
            step,
            micro_batches,
        })
    }

    /// Whether every one of the `count` micro-batches is handed to exactly one rank.
    #[must_use]
    pub fn is_whole(&self, count: u32) -> bool {
        let mut all: Vec<u32> = self.micro_batches.iter().flatten().copied().collect();
        all.sort_unstable();
        all.into_iter().eq(0..count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn survivors_keep_what_they_have_done_and_share_the_rest() {
        // Three ranks had two each; the third died, and the others had done one each.
        let first = FirstStep::sharing(7, 6, &Shares::even(2), &[&[0], &[2]]).unwrap();
        assert_eq!(first.micro_batches, [vec![0, 1, 4], vec![2, 3, 5]]);
        // They had done both: one each is left.
        let first = FirstStep::sharing(7, 6, &Shares::even(2), &[&[0, 1], &[2, 3]]).unwrap();
        assert_eq!(first.micro_batches, [vec![0, 1, 4], vec![2, 3, 5]]);
        // Whoever has done less is not given more for it: what is left to do is what takes time.
        let first = FirstStep::sharing(7, 6, &Shares::even(2), &[&[0, 1], &[]]).unwrap();
        assert_eq!(first.micro_batches, [vec![0, 1, 2, 4], vec![3, 5]]);
    }

    #[test]
    fn where_nothing_was_done_steps_are_shared_as_ever() {
        assert_eq!(
            FirstStep::sharing(7, 6, &Shares::even(2), &[&[], &[]]),
            None
        );
        let assignment = Assignment::new(
            Shares::even(2),
            FirstStep::sharing(7, 6, &Shares::even(2), &[&[4], &[]]),
        );
        assert_eq!(assignment.micro_batches(7, 6, 0), [4, 0, 2, 5]);
        assert_eq!(assignment.micro_batches(7, 6, 1), [1, 3]);
        assert_eq!(assignment.micro_batches(8, 6, 1), [3, 4, 5]);
        assert_eq!(assignment.micro_batches(7, 6, 2), [0u32; 0]);
    }

    #[test]
    fn a_claim_that_cannot_be_true_counts_for_nothing() {
        let even = Shares::even(3);
        for wrong in [&[1u32, 1][..], &[6], &[1, 0]] {
            let first = FirstStep::sharing(0, 6, &even, &[&[0], wrong, &[5]]).unwrap();
            assert!(first.is_whole(6), "{first:?}");
            assert_eq!(first.micro_batches[0][0], 0);
            assert_ne!(first.micro_batches[1].get(..wrong.len()), Some(wrong));
            assert_eq!(first.micro_batches[2][0], 5);
        }
    }

    #[test]
    fn a_slow_rank_is_given_less_of_the_rest() {
        let shares = Shares::by_pace(9, &[100, 100, 400]);
        assert_eq!(shares.weights(), [4, 4, 1]);
        let first = FirstStep::sharing(0, 9, &shares, &[&[0], &[], &[8]]).unwrap();
        let new: Vec<_> = first.micro_batches.iter().map(Vec::len).collect();
        assert_eq!(new, [5, 3, 1], "{first:?}");
    }

    proptest! {
        #[test]
        fn everything_is_handed_out_once_and_nobody_waits_longer_than_must_be(
            count in 1u32..60, world in 1u32..9, owners in prop::collection::vec(prop::option::of(0usize..9), 60),
        ) {
            let mut done = vec![Vec::new(); world as usize];
            for index in 0..count {
                if let Some(owner) = owners[index as usize].filter(|owner| *owner < world as usize) {
                    done[owner].insert(0, index);
                }
            }
            let claims: Vec<&[u32]> = done.iter().map(Vec::as_slice).collect();
            let Some(first) = FirstStep::sharing(3, count, &Shares::even(world), &claims) else {
                prop_assert!(done.iter().all(Vec::is_empty));
                return Ok(());
            };
            prop_assert!(first.is_whole(count));
            let mut left = count;
            let mut longest = 0;
            for (mine, done) in first.micro_batches.iter().zip(&done) {
                prop_assert_eq!(&mine[..done.len()], &done[..]);
                left -= done.len() as u32;
                longest = longest.max(mine.len() - done.len());
            }
            prop_assert_eq!(longest as u32, left.div_ceil(world));
        }
    }
}
