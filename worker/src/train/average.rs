//! The exponential moving average of the weights, which is evaluated beside them (Polyak and Juditsky 1992; as
//! `torch.optim.swa_utils.AveragedModel` with `use_buffers`: running statistics are averaged alike).
//!
//! `average += (1 - d) * (weights - average)` after every step, with `d = decay^(1 / steps per epoch)`: what an epoch
//! leaves of the average does not depend on how many steps an epoch has. In the first steps d is at most
//! `(1 + t) / (10 + t)`, t being the steps before (TensorFlow's `ExponentialMovingAverage` with `num_updates`), so that the
//! first weights, which are drawn, do not linger.

use model::HgatFc;
use nccl_rs::fused;
use proto::v1::TrainSpec;
use tch::{TchError, Tensor};

use super::held::Held;
use crate::error::WorkerError;

/// The average: one tensor for each of the model's parameters, and one for its running statistics.
#[derive(Debug)]
pub(crate) struct Average {
    tensors: Vec<Tensor>,
    decay: f64,
}

impl Average {
    /// An average that begins with the model's present values, where the run keeps one.
    ///
    /// # Errors
    /// When the device has no room.
    pub(crate) fn new(model: &HgatFc, spec: &TrainSpec) -> Result<Option<Self>, TchError> {
        if spec.ema_decay <= 0.0 {
            return Ok(None);
        }
        let tensors = live(model).map(own).collect::<Result<_, _>>()?;
        Ok(Some(Self {
            tensors,
            decay: spec
                .ema_decay
                .powf(1.0 / spec.steps_per_epoch.max(1) as f64),
        }))
    }

    /// All tensors of the average.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter()
    }

    /// Takes in the weights after `step` (from 0). On the device; the host does not wait.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn update(&mut self, model: &HgatFc, step: u64) -> Result<(), TchError> {
        let fresh = 1.0 - self.decay_at(step);
        let live = live(model)
            .map(Tensor::f_detach)
            .collect::<Result<Vec<_>, _>>()?;
        fused::lerp(&self.tensors, &live, fresh)
    }

    fn decay_at(&self, step: u64) -> f64 {
        let t = step as f64;
        self.decay.min((1.0 + t) / (10.0 + t))
    }

    /// Exchanges the values of model and average; done twice, both are what they were, to the bit.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn swap(&self, model: &HgatFc) -> Result<(), TchError> {
        tch::no_grad(|| {
            for (average, live) in self.tensors.iter().zip(live(model)) {
                let mut live = live.f_detach()?;
                let kept = own(&live)?;
                live.f_copy_(average)?;
                average.shallow_clone().f_copy_(&kept)?;
            }
            Ok(())
        })
    }
}

impl Held {
    /// Does `work` with the average of the weights in their place.
    ///
    /// # Errors
    /// When the device fails, or `work` does; the weights are in their place again.
    pub(crate) fn by_average<T>(
        &self,
        work: impl FnOnce() -> Result<T, WorkerError>,
    ) -> Result<T, WorkerError> {
        let step = self.steps.unwrap_or(0);
        let swap = || match &self.average {
            Some(average) => average
                .swap(&self.model)
                .map_err(|source| WorkerError::Torch { step, source }),
            None => Ok(()),
        };
        swap()?;
        let done = work();
        swap()?;
        done
    }

    /// The state by the average of the weights, by the reference's names; `None` where the run keeps none.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn average_state(&self) -> Result<Option<Vec<(String, Tensor)>>, WorkerError> {
        if self.average.is_none() {
            return Ok(None);
        }
        self.by_average(|| Ok(self.model.export()?)).map(Some)
    }
}

fn own(tensor: &Tensor) -> Result<Tensor, TchError> {
    let mut own = tensor.f_detach()?.f_empty_like()?;
    own.f_copy_(&tensor.f_detach()?)?;
    Ok(own)
}

fn live(model: &HgatFc) -> impl Iterator<Item = &Tensor> {
    model
        .parameters()
        .iter()
        .map(|parameter| &parameter.tensor)
        .chain([model.running_statistics()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Backbone, Graph, ModelConfig, Residual};
    use tch::{Device, Kind};

    fn model() -> HgatFc {
        let config = ModelConfig {
            backbone: Backbone::parse("resnet18").unwrap(),
            graph: Graph::parse("none").unwrap(),
            residual: Residual::parse("sum").unwrap(),
            bn_momentum: 0.1,
            hidden: 8,
            group_channels: 8,
            class_channels: 8,
            last_bias: None,
            groups: vec![vec![0, 1]],
        };
        HgatFc::new(&config, Device::Cpu, Kind::Double, 3).unwrap()
    }

    fn spec(decay: f64, steps_per_epoch: u64) -> TrainSpec {
        TrainSpec {
            ema_decay: decay,
            steps_per_epoch,
            ..Default::default()
        }
    }

    fn first(tensors: &mut dyn Iterator<Item = &Tensor>) -> f64 {
        let tensor = tensors.next().unwrap();
        tensor.flatten(0, -1).double_value(&[0])
    }

    #[test]
    fn after_many_steps_an_epoch_leaves_the_decay_of_the_average() {
        let model = model();
        for steps in [10u64, 1000] {
            let mut average = Average::new(&model, &spec(0.25, steps)).unwrap().unwrap();
            let weight = first(&mut live(&model));
            let _ = average.tensors[0].flatten(0, -1).get(0).fill_(weight + 1.0);
            // So late that the beginning does not show.
            (0..steps).for_each(|step| average.update(&model, 1_000_000 + step).unwrap());
            let left = first(&mut average.tensors()) - weight;
            assert!((left - 0.25).abs() < 1e-9, "{left}");
        }
    }

    #[test]
    fn in_the_beginning_the_average_follows_quickly() {
        let average = Average::new(&model(), &spec(0.9, 1)).unwrap().unwrap();
        let decays: Vec<f64> = [0, 1, 80, 81, 1000]
            .map(|step| average.decay_at(step))
            .to_vec();
        assert_eq!(decays, [0.1, 2.0 / 11.0, 0.9, 0.9, 0.9]);
    }

    #[test]
    fn swapping_twice_changes_nothing_and_once_shows_the_average() {
        let model = model();
        let average = Average::new(&model, &spec(0.9, 5)).unwrap().unwrap();
        let before = first(&mut live(&model));
        let _ = average.tensors[0].flatten(0, -1).get(0).fill_(7.0);

        average.swap(&model).unwrap();
        assert_eq!(
            (first(&mut live(&model)), first(&mut average.tensors())),
            (7.0, before)
        );
        average.swap(&model).unwrap();
        assert_eq!(
            (first(&mut live(&model)), first(&mut average.tensors())),
            (before, 7.0)
        );
    }

    #[test]
    fn without_a_decay_no_average_is_kept() {
        assert!(Average::new(&model(), &spec(0.0, 5)).unwrap().is_none());
    }
}
