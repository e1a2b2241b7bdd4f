//! The head's linear layers, K of the same shape at a time: one batched matrix product instead of K small ones.
//!
//! Shapes: `[K, B, i]` to `[K, B, o]`, K stacked layers, B samples.

use tch::Tensor;

use crate::build::{Builder, Init, Role, in_kind_of};
use crate::norm::{Mode, Norm, Statistics, Then};
use crate::{Residual, Result, StackedProduct};

/// `relu(bn(W x))`: the reference's `BasicLinear`.
#[derive(Debug)]
pub(crate) struct BasicLinear {
    weight: Tensor,
    norm: Norm,
    product: StackedProduct,
    relu: bool,
}

impl BasicLinear {
    pub(crate) fn new(
        builder: &mut Builder,
        prefixes: &[String],
        [from, to]: [i64; 2],
        relu: bool,
        momentum: f64,
    ) -> Result<Self> {
        let weight = builder.stack(prefixes, "fc.weight", &[to, from], Init::linear(from))?;
        let norms: Vec<String> = prefixes
            .iter()
            .map(|prefix| format!("{prefix}.bn"))
            .collect();
        let norm = builder.norm(&norms, to, Role::Head, momentum)?;
        let product = builder.operations.product;
        Ok(Self {
            weight,
            norm,
            product,
            relu,
        })
    }

    pub(crate) fn forward(
        &self,
        x: &Tensor,
        statistics: &Statistics,
        mode: Mode<'_>,
    ) -> Result<Tensor> {
        let weight = in_kind_of(x, &self.weight)?;
        let (layers, batch, _) = x.size3()?;
        let y = (self.product)(&weight, x, mode.sizes(&batch))?; // [B, K, o]
        let out = y.size3()?.2;
        // Batch norm wants the channels of all layers side by side.
        let y = y.f_contiguous()?.f_view([batch, layers * out])?;
        let then = if self.relu { Then::Relu } else { Then::Nothing };
        let y = self.norm.forward(&y, then, statistics, mode)?;
        Ok(y.f_view([batch, layers, out])?.f_transpose(0, 1)?)
    }

    /// Its K weights `[o, i]`, for layers of one stack that see different numbers of rows.
    pub(crate) fn forward_each(
        &self,
        rows: &[Tensor],
        statistics: &Statistics,
        mode: Mode<'_>,
    ) -> Result<Vec<Tensor>> {
        let weights = self.weight.f_unbind(0)?;
        let (scales, shifts) = (self.norm.weight.f_unbind(0)?, self.norm.bias.f_unbind(0)?);
        let layers = weights.len() as i64;
        let channels = self.norm.channels / layers.max(1);
        let mut out = Vec::with_capacity(rows.len());
        for (k, (((x, weight), scale), shift)) in
            (0..layers).zip(rows.iter().zip(&weights).zip(scales).zip(shifts))
        {
            let y = x.f_matmul(&in_kind_of(x, weight)?.f_transpose(0, 1)?)?;
            let mut y = self
                .norm
                .layer(&y, (scale, shift), (k, channels), statistics, mode)?;
            out.push(if self.relu { y.f_relu_()? } else { y });
        }
        Ok(out)
    }
}

/// The reference's `ResidualLinearBlock` with a reduction of 2.
#[derive(Debug)]
pub(crate) struct ResidualBlock {
    fc1: BasicLinear,
    fc2: BasicLinear,
    form: Residual,
}

impl ResidualBlock {
    pub(crate) fn new(
        builder: &mut Builder,
        prefixes: &[String],
        width: i64,
        form: Residual,
        momentum: f64,
    ) -> Result<Self> {
        let named = |layer: &str| {
            prefixes
                .iter()
                .map(|prefix| format!("{prefix}.{layer}"))
                .collect::<Vec<_>>()
        };
        let fc1 = BasicLinear::new(builder, &named("fc1"), [width, width / 2], true, momentum)?;
        let fc2 = BasicLinear::new(
            builder,
            &named("fc2"),
            [width / 2, width],
            form == Residual::Sum,
            momentum,
        )?;
        Ok(Self { fc1, fc2, form })
    }

    pub(crate) fn forward(
        &self,
        x: &Tensor,
        statistics: &Statistics,
        mode: Mode<'_>,
    ) -> Result<Tensor> {
        let y = self.fc1.forward(x, statistics, mode)?;
        let mut y = x.f_add(&self.fc2.forward(&y, statistics, mode)?)?;
        Ok(if self.form == Residual::Sum {
            y
        } else {
            y.f_relu_()?
        })
    }
}
