//! What a whole run will take, from its plan and from a few measured steps: arithmetic alone.
//!
//! The estimate says "as if it went on like the probe". It knows nothing of what a probe cannot show: other work on the
//! machine later on, a page cache that fills, early stopping.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::run_plan::RunPlan;

/// A twentieth of a step's time spent waiting for pictures is more than chance: what is decoded ahead has run out.
const INPUT_BOUND: f64 = 0.05;

/// How often a run does what, from its first step to its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// Steps, the shorter last one of each epoch included.
    pub steps: u64,
    /// Training images, each epoch counted.
    pub images: u64,
    /// Evaluations.
    pub evaluations: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Checkpoints on disk at the same time at most: the newest that are kept, the best, and the one being written.
    pub checkpoints_at_once: u64,
}

impl Course {
    /// Of a run that keeps its newest `keep` checkpoints and, if told so, ends with one after `stop_after` steps.
    #[must_use]
    pub fn of(plan: &RunPlan, keep: NonZeroU32, stop_after: Option<u64>) -> Self {
        let total = plan.total_steps();
        let steps = stop_after.map_or(total, |stop| stop.clamp(1, total));
        let count =
            |due: &dyn Fn(u64) -> bool| (1..=steps).filter(|&done| due(done)).count() as u64;
        // Whoever stops early leaves a checkpoint of where it stopped.
        let checkpoints = count(&|done| plan.has_snapshot(done) || done == steps);
        Self {
            steps,
            images: plan.samples_done(steps),
            evaluations: count(&|done| plan.evaluated_epoch(done).is_some()),
            checkpoints,
            checkpoints_at_once: checkpoints.min(u64::from(keep.get()) + 2),
        }
    }
}

/// What a probe measured; times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// From starting the workers to the begin of the first step.
    pub start: f64,
    /// Of each step, from the commit before it to its own; in order, at least one.
    pub steps: Vec<f64>,
    /// Images of a step.
    pub images_per_step: u32,
    /// Fraction of the steps' time that ranks waited for decoded pictures, mean over ranks.
    pub data_wait: f64,
    /// A step of one worker by itself on as many images as the busiest worker has, without its wait for pictures.
    /// `None`: the run has one worker.
    pub alone: Option<f64>,
    /// One evaluation.
    pub evaluation: f64,
    /// Rows that it scored.
    pub rows: u32,
    /// By how much a checkpoint made the steps beside it longer.
    pub checkpoint: f64,
    /// From the step before a checkpoint until it was in place; training goes on meanwhile.
    pub checkpoint_written: f64,
    /// Size of a checkpoint.
    pub checkpoint_bytes: u64,
}

/// A figure with its spread: as if every step were like the fastest quarter of the probe's, like all, like the slowest.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spread {
    /// Like the fastest quarter.
    pub low: f64,
    /// Like all of them.
    pub mean: f64,
    /// Like the slowest quarter.
    pub high: f64,
}

impl Spread {
    /// Every end multiplied.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self {
            low: factor * self.low,
            mean: factor * self.mean,
            high: factor * self.high,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            low: self.low + other.low,
            mean: self.mean + other.mean,
            high: self.high + other.high,
        }
    }
}

/// Where a run's time goes, as fractions of it that add up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Shares {
    /// Starting workers.
    pub start: f64,
    /// Steps: waiting for decoded pictures.
    pub input: f64,
    /// Steps: what one worker by itself takes for its share.
    pub compute: f64,
    /// Steps: what they take beyond that, with several workers: sums among them, waiting for the slowest, sharing memory
    /// and processors.
    pub communication: f64,
    /// Evaluations.
    pub evaluation: f64,
    /// Checkpoints.
    pub checkpoints: f64,
}

/// What to look at first to make a run shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bottleneck {
    /// Starting workers.
    Start,
    /// Decoding pictures.
    Input,
    /// Forward, backward and update.
    Compute,
    /// What several workers cost beyond their own work.
    Communication,
    /// Scoring.
    Evaluation,
    /// Writing checkpoints.
    Checkpoints,
}

impl Shares {
    /// All of the steps.
    #[must_use]
    pub fn steps(&self) -> f64 {
        self.input + self.compute + self.communication
    }

    /// The share of a part.
    #[must_use]
    pub fn of(&self, part: Bottleneck) -> f64 {
        match part {
            Bottleneck::Start => self.start,
            Bottleneck::Input => self.input,
            Bottleneck::Compute => self.compute,
            Bottleneck::Communication => self.communication,
            Bottleneck::Evaluation => self.evaluation,
            Bottleneck::Checkpoints => self.checkpoints,
        }
    }

