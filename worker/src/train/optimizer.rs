//! SGD with momentum and AdamW over two parameter groups, written over libtorch's in-place operations.
//!
//! tch's own optimizers cannot zero gradients that are views of the reducer's buckets; and here every tensor of the
//! state has a name, a place in checkpoints and a place in the broadcast that makes replicas identical.

use model::Role;
use proto::v1::TrainSpec;
use tch::{TchError, Tensor};

use super::schedule::Rates;

/// One parameter and its gradient's owner.
#[derive(Debug)]
struct Slot {
    value: Tensor,
    role: Role,
}

/// The update rule.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// `buffer = momentum * buffer + (g + decay * p); p -= rate * buffer`, as `torch.optim.SGD` without dampening.
    Sgd { momentum: f64 },
    /// Loshchilov and Hutter 2017, as `torch.optim.AdamW`: decay apart from the gradient, bias-corrected moments.
    AdamW { beta1: f64, beta2: f64, epsilon: f64 },
}

/// Parameters with their optimizer state.
#[derive(Debug)]
pub(crate) struct Optimizer {
    rule: Rule,
    weight_decay: f64,
    clip_norm: f64,
    slots: Vec<Slot>,
    /// One list per kind of state, each with one tensor a parameter and of its shape.
    state: Vec<(&'static str, Vec<Tensor>)>,
}

impl Optimizer {
    /// An optimizer without history for `parameters`.
    ///
    /// # Errors
    /// When the state cannot be allocated.
    pub(crate) fn new<'a>(
        spec: &TrainSpec,
        parameters: impl Iterator<Item = (&'a Tensor, Role)>,
    ) -> Result<Self, TchError> {
        let slots: Vec<Slot> =
            parameters.map(|(value, role)| Slot { value: value.shallow_clone(), role }).collect();
        let (rule, names): (Rule, &[&'static str]) = match spec.optimizer.as_str() {
            "adamw" => (
                Rule::AdamW { beta1: spec.adam_beta1, beta2: spec.adam_beta2, epsilon: spec.adam_epsilon },
                &["exp_avg", "exp_avg_sq"],
            ),
            _ => (Rule::Sgd { momentum: spec.momentum }, &["momentum_buffer"]),
        };
        let state = names
            .iter()
            .map(|&name| {
                let zeros = slots.iter().map(|slot| slot.value.detach().f_zeros_like());
                Ok((name, zeros.collect::<Result<_, TchError>>()?))
            })
            .collect::<Result<_, TchError>>()?;
        Ok(Self { rule, weight_decay: spec.weight_decay, clip_norm: spec.clip_norm, slots, state })
    }

    /// All tensors of the state.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.state.iter().flat_map(|(_, tensors)| tensors)
    }

