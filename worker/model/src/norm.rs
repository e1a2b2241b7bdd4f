//! Batch normalisation (Ioffe and Szegedy 2015) whose statistics lie side by side in two flat tensors.
//!
//! libtorch updates running statistics inside the forward pass. Here a step has several micro-batches on several ranks
//! and may be aborted, so the forward pass writes each batch's own statistics (momentum 1) into a scratch tensor, and
//! the running ones are moved once a step, by the mean over all micro-batches.

use tch::{Kind, Tensor};

use crate::build::{Builder, Role};
use crate::{Result, TrainingNorm};

/// torch's default, and the reference's.
const EPSILON: f64 = 1e-5;

/// One batch norm, or several stacked ones over class-major channels.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    /// Of all stacked layers together.
    pub(crate) channels: i64,
    /// Where its statistics begin: all means, then all variances.
    pub(crate) offset: i64,
    pub(crate) in_one_go: TrainingNorm,
}

/// What becomes of what was normalised.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then<'a> {
    Nothing,
    Relu,
    AddAndRelu(&'a Tensor),
}

/// What a norm is called in files, and where its statistics lie.
#[derive(Debug)]
pub(crate) struct NormNames {
    pub(crate) prefixes: Vec<String>,
    /// Of each.
    pub(crate) channels: i64,
    pub(crate) offset: i64,
    pub(crate) momentum: f64,
    pub(crate) role: Role,
}

impl NormNames {
    /// `(name, offset)` of every statistic, each of `channels` values.
    pub(crate) fn statistics(&self) -> impl Iterator<Item = (String, i64)> {
        let all = self.prefixes.len() as i64 * self.channels;
        let kinds = [
            ("running_mean", self.offset),
            ("running_var", self.offset + all),
        ];
        kinds.into_iter().flat_map(move |(kind, start)| {
            self.prefixes
                .iter()
                .enumerate()
                .map(move |(index, prefix)| {
                    (
                        format!("{prefix}.{kind}"),
                        start + index as i64 * self.channels,
                    )
                })
        })
    }
}

/// Whether a forward pass normalises each micro-batch by itself or all by the running statistics.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode<'a> {
    Train(MicroBatches<'a>),
    Eval,
}

impl Mode<'_> {
    /// The samples in each micro-batch; in evaluation all are of one.
    pub(crate) fn sizes<'a>(&'a self, batch: &'a i64) -> &'a [i64] {
        match self {
            Mode::Train(micro_batches) => micro_batches.sizes,
            Mode::Eval => std::slice::from_ref(batch),
        }
    }

    /// What becomes of each micro-batch alone, together again. Samples lie along dimension `dim`, before and after.
    pub(crate) fn one_by_one(
        self,
        x: &Tensor,
        dim: i64,
        mut forward: impl FnMut(&Tensor, Mode<'_>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let MicroBatches { sizes, statistics } = match self {
            Mode::Train(micro_batches) if micro_batches.sizes.len() > 1 => micro_batches,
            mode => return forward(x, mode),
        };
        let parts = x.f_split_with_sizes(sizes, dim)?;
        let parts = (0i64..).zip(&parts).zip(sizes).map(|((at, part), size)| {
            let alone = MicroBatches {
                sizes: std::slice::from_ref(size),
                statistics: &statistics.f_narrow(0, at, 1)?,
            };
            forward(part, Mode::Train(alone))
        });
        Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, dim)?)
    }
}

/// The micro-batches of a forward pass, one behind the other along its samples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MicroBatches<'a> {
    /// Samples in each.
    pub(crate) sizes: &'a [i64],
    /// `[micro-batches, S]`: where each leaves its statistics.
    pub(crate) statistics: &'a Tensor,
}

/// The statistics of all norms of a model: `[S]` each.
#[derive(Debug)]
pub(crate) struct Statistics {
    pub(crate) running: Tensor,
    /// Of the last forward pass in train mode, the mean over its micro-batches by their samples; the variance is the unbiased one, as torch keeps it.
    pub(crate) batch: Tensor,
    momentum: Tensor,
}

impl Statistics {
    /// Means 0 and variances 1, as PyTorch starts.
    pub(crate) fn new(builder: &Builder, like: &Tensor) -> Result<Self> {
        let options = (like.kind(), like.device());
        let running = Tensor::f_zeros([builder.statistics], options)?;
        let momentum = Tensor::f_zeros([builder.statistics], options)?;
        for norm in &builder.norms {
            let all = norm.prefixes.len() as i64 * norm.channels;
            let _ = running.f_narrow(0, norm.offset + all, all)?.f_fill_(1.0)?;
            let _ = momentum
                .f_narrow(0, norm.offset, 2 * all)?
                .f_fill_(norm.momentum)?;
        }
        let batch = running.f_zeros_like()?;
        Ok(Self {
            running,
            batch,
            momentum,
        })
    }

    /// `running += momentum * (mean - running)`, `mean` being `[S]`.
    pub(crate) fn update(&mut self, mean: &Tensor) -> Result<()> {
        let difference = mean.f_sub(&self.running)?;
        let _ = self.running.f_addcmul_(&self.momentum, &difference)?;
        Ok(())
    }

