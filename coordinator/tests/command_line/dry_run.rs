//! `start --dry-run`.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::place::{Place, terminate};
use crate::support::{PATIENCE, TRAIN, VAL};

#[test]
fn a_dry_run_ends_as_a_start_would_and_makes_nothing() {
    // Given a data set
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let names = || -> Vec<_> {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let dry =
        |more: &[&str]| at.start(&[&["--data", "coco", "--dry-run", "--json"], more].concat());

    // When all is well
    let walked = dry(&[
        "--workers",
        "1",
        "--set",
        "run.snapshot_every_epochs=2",
        "--seeds",
        "3",
    ]);

    // Then one JSON object says what a run is, and of several seeds that they take as many times as long
    assert_eq!(walked.code, 0, "{walked:?}");
    let told: Value = serde_json::from_str(&walked.out).unwrap();
    assert_eq!(told["plan"]["steps"], 10);
    assert_eq!(told["plan"]["images"], 2 * TRAIN);
    assert_eq!(told["plan"]["checkpoints"], 1);
    assert_eq!(told["probe"]["rows"], VAL);
    assert_eq!(told["probe"]["alone"], Value::Null);
    let seconds = |what: &str| told["estimate"][what]["mean"].as_f64().unwrap();
    assert!((seconds("all_runs_seconds") - 3.0 * seconds("run_seconds")).abs() < 1e-9);
    assert_eq!(told["estimate"]["cost"], Value::Null);

    // When workers are someone else's, then nothing is measured, and that is said
    let external = dry(&[
        "--workers",
        "4",
        "--set",
        "run.launch=external",
        "--stop-after",
        "3",
    ]);
    assert_eq!(external.code, 0, "{external:?}");
    let told: Value = serde_json::from_str(&external.out).unwrap();
    assert_eq!(
        (&told["probe"], &told["estimate"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(told["plan"]["steps"], 3);
    assert!(told["checkpoint_bytes"].as_u64().unwrap() > 0);
    assert!(
        told["notes"][0]
            .as_str()
            .unwrap()
            .contains("nothing was measured"),
        "{told:#}"
    );

    // When something is wrong, then it ends as a start does
    let wrong = dry(&["--set", "train.epochs=none"]);
    assert_eq!(wrong.code, 64, "{wrong:?}");
    let nowhere = at.start(&["--data", "nowhere", "--dry-run"]);
    assert_eq!(nowhere.code, 64, "{nowhere:?}");
    fs::write(folder.path().join("coco/train2017/7.jpg"), "no picture").unwrap();
    let broken = dry(&["--workers", "1"]);
    assert_eq!((broken.code, broken.out.as_str()), (65, ""), "{broken:?}");
    assert!(
        broken.err.contains("coco/train2017/7.jpg"),
        "{}",
        broken.err
    );
    let resumed = at.start(&["--resume", "--dry-run"]);
    assert_eq!(resumed.code, 64, "{resumed:?}");

    // And nothing is left of any of them
    assert_eq!(names(), before);
}

#[test]
fn a_dry_run_that_is_stopped_leaves_nothing_either() {
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let mut running = at
        .command(&[
            "start",
            "--dry-run",
            "--worker-binary",
            "./worker",
            "--device",
            "cpu",
            "--data",
            "coco",
            "--workers",
            "1",
            "--set",
            "train.global_batch=6",
            "--set",
            "train.micro_batch=3",
        ])
        .env("HGAT_FAKE_AWAIT_STOP_AT", "2")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let hidden = |name: &str| name.starts_with(".coordinator-dry-run-");
    let probe = || {
        let entries = fs::read_dir(folder.path()).unwrap();
        entries
            .map(|entry| entry.unwrap())
            .find(|entry| hidden(&entry.file_name().to_string_lossy()))
    };
    // The worker waits at its third step for a stop
    let two_steps = || {
        let events = fs::read_to_string(probe()?.path().join("all/events.jsonl")).ok()?;
        events.contains("\"step\":1").then_some(())
    };
    let give_up = std::time::Instant::now() + PATIENCE;
    while two_steps().is_none() {
        assert!(
            std::time::Instant::now() < give_up,
            "the probe does not get to its second step"
        );
        assert!(running.try_wait().unwrap().is_none(), "the probe ended");
    }
    terminate(&running);

    let ended = running.wait_with_output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(75), "{err}");
    assert!(
        err.contains("SIGTERM") && err.contains("nothing is left of it"),
        "{err}"
    );
    assert!(probe().is_none());
}
