//! A dry run beside the real run that it speaks of.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Place, Run, processes_with};

/// 41 pictures in steps of 12: the last of an epoch has five.
const SETTINGS: &[&str] = &[
    "train.epochs=3",
    "run.snapshot_every_epochs=1",
    "run.evaluate_every_epochs=2",
    "run.keep_checkpoints=1",
    "train.ema_decay=0.5",
];

fn dry(place: &Place, name: &str, more: &[&str]) -> Run {
    let arguments = [
        SETTINGS,
        &["--dry-run", "--json", "--probe-steps", "3"],
        more,
    ]
    .concat();
    place.run(name, 2, &arguments)
}

fn report(run: &Run) -> Value {
    assert_eq!(run.code, Some(0), "{run:#?}");
    serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {run:#?}"))
}

/// Everything below a folder, hidden names included.
fn below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            names.push(entry.path().display().to_string());
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    names.sort();
    names
}

#[test]
fn a_dry_run_tells_what_the_real_run_then_does_and_leaves_nothing() {
    // Given a data set
    let place = Place::with(41, 10);
    let folder = place.data().parent().unwrap().to_owned();
    let before = below(&folder);

    // When its run is walked through, with a price
    let walked = dry(&place, "runs/deep/run", &["--price-per-worker-hour", "3.5"]);
    let told = report(&walked);

    // Then nothing is there that was not there before, and no process
    assert_eq!(below(&folder), before);
    assert_eq!(
        processes_with(&folder.display().to_string()),
        Vec::<String>::new()
    );

    // And it counts what the real run does
    let real = place.good("run", 2, SETTINGS);
    let summary = real.summary();
    let plan = &told["plan"];
    assert_eq!(plan["steps"], summary["steps"], "{told:#}");
    assert_eq!(plan["steps"], 12);
    assert_eq!(plan["last_step_images"], 5);
    assert_eq!(plan["images"], 3 * 41);
    assert_eq!(
        plan["evaluations"],
        summary["evaluations"].as_array().unwrap().len()
    );
    // The validation split by the weights and by their average
    assert_eq!(plan["rows_per_evaluation"], 20);
    assert_eq!(plan["checkpoints"], 3);
    assert_eq!(plan["checkpoints_at_once"], 3);

    // A checkpoint has the size of a real one, but for a few digits of its description
    let real_bytes: u64 = fs::read_dir(real.last())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    let told_bytes = told["checkpoint_bytes"].as_u64().unwrap();
    assert!(
        told_bytes.abs_diff(real_bytes) < 4096,
        "{told_bytes} told, {real_bytes} written"
    );
    assert_eq!(told["disk_bytes"], 3 * told_bytes);

    // The probe is what was asked for: three steps of twelve pictures that two workers took, and the whole validation split
    let probe = &told["probe"];
    assert_eq!(probe["steps"].as_array().unwrap().len(), 3);
    assert_eq!(
        (&probe["images_per_step"], &probe["rows"]),
        (&12.into(), &20.into())
    );
    assert_eq!(probe["worker_memory"].as_array().unwrap().len(), 2);
    // libtorch alone is more than that, and no machine of ours has so much as the other
    let memory = probe["memory_bytes"].as_u64().unwrap();
    assert!((100 << 20..100 << 30).contains(&memory), "{memory}");
    assert!(probe["alone"].as_f64().unwrap() > 0.0, "{told:#}");

    // And the estimate is made of it
    let estimate = &told["estimate"];
    let run = &estimate["run_seconds"];
    let of = |end: &str| run[end].as_f64().unwrap();
    assert!(
        0.0 < of("low") && of("low") <= of("mean") && of("mean") <= of("high"),
        "{told:#}"
    );
    let step = estimate["step_seconds"]["mean"].as_f64().unwrap();
    assert!(of("mean") > step * 123.0 / 12.0, "{told:#}");
    let hours = estimate["worker_hours"]["mean"].as_f64().unwrap();
    assert!((hours - 2.0 * of("mean") / 3600.0).abs() < 1e-9, "{told:#}");
    assert!((estimate["cost"]["mean"].as_f64().unwrap() - 3.5 * hours).abs() < 1e-9);
    let shares: f64 = estimate["shares"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_f64)
        .sum();
    assert!((shares - 1.0).abs() < 1e-9, "{told:#}");
    let named = estimate["bottleneck"].as_str().unwrap();
    let sentence = estimate["bottleneck_sentence"].as_str().unwrap();
    assert!(
        sentence.starts_with(named) && sentence.contains('%'),
        "{sentence}"
    );
}

#[test]
fn a_dry_run_touches_no_run_that_is_there_and_reads_as_a_page() {
    // Given a run
    let place = Place::with(24, 6);
    let real = place.good("run", 1, &["train.epochs=1"]);
    let before: Vec<_> = below(&real.dir)
        .into_iter()
        .map(|name| {
            (
                fs::symlink_metadata(&name).unwrap().modified().unwrap(),
                name,
            )
        })
        .collect();

    // When another is walked through in its place
    let walked = place.run("run", 1, &["--dry-run", "--probe-steps", "2", "--quiet"]);

    // Then that is said, and it lies as it lay
    assert_eq!(walked.code, Some(0), "{walked:#?}");
    assert!(
        walked
            .out
            .contains("a run is here already, which this dry run has not touched"),
        "{walked:#?}"
    );
    let after: Vec<_> = below(&real.dir)
        .into_iter()
        .map(|name| {
            (
                fs::symlink_metadata(&name).unwrap().modified().unwrap(),
                name,
            )
        })
        .collect();
    assert_eq!(after, before);
    for part in [
        "dry run: ",
        "the plan",
        "the probe: 2 steps after 2",
        "  bottleneck  ",
    ] {
        assert!(walked.out.contains(part), "{part}: {}", walked.out);
    }
    // One worker has nobody to wait for
    assert!(walked.out.contains("communication 0.0 %"), "{}", walked.out);
    assert!(!walked.out.contains("by itself"), "{}", walked.out);
}
