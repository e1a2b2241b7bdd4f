//! The model computes what the PyTorch reference computes: logits, loss, every gradient, running statistics.
//!
//! One Python process writes what the reference gives for many shapes (`tests/golden.py`); each is loaded here by the
//! names in its `state_dict` and compared.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use model::{Backbone, Graph, HgatFc, ModelConfig, Residual, loss};
use tch::{Device, Kind, Tensor};

/// Largest norm-relative error of float64.
const DOUBLE: f64 = 1e-8;
/// Of float32 logits in eval mode.
const SINGLE: f64 = 1e-4;

struct Golden {
    name: String,
    config: ModelConfig,
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let about = metadata.metadata().clone().unwrap();
        let number = |key: &str| about[key].parse::<i64>().unwrap();
        let mut next = 0;
        let groups = about["per_group"]
            .split(',')
            .map(|size| {
                let size: usize = size.parse().unwrap();
                next += size;
                (next - size..next).collect()
            })
            .collect();
        let config = ModelConfig {
            backbone: Backbone::parse(&about["backbone"]).unwrap(),
            graph: Graph::parse(&about["graph"]).unwrap(),
            residual: Residual::parse(&about["residual"]).unwrap(),
            bn_momentum: 0.1,
            hidden: number("hidden"),
            group_channels: number("gc"),
            class_channels: number("cc"),
            last_bias: None,
            groups,
        };
        let tensors = Tensor::read_safetensors(path)
            .unwrap()
            .into_iter()
            .collect();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        Self {
            name,
            config,
            tensors,
        }
    }

    fn model(&self, kind: Kind) -> HgatFc {
        let mut model = HgatFc::new(&self.config, Device::Cpu, kind, 7).unwrap();
        let state = self.under("state/");
        let ours: Vec<String> = model.shapes().unwrap().into_keys().collect();
        let theirs: Vec<String> = state.keys().cloned().collect();
        assert_eq!(ours, theirs, "{}: the names of the state_dict", self.name);
        model.import(&state).unwrap();
        model
    }

    fn under(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        self.tensors
            .iter()
            .filter_map(|(name, tensor)| {
                Some((
                    name.strip_prefix(prefix)?.to_owned(),
                    tensor.shallow_clone(),
                ))
            })
            .collect()
    }

    fn input(&self, kind: Kind) -> (Tensor, Tensor) {
        // Channels last, as the loader gives them.
        let x = self.tensors["x"]
            .to_kind(kind)
            .permute([0, 2, 3, 1])
            .contiguous()
            .permute([0, 3, 1, 2]);
        (x, self.tensors["y"].to_kind(kind))
    }
}

/// `‖a - b‖ / ‖b‖`; where b is 0, ‖a‖.
fn error(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    assert_eq!(a.size(), b.size());
    let norm = b.norm().double_value(&[]);
    let difference = (a - b).norm().double_value(&[]);
    assert!(difference.is_finite());
    if norm == 0.0 {
        difference
    } else {
        difference / norm
    }
}

/// The norm of all gradients together, against which a gradient that is truly 0 is measured.
fn scale(gradients: &BTreeMap<String, Tensor>) -> f64 {
    gradients
        .values()
        .map(|g| g.to_kind(Kind::Double).norm().double_value(&[]).powi(2))
        .sum::<f64>()
        .sqrt()
}

fn backward(
    model: &HgatFc,
    x: &Tensor,
    y: &Tensor,
    train: bool,
) -> (Tensor, f64, BTreeMap<String, Tensor>) {
    for parameter in model.parameters() {
        let mut tensor = parameter.tensor.shallow_clone();
        if tensor.grad().defined() {
            tensor.zero_grad();
        }
    }
    let logits = model.forward(x, train).unwrap();
    let loss =
        loss::multilabel_soft_margin(&logits, y, u32::try_from(y.size()[0]).unwrap()).unwrap();
    loss.backward();
    let gradients: Vec<Tensor> = model.parameters().iter().map(|p| p.tensor.grad()).collect();
    let gradients = model
        .split_like_parameters(&gradients)
        .unwrap()
        .into_iter()
        .collect();
    (logits, loss.double_value(&[]), gradients)
}

