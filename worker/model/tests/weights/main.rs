//! Weight files as people have them: the collected odd ones, and what PyTorch itself writes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

mod collected;
mod export;
mod from_torch;
mod matching;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use model::{Backbone, Graph, HgatFc, ModelConfig, Residual, weights};
use tch::{Device, Kind, Tensor};

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
