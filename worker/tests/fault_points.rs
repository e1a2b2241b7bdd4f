//! Deaths and stops at every named point of the protocol, one after the other in a run that must take them all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::disturbed::{again, all_holds, lay, start, until_met};
use support::{Place, Watched, processes_with, reaches, signal};

/// Points that a worker comes by at the latest with the next epoch.
const ON_ITS_WAY: &[(&str, &str)] = &[
    ("worker-1", "step-begun"),
    ("worker-1", "added-up"),
    ("worker-2", "reduced"),
    ("worker-1", "committed"),
    ("worker-2", "reported"),
    ("worker-1", "scoring"),
    ("worker-0", "scoring"),
    ("worker-0", "snapshot"),
    ("worker-0", "uploading"),
];
/// Points that it comes by only when a generation begins: another worker is killed to have one.
const WITH_ANOTHERS_DEATH: &[(&str, &str)] = &[
    ("worker-1", "standing-by"),
    ("worker-1", "announced"),
    ("worker-1", "group-formed"),
    ("worker-0", "levelling"),
    ("worker-1", "levelled"),
    ("worker-0", "state-compared"),
    ("worker-1", "state-in-place"),
];
const COORDINATORS: &[&str] = &[
    "committed",
    "scored",
    "evaluated",
    "checkpoint-written",
    "checkpoint-in-place",
    "checkpoint-answered",
];
/// The same, of which some worker's death makes sure that they are come by.
const COORDINATORS_IN_RECOVERY: &[&str] = &[
    "regroup-told",
    "generation-durable",
    "announcing",
    "started",
];

const SETTINGS: &[&str] = &[
    "train.epochs=10000",
    "run.snapshot_every_epochs=1",
    "fault.timeout=2",
    "fault.crashes=10000",
    "fault.hangs=10000",
];

/// A run with faults to come, and where they are laid.
struct Faulty {
    place: Place,
    run: Option<Watched>,
}

impl Faulty {
    fn new() -> Self {
        Self::with(SETTINGS)
    }

    fn with(settings: &[&str]) -> Self {
        let place = Place::with(36, 10);
        let run = Some(start(&place, "run", 3, settings));
        Self { place, run }
    }

    fn run(&mut self) -> &mut Watched {
        self.run.as_mut().unwrap()
    }

    /// Waits until three ranks have trained two steps together.
    fn whole_again(&mut self) {
        let whole = |status: &serde_json::Value| {
            let workers = status["workers"].as_array().unwrap();
            let ranks = workers.iter().filter(|worker| worker["rank"].is_u64());
            status["phase"] == "training" && ranks.count() == 3
        };
        let status = self.run().wait_until(whole);
        let step = status["step"].as_u64().unwrap() + 2;
        self.run()
            .wait_until(|status| whole(status) && status["step"].as_u64() >= Some(step));
    }

    /// The processes of its workers.
    fn workers(&mut self) -> [u32; 3] {
        ["worker-0", "worker-1", "worker-2"].map(|name| self.run().newest_pid(name))
    }

    /// Lays a fault; returns the file by which it is known that someone met it.
    fn lay(&self, who: &str, point: &str, action: &str) -> PathBuf {
        lay(&self.place, "run", who, point, action)
    }

    /// Stops the run and checks it.
    fn end(mut self) {
        self.whole_again();
        signal("-TERM", self.run().pid());
        let run = self.run.take().unwrap().end();
        all_holds(&self.place, &run);
    }
}

#[test]
fn a_worker_may_be_killed_at_every_point() {
    let mut faulty = Faulty::new();
    for (who, point) in ON_ITS_WAY {
        faulty.whole_again();
        until_met(&faulty.lay(who, point, "kill"));
    }
    for (who, point) in WITH_ANOTHERS_DEATH {
        faulty.whole_again();
        let met = faulty.lay(who, point, "kill");
        signal("-KILL", faulty.run().newest_pid("worker-2"));
        until_met(&met);
    }
    // The one that comes in its place is met as soon as it is let in.
    faulty.whole_again();
    let met = faulty.lay("worker-2", "welcomed", "kill");
    signal("-KILL", faulty.run().newest_pid("worker-2"));
    until_met(&met);
    faulty.end();
}

#[test]
fn a_worker_may_be_stopped_in_a_step_in_evaluation_in_a_checkpoint_and_in_levelling() {
    let mut faulty = Faulty::new();
    for (who, point) in [
        ("worker-1", "reduced"),
        ("worker-1", "scoring"),
        ("worker-0", "uploading"),
    ] {
        faulty.whole_again();
        until_met(&faulty.lay(who, point, "stop"));
    }
    faulty.whole_again();
    let met = faulty.lay("worker-1", "levelling", "stop");
    signal("-KILL", faulty.run().newest_pid("worker-2"));
    until_met(&met);
    faulty.end();
}

