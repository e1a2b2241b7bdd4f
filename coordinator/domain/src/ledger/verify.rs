//! The check that anyone can run on a ledger: over an epoch the samples trained on (or skipped as
//! such) are the split, each exactly once. It expands every committed step into its samples and
//! counts them, so it also catches a plan that is wrong.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Generation, Ledger, Stretch};
use crate::plan::EpochPlan;
use crate::run_plan::RunPlan;

/// How many sample ids a verification names of each kind; counts are always whole.
const NAMED: usize = 10;

/// Something in a ledger that its own operations never produce.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Defect {
    /// Numbers of generations must grow.
    #[error("generation {generation} follows generation {after}: the ledger's numbers do not grow")]
    NumbersDoNotGrow {
        /// The later entry.
        generation: u64,
        /// The entry before it.
        after: u64,
    },
    /// A step is in no generation.
    #[error("steps {from} to {to} were committed by no generation although later ones were")]
    Hole {
        /// The first such step.
        from: u64,
        /// The last such step.
        to: u64,
    },
    /// A step is in two generations.
    #[error(
        "generation {generation} committed step {step}, which an older generation of the lineage had \
         committed already"
    )]
    Overlap {
        /// The later generation.
        generation: u64,
        /// The first such step.
        step: u64,
    },
    /// A stretch that ends before it starts, or does not start where its generation does.
    #[error("generation {generation} holds a stretch that is not one (steps {first} to {last})")]
    BadStretch {
        /// The generation.
        generation: u64,
        /// The stretch's first step.
        first: u64,
        /// The stretch's last step.
        last: u64,
    },
    /// A step that the run does not have.
    #[error(
        "generation {generation} committed step {step}, but the run has only {total_steps} steps: \
         is this ledger of another run?"
    )]
    BeyondTheRun {
        /// The generation.
        generation: u64,
        /// The last step it committed.
        step: u64,
        /// The run's steps.
        total_steps: u64,
    },
    /// A step was not handed out whole, or parts of it twice.
    #[error(
        "generation {generation} handed out the micro-batches of step {step} as {micro_batches:?}, which is not each \
         of {count} once"
    )]
    NotHandedOutOnce {
        /// The generation.
        generation: u64,
        /// The step.
        step: u64,
        /// By rank.
        micro_batches: Vec<Vec<u32>>,
        /// How many micro-batches the step has.
        count: u32,
    },
    /// A sample was recorded as skipped in a step that never was to train on it.
    #[error("sample {sample} was recorded as skipped in step {step}, which does not hold it")]
    SkippedElsewhere {
        /// The step.
        step: u64,
        /// The sample.
        sample: u32,
    },
}

/// Whether an epoch is what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochState {
    /// Every sample of the split exactly once.
    Complete,
    /// No sample twice; steps are still to come.
    InProgress,
    /// A sample twice, or one missing although every step is committed.
    Broken,
}

/// A generation's part in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EpochStretch {
    /// The generation.
    pub generation: u64,
    /// Its steps in this epoch, numbered over the run.
    pub steps: Stretch,
}

/// One epoch, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EpochVerification {
    /// The epoch, from 0.
    pub epoch: u32,
    /// The verdict.
    pub state: EpochState,
    /// The committed stretches in order of their generations.
    pub stretches: Vec<EpochStretch>,
    /// The stretches that became void, in the order in which they did.
    pub void: Vec<EpochStretch>,
    /// Steps an epoch has.
    pub steps: u32,
    /// Steps of it that are committed.
    pub committed_steps: u32,
    /// Samples trained on at least once.
    pub samples_trained: u32,
    /// Samples skipped as such in committed steps.
    pub samples_skipped: u32,
    /// Committed steps that changed nothing, since their loss or gradient was not finite.
    pub steps_passed_over: u32,
    /// Samples of those steps: they count as trained on, and nothing was learned from them.
    pub samples_passed_over: u32,
    /// Samples of the split that no committed step holds.
    pub samples_missing: u32,
    /// Samples that committed steps hold more than once.
    pub samples_repeated: u32,
    /// The first few of the missing.
    pub first_missing: Vec<u32>,
    /// The first few of the repeated.
    pub first_repeated: Vec<u32>,
}

/// A whole ledger, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Every epoch that has a committed or a void step.
    pub epochs: Vec<EpochVerification>,
    /// What is wrong with the lineage itself.
    pub defects: Vec<Defect>,
}

impl Verification {
    /// Whether nothing is wrong: complete epochs hold the split exactly once, the present one no
    /// sample twice.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.defects.is_empty()
            && self
                .epochs
                .iter()
                .all(|epoch| epoch.state != EpochState::Broken)
    }
}

impl Ledger {
    /// Counts every committed sample of every epoch against the split.
    ///
    /// O(epochs × samples) time, one byte and one permutation entry a sample in memory.
    #[must_use]
    pub fn verify(&self, plan: &RunPlan) -> Verification {
        let mut defects = self.lineage_defects(plan);
        let committed = self
            .generations()
            .iter()
            .filter_map(|generation| Some((generation.number, generation.committed?)));
        let void = self.void().iter().map(|void| (void.generation, void.steps));
        let mut stretches = by_epoch(committed, plan);
        let mut voids = by_epoch(void, plan);
        let last = stretches.keys().chain(voids.keys()).max().copied();
        let mut epochs = Vec::new();
        for epoch in last.into_iter().flat_map(|last| 0..=last) {
            let stretches = stretches.remove(&epoch).unwrap_or_default();
            let void = voids.remove(&epoch).unwrap_or_default();
            epochs.push(self.verify_epoch(plan, epoch, stretches, void, &mut defects));
        }
        Verification { epochs, defects }
    }

