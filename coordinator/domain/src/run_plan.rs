//! The whole run as a sequence of items: steps, and what comes between them.
//!
//! A place in a run is written as `steps_done`, the number of steps that are committed before it:
//! the step at that place is `Step(steps_done)`, the checkpoint there is `step-<steps_done>`. At an
//! epoch's end come, in this order, the evaluation and then the snapshot, so that a snapshot knows
//! the mAP it stands for.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::assignment::Assignment;
use crate::plan::{EpochPlan, EpochShape, PlanError, RankStep};

/// The figures that fix what a run does and in which order, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunShape {
    /// The seed of the permutations.
    pub seed: u64,
    /// Samples in the training split.
    pub samples: u32,
    /// Samples in the validation split.
    pub val_samples: u32,
    /// Rows that an evaluation scores beside them ([`crate::scoring`]).
    #[serde(default)]
    pub further_rows: u32,
    /// `train.early_stopping`: evaluations in a row without a better mAP after which the run stops.
    #[serde(default)]
    pub early_stopping: Option<u32>,
    /// `train.global_batch`: samples in a step.
    pub global_batch: u32,
    /// `train.micro_batch`: samples in a micro-batch.
    pub micro_batch: u32,
    /// `train.epochs`.
    pub epochs: u32,
    /// `run.evaluate_every_epochs`; the last epoch is always evaluated.
    pub evaluate_every_epochs: u32,
    /// `run.snapshot_every_steps`: a snapshot whenever this many more steps of the run are done.
    pub snapshot_every_steps: Option<u64>,
    /// `run.snapshot_every_epochs`; a run always ends with a snapshot.
    pub snapshot_every_epochs: Option<u32>,
}

impl RunShape {
    /// Rows that an evaluation scores.
    #[must_use]
    pub fn evaluation_rows(&self) -> u32 {
        self.val_samples + self.further_rows
    }

    /// Every mistake in these figures; `workers` is named in the texts and changes nothing else.
    #[must_use]
    pub fn mistakes(&self, workers: u32) -> Vec<PlanError> {
        let mut mistakes =
            EpochShape::mistakes(self.samples, self.global_batch, self.micro_batch, workers);
        if self.val_samples == 0 {
            mistakes.push(PlanError::EmptySplit {
                split: "validation",
            });
        }
        let zeros = [
            ("train.epochs", self.epochs == 0),
            ("run.evaluate_every_epochs", self.evaluate_every_epochs == 0),
            (
                "run.snapshot_every_steps",
                self.snapshot_every_steps == Some(0),
            ),
            (
                "run.snapshot_every_epochs",
                self.snapshot_every_epochs == Some(0),
            ),
        ];
        mistakes.extend(
            zeros
                .into_iter()
                .filter(|(_, zero)| *zero)
                .map(|(key, _)| PlanError::Zero { key }),
        );
        mistakes
    }
}

/// One thing a run does. Items are ordered as a run does them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// Train the step of this number (from 0 over the whole run).
    Step(u64),
    /// Score the validation split.
    Evaluate {
        /// Steps committed before it.
        steps_done: u64,
        /// The epoch that has just ended, from 0.
        epoch: u32,
    },
    /// Write a checkpoint.
    Snapshot {
        /// Steps committed before it; the checkpoint's name carries it.
        steps_done: u64,
    },
    /// The run is done.
    Finish,
}

/// A run's figures, checked: every question about its course has an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunPlan {
    shape: RunShape,
    epoch: EpochShape,
}

impl RunPlan {
    /// Checks the figures; `workers` (how many the run starts with) is only named in errors.
    ///
    /// # Errors
    /// The first of [`RunShape::mistakes`].
    pub fn new(shape: RunShape, workers: u32) -> Result<Self, PlanError> {
        if let Some(mistake) = shape.mistakes(workers).into_iter().next() {
            return Err(mistake);
        }
        let epoch = EpochShape::new(
            shape.samples,
            shape.global_batch,
            shape.micro_batch,
            workers,
        )?;
        Ok(Self { shape, epoch })
    }

    /// The figures this plan was made from.
    #[must_use]
    pub fn shape(&self) -> &RunShape {
        &self.shape
    }

    /// How each epoch falls into steps and micro-batches.
    #[must_use]
    pub fn epoch_shape(&self) -> EpochShape {
        self.epoch
    }

