//! The scores that training itself computes, collected over an epoch: what many programs print as training mAP.
//!
//! They are a figure to look at and decide nothing: they are kept in memory only, for the newest epochs. A rank that dies
//! takes what it has not sent along, and a coordinator that is started again begins with none; each figure says over how
//! many samples it is.

use std::collections::BTreeMap;

use domain::labels::Labels;
use domain::run_plan::RunPlan;
use domain::score_table::Scored;
use domain::scores::ScoreError;

/// Parts of an epoch that are looked at apart.
pub const QUARTERS: u32 = 4;

/// Epochs whose scores are held: the one that trains, and the one whose figures are being computed.
const EPOCHS: usize = 2;

/// The scores of the newest epochs.
#[derive(Debug, Default)]
pub struct Online {
    epochs: BTreeMap<u32, Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    /// `[samples, classes]`; 4 bytes a score.
    scores: Vec<f32>,
    held: Vec<bool>,
}

impl Online {
    /// Takes scores `[sample_ids, classes]` of an epoch's steps. A step that is done again replaces what it gave before.
    ///
    /// # Errors
    /// [`ScoreError`] naming the sample.
    pub fn submit(
        &mut self,
        epoch: u32,
        sample_ids: &[u32],
        logits: &[f32],
        labels: &Labels,
    ) -> Result<(), ScoreError> {
        let (samples, classes) = (labels.samples(), labels.classes() as usize);
        if logits.len() != sample_ids.len() * classes {
            return Err(ScoreError::WrongShape {
                found: logits.len(),
                samples: u32::try_from(sample_ids.len()).unwrap_or(u32::MAX),
                classes: labels.classes(),
            });
        }
        if let Some(&sample) = sample_ids.iter().find(|sample| **sample >= samples) {
            return Err(ScoreError::NoSuchSample { sample, samples });
        }
        let rows = self.epochs.entry(epoch).or_insert_with(|| Rows {
            scores: vec![0.0; samples as usize * classes],
            held: vec![false; samples as usize],
        });
        for (&sample, row) in sample_ids.iter().zip(logits.chunks_exact(classes.max(1))) {
            // A step whose scores are no numbers was passed over or ended the run.
            if row.iter().any(|score| score.is_nan()) {
                continue;
            }
            rows.scores[sample as usize * classes..][..classes].copy_from_slice(row);
            rows.held[sample as usize] = true;
        }
        while self.epochs.len() > EPOCHS {
            self.epochs.pop_first();
        }
        Ok(())
    }

    /// The scores of an epoch, which are then no longer held; `None` where none came.
    pub fn take(&mut self, epoch: u32) -> Option<Collected> {
        let rows = self.epochs.remove(&epoch)?;
        Some(Collected { rows })
    }
}

/// The scores of one epoch.
#[derive(Debug)]
pub struct Collected {
    rows: Rows,
}

impl Collected {
    /// Those of `samples` that were scored, in that order, with their labels.
    ///
    /// # Errors
    /// [`ScoreError`] if `labels` are of another split.
    pub fn of(&self, samples: &[u32], labels: &Labels) -> Result<Scored, ScoreError> {
        let classes = labels.classes() as usize;
        let held = |sample: &u32| self.rows.held.get(*sample as usize).copied() == Some(true);
        let ids: Vec<u32> = samples.iter().copied().filter(held).collect();
        let scores = ids
            .iter()
            .flat_map(|&sample| &self.rows.scores[sample as usize * classes..][..classes])
            .copied()
            .collect();
        let labels = labels.select(&ids).map_err(|_| ScoreError::NoSuchSample {
            sample: ids.last().copied().unwrap_or_default(),
            samples: labels.samples(),
        })?;
        Scored::new(ids, scores, labels)
    }
}

/// In which quarter of an epoch each training sample is trained on, `[samples]`, from 0.
#[must_use]
pub fn quarters(plan: &RunPlan, epoch: u32) -> Vec<u32> {
    let order = plan.epoch_plan(epoch);
    let steps = plan.steps_per_epoch();
    let mut quarters = vec![0; plan.shape().samples as usize];
    for step in 0..steps {
        let quarter = u64::from(step) * u64::from(QUARTERS) / u64::from(steps.max(1));
        for &sample in order.samples_of_step(step) {
            quarters[sample as usize] = quarter as u32; // below QUARTERS
        }
    }
    quarters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels::from_lists(2, &[vec![0u32], vec![1], vec![0, 1], vec![]]).unwrap()
    }

    #[test]
    fn a_step_that_is_done_again_replaces_what_it_gave() {
        let mut online = Online::default();
        online
            .submit(0, &[2, 0], &[1.0, 2.0, 3.0, 4.0], &labels())
            .unwrap();
        online.submit(0, &[0], &[5.0, 6.0], &labels()).unwrap();

        let collected = online.take(0).unwrap();
        let scored = collected.of(&[0, 1, 2], &labels()).unwrap();
        assert_eq!(scored.sample_ids(), [0, 2]);
        assert_eq!(scored.matrix().as_slice(), [5.0, 6.0, 1.0, 2.0]);
        assert_eq!(scored.labels(), &labels().select(&[0, 2]).unwrap());
        assert!(online.take(0).is_none());
    }

    #[test]
    fn only_the_newest_epochs_are_held() {
        let mut online = Online::default();
        for epoch in 0..4 {
            online.submit(epoch, &[0], &[1.0, 2.0], &labels()).unwrap();
        }
        assert!(online.take(1).is_none());
        assert!(online.take(2).is_some() && online.take(3).is_some());
    }

    #[test]
    fn what_is_no_sample_or_no_number_is_not_taken() {
        let mut online = Online::default();
        assert!(online.submit(0, &[4], &[1.0, 2.0], &labels()).is_err());
        assert!(online.submit(0, &[1], &[1.0], &labels()).is_err());
        online
            .submit(0, &[1, 2], &[f32::NAN, 2.0, 1.0, 1.0], &labels())
            .unwrap();
        let scored = online.take(0).unwrap().of(&[1, 2], &labels()).unwrap();
        assert_eq!(scored.sample_ids(), [2]);
    }
}
