//! Which checkpoints stay: the last few, the best, and those that a person named.
//!
//! Ask only after the newest checkpoint is committed; nothing older may go before.

use std::num::NonZeroU32;

/// A committed checkpoint, as far as keeping it goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checkpoint {
    /// Steps of the run committed before it; its name in the run directory.
    pub steps_done: u64,
    /// Validation mAP of exactly this state, where it was evaluated and is defined.
    pub map: Option<f64>,
    /// Whether a person asked for it to be kept.
    pub named: bool,
}

/// What to do with the checkpoints there are, each given by its `steps_done`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retention {
    /// The newest.
    pub last: Option<u64>,
    /// The one with the highest mAP; of equals the earliest, so that `best` moves only for the
    /// better.
    pub best: Option<u64>,
    /// Those that stay, ascending.
    pub keep: Vec<u64>,
    /// Those that go, oldest first: the order to remove them in.
    pub remove: Vec<u64>,
}

/// Decides for `checkpoints` in any order; the newest `keep_last`, the best and the named stay.
#[must_use]
pub fn retain(checkpoints: &[Checkpoint], keep_last: NonZeroU32) -> Retention {
    let mut by_age = checkpoints.to_vec();
    by_age.sort_by_key(|checkpoint| checkpoint.steps_done);
    let best = best(&by_age);
    let first_kept = by_age.len().saturating_sub(keep_last.get() as usize);
    let mut retention = Retention {
        last: by_age.last().map(|checkpoint| checkpoint.steps_done),
        best,
        ..Retention::default()
    };
    for (age, checkpoint) in by_age.iter().enumerate() {
        let steps = checkpoint.steps_done;
        if age >= first_kept || checkpoint.named || best == Some(steps) {
            retention.keep.push(steps);
        } else {
            retention.remove.push(steps);
        }
    }
    retention
}

/// The earliest of those with the highest finite mAP.
fn best(by_age: &[Checkpoint]) -> Option<u64> {
    let mut best: Option<(f64, u64)> = None;
    for checkpoint in by_age {
        if let Some(map) = checkpoint.map.filter(|map| map.is_finite())
            && best.is_none_or(|(highest, _)| map > highest)
        {
            best = Some((map, checkpoint.steps_done));
        }
    }
    best.map(|(_, steps_done)| steps_done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn checkpoint(steps_done: u64, map: Option<f64>) -> Checkpoint {
        Checkpoint {
            steps_done,
            map,
            named: false,
        }
    }

    fn three() -> NonZeroU32 {
        NonZeroU32::new(3).unwrap()
    }

    #[test]
    fn the_last_the_best_and_the_named_stay_and_the_oldest_goes_first() {
        // Given six checkpoints, the second the best and the fourth named, not in order
        let mut checkpoints: Vec<_> = [0.1, 0.9, 0.3, 0.2, 0.5, 0.6]
            .into_iter()
            .zip(1..)
            .map(|(map, n)| checkpoint(10 * n, Some(map)))
            .collect();
        checkpoints.reverse();
        checkpoints[2].named = true;

        // When the last two are to stay
        let retention = retain(&checkpoints, NonZeroU32::new(2).unwrap());

        // Then
        assert_eq!(
            retention,
            Retention {
                last: Some(60),
                best: Some(20),
                keep: vec![20, 40, 50, 60],
                remove: vec![10, 30],
            }
        );
    }

    #[test]
    fn an_equal_figure_later_does_not_move_best() {
        let checkpoints = [checkpoint(5, Some(0.5)), checkpoint(9, Some(0.5))];
        assert_eq!(retain(&checkpoints, three()).best, Some(5));
    }

    #[test]
    fn a_checkpoint_without_a_figure_is_never_best() {
        let checkpoints = [
            checkpoint(1, None),
            checkpoint(2, Some(f64::NAN)),
            checkpoint(3, Some(0.0)),
            checkpoint(4, None),
        ];
        assert_eq!(retain(&checkpoints, three()).best, Some(3));
        assert_eq!(retain(&checkpoints[..2], three()).best, None);
    }

    #[test]
    fn nothing_there_is_nothing_to_do() {
        assert_eq!(retain(&[], three()), Retention::default());
    }

    proptest! {
        #[test]
        fn every_checkpoint_is_kept_or_removed_and_the_pointers_are_kept(
            figures in proptest::collection::vec(
                (proptest::option::of(0.0f64..1.0), any::<bool>()), 1..20),
            keep_last in 1u32..6,
        ) {
            let checkpoints: Vec<_> = figures
                .iter()
                .zip(0..)
                .map(|(&(map, named), steps_done)| Checkpoint { steps_done, map, named })
                .collect();
            let retention = retain(&checkpoints, NonZeroU32::new(keep_last).unwrap());
            let mut all = [retention.keep.clone(), retention.remove.clone()].concat();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..checkpoints.len() as u64));
            prop_assert!(retention.keep.len() >= checkpoints.len().min(keep_last as usize));
            for pointer in retention.best.iter().chain(&retention.last) {
                prop_assert!(retention.keep.contains(pointer));
            }
            for gone in retention.remove {
                prop_assert!(!checkpoints[gone as usize].named);
            }
        }
    }
}