    /// Steps in one epoch.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u32 {
        self.epoch.steps_per_epoch()
    }

    /// Steps in the whole run.
    #[must_use]
    pub fn total_steps(&self) -> u64 {
        u64::from(self.shape.epochs) * u64::from(self.steps_per_epoch())
    }

    /// The epoch of a step of the run, both from 0. Steps past the end fall into epochs past it.
    #[must_use]
    pub fn epoch_of(&self, step: u64) -> u32 {
        u32::try_from(step / u64::from(self.steps_per_epoch())).unwrap_or(u32::MAX)
    }

    /// The step's number in its epoch, from 0.
    #[must_use]
    pub fn step_in_epoch(&self, step: u64) -> u32 {
        // A remainder of a u32 divisor fits.
        (step % u64::from(self.steps_per_epoch())) as u32
    }

    /// The steps of an epoch as numbers of the run.
    #[must_use]
    pub fn steps_of_epoch(&self, epoch: u32) -> Range<u64> {
        let steps = u64::from(self.steps_per_epoch());
        let first = u64::from(epoch) * steps;
        first..first + steps
    }

    /// How many samples the first `steps_done` steps of the run train on.
    #[must_use]
    pub fn samples_done(&self, steps_done: u64) -> u64 {
        let in_epoch = u64::from(self.step_in_epoch(steps_done));
        u64::from(self.epoch_of(steps_done)) * u64::from(self.shape.samples)
            + in_epoch * u64::from(self.shape.global_batch)
    }

    /// What comes at the place `steps_done` once its evaluation and snapshot are done: the next
    /// step, or the end. A run starts with `item_at(0)`; one resumed from a checkpoint goes on with
    /// `item_at` of that checkpoint's steps.
    #[must_use]
    pub fn item_at(&self, steps_done: u64) -> Item {
        if steps_done < self.total_steps() {
            Item::Step(steps_done)
        } else {
            Item::Finish
        }
    }

    /// The item that follows `item`, or `None` after [`Item::Finish`].
    #[must_use]
    pub fn next(&self, item: Item) -> Option<Item> {
        let (steps_done, evaluate_due, snapshot_due) = match item {
            Item::Step(step) => (step + 1, true, true),
            Item::Evaluate { steps_done, .. } => (steps_done, false, true),
            Item::Snapshot { steps_done } => (steps_done, false, false),
            Item::Finish => return None,
        };
        if evaluate_due && let Some(epoch) = self.evaluated_epoch(steps_done) {
            return Some(Item::Evaluate { steps_done, epoch });
        }
        if snapshot_due && self.has_snapshot(steps_done) {
            return Some(Item::Snapshot { steps_done });
        }
        Some(self.item_at(steps_done))
    }

    /// The items from the step at `steps_done` on, made one by one.
    pub fn items_from(&self, steps_done: u64) -> impl Iterator<Item = Item> + use<> {
        let plan = *self;
        std::iter::successors(Some(plan.item_at(steps_done)), move |item| plan.next(*item))
    }

    /// The epoch that ends after `steps_done` steps, if one does.
    #[must_use]
    pub fn ended_epoch(&self, steps_done: u64) -> Option<u32> {
        (steps_done > 0 && steps_done <= self.total_steps() && self.step_in_epoch(steps_done) == 0)
            .then(|| self.epoch_of(steps_done - 1))
    }

    /// The epoch to evaluate after `steps_done` steps, if an evaluation is due there.
    #[must_use]
    pub fn evaluated_epoch(&self, steps_done: u64) -> Option<u32> {
        self.ended_epoch(steps_done).filter(|epoch| {
            let epochs_done = epoch + 1;
            epochs_done.is_multiple_of(self.shape.evaluate_every_epochs)
                || epochs_done == self.shape.epochs
        })
    }

    /// Whether a snapshot is due after `steps_done` steps.
    #[must_use]
    pub fn has_snapshot(&self, steps_done: u64) -> bool {
        if steps_done == 0 || steps_done > self.total_steps() {
            return false;
        }
        let by_steps = self
            .shape
            .snapshot_every_steps
            .is_some_and(|every| steps_done.is_multiple_of(every));
        let by_epochs = self.ended_epoch(steps_done).is_some_and(|epoch| {
            self.shape
                .snapshot_every_epochs
                .is_some_and(|every| (epoch + 1).is_multiple_of(every))
        });
        by_steps || by_epochs || steps_done == self.total_steps()
    }

    /// Draws the permutation of an epoch.
    #[must_use]
    pub fn epoch_plan(&self, epoch: u32) -> EpochPlan {
        EpochPlan::new(self.epoch, self.shape.seed, epoch)
    }

    /// What `rank` does in the run's steps `steps`, over epoch borders, as `assignment` hands it out. Draws
    /// one permutation an epoch touched.
    ///
    /// # Errors
    /// [`PlanError::NoSuchRank`]; [`PlanError::StepsOutOfRange`] past the run's end.
    pub fn rank_steps(
        &self,
        steps: Range<u64>,
        rank: u32,
        assignment: &Assignment,
    ) -> Result<Vec<RankStep>, PlanError> {
        if steps.end > self.total_steps() {
            return Err(PlanError::StepsOutOfRange {
                first: steps.start,
                end: steps.end,
                from: 0,
                to: self.total_steps(),
            });
        }
        let mut planned = Vec::new();
        let mut next = steps.start;
        while next < steps.end {
            let epoch = self.epoch_of(next);
            let end = self.steps_of_epoch(epoch).end.min(steps.end);
            planned.extend(
                self.epoch_plan(epoch)
                    .rank_steps(next..end, rank, assignment)?,
            );
            next = end;
        }
        Ok(planned)
    }
}

#[cfg(test)]
mod tests;
