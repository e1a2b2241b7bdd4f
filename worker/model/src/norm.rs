//! Batch normalisation (Ioffe and Szegedy 2015) whose statistics lie side by side in two flat tensors.
//!
//! libtorch updates running statistics inside the forward pass. Here a step has several micro-batches on several ranks
//! and may be aborted, so the forward pass writes each batch's own statistics (momentum 1) into a scratch tensor, and
//! the running ones are moved once a step, by the mean over all micro-batches.

use tch::{Kind, Tensor};

use crate::Result;
use crate::build::{Builder, Role};

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

/// Whether a forward pass normalises by its batch or by the running statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Train,
    Eval,
}

/// The statistics of all norms of a model: `[S]` each.
#[derive(Debug)]
pub(crate) struct Statistics {
    pub(crate) running: Tensor,
    /// Of the last forward pass in train mode; the variance is the unbiased one, as torch keeps it.
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
    /// Normalises `[B, channels]` or `[B, channels, H, W]`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        statistics: &Statistics,
        mode: Mode,
    ) -> Result<Tensor> {
        let affine = (
            self.weight.f_view([self.channels])?,
            self.bias.f_view([self.channels])?,
        );
        self.normalise(x, affine, 0, self.channels, statistics, mode)
    }

    /// Normalises `[rows, channels]` as the `layer`-th of several stacked norms of `channels` each does.
    pub(crate) fn layer(
        &self,
        x: &Tensor,
        affine: (Tensor, Tensor),
        (layer, channels): (i64, i64),
        statistics: &Statistics,
        mode: Mode,
    ) -> Result<Tensor> {
        self.normalise(x, affine, layer * channels, channels, statistics, mode)
    }

    fn normalise(
        &self,
        x: &Tensor,
        (weight, bias): (Tensor, Tensor),
        start: i64,
        channels: i64,
        statistics: &Statistics,
        mode: Mode,
    ) -> Result<Tensor> {
        let train = mode == Mode::Train;
        let (source, momentum) = if train {
            (&statistics.batch, 1.0)
        } else {
            (&statistics.running, 0.0)
        };
        let mean = source.f_narrow(0, self.offset + start, channels)?;
        let variance = source.f_narrow(0, self.offset + self.channels + start, channels)?;
        // cuDNN's batch norm knows no float64.
        let cudnn = x.kind() != Kind::Double;
        let (mean, variance) = (Some(&mean), Some(&variance));
        Ok(Tensor::f_batch_norm(
            x,
            Some(&weight),
            Some(&bias),
            mean,
            variance,
            train,
            momentum,
            EPSILON,
            cudnn,
        )?)
    }
}
