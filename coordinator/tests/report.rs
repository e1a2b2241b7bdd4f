//! `coordinator report` of a run whose coordinator was killed, read back by the real TensorBoard and by numpy. Runs the
//! Python that `HGAT_PYTHON` names (else `python3`).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests, where all are fine"
)]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use coordinator::store::{Resume, Store};
use domain::ledger::Ledger;
use domain::run_plan::RunShape;
use domain::shares::Shares;
use proto::v1::StepPoint;
use serde_json::Value;

/// A board that is open while the report is made again shows what one that is opened afterwards shows.
const SCRIPT: &str = r#"
import json, subprocess, sys
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
run_dir, *report = sys.argv[1:]

def scalars(board):
    board.Reload()
    return {tag: [[e.step, e.value] for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}

open_board = EventAccumulator(run_dir + "/tb")
before = scalars(open_board)
subprocess.run(report, check=True, stdout=subprocess.DEVNULL)
rows = np.genfromtxt(run_dir + "/history.csv", delimiter=",", names=True)
json.dump({"before": before, "after": scalars(open_board), "fresh": scalars(EventAccumulator(run_dir + "/tb")),
           "step": rows["step"].tolist(), "loss": rows["loss"].tolist()}, sys.stdout)
"#;

#[tokio::test]
async fn tensorboard_shows_each_step_of_a_killed_run_once_as_it_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    killed_run(folder.path()).await;

    let made = report(folder.path());
    assert!(made.status.success(), "{made:?}");
    let page = folder.path().join("report.html");
    let said = String::from_utf8_lossy(&made.stdout);
    assert_eq!(Path::new(said.trim()), page.canonicalize().unwrap());
    let page = std::fs::read_to_string(page).unwrap();
    assert!(
        page.contains("cut off"),
        "a killed run is not taken for one that ended"
    );

    let Some(read) = read_back(folder.path()) else {
        return;
    };
    let expected: Vec<(i64, f64)> = (0..12).map(|step| (step, loss(step, step >= 6))).collect();
    for when in ["before", "after", "fresh"] {
        let curve = read[when]["train/loss"].as_array().unwrap();
        let curve: Vec<_> = curve
            .iter()
            .map(|point| (point[0].as_i64().unwrap(), point[1].as_f64().unwrap()))
            .collect();
        assert_eq!(curve.len(), expected.len(), "{when}: {curve:?}");
        for (found, wanted) in curve.iter().zip(&expected) {
            assert_eq!(found.0, wanted.0, "{when}");
            assert!(
                (found.1 - wanted.1).abs() < 1e-6,
                "{when}: {found:?} {wanted:?}"
            );
        }
        for tag in [
            "train/learning_rate_trunk",
            "train/learning_rate_head",
            "train/gradient_norm",
            "train/data_wait_fraction",
        ] {
            assert_eq!(
                read[when][tag].as_array().map(Vec::len),
                Some(12),
                "{when}: {tag}"
            );
        }
    }
    let steps: Vec<f64> = read["step"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    assert_eq!(steps, (0..12).map(f64::from).collect::<Vec<_>>());
    assert_eq!(read["loss"][11].as_f64(), Some(loss(11, true)));
}

#[test]
fn a_folder_without_a_run_has_no_report() {
    let folder = tempfile::tempdir().unwrap();
    let refused = report(folder.path());
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("run.redb cannot be read"), "{said}");
    assert!(!folder.path().join("report.html").exists());
}

/// Steps that were done again had another loss the first time.
fn loss(step: i64, again: bool) -> f64 {
    let first = 1.0 / (step + 1) as f64;
    if again { first + 5.0 } else { first }
}

/// Ten steps of a generation, the last four of which are void, and six of the next.
async fn killed_run(run_dir: &Path) {
    let shape = RunShape {
        samples: 40,
        global_batch: 4,
        ..support::shape()
    };
    let (store, _) = Store::open(&run_dir.join("run.redb"), "abc", Resume::At(0)).unwrap();
    store.shape(shape);
    let mut ledger = Ledger::new();
    for (number, begins, ends) in [(1, 0, 10), (2, 6, 12)] {
        let members = vec!["worker-0".to_owned()];
        ledger
            .begin_generation(number, begins, members, Shares::even(1))
            .unwrap();
        store.void_from(begins);
        store.begin_generation(number, &ledger).await.unwrap();
        for step in begins..ends {
            ledger.commit_through(number, step).unwrap();
            store.step(StepPoint {
                step,
                loss: loss(i64::try_from(step).unwrap(), number == 2),
                learning_rate_head: 0.1,
                images_per_second: 50.0,
                learning_rate_trunk: 0.01,
                gradient_norm: 3.0,
                data_wait_fraction: 0.0,
                samples: 4,
                unix_millis: 1_700_000_000_000 + 1000 * step,
            });
        }
        store.ledger(&ledger);
    }
    store.flush().await.unwrap();
}

fn report(run_dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    command.args(["report", "--run-dir"]).arg(run_dir);
    command.output().unwrap()
}

fn read_back(run_dir: &Path) -> Option<Value> {
    let named = std::env::var_os("HGAT_PYTHON");
    let python = named.clone().unwrap_or_else(|| "python3".into());
    let there = Command::new(&python)
        .args(["-c", "import tensorboard, numpy"])
        .output();
    if !there.is_ok_and(|output| output.status.success()) {
        assert!(
            named.is_none(),
            "HGAT_PYTHON is set to {python:?}, which has no tensorboard"
        );
        println!("skipped: {python:?} has no tensorboard; name one that has by HGAT_PYTHON");
        return None;
    }
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .arg(run_dir)
        .args([env!("CARGO_BIN_EXE_coordinator"), "report", "--run-dir"])
        .arg(run_dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}
