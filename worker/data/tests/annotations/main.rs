//! Annotation files as people have them: every ANN case, and the kinds they stand for.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod cases;
#[path = "../given/mod.rs"]
mod given;
mod labels;
mod mistakes;

use data::coco::{DataPaths, Dataset, Options, Split};
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn a_file_of_coco_s_kind_is_read_within_a_small_multiple_of_its_size() {
    // given: 60 MB in the shape of the real file, nine tenths of it polygons
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &small(), &small());
    let file = root.path().join("annotations/instances_train2017.json");
    let (images, annotations) = (20_000_u64, 140_000_u64);
    let mut text = String::from("{\"images\":[");
    for i in 0..images {
        let comma = if i > 0 { "," } else { "" };
        text += &format!(
            "{comma}{{\"license\":4,\"file_name\":\"{i:012}.jpg\",\"height\":480,\"width\":640,\"id\":{i}}}"
        );
    }
    text += "],\"annotations\":[";
    let polygon = (0..40)
        .map(|i| format!("{}.25", i * 13))
        .collect::<Vec<_>>()
        .join(",");
    for a in 0..annotations {
        let (comma, image, class) = (if a > 0 { "," } else { "" }, a * 7 % images, a % 3 + 1);
        text += &format!(
            "{comma}{{\"segmentation\":[[{polygon},{polygon}]],\"area\":12.5,\"iscrowd\":0,\"image_id\":{image},\
             \"bbox\":[1.5,2.5,30.0,40.0],\"category_id\":{class},\"id\":{a}}}"
        );
    }
    text += &format!("],\"categories\":{}}}", small()["categories"]);
    std::fs::write(&file, &text).unwrap();
    let size = text.len() as u64;
    drop(text);
    assert!(size > 60_000_000, "{size}");

    // when: in a process of its own, whose peak memory is only this
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "peak_memory_of_one_open", "--nocapture"])
        .env("HGAT_OPEN_ROOT", root.path())
        .output()
        .unwrap();

    // then
    let text = String::from_utf8_lossy(&output.stdout);
    let peak = text
        .split("peak_kib=")
        .nth(1)
        .and_then(|t| t.split_whitespace().next())
        .expect(&text);
    let peak = peak.parse::<u64>().unwrap() * 1024;
    assert!(
        peak < size + size / 2 + (20 << 20),
        "peak memory {peak} for a file of {size}"
    );
}

/// Measured by the test above in a process of its own.
#[test]
fn peak_memory_of_one_open() {
    let Some(root) = std::env::var_os("HGAT_OPEN_ROOT") else {
        return;
    };
    let dataset = Dataset::open(&DataPaths::root(root), &Options::default()).unwrap();
    assert_eq!(dataset.train.samples.len(), 20_000);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    println!("peak_kib={}", line.split_whitespace().nth(1).unwrap());
}

#[test]
fn the_wire_form_is_small_and_comes_back_the_same() {
    let Some(root) = given::coco() else { return };
    let dataset = Dataset::open(&DataPaths::root(root), &Options::default()).unwrap();
    for split in [dataset.train, dataset.val] {
        let bytes = split.encode();
        assert!(
            bytes.len() < 400 + 60 * split.samples.len(),
            "{} bytes",
            bytes.len()
        );
        assert_eq!(Split::decode(&bytes).unwrap(), split);
    }
}

/// Two pictures, three classes in two supercategories.
fn small() -> Value {
    json!({
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [
            {"id": 10, "image_id": 1, "category_id": 1},
            {"id": 11, "image_id": 2, "category_id": 2},
            {"id": 12, "image_id": 2, "category_id": 3},
        ],
        "categories": [
            {"id": 1, "name": "dog", "supercategory": "animal"},
            {"id": 2, "name": "cat", "supercategory": "animal"},
            {"id": 3, "name": "car"},
        ],
    })
}

fn write(root: &Path, train: &Value, val: &Value) {
    std::fs::create_dir_all(root.join("annotations")).unwrap();
    for (name, value) in [("train", train), ("val", val)] {
        std::fs::write(
            root.join(format!("annotations/instances_{name}2017.json")),
            value.to_string(),
        )
        .unwrap();
    }
}
