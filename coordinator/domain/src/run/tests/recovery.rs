//! What becomes of a run when workers die, hang, differ or leave.

use super::*;

#[test]
fn survivors_of_a_killed_worker_go_on_from_the_most_advanced_at_once() {
    // Given three ranks of which one is a step ahead
    let mut sim = Sim::training_as(elastic(3));
    sim.all_do(3, 0);
    sim.progress(2, 1);
    // When one is killed
    let effects = sim.stream_lost(1);
    assert_eq!(told_to_regroup(&effects), ["worker-0", "worker-2"]);
    assert_eq!(
        sim.reason,
        "regrouping (worker-1 (rank 1) was lost in generation 7 after 2 steps: reset): \
         waiting for worker-0 and worker-2 to leave generation 7"
    );
    sim.exited(1, ProcessEnd::Signal(9));
    assert_eq!(
        sim.warnings(),
        ["worker-1 (rank 1) was killed by signal 9 (SIGKILL) in generation 7 after 2 steps"]
    );
    // Then the next generation begins when both are out, and levels the one behind
    assert_eq!(begun(&sim.standby(0, 1)), None);
    let next = begun(&sim.standby(2, 2)).unwrap();
    assert_eq!((next.0, next.1, next.2), (8, 2, Source::Peers(vec![1])));
    assert!(
        next.3.evaluate && next.3.snapshot,
        "both were due after step 2"
    );
    sim.ready(0);
    sim.ready(2);
    assert_eq!(sim.reason, "evaluating after epoch 1 of 2");
    // and the dead one, started again after their next step, comes in at a step boundary
    assert_eq!(launched(&sim.effects[3..]), [""; 0]);
    assert_eq!(launched(&sim.progress(0, 2)), ["worker-1"]);
    let effects = sim.join(1);
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::Regroup { at_boundary: true, workers, .. } if workers.len() == 2
    )));
    sim.progress(2, 2);
    assert_eq!(told_to_regroup(&sim.standby(0, 3)), [""; 0]);
    let next = begun(&sim.standby(2, 3)).unwrap();
    assert_eq!((next.0, next.1, next.2), (9, 3, Source::Peers(vec![0, 2])));
}

#[test]
fn a_step_that_only_the_dead_had_committed_is_void() {
    let mut sim = Sim::training_as(elastic(3));
    sim.progress(1, 0);
    assert_eq!(sim.state().steps_done(), 1);
    sim.stream_lost(1);
    sim.standby(0, 0);
    let next = begun(&sim.standby(2, 0)).unwrap();
    assert_eq!((next.1, next.2), (0, Source::Peers(vec![0, 1])));
    assert_eq!(sim.state().steps_done(), 0);
}

#[test]
fn a_fixed_world_waits_for_the_replacement_which_takes_the_rank_of_the_dead() {
    let mut sim = Sim::training(3);
    sim.all_do(3, 0);
    sim.stream_lost(1);
    sim.exited(1, ProcessEnd::Signal(9));
    sim.standby(0, 1);
    assert_eq!(begun(&sim.standby(2, 1)), None);
    assert!(
        sim.reason
            .ends_with("after 1 step): 2 of 3 workers are here"),
        "{}",
        sim.reason
    );
    let next = begun(&sim.join(1)).unwrap();
    assert_eq!((next.0, next.1, next.2), (8, 1, Source::Peers(vec![0, 2])));
    let rank = sim.state().roster().get(&WorkerId::local(1)).unwrap().rank;
    assert_eq!(rank, Some(1));
}

#[test]
fn a_peers_failed_collective_frees_the_others_before_the_death_itself_is_known() {
    let mut sim = Sim::training_as(elastic(3));
    let effects = sim.fault(0, FaultClass::Collective, "connection closed by peer");
    assert_eq!(
        told_to_regroup(&effects),
        ["worker-0", "worker-1", "worker-2"]
    );
    assert!(sim.reason.starts_with(
        "regrouping (worker-0 (rank 0) reports a failed collective after 1 step: connection closed by peer)"
    ));
    sim.standby(0, 0);
    assert_eq!(begun(&sim.standby(2, 0)), None, "worker-1 may still come");
    sim.stream_lost(1);
    assert_eq!(sim.state().generation(), 8);
}

