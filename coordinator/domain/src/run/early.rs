//! Early stopping: whether the mAP has stopped getting better (`train.early_stopping`; Prechelt 1998, "Early stopping, but
//! when?", its criterion of successive evaluations).

use std::collections::BTreeMap;

use super::{Effect, Millis, State, StopCause};

/// The mAP of every evaluation that has one, as the bits of a float64, by the steps committed before it.
pub type Maps = BTreeMap<u64, u64>;

/// The best evaluation, where the `patience` evaluations since have been no better: its step and mAP. Of equals the
/// earliest is best, as everywhere in a run.
#[must_use]
pub fn verdict(maps: &Maps, patience: u32) -> Option<(u64, f64)> {
    let (mut best, mut since) = (None, 0);
    for (&step, &bits) in maps {
        let map = f64::from_bits(bits);
        if best.is_none_or(|(_, best)| map > best) {
            (best, since) = (Some((step, map)), 0);
        } else {
            since += 1;
        }
    }
    best.filter(|_| since >= patience.max(1))
}

impl State {
    /// Takes note of an evaluation's mAP, and stops the run if it is one too many without a better one.
    pub(super) fn note_map(&mut self, step: u64, bits: Option<u64>, now: Millis) -> Vec<Effect> {
        let Some(bits) = bits else {
            return Vec::new();
        };
        self.maps.insert(step, bits);
        let Some(patience) = self.plan.shape().early_stopping else {
            return Vec::new();
        };
        if self.stop.is_some() || self.is_ending() || step >= self.total_steps() {
            return Vec::new();
        }
        let Some((best, map)) = verdict(&self.maps, patience) else {
            return Vec::new();
        };
        let by = format!(
            "train.early_stopping = {patience}: no mAP since above the {:.2} % after epoch {}",
            100.0 * map,
            self.plan.epoch_of(best.saturating_sub(1)) + 1
        );
        self.stop_for(&by, StopCause::Early, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(values: &[f64]) -> Maps {
        let steps = (1u64..).map(|epoch| 10 * epoch);
        steps.zip(values.iter().map(|map| map.to_bits())).collect()
    }

    #[test]
    fn so_many_evaluations_in_a_row_without_a_better_one_are_enough() {
        type Case<'a> = (&'a [f64], u32, Option<(u64, f64)>);
        let cases: [Case; 7] = [
            (&[], 1, None),
            (&[0.2], 1, None),
            (&[0.2, 0.3, 0.4], 1, None),
            (&[0.2, 0.3, 0.29], 2, None),
            (&[0.2, 0.3, 0.29, 0.28], 2, Some((20, 0.3))),
            // An equal one is no better, and a better one begins anew.
            (&[0.3, 0.3, 0.3], 2, Some((10, 0.3))),
            (&[0.3, 0.2, 0.31, 0.2], 2, None),
        ];
        for (values, patience, expected) in cases {
            assert_eq!(verdict(&maps(values), patience), expected, "{values:?}");
        }
    }
}
