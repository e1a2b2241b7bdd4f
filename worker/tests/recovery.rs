//! Real processes that die, hang and are told to end in the middle of a run, and what becomes of the others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use support::disturbed::{again, all_holds, as_if_nothing_had_happened, ledger, start, start_with};
use support::{Place, signal, worker};

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

#[test]
fn a_run_over_its_budget_of_hangs_is_stopped_saying_who_hung_and_where_and_goes_on_when_resumed() {
    let place = Place::with(36, 10);
    let mut run = start(&place, "run", 3, &["fault.timeout=2", "fault.hangs=0"]);
    run.wait_for_step(4);
    signal("-STOP", run.newest_pid("worker-1"));
    let run = run.end();

    assert_eq!(run.code, Some(75), "{run:#?}\n{}", run.logs());
    let hung = "worker-1 (rank 1) hangs: nothing was heard from it for 2 s; it was last seen";
    for part in [
        &format!("warning: {hung}"),
        "error: stopped: fault.hangs allows none of this kind: look for the cause, then resume with --resume; the state after",
    ] {
        assert!(run.err.contains(part), "{part}: {}", run.err);
    }
    assert!(!run.err.contains("SIGKILL"), "{}", run.err);
    let told = run.err.matches(hung).count() + run.out.matches(hung).count();
    assert_eq!(told, 1, "{}\n{}", run.out, run.err);
    let summary = run.summary();
    let reason = summary["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with(hung), "{reason}");
    assert_eq!(run.summary()["ended"], "stopped");
    let resumed = place.run("run", 3, &["--resume"]);
    assert_eq!(resumed.code, Some(0), "{resumed:#?}");
    assert_eq!(ledger(&resumed.dir)["holds"], true);
}

#[test]
fn what_a_killed_coordinator_saw_of_its_budgets_counts_for_the_next_one_and_an_end_in_order_fills_them()
 {
    let place = Place::with(36, 10);
    let settings = ["fault.crashes=1", "train.epochs=200"];
    let mut run = start(&place, "run", 3, &settings);
    run.wait_for_step(4);
    signal("-KILL", run.newest_pid("worker-1"));
    run.wait_until(|status| {
        status["generation"].as_u64() >= Some(2) && status["step"].as_u64() >= Some(6)
    });
    signal("-KILL", run.pid());
    run.end();

    // When another worker is lost under the next coordinator
    let mut run = again(&place, "run");
    run.wait_until(|status| status["phase"] == "training");
    signal("-KILL", run.newest_pid("worker-0"));
    let run = run.end();

    // Then it is one too many
    assert_eq!(run.code, Some(75), "{run:#?}\n{}", run.logs());
    assert!(
        run.err
            .contains("fault.crashes allows 1 of this kind an hour and it is used up"),
        "{}",
        run.err
    );

    // And a person who resumes after that has looked for the cause
    let mut run = again(&place, "run");
    run.wait_until(|status| status["phase"] == "training");
    signal("-KILL", run.newest_pid("worker-0"));
    let generation = run.wait_until(|_| true)["generation"].as_u64();
    run.wait_until(|status| {
        status["generation"].as_u64() > generation && status["phase"] == "training"
    });
    signal("-TERM", run.pid());
    all_holds(&place, &run.end());
}

/// Workers of which `worker-2` begins only once the file `go` is there. It is no stopped process: the system ends those with
/// their parent.
fn late(place: &Place) -> PathBuf {
    let (script, go) = (place.path("late-worker"), place.path("go"));
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *worker-2*) while [ ! -e '{}' ]; do sleep 0.05; done ;; esac\nexec '{}' \"$@\"\n",
        go.display(),
        worker().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// The processes of all three workers, as the run directory has them.
fn pids(place: &Place) -> Vec<u32> {
    let text = std::fs::read(place.path("run/workers.json")).unwrap();
    let workers: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let pid = |name| u32::try_from(workers[name]["pid"].as_u64().unwrap()).unwrap();
    ["worker-0", "worker-1", "worker-2"].map(pid).to_vec()
}

#[test]
fn workers_of_a_coordinator_that_was_killed_before_its_first_generation_are_taken_over() {
    for third_lives in [true, false] {
        // Given two workers that have joined and one that has not yet
        let place = Place::with(36, 10);
        let mut run = start_with(&late(&place), &place, "run", 3, &[]);
        run.wait_until(|status| status["workers_joined"] == 2);
        let before = pids(&place);

        // When the coordinator is killed and another one takes its place
        signal("-KILL", run.pid());
        assert_eq!(run.end().code, None);
        if !third_lives {
            signal("-KILL", before[2]);
        }
        let mut run = again(&place, "run");
        std::fs::write(place.path("go"), "").unwrap();

        // Then no worker that lives is started a second time
        run.wait_for_step(1);
        let after = pids(&place);
        assert_eq!(after[..2], before[..2]);
        assert_eq!(after[2] == before[2], third_lives);
        let run = run.end();
        as_if_nothing_had_happened(&place, &run);
        let resuming = "resuming    with the workers that live";
        assert!(run.out.contains(resuming), "{}", run.out);
    }
}

#[test]
fn a_coordinator_may_be_killed_at_every_point_before_its_first_step_and_costs_no_worker() {
    for point in ["welcoming", "generation-durable", "announcing"] {
        let place = Place::with(36, 10);
        let faults = place.path("run-faults");
        std::fs::create_dir_all(&faults).unwrap();
        std::fs::write(faults.join(format!("coordinator.{point}")), "kill").unwrap();
        assert_eq!(start(&place, "run", 3, &[]).end().code, None, "{point}");
        let before = pids(&place);

        let mut run = again(&place, "run");
        run.wait_for_step(1);
        assert_eq!(pids(&place), before, "{point}");
        as_if_nothing_had_happened(&place, &run.end());
    }
}
