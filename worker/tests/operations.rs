//! The model as workers compute it, with operations in other forms than libtorch's, beside the model that is compared with the
//! reference: logits and gradients as near to the exact ones.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};

use model::{Backbone, Graph, HgatFc, ModelConfig, Operations, Residual, loss};
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

/// How far tensors are from exact ones: the root of the mean square of the differences, each relative to its norm.
fn distance(found: &[Tensor], exact: &[Tensor]) -> f64 {
    assert_eq!(found.len(), exact.len());
    let norm = |tensor: &Tensor| tensor.norm().double_value(&[]);
    let relative = found.iter().zip(exact).map(|(found, exact)| {
        assert_eq!(found.size(), exact.size());
        norm(&(found.to_kind(Kind::Double) - exact)) / norm(exact).max(1e-3)
    });
    (relative.map(|far| far * far).sum::<f64>() / exact.len() as f64).sqrt()
}

fn config(graph: Graph) -> ModelConfig {
    ModelConfig {
        backbone: Backbone::ResNet18,
        graph,
        residual: Residual::Sum,
        bn_momentum: 0.1,
        hidden: 24,
        group_channels: 16,
        class_channels: 8,
        last_bias: None,
        groups: vec![vec![0, 3], vec![1], vec![2, 4, 5]],
    }
}

/// libtorch's, and those that workers use.
fn operations() -> [Operations; 2] {
    let workers = Operations {
        product: nccl_rs::stacked_product,
        convolution: nccl_rs::convolution,
        norm: nccl_rs::norm,
    };
    [Operations::default(), workers]
}

/// With libtorch's trunk either way.
fn compare_heads(graph: Graph, kind: Kind, compute: Kind, bound: f64) {
    tch::manual_seed(5);
    let images = Tensor::randn([5, 3, 64, 64], (kind, Device::Cpu)).to_kind(compute);
    let targets = Tensor::rand([5, 6], (kind, Device::Cpu))
        .lt(0.4)
        .to_kind(kind);
    let [expected, found] = operations().map(|operations| {
        let product = operations.product;
        let operations = Operations {
            product,
            ..Operations::default()
        };
        let model = HgatFc::with_operations(&config(graph), Device::Cpu, kind, 1, operations);
        pass(&model.unwrap(), &images, &targets)
    });

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
        compare_heads(graph, Kind::Double, Kind::Double, 1e-11);
        compare_heads(graph, Kind::Float, Kind::Float, 1e-3);
        compare_heads(graph, Kind::Float, Kind::BFloat16, 0.1);
    }
}

/// Rounding in the trunk is magnified so much that only the distance from the exact values tells.
fn compare_all(graph: Graph, channels_last: bool) {
    tch::manual_seed(5);
    // Channels last, as workers have pictures of 128 pixels and more; of numbers that every kind has.
    let images = Tensor::randn([5, 64, 64, 3], (Kind::BFloat16, Device::Cpu)).permute([0, 3, 1, 2]);
    let images = if channels_last {
        images
    } else {
        images.contiguous()
    };
    let targets = Tensor::rand([5, 6], (Kind::Float, Device::Cpu)).lt(0.4);
    let of = |kind, compute, operations| {
        let model = HgatFc::with_operations(&config(graph), Device::Cpu, kind, 1, operations);
        pass(
            &model.unwrap(),
            &images.to_kind(compute),
            &targets.to_kind(kind),
        )
    };
    let [plain, workers] = operations();

    let exact = of(Kind::Double, Kind::Double, plain);
    let far = distance(&of(Kind::Double, Kind::Double, workers), &exact);
    assert!(far < 1e-11, "{graph:?} in float64: {far:e} apart");
    for compute in [Kind::Float, Kind::BFloat16] {
        let [plain, ours] = [plain, workers]
            .map(|operations| distance(&of(Kind::Float, compute, operations), &exact));
        assert!(
            ours < 3.0 * plain,
            "{graph:?}, {compute:?}, channels last {channels_last}: {ours:e} and {plain:e}"
        );
    }
}

/// Norms that were asked for, and those of them that there was no form for.
static NORMS: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

