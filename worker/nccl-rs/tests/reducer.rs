//! The reducer's sums between real processes, against one process that does all of the work.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use nccl_rs::{BucketSizes, Error, GlooOptions, ProcessGroup, Reducer};
use tch::{Device, Kind, Tensor};

use support::{Rank, bits, on_ranks, options, relative_difference, shares_memory, summed};

/// A handful of buckets for the model below.
const SMALL: BucketSizes = BucketSizes {
    first_bytes: 400,
    cap_bytes: 2_000,
};

#[test]
fn two_ranks_sum_to_the_gradients_of_one_process() {
    on_ranks("two_ranks_sum_to_the_gradients_of_one_process", 2, |rank| {
        sums_equal(&rank, 6)
    });
}

#[test]
fn three_ranks_sum_to_the_gradients_of_one_process() {
    on_ranks(
        "three_ranks_sum_to_the_gradients_of_one_process",
        3,
        |rank| sums_equal(&rank, 6),
    );
}

#[test]
fn ranks_with_more_and_fewer_micro_batches_sum_to_the_gradients_of_one_process() {
    on_ranks(
        "ranks_with_more_and_fewer_micro_batches_sum_to_the_gradients_of_one_process",
        3,
        |rank| sums_equal(&rank, 7),
    );
}

#[test]
fn a_rank_without_a_micro_batch_takes_part_with_zeros() {
    on_ranks(
        "a_rank_without_a_micro_batch_takes_part_with_zeros",
        3,
        |rank| sums_equal(&rank, 2),
    );
}

/// Three steps, so that what a step leaves behind shows in the next.
fn sums_equal(rank: &Rank, micro_batches: usize) {
    let group = rank.group("g1");
    let model = Model::new();
    let reducer = Reducer::new(&group, &model.parameters, SMALL).unwrap();
    assert_eq!(
        reducer.is_shared(),
        shares_memory(),
        "all ranks run on this machine"
    );
    for step in 0..3 {
        step_of(rank, &model, &reducer, step, micro_batches);

        let alone = Model::new();
        for number in 0..micro_batches {
            alone.loss(step, number).backward();
        }
        for (index, found) in summed(&reducer, &model.parameters).iter().enumerate() {
            let expected = alone.parameters[index].grad();
            let difference = relative_difference(found, &expected);
            let bound = if found.kind() == Kind::Double {
                1e-13
            } else {
                1e-5
            };
            assert!(
                difference < bound,
                "step {step}, parameter {index}: {difference:e} apart"
            );
        }
        same_on_all_ranks(&group, &reducer.flat_sums().unwrap());

        let gradients = alone
            .parameters
            .iter()
            .map(|parameter| parameter.grad().to_kind(Kind::Double));
        let squares: f64 = gradients
            .map(|gradient| gradient.norm().double_value(&[]).powi(2))
            .sum();
        let norm = reducer.norm().unwrap();
        let difference = (norm - squares.sqrt()).abs() / norm;
        assert!(difference < 1e-6, "step {step}, norm: {difference:e} apart");
        same_on_all_ranks(&group, &[Tensor::from(norm)]);
    }
}

/// What a rank does in a step whose micro-batches are dealt out in turn.
fn step_of(rank: &Rank, model: &Model, reducer: &Reducer, step: usize, micro_batches: usize) {
    let own: Vec<usize> = (rank.rank..micro_batches)
        .step_by(rank.world_size)
        .collect();
    reducer.zero_gradients().unwrap();
    match own.split_last() {
        None => reducer.backward_zero().unwrap(),
        Some((last, before)) => {
            for number in before {
                reducer.accumulate(&model.loss(step, *number)).unwrap();
            }
            reducer.backward(&model.loss(step, *last)).unwrap();
        }
    }
}

fn same_on_all_ranks(group: &ProcessGroup, tensors: &[Tensor]) {
    for tensor in tensors {
        let all = group.all_gather(tensor).unwrap().wait().unwrap();
        for other in 0..group.world_size() as i64 {
            assert_eq!(
                bits(&all.get(other)),
                bits(tensor),
                "rank {other} holds another sum"
            );
        }
    }
}

/// Of float32 alone; and where nothing is sent, nothing is rounded.
#[test]
fn compressed_sums_are_those_of_one_process_to_the_precision_of_bfloat16() {
    let name = "compressed_sums_are_those_of_one_process_to_the_precision_of_bfloat16";
    on_ranks(name, 3, |rank| {
        let options = GlooOptions {
            compress_gradients: true,
            ..options()
        };
        let group = rank.group_with("g1", rank.rank, rank.world_size, options);
        let model = Model::new();
        let reducer = Reducer::new(&group, &model.parameters, SMALL).unwrap();
        step_of(&rank, &model, &reducer, 0, 6);

        let alone = Model::new();
        for number in 0..6 {
            alone.loss(0, number).backward();
        }
        let mut rounded = false;
        for (found, parameter) in summed(&reducer, &model.parameters)
            .iter()
            .zip(&alone.parameters)
        {
            let difference = relative_difference(found, &parameter.grad());
            let sent = found.kind() == Kind::Float && !shares_memory();
            let bound = match (sent, found.kind()) {
                (true, _) => 3.0 / 256.0,
                (false, Kind::Float) => 1e-5,
                _ => 1e-13,
            };
            assert!(difference < bound, "{difference:e} apart, at most {bound}");
            rounded |= sent && difference > 1e-5;
        }
        assert_eq!(rounded, !shares_memory());
        same_on_all_ranks(&group, &reducer.flat_sums().unwrap());
    });
}

