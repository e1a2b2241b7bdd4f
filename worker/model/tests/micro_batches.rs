//! Micro-batches that go through the model side by side are to it what they are one by one.

#![allow(clippy::unwrap_used, reason = "tests")]

use model::{Backbone, Graph, HgatFc, ModelConfig, ModelError, Residual, loss};
use tch::{Device, Kind, Tensor};

const CLASSES: i64 = 6;

fn model(graph: Graph, backbone: Backbone, kind: Kind) -> HgatFc {
    let config = ModelConfig {
        backbone,
        graph,
        residual: Residual::Sum,
        bn_momentum: 0.1,
        hidden: 24,
        group_channels: 16,
        class_channels: 8,
        last_bias: None,
        groups: vec![vec![0, 3], vec![1], vec![2, 4, 5]],
    };
    HgatFc::new(&config, Device::Cpu, kind, 1).unwrap()
}

fn random(samples: i64, kind: Kind) -> (Tensor, Tensor) {
    tch::manual_seed(5);
    let images = Tensor::randn([samples, 3, 64, 64], (kind, Device::Cpu));
    let targets = Tensor::rand([samples, CLASSES], (kind, Device::Cpu)).lt(0.4);
    (images, targets.to_kind(kind))
}

/// Logits, statistics weighted by samples, and the gradients of all parameters, of micro-batches in these passes.
fn step(model: &HgatFc, passes: &[&[i64]], (images, targets): &(Tensor, Tensor)) -> Vec<Tensor> {
    let all = images.size()[0];
    let mut statistics = model.batch_statistics().zeros_like();
    let (mut logits, mut from) = (Vec::new(), 0);
    for sizes in passes {
        let samples: i64 = sizes.iter().sum();
        let part = images.narrow(0, from, samples);
        let found = model.forward_micro_batches(&part, sizes).unwrap();
        loss::multilabel_soft_margin(&found, &targets.narrow(0, from, samples), all as u32)
            .unwrap()
            .backward();
        statistics += model.batch_statistics() * (samples as f64 / all as f64);
        logits.push(found.detach());
        from += samples;
    }
    let gradients = model.parameters().iter().map(|parameter| {
        let mut tensor = parameter.tensor.shallow_clone();
        let gradient = tensor.grad().copy();
        tensor.zero_grad();
        gradient
    });
    [Tensor::cat(&logits, 0), statistics]
        .into_iter()
        .chain(gradients)
        .collect()
}

fn alike(found: &[Tensor], expected: &[Tensor], bound: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let norm = |tensor: &Tensor| tensor.to_kind(Kind::Double).norm().double_value(&[]);
        let difference = norm(&(found - expected)) / norm(expected).max(1e-3);
        assert!(
            difference < bound,
            "{what}, tensor {index}: {difference:e} apart"
        );
    }
}

#[test]
fn side_by_side_they_give_what_they_give_one_by_one() {
    for (graph, backbone) in [
        (Graph::Gat, Backbone::ResNet18),
        (Graph::None, Backbone::ResNet50),
        (Graph::Fc, Backbone::ResNet18),
    ] {
        let what = format!("{graph:?} {backbone:?}");
        let model = model(graph, backbone, Kind::Double);
        let (images, targets) = random(9, Kind::Double);
        for images in [
            images.shallow_clone(),
            images
                .permute([0, 2, 3, 1])
                .contiguous()
                .permute([0, 3, 1, 2]),
        ] {
            let batch = (images, targets.shallow_clone());
            let expected = step(&model, &[&[2], &[4], &[3]], &batch);

            let together = step(&model, &[&[2, 4, 3]], &batch);
            alike(&together, &expected, 1e-9, &what);
            let in_two = step(&model, &[&[2, 4], &[3]], &batch);
            alike(&in_two, &expected, 1e-9, &what);

            // All as one micro-batch is something else.
            let one = step(&model, &[&[9]], &batch);
            let apart = (&one[0] - &expected[0]).abs().max().double_value(&[]);
            assert!(apart > 1e-3, "{what}: {apart:e}");
        }
    }
}

#[test]
fn a_trunk_that_is_held_stays_so() {
    let mut model = model(Graph::Gat, Backbone::ResNet18, Kind::Double);
    model.freeze_trunk().unwrap();
    let (images, _) = random(5, Kind::Double);
    let expected: Vec<Tensor> = [(0, 2), (2, 3)]
        .iter()
        .map(|&(from, samples)| {
            model
                .forward(&images.narrow(0, from, samples), true)
                .unwrap()
        })
        .collect();
    let found = model.forward_micro_batches(&images, &[2, 3]).unwrap();
    let expected = Tensor::cat(&expected, 0);
    let apart = (found - expected).abs().max().double_value(&[]);
    assert!(apart < 1e-12, "{apart:e}");
}

#[test]
fn sizes_that_are_not_the_batchs_are_refused() {
    let model = model(Graph::None, Backbone::ResNet18, Kind::Float);
    let (images, _) = random(4, Kind::Float);
    let refused = |sizes: &[i64]| model.forward_micro_batches(&images, sizes).unwrap_err();
    assert!(matches!(refused(&[2, 3]), ModelError::MicroBatches { .. }));
    assert!(matches!(refused(&[]), ModelError::MicroBatches { .. }));
    assert!(matches!(
        refused(&[3, 1]),
        ModelError::BatchOfOne { batch: 1 }
    ));
}
