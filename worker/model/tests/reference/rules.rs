//! What holds of the model and its loss whatever the reference computes.

use std::collections::BTreeMap;
use std::path::Path;

use model::{Backbone, Graph, HgatFc, ModelConfig, Residual, loss};
use tch::{Device, Kind, Tensor};

fn small(groups: Vec<Vec<usize>>) -> ModelConfig {
    ModelConfig {
        backbone: Backbone::ResNet18,
        graph: Graph::Gat,
        residual: Residual::Sum,
        bn_momentum: 0.1,
        hidden: 16,
        group_channels: 8,
        class_channels: 6,
        last_bias: None,
        groups,
    }
}

#[test]
fn logits_are_in_class_order_whatever_the_groups() {
    // Given two models with the same weights, one with its classes in group order, one with them scattered
    let ordered = HgatFc::new(
        &small(vec![vec![0, 1], vec![2, 3, 4]]),
        Device::Cpu,
        Kind::Double,
        1,
    )
    .unwrap();
    let scattered = HgatFc::new(
        &small(vec![vec![3, 0], vec![4, 2, 1]]),
        Device::Cpu,
        Kind::Double,
        1,
    )
    .unwrap();
    let x = Tensor::rand([2, 3, 64, 64], (Kind::Double, Device::Cpu));

    let (a, b) = (
        ordered.forward(&x, false).unwrap(),
        scattered.forward(&x, false).unwrap(),
    );

    // Then node k of the first is class [3, 0, 4, 2, 1][k] of the second
    for (node, class) in [3, 0, 4, 2, 1].into_iter().enumerate() {
        assert_eq!(a.select(1, node as i64), b.select(1, class));
    }
}

#[test]
fn a_batch_of_one_is_refused_in_training_and_fine_in_evaluation() {
    let model = HgatFc::new(&small(vec![vec![0, 1]]), Device::Cpu, Kind::Float, 1).unwrap();
    let x = Tensor::rand([1, 3, 64, 64], (Kind::Float, Device::Cpu));

    assert!(matches!(
        model.forward(&x, true),
        Err(model::ModelError::BatchOfOne { batch: 1 })
    ));
    assert!(model.forward(&x, false).is_ok());
}

#[test]
fn the_seed_decides_the_first_values() {
    let config = small(vec![vec![0, 1]]);
    let values = |seed| {
        HgatFc::new(&config, Device::Cpu, Kind::Float, seed)
            .unwrap()
            .export()
            .unwrap()
    };
    let (one, same, other) = (values(1), values(1), values(2));

    assert!(one.iter().zip(&same).all(|(a, b)| a == b));
    assert!(one.iter().zip(&other).any(|(a, b)| a != b));
}

#[test]
fn a_frozen_trunk_keeps_its_values_and_statistics() {
    let mut model = HgatFc::new(&small(vec![vec![0, 1]]), Device::Cpu, Kind::Float, 1).unwrap();
    model.freeze_trunk().unwrap();
    let before: BTreeMap<String, Tensor> = model.export().unwrap().into_iter().collect();
    let x = Tensor::rand([4, 3, 64, 64], (Kind::Float, Device::Cpu));

    model.forward(&x, true).unwrap().sum(Kind::Float).backward();
    let mean = model.batch_statistics().copy();
    tch::no_grad(|| model.update_running_statistics(&mean)).unwrap();

    let after: BTreeMap<String, Tensor> = model.export().unwrap().into_iter().collect();
    for (name, value) in before
        .iter()
        .filter(|(name, _)| name.starts_with("features.") && !name.ends_with("tracked"))
    {
        assert_eq!(value, &after[name], "{name}");
    }
    assert_ne!(
        before["heads.reduce_fc.0.bn.running_mean"],
        after["heads.reduce_fc.0.bn.running_mean"]
    );
    assert!(
        model
            .trainable()
            .all(|parameter| parameter.tensor.grad().defined())
    );
}

#[test]
fn uneven_slices_add_up_to_the_loss_of_the_whole() {
    let logits = Tensor::randn([5, 3], (Kind::Double, Device::Cpu));
    let targets = Tensor::rand([5, 3], (Kind::Double, Device::Cpu))
        .gt(0.5)
        .to_kind(Kind::Double);
    let of = |from: i64, count: i64| {
        loss::multilabel_soft_margin(
            &logits.narrow(0, from, count),
            &targets.narrow(0, from, count),
            5,
        )
        .unwrap()
        .double_value(&[])
    };

    let whole = of(0, 5);

    assert!((of(0, 3) + of(3, 2) - whole).abs() < 1e-12);
    let naive = (of(0, 3) * 5.0 / 3.0 + of(3, 2) * 5.0 / 2.0) / 2.0;
    assert!(
        (naive - whole).abs() > 1e-6,
        "the mean of means is another number"
    );
}

/// The case TRN-02: loss and gradients of five samples in slices of three and two are those of the five.
#[test]
fn the_collected_uneven_slices_have_the_loss_and_gradients_of_the_whole() {
    let Some(cases) = std::env::var_os("HGAT_TEST_CASES") else {
        println!("skipped: HGAT_TEST_CASES is not set, so there is no case to read");
        return;
    };
    let folder = Path::new(&cases).join("TRN-02-uneven-slices");
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
    };
    let rows = |value: &serde_json::Value| {
        let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone()).unwrap();
        Tensor::from_slice2(&rows)
    };
    let expected = &read("expected.json")["variants"]["three_and_two"];
    let given = read(expected["path"].as_str().unwrap());
    let tolerance = expected["tolerance"].as_f64().unwrap();
    let slices: Vec<Vec<i64>> = serde_json::from_value(given["slices"].clone()).unwrap();
    let samples: usize = slices.iter().map(Vec::len).sum();
    let (logits, targets) = (rows(&given["logits"]), rows(&given["targets"]));
    let logits = logits.set_requires_grad(true);

    let mut total = 0.0;
    for slice in &slices {
        let own = Tensor::from_slice(slice);
        let loss = loss::multilabel_soft_margin(
            &logits.index_select(0, &own),
            &targets.index_select(0, &own),
            samples as u32,
        )
        .unwrap();
        total += loss.double_value(&[]);
        loss.backward();
    }

    let right = expected["loss"].as_f64().unwrap();
    assert!(
        (total - right).abs() <= tolerance,
        "{total} and not {right}"
    );
    let furthest = (logits.grad() - rows(&expected["grad"])).abs().max();
    assert!(furthest.double_value(&[]) <= tolerance);
}
