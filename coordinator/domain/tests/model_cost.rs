//! The counted cost against PyTorch: the parameters of the reference in `bench/reference`, and what `FlopCounterMode` sees
//! of its way forward. Runs the Python that `HGAT_PYTHON` names (else `python3`); tensors there have shapes and no values.
// The crate's bans are on its decisions; a test has to run its peer.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::process::Command;

use domain::model_cost::{ModelShape, model_cost};
use serde_json::Value;

const SCRIPT: &str = r#"
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
from torch.utils.flop_counter import FlopCounterMode
from hgat_fc_reference import HGAT_FC
out = []
for backbone, graph, size, groups, gc, cc in json.loads(sys.argv[2]):
    with torch.device("meta"):
        model = HGAT_FC(backbone, len(groups), sum(groups), groups, gc, cc, graph).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, size, size))
    out.append([sum(p.numel() for p in model.parameters()), counter.get_total_flops()])
print(json.dumps(out))
"#;

const COCO: [u64; 12] = [1, 8, 5, 10, 5, 10, 7, 10, 6, 6, 5, 7];

fn shape(backbone: &str, graph: &str, size: u64, groups: &[u64], gc: u64, cc: u64) -> ModelShape {
    ModelShape {
        backbone: backbone.into(),
        graph: graph.into(),
        size,
        hidden: 1024,
        group_channels: gc,
        class_channels: cc,
        groups: groups.to_vec(),
    }
}

#[test]
fn parameters_and_operations_are_those_that_pytorch_counts() {
    let cases = [
        shape("resnet101", "gat", 448, &COCO, 512, 256),
        shape("resnet101", "none", 448, &COCO, 512, 256),
        shape("resnet101", "fc", 448, &COCO, 512, 256),
        shape("resnet18", "gat", 64, &COCO, 256, 128),
        // A side that does not halve evenly.
        shape("resnet34", "fc", 75, &[3, 1], 64, 32),
        shape("resnet50", "none", 225, &[2], 128, 64),
        shape("resnet152", "gat", 96, &[2, 2, 2], 64, 32),
    ];
    let Some(peers) = peer(&cases) else { return };
    for (case, peer) in cases.iter().zip(peers.as_array().unwrap()) {
        let cost = model_cost(case).unwrap().total();
        assert_eq!(Some(cost.parameters), peer[0].as_u64(), "{case:?}");
        // The reference writes the scores of attention out over pairs of nodes.
        let pairs =
            |nodes: u64, channels: u64| 2 * nodes * nodes * 2 * channels - 2 * 2 * nodes * channels;
        let more: u64 = if case.graph == "gat" {
            let within = case.groups.iter();
            let within: u64 = within.map(|nodes| pairs(*nodes, case.class_channels)).sum();
            pairs(case.groups.len() as u64, case.group_channels) + within
        } else {
            0
        };
        assert_eq!(Some(cost.flops + more), peer[1].as_u64(), "{case:?}");
    }
}

#[test]
fn a_name_that_no_model_has_costs_nothing_that_could_be_told() {
    assert_eq!(
        model_cost(&shape("vgg16", "gat", 448, &COCO, 512, 256)),
        None
    );
    assert_eq!(
        model_cost(&shape("resnet18", "ring", 448, &COCO, 512, 256)),
        None
    );
}

/// PyTorch's answers, or `None` (saying so) where it is not installed.
fn peer(cases: &[ModelShape]) -> Option<Value> {
    let named = std::env::var_os("HGAT_PYTHON");
    let python = named.clone().unwrap_or_else(|| "python3".into());
    let probe = Command::new(&python)
        .args(["-c", "import torchvision"])
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        assert!(
            named.is_none(),
            "HGAT_PYTHON is set to {python:?}, which has no torchvision"
        );
        println!("skipped: {python:?} has no torchvision; name one that has by HGAT_PYTHON");
        return None;
    }
    let question: Vec<Value> = cases
        .iter()
        .map(|case| {
            serde_json::json!([
                case.backbone,
                case.graph,
                case.size,
                case.groups,
                case.group_channels,
                case.class_channels
            ])
        })
        .collect();
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/reference");
    let output = Command::new(&python)
        .args(["-c", SCRIPT, reference, &Value::from(question).to_string()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(serde_json::from_slice(&output.stdout).unwrap())
}
