//! Against a model: what fits, what is left out, what is missing.

use std::collections::BTreeMap;

use model::weights::{FileKind, Scope, WeightFile, plan_match};
use model::{Graph, HgatFc};
use tch::{Device, Kind, Tensor};

use crate::small;

#[test]
fn the_published_checkpoints_unused_layers_are_accepted_and_reported() {
    let model = small(Graph::None);
    let mut file = whole(&model);
    for name in [
        "heads.gat1.W",
        "heads.gat2s.1.a",
        "heads.fc_replace_GALayer1.fc.weight",
        "heads.fc_replace_GALayer2.0.bn.bias",
    ] {
        file.tensors.insert(
            name.to_owned(),
            Tensor::zeros([2], (Kind::Float, Device::Cpu)),
        );
    }

    let shapes = model.shapes().unwrap();
    let report = plan_match(&shapes, &file, Scope::Whole).unwrap();

    assert_eq!(report.matched.len(), shapes.len());
    assert_eq!(report.unused.len(), 4);
    assert!(report.left_out.is_empty());
    assert!(
        report
            .to_string()
            .contains("4 of attention layers not in use (heads.fc_replace_GALayer1.fc.weight")
    );
}

#[test]
fn the_trunk_alone_leaves_a_files_heads_out() {
    let model = small(Graph::Gat);
    let report = plan_match(&model.shapes().unwrap(), &whole(&model), Scope::Trunk).unwrap();
    assert!(
        report
            .matched
            .iter()
            .all(|name| name.starts_with("features."))
    );
    assert!(report.left_out.contains(&"heads.gat1.W".to_owned()) && report.unused.is_empty());
}

#[test]
fn missing_and_misshapen_tensors_are_counted_and_named() {
    let model = small(Graph::None);
    let mut file = whole(&model);
    let convolution =
        |name: &String| name.ends_with("conv1.weight") || name.ends_with("conv2.weight");
    let gone: Vec<String> = file
        .tensors
        .keys()
        .filter(|name| convolution(name))
        .cloned()
        .collect();
    file.tensors.retain(|name, _| !convolution(name));
    file.tensors.insert(
        "features.1.weight".to_owned(),
        Tensor::zeros([65], (Kind::Float, Device::Cpu)),
    );
    file.tensors.insert(
        "features.1.bias".to_owned(),
        Tensor::zeros([64], (Kind::Int64, Device::Cpu)),
    );

    let error = plan_match(&model.shapes().unwrap(), &file, Scope::Trunk)
        .unwrap_err()
        .to_string();

    assert_eq!(gone.len(), 16);
    assert!(
        error.contains("16 of 120 trunk tensors are missing: features.4.0.conv1.weight"),
        "{error}"
    );
    assert!(
        error.contains(&gone[9]) && !error.contains(&gone[10]),
        "{error}"
    );
    assert!(
        error.contains("2 of 120 trunk tensors are of another shape or type"),
        "{error}"
    );
    assert!(
        error.contains("features.1.weight ([65], the model has [64])"),
        "{error}"
    );
    assert!(error.contains("features.1.bias (of type Int64)"), "{error}");
    assert!(error.contains("made-here"), "{error}");
}

fn whole(model: &HgatFc) -> WeightFile {
    WeightFile {
        path: "made-here".to_owned(),
        kind: FileKind::Safetensors,
        tensors: model.export().unwrap().into_iter().collect(),
        notes: Vec::new(),
        metadata: BTreeMap::new(),
    }
}