fn double_precision_is_exact(golden: &Golden) {
    let mut model = golden.model(Kind::Double);
    let (x, y) = golden.input(Kind::Double);
    for (mode, train) in [("eval", false), ("train", true)] {
        let (logits, loss, gradients) = backward(&model, &x, &y, train);
        let at = format!("{} in {mode} mode", golden.name);
        assert!(
            error(&logits, &golden.tensors[&format!("{mode}/logits")]) <= DOUBLE,
            "{at}: logits"
        );
        let expected = golden.tensors[&format!("{mode}/loss")].double_value(&[]);
        assert!(
            (loss - expected).abs() <= DOUBLE * expected.abs(),
            "{at}: loss {loss}, not {expected}"
        );
        let expected = golden.under(&format!("{mode}/grad/"));
        assert_eq!(gradients.len(), expected.len(), "{at}: number of gradients");
        // A gradient that is truly 0 (the bias before a batch norm) is rounding noise on both sides.
        let noise = 1e-12 * scale(&expected);
        for (name, gradient) in &gradients {
            let difference = (gradient - &expected[name]).norm().double_value(&[]);
            let norm = expected[name].norm().double_value(&[]);
            assert!(
                difference <= DOUBLE * norm + noise,
                "{at}: gradient of {name} is off by {difference} of {norm}"
            );
        }
    }
    let mean = model.batch_statistics().copy();
    tch::no_grad(|| model.update_running_statistics(&mean)).unwrap();
    let after: BTreeMap<String, Tensor> = model.export().unwrap().into_iter().collect();
    for (name, expected) in golden.under("after/") {
        assert!(
            error(&after[&name], &expected) <= DOUBLE,
            "{}: {name} after a step",
            golden.name
        );
    }
}

fn single_precision_is_close(golden: &Golden) {
    let model = golden.model(Kind::Float);
    let (x, y) = golden.input(Kind::Float);
    let logits = model.forward(&x, false).unwrap();
    let eval = error(&logits, &golden.tensors["plain/eval"]);
    assert!(
        eval <= SINGLE,
        "{}: float32 eval logits differ by {eval}",
        golden.name
    );

    // In train mode PyTorch differs from itself between memory formats; we may differ from it as much as that, or by
    // the distance that either has from float64, whichever is more, and a factor for luck in a maximum over tensors.
    let (_, _, ours) = backward(&model, &x, &y, true);
    let (plain, last, exact) = (
        golden.under("plain/grad/"),
        golden.under("last/grad/"),
        golden.under("train/grad/"),
    );
    let spread = distance(&plain, &last)
        .max(distance(&plain, &exact))
        .max(distance(&last, &exact));
    let distance = distance(&ours, &exact);
    println!(
        "{}: float32 gradients: ours {distance:.1e} from exact, PyTorch's spread {spread:.1e}",
        golden.name
    );
    assert!(
        distance <= 4.0 * spread,
        "{}: float32 gradients are {distance} from exact, PyTorch's own spread is {spread}",
        golden.name
    );
}

/// Norm-relative distance of all gradients together.
fn distance(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> f64 {
    let square: f64 = a
        .iter()
        .map(|(name, a)| {
            (a.to_kind(Kind::Double) - b[name].to_kind(Kind::Double))
                .norm()
                .double_value(&[])
                .powi(2)
        })
        .sum();
    square.sqrt() / scale(b)
}

/// Mixed precision may be as far from the exact values as PyTorch's autocast, and a factor for luck. In shallow trunks:
/// through deep ones both are mostly rounding.
fn mixed_precision_is_as_close_as_autocast(golden: &Golden) {
    let Some(peers_logits) = golden.tensors.get("mixed/logits") else {
        return;
    };
    let model = golden.model(Kind::Float);
    let (x, y) = golden.input(Kind::Float);
    let (logits, _, gradients) = backward(&model, &x.to_kind(Kind::BFloat16), &y, false);
    assert_eq!(logits.kind(), Kind::Float);
    let (exact_logits, exact) = (&golden.tensors["eval/logits"], golden.under("eval/grad/"));
    let peers = golden.under("mixed/grad/");
    let figures = [
        (
            "logits",
            error(&logits, exact_logits),
            error(peers_logits, exact_logits),
        ),
        (
            "gradients",
            distance(&gradients, &exact),
            distance(&peers, &exact),
        ),
    ];
    for (what, ours, peers) in figures {
        println!(
            "{}: bf16 {what}: ours {ours:.1e} from exact, PyTorch's {peers:.1e}",
            golden.name
        );
        assert!(
            ours <= 3.0 * peers,
            "{}: bf16 {what} are {ours} from exact, PyTorch's {peers}",
            golden.name
        );
        assert!(ours > 1e-4, "{}: bf16 {what} are not bf16's", golden.name);
    }
    // In training every parameter is reached, too, and batch statistics are kept in float32.
    let (_, loss, gradients) = backward(&model, &x.to_kind(Kind::BFloat16), &y, true);
    assert!(loss.is_finite() && scale(&gradients).is_finite());
    assert_eq!(model.batch_statistics().kind(), Kind::Float);
}

#[test]
fn the_model_equals_the_reference() {
    let python = std::env::var("HGAT_PYTHON").unwrap_or_else(|_| "python3".into());
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden.py");
    let status = Command::new(python)
        .arg(script)
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(
        status.success(),
        "golden.py ended with {status}; run `make setup-tests`"
    );
    tch::set_num_threads(2);

    let mut files: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 13);
    for file in files {
        let golden = Golden::read(&file);
        double_precision_is_exact(&golden);
        single_precision_is_close(&golden);
        mixed_precision_is_as_close_as_autocast(&golden);
    }
}

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
