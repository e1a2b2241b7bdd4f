//! HGAT_FC: a ResNet trunk, then grouped heads joined by graph attention.
//!
//! Follows the PyTorch reference in `bench/reference/hgat_fc_reference.py`; differences are of method, not of meaning:
//! layers of one shape are stacked, and running statistics are updated by the caller (see [`crate`]).

use tch::{Device, Kind, Tensor};

use crate::build::{Builder, Parameter, Role};
use crate::heads::{Heads, Seen};
use crate::norm::{MicroBatches, Mode, NormNames, Statistics};
use crate::operations::Operations;
use crate::resnet::ResNet;
use crate::{ModelConfig, ModelError, Result};

/// The model: parameters, statistics and the forward pass.
#[derive(Debug)]
pub struct HgatFc {
    trunk: ResNet,
    heads: Heads,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) norms: Vec<NormNames>,
    pub(crate) statistics: Statistics,
    pub(crate) batches_tracked: i64,
    trunk_frozen: bool,
    trunk_held: bool,
}

/// The weights of a forward pass's attention: a node's row holds what it gives to each node, and sums to 1.
#[derive(Debug)]
pub struct Attention {
    /// `[B, G, G]`: between the groups.
    pub between: Tensor,
    /// `[B, G, P, P]`: between the classes of each group, in the order of its list; P are those of the largest group,
    /// and columns beyond a group's own classes are 0.
    pub within: Tensor,
}

impl HgatFc {
    /// A model with first values drawn from `seed`: PyTorch's defaults for the reference's layers.
    ///
    /// # Errors
    /// [`ModelError`] when the config contradicts itself or the device has no room.
    pub fn new(config: &ModelConfig, device: Device, kind: Kind, seed: u64) -> Result<Self> {
        Self::with_operations(config, device, kind, seed, Operations::default())
    }

    /// As [`HgatFc::new`], with other ways than libtorch's to compute some of it.
    ///
    /// # Errors
    /// As for [`HgatFc::new`].
    pub fn with_operations(
        config: &ModelConfig,
        device: Device,
        kind: Kind,
        seed: u64,
        operations: Operations,
    ) -> Result<Self> {
        config.check()?;
        let mut builder = Builder::new(device, kind, seed, operations);
        let trunk = ResNet::new(&mut builder, config.backbone)?;
        let heads = Heads::new(&mut builder, config, device)?;
        let statistics = Statistics::new(&builder, &builder.parameters[0].tensor)?;
        let Builder {
            parameters, norms, ..
        } = builder;
        Ok(Self {
            trunk,
            heads,
            parameters,
            norms,
            statistics,
            batches_tracked: 0,
            trunk_frozen: false,
            trunk_held: false,
        })
    }

    /// Images `[B, 3, H, W]` to logits `[B, classes]`, in class order.
    ///
    /// The images' kind is the one that convolutions and matrix products are computed in: bfloat16 images on a float32
    /// model are mixed precision (Micikevicius et al. 2017), where parameters, batch statistics, attention and logits
    /// stay float32. In training mode batches are normalised by their
    /// own statistics, which are left in [`HgatFc::batch_statistics`]; the running ones stay as they are.
    ///
    /// # Errors
    /// [`ModelError::BatchOfOne`] in training; [`ModelError::Images`]; [`ModelError::Torch`].
    pub fn forward(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let whole = images.size().first().map_or([0], |batch| [*batch]);
        self.forward_seen(images, train.then_some(&whole), None)
    }

    /// As [`HgatFc::forward`] in training of several micro-batches of these `sizes`, one behind the other in `images`: all
    /// logits and gradients are those of each by itself, to rounding. Weights are read once for all of them. The mean of their
    /// statistics by their samples is left in [`HgatFc::batch_statistics`].
    ///
    /// # Errors
    /// As for [`HgatFc::forward`]; [`ModelError::MicroBatches`].
    pub fn forward_micro_batches(&self, images: &Tensor, sizes: &[i64]) -> Result<Tensor> {
        self.forward_seen(images, Some(sizes), None)
    }

    fn forward_seen(
        &self,
        images: &Tensor,
        micro_batches: Option<&[i64]>,
        seen: Option<&mut Seen>,
    ) -> Result<Tensor> {
        let shape = images.size();
        if !matches!(*shape.as_slice(), [b, 3, h, w] if b >= 1 && h >= 32 && w >= 32) {
            return Err(ModelError::Images { shape });
        }
        self.in_mode(shape[0], micro_batches, |mode| {
            let features = if self.trunk_frozen || self.trunk_held {
                tch::no_grad(|| self.trunk.forward(images, &self.statistics, Mode::Eval))?
            } else {
                self.trunk.forward(images, &self.statistics, mode)?
            };
            self.heads.forward(&features, &self.statistics, mode, seen)
        })
    }

