//! One rank's copy of everything a step changes: model, optimizer, and its membership in the group.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{HgatFc, loss};
use nccl_rs::{BucketSizes, ProcessGroup, Reducer};
use proto::v1;
use tch::{Device, Kind, TchError, Tensor};

use super::feed::DeviceBatch;
use super::optimizer::{Optimizer, norm};
use super::schedule::Rates;
use super::tally::{Seen, Tally};
use crate::error::WorkerError;
use crate::session::{Link, Upload};

/// The state of a rank in one generation.
#[derive(Debug)]
pub(crate) struct Replica {
    // Dropped in this order: the reducer works on the group.
    reducer: Reducer,
    group: Arc<ProcessGroup>,
    model: HgatFc,
    optimizer: Optimizer,
    flat_gradients: Vec<Tensor>,
    link: Arc<Link>,
    generation: u64,
    /// Steps committed.
    step: u64,
    sentinel_steps: u64,
    /// The checkpoint on its way.
    pub(crate) upload: Option<Upload>,
    pub(crate) about: Arc<crate::snapshot::About>,
}

/// What a replica is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) group: Arc<ProcessGroup>,
    pub(crate) model: HgatFc,
    pub(crate) optimizer: Optimizer,
    pub(crate) link: Arc<Link>,
    pub(crate) generation: u64,
    pub(crate) step: u64,
    pub(crate) about: Arc<crate::snapshot::About>,
}

impl Replica {
    /// Joins the parts: all ranks take over rank 0's state, so that they are equal to the bit whatever each one read,
    /// and gradients become views of the reducer's buckets.
    ///
    /// # Errors
    /// When a peer is gone, or the device has no room.
    pub(crate) fn new(parts: Parts, spec: &v1::TrainSpec) -> Result<Self, WorkerError> {
        let Parts {
            group,
            model,
            mut optimizer,
            link,
            generation,
            step,
            about,
        } = parts;
        let collective = |source| WorkerError::Collective { step, source };
        {
            let _entered = link.entering(format!("broadcast of the state after {step} steps"));
            let tensors = optimizer
                .tensors()
                .chain(model.parameters().iter().map(|p| &p.tensor));
            for tensor in tensors.chain([model.running_statistics()]) {
                group
                    .broadcast(&tensor.detach(), 0)
                    .and_then(nccl_rs::Work::wait)
                    .map_err(collective)?;
            }
        }
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
        let reducer = Reducer::new(&group, &parameters, sizes).map_err(collective)?;
        let gradients = reducer.gradients().map_err(collective)?;
        optimizer
            .bind(&gradients)
            .map_err(|source| WorkerError::Torch { step, source })?;
        let flat_gradients = reducer.flat_gradients().map_err(collective)?;
        let sentinel_steps = spec.sentinel_steps;
        Ok(Self {
            reducer,
            group,
            model,
            optimizer,
            flat_gradients,
            link,
            generation,
            step,
            sentinel_steps,
            upload: None,
            about,
        })
    }

    /// An empty tally of this model's size.
    pub(crate) fn tally(&self) -> Result<Tally, WorkerError> {
        let statistics = self.model.running_statistics();
        Tally::new(
            statistics.numel() as i64,
            statistics.kind(),
            statistics.device(),
        )
        .map_err(self.torch())
    }

    /// Forgets the last step's gradients, and writes this rank's requests into the tally.
    pub(crate) fn begin_step(
        &self,
        plan: &v1::StepPlan,
        tally: &mut Tally,
    ) -> Result<(), WorkerError> {
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
        self.reducer.zero_gradients().map_err(self.collective())?;
        let requests = &self.link.inbox.requests;
        tally
            .begin(
                plan.samples_in_step,
                requests.stop(),
                requests.take_snapshot(),
            )
            .map_err(self.torch())
    }

    /// A micro-batch forward: its share of the step's loss.
    pub(crate) fn forward(
        &self,
        batch: &DeviceBatch,
        plan: &v1::StepPlan,
        tally: &mut Tally,
    ) -> Result<Tensor, WorkerError> {
        let logits = self.model.forward(&batch.images, true)?;
        let loss = loss::multilabel_soft_margin(&logits, &batch.targets, plan.samples_in_step)?;
        tally
            .add(&loss, self.model.batch_statistics(), batch.len())
            .map_err(self.torch())?;
        Ok(loss)
    }

    /// Adds the loss's gradients; with `reduce` it leaves the sum over all ranks.
    pub(crate) fn backward(&self, loss: &Tensor, reduce: bool) -> Result<(), WorkerError> {
        if !reduce {
            return self.reducer.accumulate(loss).map_err(self.collective());
        }
        let _entered = self
            .link
            .entering(format!("all-reduce of gradients, step {}", self.step));
        self.reducer.backward(loss).map_err(|source| match source {
            nccl_rs::Error::ParameterWithoutGradient { index } => {
                let name = self.model.trainable().nth(index).map(model::Parameter::name).unwrap_or_default();
                let rank = self.group.rank();
                WorkerError::Config(format!(
                    "step {}: parameter {name} gets no gradient on rank {rank}; freeze it (train.freeze_trunk) or use it",
                    self.step
                ))
            }
            source => WorkerError::Collective { step: self.step, source },
        })
    }

    /// Takes part in the reduction without a loss of its own.
    pub(crate) fn backward_nothing(&self) -> Result<(), WorkerError> {
        let _entered = self
            .link
            .entering(format!("all-reduce of gradients, step {}", self.step));
        self.reducer.backward_zero().map_err(self.collective())
    }

