//! The model as workers compute it, with the head's stacked products in another form than libtorch's, beside the model that
//! is compared with the reference: the same logits and gradients.

#![allow(clippy::unwrap_used, reason = "tests")]

use model::{Backbone, Graph, HgatFc, ModelConfig, Residual, loss};
use tch::{Device, Kind, Tensor};

/// Logits, and the gradients of all parameters.
fn pass(model: &HgatFc, images: &Tensor, targets: &Tensor) -> Vec<Tensor> {
    let logits = model.forward(images, true).unwrap();
    let samples = u32::try_from(images.size()[0]).unwrap();
    loss::multilabel_soft_margin(&logits, targets, samples)
        .unwrap()
        .backward();
    let gradients = model
        .parameters()
        .iter()
        .map(|parameter| parameter.tensor.grad());
    std::iter::once(logits.detach()).chain(gradients).collect()
}

fn compare(graph: Graph, kind: Kind, compute: Kind, bound: f64) {
    let config = ModelConfig {
        backbone: Backbone::ResNet18,
        graph,
        residual: Residual::Sum,
        bn_momentum: 0.1,
        hidden: 24,
        group_channels: 16,
        class_channels: 8,
        last_bias: None,
        groups: vec![vec![0, 3], vec![1], vec![2, 4, 5]],
    };
    tch::manual_seed(5);
    let images = Tensor::randn([5, 3, 64, 64], (kind, Device::Cpu)).to_kind(compute);
    let targets = Tensor::rand([5, 6], (kind, Device::Cpu))
        .lt(0.4)
        .to_kind(kind);
    let plain = HgatFc::new(&config, Device::Cpu, kind, 1).unwrap();
    let product = nccl_rs::stacked_product;
    let other = HgatFc::with_product(&config, Device::Cpu, kind, 1, product).unwrap();

    let found = pass(&other, &images, &targets);
    let expected = pass(&plain, &images, &targets);

    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let norm = |tensor: &Tensor| tensor.to_kind(Kind::Double).norm().double_value(&[]);
        let difference = norm(&(found - expected)) / norm(expected).max(1e-3);
        assert!(
            difference < bound,
            "{graph:?} {compute:?}, tensor {index}: {difference:e} apart"
        );
    }
}

#[test]
fn the_workers_form_of_the_heads_products_changes_rounding_and_nothing_else() {
    for graph in [Graph::Gat, Graph::None, Graph::Fc] {
        compare(graph, Kind::Double, Kind::Double, 1e-11);
        compare(graph, Kind::Float, Kind::Float, 1e-3);
        compare(graph, Kind::Float, Kind::BFloat16, 0.1);
    }
}