    /// The bottleneck: of start, steps, evaluation and checkpoints the largest.
    ///
    /// Within steps it is the input as soon as ranks wait for it: pictures are decoded ahead while the model computes, so a
    /// step that waits takes as long as decoding does, and computing faster would only make the wait longer. Otherwise the
    /// larger of the other two.
    #[must_use]
    pub fn bottleneck(&self) -> Bottleneck {
        let steps = self.steps();
        if steps >= self.start.max(self.evaluation).max(self.checkpoints) {
            return if self.input > INPUT_BOUND * steps {
                Bottleneck::Input
            } else if self.communication > self.compute {
                Bottleneck::Communication
            } else {
                Bottleneck::Compute
            };
        }
        if self.evaluation >= self.start.max(self.checkpoints) {
            Bottleneck::Evaluation
        } else if self.checkpoints >= self.start {
            Bottleneck::Checkpoints
        } else {
            Bottleneck::Start
        }
    }
}

/// What a run will take if it goes on like the probe; times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// One full step.
    pub step: Spread,
    /// Training images a second, within steps; `low` is that of the slowest quarter.
    pub images_per_second: Spread,
    /// The steps of one epoch.
    pub epoch: Spread,
    /// One evaluation.
    pub evaluation: Spread,
    /// One checkpoint, as far as training is longer by it.
    pub checkpoint: Spread,
    /// The whole run, from starting the workers to the last checkpoint.
    pub run: Spread,
    /// Where its time goes.
    pub shares: Shares,
    /// What to look at first.
    pub bottleneck: Bottleneck,
}

/// Extrapolates; `None` where no step, no image or no row was measured.
///
/// `epoch_images`: those of one epoch. `rows`: what one evaluation scores.
#[must_use]
pub fn estimate(
    course: &Course,
    epoch_images: u32,
    rows: u32,
    measured: &Measured,
) -> Option<Estimate> {
    let step = spread(&measured.steps).filter(|step| step.mean > 0.0)?;
    if measured.images_per_step == 0 || measured.rows == 0 {
        return None;
    }
    // A shorter last step takes as much less as it has fewer images.
    let steps_for = |images: f64| images / f64::from(measured.images_per_step);
    let training = step.times(steps_for(course.images as f64));
    // One evaluation shows no spread of its own; what slows a step slows it too.
    let (faster, slower) = (step.low / step.mean, step.high / step.mean);
    let like_steps = |seconds: f64| Spread {
        low: faster * seconds,
        mean: seconds,
        high: slower * seconds,
    };
    let evaluation = like_steps(measured.evaluation * f64::from(rows) / f64::from(measured.rows));
    let (added, written) = (
        measured.checkpoint.max(0.0),
        measured
            .checkpoint_written
            .max(measured.checkpoint)
            .max(0.0),
    );
    // At best a checkpoint is written beside training and costs nothing, at worst training waits for all of it.
    let checkpoint = Spread {
        low: 0.0,
        mean: added,
        high: written,
    };
    // The end waits for the last checkpoint.
    let last = Spread {
        low: written,
        mean: written,
        high: written,
    };
    let checkpoints = match course.checkpoints.checked_sub(1) {
        Some(before) => checkpoint.times(before as f64).plus(last),
        None => Spread::default(),
    };
    let evaluations = evaluation.times(course.evaluations as f64);
    let start = like_steps(measured.start);
    let run = start.plus(training).plus(evaluations).plus(checkpoints);
    let shares = shares(
        &step,
        measured,
        [start, training, evaluations, checkpoints, run],
    );
    Some(Estimate {
        step,
        images_per_second: Spread {
            low: f64::from(measured.images_per_step) / step.high,
            mean: f64::from(measured.images_per_step) / step.mean,
            high: f64::from(measured.images_per_step) / step.low.max(f64::MIN_POSITIVE),
        },
        epoch: step.times(steps_for(f64::from(epoch_images))),
        evaluation,
        checkpoint,
        run,
        shares,
        bottleneck: shares.bottleneck(),
    })
}

fn shares(
    step: &Spread,
    measured: &Measured,
    [start, training, evaluations, checkpoints, run]: [Spread; 5],
) -> Shares {
    let of_run = |part: f64| part / run.mean;
    let steps = of_run(training.mean);
    let input = measured.data_wait.clamp(0.0, 1.0);
    let busy = 1.0 - input;
    let compute = match measured.alone {
        Some(alone) => (alone.max(0.0) / step.mean).min(busy),
        None => busy,
    };
    Shares {
        start: of_run(start.mean),
        input: steps * input,
        compute: steps * compute,
        communication: steps * (busy - compute),
        evaluation: of_run(evaluations.mean),
        checkpoints: of_run(checkpoints.mean),
    }
}

/// The means of the fastest quarter, of all, and of the slowest quarter; `None` of nothing.
#[must_use]
pub fn spread(figures: &[f64]) -> Option<Spread> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quarter = sorted.len().div_ceil(4);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    (!sorted.is_empty()).then(|| Spread {
        low: mean(&sorted[..quarter]),
        mean: mean(&sorted),
        high: mean(&sorted[sorted.len() - quarter..]),
    })
}

#[cfg(test)]
mod tests;
