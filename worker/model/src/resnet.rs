//! The trunk: ResNet (He et al. 2015) as torchvision builds it, which puts a bottleneck's stride into its 3×3
//! convolution ("v1.5"), without its last pooling and classifier. Parameters are named as in an
//! `nn.Sequential(conv1, bn1, relu, maxpool, layer1, …, layer4)`: `features.0.weight`, `features.4.0.conv1.weight`, ….
//!
//! Shapes: `[B, 3, H, W]` to `[B, F, H/32, W/32]`.

use tch::{Device, Kind, Tensor};

use crate::build::{Builder, Init, Role, in_kind_of};
use crate::norm::{MicroBatches, Mode, Norm, Statistics, Then};
use crate::{Backbone, Convolution, Result};

/// torchvision's momentum for the trunk's batch norms.
const MOMENTUM: f64 = 0.1;

/// Convolution without bias, then batch norm.
#[derive(Debug)]
struct ConvNorm {
    weight: Tensor,
    norm: Norm,
    side: i64,
    stride: i64,
    quicker: Convolution,
}

impl ConvNorm {
    fn new(
        builder: &mut Builder,
        conv: &str,
        norm: &str,
        [from, to]: [i64; 2],
        side: i64,
        stride: i64,
    ) -> Result<Self> {
        let shape = [to, from, side, side];
        let weight = builder.one(
            &format!("{conv}.weight"),
            Role::Trunk,
            &shape,
            Init::convolution(to, side),
        )?;
        let norm = builder.norm(&[norm.to_owned()], to, Role::Trunk, MOMENTUM)?;
        Ok(Self {
            weight,
            norm,
            side,
            stride,
            quicker: builder.operations.convolution,
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        then: Then<'_>,
        statistics: &Statistics,
        mode: Mode<'_>,
    ) -> Result<Tensor> {
        let x = self.convolve(x, mode)?;
        self.norm.forward(&x, then, statistics, mode)
    }

    fn convolve(&self, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        match mode {
            // As in an epoch's last step. Which way is the quicker one depends on the size: none decides it for another.
            Mode::Train(MicroBatches { sizes, .. })
                if sizes.iter().any(|size| *size != sizes[0]) =>
            {
                mode.one_by_one(x, 0, |x, mode| self.convolve_alike(x, mode))
            }
            mode => self.convolve_alike(x, mode),
        }
    }

    /// Of micro-batches that are all of one size.
    fn convolve_alike(&self, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let padding = self.side / 2;
        // In evaluation a picture's scores shall not depend, not even in rounding, on how many others there are beside it.
        if let Mode::Train(MicroBatches { sizes, .. }) = mode
            && let Some(y) = (self.quicker)(x, &self.weight, self.stride, padding, sizes)?
        {
            return Ok(y);
        }
        // A 1×1 kernel has nothing to dilate, so the maths is the same; but libtorch sends undilated float32 1×1
        // convolutions of small batches on one thread to a slow path, and dilated ones to oneDNN: 1.3 times faster.
        let dodge = self.side == 1 && x.kind() == Kind::Float && x.device() == Device::Cpu;
        let dilation = if dodge { 2 } else { 1 };
        let (stride, padding, dilation) = ([self.stride; 2], [padding; 2], [dilation; 2]);
        let weight = self.laid_out_as(x)?;
        Ok(x.f_conv2d(&weight, None::<&Tensor>, stride, padding, dilation, 1)?)
    }

    /// The weight in the kind and memory format of `x`. libtorch would turn a larger kernel to channels last as well, but
    /// once for the forward and again for the backward pass; and parameters themselves stay contiguous, as their
    /// gradients come.
    fn laid_out_as(&self, x: &Tensor) -> Result<Tensor> {
        let weight = in_kind_of(x, &self.weight)?;
        if self.side == 1 || x.stride().get(1) != Some(&1) {
            return Ok(weight);
        }
        let channels_last = weight.f_permute([0, 2, 3, 1])?.f_contiguous()?;
        Ok(channels_last.f_permute([0, 3, 1, 2])?)
    }
}

/// `relu(shortcut(x) + convolutions(x))`.
#[derive(Debug)]
struct Block {
    convolutions: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

impl Block {
    fn new(
        builder: &mut Builder,
        name: &str,
        from: i64,
        width: i64,
        stride: i64,
        bottleneck: bool,
    ) -> Result<Self> {
        let to = if bottleneck { 4 * width } else { width };
        let shapes: &[([i64; 2], i64, i64)] = if bottleneck {
            &[
                ([from, width], 1, 1),
                ([width, width], 3, stride),
                ([width, to], 1, 1),
            ]
        } else {
            &[([from, width], 3, stride), ([width, to], 3, 1)]
        };
        let convolutions = (1..)
            .zip(shapes)
            .map(|(n, &(channels, side, stride))| {
                ConvNorm::new(
                    builder,
                    &format!("{name}.conv{n}"),
                    &format!("{name}.bn{n}"),
                    channels,
                    side,
                    stride,
                )
            })
            .collect::<Result<_>>()?;
        let downsample = (stride != 1 || from != to)
            .then(|| {
                let (conv, norm) = (
                    format!("{name}.downsample.0"),
                    format!("{name}.downsample.1"),
                );
                ConvNorm::new(builder, &conv, &norm, [from, to], 1, stride)
            })
            .transpose()?;
        Ok(Self {
            convolutions,
            downsample,
        })
    }

    fn forward(&self, x: &Tensor, statistics: &Statistics, mode: Mode<'_>) -> Result<Tensor> {
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(x, Then::Nothing, statistics, mode)?,
            None => x.shallow_clone(),
        };
        let mut y = x.shallow_clone();
        for (index, convolution) in self.convolutions.iter().enumerate() {
            let then = if index + 1 < self.convolutions.len() {
                Then::Relu
            } else {
                Then::AddAndRelu(&shortcut)
            };
            y = convolution.forward(&y, then, statistics, mode)?;
        }
        Ok(y)
    }
}

/// The trunk.
#[derive(Debug)]
pub(crate) struct ResNet {
    stem: ConvNorm,
    blocks: Vec<Block>,
}

impl ResNet {
    pub(crate) fn new(builder: &mut Builder, backbone: Backbone) -> Result<Self> {
        let stem = ConvNorm::new(builder, "features.0", "features.1", [3, 64], 7, 2)?;
        let mut blocks = Vec::new();
        let mut from = 64;
        for (stage, count) in backbone.blocks().into_iter().enumerate() {
            let width = 64 << stage;
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                // layer1 is the fifth of the sequential.
                let name = format!("features.{}.{index}", stage + 4);
                blocks.push(Block::new(
                    builder,
                    &name,
                    from,
                    width,
                    stride,
                    backbone.bottleneck(),
                )?);
                from = if backbone.bottleneck() {
                    4 * width
                } else {
                    width
                };
            }
        }
        Ok(Self { stem, blocks })
    }

    /// `[B, 3, H, W]` to `[B, F, H/32, W/32]`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        statistics: &Statistics,
        mode: Mode<'_>,
    ) -> Result<Tensor> {
        let x = self.stem.forward(x, Then::Relu, statistics, mode)?;
        let mut x = x.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        for block in &self.blocks {
            x = block.forward(&x, statistics, mode)?;
        }
        Ok(x)
    }
}
