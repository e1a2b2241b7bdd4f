//! Real processes that die, hang and are told to end in the middle of a run, and what becomes of the others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use support::{Place, Run, Watched, coordinator, processes_with, signal};

/// Long enough to be disturbed, short enough to wait for: 36 samples, three steps an epoch.
const EPOCHS: &[&str] = &["train.epochs=12", "run.snapshot_every_epochs=4"];

/// A run whose workers keep a witness each.
fn start(place: &Place, name: &str, workers: usize, more: &[&str]) -> Watched {
    let witness = place.path(&format!("{name}-witness"));
    std::fs::create_dir_all(&witness).unwrap();
    let arguments: Vec<_> = EPOCHS.iter().chain(more).copied().collect();
    let mut command = place.command(name, workers, &arguments);
    command.env("HGAT_WITNESS", witness);
    Watched::start(command, place.path(name))
}

/// That a run which was disturbed is as good as one that was not: exactly once by its own ledger and by what every
/// worker wrote down for itself, its decisions can be replayed, and nothing is left of it.
fn as_if_nothing_had_happened(place: &Place, run: &Run) {
    assert_eq!(run.code, Some(0), "{run:#?}\n{}", run.logs());
    assert_eq!(run.summary()["ended"], "finished");
    let ledger = ledger(&run.dir);
    assert_eq!(ledger["holds"], true, "{ledger:#}");
    let owner = |step: u64| {
        let of = |generation: &&serde_json::Value| {
            let (first, last) = (
                generation["committed"]["first"].as_u64(),
                generation["committed"]["last"].as_u64(),
            );
            first.is_some_and(|first| first <= step) && last.is_some_and(|last| step <= last)
        };
        let generations = ledger["generations"].as_array().unwrap();
        generations.iter().find(of)?["number"].as_u64()
    };
    let name = run.dir.file_name().unwrap().to_string_lossy().into_owned();
    let mut trained: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut applied = BTreeSet::new();
    for file in std::fs::read_dir(place.path(&format!("{name}-witness"))).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let step = line["step"].as_u64().unwrap();
            if owner(step) != line["generation"].as_u64() {
                continue; // tried, and void or cut off
            }
            if let Some(samples) = line["samples"].as_array() {
                let samples = samples.iter().filter_map(serde_json::Value::as_u64);
                trained.entry(step / 3).or_default().extend(samples);
            } else {
                applied.insert(step);
            }
        }
    }
    assert_eq!(
        applied.into_iter().collect::<Vec<_>>(),
        (0..36).collect::<Vec<_>>()
    );
    for (epoch, mut samples) in trained {
        samples.sort_unstable();
        assert_eq!(samples, (0..36).collect::<Vec<_>>(), "epoch {epoch}");
    }
    let replayed = std::process::Command::new(coordinator())
        .arg("replay")
        .arg(run.dir.join("events.jsonl"))
        .output()
        .unwrap();
    assert!(replayed.status.success(), "{replayed:?}");
    let folder = run.dir.display().to_string();
    assert_eq!(processes_with(&folder), Vec::<String>::new());
}

