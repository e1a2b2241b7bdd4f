//! A rank in one generation: the model's copy that it holds ([`Held`]), bound to a process group.

use std::sync::Arc;
use std::time::Instant;

use model::loss::Loss;
use nccl_rs::{BucketSizes, ProcessGroup, Reducer, ReducerOptions};
use proto::v1;
use tch::{TchError, Tensor};

use super::batch::DeviceBatch;
use super::feed::Feed;
use super::held::Held;
use super::online::Online;
use super::schedule::Rates;
use super::tally::{Seen, Wishes};
use super::transfer;
use super::witness::Place;
use super::work::Work;
use crate::error::{WorkerError, steps};
use crate::session::{Collective, Link, Upload};

/// A rank in one generation.
#[derive(Debug)]
pub(crate) struct Replica<'a> {
    // Dropped in this order: the reducer works on the group.
    reducer: Reducer,
    group: Arc<ProcessGroup>,
    held: &'a mut Held,
    link: Arc<Link>,
    generation: u64,
    /// Steps committed.
    step: u64,
    sentinel_steps: u64,
    loss: Loss,
    /// Epochs for which the trunk stays as it is.
    frozen_epochs: u32,
    /// The checkpoint on its way.
    pub(crate) upload: Option<Upload>,
    pub(crate) about: Arc<crate::snapshot::About>,
}

/// What a replica is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) group: Arc<ProcessGroup>,
    pub(crate) held: &'a mut Held,
    pub(crate) link: Arc<Link>,
    pub(crate) generation: u64,
    /// Steps committed before it.
    pub(crate) step: u64,
    /// Who holds the state after them; the others receive it.
    pub(crate) source: transfer::Source,
    pub(crate) about: Arc<crate::snapshot::About>,
}

impl Drop for Replica<'_> {
    fn drop(&mut self) {
        // The next generation's gradients shall lie in the same memory.
        self.held.optimizer.release();
    }
}

impl<'a> Replica<'a> {
    /// Joins the parts: ranks that do not hold the state take it from those who do, so that all are equal to the bit,
    /// and gradients go to the reducer's buckets.
    ///
    /// # Errors
    /// When a peer is gone, or the device has no room.
    pub(crate) fn new(parts: Parts<'a>, spec: &v1::TrainSpec) -> Result<Self, WorkerError> {
        let Parts {
            group,
            held,
            link,
            generation,
            step,
            source,
            about,
        } = parts;
        let collective = |source| WorkerError::Collective { step, source };
        if held.steps != Some(step) || !source.holders.contains(&group.rank()) {
            held.forget_step();
        }
        {
            let _entered = link.entering(format!("transfer of the state after {}", steps(step)));
            transfer::share(&group, held, &source, step, &|point| link.reach(point))?;
        }
        held.model
            .set_batches_tracked(i64::try_from(step).unwrap_or(i64::MAX));
        let (model, optimizer) = (&held.model, &mut held.optimizer);
        let parameters: Vec<Tensor> = model
            .trainable()
            .map(|p| p.tensor.shallow_clone())
            .collect();
        let sizes = BucketSizes {
            first_bytes: usize::try_from(spec.first_bucket_bytes)
                .unwrap_or(usize::MAX)
                .max(1),
            cap_bytes: usize::try_from(spec.bucket_bytes)
                .unwrap_or(usize::MAX)
                .max(1),
        };
        let options = ReducerOptions {
            kept: held.kept.as_ref(),
            beside: Some(held.work.tally.values()),
        };
        let reducer = Reducer::with_options(&group, &parameters, sizes, options);
        let reducer = reducer.map_err(collective)?;
        held.kept = None;
        if !reducer.has_resumed() {
            held.work.forget();
        }
        let loss = super::loss(spec, &held.model)?;
        let sums = reducer.sums().map_err(collective)?;
        let flat_sums = reducer.flat_sums().map_err(collective)?;
        let torch = |source| WorkerError::Torch { step, source };
        optimizer.bind(&sums, &flat_sums).map_err(torch)?;
        let sentinel_steps = spec.sentinel_steps;
        Ok(Self {
            reducer,
            group,
            held,
            link,
            generation,
            step,
            sentinel_steps,
            loss,
            frozen_epochs: spec.freeze_trunk_epochs,
            upload: None,
            about,
        })
    }

