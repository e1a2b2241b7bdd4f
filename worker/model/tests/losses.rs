//! The losses are PyTorch's, or their authors' program's: values and gradients.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::Command;

use model::loss::Loss;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

/// What Python computes: on logits and targets `[5, 4]`, every loss with its gradient.
const PROGRAM: &str = r#"
import json, math, torch
import torch.nn.functional as F
torch.manual_seed(3)
B, C = 5, 4
x = (torch.randn(B, C, dtype=torch.float64) * 3)
x[0, 0], x[1, 1] = 40.0, -40.0  # where a sigmoid is 0 or 1
y = (torch.rand(B, C) < 0.4).to(torch.float64)
share = torch.tensor([0.5, 0.02, 0.3, 0.0], dtype=torch.float64)

def deepmar(x, y):
    # Li, Chen, Huang 2015, equation 3, with sigma 1
    w = torch.where(y > 0, torch.exp(1 - share), torch.exp(share))
    return F.binary_cross_entropy_with_logits(x, y, weight=w, reduction="sum") / B

def asl(x, y, gamma_pos, gamma_neg, clip, disable):
    # github.com/Alibaba-MIIL/ASL, src/loss_functions/losses.py, AsymmetricLoss.forward
    xs_pos = torch.sigmoid(x)
    xs_neg = 1 - xs_pos
    if clip > 0:
        xs_neg = (xs_neg + clip).clamp(max=1)
    loss = y * torch.log(xs_pos.clamp(min=1e-8)) + (1 - y) * torch.log(xs_neg.clamp(min=1e-8))
    if disable:
        torch.set_grad_enabled(False)
    pt = xs_pos * y + xs_neg * (1 - y)
    w = torch.pow(1 - pt, gamma_pos * y + gamma_neg * (1 - y))
    if disable:
        torch.set_grad_enabled(True)
    return -(loss * w).sum()

losses = {
    "multilabel_soft_margin": torch.nn.MultiLabelSoftMarginLoss(),
    "bce": lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction="sum") / B,
    "deepmar": deepmar,
    "asl": lambda x, y: asl(x, y, 0.0, 4.0, 0.05, True),
    "asl 1 3": lambda x, y: asl(x, y, 1.0, 3.0, 0.0, True),
    "asl differentiated": lambda x, y: asl(x, y, 1.0, 4.0, 0.05, False),
}
out = {"x": x.flatten().tolist(), "y": y.flatten().tolist(), "losses": {}}
for name, loss in losses.items():
    leaf = x.clone().requires_grad_()
    value = loss(leaf, y)
    value.backward()
    out["losses"][name] = [value.item(), leaf.grad.flatten().tolist()]
print(json.dumps(out))
"#;

#[derive(Deserialize)]
struct Golden {
    x: Vec<f64>,
    y: Vec<f64>,
    losses: std::collections::BTreeMap<String, (f64, Vec<f64>)>,
}

fn golden() -> Golden {
    let python = std::env::var("HGAT_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(python).args(["-c", PROGRAM]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{said}; set HGAT_PYTHON to a Python with torch"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn loss(name: &str) -> Loss {
    let asl = |gamma_positive, gamma_negative, clip, weight_gradient| Loss::Asymmetric {
        gamma_positive,
        gamma_negative,
        clip,
        weight_gradient,
    };
    match name {
        "multilabel_soft_margin" => Loss::MultilabelSoftMargin,
        "bce" => Loss::Bce,
        "deepmar" => {
            let share = [0.5, 0.02, 0.3, 0.0f64];
            let positive = share.map(|p| (1.0 - p).exp());
            let negative = share.map(f64::exp);
            Loss::deepmar(&positive, &negative, Kind::Double, Device::Cpu).unwrap()
        }
        "asl" => asl(0.0, 4.0, 0.05, false),
        "asl 1 3" => asl(1.0, 3.0, 0.0, false),
        "asl differentiated" => asl(1.0, 4.0, 0.05, true),
        other => panic!("no loss {other}"),
    }
}

#[test]
fn every_loss_and_its_gradient_is_the_one_of_its_source_however_the_step_is_cut() {
    let golden = golden();
    assert_eq!(golden.losses.len(), 6);
    let targets = Tensor::from_slice(&golden.y).view([5, 4]);
    for (name, (value, gradient)) in &golden.losses {
        let loss = loss(name);
        for cut in [&[5][..], &[2, 3], &[1, 1, 3]] {
            let logits = Tensor::from_slice(&golden.x)
                .view([5, 4])
                .set_requires_grad(true);
            let (mut sum, mut from) = (0.0, 0);
            for &rows in cut {
                let share = loss
                    .share(
                        &logits.narrow(0, from, rows),
                        &targets.narrow(0, from, rows),
                        5,
                    )
                    .unwrap();
                share.backward();
                sum += share.double_value(&[]);
                from += rows;
            }
            assert!(
                (sum - value).abs() < 1e-12 * value.abs().max(1.0),
                "{name} {cut:?}: {sum} {value}"
            );
            let ours: Vec<f64> = logits.grad().flatten(0, -1).try_into().unwrap();
            for (at, (ours, theirs)) in ours.iter().zip(gradient).enumerate() {
                assert!(
                    (ours - theirs).abs() < 1e-7 * theirs.abs().max(1e-3),
                    "{name} {cut:?}, gradient {at}: {ours} {theirs}"
                );
            }
        }
    }
}

#[test]
fn weights_of_deepmar_that_are_not_one_a_class_are_refused() {
    let problem = Loss::deepmar(&[1.0, 2.0], &[1.0], Kind::Float, Device::Cpu).unwrap_err();
    assert!(
        problem.to_string().contains("2 positive and 1 negative"),
        "{problem}"
    );
}
