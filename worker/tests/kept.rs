//! What survivors have computed of the step in flight goes into the next generation: real processes, of which one stands
//! still in the midst of a step until it is given up, when the others have long done their parts.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::disturbed::{all_holds, ledger, start};
use support::{Place, Run, distance};

/// Where a last bit would grow: training is chaotic.
const ONE_STEP: &[&str] = &["--stop-after", "1"];

/// Three steps in all; the clip is far from the norm, so that a last bit does not turn into another branch.
const SETTINGS: &[&str] = &[
    "train.epochs=1",
    "run.snapshot_every_epochs=1",
    "train.precision=float64",
    "train.clip_norm=1000",
    "run.train_figures=on",
    "train.micro_batches_per_pass=1",
    "fault.timeout=2",
];

/// A run whose second rank stands still when it has added up its first micro-batch of the first step.
fn disturbed(place: &Place, workers: usize, more: &[&str]) -> Run {
    let name = "disturbed";
    let faults = place.path(&format!("{name}-faults"));
    std::fs::create_dir_all(&faults).unwrap();
    std::fs::write(faults.join("worker-1.added-up"), "stop").unwrap();
    let settings: Vec<_> = SETTINGS.iter().chain(more).copied().collect();
    let run = start(place, name, workers, &settings).end();
    assert!(faults.join("worker-1.added-up.taken").exists());
    all_holds(place, &run);
    run
}

fn undisturbed(place: &Place, workers: usize, more: &[&str]) -> Run {
    let settings: Vec<_> = SETTINGS.iter().chain(more).copied().collect();
    let run = start(place, "undisturbed", workers, &settings).end();
    all_holds(place, &run);
    run
}

/// The micro-batches' samples that workers say they kept.
fn kept(witness: &Path) -> Vec<Value> {
    let texts = std::fs::read_dir(witness)
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    texts
        .flat_map(|text| {
            text.lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap())
                .collect::<Vec<_>>()
        })
        .filter(|line| line["kept"] == true)
        .collect()
}

/// The training mAP of the scores that training computed anyway.
fn training_map(run: &Run) -> f64 {
    let summary = run.summary();
    let figures = &summary["further_figures"][0]["figures"]["online"];
    assert_eq!(figures["images"], 36, "{summary:#}");
    figures["map"].as_f64().unwrap()
}

#[test]
fn survivors_go_on_with_what_they_have_computed_and_come_to_the_same_result() {
    let place = Place::with(36, 10);
    let undisturbed = undisturbed(&place, 3, ONE_STEP);

    let run = disturbed(&place, 3, ONE_STEP);

    // Each of the two had two micro-batches and is handed them again, with one of the other's two
    let ledger = ledger(&run.dir);
    assert_eq!(
        ledger["generations"][1]["first_step"],
        json!({"step": 0, "micro_batches": [[0, 1, 2], [4, 5, 3]]}),
        "{ledger:#}"
    );
    let kept = kept(&place.path("disturbed-witness"));
    let samples: Vec<_> = kept
        .iter()
        .map(|line| line["samples"].as_array().unwrap().len())
        .collect();
    assert_eq!(samples, [4, 4], "two micro-batches of two each: {kept:?}");
    // and the sums are the same but for their order.
    let (distance, name) = distance(&run.tensors(), &undisturbed.tensors());
    println!("the two runs differ by {distance:.1e} ({name})");
    assert!(distance <= 1e-12, "{name} differs by {distance}");
}

#[test]
fn micro_batches_that_went_through_the_model_together_are_kept_together() {
    let place = Place::with(36, 10);
    // Three for each of two ranks, in a pass of two and one of one: the second rank stands still after the first.
    let settings = [ONE_STEP, &["train.micro_batches_per_pass=2"]].concat();
    let undisturbed = undisturbed(&place, 2, &settings);

    let run = disturbed(&place, 2, &settings);

    // The other had done its three, and does those three as well.
    let ledger = ledger(&run.dir);
    let step = &ledger["generations"][1]["first_step"];
    let all = json!([[0, 1, 2, 3, 4, 5]]);
    assert_eq!(step["micro_batches"], all, "{ledger:#}");
    let kept = kept(&place.path("disturbed-witness"));
    let samples = kept
        .iter()
        .map(|line| line["samples"].as_array().unwrap().len());
    assert_eq!(samples.collect::<Vec<_>>(), [6], "{kept:?}");
    let (distance, name) = distance(&run.tensors(), &undisturbed.tensors());
    println!("the two runs differ by {distance:.1e} ({name})");
    assert!(distance <= 1e-12, "{name} differs by {distance}");
}

#[test]
fn in_a_fixed_world_the_result_is_the_same_to_the_bit() {
    let place = Place::with(36, 10);
    let fixed = &["train.world=fixed"];
    let undisturbed = undisturbed(&place, 3, fixed);

    let run = disturbed(&place, 3, fixed);

    assert_eq!(kept(&place.path("disturbed-witness")).len(), 2);
    assert_eq!(run.hashes(), undisturbed.hashes());
    assert_eq!(training_map(&run), training_map(&undisturbed));
}

#[test]
fn where_sums_go_over_sockets_what_has_gone_into_them_is_computed_again() {
    let place = Place::with(36, 10);
    let sockets = &["train.shared_memory=false", "--stop-after", "1"];
    let undisturbed = undisturbed(&place, 3, sockets);

    let run = disturbed(&place, 3, sockets);

    let (distance, name) = distance(&run.tensors(), &undisturbed.tensors());
    assert!(distance <= 1e-12, "{name} differs by {distance}");
}
