//! From an epoch to micro-batches to ranks.
//!
//! A step takes the next `global_batch` samples of the epoch's permutation and cuts them, in
//! order, into micro-batches of `micro_batch`. Only then come ranks: each is handed whole
//! micro-batches, as evenly as they go. So what batch normalisation sees never depends on how many
//! workers there are.
//!
//! Tails: the last step of an epoch takes what is left. A micro-batch of one sample is never
//! formed, because batch normalisation over one value per channel has no variance (libtorch writes
//! NaN into `running_var` without an error): a single sample left over joins the micro-batch before
//! it, if need be the last one of the step before.
//!
//! A *sample id* here is the sample's position in its split, `0..samples`, in annotation-file order.

use std::ops::Range;

use crate::assignment::Assignment;
use crate::permutation::permutation;

mod error;

pub use error::PlanError;

/// How an epoch falls into steps and micro-batches, the same for every epoch and every world size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochShape {
    samples: u32,
    global_batch: u32,
    micro_batch: u32,
}

/// One step of an epoch, cut into micro-batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepShape {
    /// The step's number in its epoch, from 0.
    pub step_in_epoch: u32,
    /// Ranges into the epoch's permutation, in order and touching; each holds at least two samples.
    pub micro_batches: Vec<Range<u32>>,
}

impl StepShape {
    /// How many samples the step trains on, over all ranks.
    #[must_use]
    pub fn samples(&self) -> u32 {
        self.micro_batches
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }
}

impl EpochShape {
    /// The shape of an epoch over `samples` samples.
    ///
    /// `workers` shapes nothing; it is named in errors.
    ///
    /// # Errors
    /// The first of [`EpochShape::mistakes`].
    pub fn new(
        samples: u32,
        global_batch: u32,
        micro_batch: u32,
        workers: u32,
    ) -> Result<Self, PlanError> {
        match Self::mistakes(samples, global_batch, micro_batch, workers)
            .into_iter()
            .next()
        {
            Some(mistake) => Err(mistake),
            None => Ok(Self {
                samples,
                global_batch,
                micro_batch,
            }),
        }
    }

    /// Everything that keeps these figures from being an epoch, all at once.
    #[must_use]
    pub fn mistakes(
        samples: u32,
        global_batch: u32,
        micro_batch: u32,
        workers: u32,
    ) -> Vec<PlanError> {
        let mut mistakes = Vec::new();
        match samples {
            0 => mistakes.push(PlanError::EmptySplit { split: "training" }),
            1 => mistakes.push(PlanError::SplitOfOne {
                global_batch,
                workers,
                step: 0,
                slice: 0,
            }),
            _ => {}
        }
        match (global_batch, micro_batch) {
            (0, 0) => mistakes.extend([
                PlanError::Zero {
                    key: "train.global_batch",
                },
                PlanError::Zero {
                    key: "train.micro_batch",
                },
            ]),
            (0, _) => mistakes.push(PlanError::Zero {
                key: "train.global_batch",
            }),
            (_, 0) => mistakes.push(PlanError::Zero {
                key: "train.micro_batch",
            }),
            (_, 1) => mistakes.push(PlanError::MicroBatchOfOne {
                global_batch,
                workers,
                step: 0,
                slice: 0,
            }),
            _ if micro_batch > global_batch => {
                mistakes.push(PlanError::MicroBatchTooLarge {
                    global_batch,
                    micro_batch,
                });
            }
            _ if !global_batch.is_multiple_of(micro_batch) => {
                mistakes.push(PlanError::NotAMultiple {
                    global_batch,
                    micro_batch,
                });
            }
            _ => {}
        }
        mistakes
    }

    /// How many samples an epoch visits.
    #[must_use]
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// M, the micro-batches of a full step; ranks beyond M are spares.
    #[must_use]
    pub fn micro_batches_per_step(&self) -> u32 {
        self.global_batch / self.micro_batch
    }

    /// How many steps an epoch has, the shorter last one included.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u32 {
        // A single sample left over joins the step before; the constructor refused a split of one.
        self.samples / self.global_batch + u32::from(self.samples % self.global_batch >= 2)
    }

    /// The step `step_in_epoch` (from 0), or `None` past the epoch's end.
    #[must_use]
    pub fn step(&self, step_in_epoch: u32) -> Option<StepShape> {
        let samples = self.samples_of(step_in_epoch)?;
        let pieces = pieces(&samples, self.micro_batch);
        Some(StepShape {
            step_in_epoch,
            micro_batches: (0..pieces)
                .map(|index| piece(&samples, self.micro_batch, index))
                .collect(),
        })
    }

    /// Where the step's samples lie in the epoch's permutation, or `None` past the epoch's end.
    fn samples_of(&self, step_in_epoch: u32) -> Option<Range<u32>> {
        let steps = self.steps_per_epoch();
        if step_in_epoch >= steps {
            return None;
        }
        let start = step_in_epoch * self.global_batch;
        let end = if step_in_epoch + 1 == steps {
            self.samples
        } else {
            start + self.global_batch
        };
        Some(start..end)
    }

    /// All steps of the epoch in order.
    pub fn steps(self) -> impl Iterator<Item = StepShape> {
        (0..self.steps_per_epoch()).map_while(move |step| self.step(step))
    }
}