#[test]
fn a_collective_that_fails_again_and_again_without_a_death_costs_its_first_witness() {
    let mut sim = Sim::training_as(elastic(3));
    for _ in 0..2 {
        sim.fault(2, FaultClass::Collective, "no route to host");
        for n in 0..3 {
            sim.standby(n, 0);
        }
        for n in 0..3 {
            sim.ready(n);
        }
    }
    assert_eq!(sim.state().generation(), 9);
    sim.fault(2, FaultClass::Collective, "no route to host");
    for n in 0..3 {
        sim.standby(n, 0);
    }
    assert!(sim.effects.contains(&Effect::Close {
        worker: WorkerId::local(2)
    }));
    assert_eq!(sim.state().generation(), 10);
    assert!(sim.warnings()[0].starts_with(
        "worker-2 (rank 2) reported a failed collective 3 times in a row and all its peers are alive"
    ));
}

#[test]
fn used_up_budgets_end_the_run_with_a_checkpoint_and_75() {
    let mut sim = Sim::training_as(elastic(2));
    for step in 0..2 {
        // When it is lost, comes back a step later, and is lost again
        sim.stream_lost(1);
        sim.exited(1, ProcessEnd::Signal(9));
        sim.standby(0, step);
        sim.ready(0);
        sim.progress(0, step);
        sim.pass(1000);
        sim.join(1);
        sim.standby(0, step + 1);
        sim.ready(0);
        sim.ready(1);
    }
    sim.stream_lost(1);
    sim.exited(1, ProcessEnd::Signal(9));
    // Then the survivor only hands over what it holds
    let next = begun(&sim.standby(0, 2)).unwrap();
    assert!(next.3.snapshot && next.3.finish);
    sim.ready(0);
    sim.leave(0, 2, LeaveReason::Finished);
    assert_eq!(sim.ending().exit_code, 75);
    assert!(
        sim.ending()
            .reason
            .contains("fault.crashes allows 2 of this kind an hour"),
        "{}",
        sim.ending().reason
    );
}

#[test]
fn the_survivor_of_two_deaths_at_once_hands_over_what_it_holds_where_budgets_allow_neither() {
    let budgets = Budgets {
        crash: 0,
        ..elastic(3).budgets
    };
    let mut sim = Sim::training_as(Config {
        budgets,
        ..elastic(3)
    });
    sim.all_do(3, 0);
    for n in [0, 2] {
        sim.stream_lost(n);
    }
    for n in [0, 2] {
        sim.exited(n, ProcessEnd::Signal(9));
    }
    let next = begun(&sim.standby(1, 1)).unwrap();
    assert_eq!((next.1, next.3.snapshot, next.3.finish), (1, true, true));
    sim.ready(1);
    sim.checkpointed(1);
    sim.leave(1, 1, LeaveReason::Finished);
    assert_eq!(sim.ending().exit_code, 75);
    let reason = &sim.ending().reason;
    assert!(
        reason.starts_with("worker-0 (rank 0) was killed")
            && reason.ends_with("the state after 1 step was handed over"),
        "{reason}"
    );
}

#[test]
fn a_stop_while_regrouping_still_hands_over_a_checkpoint() {
    let mut sim = Sim::training(2);
    sim.all_do(2, 0);
    sim.stream_lost(1);
    sim.exited(1, ProcessEnd::Signal(9));
    sim.standby(0, 1);
    let next = begun(&sim.happen(Event::StopAsked {
        by: "SIGTERM".to_owned(),
    }))
    .unwrap();
    assert_eq!((next.1, next.3.snapshot, next.3.finish), (1, true, true));
    sim.ready(0);
    sim.checkpointed(1);
    sim.leave(0, 1, LeaveReason::Finished);
    assert_eq!(
        sim.ending().reason,
        "stopped after 1 of 4 steps (asked by SIGTERM): resume with --resume"
    );
}

#[test]
fn with_nobody_left_the_run_goes_on_from_its_last_checkpoint() {
    let mut sim = Sim::training(2);
    for step in 0..3 {
        sim.all_do(2, step);
    }
    sim.happen(Event::CheckpointEnded {
        step: 2,
        problem: None,
    });
    sim.happen(Event::Evaluated {
        step: 2,
        problem: None,
        map_bits: None,
    });
    for n in 0..2 {
        sim.stream_lost(n);
        sim.exited(n, ProcessEnd::Signal(9));
    }
    sim.join(0);
    let next = begun(&sim.join(1)).unwrap();
    assert_eq!((next.1, next.2), (2, Source::Checkpoint));
    assert_eq!(next.3, Opening::default());
}

#[test]
fn a_death_before_anyone_has_the_first_state_begins_again_from_disk() {
    let mut sim = Sim::new(elastic(3));
    (0..3).for_each(|n| drop(sim.join(n)));
    sim.stream_lost(0);
    for n in 1..3 {
        sim.happen(Event::Standby {
            worker: WorkerId::local(n),
            generation: 7,
            step: None,
            micro_batches: Vec::new(),
        });
    }
    sim.exited(0, ProcessEnd::Signal(9));
    assert_eq!(launched(&sim.effects[3..]), ["worker-0"]);
    let next = begun(&sim.join(0)).unwrap();
    assert_eq!((next.0, next.1, next.2), (8, 0, Source::Seed));
}

