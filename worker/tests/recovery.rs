//! Real processes that die, hang and are told to end in the middle of a run, and what becomes of the others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use support::disturbed::{again, as_if_nothing_had_happened, ledger, start};
use support::{Place, signal};

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