#[test]
fn accumulating_reduces_nothing() {
    on_ranks("accumulating_reduces_nothing", 2, |rank| {
        let group = rank.group("g1");
        let model = Model::new();
        let reducer = Reducer::new(&group, &model.parameters, SMALL).unwrap();
        // Only one rank does: if anything were sent, it would wait for the other for ever.
        if rank.rank == 0 {
            reducer.accumulate(&model.loss(0, 0)).unwrap();
            reducer.accumulate(&model.loss(0, 1)).unwrap();

            let alone = Model::new();
            alone.loss(0, 0).backward();
            alone.loss(0, 1).backward();
            for (found, parameter) in reducer.gradients().unwrap().iter().zip(&alone.parameters) {
                assert_eq!(bits(found), bits(&parameter.grad()));
            }
        }
        group.barrier().unwrap().wait().unwrap();
    });
}

#[test]
fn the_same_step_with_another_reducer_gives_the_same_bits() {
    on_ranks(
        "the_same_step_with_another_reducer_gives_the_same_bits",
        3,
        |rank| {
            let group = rank.group("g1");
            let mut found = Vec::new();
            for _ in 0..2 {
                let model = Model::new();
                let reducer = Reducer::new(&group, &model.parameters, SMALL).unwrap();
                // The second step would show a layout that was rebuilt after the first.
                step_of(&rank, &model, &reducer, 0, 3);
                step_of(&rank, &model, &reducer, 1, 3);
                found.push(
                    summed(&reducer, &model.parameters)
                        .iter()
                        .map(bits)
                        .collect::<Vec<_>>(),
                );
            }
            assert_eq!(found[0], found[1]);
            // The second had the memory of the first, so no group's forming waits for new pages.
            let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
            let shared = descriptors
                .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
                .filter(|target| target.to_string_lossy().contains("memfd:gradients"));
            assert_eq!(shared.count(), usize::from(shares_memory()));
        },
    );
}

#[test]
fn gradients_are_views_of_a_few_flat_buckets() {
    on_ranks("gradients_are_views_of_a_few_flat_buckets", 1, |rank| {
        let group = rank.group("g1");
        let model = Model::new();

        let reducer = Reducer::new(&group, &model.parameters, SMALL).unwrap();
        let flat = reducer.flat_sums().unwrap();
        reducer.accumulate(&model.loss(0, 0)).unwrap();

        let elements: usize = model.parameters.iter().map(Tensor::numel).sum();
        assert!(
            flat.len() > 2 && flat.len() < model.parameters.len(),
            "{} buckets",
            flat.len()
        );
        assert_eq!(flat.iter().map(Tensor::numel).sum::<usize>(), elements);
        for bucket in flat {
            let _ = bucket.shallow_clone().fill_(3.0);
        }
        for (parameter, gradient) in model.parameters.iter().zip(reducer.gradients().unwrap()) {
            assert_eq!(gradient.size(), parameter.size());
            assert_eq!(parameter.grad().min().double_value(&[]), 3.0);
        }
    });
}

#[test]
fn gradients_of_channels_last_parameters_keep_their_memory_format() {
    on_ranks(
        "gradients_of_channels_last_parameters_keep_their_memory_format",
        2,
        |rank| {
            let group = rank.group("g1");
            let value = Tensor::arange(24, (Kind::Double, Device::Cpu))
                .view([2, 3, 2, 2])
                .permute([0, 2, 3, 1])
                .contiguous()
                .permute([0, 3, 1, 2]);
            let parameter = value.detach().set_requires_grad(true);
            let reducer = Reducer::new(&group, &[parameter.shallow_clone()], SMALL).unwrap();

            reducer
                .backward(&(&parameter * &parameter).sum(Kind::Double))
                .unwrap();

            let gradient = &summed(&reducer, &[parameter])[0];
            assert_eq!(gradient.stride(), value.stride());
            assert_eq!(
                bits(gradient),
                bits(&(value * 4.0)),
                "two ranks with 2 x each"
            );
        },
    );
}

#[test]
fn a_parameter_without_gradient_is_named_and_the_group_lives_on() {
    on_ranks(
        "a_parameter_without_gradient_is_named_and_the_group_lives_on",
        2,
        |rank| {
            let group = rank.group("g1");
            let model = Model::new();
            let mut parameters = shallow(&model.parameters);
            parameters.insert(
                2,
                Tensor::ones([3], (Kind::Double, Device::Cpu)).set_requires_grad(true),
            );
            let reducer = Reducer::new(&group, &parameters, SMALL).unwrap();

            let refusal = reducer.backward(&model.loss(0, 0)).unwrap_err();

            assert!(
                matches!(refusal, Error::ParameterWithoutGradient { index: 2 }),
                "{refusal}"
            );
            group.barrier().unwrap().wait().unwrap();
        },
    );
}

