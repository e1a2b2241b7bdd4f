//! The collected files, each variant as it should end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::weights::{self, Scope, WeightFile, plan_match};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tch::Kind;

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
