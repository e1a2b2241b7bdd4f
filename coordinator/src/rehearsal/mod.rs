//! A dry run: a short real run in a folder that is removed again, and what follows from it for the whole run.
//!
//! ```text
//! picked ── few samples of the real split ──► probe ── ordinary run::serve, ordinary workers ──► Observed
//!                                                                                                  │ measured
//! text, json ◄── Rehearsal ◄── domain::rehearsal::estimate ◄── Measured ◄──────────────────────────┘
//! ```
//!
//! Must not know: how a step is computed, or any way of starting workers but the one of a real run.

mod advice;
mod json;
mod measured;
mod memory;
mod picked;
mod probe;
mod schedule;
mod text;

use std::path::PathBuf;

use domain::rehearsal::{Course, Estimate, Measured, Spread};

pub(crate) use advice::sentence;
pub(crate) use measured::{BESIDE, Legs, measured};
pub(crate) use memory::{MachineMemory, peak_of_this_process};
pub(crate) use probe::{Leg, Observed, ProbeError, WARM_UP, run as probe};
pub(crate) use schedule::{Milestone, milestones};

/// What the plan says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    /// Training and validation images.
    pub(crate) images: (u32, u32),
    /// Worker processes.
    pub(crate) workers: u32,
    /// `cpu`, `cuda`, or what else `run.device` says.
    pub(crate) device: &'static str,
    /// Samples in a step, and in a micro-batch.
    pub(crate) batch: (u32, u32),
    /// Epochs, and steps in each.
    pub(crate) epochs: (u32, u32),
    /// Images of an epoch's last step.
    pub(crate) last_step_images: u32,
    /// Rows that one evaluation scores.
    pub(crate) rows: u32,
    /// How often what.
    pub(crate) course: Course,
    /// `train.schedule`.
    pub(crate) schedule: String,
    /// Where the learning rate turns.
    pub(crate) milestones: Vec<Milestone>,
}

/// What the probe showed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Probed {
    /// The figures that are extrapolated.
    pub(crate) measured: Measured,
    /// Most memory that each worker had, by name, in bytes.
    pub(crate) worker_memory: Vec<(String, u64)>,
    /// Most memory that this process had.
    pub(crate) coordinator_memory: u64,
    /// What this machine has.
    pub(crate) machine_memory: MachineMemory,
    /// Bytes in use and in all of the CUDA device that is fullest, other programs included.
    pub(crate) device_memory: Option<(u64, u64)>,
}

impl Probed {
    /// Bytes of all processes at their peaks.
    pub(crate) fn memory(&self) -> u64 {
        let workers = self.worker_memory.iter().map(|(_, bytes)| bytes);
        workers.sum::<u64>() + self.coordinator_memory
    }
}

/// Everything that a dry run tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rehearsal {
    /// As the person gave it; nothing was made there.
    pub(crate) run_dir: PathBuf,
    pub(crate) planned: Planned,
    /// `None`: the workers are started by someone else.
    pub(crate) probed: Option<Probed>,
    pub(crate) estimate: Option<Estimate>,
    /// What to look at first, in one sentence.
    pub(crate) bottleneck: Option<String>,
    /// Of one checkpoint; measured, or counted from the config where there was no probe.
    pub(crate) checkpoint_bytes: u64,
    /// Free where the run directory would be.
    pub(crate) free_bytes: Option<u64>,
    /// `--price-per-worker-hour`.
    pub(crate) price: Option<f64>,
    /// `--seeds`: runs one after another.
    pub(crate) runs: u32,
    /// What the estimate does not cover.
    pub(crate) notes: Vec<String>,
    /// What will go wrong, or may.
    pub(crate) warnings: Vec<String>,
}

impl Rehearsal {
    /// Bytes of the checkpoints that are on disk at the same time; with several seeds those of all but the last are done.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let at_once = self.planned.course.checkpoints_at_once;
        let bytes = self.checkpoint_bytes.saturating_mul(at_once);
        bytes.saturating_mul(u64::from(self.runs))
    }

    /// Seconds of all runs.
    pub(crate) fn all_runs(&self) -> Option<Spread> {
        Some(self.estimate?.run.times(f64::from(self.runs)))
    }

    /// Hours of all workers together, all runs.
    pub(crate) fn worker_hours(&self) -> Option<Spread> {
        let hours = f64::from(self.planned.workers) / 3600.0;
        Some(self.all_runs()?.times(hours))
    }

    /// In the currency of the price.
    pub(crate) fn cost(&self) -> Option<Spread> {
        Some(self.worker_hours()?.times(self.price?))
    }

    /// Adds what the figures themselves warn of.
    pub(crate) fn look_for_trouble(&mut self) {
        if let Some(probed) = &self.probed {
            self.warnings
                .extend(probed.machine_memory.warning(probed.memory()));
        }
        let needed = self.disk_bytes();
        if let Some(free) = self.free_bytes.filter(|free| *free < needed) {
            use crate::terminal::figures::bytes;
            self.warnings.push(format!(
                "checkpoints need {} at the same time and {} are free at {}: make room, choose another --run-dir, or lower \
                 run.keep_checkpoints",
                bytes(needed),
                bytes(free),
                self.run_dir.display()
            ));
        }
    }
}
