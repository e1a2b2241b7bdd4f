//! Products of many weights with few rows each.

use tch::{TchError, Tensor};

use crate::ffi::fused as ffi;

/// `W x` for each of K weights and its rows: `[K, o, i]` and `[K, B, i]` to `[B, K, o]`, of micro-batches of so many rows.
///
/// The same as a batched product, but that no micro-batch changes what becomes of another, not even in the last bit, and for
/// the form of the gradient of `x`, which for few rows takes half the time on a CPU. No gradients of gradients.
///
/// # Errors
/// When shapes or kinds do not match, sizes do not add up to the rows, or there is no room.
pub fn stacked_product(weight: &Tensor, x: &Tensor, sizes: &[i64]) -> Result<Tensor, TchError> {
    ffi::stacked_product(weight, x, sizes).map_err(|failure| TchError::Torch(failure.message))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::test_tensors::noise;
    use tch::{Device, Kind};

    #[test]
    fn products_and_gradients_are_those_of_a_batched_product() {
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Double, Device::Cpu));
        for sizes in [&[1][..], &[4], &[9], &[4, 2, 3]] {
            let rows = sizes.iter().sum();
            let (weight, dy) = (random(&[3, 5, 7]), random(&[rows, 3, 5]));
            // Rows of layers beside each other, as batch norm leaves them.
            let x = random(&[rows, 3, 7]).transpose(0, 1);
            let of = |product: &dyn Fn(&Tensor, &Tensor) -> Tensor| {
                let leaf = |tensor: &Tensor| tensor.copy().set_requires_grad(true);
                let (weight, x) = (leaf(&weight), leaf(&x));
                let y = product(&weight, &x);
                (&y * &dy).sum(Kind::Double).backward();
                [y.detach(), weight.grad(), x.grad()]
            };

            let found = of(&|weight, x| stacked_product(weight, x, sizes).unwrap());

            let expected = of(&|weight, x| weight.bmm(&x.transpose(1, 2)).permute([2, 0, 1]));
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
        stacked_product(&weight, &x, &[5])
            .unwrap()
            .sum(Kind::Float)
            .backward();
        assert!(!weight.grad().defined());
        assert_eq!(x.grad().size(), x.size());
    }

    #[test]
    fn shapes_that_do_not_match_are_refused() {
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
        let weight = zeros(&[2, 3, 4]);
        for (x, sizes) in [
            (zeros(&[2, 5, 6]), &[5][..]),
            (zeros(&[5, 4]), &[5]),
            (zeros(&[2, 5, 4]), &[2, 2]),
            (zeros(&[2, 5, 4]), &[6, -1]),
        ] {
            assert!(stacked_product(&weight, &x, sizes).is_err());
        }
    }

    #[test]
    fn no_micro_batch_changes_another() {
        let weight = noise(&[3, 50, 70], 1.0).set_requires_grad(true);
        let (x, dy) = (noise(&[3, 9, 70], 2.0), noise(&[9, 3, 50], 3.0));
        let of = |first: i64, sizes: &[i64]| {
            let rows = sizes.iter().sum();
            let x = x.narrow(1, first, rows).copy().set_requires_grad(true);
            let y = stacked_product(&weight, &x, sizes).unwrap();
            (&y * dy.narrow(0, first, rows)).sum(Kind::Float).backward();
            [y.detach().transpose(0, 1), x.grad()]
        };

        let together = of(0, &[4, 2, 3]);

        for (first, size) in [(0, 4), (4, 2), (6, 3)] {
            for (together, alone) in together.iter().zip(of(first, &[size])) {
                assert!(together.narrow(1, first, size).equal(&alone));
            }
        }
    }
}
