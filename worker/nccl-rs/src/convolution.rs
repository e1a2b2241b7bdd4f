//! Convolutions with few output pixels and many weights, as matrix products.

use tch::{TchError, Tensor};

use crate::ffi::fused as ffi;

/// Convolves `x`, `[B, C, H, W]`, with `weight`, `[O, C, k, k]`, by `stride` and with `padding` zeros on each side, without
/// bias. `None` where it is no faster than libtorch's: it takes float32 on the CPU, contiguous or channels last, with few
/// output pixels for its weights. The same as libtorch's up to the order of additions. No gradients of gradients.
///
/// `sizes` are the samples of the micro-batches that share the pass, one behind the other. What becomes of each of them does
/// not depend on the others, but for the sums over them that weights' gradients are; whether it is taken at all depends on
/// the largest.
///
/// # Errors
/// When shapes do not match, or there is no room.
pub fn convolution(
    x: &Tensor,
    weight: &Tensor,
    stride: i64,
    padding: i64,
    sizes: &[i64],
) -> Result<Option<Tensor>, TchError> {
    ffi::convolution(x, weight, stride, padding, sizes)
        .map_err(|failure| TchError::Torch(failure.message))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::test_tensors::{LAYOUTS, noise};
    use tch::Kind;

    /// Result, and the gradients of picture and weight.
    fn of(
        x: &Tensor,
        weight: &Tensor,
        dy: &Tensor,
        convolve: impl Fn(&Tensor, &Tensor) -> Tensor,
    ) -> [Tensor; 3] {
        let [x, weight] = [x, weight].map(|leaf| leaf.detach().set_requires_grad(true));
        let y = convolve(&x, &weight);
        (&y * dy).sum(dy.kind()).backward();
        [y.detach(), x.grad(), weight.grad()]
    }

    #[test]
    fn results_and_gradients_are_libtorchs_in_float64_to_rounding() {
        for (sizes, from, to, [height, width], side, stride) in [
            (&[2][..], 24, 80, [2, 2], 3, 1),
            (&[1], 5, 64, [7, 2], 3, 2),
            (&[2, 1], 16, 100, [4, 5], 1, 2),
            (&[1, 1], 32, 96, [3, 3], 1, 1),
            (&[1], 3, 80, [6, 6], 5, 2),
        ] {
            for layout in LAYOUTS {
                let batch: i64 = sizes.iter().sum();
                let x = layout(&noise(&[batch, from, height, width], 1.0));
                let weight = noise(&[to, from, side, side], 2.0);
                let padding = side / 2;
                let plain = |x: &Tensor, weight: &Tensor| {
                    let (stride, padding) = ([stride; 2], [padding; 2]);
                    x.conv2d(weight, None::<&Tensor>, stride, padding, [1, 1], 1)
                };
                let dy = noise(&plain(&x, &weight).size(), 3.0);
                let [exact, found] = [Kind::Double, Kind::Float].map(|kind| {
                    let [x, weight, dy] = [&x, &weight, &dy].map(|tensor| tensor.to_kind(kind));
                    of(&x, &weight, &dy, |x, weight| {
                        let y = convolution(x, weight, stride, padding, sizes).unwrap();
                        assert_eq!(y.is_some(), kind == Kind::Float);
                        let y = y.unwrap_or_else(|| plain(x, weight));
                        assert_eq!(y.stride(), layout(&y).stride());
                        y
                    })
                });
                for (n, (found, exact)) in found.iter().zip(&exact).enumerate() {
                    assert_eq!(found.size(), exact.size());
                    let difference = (found.to_kind(Kind::Double) - exact).norm();
                    let far = difference.double_value(&[]) / exact.norm().double_value(&[]);
                    assert!(far < 1e-6, "{from} to {to} channels, figure {n}: {far:e}");
                }
            }
        }
    }

    #[test]
    fn a_micro_batch_comes_out_the_same_whatever_shares_its_pass() {
        for layout in LAYOUTS {
            let x = layout(&noise(&[6, 40, 2, 2], 1.0));
            let weight = noise(&[80, 40, 3, 3], 2.0);
            let dy = layout(&noise(&[6, 80, 2, 2], 3.0));
            let pass = |first, sizes: &[i64]| {
                let [x, dy] = [&x, &dy].map(|all| all.narrow(0, first, sizes.iter().sum()));
                of(&x, &weight, &dy, |x, weight| {
                    convolution(x, weight, 1, 1, sizes).unwrap().unwrap()
                })
            };
            let together = pass(0, &[2, 2, 2]);
            for first in [0, 2, 4] {
                let alone = pass(first, &[2]);
                for figure in [0, 1] {
                    assert_eq!(together[figure].narrow(0, first, 2), alone[figure]);
                }
            }
        }
    }

    #[test]
    fn what_is_not_wanted_has_no_gradient() {
        let (x, weight) = (noise(&[2, 24, 2, 2], 1.0), noise(&[80, 24, 3, 3], 2.0));
        let weight = weight.set_requires_grad(true);
        let y = convolution(&x, &weight, 1, 1, &[2]).unwrap().unwrap();
        y.sum(Kind::Float).backward();
        assert!(weight.grad().defined() && !x.grad().defined());
    }

    #[test]
    fn many_pixels_are_left_to_libtorch_and_what_does_not_match_is_refused() {
        let weight = noise(&[80, 24, 3, 3], 2.0);
        let of = |x: &Tensor, weight: &Tensor, sizes: &[i64]| convolution(x, weight, 1, 1, sizes);
        let swapped = |x: &Tensor| x.transpose(0, 1).contiguous().transpose(0, 1);
        let x = noise(&[2, 24, 2, 2], 1.0);
        assert!(of(&x, &weight, &[2]).unwrap().is_some());
        for (x, weight) in [
            (&noise(&[2, 24, 8, 8], 1.0), &weight),
            (&swapped(&x), &weight),
            (&x, &swapped(&weight)),
        ] {
            assert!(of(x, weight, &[2]).unwrap().is_none());
        }
        for (x, weight, sizes) in [
            (&noise(&[2, 23, 2, 2], 1.0), &weight, &[2][..]),
            (&noise(&[24, 2, 2], 1.0), &weight, &[2]),
            (&x, &noise(&[80, 24, 3, 2], 2.0), &[2]),
            (&x, &noise(&[80, 24, 5, 5], 2.0), &[2]),
            (&x, &weight, &[]),
            (&x, &weight, &[1]),
            (&x, &weight, &[3, -1]),
        ] {
            assert!(of(x, weight, sizes).is_err());
        }
        assert!(convolution(&x, &weight, 0, 1, &[2]).is_err());
    }
}
