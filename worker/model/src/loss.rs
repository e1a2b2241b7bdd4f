//! The loss, as a share of a step's.

use tch::{Kind, Tensor};

use crate::Result;

/// PyTorch's `MultiLabelSoftMarginLoss` of logits `[B, C]` and targets `[B, C]` in {0, 1}: the mean over classes of
/// `-(y log σ(x) + (1 - y) log σ(-x))`, summed over the samples and divided by `samples_in_step`.
///
/// Summed over the micro-batches of a step, wherever they are computed and however many samples each has, that is the
/// mean over the step's samples. (A mean of the ranks' means is not, where slices are uneven.)
///
/// # Errors
/// [`crate::ModelError::Torch`], for instance when shapes differ.
pub fn multilabel_soft_margin(
    logits: &Tensor,
    targets: &Tensor,
    samples_in_step: u32,
) -> Result<Tensor> {
    let classes = logits.size2()?.1 as f64;
    // log σ(x) = x + log σ(-x), so one logarithm does: y·x + log σ(-x), negated.
    let terms = logits
        .f_neg()?
        .f_log_sigmoid()?
        .f_add(&logits.f_mul(targets)?)?;
    Ok(terms
        .f_sum(None::<Kind>)?
        .f_mul_scalar(-1.0 / (classes * f64::from(samples_in_step)))?)
}
