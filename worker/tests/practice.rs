//! What is beyond the plain recipe, in real runs: the average of the weights, frozen epochs, other losses and schedules,
//! early stopping, and the figures of training pictures.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Place, Run};

const EVERYTHING: &[&str] = &[
    "train.precision=float64",
    "train.world=fixed",
    "train.loss=asl",
    "train.asl_gamma_positive=1.0",
    "train.schedule=one_cycle",
    "train.warmup=0.0",
    "train.ema_decay=0.5",
    "train.freeze_trunk_epochs=1",
    "data.rand_augment_operations=2",
    "data.cutout_side=0.4",
    "run.train_figures=decomposed",
    "run.train_figures_samples=15",
    "fault.sentinel_steps=1",
    "train.micro_batch=4",
];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    EVERYTHING.iter().chain(more).copied().collect()
}

fn files(checkpoint: &Path) -> Vec<Vec<u8>> {
    ["model", "optimizer", "ema"]
        .map(|name| std::fs::read(checkpoint.join(format!("{name}.safetensors"))).unwrap())
        .to_vec()
}

/// By epoch and name, the mAP of every figure beside validation's.
fn figures(run: &Run) -> Vec<(String, f64)> {
    let summary = run.summary();
    let mut all = Vec::new();
    for epoch in summary["further_figures"].as_array().unwrap() {
        for (name, figure) in epoch["figures"].as_object().unwrap() {
            let key = format!("{name} {} of {}", epoch["epoch"], figure["images"]);
            all.push((key, figure["map"].as_f64().unwrap()));
        }
    }
    all
}

#[test]
fn a_run_with_everything_resumes_to_the_bit_and_its_figures_do_not_depend_on_the_workers() {
    let place = Place::with(38, 14);
    let whole = place.good("whole", 2, &with(&[]));

    // Stopped in its second epoch, when the trunk has begun to move, and gone on with
    place.good("parts", 2, &with(&["--stop-after", "5"]));
    let parts = place.good("parts", 2, &["--resume"]);
    let alone = place.good("alone", 1, &with(&[]));

    assert_eq!(files(&whole.last()), files(&parts.last()));
    let names = [
        "val_average",
        "online",
        "train_clean",
        "train_batch",
        "train_crops",
        "train_crops_batch",
        "train_crops_batch_quarters",
        "online_subset",
        "online_subset_quarters",
        "online_last_quarter",
    ];
    let of_whole = figures(&whole);
    assert_eq!(of_whole.len(), 2 * names.len(), "{of_whole:?}");
    for ((name, map), (other, its)) in of_whole.iter().zip(figures(&alone)) {
        assert_eq!(*name, other);
        assert!(
            (map - its).abs() < 1e-9,
            "{name}: {map} with two workers, {its} with one"
        );
    }
    // Batch statistics are used where they are said to be
    let map = |name: &str| {
        let found = of_whole.iter().find(|(known, _)| known.starts_with(name));
        found.unwrap().1
    };
    for (by_running, by_batch) in [
        ("train_clean 2", "train_batch 2"),
        ("train_crops 2", "train_crops_batch 2"),
    ] {
        let apart = map(by_running) - map(by_batch);
        assert!(apart.abs() > 1e-6, "{by_running}: {of_whole:?}");
    }
    let online = of_whole
        .iter()
        .find(|(name, _)| name.starts_with("online 2"));
    assert!(online.unwrap().0.ends_with("of 38"), "{online:?}");
    // Scores of steps before the stop were lost with their processes, and the figure says so
    assert!(
        figures(&parts)
            .iter()
            .any(|(name, _)| name == "online 2 of 26"),
        "{:?}",
        figures(&parts)
    );
}

/// The scalars that TensorBoard itself reads in a run's folder: by tag its steps and values; none where it is not installed.
fn board(run: &Run) -> Option<Value> {
    const SCRIPT: &str = "
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
board = EventAccumulator(sys.argv[1])
board.Reload()
json.dump({tag: [[e.step, e.value] for e in board.Scalars(tag)] for tag in board.Tags()['scalars']}, sys.stdout)";
    let named = std::env::var("HGAT_PYTHON").ok();
    let python = named.clone().unwrap_or_else(|| "python3".into());
    let there = Command::new(&python)
        .args(["-c", "import tensorboard"])
        .output();
    if !there.is_ok_and(|there| there.status.success()) {
        assert!(
            named.is_none(),
            "HGAT_PYTHON is set to {python:?}, which has no tensorboard"
        );
        println!("skipped: {python:?} has no tensorboard; name one that has by HGAT_PYTHON");
        return None;
    }
    let read = Command::new(&python)
        .args(["-c", SCRIPT])
        .arg(run.dir.join("tb"))
        .output()
        .unwrap();
    assert!(read.status.success(), "{read:?}");
    Some(serde_json::from_slice(&read.stdout).unwrap())
}

#[test]
fn tensorboard_itself_shows_the_figures_of_validation() {
    let place = Place::with(24, 8);
    let run = place.good("run", 1, &["train.epochs=3"]);
    let Some(board) = board(&run) else { return };
    let summary = run.summary();
    let close = |found: &Value, expected: &Value| {
        let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
        // An event file has 32 bits for a value.
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    };
    let map = board["val/mAP"].as_array().unwrap();
    let evaluations = summary["evaluations"].as_array().unwrap();
    assert_eq!(map.len(), evaluations.len());
    for (found, expected) in map.iter().zip(evaluations) {
        close(&found[1], &expected["map"]);
    }
    for (tag, figures, figure) in [
        ("val/CF1", "at_threshold", "cf1"),
        ("val/OF1", "at_threshold", "of1"),
        ("val/top3_CF1", "top3", "cf1"),
        ("val/top3_OF1", "top3", "of1"),
    ] {
        close(&board[tag][2][1], &summary[figures][figure]);
    }
}

#[test]
fn a_run_whose_map_does_not_get_better_is_finished_early_with_a_checkpoint_and_says_why() {
    let place = Place::with(24, 8);
    let run = place.good(
        "run",
        2,
        &[
            "train.epochs=9",
            "train.early_stopping=2",
            "train.freeze_trunk=true",
            "model.bn_momentum=0.0",
            "train.learning_rate_head=0.0",
            "train.weight_decay=0.0",
        ],
    );

    let summary = run.summary();
    assert_eq!(summary["ended"], Value::from("finished"), "{summary}");
    let reason = summary["reason"].as_str().unwrap();
    assert!(
        reason.contains("train.early_stopping = 2") && reason.contains("after epoch 1"),
        "{reason}"
    );
    let steps = summary["steps"].as_u64().unwrap();
    assert!((6..18).contains(&steps), "{steps}");
    assert!(run.last().join("model.safetensors").exists());
}