    /// Sums the tally over all ranks, and reads it and the norm of the gradients.
    pub(crate) fn reduce(&self, tally: &Tally) -> Result<(Seen, f64), WorkerError> {
        let _entered = self
            .link
            .entering(format!("all-reduce of the tally, step {}", self.step));
        tally.all_reduce(&self.group).map_err(self.collective())?;
        let seen = tally.read().map_err(self.torch())?;
        let correction = tally.correction(&seen);
        let norm = tch::no_grad(|| norm(&self.flat_gradients)?.f_double_value(&[]))
            .map_err(self.torch())?;
        Ok((seen, norm * correction))
    }

    /// Applies the step: parameters, optimizer state and running statistics. From here on it is committed.
    pub(crate) fn commit(
        &mut self,
        rates: Rates,
        tally: &Tally,
        seen: Seen,
        norm: f64,
    ) -> Result<(), WorkerError> {
        let correction = tally.correction(&seen);
        let factor = correction * self.optimizer.clip_factor(norm);
        let applied = tch::no_grad(|| -> Result<(), WorkerError> {
            let torch = |source| WorkerError::Torch {
                step: self.step,
                source,
            };
            self.optimizer
                .apply(self.step, rates, factor)
                .map_err(torch)?;
            let mut statistics = tally.statistics().map_err(torch)?;
            if correction != 1.0 {
                let _ = statistics.f_mul_scalar_(correction).map_err(torch)?;
            }
            Ok(self.model.update_running_statistics(&statistics)?)
        });
        applied?;
        self.step += 1;
        Ok(())
    }

    /// Whether any rank was asked to stop: all of them learn it here, or none.
    pub(crate) fn agree_to_stop(&self, tally: &mut Tally) -> Result<bool, WorkerError> {
        let _entered = self
            .link
            .entering(format!("all-reduce after evaluation, step {}", self.step));
        tally
            .begin(1, self.link.inbox.requests.stop(), false)
            .map_err(self.torch())?;
        tally.all_reduce(&self.group).map_err(self.collective())?;
        Ok(tally.read().map_err(self.torch())?.stop)
    }

    /// Logits `[B, C]` in evaluation mode.
    pub(crate) fn score(&self, batch: &DeviceBatch) -> Result<Tensor, WorkerError> {
        Ok(tch::no_grad(|| self.model.forward(&batch.images, false))?)
    }

    /// A hash of everything a step changes, where one is due: equal on all ranks, or something is wrong.
    pub(crate) fn hash_if_due(&self) -> Result<Vec<u8>, WorkerError> {
        if self.sentinel_steps == 0 || !self.step.is_multiple_of(self.sentinel_steps) {
            return Ok(Vec::new());
        }
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(&self.step.to_le_bytes());
        let parameters = self.model.parameters().iter().map(|p| &p.tensor);
        for tensor in parameters
            .chain(self.optimizer.tensors())
            .chain([self.model.running_statistics()])
        {
            let values = tensor
                .f_detach()
                .and_then(|t| t.f_to_device(Device::Cpu))
                .and_then(|t| t.f_contiguous());
            let values = values.map_err(self.torch())?;
            let mut bytes = vec![0u8; values.numel() * values.kind().elt_size_in_bytes()];
            values
                .f_copy_data_u8(&mut bytes, values.numel())
                .map_err(self.torch())?;
            hasher.update(&bytes);
        }
        Ok(hasher.digest128().to_le_bytes().to_vec())
    }

    /// The optimizer's state by name: `{kind}/{parameter}`.
    pub(crate) fn optimizer_state(&self) -> Result<Vec<(String, Tensor)>, WorkerError> {
        let mut named = Vec::new();
        for (kind, tensors) in self.optimizer.state() {
            let split = self.model.split_like_parameters(tensors)?;
            named.extend(
                split
                    .into_iter()
                    .map(|(name, tensor)| (format!("{kind}/{name}"), tensor)),
            );
        }
        Ok(named)
    }

    /// The model's state by the reference's names.
    pub(crate) fn model_state(&self) -> Result<Vec<(String, Tensor)>, WorkerError> {
        Ok(self.model.export()?)
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

    pub(crate) fn rank(&self) -> usize {
        self.group.rank()
    }

    fn torch(&self) -> impl Fn(TchError) -> WorkerError + use<> {
        let step = self.step;
        move |source| WorkerError::Torch { step, source }
    }

    fn collective(&self) -> impl Fn(nccl_rs::Error) -> WorkerError + use<> {
        let step = self.step;
        move |source| WorkerError::Collective { step, source }
    }
}

/// Fills model and optimizer from a checkpoint's tensors.
///
/// # Errors
/// When a tensor is missing or has another shape.
pub(crate) fn restore(
    model: &mut HgatFc,
    optimizer: &Optimizer,
    weights: &BTreeMap<String, Tensor>,
    state: &BTreeMap<String, Tensor>,
    step: u64,
) -> Result<(), WorkerError> {
    if let Some(missing) = model
        .shapes()?
        .keys()
        .find(|name| !weights.contains_key(*name))
    {
        let reason = format!("model.safetensors has no {missing}");
        return Err(WorkerError::Checkpoint { step, reason });
    }
    model.import(weights)?;
    for (kind, tensors) in optimizer.state() {
        let prefix = format!("{kind}/");
        let named = state
            .iter()
            .filter_map(|(name, tensor)| {
                Some((
                    name.strip_prefix(&prefix)?.to_owned(),
                    tensor.shallow_clone(),
                ))
            })
            .collect();
        model.fill_like_parameters(&named, tensors)?;
    }
    Ok(())
}

/// The kind that `train.precision` names.
pub(crate) fn kind(precision: &str) -> Kind {
    if precision == "float64" {
        Kind::Double
    } else {
        Kind::Float
    }
}
