//! SGD with momentum and AdamW over two parameter groups, by fused updates.
//!
//! tch's own optimizers cannot zero gradients that are views of the reducer's buckets; and here every tensor of the
//! state has a name, a place in checkpoints and a place in the broadcast that makes replicas identical.

use model::Role;
use nccl_rs::Stretch;
use nccl_rs::fused::{self, AdamW, Sgd};
use proto::v1::TrainSpec;
use tch::{TchError, Tensor};

use super::schedule::Rates;

/// The update rule.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// `buffer = momentum * buffer + (g + decay * p); p -= rate * buffer`, as `torch.optim.SGD` without dampening.
    Sgd { momentum: f64 },
    /// Loshchilov and Hutter 2017, as `torch.optim.AdamW`: decay apart from the gradient, bias-corrected moments.
    AdamW {
        beta1: f64,
        beta2: f64,
        epsilon: f64,
    },
}

/// What has one learning rate: lists with one flat tensor a stretch of a parameter, as the fused updates take them.
#[derive(Debug)]
struct Group {
    role: Role,
    values: Vec<Tensor>,
    gradients: Vec<Tensor>,
    /// One list a kind of state.
    state: Vec<Vec<Tensor>>,
}

/// Elements of a dense tensor as they lie in memory: a flat view.
fn flat(tensor: &Tensor, from: usize, length: i64) -> Result<Tensor, TchError> {
    let all = tensor.f_as_strided([tensor.numel() as i64], [1], None)?;
    all.f_narrow(0, from as i64, length)
}

/// Parameters with their optimizer state.
#[derive(Debug)]
pub(crate) struct Optimizer {
    rule: Rule,
    weight_decay: f64,
    clip_norm: f64,
    /// Steps that the trunk does not take part in.
    frozen_steps: u64,
    parameters: Vec<(Tensor, Role)>,
    /// One list per kind of state, each with one tensor a parameter and of its shape.
    state: Vec<(&'static str, Vec<Tensor>)>,
    /// Those that have parameters; none before [`Optimizer::bind`].
    groups: Vec<Group>,
    /// All gradients again where they must be multiplied in place, as few flat tensors.
    flat: Vec<Tensor>,
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
        let parameters: Vec<(Tensor, Role)> = parameters
            .map(|(value, role)| Ok((value.f_detach()?, role)))
            .collect::<Result<_, TchError>>()?;
        let (rule, names): (Rule, &[&'static str]) = match spec.optimizer.as_str() {
            "adamw" => (
                Rule::AdamW {
                    beta1: spec.adam_beta1,
                    beta2: spec.adam_beta2,
                    epsilon: spec.adam_epsilon,
                },
                &["exp_avg", "exp_avg_sq"],
            ),
            _ => (
                Rule::Sgd {
                    momentum: spec.momentum,
                },
                &["momentum_buffer"],
            ),
        };
        let state = names
            .iter()
            .map(|&name| {
                let zeros = parameters
                    .iter()
                    .map(|(value, _)| nccl_rs::untouched_zeros_like(value));
                Ok((name, zeros.collect::<Result<_, TchError>>()?))
            })
            .collect::<Result<_, TchError>>()?;
        let (weight_decay, clip_norm) = (spec.weight_decay, spec.clip_norm);
        Ok(Self {
            rule,
            weight_decay,
            clip_norm,
            frozen_steps: u64::from(spec.freeze_trunk_epochs) * spec.steps_per_epoch,
            parameters,
            state,
            groups: Vec::new(),
            flat: Vec::new(),
        })
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
        if self.clip_norm > 0.0 {
            (self.clip_norm / (norm + 1e-6)).min(1.0)
        } else {
            1.0
        }
    }

    /// Says where the gradients will be: by stretches of parameters, and all of them again as few `flat` tensors.
    ///
    /// # Errors
    /// When libtorch fails.
    pub(crate) fn bind(&mut self, gradients: &[Stretch], flat: &[Tensor]) -> Result<(), TchError> {
        let group = |role| {
            let mut group = Group {
                role,
                values: Vec::new(),
                gradients: Vec::new(),
                state: self.state.iter().map(|_| Vec::new()).collect(),
            };
            for stretch in gradients {
                let (index, from) = (stretch.parameter, stretch.from);
                let Some((value, _)) = self.parameters.get(index).filter(|(_, its)| *its == role)
                else {
                    continue;
                };
                let length = stretch.sums.size1()?;
                group.values.push(self::flat(value, from, length)?);
                group.gradients.push(stretch.sums.shallow_clone());
                for (list, (_, state)) in group.state.iter_mut().zip(&self.state) {
                    list.push(self::flat(&state[index], from, length)?);
                }
            }
            Ok(group)
        };
        let groups = [Role::Trunk, Role::Head].into_iter().map(group);
        let groups = groups.collect::<Result<Vec<_>, TchError>>()?;
        self.groups = groups
            .into_iter()
            .filter(|group| !group.values.is_empty())
            .collect();
        // On CUDA nobody else reads them.
        let in_place = flat.iter().filter(|tensor| tensor.device().is_cuda());
        self.flat = in_place.map(Tensor::shallow_clone).collect();
        Ok(())
    }

    /// Lets go of the gradients: whoever made them may use their memory again.
    pub(crate) fn release(&mut self) {
        self.groups.clear();
        self.flat.clear();
    }

    /// Applies `factor` times the gradients of `step` (from 0). On the CPU they stay as they are.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn apply(
        &mut self,
        step: u64,
        rates: Rates,
        mut factor: f64,
    ) -> Result<(), TchError> {
        if factor != 1.0 && !self.flat.is_empty() {
            for gradient in &mut self.flat {
                let _ = gradient.f_mul_scalar_(factor)?;
            }
            factor = 1.0;
        }
        let decay = self.weight_decay;
        for group in &self.groups {
            // A frozen trunk gathers no history either; AdamW counts its steps from when it begins to move.
            let (rate, frozen) = match group.role {
                Role::Trunk => (rates.trunk, self.frozen_steps),
                Role::Head => (rates.head, 0),
            };
            if step < frozen {
                continue;
            }
            let Group {
                values, gradients, ..
            } = group;
            match (self.rule, group.state.as_slice()) {
                (Rule::Sgd { momentum }, [buffers]) => {
                    let rule = Sgd {
                        rate,
                        momentum,
                        decay,
                    };
                    fused::sgd(values, gradients, buffers, factor, rule)?;
                }
                (
                    Rule::AdamW {
                        beta1,
                        beta2,
                        epsilon,
                    },
                    [means, squares],
                ) => {
                    let rule = AdamW {
                        rate,
                        beta1,
                        beta2,
                        epsilon,
                        decay,
                        step: step + 1 - frozen,
                    };
                    fused::adamw(values, gradients, [means, squares], factor, rule)?;
                }
                // `new` makes the state that the rule has.
                _ => {}
            }
        }
        Ok(())
    }
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

