//! Evaluations that are disturbed: their figures are those of evaluations that were not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use serde_json::Value;
use support::disturbed::{
    again, all_holds, as_if_nothing_had_happened, lay, ledger, start, until, until_met,
    until_stopped,
};
use support::{Place, Run, signal};

/// Pictures to score: more than three ranks have done before a signal reaches one of them.
const VAL: usize = 150;

/// By step, what a run's evaluations found.
fn maps(run: &Run) -> Vec<(u64, f64)> {
    let summary = run.summary();
    let evaluations = summary["evaluations"].as_array().unwrap().iter();
    let found = |known: &Value| Some((known["step"].as_u64()?, known["map"].as_f64()?));
    evaluations.map(|known| found(known).unwrap()).collect()
}

/// The scores that were in when the first event of this kind was recorded, of an evaluation that had begun.
fn scored_before(run: &Run, kind: &str) -> u64 {
    let events = std::fs::read_to_string(run.dir.join("events.jsonl")).unwrap();
    let events = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let before = events.take_while(|event| event["event"] != kind);
    let scored = before.filter(|event| event["event"] == "scored").last();
    scored.map_or(0, |event| event["scored"].as_u64().unwrap())
}

#[test]
fn whoever_dies_in_an_evaluation_its_figures_are_those_of_an_undisturbed_run() {
    let place = Place::with(36, VAL);
    let settings = &["train.epochs=3", "train.world=fixed"];
    let undisturbed = start(&place, "undisturbed", 3, settings).end();

    // Given a run in which a worker is killed while it scores, then the coordinator when scores have come in, and the next
    // one when it has computed the figures but not kept them, and its workers have trained on
    let worker = lay(&place, "run", "worker-1", "scoring", "kill");
    let mut run = start(&place, "run", 3, settings);
    until_met(&worker);
    for point in ["scored", "evaluated"] {
        until_met(&lay(&place, "run", "coordinator", point, "kill"));
        assert_eq!(run.end().code, None);
        run = again(&place, "run");
    }
    let run = run.end();

    // Then all is as if that had not been
    as_if_nothing_had_happened(&place, &undisturbed);
    as_if_nothing_had_happened(&place, &run);
    let found = maps(&run);
    assert_eq!(found.len(), 3, "{found:?} {run:#?}");
    assert_eq!(found, maps(&undisturbed));
    assert_eq!(run.hashes(), undisturbed.hashes());
}

/// Waits until some worker has applied this step (from 0), by what workers write down for themselves.
fn until_applied(place: &Place, name: &str, step: u64) {
    let (folder, line) = (
        place.path(&format!("{name}-witness")),
        format!("\"step\":{step},"),
    );
    until(&format!("step {step} is applied"), || {
        let files = std::fs::read_dir(&folder).unwrap();
        files.into_iter().any(|file| {
            let noted = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let mut lines = noted.lines();
            lines.any(|noted| noted.contains(&line) && noted.contains("\"applied\""))
        })
    });
}

/// Starts a run whose coordinator is killed as the first scores come in; returns worker-1's process.
fn left_alone(place: &Place, settings: &[&str]) -> u32 {
    let met = lay(place, "run", "coordinator", "scored", "kill");
    let run = start(place, "run", 3, settings);
    until_met(&met);
    let pid = run.newest_pid_on_disk("worker-1");
    assert_eq!(run.end().code, None);
    pid
}

#[test]
fn without_a_coordinator_workers_score_and_train_on_and_the_next_one_has_all_figures() {
    let place = Place::with(36, 30);
    let settings = &["train.epochs=12", "train.world=fixed"];
    let undisturbed = start(&place, "undisturbed", 3, settings).end();

    let pid = left_alone(&place, settings);
    // When its workers have gone on beyond two evaluations, and one of them dies with what it has scored
    until_applied(&place, "run", 6);
    signal("-KILL", pid);
    let run = again(&place, "run").end();

    // Then
    as_if_nothing_had_happened(&place, &run);
    let second = &ledger(&run.dir)["generations"][1]["begins_at_step"];
    assert!(second.as_u64() >= Some(7), "{:#}", ledger(&run.dir));
    assert_eq!(maps(&run).len(), 12, "{run:#?}");
    assert_eq!(maps(&run), maps(&undisturbed));
    assert_eq!(run.hashes(), undisturbed.hashes());
}