    /// Room for the statistics of so many micro-batches, `[micro-batches, S]`. That of one is the model's own.
    pub(crate) fn apart(&self, micro_batches: usize) -> Result<Tensor> {
        let own = self.batch.f_unsqueeze(0)?;
        if micro_batches == 1 {
            return Ok(own);
        }
        // A trunk that is held leaves what is there.
        Ok(own.f_repeat([micro_batches as i64, 1])?)
    }

    /// Makes the model's own of those of several micro-batches.
    pub(crate) fn gather(&self, micro_batches: MicroBatches<'_>) -> Result<()> {
        let MicroBatches { sizes, statistics } = micro_batches;
        if sizes.len() > 1 {
            let weights = Tensor::f_from_slice(sizes)?
                .f_to_device(statistics.device())?
                .f_to_kind(statistics.kind())?;
            let weights = weights.f_div_scalar(sizes.iter().sum::<i64>())?;
            // Not as a matrix product, which CUDA may round to TF32.
            let weighted = statistics.f_mul(&weights.f_unsqueeze(1)?)?;
            let mean = weighted.f_sum_dim_intlist(0, false, None::<Kind>)?;
            self.batch.shallow_clone().f_copy_(&mean)?;
        }
        Ok(())
    }

    /// Leaves the trunk's statistics where they are from now on, or lets them move again.
    pub(crate) fn hold(&mut self, norms: &[NormNames], held: bool) -> Result<()> {
        for norm in norms.iter().filter(|norm| norm.role == Role::Trunk) {
            let all = norm.prefixes.len() as i64 * norm.channels;
            let momentum = if held { 0.0 } else { norm.momentum };
            let _ = self
                .momentum
                .f_narrow(0, norm.offset, 2 * all)?
                .f_fill_(momentum)?;
        }
        Ok(())
    }
}

impl Norm {
    /// Normalises `[B, channels]` or `[B, channels, H, W]` and does what follows, in training in one go where there is a way.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        then: Then<'_>,
        statistics: &Statistics,
        mode: Mode<'_>,
    ) -> Result<Tensor> {
        let (residual, relu) = match then {
            Then::Nothing => (None, false),
            Then::Relu => (None, true),
            Then::AddAndRelu(residual) => (Some(residual), true),
        };
        let weight = self.weight.f_view([self.channels])?;
        let bias = self.bias.f_view([self.channels])?;
        if let Mode::Train(MicroBatches { sizes, statistics }) = mode {
            // A row is a picture of one pixel.
            let row = x.dim() == 2;
            let pictures = if row {
                x.f_unsqueeze(2)?.f_unsqueeze(3)?
            } else {
                x.shallow_clone()
            };
            let [means, variances] = [self.offset, self.offset + self.channels]
                .map(|from| statistics.f_narrow(1, from, self.channels));
            let places = [&means?, &variances?];
            let affine = [&weight, &bias];
            let y = (self.in_one_go)(&pictures, affine, places, sizes, EPSILON, residual, relu)?;
            if let Some(y) = y {
                return Ok(if row {
                    y.f_view([-1, self.channels])?
                } else {
                    y
                });
            }
        }
        let mut y = self.normalise(x, (weight, bias), 0, self.channels, statistics, mode)?;
        if let Some(residual) = residual {
            y = y.f_add_(residual)?;
        }
        Ok(if relu { y.f_relu_()? } else { y })
    }

    /// Normalises `[rows, channels]`, all of one micro-batch, as the `layer`-th of several stacked norms of `channels` each does.
    pub(crate) fn layer(
        &self,
        x: &Tensor,
        affine: (Tensor, Tensor),
        (layer, channels): (i64, i64),
        statistics: &Statistics,
        mode: Mode<'_>,
    ) -> Result<Tensor> {
        self.normalise(x, affine, layer * channels, channels, statistics, mode)
    }

    fn normalise(
        &self,
        x: &Tensor,
        affine: (Tensor, Tensor),
        start: i64,
        channels: i64,
        statistics: &Statistics,
        mode: Mode<'_>,
    ) -> Result<Tensor> {
        let places = [self.offset + start, self.offset + self.channels + start];
        let within = |all: &Tensor| -> Result<[Tensor; 2]> {
            let [mean, variance] = places.map(|from| all.f_narrow(0, from, channels));
            Ok([mean?, variance?])
        };
        mode.one_by_one(x, 0, |x, mode| match mode {
            Mode::Eval => batch_norm(x, &affine, &within(&statistics.running)?, false),
            Mode::Train(alone) => {
                let own = within(&alone.statistics.f_select(0, 0)?)?;
                batch_norm(x, &affine, &own, true)
            }
        })
    }
}

/// By the batch's own statistics, which are left in `[mean, variance]`, or in evaluation by those there.
fn batch_norm(
    x: &Tensor,
    (weight, bias): &(Tensor, Tensor),
    [mean, variance]: &[Tensor; 2],
    train: bool,
) -> Result<Tensor> {
    // cuDNN's batch norm knows no float64.
    let cudnn = x.kind() != Kind::Double;
    let momentum = if train { 1.0 } else { 0.0 };
    Ok(Tensor::f_batch_norm(
        x,
        Some(weight),
        Some(bias),
        Some(mean),
        Some(variance),
        train,
        momentum,
        EPSILON,
        cudnn,
    )?)
}
