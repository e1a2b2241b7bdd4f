//! One rank's copy of everything a step changes, and what it has of the step in flight. It outlives generations.

use model::HgatFc;
use nccl_rs::KeptGradients;
use tch::Tensor;

use super::average::Average;
use super::optimizer::Optimizer;
use super::work::Work;
use crate::error::WorkerError;

/// The state that training changes. It outlives generations: an aborted step leaves it as it was.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) model: HgatFc,
    pub(crate) optimizer: Optimizer,
    /// The average of the weights, where the run keeps one.
    pub(crate) average: Option<Average>,
    /// Committed steps whose state this is; `None`: it is no state of the run's present.
    pub(crate) steps: Option<u64>,
    /// The step in flight.
    pub(crate) work: Work,
    /// The gradients of what is done of it, between two generations.
    pub(crate) kept: Option<KeptGradients>,
}

impl Held {
    /// Everything a step changes: optimizer state, parameters, running statistics, and their average.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.optimizer
            .tensors()
            .chain(self.model.parameters().iter().map(|p| &p.tensor))
            .chain([self.model.running_statistics()])
            .chain(self.average.iter().flat_map(Average::tensors))
    }

    /// The micro-batches of the step after this state whose gradients are kept, by their numbers in the step.
    pub(crate) fn micro_batches(&self) -> Vec<u32> {
        if self.kept.is_none() || self.steps != Some(self.work.step()) {
            return Vec::new();
        }
        self.work.done().iter().map(|batch| batch.index).collect()
    }

    /// Nothing of the step in flight is to be used: another state takes this one's place, or other rules hold.
    pub(crate) fn forget_step(&mut self) {
        self.kept = None;
        self.work.forget();
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
}
