//! Optimizer updates of many parameters in one call: on CUDA a few kernels for all of them instead of several for each,
//! which libtorch has and tch does not bind; on the CPU, for float32, one pass over memory of our own, in which gradients
//! are multiplied on the way and what becomes of an element does not depend on where in a list it lies.

use tch::{TchError, Tensor};

use crate::ffi::fused as ffi;

/// What `torch.optim.SGD` is told, without dampening and Nesterov's variant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub rate: f64,
    /// `buffer = momentum * buffer + gradient + decay * parameter`.
    pub momentum: f64,
    /// Weight decay.
    pub decay: f64,
}

/// What `torch.optim.AdamW` is told (Loshchilov and Hutter 2017).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Weight decay, apart from the gradient.
    pub decay: f64,
    /// Which update this is, from 1, for the correction of the moments.
    pub step: u64,
}

/// Updates parameters and momentum buffers in place by `factor` times the gradients, which are only read. All lists have
/// one tensor a parameter or stretch of one, of its shape, kind and device, all contiguous.
///
/// # Errors
/// When lists do not match or the device fails.
pub fn sgd(
    parameters: &[Tensor],
    gradients: &[Tensor],
    buffers: &[Tensor],
    factor: f64,
    sgd: Sgd,
) -> Result<(), TchError> {
    let lists = [parameters, gradients, buffers];
    check(&lists, true)?;
    ffi::sgd(&lists, factor, sgd).map_err(|failure| TchError::Torch(failure.message))
}

/// Updates parameters and both moments in place; lists and factor as for [`sgd`].
///
/// # Errors
/// As for [`sgd`].
pub fn adamw(
    parameters: &[Tensor],
    gradients: &[Tensor],
    moments: [&[Tensor]; 2],
    factor: f64,
    adamw: AdamW,
) -> Result<(), TchError> {
    let lists = [parameters, gradients, moments[0], moments[1]];
    check(&lists, true)?;
    ffi::adamw(&lists, factor, adamw).map_err(|failure| TchError::Torch(failure.message))
}

/// `average += weight * (towards - average)` for every pair, in place; lists as for [`sgd`], however they lie.
///
/// # Errors
/// As for [`sgd`].
pub fn lerp(averages: &[Tensor], towards: &[Tensor], weight: f64) -> Result<(), TchError> {
    let lists = [averages, towards];
    check(&lists, false)?;
    ffi::lerp(&lists, weight).map_err(|failure| TchError::Torch(failure.message))
}