    fn verify_epoch(
        &self,
        plan: &RunPlan,
        epoch: u32,
        stretches: Vec<EpochStretch>,
        void: Vec<EpochStretch>,
        defects: &mut Vec<Defect>,
    ) -> EpochVerification {
        let drawn = plan.epoch_plan(epoch);
        let samples = plan.shape().samples;
        let mut times = vec![0u8; samples as usize];
        let (mut committed_steps, mut samples_skipped) = (0u32, 0u32);
        let (mut steps_passed_over, mut samples_passed_over) = (0u32, 0u32);
        for step in stretches
            .iter()
            .flat_map(|stretch| stretch.steps.first..stretch.steps.end())
        {
            committed_steps = committed_steps.saturating_add(1);
            let ids = drawn.samples_of_step(plan.step_in_epoch(step));
            for &sample in ids {
                let times = &mut times[sample as usize];
                *times = times.saturating_add(1);
            }
            let skipped = self.count_skipped(step, &drawn, plan, defects);
            samples_skipped += skipped;
            if self.passed_over().binary_search(&step).is_ok() {
                steps_passed_over += 1;
                samples_passed_over += (ids.len() as u32).saturating_sub(skipped);
            }
        }
        let all_with = |wanted: fn(u8) -> bool| {
            (0..samples)
                .filter(|&sample| wanted(times[sample as usize]))
                .collect::<Vec<_>>()
        };
        let (mut missing, mut repeated) = (all_with(|n| n == 0), all_with(|n| n > 1));
        let (samples_missing, samples_repeated) = (missing.len() as u32, repeated.len() as u32);
        missing.truncate(NAMED);
        repeated.truncate(NAMED);
        let steps = plan.steps_per_epoch();
        let state = match (samples_repeated, samples_missing, committed_steps >= steps) {
            (0, 0, _) => EpochState::Complete,
            (0, _, false) => EpochState::InProgress,
            _ => EpochState::Broken,
        };
        EpochVerification {
            epoch,
            state,
            stretches,
            void,
            steps,
            committed_steps,
            samples_trained: (samples - samples_missing).saturating_sub(samples_skipped),
            samples_skipped,
            steps_passed_over,
            samples_passed_over,
            samples_missing,
            samples_repeated,
            first_missing: missing,
            first_repeated: repeated,
        }
    }

    /// How many samples of a committed step were skipped as such.
    fn count_skipped(
        &self,
        step: u64,
        drawn: &EpochPlan,
        plan: &RunPlan,
        defects: &mut Vec<Defect>,
    ) -> u32 {
        let ids = drawn.samples_of_step(plan.step_in_epoch(step));
        let first = self
            .skipped()
            .partition_point(|skipped| skipped.step < step);
        let mut count = 0;
        for skipped in self.skipped()[first..]
            .iter()
            .take_while(|skipped| skipped.step == step)
        {
            if ids.contains(&skipped.sample) {
                count += 1;
            } else {
                defects.push(Defect::SkippedElsewhere {
                    step,
                    sample: skipped.sample,
                });
            }
        }
        count
    }

    /// Whether the committed stretches are one chain from step 0 on.
    fn lineage_defects(&self, plan: &RunPlan) -> Vec<Defect> {
        let mut defects = Vec::new();
        let total_steps = plan.total_steps();
        for pair in self.generations().windows(2) {
            if pair[1].number <= pair[0].number {
                let (generation, after) = (pair[1].number, pair[0].number);
                defects.push(Defect::NumbersDoNotGrow { generation, after });
            }
        }
        let mut next = 0;
        for generation in self.generations() {
            let Some(Stretch { first, last }) = generation.committed else {
                continue;
            };
            let generation_number = generation.number;
            if last < first || first != generation.begins_at_step {
                defects.push(Defect::BadStretch {
                    generation: generation_number,
                    first,
                    last,
                });
            }
            if first > next {
                defects.push(Defect::Hole {
                    from: next,
                    to: first - 1,
                });
            }
            if first < next {
                defects.push(Defect::Overlap {
                    generation: generation_number,
                    step: first,
                });
            }
            if last >= total_steps {
                defects.push(Defect::BeyondTheRun {
                    generation: generation_number,
                    step: last,
                    total_steps,
                });
            }
            next = next.max(last.saturating_add(1));
            defects.extend(first_step_defect(generation, plan));
        }
        defects
    }
}

/// What ranks report is compared with what they were handed; so that must be everything, and once.
fn first_step_defect(generation: &Generation, plan: &RunPlan) -> Option<Defect> {
    let first = generation.first_step.as_ref()?;
    let shape = plan.epoch_shape().step(plan.step_in_epoch(first.step))?;
    let count = shape.micro_batches.len() as u32;
    let fits = first.step == generation.begins_at_step
        && first.micro_batches.len() == generation.members.len()
        && first.is_whole(count);
    (!fits).then(|| Defect::NotHandedOutOnce {
        generation: generation.number,
        step: first.step,
        micro_batches: first.micro_batches.clone(),
        count,
    })
}

/// Cuts stretches at the borders of epochs, leaving out what the run does not have.
fn by_epoch(
    stretches: impl Iterator<Item = (u64, Stretch)>,
    plan: &RunPlan,
) -> BTreeMap<u32, Vec<EpochStretch>> {
    let mut epochs: BTreeMap<u32, Vec<EpochStretch>> = BTreeMap::new();
    for (generation, steps) in stretches {
        let end = steps.end().min(plan.total_steps());
        let mut first = steps.first;
        while first < end {
            let epoch = plan.epoch_of(first);
            let border = plan.steps_of_epoch(epoch).end.min(end);
            let steps = Stretch {
                first,
                last: border - 1,
            };
            epochs
                .entry(epoch)
                .or_default()
                .push(EpochStretch { generation, steps });
            first = border;
        }
    }
    epochs
}