    /// The state by kind, each with one tensor a parameter.
    pub(crate) fn state(&self) -> &[(&'static str, Vec<Tensor>)] {
        &self.state
    }

    /// What clipping multiplies the gradients by: `torch.nn.utils.clip_grad_norm_`'s `clip_norm / (norm + 1e-6)` where
    /// that is below 1, else 1.
    pub(crate) fn clip_factor(&self, norm: f64) -> f64 {
        if self.clip_norm > 0.0 { (self.clip_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
    }

    /// Applies the gradients of `step` (from 0), one a parameter. From here on the step is committed.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn apply(&mut self, step: u64, rates: Rates, gradients: &[Tensor]) -> Result<(), TchError> {
        let rule = self.rule;
        let decay = self.weight_decay;
        for (index, (slot, gradient)) in self.slots.iter().zip(gradients).enumerate() {
            let rate = match slot.role {
                Role::Trunk => rates.trunk,
                Role::Head => rates.head,
            };
            let mut value = slot.value.f_detach()?;
            match rule {
                Rule::Sgd { momentum } => {
                    let buffer = &mut self.state[0].1[index];
                    let _ = buffer.f_mul_scalar_(momentum)?.f_add_(gradient)?;
                    add_scaled(buffer, &value, decay)?;
                    add_scaled(&mut value, buffer, -rate)?;
                }
                Rule::AdamW { beta1, beta2, epsilon } => {
                    let t = (step + 1) as f64;
                    let (first, second) = self.state.split_at_mut(1);
                    let (mean, square) = (&mut first[0].1[index], &mut second[0].1[index]);
                    let _ = value.f_mul_scalar_(1.0 - rate * decay)?;
                    let _ = mean.f_lerp_(gradient, 1.0 - beta1)?;
                    let _ = square.f_mul_scalar_(beta2)?;
                    add_scaled(square, &gradient.f_square()?, 1.0 - beta2)?;
                    let root = (1.0 - beta2.powf(t)).sqrt();
                    let mut denominator = square.f_sqrt()?;
                    let _ = denominator.f_div_scalar_(root)?.f_add_scalar_(epsilon)?;
                    let update = mean.f_div(&denominator)?;
                    add_scaled(&mut value, &update, -rate / (1.0 - beta1.powf(t)))?;
                }
            }
        }
        Ok(())
    }
}

/// The norm of several tensors taken as one vector.
///
/// # Errors
/// When the device fails.
pub(crate) fn norm(tensors: &[Tensor]) -> Result<Tensor, TchError> {
    let norms = tensors.iter().map(Tensor::f_norm).collect::<Result<Vec<_>, TchError>>()?;
    Tensor::f_stack(&norms, 0)?.f_norm()
}

/// `into += by * what`, in place and without a temporary: a number of no dimension broadcasts.
fn add_scaled(into: &mut Tensor, what: &Tensor, by: f64) -> Result<(), TchError> {
    let by = Tensor::f_from_slice(&[by])?.f_squeeze()?.f_to_kind(into.kind())?.f_to_device(into.device())?;
    let _ = into.f_addcmul_(what, &by)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn spec(optimizer: &str) -> TrainSpec {
        TrainSpec {
            optimizer: optimizer.into(),
            momentum: 0.9,
            weight_decay: 0.1,
            clip_norm: 10.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            ..Default::default()
        }
    }

    /// Three steps on one parameter whose gradients are 1, -2 and 0.5; the rate falls from 0.1 to 0.05 in the third.
    fn walk(optimizer: &str) -> f64 {
        let parameter = Tensor::full([1], 1.0, (Kind::Double, Device::Cpu));
        let mut optimizer = Optimizer::new(&spec(optimizer), [(&parameter, Role::Head)].into_iter()).unwrap();
        for (step, (gradient, rate)) in [(1.0, 0.1), (-2.0, 0.1), (0.5, 0.05)].into_iter().enumerate() {
            let gradient = Tensor::full([1], gradient, (Kind::Double, Device::Cpu));
            optimizer.apply(step as u64, Rates { trunk: 0.0, head: rate }, &[gradient]).unwrap();
        }
        parameter.double_value(&[0])
    }

    #[test]
    fn sgd_is_the_textbook_rule() {
        let (mut p, mut buffer) = (1.0f64, 0.0f64);
        for (gradient, rate) in [(1.0, 0.1), (-2.0, 0.1), (0.5, 0.05)] {
            buffer = 0.9 * buffer + gradient + 0.1 * p;
            p -= rate * buffer;
        }
        assert!((walk("sgd") - p).abs() < 1e-12);
    }

    #[test]
    fn adamw_is_the_papers_algorithm_2() {
        let (mut p, mut m, mut v) = (1.0f64, 0.0f64, 0.0f64);
        for (t, (gradient, rate)) in [(1.0, 0.1), (-2.0, 0.1), (0.5, 0.05)].into_iter().enumerate() {
            let t = t as i32 + 1;
            p *= 1.0 - rate * 0.1;
            m = 0.9 * m + 0.1 * gradient;
            v = 0.999 * v + 0.001 * gradient * gradient;
            p -= rate * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8);
        }
        assert!((walk("adamw") - p).abs() < 1e-12);
    }

    #[test]
    fn a_small_gradient_is_not_clipped_and_a_large_one_to_the_limit() {
        let parameter = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let optimizer = Optimizer::new(&spec("sgd"), [(&parameter, Role::Trunk)].into_iter()).unwrap();
        assert_eq!(optimizer.clip_factor(3.0), 1.0);
        assert!((optimizer.clip_factor(40.0) - 0.25).abs() < 1e-7);
    }
}