#[test]
fn spares_take_over_without_a_start() {
    let mut sim = Sim::new(Config {
        local: false,
        ..elastic(2)
    });
    for n in 0..3 {
        sim.join(n);
    }
    sim.ready(0);
    sim.ready(1);
    assert_eq!(sim.reason, "training epoch 1 of 2");
    let roster = sim.state().roster();
    let spares = [0, 1, 2].map(|n| roster.is_spare(roster.get(&WorkerId::local(n)).unwrap()));
    assert_eq!(spares, [false, false, true]);
    sim.stream_lost(0);
    let next = begun(&sim.standby(1, 0)).unwrap();
    assert_eq!((next.0, next.2), (8, Source::Peers(vec![0])));
    let ranks = |n| {
        sim.state()
            .roster()
            .get(&WorkerId::local(n))
            .and_then(|m| m.rank)
    };
    assert_eq!((ranks(0), ranks(1), ranks(2)), (None, Some(0), Some(1)));
}

#[test]
fn a_spare_that_goes_costs_the_run_nothing() {
    let budgets = Budgets {
        crash: 0,
        hang: 0,
        ..elastic(2).budgets
    };
    let mut sim = Sim::new(Config {
        local: false,
        budgets,
        ..elastic(2)
    });
    for n in 0..4 {
        sim.join(n);
    }
    sim.ready(0);
    sim.ready(1);
    sim.stream_lost(2);
    assert_eq!(sim.reason, "training epoch 1 of 2");
    // Nor does one that is not heard of any more.
    for _ in 0..6 {
        sim.pass(1000);
        sim.beat(0, "", false);
        sim.beat(1, "", false);
    }
    assert!(
        sim.warnings()
            .iter()
            .any(|text| text.starts_with("worker-3 hangs")),
        "{:?}",
        sim.warnings()
    );
    assert_eq!(sim.reason, "training epoch 1 of 2");
}

#[test]
fn spares_go_on_where_every_rank_was_told_to_end() {
    // Given a rank and a spare
    let mut sim = Sim::new(Config {
        local: false,
        ..elastic(1)
    });
    sim.join(0);
    sim.join(1);
    sim.ready(0);
    sim.progress(0, 0);

    // When the rank, alone in its world, hands over a checkpoint and leaves, being told to end
    sim.checkpointed(1);
    let effects = sim.leave(0, 1, LeaveReason::Stopped);

    // Then the run goes on with the spare from there
    let next = begun(&effects).unwrap();
    assert_eq!((next.0, next.2), (8, Source::Checkpoint));
    sim.ready(1);
    assert_eq!(sim.reason, "training epoch 1 of 2");
}

#[test]
fn workers_that_are_to_be_started_again_go_on_where_every_rank_was_told_to_end() {
    // Given a rank that goes on alone while the others are to be started again
    let mut sim = Sim::training_as(elastic(3));
    sim.progress(0, 0);
    for n in [1, 2] {
        sim.stream_lost(n);
        sim.exited(n, ProcessEnd::Signal(9));
    }
    sim.standby(0, 1);
    sim.ready(0);
    sim.checkpointed(1);

    // When it is told to end, and leaves
    sim.leave(0, 1, LeaveReason::Stopped);
    assert_eq!(sim.decided(), None);
    sim.stream_lost(0);
    sim.exited(0, ProcessEnd::Code(0));

    // Then all three are started and go on from its checkpoint
    let effects = sim.pass(60_000);
    assert_eq!(sim.decided(), None, "{}", sim.reason);
    assert!(!launched(&effects).is_empty() || processes(sim.state()) > 0);
    let effects: Vec<_> = (0..3).flat_map(|n| sim.join(n)).collect();
    let next = begun(&effects).unwrap();
    assert_eq!(next.2, Source::Checkpoint);
}

#[test]
fn an_elastic_run_begins_with_fewer_after_a_while() {
    let mut sim = Sim::new(Config {
        min_workers: 2,
        ..elastic(3)
    });
    sim.join(0);
    sim.join(2);
    let mut waited = 0;
    while sim.state().generation() == 6 {
        sim.pass(1000);
        waited += 1;
        sim.beat(0, "", false);
        sim.beat(2, "", false);
    }
    assert_eq!(waited, 60);
    sim.ready(0);
    sim.ready(2);
    assert_eq!(sim.reason, "training epoch 1 of 2");
}