/// Into how many micro-batches a step of at least two samples is cut; one sample left over joins the last.
fn pieces(step: &Range<u32>, micro_batch: u32) -> u32 {
    let len = step.end - step.start;
    len / micro_batch + u32::from(len % micro_batch >= 2)
}

/// The micro-batch `index` of a step.
fn piece(step: &Range<u32>, micro_batch: u32, index: u32) -> Range<u32> {
    let start = step.start + index * micro_batch;
    let end = if index + 1 == pieces(step, micro_batch) {
        step.end
    } else {
        start + micro_batch
    };
    start..end
}

/// What `rank` is handed of `count` things that `world_size` ranks share in order: contiguous ranges whose lengths differ
/// by at most one, the longer ones first. Ranks beyond `count` get an empty range.
#[must_use]
pub fn share(count: usize, world_size: u32, rank: u32) -> Range<usize> {
    let (world, rank) = (world_size as usize, rank as usize);
    if rank >= world {
        return 0..0;
    }
    let (each, longer) = (count / world, count % world);
    let start = rank * each + rank.min(longer);
    start..start + each + usize::from(rank < longer)
}

/// Which validation samples `rank` scores: a contiguous range of `0..samples`.
#[must_use]
pub fn share_of_evaluation(samples: u32, world_size: u32, rank: u32) -> Range<u32> {
    let share = share(samples as usize, world_size, rank);
    share.start as u32..share.end as u32
}

/// Samples that one rank takes through forward and backward in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicroBatch {
    /// The micro-batch's number in its step, from 0, over all ranks.
    pub index: u32,
    /// The samples, in the permutation's order; at least two.
    pub sample_ids: Vec<u32>,
}

/// What one rank does in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankStep {
    /// The step's number in the run, from 0.
    pub step: u64,
    /// The epoch it belongs to, from 0.
    pub epoch: u32,
    /// This rank's micro-batches; empty where there are fewer than ranks, and the rank then
    /// contributes zeros to the all-reduce.
    pub micro_batches: Vec<MicroBatch>,
    /// How many samples the step has over all ranks: the weight's denominator.
    pub samples_in_step: u32,
}

/// One epoch with its permutation drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochPlan {
    shape: EpochShape,
    epoch: u32,
    permutation: Vec<u32>,
}

impl EpochPlan {
    /// Draws the epoch's permutation: O(samples) time, 4 bytes a sample.
    #[must_use]
    pub fn new(shape: EpochShape, seed: u64, epoch: u32) -> Self {
        Self {
            shape,
            epoch,
            permutation: permutation(seed, epoch, shape.samples()),
        }
    }

    /// The epoch's number, from 0.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The run's number of this epoch's first step.
    #[must_use]
    pub fn first_step(&self) -> u64 {
        u64::from(self.epoch) * u64::from(self.shape.steps_per_epoch())
    }

    /// The sample ids of one step over all ranks in order; empty past the epoch's end.
    #[must_use]
    pub fn samples_of_step(&self, step_in_epoch: u32) -> &[u32] {
        match self.shape.samples_of(step_in_epoch) {
            Some(samples) => &self.permutation[samples.start as usize..samples.end as usize],
            None => &[],
        }
    }

    /// What `rank` does in the run's steps `steps`, which lie in this epoch, as `assignment` hands it out.
    ///
    /// # Errors
    /// [`PlanError::NoSuchRank`]; [`PlanError::StepsOutOfRange`] for steps of another epoch.
    pub fn rank_steps(
        &self,
        steps: Range<u64>,
        rank: u32,
        assignment: &Assignment,
    ) -> Result<Vec<RankStep>, PlanError> {
        let world_size = assignment.world_size();
        if rank >= world_size {
            return Err(PlanError::NoSuchRank { rank, world_size });
        }
        let from = self.first_step();
        let to = from + u64::from(self.shape.steps_per_epoch());
        if steps.start < from || steps.end > to {
            return Err(PlanError::StepsOutOfRange {
                first: steps.start,
                end: steps.end,
                from,
                to,
            });
        }
        Ok(steps
            .filter_map(|step| {
                let samples = self.shape.samples_of((step - from) as u32)?;
                Some(self.rank_step(step, &samples, rank, assignment))
            })
            .collect())
    }

    fn rank_step(
        &self,
        step: u64,
        samples: &Range<u32>,
        rank: u32,
        assignment: &Assignment,
    ) -> RankStep {
        let micro_batch = self.shape.micro_batch;
        let count = pieces(samples, micro_batch);
        let micro_batches = assignment
            .micro_batches(step, count, rank)
            .into_iter()
            .filter(|index| *index < count)
            .map(|index| {
                let range = piece(samples, micro_batch, index);
                MicroBatch {
                    index,
                    sample_ids: self.permutation[range.start as usize..range.end as usize].to_vec(),
                }
            })
            .collect();
        RankStep {
            step,
            epoch: self.epoch,
            micro_batches,
            samples_in_step: samples.end - samples.start,
        }
    }
}

#[cfg(test)]
mod tests;