#[test]
fn the_coordinator_may_be_killed_at_every_point() {
    let mut faulty = Faulty::new();
    let all = COORDINATORS.iter().map(|point| (point, false));
    let all = all.chain(COORDINATORS_IN_RECOVERY.iter().map(|point| (point, true)));
    for (point, in_recovery) in all {
        faulty.whole_again();
        let met = faulty.lay("coordinator", point, "kill");
        if in_recovery {
            signal("-KILL", faulty.run().newest_pid("worker-1"));
        }
        until_met(&met);
        let killed = faulty.run.take().unwrap().end();
        assert_eq!(killed.code, None, "{point}: {killed:#?}");
        faulty.run = Some(again(&faulty.place, "run"));
        faulty.whole_again();
        let folder = faulty.place.path("run").display().to_string();
        let mut processes = processes_with(&folder);
        processes.retain(|line| line.contains(" join "));
        assert_eq!(processes.len(), 3, "{point}: {processes:#?}");
        for (number, pid) in faulty.workers().into_iter().enumerate() {
            let recorded = faulty.run().newest_pid_on_disk(&format!("worker-{number}"));
            assert_eq!(
                pid, recorded,
                "{point}: the process that takes part is the one on record"
            );
        }
    }
    faulty.end();
}

#[test]
fn the_coordinator_may_be_stopped_for_a_while() {
    let mut faulty = Faulty::new();
    for point in ["committed", "checkpoint-written"] {
        faulty.whole_again();
        let before = faulty.workers();
        let met = faulty.lay("coordinator", point, "stop");
        until_met(&met);
        // Longer than a worker's silence would be allowed to be: it is the coordinator that did not listen.
        std::thread::sleep(Duration::from_millis(4500));
        signal("-CONT", faulty.run().pid());
        faulty.whole_again();
        assert_eq!(faulty.workers(), before, "{point}: nobody was ended for it");
    }
    faulty.end();
}

/// Of a run in which nothing but a stop takes a checkpoint.
const WITHOUT_CHECKPOINTS: &[&str] = &[
    "train.epochs=10000",
    "run.snapshot_every_epochs=10000",
    "run.evaluate_every_epochs=10000",
    "fault.timeout=3",
];

/// That the run was stopped, with a checkpoint of its last step in place.
fn stopped_whole(faulty: Faulty, what: &str) {
    let Faulty { place, run, .. } = faulty;
    let run = run.unwrap().end();
    assert_eq!(run.code, Some(0), "{what}: {run:#?}\n{}", run.logs());
    let last = run.last().canonicalize().unwrap();
    let step = support::disturbed::ledger(&run.dir)["steps_done"].clone();
    let expected = format!("step-{:08}", step.as_u64().unwrap());
    assert!(last.ends_with(&expected), "{what}: {}", last.display());
    all_holds(&place, &run);
}

#[test]
fn a_stop_ends_with_its_checkpoint_though_a_rank_hangs_on_the_way_out() {
    for (who, point) in [("worker-0", "uploading"), ("worker-1", "leaving")] {
        let mut faulty = Faulty::with(WITHOUT_CHECKPOINTS);
        faulty.whole_again();
        let met = faulty.lay(who, point, "stop");
        signal("-TERM", faulty.run().pid());
        until_met(&met);
        stopped_whole(faulty, &format!("{who} at {point}"));
    }
}

#[test]
fn a_stop_ends_with_its_checkpoint_though_a_rank_hangs_with_the_last_sums_in_its_hands() {
    let mut faulty = Faulty::with(WITHOUT_CHECKPOINTS);
    faulty.whole_again();
    // A step that all have begun, and that does not end, before the stop is known; then the one in which they agree on it.
    until_met(&faulty.lay("worker-2", "step-begun", "stop"));
    faulty.run().wait_until(|status| {
        let step = format!("in all-reduce of gradients after {} steps", status["step"]);
        let workers = status["workers"].as_array().unwrap().iter();
        workers
            .filter(|worker| worker["collective"] == step.as_str())
            .count()
            == 2
    });
    signal("-TERM", faulty.run().pid());
    faulty
        .run()
        .wait_until(|status| status["phase"] == "stopping");
    let agreed = faulty.lay("worker-2", "step-begun", "stop");
    signal("-CONT", faulty.run().newest_pid("worker-2"));
    until_met(&agreed);
    let met = faulty.lay("worker-1", "reduced", "stop");
    signal("-CONT", faulty.run().newest_pid("worker-2"));
    until_met(&met);
    stopped_whole(faulty, "worker-1 at reduced");
}

