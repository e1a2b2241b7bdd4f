//! Weight files as people have them: the collected odd ones, and what PyTorch itself writes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use model::weights::{self, FileKind, Foreign, Scope, WeightError, WeightFile, plan_match};
use model::{Backbone, Graph, HgatFc, ModelConfig, Residual};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

// The collected files.

#[test]
fn formats_that_are_not_read_are_named_with_what_to_do() {
    let say = [
        (
            "legacy_pre_1_6",
            "python3 -c \"import torch; torch.save(torch.load('OLD.pth', weights_only=True",
        ),
        ("legacy_tar", "torch.load('OLD.pth', weights_only=False"),
        (
            "whole_model",
            "torchvision.models.resnet.ResNet; only tensors are read",
        ),
        ("whole_model", "save model.state_dict()"),
        (
            "torchscript",
            "torch.jit.load('OLD.pt', map_location='cpu').state_dict()",
        ),
        ("lfs_pointer", "git lfs pull"),
        ("html", "it starts with <html>"),
        ("cut_download", "incomplete zip archive of 3000 bytes"),
    ];
    collected("WGT-01-formats-we-do-not-read", &say);
}

#[test]
fn prefixes_and_nesting_are_recognised_and_reported() {
    let say = [
        ("plain", "names of torchvision's trunk translated"),
        ("module_prefix", "prefix module. taken off"),
        ("nested_state_dict", "found under state_dict"),
        ("lightning_model_prefix", "prefix model. taken off"),
        ("mmcls_backbone_prefix", "prefix backbone. taken off"),
        (
            "nested_model_and_ema",
            "found under model, tensors under model_ema left alone",
        ),
    ];
    collected("WGT-02-prefixes-and-nesting", &say);
}

#[test]
fn files_without_num_batches_tracked_are_whole() {
    collected("WGT-03-num-batches-tracked-absent", &[]);
}

#[test]
fn hostile_pickles_are_refused_by_the_global_they_want() {
    let wanted = "wants the global io.open; only tensors are read";
    let say = [
        ("reduce_at_top", wanted),
        ("reduce_inside_dict", wanted),
        ("stack_global_proto4", wanted),
        ("bare_pickle", wanted),
        ("legacy_stream", wanted),
        (
            "inst_opcode",
            "wants the global __builtin__.open; only tensors are read",
        ),
    ];
    collected("WGT-05-hostile-pickle", &say);
}

#[test]
fn safetensors_headers_that_lie_are_refused_by_tensor() {
    let say = [
        (
            "header_len_u64_max",
            "claims 18446744073709551615 bytes, longer than the file of 38043",
        ),
        (
            "header_len_past_the_end",
            "claims 1000000 bytes, longer than the file of 38043",
        ),
        ("header_not_json", "line 1 column 19"),
        (
            "data_cut",
            "tensor bn1.weight is not whole: the file is 100 bytes short",
        ),
        (
            "offsets_overlap",
            "tensors bn1.weight and conv1.weight claim the same bytes",
        ),
        (
            "shape_and_bytes_differ",
            "tensor bn1.weight has shape [65] of F32, but 256 bytes",
        ),
        ("empty", "0 bytes"),
        ("seven_bytes", "too short for a header"),
        ("pickle_named_safetensors", "not a safetensors file"),
        (
            "zip_named_safetensors",
            "zip archive of torch.save; name it .pth",
        ),
    ];
    collected("WGT-07-hostile-safetensors", &say);
}

// What PyTorch writes.

