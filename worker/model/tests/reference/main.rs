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

mod golden;
mod rules;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use golden::Golden;
use model::{HgatFc, loss};
use tch::{Kind, Tensor};

/// Largest norm-relative error of float64.
const DOUBLE: f64 = 1e-8;
/// Of float32 logits in eval mode.
const SINGLE: f64 = 1e-4;

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