/// SIGTERM to every process of a run.
fn all_are_told_to_end(faulty: &mut Faulty) {
    let pids = ["worker-0", "worker-1", "worker-2"].map(|name| faulty.run().newest_pid(name));
    for pid in pids {
        // One may be dead.
        reaches("-TERM", pid);
    }
    signal("-TERM", faulty.run().pid());
}

#[test]
fn all_are_told_to_end_while_one_is_dead_or_hangs_and_the_others_hand_over_what_they_hold() {
    for (signalled, world) in [
        ("-KILL", "elastic"),
        ("-STOP", "elastic"),
        ("-KILL", "fixed"),
    ] {
        let world = format!("train.world={world}");
        let settings = [WITHOUT_CHECKPOINTS, &[world.as_str()]].concat();
        let mut faulty = Faulty::with(&settings);
        faulty.whole_again();
        let pid = faulty.run().newest_pid("worker-1");
        signal(signalled, pid);
        if settings.contains(&"train.world=fixed") {
            // The others stand by for its replacement.
            faulty
                .run()
                .wait_until(|status| status["phase"] == "regrouping");
        }
        let began = Instant::now();
        all_are_told_to_end(&mut faulty);
        stopped_whole(faulty, &format!("{signalled} and SIGTERM, {world}"));
        println!("{signalled} and SIGTERM, {world}: {:.1?}", began.elapsed());
    }
}

#[test]
fn survivors_that_are_told_to_end_go_only_when_others_have_what_they_hold() {
    let mut faulty = Faulty::with(WITHOUT_CHECKPOINTS);
    faulty.whole_again();
    signal("-KILL", faulty.run().newest_pid("worker-1"));
    for name in ["worker-0", "worker-2"] {
        let pid = faulty.run().newest_pid(name);
        signal("-TERM", pid);
    }
    // Others are started in their place, and go on from there.
    faulty.end();
}

#[test]
fn a_rank_whose_training_thread_is_stuck_executes_itself_again_and_comes_back() {
    // Given a rank whose training thread hangs while its heartbeats go on, and another that dies
    let mut faulty = Faulty::with(&["train.epochs=10000", "fault.crashes=2", "fault.timeout=20"]);
    faulty.whole_again();
    let before = faulty.workers();
    until_met(&faulty.lay("worker-1", "added-up", "hang"));
    signal("-KILL", before[2]);
    let began = Instant::now();
    let two = |status: &serde_json::Value| {
        let workers = status["workers"].as_array().unwrap();
        let ranks = workers.iter().filter(|worker| worker["rank"].is_u64());
        status["phase"] == "training" && ranks.count() == 1
    };
    faulty.run().wait_until(two);
    let alone = began.elapsed();
    faulty.whole_again();

    // Then it is here again, in the same process, and the dead one in another
    println!(
        "alone after {alone:.1?}, whole again after {:.1?}",
        began.elapsed()
    );
    let after = faulty.workers();
    assert_eq!(after[..2], before[..2]);
    assert_ne!(after[2], before[2]);
    let events = faulty.place.path("run").join("events.jsonl");
    let events = std::fs::read_to_string(events).unwrap();
    assert_eq!(events.matches(r#""class":"restart""#).count(), 1);
    faulty.end();
}

#[test]
fn a_worker_that_cannot_come_to_a_boundary_in_its_grace_goes_without_one_and_was_preempted() {
    // Given a rank that is told to end while its training thread hangs, in a run that survives no crash and no hang
    let settings = ["fault.crashes=0", "fault.hangs=0", "fault.grace=1.5"];
    let mut faulty =
        Faulty::with(&[&["train.epochs=10000", "fault.timeout=20"], &settings[..]].concat());
    faulty.whole_again();
    let before = faulty.workers();
    until_met(&faulty.lay("worker-1", "added-up", "hang"));
    signal("-TERM", before[1]);
    let named = |status: &serde_json::Value| {
        let deadlines = status["deadlines"].as_array().unwrap().iter();
        let mut names = deadlines.filter_map(|deadline| deadline["name"].as_str());
        names.any(|name| name == "worker-1 was told to end and must leave")
    };
    let generation = faulty.run().wait_until(named)["generation"].clone();

    // Then the others go on without it as soon as its time is over, and another one is started
    faulty
        .run()
        .wait_until(|status| status["generation"] != generation);
    faulty.whole_again();
    assert_ne!(faulty.workers()[1], before[1]);
    faulty.end();
}