#[test]
fn every_form_of_tensor_that_torch_saves_is_read_bit_for_bit() {
    let expected = weights::read(&written("forms.safetensors")).unwrap();
    assert_eq!(
        (expected.tensors.len(), expected.kind),
        (13, FileKind::Safetensors)
    );
    assert_eq!(
        expected.metadata,
        [("a", "1"), ("b", "2")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    );
    for name in ["forms.pth", "forms-protocol-4.pth", "forms-deflated.pth"] {
        let file = weights::read(&written(name)).unwrap();
        assert_eq!(file.kind, FileKind::TorchZip);
        same_tensors(&file.tensors, &expected.tensors, name);
    }
}

#[test]
fn a_data_parallel_checkpoint_with_an_optimizer_fits_the_trunk() {
    let expected = weights::read(&written("trunk.safetensors")).unwrap();
    let model = small(Graph::None);

    let file = weights::read(&written("trunk.pth.tar")).unwrap();
    let report = plan_match(&model.shapes().unwrap(), &file, Scope::Trunk).unwrap();

    same_tensors(&file.tensors, &expected.tensors, "trunk.pth.tar");
    assert_eq!(report.matched.len(), 120);
    assert_eq!(report.left_out, ["fc.bias", "fc.weight"]);
    assert!(report.unused.is_empty() && report.defaulted.is_empty());
    assert_eq!(
        report.to_string(),
        "120 tensors matched, 2 left out (fc.bias, fc.weight)"
    );
    let notes = [
        "found under state_dict",
        "prefix module. taken off",
        "120 names of torchvision's trunk translated to features.*",
    ];
    assert_eq!(file.notes, notes);
}

#[test]
fn a_file_without_counts_starts_them_at_0_and_they_are_exported_again() {
    let mut model = small(Graph::None);

    let file = weights::read(&written("trunk-deep.pth")).unwrap();
    let report = plan_match(&model.shapes().unwrap(), &file, Scope::Trunk).unwrap();
    model.import(&file.tensors).unwrap();
    let bytes = weights::to_safetensors(&model.export().unwrap(), &BTreeMap::new()).unwrap();
    let (exported, _) = weights::from_safetensors(&bytes, "exported").unwrap();

    assert_eq!((report.matched.len(), report.defaulted.len()), (100, 20));
    let count = &exported["features.1.num_batches_tracked"];
    assert_eq!(
        (count.kind(), count.size(), count.int64_value(&[])),
        (Kind::Int64, vec![], 0)
    );
    same_bits(
        &exported["features.7.1.conv2.weight"],
        &file.tensors["features.7.1.conv2.weight"],
        "imported",
    );
}

#[test]
fn what_torch_saves_that_is_no_weights_is_refused_with_its_name() {
    for (name, global) in [
        ("namespace.pth", "argparse.Namespace"),
        ("numpy.pth", "numpy._core.multiarray.scalar"),
        ("module.pth", "torch.nn.modules.linear.Linear"),
        ("module-legacy.pth", "torch.nn.modules.linear.Linear"),
    ] {
        match weights::read(&written(name)) {
            Err(WeightError::Global { global: wanted, .. }) => assert_eq!(wanted, global, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    for (name, what) in [
        ("forms-legacy.pth", Foreign::LegacyPickle),
        ("script.pt", Foreign::TorchScript),
    ] {
        match weights::read(&written(name)) {
            Err(WeightError::Foreign { what: found, .. }) => assert_eq!(found, what, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    for (name, reason) in [
        ("list.pth", "it holds a list without names"),
        ("nothing.pth", "it holds no tensors by name"),
        (
            "two.pth",
            "several dictionaries of tensors (student, teacher)",
        ),
    ] {
        let error = weights::read(&written(name)).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(name), "{error}");
    }
}

// Out again, and against a model.

#[test]
fn safetensors_bytes_depend_on_names_and_values_only() {
    let named: Vec<(String, Tensor)> = weights::read(&written("forms.pth"))
        .unwrap()
        .tensors
        .into_iter()
        .collect();
    let mut turned: Vec<(String, Tensor)> = named
        .iter()
        .map(|(name, t)| (name.clone(), t.shallow_clone()))
        .collect();
    turned.reverse();
    let metadata: BTreeMap<String, String> = (0..20)
        .map(|k| (format!("key{k}"), format!("\"{k}\"\n")))
        .collect();

    let bytes = weights::to_safetensors(&named, &metadata).unwrap();
    let (tensors, read_metadata) = weights::from_safetensors(&bytes, "own").unwrap();

    assert_eq!(bytes, weights::to_safetensors(&turned, &metadata).unwrap());
    assert_eq!(read_metadata, metadata);
    same_tensors(&tensors, &named.into_iter().collect(), "own");
    // The library reads it, too, and every number lies where its type may be read in place.
    let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let start = bytes.as_ptr() as usize;
    for (name, view) in parsed.iter() {
        assert_eq!(
            (view.data().as_ptr() as usize - start) % (view.dtype().bitsize() / 8),
            0,
            "{name}"
        );
    }
}

#[test]
fn a_transposed_tensor_is_written_as_it_reads() {
    let turned = Tensor::arange(6, (Kind::Float, Device::Cpu))
        .reshape([2, 3])
        .tr();
    let bytes = weights::to_safetensors(
        &[("t".to_owned(), turned.shallow_clone())],
        &BTreeMap::new(),
    )
    .unwrap();
    let (read, _) = weights::from_safetensors(&bytes, "turned").unwrap();
    same_bits(&read["t"], &turned, "turned");
}

#[test]
fn a_name_given_twice_and_a_type_without_a_word_are_not_written() {
    let one = || {
        (
            "a".to_owned(),
            Tensor::zeros([1], (Kind::Float, Device::Cpu)),
        )
    };
    let complex = (
        "c".to_owned(),
        Tensor::zeros([1], (Kind::ComplexFloat, Device::Cpu)),
    );
    for (named, word) in [
        (vec![one(), one()], "twice"),
        (vec![complex], "ComplexFloat"),
    ] {
        let error = weights::to_safetensors(&named, &BTreeMap::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{error}");
    }
}

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

#[test]
fn a_folder_and_a_missing_file_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (path, word) in [
        (folder.path().to_owned(), "no regular file"),
        (folder.path().join("gone.pth"), "check the path"),
    ] {
        let error = weights::read(&path).unwrap_err().to_string();
        assert!(
            error.contains(word) && error.contains(&path.display().to_string()),
            "{error}"
        );
    }
}

// Below: how.

/// Runs every variant of a collected case; `say` are words that its error or notes have besides.
fn collected(case: &str, say: &[(&str, &str)]) {
    let Some(cases) = std::env::var_os("HGAT_TEST_CASES") else {
        println!("skipped: HGAT_TEST_CASES is not set, so there are no collected files to read");
        return;
    };
    let folder = PathBuf::from(cases).join(case);
    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let variants = expected["variants"].as_object().unwrap();
    assert!(
        say.iter()
            .all(|(variant, _)| variants.contains_key(*variant))
    );
    for (variant, right) in variants {
        let file_name = right["path"].as_str().unwrap();
        let result = weights::read(&folder.join(file_name));
        let text = match (right["outcome"].as_str().unwrap(), result) {
            ("error", Err(error)) => error.to_string(),
            ("accept" | "either", Ok(file)) => {
                holds(&file, &right["tensors"], variant);
                file.notes.join(", ")
            }
            (outcome, result) => panic!("{case} {variant}: to be {outcome}, is {result:?}"),
        };
        for word in right["message_must_contain"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let word = word.as_str().unwrap().replace("FILE", file_name);
            assert!(
                text.contains(&word),
                "{case} {variant}: {text:?} lacks {word:?}"
            );
        }
        for (_, words) in say.iter().filter(|(of, _)| of == variant) {
            assert!(
                text.contains(words),
                "{case} {variant}: {text:?} lacks {words:?}"
            );
        }
        if let Some(trace) = right["must_not_exist"].as_str() {
            assert!(
                !Path::new(trace).exists() && !folder.join(trace).exists(),
                "{case} {variant}: its code ran"
            );
        }
    }
}

/// Every tensor that `right` describes is there under our name with these bits, or left out and listed.
fn holds(file: &WeightFile, right: &Value, variant: &str) {
    let report = plan_match(&BTreeMap::new(), file, Scope::Trunk).unwrap();
    let right = right.as_object().unwrap();
    assert!(
        file.tensors.len() >= right.len(),
        "{variant}: {} tensors",
        file.tensors.len()
    );
    let mut trunk = BTreeMap::new();
    for (name, right) in right {
        let ours = right["maps_to"].as_str();
        let Some(ours) = ours else {
            let suffix = format!(".{name}");
            assert!(
                report
                    .left_out
                    .iter()
                    .any(|left| left == name || left.ends_with(&suffix)),
                "{variant}: {name}"
            );
            continue;
        };
        let tensor = &file.tensors[ours];
        let shape: Vec<i64> = serde_json::from_value(right["shape"].clone()).unwrap();
        assert_eq!(tensor.size(), shape, "{variant}: {name}");
        let values: Vec<f32> = Vec::try_from(tensor.to_kind(Kind::Float).flatten(0, -1)).unwrap();
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            digest,
            right["sha256_f32_le"].as_str().unwrap(),
            "{variant}: {name}"
        );
        trunk.insert(ours.to_owned(), shape);
    }
    let report = plan_match(&trunk, file, Scope::Trunk).unwrap();
    assert_eq!(report.matched.len(), trunk.len());
    // A model that has more is told what is missing, except for counts of batches.
    trunk.insert("features.9.num_batches_tracked".to_owned(), vec![]);
    assert_eq!(
        plan_match(&trunk, file, Scope::Trunk).unwrap().defaulted,
        ["features.9.num_batches_tracked"]
    );
    trunk.insert("features.9.weight".to_owned(), vec![1]);
    let error = plan_match(&trunk, file, Scope::Trunk)
        .unwrap_err()
        .to_string();
    assert!(error.contains("are missing: features.9.weight"), "{error}");
}

/// One of the files that `weight_files.py` writes, once for all tests.
fn written(name: &str) -> PathBuf {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let python = std::env::var("HGAT_PYTHON").unwrap_or_else(|_| "python3".into());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weight_files.py");
        let status = Command::new(python)
            .arg(script)
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(
            status.success(),
            "weight_files.py failed; set HGAT_PYTHON to a Python with torch and safetensors"
        );
        folder
    });
    FOLDER.path().join(name)
}

fn small(graph: Graph) -> HgatFc {
    let config = ModelConfig {
        backbone: Backbone::parse("resnet18").unwrap(),
        graph,
        residual: Residual::parse("sum").unwrap(),
        bn_momentum: 0.1,
        hidden: 8,
        group_channels: 4,
        class_channels: 4,
        last_bias: None,
        groups: vec![vec![0], vec![1, 2]],
    };
    HgatFc::new(&config, Device::Cpu, Kind::Float, 5).unwrap()
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

fn same_tensors(ours: &BTreeMap<String, Tensor>, theirs: &BTreeMap<String, Tensor>, at: &str) {
    assert!(
        ours.keys().eq(theirs.keys()),
        "{at}: {:?}, not {:?}",
        ours.keys(),
        theirs.keys()
    );
    for (name, tensor) in ours {
        same_bits(tensor, &theirs[name], &format!("{at}: {name}"));
    }
}

fn same_bits(ours: &Tensor, theirs: &Tensor, at: &str) {
    assert_eq!(
        (ours.kind(), ours.size()),
        (theirs.kind(), theirs.size()),
        "{at}"
    );
    assert!(ours.equal(theirs), "{at}: values differ");
}
