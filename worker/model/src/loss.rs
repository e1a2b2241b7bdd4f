//! The losses, each as a share of a step's: summed over a step's micro-batches, wherever they are computed and however
//! many samples each has, a share gives the loss of the step. (A mean of the ranks' means does not, where slices are
//! uneven.)
//!
//! Shapes: logits and targets `[B, C]`, targets in {0, 1}; what comes out has no dimension.

use tch::{Device, Kind, Tensor};

use crate::{ModelError, Result};

/// Least argument of a logarithm in the asymmetric loss, as in its authors' program.
const ASL_EPSILON: f64 = 1e-8;

/// What training minimises.
#[derive(Debug)]
pub enum Loss {
    /// PyTorch's `MultiLabelSoftMarginLoss`: see [`multilabel_soft_margin`].
    MultilabelSoftMargin,
    /// Binary cross-entropy, summed over the classes and averaged over the step's samples: C times the one above.
    Bce,
    /// The same with a weight for each class where it is shown, `[C]`, and where it is not (Li, Chen, Huang 2015,
    /// "Multi-attribute learning for pedestrian attribute recognition", equation 3).
    DeepMar {
        /// `exp(1 - p)`, p being the class's share of the training samples.
        positive: Tensor,
        /// `exp(p)`.
        negative: Tensor,
    },
    /// The asymmetric loss (Ridnik et al. 2021, <https://arxiv.org/abs/2009.14119>, equations 5 to 7), summed over the
    /// classes and the step's samples, as its authors' program sums it.
    Asymmetric {
        /// Focusing where a class is shown.
        gamma_positive: f64,
        /// Focusing where it is not.
        gamma_negative: f64,
        /// Probability that is taken off every negative.
        clip: f64,
        /// Whether the focusing weights are differentiated too; the authors' program takes them as constants.
        weight_gradient: bool,
    },
}

impl Loss {
    /// [`Loss::DeepMar`] with these weights, one a class.
    ///
    /// # Errors
    /// [`ModelError::LossWeights`] when there are not as many of the one kind as of the other; [`ModelError::Torch`].
    pub fn deepmar(positive: &[f64], negative: &[f64], kind: Kind, device: Device) -> Result<Self> {
        if positive.len() != negative.len() || positive.is_empty() {
            return Err(ModelError::LossWeights {
                positive: positive.len(),
                negative: negative.len(),
            });
        }
        let there = |weights: &[f64]| {
            Tensor::f_from_slice(weights)?
                .f_to_kind(kind)?
                .f_to_device(device)
        };
        Ok(Self::DeepMar {
            positive: there(positive)?,
            negative: there(negative)?,
        })
    }

    /// A micro-batch's share of the loss of a step that has so many samples over all ranks.
    ///
    /// # Errors
    /// [`ModelError::Torch`], for instance when shapes differ.
    pub fn share(&self, logits: &Tensor, targets: &Tensor, samples_in_step: u32) -> Result<Tensor> {
        let per_sample = -1.0 / f64::from(samples_in_step);
        match self {
            Self::MultilabelSoftMargin => multilabel_soft_margin(logits, targets, samples_in_step),
            Self::Bce => total(&log_likelihood(logits, targets)?, per_sample),
            Self::DeepMar { positive, negative } => {
                // A target is 0 or 1: this chooses between the two without a branch.
                let weights = negative.f_add(&positive.f_sub(negative)?.f_mul(targets)?)?;
                total(
                    &log_likelihood(logits, targets)?.f_mul(&weights)?,
                    per_sample,
                )
            }
            Self::Asymmetric {
                gamma_positive,
                gamma_negative,
                clip,
                weight_gradient,
            } => {
                let absent = targets.f_neg()?.f_add_scalar(1.0)?;
                let shown = logits.f_sigmoid()?;
                let missing = shown.f_neg()?.f_add_scalar(1.0 + clip)?.f_clamp_max(1.0)?;
                let log = |p: &Tensor| p.f_clamp_min(ASL_EPSILON)?.f_log();
                let terms = log(&shown)?
                    .f_mul(targets)?
                    .f_add(&log(&missing)?.f_mul(&absent)?)?;
                let focusing = || {
                    // 1 - p of what is right, to the power of its gamma.
                    let right = shown.f_mul(targets)?.f_add(&missing.f_mul(&absent)?)?;
                    let gamma = targets
                        .f_mul_scalar(*gamma_positive)?
                        .f_add(&absent.f_mul_scalar(*gamma_negative)?)?;
                    // A power below 1 has no slope at 0.
                    let wrong = right.f_neg()?.f_add_scalar(1.0)?;
                    let wrong = if *weight_gradient {
                        wrong.f_clamp_min(ASL_EPSILON)?
                    } else {
                        wrong
                    };
                    wrong.f_pow(&gamma)
                };
                let weights = if *weight_gradient {
                    focusing()?
                } else {
                    tch::no_grad(focusing)?
                };
                total(&terms.f_mul(&weights)?, -1.0)
            }
        }
    }
}

/// PyTorch's `MultiLabelSoftMarginLoss`: the mean over classes of `-(y log σ(x) + (1 - y) log σ(-x))`, summed over the
/// samples and divided by `samples_in_step`.
///
/// # Errors
/// [`crate::ModelError::Torch`], for instance when shapes differ.
pub fn multilabel_soft_margin(
    logits: &Tensor,
    targets: &Tensor,
    samples_in_step: u32,
) -> Result<Tensor> {
    let classes = logits.size2()?.1 as f64;
    let terms = log_likelihood(logits, targets)?;
    total(&terms, -1.0 / (classes * f64::from(samples_in_step)))
}

/// `y log σ(x) + (1 - y) log σ(-x)` for every entry.
fn log_likelihood(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    // log σ(x) = x + log σ(-x), so one logarithm does: y·x + log σ(-x).
    Ok(logits
        .f_neg()?
        .f_log_sigmoid()?
        .f_add(&logits.f_mul(targets)?)?)
}

fn total(terms: &Tensor, factor: f64) -> Result<Tensor> {
    Ok(terms.f_sum(None::<Kind>)?.f_mul_scalar(factor)?)
}