#[test]
fn workers_that_end_their_plan_without_a_coordinator_wait_for_one_with_every_score() {
    let place = Place::with(36, 30);
    let settings = &["train.epochs=4", "train.world=fixed"];
    let undisturbed = start(&place, "undisturbed", 3, settings).end();

    left_alone(&place, settings);
    until_applied(&place, "run", 11);
    let run = again(&place, "run").end();

    as_if_nothing_had_happened(&place, &run);
    assert_eq!(maps(&run).len(), 4, "{run:#?}");
    assert_eq!(maps(&run), maps(&undisturbed));
    assert_eq!(run.hashes(), undisturbed.hashes());
}

#[test]
fn a_worker_told_to_end_in_an_evaluation_goes_before_its_end_and_the_others_score_the_rest() {
    let place = Place::with(36, VAL);
    let settings = &["train.epochs=2"];
    let undisturbed = start(&place, "undisturbed", 3, settings).end();

    let met = lay(&place, "run", "worker-1", "scoring", "stop");
    let run = start(&place, "run", 3, settings);
    until_met(&met);
    let pid = run.newest_pid("worker-1");
    until_stopped(pid);
    signal("-TERM", pid);
    signal("-CONT", pid);
    let run = run.end();

    as_if_nothing_had_happened(&place, &run);
    let told = "worker-1 (rank 1) was told to end by a signal from outside after 3 steps";
    assert!(run.err.contains(told), "{}", run.err);
    let scored = scored_before(&run, "leaving");
    assert!(scored < VAL as u64, "{scored}");
    // The state was the same; in an elastic world what comes later may differ by rounding.
    assert_eq!(maps(&run)[0], maps(&undisturbed)[0]);
}

#[test]
fn a_stop_in_the_last_evaluation_is_followed_at_once_and_a_resume_scores_the_rest() {
    let place = Place::with(36, VAL);
    let settings = &["train.epochs=1", "run.snapshot_every_epochs=1"];
    let undisturbed = start(&place, "undisturbed", 3, settings).end();

    let met = lay(&place, "run", "worker-1", "scoring", "stop");
    let mut run = start(&place, "run", 3, settings);
    until_met(&met);
    let pid = run.newest_pid("worker-1");
    until_stopped(pid);
    signal("-TERM", run.pid());
    run.wait_until(|status| status["phase"] == "stopping");
    signal("-CONT", pid);
    let stopped = run.end();

    all_holds(&place, &stopped);
    assert_eq!(stopped.summary()["ended"], "stopped", "{stopped:#?}");
    assert_eq!(maps(&stopped), []);
    let scored = scored_before(&stopped, "leaving");
    assert!(scored < VAL as u64, "{scored}");
    let run = again(&place, "run").end();
    as_if_nothing_had_happened(&place, &run);
    assert_eq!(maps(&run), maps(&undisturbed), "{run:#?}");
    assert_eq!(maps(&run).len(), 1);
}

#[test]
fn all_workers_told_to_end_in_an_evaluation_leave_at_once_with_a_checkpoint() {
    let place = Place::with(36, VAL);
    let met = lay(&place, "run", "worker-1", "scoring", "stop");
    let mut run = start(&place, "run", 3, &["train.epochs=2"]);
    until_met(&met);
    let pids = ["worker-0", "worker-1", "worker-2"].map(|name| run.newest_pid(name));
    until_stopped(pids[1]);
    for pid in pids {
        signal("-TERM", pid);
    }
    run.wait_until(|status| {
        let workers = status["workers"].as_array().unwrap();
        let draining = workers
            .iter()
            .filter(|worker| worker["activity"] == "draining");
        draining.count() == 2
    });
    signal("-CONT", pids[1]);
    let run = run.end();

    // Nobody is asked from one generation to the next for it. If one had not heard yet when the others agreed, the run went
    // on with it and with others in their place.
    all_holds(&place, &run);
    let generations = ledger(&run.dir)["generations"].as_array().unwrap().len();
    assert!(generations <= 4, "{generations}");
    let summary = run.summary();
    if summary["ended"] == "stopped" {
        let reason =
            "stopped after 3 of 6 steps (every worker was told to end): resume with --resume";
        assert_eq!(summary["reason"], reason);
        let last = run.last().canonicalize().unwrap();
        assert!(last.ends_with("step-00000003"), "{}", last.display());
        assert_eq!(generations, 1);
    } else {
        println!("one of them had not heard yet");
    }
}
