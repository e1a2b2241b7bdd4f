//! Batch normalisation in training with what follows it, in fewer passes over memory than libtorch's.

use tch::{Device, Kind, TchError, Tensor};

use crate::ffi::fused as ffi;

/// A batch norm (Ioffe and Szegedy 2015) in training of `x`, `[B, C, H, W]`; then `residual`, which is like `x`, is added, and
/// a ReLU taken, if so wanted. `None` where it has no form for `x`: it takes float32 and bfloat16, contiguous or channels
/// last, on the CPU, with everything else in float32.
///
/// Each group of samples, `sizes` of them one behind the other, is normalised by its own statistics: its mean and unbiased
/// variance are left in a row of `statistics`, `[groups, C]` each. `affine` is weight and bias, `[C]`. The same as
/// libtorch's operations one after the other, with sums that are nearer to the exact ones and do not depend on the number
/// of threads. No gradients of gradients.
///
/// # Errors
/// When shapes, kinds or devices do not match, the batch is empty, a residual comes without a ReLU, or there is no room.
pub fn norm(
    x: &Tensor,
    affine: [&Tensor; 2],
    statistics: [&Tensor; 2],
    sizes: &[i64],
    epsilon: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Option<Tensor>, TchError> {
    if !takes(x) || affine[0].kind() != Kind::Float {
        return Ok(None);
    }
    ffi::norm(x, affine, statistics, sizes, epsilon, residual, relu)
        .map(Some)
        .map_err(|failure| TchError::Torch(failure.message))
}

fn takes(x: &Tensor) -> bool {
    let (size, stride) = (x.size(), x.stride());
    let [_, channels, height, width] = size[..] else {
        return false;
    };
    let contiguous = [channels * height * width, height * width, width, 1];
    let channels_last = [height * width * channels, 1, width * channels, channels];
    // Along a dimension of one the stride says nothing.
    let lies = |expected: &[i64]| {
        let mut strides = size.iter().zip(stride.iter().zip(expected));
        strides.all(|(&size, (stride, expected))| size == 1 || stride == expected)
    };
    matches!(x.kind(), Kind::Float | Kind::BFloat16)
        && x.device() == Device::Cpu
        && (lies(&contiguous) || lies(&channels_last))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::test_tensors::{LAYOUTS, channels_last, noise};

    const EPSILON: f64 = 1e-5;

    /// Result, gradients of batch, weight, bias and residual, means and variances.
    type Found = Vec<Tensor>;

    /// By libtorch's own operations in float64.
    fn exactly(inputs: &[Tensor; 5], sizes: &[i64], step: usize) -> Found {
        let [x, weight, bias, residual, dy] = inputs.each_ref().map(|tensor| {
            let leaf = tensor.to_kind(Kind::Double).copy();
            leaf.set_requires_grad(true)
        });
        let (mut parts, mut means, mut variances) = (Vec::new(), Vec::new(), Vec::new());
        for part in x.split_with_sizes(sizes, 0) {
            let [mean, variance] = [(); 2].map(|()| Tensor::zeros_like(&weight).detach());
            let affine = (Some(&weight), Some(&bias));
            let places = (Some(&mean), Some(&variance));
            parts.push(part.batch_norm(
                affine.0, affine.1, places.0, places.1, true, 1.0, EPSILON, false,
            ));
            means.push(mean);
            variances.push(variance);
        }
        let y = Tensor::cat(&parts, 0);
        let y = match step {
            0 => y,
            1 => y.relu(),
            _ => (y + &residual).relu(),
        };
        (&y * dy.detach()).sum(Kind::Double).backward();
        let mut found = vec![y.detach(), x.grad(), weight.grad(), bias.grad()];
        found.extend([Tensor::stack(&means, 0), Tensor::stack(&variances, 0)]);
        if step == 2 {
            found.push(residual.grad());
        }
        found
    }

    fn ours(inputs: &[Tensor; 5], sizes: &[i64], step: usize) -> Found {
        let [x, weight, bias, residual, dy] = inputs
            .each_ref()
            .map(|tensor| tensor.detach().set_requires_grad(true));
        let channels = weight.size()[0];
        // Rows of a table that holds more.
        let places = Tensor::zeros(
            [sizes.len() as i64, 3 * channels],
            (Kind::Float, Device::Cpu),
        );
        let [means, variances] = [0, 2].map(|n| places.narrow(1, n * channels, channels));
        let (added, relu) = ((step == 2).then_some(&residual), step > 0);
        let (affine, places) = ([&weight, &bias], [&means, &variances]);
        let y = norm(&x, affine, places, sizes, EPSILON, added, relu);
        let y = y.unwrap().unwrap();
        assert!(takes(&y) && y.kind() == x.kind());
        (&y * dy.detach()).sum(Kind::Float).backward();
        let mut found = vec![y.detach(), x.grad(), weight.grad(), bias.grad()];
        found.extend([means.copy(), variances.copy()]);
        if step == 2 {
            found.push(residual.grad());
        }
        found
    }

    #[test]
    fn results_statistics_and_gradients_are_those_of_libtorchs_operations() {
        // Widths that vectors do not divide, rows that blocks do not, and more rows than a block.
        let shapes = [
            (4, 64, 28, &[4][..]),
            (6, 37, 7, &[2, 4]),
            (5, 3, 3, &[2, 3]),
            (12, 9, 1, &[12]),
            (12, 5, 2, &[4, 8]),
            (70, 3, 12, &[70]),
        ];
        for ((samples, channels, side, sizes), layout) in shapes
            .into_iter()
            .flat_map(|shape| LAYOUTS.map(|layout| (shape, layout)))
        {
            for (kind, nearness) in [(Kind::Float, 1e-6), (Kind::BFloat16, 4e-3)] {
                let batch = |offset: f64, seed| {
                    let x = noise(&[samples, channels, side, side], seed) * 2.0 + offset;
                    layout(&x.to_kind(kind))
                };
                let inputs = [
                    batch(5.0, 1.0),
                    noise(&[channels], 2.0),
                    noise(&[channels], 3.0),
                    batch(0.0, 4.0),
                    batch(0.0, 5.0),
                ];
                for step in 0..3 {
                    let exact = exactly(&inputs, sizes, step);
                    for (n, (found, exact)) in
                        ours(&inputs, sizes, step).iter().zip(&exact).enumerate()
                    {
                        assert_eq!(found.size(), exact.size());
                        let difference = found.to_kind(Kind::Double) - exact;
                        // What cancels to nothing is measured by what it was made of.
                        let norm = exact.norm().double_value(&[]).max(1e-3);
                        let far = difference.norm().double_value(&[]) / norm;
                        assert!(
                            far < nearness,
                            "{kind:?}, {channels} channels, step {step}, figure {n}: {far:e}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_first_value_that_is_far_out_spoils_no_variance() {
        for layout in LAYOUTS {
            let [x, residual, dy] =
                [1.0, 2.0, 3.0].map(|seed| layout(&noise(&[4, 8, 28, 28], seed)));
            let _ = x.get(0).select(1, 0).select(1, 0).fill_(100.0);
            let inputs = [x, noise(&[8], 4.0), noise(&[8], 5.0), residual, dy];
            let (found, exact) = (ours(&inputs, &[4], 0), exactly(&inputs, &[4], 0));
            for figure in [0, 5] {
                let difference = (found[figure].to_kind(Kind::Double) - &exact[figure]).norm();
                let far = difference.double_value(&[]) / exact[figure].norm().double_value(&[]);
                assert!(far < 1e-5, "figure {figure}: {far:e}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none_and_threads_change_no_bit() {
        for layout in LAYOUTS {
            let inputs = |bad: f64| {
                let [x, residual, dy] =
                    [1.0, 2.0, 3.0].map(|seed| layout(&noise(&[3, 40, 16, 16], seed)));
                let _ = x.get(0).get(1).get(2).get(3).fill_(bad);
                let [weight, bias] = [4.0, 5.0].map(|seed| noise(&[40], seed));
                [x, weight, bias, residual, dy]
            };
            let bad = ours(&inputs(f64::NAN), &[3], 1);
            assert!(bad[0].isnan().any().int64_value(&[]) == 1);
            assert!(bad[2].isnan().any().int64_value(&[]) == 1);

            let inputs = inputs(1.0);
            let threads = tch::get_num_threads();
            tch::set_num_threads(1);
            let one = ours(&inputs, &[1, 2], 2);
            tch::set_num_threads(3);
            let three = ours(&inputs, &[1, 2], 2);
            tch::set_num_threads(threads);
            for (one, three) in one.iter().zip(&three) {
                assert_eq!(one, three);
            }
        }
    }

    #[test]
    fn what_it_has_no_form_for_is_left_and_what_does_not_match_is_refused() {
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
        let (planes, vector, place) = (zeros(&[2, 4, 3, 3]), zeros(&[4]), zeros(&[1, 4]));
        let x = channels_last(&planes);
        let of = |x: &Tensor, weight: &Tensor, means: &Tensor, sizes: &[i64], residual, relu| {
            let (affine, places) = ([weight, &vector], [means, &place]);
            norm(x, affine, places, sizes, EPSILON, residual, relu).map(|y| y.is_some())
        };

        for taken in [&x, &planes] {
            assert!(of(taken, &vector, &place, &[2], None, false).unwrap());
        }
        let doubles = vector.to_kind(Kind::Double);
        for (other, weight) in [
            (&planes.transpose(2, 3), &vector),
            (&x.to_kind(Kind::Double), &vector),
            (&zeros(&[2, 4]), &vector),
            (&x, &doubles),
        ] {
            assert!(!of(other, weight, &place, &[2], None, false).unwrap());
        }

        let short = zeros(&[3]);
        for refused in [
            of(&x, &vector, &place, &[2], Some(&planes), true),
            of(&planes, &vector, &place, &[2], Some(&x), true),
            of(&x, &vector, &place, &[2], Some(&x), false),
            of(&x, &vector, &place, &[1], None, true),
            of(&x, &vector, &place, &[3, -1], None, true),
            of(&x, &vector, &place, &[i64::MAX, i64::MAX, 4], None, true),
            of(&x.narrow(0, 0, 0), &vector, &place, &[], None, true),
            of(&x, &short, &place, &[2], None, true),
            of(&x, &vector, &vector, &[2], None, true),
        ] {
            assert!(refused.is_err());
        }
    }
}
