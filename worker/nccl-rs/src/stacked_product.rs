//! Products of many weights with few rows each.

use tch::{TchError, Tensor};

use crate::ffi::fused as ffi;

/// `W xᵀ` for each of K weights: `[K, o, i]` and `[K, B, i]` to `[K, o, B]`.
///
/// The same as a batched product, but for the form of the gradient of `x`, which for few rows B takes half the time on a
/// CPU. No gradients of gradients.
///
/// # Errors
/// When shapes or kinds do not match, or there is no room.
pub fn stacked_product(weight: &Tensor, x: &Tensor) -> Result<Tensor, TchError> {
    ffi::stacked_product(weight, x).map_err(|failure| TchError::Torch(failure.message))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn products_and_gradients_are_those_of_a_batched_product() {
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Double, Device::Cpu));
        for rows in [1, 4, 9] {
            let (weight, dy) = (random(&[3, 5, 7]), random(&[3, 5, rows]));
            // Rows of layers beside each other, as batch norm leaves them.
            let x = random(&[rows, 3, 7]).transpose(0, 1);
            let of = |product: &dyn Fn(&Tensor, &Tensor) -> Tensor| {
                let leaf = |tensor: &Tensor| tensor.copy().set_requires_grad(true);
                let (weight, x) = (leaf(&weight), leaf(&x));
                let y = product(&weight, &x);
                (&y * &dy).sum(Kind::Double).backward();
                [y.detach(), weight.grad(), x.grad()]
            };

            let found = of(&|weight, x| stacked_product(weight, x).unwrap());

            let expected = of(&|weight, x| weight.bmm(&x.transpose(1, 2)));
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.size(), expected.size());
                let difference = (found - expected).abs().max().double_value(&[]);
                assert!(difference < 1e-13, "{difference:e} apart");
            }
        }
    }

    #[test]
    fn a_weight_that_is_held_gets_no_gradient() {
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
        let (weight, x) = (
            random(&[2, 3, 4]),
            random(&[2, 5, 4]).set_requires_grad(true),
        );
        stacked_product(&weight, &x)
            .unwrap()
            .sum(Kind::Float)
            .backward();
        assert!(!weight.grad().defined());
        assert_eq!(x.grad().size(), x.size());
    }

    #[test]
    fn shapes_that_do_not_match_are_refused() {
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
        assert!(stacked_product(&zeros(&[2, 3, 4]), &zeros(&[2, 5, 6])).is_err());
    }
}