    /// The step in flight.
    pub(crate) fn work(&mut self) -> &mut Work {
        &mut self.held.work
    }

    /// Keeps what is done of the step in flight for the next generation, as far as it is whole.
    pub(crate) fn keep(&mut self) {
        if self.held.work.done().is_empty() {
            return;
        }
        match self.reducer.keep() {
            Ok(Some(gradients)) => self.held.kept = Some(gradients),
            Ok(None) => self.held.work.forget(),
            Err(problem) => {
                tracing::warn!(
                    "the gradients after {} are lost: {problem}",
                    steps(self.step)
                );
                self.held.work.forget();
            }
        }
    }

    /// Begins a step, or goes on with it; returns how many passes are left to do.
    pub(crate) fn begin_step(
        &mut self,
        plan: &v1::StepPlan,
        feed: &Feed,
        online: &mut Online,
    ) -> Result<usize, WorkerError> {
        if plan.step != self.step {
            let reason = format!(
                "the plan goes on at step {}, this replica is at {}",
                plan.step, self.step
            );
            return Err(WorkerError::Checkpoint {
                step: self.step,
                reason,
            });
        }
        self.link
            .now(self.generation, self.step, v1::Activity::Training);
        self.hold_trunk(plan.epoch)?;
        let place = Place {
            generation: self.generation,
            step: self.step,
            rank: self.rank(),
        };
        let wishes = Wishes {
            snapshot: self.link.inbox.requests.take_snapshot(),
            ..self.wishes()
        };
        let (torch, collective) = (self.torch(), self.collective());
        let work = &mut self.held.work;
        if feed.done(plan) == 0 {
            self.reducer.zero_gradients().map_err(collective)?;
            online.begin_step();
            work.start_over(plan.samples_in_step).map_err(&torch)?;
        }
        work.begin(place, plan, wishes).map_err(torch)?;
        Ok(feed.passes(plan))
    }

    /// Holds the trunk, or lets it go, as `epoch` (from 0) wants it.
    pub(crate) fn hold_trunk(&mut self, epoch: u32) -> Result<(), WorkerError> {
        Ok(self.held.model.hold_trunk(epoch < self.frozen_epochs)?)
    }

    /// What this rank was asked for, but for snapshots.
    pub(super) fn wishes(&self) -> Wishes {
        let requests = &self.link.inbox.requests;
        Wishes {
            stop: requests.stop(),
            snapshot: false,
            regroup: requests.regroup(),
            drain: requests.drain(),
        }
    }

    /// A pass forward: its micro-batches' share of the step's loss.
    pub(crate) fn forward(
        &mut self,
        batch: &DeviceBatch,
        plan: &v1::StepPlan,
        online: &mut Online,
    ) -> Result<Tensor, WorkerError> {
        let (started, torch) = (Instant::now(), self.torch());
        self.link.pulse().passes();
        let logits = self
            .held
            .model
            .forward_micro_batches(&batch.images, &batch.sizes)?;
        online.note(&batch.sample_ids, &logits)?;
        let loss = self
            .loss
            .share(&logits, &batch.targets, plan.samples_in_step)?;
        let Held { model, work, .. } = &mut *self.held;
        let statistics = model.batch_statistics();
        let took = started.elapsed();
        self.link.pulse().passed(took);
        work.add(batch, &loss, statistics, took).map_err(&torch)?;
        match model.held_zero()? {
            // The reducer wants a gradient of every parameter, be it 0.
            Some(zero) => loss.f_add(&zero).map_err(torch),
            None => Ok(loss),
        }
    }

    /// Adds the loss's gradients; with `reduce` it sums them over all ranks, and the tally too.
    pub(crate) fn backward(&self, loss: &Tensor, reduce: bool) -> Result<(), WorkerError> {
        if !reduce {
            return self.reducer.accumulate(loss).map_err(self.collective());
        }
        let _entered = self.entering("all-reduce of gradients");
        self.reducer.backward(loss).map_err(|source| match source {
            nccl_rs::Error::ParameterWithoutGradient { index } => {
                let name = self.held.model.trainable().nth(index).map(model::Parameter::name).unwrap_or_default();
                let rank = self.group.rank();
                WorkerError::Config(format!(
                    "after {}: parameter {name} gets no gradient on rank {rank}; freeze it (train.freeze_trunk) or use it",
                    steps(self.step)
                ))
            }
            source => WorkerError::Collective { step: self.step, source },
        })
    }

