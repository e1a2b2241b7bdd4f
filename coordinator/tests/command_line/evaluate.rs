//! `evaluate`.

use std::fs;

use serde_json::{Value, json};

use crate::place::Place;
use crate::support::worker::{expected_map, logit};
use crate::support::{CLASSES, VAL};

#[test]
fn figures_of_predictions_in_a_file_are_those_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let line = |n: u32| {
        let logits: Vec<f32> = (0..CLASSES).map(|class| logit(n, class)).collect();
        json!({ "file": format!("{n}.jpg"), "logits": logits }).to_string()
    };
    fs::write(
        folder.path().join("p.jsonl"),
        (0..VAL).rev().map(line).collect::<Vec<_>>().join("\n"),
    )
    .unwrap();

    let annotations = "coco/annotations/instances_val2017.json";
    let evaluated = at.run(&[
        "evaluate",
        "--predictions",
        "p.jsonl",
        "--annotations",
        annotations,
        "--json",
    ]);

    let figures: Value = serde_json::from_str(&evaluated.out).unwrap();
    assert!(
        (figures["map"].as_f64().unwrap() - expected_map()).abs() < 1e-12,
        "{figures}"
    );
    assert_eq!(figures["images"], VAL);
}