/// Kernels trust their lists.
fn check(lists: &[&[Tensor]], contiguous: bool) -> Result<(), TchError> {
    let parameters = lists[0];
    for list in lists {
        let alike = list.len() == parameters.len()
            && list.iter().zip(parameters).all(|(tensor, parameter)| {
                tensor.defined()
                    && tensor.size() == parameter.size()
                    && tensor.kind() == parameter.kind()
                    && tensor.device() == parameter.device()
                    && (!contiguous || tensor.is_contiguous())
            });
        if !alike {
            return Err(TchError::Shape(
                "a fused update needs one contiguous tensor of each kind of state for every parameter, of its shape, \
                 kind and device"
                    .to_owned(),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn lists_that_do_not_match_are_refused() {
        let tensor = |size: i64, kind| vec![Tensor::ones([size], (kind, Device::Cpu))];
        let rule = Sgd {
            rate: 0.1,
            momentum: 0.9,
            decay: 0.0,
        };
        let good = tensor(3, Kind::Float);
        let spread = vec![Tensor::ones([3, 2], (Kind::Float, Device::Cpu)).select(1, 0)];
        for bad in [
            tensor(2, Kind::Float),
            tensor(3, Kind::Double),
            Vec::new(),
            spread,
        ] {
            let error = sgd(&good, &bad, &good, 1.0, rule).unwrap_err();
            assert!(matches!(error, TchError::Shape(_)), "{error}");
        }
        sgd(
            &good,
            &tensor(3, Kind::Float),
            &tensor(3, Kind::Float),
            1.0,
            rule,
        )
        .unwrap();
        assert!((good[0].double_value(&[0]) - (1.0 - 0.1 * 1.9)).abs() < 1e-6);
    }

    #[test]
    fn a_factor_multiplies_gradients_that_stay_as_they_are() {
        // More elements than are multiplied at a time, and not a multiple of them.
        let sized = |value: f64| {
            let one = |size: i64| Tensor::full([size], value, (Kind::Double, Device::Cpu));
            vec![one(300_000), one(7)]
        };
        let (rate, momentum, decay) = (0.1, 0.9, 0.0);
        let (sgd_rule, steps) = (
            Sgd {
                rate,
                momentum,
                decay,
            },
            2,
        );
        let adamw_rule = |step| AdamW {
            rate,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-3,
            decay: 0.1,
            step,
        };
        for (gradient, factor) in [(4.0, 0.25), (1.0, 1.0)] {
            let (values, gradients) = (sized(1.0), sized(gradient));
            let (buffers, means, squares) = (sized(0.0), sized(0.0), sized(0.0));
            let others = sized(1.0);

            for step in 0..steps {
                sgd(&values, &gradients, &buffers, factor, sgd_rule).unwrap();
                adamw(
                    &others,
                    &gradients,
                    [&means, &squares],
                    factor,
                    adamw_rule(step + 1),
                )
                .unwrap();
            }

            let all = |tensors: &[Tensor], expected: f64| {
                for tensor in tensors {
                    for found in [tensor.min(), tensor.max()] {
                        assert!(
                            (found.double_value(&[]) - expected).abs() < 1e-12,
                            "{found:?}"
                        );
                    }
                }
            };
            all(&values, 1.0 - 0.1 - 0.19);
            all(&means, 0.19);
            all(&squares, 0.0199);
            all(&gradients, gradient);
        }
    }

    /// Values that repeat only after far more elements than are taken at a time.
    fn wave(size: i64, scale: f64, kind: Kind) -> Tensor {
        let places = Tensor::arange(size, (Kind::Double, Device::Cpu));
        ((places * 0.7391).sin() * scale).to_kind(kind)
    }

    /// Four updates by either rule of a parameter in pieces that end at `cuts`: its values and its state.
    fn walk(sgd_rule: bool, kind: Kind, cuts: &[i64]) -> Vec<Tensor> {
        let size = 150_011;
        let tensors: Vec<Tensor> = [1.0, 0.0, 0.0].map(|scale| wave(size, scale, kind)).into();
        for step in 1..=4 {
            let gradient = wave(size, 10f64.powi(2 - step), kind);
            let pieces = |tensor: &Tensor| -> Vec<Tensor> {
                let ends = cuts.iter().copied().chain([size]);
                let begins = [0].into_iter().chain(cuts.iter().copied());
                let bounds = begins.zip(ends);
                bounds
                    .map(|(from, to)| tensor.narrow(0, from, to - from))
                    .collect()
            };
            let [values, first, second] = [0, 1, 2].map(|index| pieces(&tensors[index]));
            let gradients = pieces(&gradient);
            if sgd_rule {
                let rule = Sgd {
                    rate: 0.03,
                    momentum: 0.9,
                    decay: 0.01,
                };
                sgd(&values, &gradients, &first, 0.37, rule).unwrap();
            } else {
                let (rate, decay, step) = (0.03, 0.01, step as u64);
                let (beta1, beta2, epsilon) = (0.9, 0.999, 1e-8);
                let rule = AdamW {
                    rate,
                    beta1,
                    beta2,
                    epsilon,
                    decay,
                    step,
                };
                adamw(&values, &gradients, [&first, &second], 0.37, rule).unwrap();
            }
        }
        tensors
    }

    #[test]
    fn float32_is_as_near_to_float64_as_libtorchs_and_the_same_wherever_an_element_lies() {
        for sgd_rule in [true, false] {
            let exact = walk(sgd_rule, Kind::Double, &[]);
            let whole = walk(sgd_rule, Kind::Float, &[]);
            let cut = walk(
                sgd_rule,
                Kind::Float,
                &[1, 8, 1003, 65_536, 65_543, 149_999],
            );
            for ((exact, whole), cut) in exact.iter().zip(&whole).zip(&cut) {
                assert!(whole.equal(cut), "{sgd_rule}");
                let error = (whole.to_kind(Kind::Double) - exact).abs().max();
                assert!(error.double_value(&[]) < 2e-6, "{sgd_rule}: {error:?}");
            }
        }
    }

    #[test]
    fn without_momentum_gradients_alone_move_values() {
        for kind in [Kind::Float, Kind::Double] {
            let [values, gradients, buffers] =
                [1.0, 4.0, 0.0].map(|value| vec![Tensor::full([3], value, (kind, Device::Cpu))]);
            let (rate, momentum, decay) = (0.5, 0.0, 0.0);
            let rule = Sgd {
                rate,
                momentum,
                decay,
            };
            for _ in 0..2 {
                sgd(&values, &gradients, &buffers, 0.25, rule).unwrap();
            }
            assert!(values[0].abs().max().double_value(&[]) < 1e-6, "{kind:?}");
        }
    }

    #[test]
    fn what_is_no_number_stays_none_and_spoils_nothing_else() {
        let rule = Sgd {
            rate: 0.1,
            momentum: 0.5,
            decay: 0.0,
        };
        let [values, gradients, buffers] = [1.0, 1.0, 0.0]
            .map(|value| vec![Tensor::full([100], value, (Kind::Float, Device::Cpu))]);
        let _ = gradients[0].get(41).fill_(f64::NAN);
        let _ = gradients[0].get(97).fill_(f64::INFINITY);
        sgd(&values, &gradients, &buffers, 1.0, rule).unwrap();
        assert_eq!(values[0].isnan().sum(Kind::Int64).int64_value(&[]), 1);
        assert_eq!(values[0].isinf().sum(Kind::Int64).int64_value(&[]), 1);
        let rest = values[0].eq_tensor(&Tensor::from(0.9f32)).sum(Kind::Int64);
        assert_eq!(rest.int64_value(&[]), 98);
    }

    #[test]
    fn averages_move_by_their_weight_and_what_they_move_towards_stays() {
        let tensors = |value: f64| -> Vec<Tensor> {
            let sized = |size: i64| Tensor::full([size], value, (Kind::Double, Device::Cpu));
            vec![sized(3), sized(1)]
        };
        let (averages, towards) = (tensors(1.0), tensors(5.0));
        lerp(&averages, &towards, 0.25).unwrap();
        for (average, toward) in averages.iter().zip(&towards) {
            assert_eq!(
                (
                    average.max().double_value(&[]),
                    average.min().double_value(&[])
                ),
                (2.0, 2.0)
            );
            assert_eq!(toward.max().double_value(&[]), 5.0);
        }
        assert!(lerp(&averages, &towards[..1], 0.25).is_err());
    }
}