fn ledger(run_dir: &Path) -> serde_json::Value {
    let output = std::process::Command::new(coordinator())
        .args(["ledger", "--json", "--run-dir"])
        .arg(run_dir)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn a_killed_worker_costs_a_step_and_is_replaced_while_the_others_go_on() {
    let place = Place::with(36, 10);
    let mut run = start(&place, "run", 3, &[]);
    for (after, victim) in [(4, "worker-1"), (14, "worker-0")] {
        run.wait_for_step(after);
        signal("-KILL", run.newest_pid(victim));
    }
    let run = run.end();

    as_if_nothing_had_happened(&place, &run);
    assert!(
        run.err
            .contains("worker-1 (rank 1) was killed by signal 9 (SIGKILL)"),
        "{}",
        run.err
    );
    let generations = ledger(&run.dir)["generations"].as_array().unwrap().len();
    assert!(generations >= 3, "{generations}");
}

#[test]
fn a_fixed_world_ends_with_the_same_bits_whoever_died_on_the_way() {
    let place = Place::with(36, 10);
    let fixed = &["train.world=fixed"];
    let undisturbed = start(&place, "undisturbed", 3, fixed).end();
    let mut run = start(&place, "disturbed", 3, fixed);
    for (after, victim) in [(4, "worker-2"), (9, "worker-0")] {
        run.wait_for_step(after);
        signal("-KILL", run.newest_pid(victim));
    }
    let run = run.end();

    as_if_nothing_had_happened(&place, &undisturbed);
    as_if_nothing_had_happened(&place, &run);
    assert!(run.err.contains("SIGKILL"), "{}", run.err);
    assert_eq!(run.hashes(), undisturbed.hashes());
}

#[test]
fn a_stopped_worker_is_named_and_replaced_within_its_timeout() {
    let place = Place::with(36, 10);
    let mut run = start(&place, "run", 3, &["fault.timeout=3"]);
    run.wait_for_step(4);
    signal("-STOP", run.newest_pid("worker-2"));
    let run = run.end();

    as_if_nothing_had_happened(&place, &run);
    assert!(
        run.err.contains(
            "worker-2 (rank 2) hangs: nothing was heard from it for 3 s; it was last seen"
        ),
        "{}",
        run.err
    );
}

#[test]
fn sigterm_drains_a_worker_at_a_step_boundary() {
    let place = Place::with(36, 10);
    let mut run = start(&place, "run", 3, &[]);
    run.wait_for_step(4);
    signal("-TERM", run.newest_pid("worker-1"));
    let run = run.end();

    as_if_nothing_had_happened(&place, &run);
    assert!(
        run.err
            .contains("worker-1 (rank 1) was told to end by a signal from outside"),
        "{}",
        run.err
    );
    let ledger = ledger(&run.dir);
    assert_eq!(ledger["void"], serde_json::json!([]), "{ledger:#}");
    assert_eq!(
        ledger["check"]["ranks_unreported"], 0,
        "no step was cut off"
    );
}

#[test]
fn sigterm_to_everything_at_once_leaves_a_checkpoint_to_go_on_from() {
    let place = Place::with(36, 10);
    let mut run = start(&place, "run", 3, &[]);
    run.wait_for_step(4);
    for worker in ["worker-0", "worker-1", "worker-2"] {
        signal("-TERM", run.newest_pid_on_disk(worker));
    }
    signal("-TERM", run.pid());
    let run = run.end();

    assert_eq!(run.code, Some(0), "{run:#?}\n{}", run.logs());
    assert!(run.last().exists());
    let resumed = place.run("run", 3, &["--resume"]);
    assert_eq!(resumed.code, Some(0), "{resumed:#?}");
    assert_eq!(ledger(&resumed.dir)["holds"], true);
}

#[test]
fn with_every_worker_killed_the_run_goes_on_from_its_last_checkpoint() {
    let place = Place::with(36, 10);
    let mut run = start(&place, "run", 2, &[]);
    run.wait_for_step(14);
    for worker in ["worker-0", "worker-1"] {
        signal("-KILL", run.newest_pid(worker));
    }
    let run = run.end();
    as_if_nothing_had_happened(&place, &run);
}

#[test]
fn a_killed_coordinator_costs_nothing_while_its_workers_train_on() {
    let place = Place::with(36, 10);
    // Given a run whose coordinator is killed and started again, twice, the second time together with a worker
    let mut run = start(&place, "run", 3, &[]);
    run.wait_for_step(4);
    signal("-KILL", run.pid());
    let killed = run.end();
    assert_eq!(killed.code, None);
    let mut run = again(&place, "run");
    run.wait_for_step(9);
    signal("-KILL", run.pid());
    signal("-KILL", run.newest_pid_on_disk("worker-1"));
    run.end();
    let run = again(&place, "run").end();

    as_if_nothing_had_happened(&place, &run);
    let ledger = ledger(&run.dir);
    let first = &ledger["generations"][0]["committed"];
    assert!(
        first["last"].as_u64() >= Some(3),
        "what was done stays done: {ledger:#}"
    );
}

/// The same run, resumed, with the same witness.
fn again(place: &Place, name: &str) -> Watched {
    let mut command = place.command(name, 3, &["--resume"]);
    command.env("HGAT_WITNESS", place.path(&format!("{name}-witness")));
    Watched::start(command, place.path(name))
}