    /// The gradient of the only parameter in one stretch.
    fn whole(gradient: &Tensor) -> Stretch {
        Stretch {
            parameter: 0,
            from: 0,
            sums: gradient.shallow_clone(),
        }
    }

    /// Three steps on one parameter whose gradients are 1, -2 and 0.5; the rate falls from 0.1 to 0.05 in the third.
    fn walk(optimizer: &str) -> f64 {
        let parameter = Tensor::full([1], 1.0, (Kind::Double, Device::Cpu));
        let mut optimizer =
            Optimizer::new(&spec(optimizer), [(&parameter, Role::Head)].into_iter()).unwrap();
        let mut gradient = Tensor::zeros([1], (Kind::Double, Device::Cpu));
        optimizer.bind(&[whole(&gradient)], &[]).unwrap();
        for (step, (value, rate)) in [(1.0, 0.1), (-2.0, 0.1), (0.5, 0.05)]
            .into_iter()
            .enumerate()
        {
            // Twice the gradient and half the factor: the factor counts.
            let _ = gradient.fill_(2.0 * value);
            optimizer
                .apply(
                    step as u64,
                    Rates {
                        trunk: 0.0,
                        head: rate,
                    },
                    0.5,
                )
                .unwrap();
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
        for (t, (gradient, rate)) in [(1.0, 0.1), (-2.0, 0.1), (0.5, 0.05)]
            .into_iter()
            .enumerate()
        {
            let t = t as i32 + 1;
            p *= 1.0 - rate * 0.1;
            m = 0.9 * m + 0.1 * gradient;
            v = 0.999 * v + 0.001 * gradient * gradient;
            p -= rate * (m / (1.0 - 0.9f64.powi(t)))
                / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8);
        }
        assert!((walk("adamw") - p).abs() < 1e-12);
    }

    #[test]
    fn a_trunk_that_was_frozen_begins_as_if_its_first_step_were_the_runs() {
        let walk = |optimizer: &str, frozen: u32| {
            let parameter = Tensor::full([1], 1.0, (Kind::Double, Device::Cpu));
            let mut spec = spec(optimizer);
            (spec.steps_per_epoch, spec.freeze_trunk_epochs) = (1, frozen);
            let mut optimizer =
                Optimizer::new(&spec, [(&parameter, Role::Trunk)].into_iter()).unwrap();
            let gradient = Tensor::full([1], 0.5, (Kind::Double, Device::Cpu));
            optimizer.bind(&[whole(&gradient)], &[]).unwrap();
            for step in 0..u64::from(frozen) + 2 {
                let rates = Rates {
                    trunk: 0.1,
                    head: 0.0,
                };
                optimizer.apply(step, rates, 1.0).unwrap();
            }
            parameter.double_value(&[0])
        };
        for optimizer in ["sgd", "adamw"] {
            assert_eq!(walk(optimizer, 3), walk(optimizer, 0), "{optimizer}");
        }
    }

    #[test]
    fn a_small_gradient_is_not_clipped_and_a_large_one_to_the_limit() {
        let parameter = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let optimizer =
            Optimizer::new(&spec("sgd"), [(&parameter, Role::Trunk)].into_iter()).unwrap();
        assert_eq!(optimizer.clip_factor(3.0), 1.0);
        assert!((optimizer.clip_factor(40.0) - 0.25).abs() < 1e-7);
    }
}