    /// Notes that this rank is in a collective of the step in flight, until that is dropped.
    pub(super) fn entering(&self, what: &str) -> Collective<'_> {
        self.link
            .entering(format!("{what} after {}", steps(self.step)))
    }

    /// Takes part in the reduction without a loss of its own.
    pub(crate) fn backward_nothing(&self) -> Result<(), WorkerError> {
        let _entered = self.entering("all-reduce of gradients");
        self.reducer.backward_zero().map_err(self.collective())
    }

    /// Reads the tally over all ranks and the norm of the gradients.
    pub(crate) fn read(&self) -> Result<(Seen, f64), WorkerError> {
        let tally = &self.held.work.tally;
        let seen = tally.read().map_err(self.torch())?;
        let correction = tally.correction(&seen);
        let norm = self.reducer.norm().map_err(self.collective())?;
        self.reducer.require_whole().map_err(self.collective())?;
        Ok((seen, norm * correction))
    }

    /// Applies the step: parameters, optimizer state and running statistics. From here on it is committed.
    pub(crate) fn commit(
        &mut self,
        rates: Rates,
        seen: Seen,
        norm: f64,
    ) -> Result<(), WorkerError> {
        // Should the device fail on the way, what is left is no state.
        self.held.steps = None;
        let correction = self.held.work.tally.correction(&seen);
        let factor = correction * self.held.optimizer.clip_factor(norm);
        let applied = tch::no_grad(|| -> Result<(), WorkerError> {
            let torch = |source| WorkerError::Torch {
                step: self.step,
                source,
            };
            self.held
                .optimizer
                .apply(self.step, rates, factor)
                .map_err(torch)?;
            self.reducer.require_whole().map_err(self.collective())?;
            let mut statistics = self.held.work.tally.statistics().map_err(torch)?;
            if correction != 1.0 {
                let _ = statistics.f_mul_scalar_(correction).map_err(torch)?;
            }
            self.held.model.update_running_statistics(&statistics)?;
            if let Some(average) = &mut self.held.average {
                average.update(&self.held.model, self.step).map_err(torch)?;
            }
            Ok(())
        });
        applied?;
        self.step += 1;
        self.held.steps = Some(self.step);
        Ok(())
    }

    /// Goes on to the next step without applying this one: nothing of the state changes.
    pub(crate) fn pass_over(&mut self) {
        self.step += 1;
        self.held.steps = Some(self.step);
    }

    /// Logits `[B, C]` in evaluation mode, or normalised by the batch's own statistics; nothing of the state changes.
    pub(crate) fn score(&self, batch: &DeviceBatch, by_batch: bool) -> Result<Tensor, WorkerError> {
        Ok(tch::no_grad(|| {
            self.held.model.forward(&batch.images, by_batch)
        })?)
    }

    /// A hash of everything a step changes, where one is due: equal on all ranks, or something is wrong.
    pub(crate) fn hash_if_due(&self) -> Result<Vec<u8>, WorkerError> {
        if self.sentinel_steps == 0 || !self.step.is_multiple_of(self.sentinel_steps) {
            return Ok(Vec::new());
        }
        let digest = transfer::digest(self.held.tensors(), self.step).map_err(self.torch())?;
        Ok(digest.to_le_bytes().to_vec())
    }

    /// Everything a step changes.
    pub(crate) fn held(&self) -> &Held {
        self.held
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Steps committed.
    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    /// Trainable values.
    pub(crate) fn parameters(&self) -> u64 {
        let trainable = self.held.model.trainable();
        trainable.map(|p| p.tensor.numel() as u64).sum()
    }

    pub(super) fn group(&self) -> &ProcessGroup {
        &self.group
    }

    pub(crate) fn world_size(&self) -> usize {
        self.group.world_size()
    }

    pub(crate) fn rank(&self) -> usize {
        self.group.rank()
    }

    /// What fails on the device in this step.
    pub(crate) fn torch(&self) -> impl Fn(TchError) -> WorkerError + use<> {
        let step = self.step;
        move |source| WorkerError::Torch { step, source }
    }

    /// What fails between the ranks in this step.
    pub(super) fn collective(&self) -> impl Fn(nccl_rs::Error) -> WorkerError + use<> {
        let step = self.step;
        move |source| WorkerError::Collective { step, source }
    }
}
