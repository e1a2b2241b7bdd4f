//! A coordinator in the place of one that was killed takes over the workers that trained on without it.

use super::*;

/// A run of three whose coordinator was killed after at least two steps in generation 6.
fn left_behind(local: bool) -> Sim {
    Sim::new(Config {
        local,
        adopted: Some(Adopted {
            members: (0..3).map(WorkerId::local).collect(),
            previous: 5,
            since: Vec::new(),
            steps_done: 2,
            evaluated: vec![2],
            usual_step: Millis(0),
        }),
        ..elastic(3)
    })
}

fn come_back(sim: &mut Sim, n: u32, generation: u64) -> Vec<Effect> {
    sim.happen(Event::Joined {
        worker: WorkerId::local(n),
        host: "here".to_owned(),
        pid: n,
        device: "cpu".to_owned(),
        generation,
    })
}

#[test]
fn workers_that_trained_on_without_their_coordinator_are_adopted_with_all_they_did() {
    let mut sim = left_behind(true);
    assert_eq!(launched(&sim.effects), [""; 0], "they live");
    assert_eq!(
        sim.reason,
        "regrouping (the coordinator was started again): waiting for worker-0, worker-1 and worker-2 \
         to leave generation 6"
    );
    for n in 0..3 {
        let effects = come_back(&mut sim, n, 6);
        assert_eq!(told_to_regroup(&effects), [format!("worker-{n}")]);
    }
    // What may have been lost with the coordinator is told again, and what is known is not committed twice.
    for step in 1..3 {
        sim.progress(0, step);
    }
    let commits = |sim: &Sim| {
        let steps = sim.effects.iter().filter_map(|effect| match effect {
            Effect::Commit { step, .. } => Some(*step),
            _ => None,
        });
        steps.collect::<Vec<_>>()
    };
    assert_eq!(commits(&sim), [2]);
    assert_eq!(
        (sim.state().steps_done(), sim.state().steps_on_record()),
        (3, 2),
        "whoever comes back next tells of the third step as well"
    );
    sim.standby(0, 3);
    sim.standby(1, 2);
    let next = begun(&sim.standby(2, 3)).unwrap();
    assert_eq!((next.0, next.1, next.2), (7, 3, Source::Peers(vec![0, 2])));
    assert_eq!(commits(&sim), [2]);
}

#[test]
fn those_who_do_not_come_back_are_ended_and_replaced_and_may_not_come_later() {
    let mut sim = left_behind(true);
    sim.exited(1, ProcessEnd::Unseen);
    come_back(&mut sim, 0, 6);
    sim.standby(0, 2);
    assert_eq!(sim.state().generation(), 6, "worker-2 may still come");
    sim.beat(0, "", false);
    while sim.state().generation() == 6 {
        sim.pass(1000);
        sim.beat(0, "", false);
    }
    assert!(sim.effects.contains(&Effect::Kill {
        worker: WorkerId::local(2)
    }));
    assert_eq!(
        sim.warnings(),
        [
            "worker-2 (rank 2) did not come back (the coordinator was started again)",
            "worker-1 (rank 1) had ended when the coordinator was started again, which counts as a crash"
        ]
    );
    assert!(matches!(
        &come_back(&mut sim, 2, 6)[..],
        [Effect::Refuse { exit_code: 75, .. }]
    ));
    sim.ready(0);
    sim.progress(0, 2);
    assert_eq!(launched(&sim.effects), ["worker-1"]);
}

#[test]
fn whoever_is_in_a_long_micro_batch_is_waited_for() {
    // Given a coordinator that knows from its predecessor's record that steps take half a minute
    let mut config = left_behind(true).state().config().clone();
    config.adopted.as_mut().unwrap().usual_step = Millis(30_000);
    let mut sim = Sim::new(config);
    for n in 0..3 {
        come_back(&mut sim, n, 6);
    }
    // When two end theirs and the third goes on with its own
    sim.standby(0, 2);
    sim.standby(1, 2);
    let wait = |sim: &mut Sim, seconds: u32| {
        for _ in 0..seconds {
            sim.pass(1000);
            (0..3).for_each(|n| drop(sim.beat(n, "", false)));
        }
    };
    wait(&mut sim, 39);
    // Then it is not taken to hang until it has had that time beside the one to come back
    assert_eq!(sim.warnings(), Vec::<&str>::new());
    assert_eq!(sim.state().generation(), 6);
    wait(&mut sim, 2);
    assert!(
        sim.warnings()[0].starts_with("worker-2 (rank 2) did not leave its process group within"),
        "{:?}",
        sim.warnings()
    );
}

#[test]
fn a_checkpoint_that_was_lost_with_its_coordinator_is_taken_again_before_the_run_may_finish() {
    let mut sim = left_behind(true);
    for n in 0..3 {
        come_back(&mut sim, n, 6);
        sim.leave(n, 4, LeaveReason::Finished);
    }
    assert_eq!(sim.decided(), None, "its last checkpoint is not in place");
    for n in 0..3 {
        sim.standby(n, 4);
    }
    let next = begun(&sim.effects).unwrap();
    assert_eq!((next.1, next.3.snapshot, next.3.evaluate), (4, true, true));
}

