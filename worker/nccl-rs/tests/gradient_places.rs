//! Gradients that operations compute where the reducer sums them: the same as autograd's, however often a parameter is used.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use nccl_rs::{BucketSizes, Reducer, convolution, stacked_product};
use tch::{Device, Kind, Tensor};

use support::{Rank, on_ranks, relative_difference, summed};

const FLOATS: (Kind, Device) = (Kind::Float, Device::Cpu);

#[test]
fn gradients_of_weights_used_once_twice_and_in_part_are_those_of_autograd() {
    on_ranks(
        "gradients_of_weights_used_once_twice_and_in_part_are_those_of_autograd",
        2,
        |rank| {
            for passes in [1, 2] {
                are_those_of_autograd(&rank, passes);
            }
        },
    );
}

/// Two steps, so that the second writes over the first one's.
fn are_those_of_autograd(rank: &Rank, passes: usize) {
    let group = rank.group(&format!("g{passes}"));
    let parameters = parameters();
    let sizes = BucketSizes {
        first_bytes: 10_000,
        cap_bytes: 20_000,
    };
    let reducer = Reducer::new(&group, &parameters, sizes).unwrap();
    for step in 0..2 {
        reducer.zero_gradients().unwrap();
        let own: Vec<_> = (0..passes)
            .map(|pass| loss(&parameters, Form::Products, seed(step, pass, rank.rank)))
            .collect();
        let (last, before) = own.split_last().unwrap();
        for loss in before {
            reducer.accumulate(loss).unwrap();
        }
        reducer.backward(last).unwrap();

        let alone = self::parameters();
        for other in 0..rank.world_size {
            for pass in 0..passes {
                loss(&alone, Form::Libtorch, seed(step, pass, other)).backward();
            }
        }
        for (index, found) in summed(&reducer, &parameters).iter().enumerate() {
            let difference = relative_difference(found, &alone[index].grad());
            assert!(
                difference < 1e-5,
                "step {step}, {passes} passes, parameter {index}: {difference:e} apart"
            );
        }
    }
}

fn seed(step: usize, pass: usize, rank: usize) -> i64 {
    (100 * step + 10 * pass + rank) as i64
}

/// A convolution's weights; stacked weights used once, twice, in halves, and turned.
fn parameters() -> Vec<Tensor> {
    tch::manual_seed(5);
    [
        &[64, 8, 3, 3][..],
        &[3, 20, 30],
        &[3, 20, 30],
        &[6, 20, 30],
        &[3, 30, 20],
    ]
    .map(|size| Tensor::randn(size, FLOATS).set_requires_grad(true))
    .into()
}

#[derive(Clone, Copy)]
enum Form {
    Products,
    Libtorch,
}

fn loss(parameters: &[Tensor], form: Form, seed: i64) -> Tensor {
    tch::manual_seed(seed);
    let [pictures, rows] = [&[4, 4, 4, 8][..], &[3, 4, 30]].map(|size| Tensor::randn(size, FLOATS));
    // Channels last.
    let pictures = pictures.permute([0, 3, 1, 2]);
    let convolved = match form {
        Form::Products => convolution(&pictures, &parameters[0], 1, 1, &[2, 2])
            .unwrap()
            .unwrap(),
        Form::Libtorch => pictures.conv2d(&parameters[0], None::<Tensor>, 1, 1, 1, 1),
    };
    let product = |weight: &Tensor, x: &Tensor| match form {
        Form::Products => stacked_product(weight, x, &[2, 2]).unwrap(),
        Form::Libtorch => weight.bmm(&x.transpose(1, 2)).permute([2, 0, 1]),
    };
    let parts = [
        convolved.relu(),
        product(&parameters[1], &rows),
        product(&parameters[2], &rows),
        product(&parameters[2], &(&rows * 2.0)),
        product(&parameters[3].narrow(0, 0, 3), &rows),
        product(&parameters[3].narrow(0, 3, 3), &(&rows * 3.0)),
        product(&parameters[4].transpose(1, 2), &rows),
    ];
    parts
        .iter()
        .map(|part| (part * part).sum(Kind::Float))
        .reduce(|sum, part| sum + part)
        .unwrap()
}
