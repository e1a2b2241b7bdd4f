//! What this rank has done of the step in flight. It outlives the step's generation: the micro-batches that were done
//! whole when a peer died need not be done again, if their gradients were kept as well ([`nccl_rs::KeptGradients`]).

use std::time::Duration;

use model::HgatFc;
use proto::v1;
use tch::{TchError, Tensor};

use super::batch::DeviceBatch;
use super::tally::{Seen, Tally, Wishes};
use super::witness::{self, Place};
use crate::error::WorkerError;

/// A rank's part of one step.
#[derive(Debug)]
pub(crate) struct Work {
    place: Place,
    /// What it is handed, in order.
    micro_batches: Vec<v1::MicroBatch>,
    /// How many of them, or of their parts, have gone forward.
    done: usize,
    sample_ids: Vec<u32>,
    skipped: Vec<v1::SkippedSample>,
    forward: Duration,
    /// Loss and batch statistics of these passes, and after its all-reduce of all ranks'.
    pub(crate) tally: Tally,
}

impl Work {
    /// No work, for this model.
    ///
    /// # Errors
    /// When the tally cannot be allocated.
    pub(crate) fn new(model: &HgatFc) -> Result<Self, TchError> {
        let like = model.running_statistics();
        Ok(Self {
            place: Place::default(),
            micro_batches: Vec::new(),
            done: 0,
            sample_ids: Vec::new(),
            skipped: Vec::new(),
            forward: Duration::ZERO,
            tally: Tally::new(like.numel() as i64, like.kind(), like.device())?,
        })
    }

    /// Nothing is done of a step of so many samples over all ranks.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn start_over(&mut self, samples_in_step: u32) -> Result<(), TchError> {
        self.forget();
        self.tally.begin(samples_in_step)
    }

    /// Begins this rank's part of a step, or goes on with it in another generation; `plan` begins with what is done.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn begin(
        &mut self,
        place: Place,
        plan: &v1::StepPlan,
        wishes: Wishes,
    ) -> Result<(), TchError> {
        self.micro_batches.clone_from(&plan.micro_batches);
        self.place = place;
        if self.done > 0 {
            witness::keeps(place, &self.sample_ids);
        }
        self.tally.wish(wishes)
    }

    /// Nothing of it is to be used.
    pub(crate) fn forget(&mut self) {
        self.done = 0;
        self.micro_batches.clear();
        self.sample_ids.clear();
        self.skipped.clear();
        self.forward = Duration::ZERO;
    }

    /// The step that it is a part of.
    pub(crate) fn step(&self) -> u64 {
        self.place.step
    }

    /// The micro-batches that are done, in a generation that does not cut them into parts.
    pub(crate) fn done(&self) -> &[v1::MicroBatch] {
        self.micro_batches
            .get(..self.done)
            .unwrap_or(&self.micro_batches)
    }

    /// The batch without micro-batches that skipped pictures left with a single sample, of which batch normalisation has no
    /// statistics; none if nothing is left.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn usable(
        &mut self,
        mut batch: DeviceBatch,
    ) -> Result<Option<DeviceBatch>, TchError> {
        self.skipped.append(&mut batch.skipped);
        let single = batch.without_single_samples()?;
        self.skipped
            .extend(single.into_iter().map(|sample_id| v1::SkippedSample {
                sample_id,
                reason: "no other picture of its micro-batch could be read".to_owned(),
            }));
        if batch.len() == 0 {
            self.done += batch.micro_batches;
            return Ok(None);
        }
        Ok(Some(batch))
    }

    /// Adds a forward pass to the tally: its share of the loss, its batch statistics, and the time it took. It waits for
    /// no other rank, so that time is this rank's own pace. All its micro-batches count as done.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn add(
        &mut self,
        batch: &DeviceBatch,
        loss: &Tensor,
        statistics: &Tensor,
        took: Duration,
    ) -> Result<(), TchError> {
        self.tally.add(loss, statistics, batch.len())?;
        witness::uses(self.place, &batch.sample_ids);
        self.sample_ids.extend(&batch.sample_ids);
        self.forward += took;
        self.done += batch.micro_batches;
        Ok(())
    }

    /// Whether the step may be applied. Every rank sees the same figures, so every rank decides alike.
    ///
    /// # Errors
    /// Where the run is to end otherwise.
    pub(crate) fn is_finite(
        &self,
        seen: Seen,
        norm: f64,
        spec: &v1::TrainSpec,
    ) -> Result<bool, WorkerError> {
        let finite = seen.loss.is_finite() && norm.is_finite();
        if finite || spec.on_not_finite == "skip" {
            return Ok(finite);
        }
        Err(WorkerError::NotFinite {
            step: self.place.step,
            loss: seen.loss,
            norm,
            clip_norm: spec.clip_norm,
        })
    }

    /// The step was applied, or passed over: what is reported of this rank's part.
    pub(crate) fn reported(&mut self) -> v1::Progress {
        witness::applied(self.place);
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        v1::Progress {
            generation: self.place.generation,
            step: self.place.step,
            samples: self.sample_ids.len() as u32,
            samples_digest: proto::samples_digest(self.sample_ids.iter().copied()),
            skipped: std::mem::take(&mut self.skipped),
            forward_micros: micros(self.forward),
            ..v1::Progress::default()
        }
    }
}