#[test]
fn a_member_that_never_heard_of_the_newest_generation_still_brings_what_it_holds() {
    let mut sim = left_behind(true);
    for n in 0..3 {
        come_back(&mut sim, n, 5);
        sim.happen(Event::Standby {
            worker: WorkerId::local(n),
            generation: 5,
            step: Some(2),
            micro_batches: Vec::new(),
        });
    }
    let next = begun(&sim.effects).unwrap();
    assert_eq!(
        (next.0, next.1, next.2),
        (7, 2, Source::Peers(vec![0, 1, 2]))
    );
}

#[test]
fn with_nobody_left_behind_the_run_goes_on_from_its_checkpoint() {
    let mut sim = left_behind(true);
    for n in 0..3 {
        sim.exited(n, ProcessEnd::Unseen);
    }
    assert_eq!(launched(&sim.effects), ["worker-0", "worker-1", "worker-2"]);
    for n in 0..3 {
        sim.join(n);
    }
    let next = begun(&sim.effects).unwrap();
    assert_eq!((next.0, next.1, next.2), (7, 0, Source::Seed));
    // All at once is what a machine that was switched off looks like: no worker's fault.
    assert_eq!(sim.losses(LossClass::Crash), 0);
}

/// Three members of a generation, of which those of `ended` had ended when this coordinator was started, and the others come
/// back with what they hold after two steps.
fn taken_over_without(config: Config, ended: &[(u32, ProcessEnd)]) -> Sim {
    let mut sim = Sim::new(config);
    for (n, end) in ended {
        sim.exited(*n, *end);
    }
    let back = (0..3).filter(|n| ended.iter().all(|(ended, _)| ended != n));
    for n in back.clone() {
        come_back(&mut sim, n, 6);
    }
    for n in back {
        sim.standby(n, 2);
    }
    sim
}

#[test]
fn a_worker_that_died_while_no_coordinator_watched_counts_as_a_crash() {
    // Given a run that survives two crashes an hour, of which its lost coordinator has seen one
    let mut config = left_behind(true).state().config().clone();
    config.losses = vec![(LossClass::Crash, Millis(60_000))];

    // When the coordinator in its place finds one more worker dead, and two that live
    let sim = taken_over_without(config.clone(), &[(1, ProcessEnd::Unseen)]);

    // Then that is kept as the second, people are told, and the two go on
    assert_eq!(sim.losses(LossClass::Crash), 1);
    assert_eq!(
        sim.warnings(),
        [
            "worker-1 (rank 1) had ended when the coordinator was started again, which counts as a crash"
        ]
    );
    assert_eq!(
        (sim.state().generation(), sim.state().stop.is_some()),
        (7, false)
    );

    // And two of them are one too many: the third hands over what it holds
    let dead = [(1, ProcessEnd::Unseen), (2, ProcessEnd::Unseen)];
    let mut sim = taken_over_without(config, &dead);
    let next = begun(&sim.effects).unwrap();
    assert_eq!(
        (next.0, next.1, next.3.snapshot, next.3.finish),
        (7, 2, true, true)
    );
    sim.ready(0);
    sim.checkpointed(2);
    sim.leave(0, 2, LeaveReason::Finished);
    assert_eq!(
        sim.ending().reason,
        "worker-2 (rank 2) had ended when the coordinator was started again; fault.crashes allows 2 of this kind an hour and \
         they are used up: look for the cause, then resume with --resume; the state after 2 steps was handed over"
    );
    assert_eq!(sim.ending().exit_code, 75);
}

#[test]
fn a_death_that_the_lost_coordinator_has_seen_is_not_counted_a_second_time() {
    let config = left_behind(true).state().config().clone();
    let sim = taken_over_without(config, &[(1, ProcessEnd::Known)]);
    assert_eq!(sim.losses(LossClass::Crash), 0);
    assert_eq!(sim.warnings(), [""; 0]);
    assert_eq!(sim.state().generation(), 7);
}

#[test]
fn workers_that_waited_for_their_first_generation_are_not_started_a_second_time() {
    // Given a run of three whose coordinator was killed before its first generation stood
    let mut sim = Sim::new(Config {
        left_waiting: true,
        last_generation: 0,
        ..elastic(3)
    });
    assert_eq!(launched(&sim.effects), [""; 0], "they may live");

    // When two come back and the launcher finds that the third does not live
    sim.join(0);
    sim.exited(1, ProcessEnd::Unseen);
    sim.join(2);

    // Then that one alone is started, and all three begin
    assert_eq!(launched(&sim.effects), ["worker-1"]);
    assert_eq!(sim.state().generation(), 0);
    let next = begun(&sim.join(1)).unwrap();
    assert_eq!((next.0, next.1, next.2), (1, 0, Source::Seed));
    assert_eq!(sim.warnings(), Vec::<&str>::new());
}

#[test]
fn one_that_lives_and_does_not_come_back_to_wait_is_ended_with_the_run() {
    let mut sim = Sim::new(Config {
        left_waiting: true,
        last_generation: 0,
        ..config(2, true)
    });
    sim.join(0);
    sim.wait_for_the_end();
    assert!(
        sim.ending()
            .reason
            .starts_with("worker-1 did not join and set up within 60 s"),
        "{}",
        sim.ending().reason
    );
    assert!(sim.effects.contains(&Effect::Terminate {
        worker: WorkerId::local(1)
    }));
}