#[test]
fn all_norms_of_a_training_pass_are_taken_the_heads_too() {
    tch::manual_seed(5);
    let (norm, [_, workers]): (model::TrainingNorm, _) = (
        |x, affine, places, sizes, epsilon, residual, relu| {
            let y = nccl_rs::norm(x, affine, places, sizes, epsilon, residual, relu)?;
            NORMS[0].fetch_add(1, Ordering::Relaxed);
            NORMS[1].fetch_add(usize::from(y.is_none()), Ordering::Relaxed);
            Ok(y)
        },
        operations(),
    );
    let operations = Operations { norm, ..workers };
    let config = config(Graph::Gat);
    let model = HgatFc::with_operations(&config, Device::Cpu, Kind::Float, 1, operations).unwrap();
    let images = Tensor::randn([4, 3, 64, 64], (Kind::Float, Device::Cpu));
    let _ = model.forward(&images, true).unwrap();
    let [asked, missed] = NORMS.each_ref().map(|count| count.load(Ordering::Relaxed));
    // resnet18 has 20.
    assert!(asked > 20 && missed == 0, "{asked} norms, {missed} missed");
}

#[test]
fn the_workers_forms_of_operations_are_as_near_to_the_exact_values_as_libtorchs() {
    for graph in [Graph::Gat, Graph::None, Graph::Fc] {
        for channels_last in [true, false] {
            compare_all(graph, channels_last);
        }
    }
}

/// Logits, and the gradient of pictures, of micro-batches of so many that share a pass.
fn shared_pass(model: &HgatFc, images: &Tensor, targets: &Tensor, sizes: &[i64]) -> [Tensor; 2] {
    let images = images.copy().set_requires_grad(true);
    let logits = model.forward_micro_batches(&images, sizes).unwrap();
    (&logits * targets).sum(Kind::Float).backward();
    [logits.detach(), images.grad()]
}

/// With a head of COCO's groups.
fn config_of_coco(graph: Graph, [hidden, group_channels, class_channels]: [i64; 3]) -> ModelConfig {
    let mut next = 0;
    let groups = [1, 8, 5, 10, 5, 10, 7, 10, 6, 6, 5, 7].map(|size| {
        next += size;
        (next - size..next).collect()
    });
    ModelConfig {
        hidden,
        group_channels,
        class_channels,
        groups: groups.to_vec(),
        ..config(graph)
    }
}

#[test]
fn no_micro_batch_changes_what_becomes_of_another() {
    tch::manual_seed(5);
    let [_, workers] = operations();
    let small = [16, 8, 6];
    // The last ones as an epoch's last step has them: of 2 and of 3 a convolution goes another way, see ADR 0017.
    for (pixels, sizes, head) in [
        (64, vec![3; 3], small),
        (64, vec![4; 4], [512, 256, 128]),
        (32, vec![2; 6], small),
        (32, vec![4; 3], small),
        (64, vec![2, 2, 3], small),
        (128, vec![3, 4, 2], small),
    ] {
        let options = (Kind::Float, Device::Cpu);
        let samples: i64 = sizes.iter().sum();
        let images = Tensor::randn([samples, 3, pixels, pixels], options);
        let targets = Tensor::randn([samples, 80], options);
        for graph in [Graph::Gat, Graph::None, Graph::Fc] {
            let config = config_of_coco(graph, head);
            let model = HgatFc::with_operations(&config, Device::Cpu, Kind::Float, 1, workers);
            let model = model.unwrap();

            let together = shared_pass(&model, &images, &targets, &sizes);

            let mut first = 0;
            for &size in &sizes {
                let part = |all: &Tensor| all.narrow(0, first, size);
                let alone = shared_pass(&model, &part(&images), &part(&targets), &[size]);
                let both = together.iter().zip(&alone);
                for (what, (together, alone)) in ["logits", "gradient"].iter().zip(both) {
                    let far = (part(together) - alone).abs().max().double_value(&[]);
                    assert!(
                        far == 0.0,
                        "{graph:?}, {sizes:?} at {pixels} pixels, from {first}, {what}: {far:e} apart"
                    );
                }
                first += size;
            }
        }
    }
}
