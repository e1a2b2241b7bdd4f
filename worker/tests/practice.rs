//! What is beyond the plain recipe, in real runs: the average of the weights, frozen epochs, other losses and schedules,
//! early stopping, and the figures of training pictures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::path::Path;

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
