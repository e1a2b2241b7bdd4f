//! Workers that were told to end: how long they have, and what their loss counts as.

use super::*;

#[test]
fn a_drained_worker_leaves_at_a_boundary_and_is_replaced() {
    let mut sim = Sim::training_as(elastic(2));
    sim.all_do(2, 0);
    let effects = sim.leave(1, 1, LeaveReason::Signalled);
    assert_eq!(released(&effects), Some(("worker-1", 0)));
    let next = begun(&sim.standby(0, 1)).unwrap();
    assert_eq!((next.1, next.2), (1, Source::Peers(vec![0])));
    sim.stream_lost(1);
    sim.exited(1, ProcessEnd::Code(0));
    sim.ready(0);
    assert_eq!(launched(&sim.progress(0, 1)), ["worker-1"]);
}

/// A run of two that has done a step, one of which was told to end just now.
fn told() -> Sim {
    let mut sim = Sim::training_as(elastic(2));
    sim.all_do(2, 0);
    sim.told_to_end(1);
    sim
}

fn released(effects: &[Effect]) -> Option<(&str, u8)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Release {
            worker, exit_code, ..
        } => Some((worker.as_str(), *exit_code)),
        _ => None,
    })
}

fn both_live_for(sim: &mut Sim, seconds: u64) {
    for _ in 0..seconds {
        sim.pass(1000);
        (0..2).for_each(|n| drop(sim.beat(n, "", false)));
    }
}

#[test]
fn one_that_comes_to_no_boundary_within_its_grace_is_let_go_without_one() {
    // Given a worker that was told to end in a step that does not end
    let mut sim = told();
    let deadline = Deadline::Drain(WorkerId::local(1));
    let due = sim.state().deadlines().get(&deadline).copied();
    assert_eq!(due, Some(Millis(25_000)));
    assert_eq!(
        deadline.to_string(),
        "worker-1 was told to end and must leave"
    );
    both_live_for(&mut sim, 20);
    sim.told_to_end(1);
    both_live_for(&mut sim, 4);
    assert_eq!(sim.warnings(), [""; 0], "said again, it has no more time");

    // When its time is over
    let effects = sim.pass(1000);

    // Then it is let go as one that was told to, and the other goes on at once with what it holds
    assert_eq!(released(&effects), Some(("worker-1", 75)));
    assert_eq!(
        sim.warnings(),
        ["worker-1 (rank 1) was told to end and came to no boundary within 25 s (fault.grace)"]
    );
    let next = begun(&sim.standby(0, 1)).unwrap();
    assert_eq!((next.1, next.2), (1, Source::Peers(vec![0])));
    sim.exited(1, ProcessEnd::Code(75));
    assert_eq!(sim.losses(LossClass::Preemption), 1);
    sim.ready(0);
    assert_eq!(launched(&sim.progress(0, 1)), ["worker-1"]);
    let due = sim.state().deadlines().get(&deadline);
    assert_eq!(due, None, "the process in its place was not told to end");
}

#[test]
fn one_that_is_killed_after_it_was_told_to_end_was_preempted_and_did_not_crash() {
    let mut sim = told();
    sim.stream_lost(1);
    sim.exited(1, ProcessEnd::Signal(9));
    assert_eq!(sim.losses(LossClass::Preemption), 1);
    assert_eq!(sim.losses(LossClass::Crash), 0);

    // The one that is started in its place was told nothing
    sim.standby(0, 1);
    sim.ready(0);
    sim.progress(0, 1);
    sim.join(1);
    sim.stream_lost(1);
    sim.exited(1, ProcessEnd::Signal(9));
    assert_eq!(sim.losses(LossClass::Preemption), 1);
    assert_eq!(sim.losses(LossClass::Crash), 1);
}

#[test]
fn one_that_is_told_to_end_before_the_first_generation_is_started_again() {
    for end in [ProcessEnd::Code(0), ProcessEnd::Signal(15)] {
        let mut sim = Sim::new(config(2, true));
        sim.join(0);
        sim.join(1);
        sim.standby(0, 0);
        sim.told_to_end(1);
        sim.stream_lost(1);
        sim.exited(1, end);
        assert_eq!(sim.losses(LossClass::Preemption), 1, "{}", sim.reason);
        while !launched(&sim.effects[2..]).contains(&"worker-1") {
            assert!(sim.reach_next_deadline().is_some(), "{}", sim.reason);
            sim.beat(0, "", false);
        }
        sim.join(1);
        sim.standby(0, 0);
        let effects = sim.standby(1, 0);
        assert!(begun(&effects).is_some(), "{}", sim.reason);
    }
}

#[test]
fn nobody_is_let_go_without_a_boundary_while_no_other_is_to_go_on_or_a_checkpoint_is_on_its_way() {
    // Where both were told to end, and steps are longer than that
    let mut sim = told();
    sim.told_to_end(0);
    both_live_for(&mut sim, 40);
    assert_eq!(sim.warnings(), [""; 0]);
    sim.progress(0, 1);
    sim.progress(1, 1);
    // and the checkpoint that they hand over before they go takes its time
    sim.happen(Event::CheckpointBegan { step: 2 });
    both_live_for(&mut sim, 40);
    assert_eq!(sim.warnings(), [""; 0]);
    sim.checkpointed(2);
    sim.leave(0, 2, LeaveReason::Stopped);
    sim.leave(1, 2, LeaveReason::Stopped);
    assert_eq!(sim.ending().exit_code, 0, "{}", sim.ending().reason);

    // Where the run is to stop
    let mut sim = told();
    sim.happen(Event::StopAsked { by: "stop".into() });
    both_live_for(&mut sim, 40);
    assert_eq!(sim.warnings(), [""; 0]);

    // Where a checkpoint is on its way: as soon as it is there, its time is over
    let mut sim = told();
    sim.happen(Event::CheckpointBegan { step: 1 });
    both_live_for(&mut sim, 40);
    assert_eq!(sim.warnings(), [""; 0]);
    sim.checkpointed(1);
    both_live_for(&mut sim, 6);
    assert!(sim.warnings()[0].ends_with("(fault.grace)"));
}

#[test]
fn in_records_from_before_there_was_a_grace_nothing_is_decided_otherwise() {
    let mut config = elastic(2);
    config.timeouts.grace = serde_json::from_value::<Timeouts>({
        let mut recorded = serde_json::to_value(config.timeouts).unwrap();
        recorded.as_object_mut().unwrap().remove("grace");
        recorded
    })
    .unwrap()
    .grace;
    let mut sim = Sim::training_as(config);
    sim.all_do(2, 0);
    sim.told_to_end(1);
    both_live_for(&mut sim, 50);
    assert_eq!(sim.warnings(), [""; 0]);
    sim.stream_lost(1);
    sim.exited(1, ProcessEnd::Signal(9));
    assert_eq!(sim.losses(LossClass::Crash), 1);
}

#[test]
fn one_that_has_done_its_part_waits_for_the_others_as_long_as_it_takes() {
    let mut sim = told();
    sim.happen(Event::StopAsked { by: "stop".into() });
    sim.checkpointed(1);
    sim.leave(1, 1, LeaveReason::Stopped);
    both_live_for(&mut sim, 30);
    assert_eq!(sim.warnings(), [""; 0]);
    sim.leave(0, 1, LeaveReason::Stopped);
    assert_eq!(sim.ending().exit_code, 0);
}
