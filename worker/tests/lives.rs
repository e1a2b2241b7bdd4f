//! Ends that are not the plan's: a killed worker, a signal, bad pictures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};

use support::{Place, Run, processes_with};

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

fn signal(name: &str, pid: &str) {
    assert!(
        Command::new("kill")
            .args([name, pid])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_killed_worker_ends_the_run_by_name_and_leaves_nobody_behind() {
    let place = Place::with(36, 10);
    let mut child = place.start("run", 3, LONG);
    wait_for(&mut child, "/200 mAP");
    let address = std::fs::read_to_string(place.path("run/coordinator.json")).unwrap();
    assert!(address.contains("http://127.0.0.1:"));

    // When worker-1 is killed
    let victim = worker_pid(&place, "worker-1");
    signal("-KILL", &victim);
    let run = Run::new(place.path("run"), &child.wait_with_output().unwrap());

    // Then the run says so, can be tried again, and no process of it is left
    assert_eq!(run.code, Some(75), "{run:#?}");
    assert!(
        run.err.contains("worker-1") && run.err.contains("SIGKILL"),
        "{}",
        run.err
    );
    let folder = place.path("run").display().to_string();
    assert_eq!(processes_with(&folder), Vec::<String>::new());
}

#[test]
fn sigterm_to_the_coordinator_checkpoints_and_the_run_can_be_resumed() {
    let place = Place::with(36, 10);
    let mut child = place.start("run", 2, LONG);
    wait_for(&mut child, "/200 mAP");

    signal("-TERM", &child.id().to_string());
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

fn worker_pid(place: &Place, name: &str) -> String {
    let events = std::fs::read_to_string(place.path("run/events.jsonl")).unwrap();
    let launched = events
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .find(|event| event["event"] == "launched" && event["worker"] == name)
        .unwrap_or_else(|| panic!("{name} was not launched: {events}"));
    launched["pid"].to_string()
}