#[test]
fn a_parameter_that_drops_out_later_ends_the_group_on_every_rank() {
    on_ranks(
        "a_parameter_that_drops_out_later_ends_the_group_on_every_rank",
        2,
        |rank| {
            let group = rank.group("g1");
            let model = Model::new();
            let reducer = Reducer::new(&group, &model.parameters, SMALL).unwrap();
            reducer.backward(&model.loss(0, 0)).unwrap();
            let partial = model.parameters[0].sum(Kind::Double);

            let error = reducer.backward(&partial).unwrap_err();

            // Who notices first ends it for the other, who may still be in the middle.
            assert!(
                matches!(
                    error,
                    Error::UnfinishedReduction { .. } | Error::Collective { .. }
                ),
                "{error}"
            );
            assert!(matches!(group.barrier(), Err(Error::Aborted { .. })));
        },
    );
}

#[test]
fn a_loss_that_cannot_be_differentiated_is_refused() {
    on_ranks(
        "a_loss_that_cannot_be_differentiated_is_refused",
        1,
        |rank| {
            let group = rank.group("g1");
            let model = Model::new();
            let reducer = Reducer::new(&group, &model.parameters, SMALL).unwrap();
            for (loss, reason) in [
                (Tensor::new(), "it is undefined"),
                (model.loss(0, 0).detach(), "it depends on no parameter"),
                (&model.parameters[0] * 2.0, "it is not a single number"),
            ] {
                let refusal = reducer.backward(&loss).unwrap_err();

                assert!(refusal.to_string().contains(reason), "{refusal}");
            }
            reducer.backward(&model.loss(0, 0)).unwrap();
        },
    );
}

#[test]
fn parameters_that_cannot_be_reduced_are_refused_by_index() {
    on_ranks(
        "parameters_that_cannot_be_reduced_are_refused_by_index",
        1,
        |rank| {
            let group = rank.group("g1");
            let good = || Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            let refusal =
                |parameters: &[Tensor]| Reducer::new(&group, parameters, SMALL).unwrap_err();

            assert!(matches!(refusal(&[]), Error::NoParameters));
            assert!(matches!(
                refusal(&[good(), good() * 2.0]),
                Error::NotAParameter { index: 1 }
            ));
            let frozen = Tensor::ones([2], (Kind::Float, Device::Cpu));
            assert!(matches!(
                refusal(&[frozen]),
                Error::NotAParameter { index: 0 }
            ));
            let numbers = Tensor::ones([2], (Kind::Int64, Device::Cpu));
            assert!(matches!(
                refusal(&[good(), numbers]),
                Error::UnsupportedKind { .. }
            ));
            let shared = good();
            assert!(matches!(
                refusal(&[shared.shallow_clone(), good(), shared]),
                Error::DuplicateParameter { index: 2, first: 0 }
            ));
            let sparse = good()
                .detach()
                .to_sparse_sparse_dim(1)
                .set_requires_grad(true);
            assert!(matches!(refusal(&[sparse]), Error::NotDense { .. }));
            assert!(matches!(
                refusal(&[good(), Tensor::new()]),
                Error::UndefinedTensor { .. }
            ));
        },
    );
}

fn shallow(parameters: &[Tensor]) -> Vec<Tensor> {
    parameters.iter().map(Tensor::shallow_clone).collect()
}

/// Three layers in double precision and a scale in single, the same in every process.
struct Model {
    parameters: Vec<Tensor>,
}

impl Model {
    fn new() -> Self {
        let double = |shape: &[i64], seed: f64| {
            let count: i64 = shape.iter().product();
            let value = (Tensor::arange(count, (Kind::Double, Device::Cpu)) * seed).sin() * 0.3;
            value.view(shape).set_requires_grad(true)
        };
        let parameters = vec![
            double(&[16, 8], 1.1),
            double(&[16], 1.3),
            double(&[16, 16], 1.7),
            double(&[16], 1.9),
            Tensor::full([16], 0.5, (Kind::Float, Device::Cpu)).set_requires_grad(true),
            double(&[4, 16], 2.3),
            double(&[4], 2.9),
        ];
        Self { parameters }
    }

    /// The loss of one micro-batch of five samples, whose values depend on its number alone.
    fn loss(&self, step: usize, micro_batch: usize) -> Tensor {
        let p = &self.parameters;
        let seed = 1.0 + step as f64 * 0.37 + micro_batch as f64 * 0.11;
        let input = (Tensor::arange(40, (Kind::Double, Device::Cpu)) * seed)
            .cos()
            .view([5, 8]);
        let hidden = input
            .linear(&p[0], Some(&p[1]))
            .tanh()
            .linear(&p[2], Some(&p[3]))
            .tanh();
        let scaled = hidden * p[4].to_kind(Kind::Double);
        scaled.linear(&p[5], Some(&p[6])).square().sum(Kind::Double)
    }
}
