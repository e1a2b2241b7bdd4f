//! Ends that are not the plan's: a signal, bad pictures. What a run does about workers it loses is in `recovery.rs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::Child;

use support::{Place, Run, signal};

/// Reads a run's output until a line holds `text`.
fn wait_for(child: &mut Child, text: &str) -> String {
    let mut seen = String::new();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap());
    loop {
        let mut line = String::new();
        assert_ne!(
            lines.read_line(&mut line).unwrap(),
            0,
            "the output ended before {text:?}:\n{seen}"
        );
        seen.push_str(&line);
        if line.contains(text) {
            return seen;
        }
    }
}

/// A run long enough to be interrupted.
const LONG: &[&str] = &["train.epochs=200"];

#[test]
fn sigterm_to_the_coordinator_checkpoints_and_the_run_can_be_resumed() {
    let place = Place::with(36, 10);
    let mut child = place.start("run", 2, LONG);
    wait_for(&mut child, "/200 mAP");

    signal("-TERM", child.id());
    let run = Run::new(place.path("run"), &child.wait_with_output().unwrap());

    assert_eq!(run.code, Some(0), "{run:#?}");
    let steps = run.summary()["steps"].as_u64().unwrap();
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.last().join("state.json")).unwrap()).unwrap();
    assert_eq!(state["step"].as_u64().unwrap(), steps);
    let resumed = place.good(
        "run",
        2,
        &["--resume", "--stop-after", &(steps + 1).to_string()],
    );
    assert_eq!(resumed.summary()["steps"].as_u64().unwrap(), steps + 1);
}

#[test]
fn numbers_that_are_none_end_the_run_with_all_samples_of_the_step() {
    let place = Place::with(36, 10);
    let run = place.run("run", 2, &["train.learning_rate_head=1e38"]);

    assert_eq!(run.code, Some(65), "{run:#?}");
    let (_, samples) = run.err.split_once("; its samples: [").unwrap();
    let (samples, _) = samples.split_once(']').unwrap();
    assert_eq!(samples.split(", ").count(), 12, "{}", run.err);
    // Numbers too large to be read are not written out, and what is advised can be done.
    let longest = run.err.split(|c: char| !c.is_ascii_digit()).map(str::len);
    assert!(longest.max().unwrap() < 20, "{}", run.err);
    let advice = "--resume --set train.on_not_finite=skip";
    assert!(run.err.contains(advice), "{}", run.err);
    let followed = place.run("run", 2, &["--resume", "train.on_not_finite=skip"]);
    assert_ne!(followed.code, Some(64), "{followed:#?}");
    assert!(followed.err.contains("was passed over"), "{}", followed.err);
}

#[test]
fn a_model_that_has_diverged_by_its_evaluation_ends_the_run_saying_so() {
    let place = Place::with(36, 10);
    // The only step of an epoch has good gradients and leaves bad weights.
    let settings = ["train.learning_rate_head=1e38", "train.global_batch=36"];
    let run = place.run("run", 2, &settings);

    assert_eq!(run.code, Some(65), "{run:#?}");
    assert!(run.err.contains("the model has diverged"), "{}", run.err);
}

#[test]
fn an_unreadable_picture_ends_the_run_by_name_or_is_skipped_and_listed() {
    let place = Place::with(36, 10);
    // Given a picture whose header and end are fine and whose middle is not
    let path = place.data().join("train2017/000000000005.jpg");
    let mut bytes = std::fs::read(&path).unwrap();
    let (middle, end) = (bytes.len() / 2, bytes.len() - 2);
    bytes[middle..end].fill(0);
    std::fs::write(&path, bytes).unwrap();

    let refused = place.run("refused", 2, &[]);
    let skipped = place.good("skipped", 2, &["data.on_bad_image=skip"]);

    assert_eq!(refused.code, Some(65), "{refused:#?}");
    assert!(refused.err.contains("000000000005.jpg"), "{}", refused.err);
    assert_eq!(skipped.summary()["ended"], "finished");
    // Then it is listed once an epoch, with what is wrong, and counted at the end
    let events = std::fs::read_to_string(skipped.dir.join("events.jsonl")).unwrap();
    let listed = events
        .lines()
        .filter(|line| line.contains("sample_skipped") && line.contains("000000000005.jpg"))
        .count();
    assert_eq!(listed, 2, "{events}");
    assert!(skipped.err.contains("000000000005.jpg"), "{}", skipped.err);
}
