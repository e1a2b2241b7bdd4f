//! Operations of which whoever trains may have faster forms than libtorch's; the model does not ask how they work.

use tch::{TchError, Tensor};

/// `W x` for each of K weights and its rows, `[K, o, i]` and `[K, B, i]` to `[B, K, o]`, where the list has the rows of each
/// micro-batch: what becomes of one may not depend on the others.
pub type StackedProduct = fn(&Tensor, &Tensor, &[i64]) -> Result<Tensor, TchError>;

/// Convolves a batch `[B, C, H, W]` with weights `[O, C, k, k]`, by a stride and with a padding, where the last list has the
/// samples of each micro-batch: what becomes of one may not depend on the others. `None`: it has no form that would be faster.
pub type Convolution = fn(&Tensor, &Tensor, i64, i64, &[i64]) -> Result<Option<Tensor>, TchError>;

/// Normalises a batch `[B, C, H, W]` in training, and with it what follows.
///
/// What it is given: the batch; weight and bias, `[C]`; where the means and the unbiased variances of all groups of samples
/// are left, `[groups, C]` each; the samples in each group, which is normalised by itself; epsilon; a batch that is added
/// before the ReLU, if any; whether there is a ReLU. `None`: it has no form for such a batch.
pub type TrainingNorm = fn(
    &Tensor,
    [&Tensor; 2],
    [&Tensor; 2],
    &[i64],
    f64,
    Option<&Tensor>,
    bool,
) -> Result<Option<Tensor>, TchError>;

/// How a model computes them.
#[derive(Debug, Clone, Copy)]
pub struct Operations {
    /// The head's stacked layers.
    pub product: StackedProduct,
    /// The trunk's convolutions in training.
    pub convolution: Convolution,
    /// Batch norms in training.
    pub norm: TrainingNorm,
}

impl Default for Operations {
    /// libtorch's.
    fn default() -> Self {
        Self {
            product: |weight, x, sizes| {
                let parts = x.f_split_with_sizes(sizes, 1)?;
                let parts = parts.iter().map(|rows| {
                    // With few rows W xᵀ takes half the time of x Wᵀ on a CPU.
                    let y = weight.f_bmm(&rows.f_transpose(1, 2)?)?; // [K, o, b]
                    y.f_permute([2, 0, 1])
                });
                Tensor::f_cat(&parts.collect::<Result<Vec<_>, _>>()?, 0)
            },
            convolution: |_, _, _, _, _| Ok(None),
            norm: |_, _, _, _, _, _, _| Ok(None),
        }
    }
}