    /// Goes forward with `batch` samples: in training where micro-batches are given, in evaluation otherwise.
    fn in_mode(
        &self,
        batch: i64,
        micro_batches: Option<&[i64]>,
        forward: impl FnOnce(Mode<'_>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let Some(sizes) = micro_batches else {
            return forward(Mode::Eval);
        };
        if let Some(&batch) = sizes.iter().find(|size| **size < 2) {
            return Err(ModelError::BatchOfOne { batch });
        }
        if sizes.iter().sum::<i64>() != batch {
            let sizes = sizes.to_vec();
            return Err(ModelError::MicroBatches { sizes, batch });
        }
        let statistics = self.statistics.apart(sizes.len())?;
        let micro_batches = MicroBatches {
            sizes,
            statistics: &statistics,
        };
        let logits = forward(Mode::Train(micro_batches))?;
        tch::no_grad(|| self.statistics.gather(micro_batches))?;
        Ok(logits)
    }

    /// What the nodes of images `[B, 3, H, W]` attend to, in evaluation; `None` for the variants without attention.
    ///
    /// # Errors
    /// [`ModelError::Images`]; [`ModelError::Torch`].
    pub fn attention(&self, images: &Tensor) -> Result<Option<Attention>> {
        let mut seen = Seen::default();
        let _ = self.forward_seen(images, None, Some(&mut seen))?;
        let (Some(between), Some(within)) = (seen.between, seen.within) else {
            return Ok(None);
        };
        Ok(Some(Attention {
            between: between.f_squeeze_dim(0)?,
            within: within.f_transpose(0, 1)?,
        }))
    }

    /// The part of [`HgatFc::forward`] after the trunk: features `[B, F, h, w]` to logits `[B, classes]`.
    ///
    /// # Errors
    /// [`ModelError::Torch`], for instance when F is not the trunk's.
    pub fn heads(&self, features: &Tensor, train: bool) -> Result<Tensor> {
        let whole = features.size().first().map_or([0], |batch| [*batch]);
        self.in_mode(whole[0], train.then_some(&whole), |mode| {
            self.heads.forward(features, &self.statistics, mode, None)
        })
    }

    /// All parameters, in an order that the config alone decides.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The parameters that are trained: all, or the head's where the trunk is frozen.
    pub fn trainable(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters
            .iter()
            .filter(|parameter| !self.trunk_frozen || parameter.role == Role::Head)
    }

    /// Keeps the trunk as it is from now on: no gradients, running statistics instead of batch statistics.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn freeze_trunk(&mut self) -> Result<()> {
        for parameter in self
            .parameters
            .iter()
            .filter(|parameter| parameter.role == Role::Trunk)
        {
            let _ = parameter.tensor.f_set_requires_grad(false)?;
        }
        self.statistics.hold(&self.norms, true)?;
        self.trunk_frozen = true;
        Ok(())
    }

    /// Keeps the trunk as it is for a while: no gradient comes from [`HgatFc::forward`], and running statistics are used
    /// and kept. Its parameters stay among [`HgatFc::trainable`]: whoever reduces gradients adds [`HgatFc::held_zero`] to
    /// the loss. A trunk that is frozen stays so.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn hold_trunk(&mut self, held: bool) -> Result<()> {
        if self.trunk_held != held && !self.trunk_frozen {
            self.statistics.hold(&self.norms, held)?;
            self.trunk_held = held;
        }
        Ok(())
    }

    /// 0 as a function of every held parameter, so that each gets a gradient of 0; `None` where nothing is held.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn held_zero(&self) -> Result<Option<Tensor>> {
        if !self.trunk_held {
            return Ok(None);
        }
        let held = self.parameters.iter().filter(|p| p.role == Role::Trunk);
        let sums = held
            .map(|parameter| parameter.tensor.f_sum(None::<Kind>))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Some(
            Tensor::f_stack(&sums, 0)?
                .f_sum(None::<Kind>)?
                .f_mul_scalar(0.0)?,
        ))
    }

    /// `[S]`: means and unbiased variances of the last training batch, for every batch norm.
    pub fn batch_statistics(&self) -> &Tensor {
        &self.statistics.batch
    }

    /// `[S]`: the running statistics, in the same layout. Written only by [`HgatFc::update_running_statistics`], by
    /// imports, and by whoever makes replicas equal.
    pub fn running_statistics(&self) -> &Tensor {
        &self.statistics.running
    }

    /// Moves the running statistics towards a step's mean batch statistics `[S]` by each norm's momentum, and counts
    /// the step.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn update_running_statistics(&mut self, mean: &Tensor) -> Result<()> {
        self.batches_tracked += 1;
        self.statistics.update(mean)
    }

    /// Steps that the running statistics have seen (`num_batches_tracked`).
    #[must_use]
    pub fn batches_tracked(&self) -> i64 {
        self.batches_tracked
    }

    /// Sets the count of steps, when a state is taken over.
    pub fn set_batches_tracked(&mut self, steps: i64) {
        self.batches_tracked = steps;
    }
}
