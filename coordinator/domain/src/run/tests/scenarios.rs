//! Runs that nothing disturbs, from forming to their end, and who is waited for on the way.

use super::evaluation::evaluate;
use super::*;

#[test]
fn the_reason_names_who_has_not_joined_and_who_is_not_ready() {
    let mut sim = Sim::new(config(8, true));
    for n in [0, 1, 2, 4, 5, 6] {
        sim.join(n);
    }
    assert_eq!(
        sim.reason,
        "waiting for 2 of 8 workers: 6 have joined, worker-3 and worker-7 have not"
    );
    sim.join(7);
    assert_eq!(
        sim.reason,
        "waiting for 1 of 8 workers: 7 have joined, worker-3 has not"
    );
    sim.join(3);
    sim.ready(0);
    assert_eq!(
        sim.reason,
        "forming generation 7: 1 of 8 ranks are ready, waiting for worker-1, worker-2, worker-3, worker-4, \
         worker-5, worker-6 and worker-7"
    );
}

#[test]
fn a_whole_run_goes_through_its_phases_and_ends_finished() {
    // Given two workers that train
    let mut sim = Sim::training(2);
    assert!(matches!(
        sim.effects
            .iter()
            .find(|effect| matches!(effect, Effect::BeginGeneration(_))),
        Some(Effect::BeginGeneration(Beginning {
            number: 7,
            begins_at_step: 0,
            source: Source::Seed,
            ..
        }))
    ));
    assert_eq!(sim.reason, "training epoch 1 of 2");

    // When they do their four steps and both evaluations
    sim.all_do(2, 0);
    sim.all_do(2, 1);
    assert_eq!(sim.reason, "evaluating after epoch 1 of 2");
    evaluate(&mut sim, 2);
    assert_eq!(sim.reason, "training epoch 2 of 2");
    sim.all_do(2, 2);
    sim.all_do(2, 3);
    sim.happen(Event::Scored {
        step: 4,
        scored: VAL,
        samples: VAL,
    });
    sim.checkpointed(4);
    sim.leave(0, 4, LeaveReason::Finished);
    assert!(
        !sim.effects
            .iter()
            .any(|effect| matches!(effect, Effect::Release { .. }))
    );
    sim.leave(1, 4, LeaveReason::Finished);

    // Then they are released, and the run waits for the last figures before it is over
    let released = sim
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Release { exit_code: 0, .. }));
    assert_eq!(released.count(), 2);
    sim.all_go(2);
    assert_eq!(
        sim.reason,
        "ending (finished: 4 steps, 2 epochs): computing the figures of the last evaluation"
    );
    sim.happen(Event::Evaluated {
        step: 4,
        problem: None,
        map_bits: None,
    });
    assert!(sim.is_over());
    assert_eq!(
        (sim.ending().kind, sim.ending().exit_code),
        (EndKind::Finished, 0)
    );
    assert_eq!(sim.reason, "finished: 4 steps, 2 epochs");
    let commits: Vec<_> = sim
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Commit { step, .. } => Some(*step),
            _ => None,
        })
        .collect();
    assert_eq!(commits, [0, 1, 2, 3]);
}

#[test]
fn workers_that_do_not_join_in_time_are_named() {
    let mut sim = Sim::new(config(3, true));
    sim.join(1);
    sim.wait_for_the_end();
    assert_eq!(
        sim.ending().reason,
        "worker-0 and worker-2 did not join and set up within 60 s: see the log of each"
    );
    assert_eq!(sim.ending().exit_code, 75);
}

#[test]
fn workers_started_elsewhere_are_waited_for_without_end() {
    let mut sim = Sim::new(config(2, false));
    assert_eq!(sim.state().next_deadline(), None);
    assert_eq!(sim.reason, "waiting for 2 of 2 workers: none has joined");
    // and one that goes again is forgotten
    sim.join(0);
    sim.stream_lost(0);
    assert_eq!(sim.reason, "waiting for 2 of 2 workers: none has joined");
    assert_eq!(
        sim.warnings(),
        ["worker-0 went before the run began: reset"]
    );
}

#[test]
fn stale_reports_change_nothing() {
    let mut sim = Sim::training(2);
    for event in [
        Event::Progress {
            worker: WorkerId::local(0),
            generation: 6,
            report: report(0),
        },
        Event::Ready {
            worker: WorkerId::local(0),
            generation: 6,
        },
        Event::Leaving {
            worker: WorkerId::local(0),
            generation: 6,
            step: 9,
            reason: LeaveReason::Finished,
        },
        Event::Fault {
            worker: WorkerId::local(0),
            generation: 6,
            step: 0,
            class: FaultClass::Internal,
            message: String::new(),
        },
    ] {
        assert_eq!(sim.happen(event), []);
    }
    assert_eq!(sim.state().steps_done(), 0);
    assert_eq!(sim.reason, "training epoch 1 of 2");
}

#[test]
fn a_step_out_of_order_is_a_broken_protocol() {
    let mut sim = Sim::training(2);
    sim.progress(0, 1);
    assert_eq!(sim.ending().exit_code, 1);
    assert!(
        sim.ending()
            .reason
            .starts_with("worker-0 (rank 0) reported step 1 where step 0 of 4 was next")
    );
}

#[test]
fn a_stop_waits_for_all_ranks_and_is_resumable() {
    let mut sim = Sim::training(2);
    sim.all_do(2, 0);
    let effects = sim.happen(Event::StopAsked {
        by: "Ctrl-C".to_owned(),
    });
    assert_eq!(
        effects,
        [Effect::Stop {
            reason: "asked by Ctrl-C".to_owned()
        }]
    );
    sim.all_do(2, 1);
    sim.leave(0, 2, LeaveReason::Stopped);
    assert_eq!(
        sim.reason,
        "stopping (asked by Ctrl-C): waiting for worker-1 to reach a step boundary, hand over a checkpoint and leave"
    );
    sim.checkpointed(2);
    sim.leave(1, 2, LeaveReason::Stopped);
    sim.all_go(2);
    // The evaluation that was due after step 2 is not waited for: nobody scores it.
    assert!(sim.is_over());
    assert_eq!(
        (sim.ending().kind, sim.ending().exit_code),
        (EndKind::Stopped, 0)
    );
    assert_eq!(
        sim.reason,
        "stopped after 2 of 4 steps (asked by Ctrl-C): resume with --resume"
    );
}

#[test]
fn a_second_stop_ends_the_run_at_once() {
    let mut sim = Sim::training(2);
    sim.happen(Event::StopAsked {
        by: "Ctrl-C".to_owned(),
    });
    let effects = sim.happen(Event::StopAsked {
        by: "Ctrl-C".to_owned(),
    });
    let terminated = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Terminate { .. }));
    assert_eq!(terminated.count(), 2);
    assert_eq!(
        (sim.ending().kind, sim.ending().exit_code),
        (EndKind::Stopped, 75)
    );
}

#[test]
fn ranks_that_leave_after_different_steps_did_not_agree() {
    let mut sim = Sim::training(2);
    sim.happen(Event::StopAsked {
        by: "Ctrl-C".to_owned(),
    });
    sim.leave(0, 0, LeaveReason::Stopped);
    sim.progress(1, 0);
    sim.leave(1, 1, LeaveReason::Stopped);
    assert_eq!(sim.ending().exit_code, 1);
    assert!(
        sim.ending()
            .reason
            .starts_with("worker-1 left after 1 step but worker-0 after 0")
    );
}

#[test]
fn workers_that_do_not_leave_are_told_and_then_made_to() {
    let mut sim = Sim::training(2);
    sim.fault(0, FaultClass::Data, "7.jpg is cut off");
    sim.stream_lost(0);
    sim.exited(0, ProcessEnd::Code(65));
    assert!(
        sim.reason
            .ends_with("waiting for worker-1, which was released"),
        "{}",
        sim.reason
    );
    assert_eq!(sim.reach_next_deadline(), Some(Deadline::Release));
    assert!(
        sim.reason
            .ends_with("waiting for worker-1, which was sent SIGTERM"),
        "{}",
        sim.reason
    );
    assert_eq!(sim.reach_next_deadline(), Some(Deadline::Terminate));
    assert!(sim.effects.contains(&Effect::Kill {
        worker: WorkerId::local(1)
    }));
    assert!(!sim.is_over());
    sim.exited(1, ProcessEnd::Signal(9));
    sim.stream_lost(1);
    assert!(sim.is_over());
    assert_eq!((sim.ending().exit_code, processes(sim.state())), (65, 0));
}

#[test]
fn a_worker_that_cannot_be_started_is_a_mistake_of_usage() {
    let mut sim = Sim::new(config(2, true));
    let problem = "no such file".to_owned();
    sim.happen(Event::LaunchFailed {
        worker: WorkerId::local(0),
        problem,
    });
    assert_eq!(
        (sim.ending().reason.as_str(), sim.ending().exit_code),
        ("cannot start worker-0: no such file", 64)
    );
}

#[test]
fn a_resumed_part_evaluates_first_what_lacks_its_figures() {
    let mut config = config(1, true);
    (
        config.begins_at_step,
        config.from_checkpoint,
        config.evaluate_first,
    ) = (2, true, true);
    let mut sim = Sim::new(config);
    sim.join(0);
    sim.ready(0);
    assert_eq!(sim.reason, "evaluating after epoch 1 of 2");
    evaluate(&mut sim, 2);
    sim.progress(0, 2);
    assert_eq!(sim.reason, "training epoch 2 of 2");
}

#[test]
fn a_checkpoint_that_takes_too_long_or_fails_is_warned_of_and_training_goes_on() {
    let mut sim = Sim::training(1);
    sim.happen(Event::CheckpointBegan { step: 2 });
    for _ in 0..120 {
        sim.pass(1000);
        sim.beat(0, "", false);
    }
    let problem = Some("no space left on the device".to_owned());
    sim.happen(Event::CheckpointEnded { step: 2, problem });
    let warnings = sim.warnings();
    assert!(warnings.iter().any(|text| {
        text.starts_with("nothing more of the checkpoint of step 2 has come in for 120 s")
    }));
    assert!(
        warnings
            .contains(&"no checkpoint of step 2, training goes on: no space left on the device")
    );
    assert_eq!(*sim.state().phase(), Phase::Training);
}

#[test]
fn a_checkpoint_that_fails_while_the_run_stops_is_told_by_its_end_alone() {
    let no_room = |sim: &mut Sim, step: u64| {
        let problem = Some("no space left".to_owned());
        sim.happen(Event::CheckpointEnded { step, problem })
    };
    // Given a run that was asked to stop
    let mut sim = Sim::training(1);
    sim.progress(0, 0);
    sim.happen(Event::StopAsked {
        by: "`coordinator stop`".to_owned(),
    });
    no_room(&mut sim, 1);
    sim.leave(0, 1, LeaveReason::Stopped);
    assert_eq!(
        sim.ending().reason,
        "stopped after 1 of 4 steps (asked by `coordinator stop`), but its checkpoint is not in place (no space left): \
         --resume begins at the first step again"
    );
    // And one that is stopped for a failure: nothing was handed over
    let mut failing = Sim::training_as(Config {
        budgets: Budgets {
            crash: 0,
            ..config(2, true).budgets
        },
        ..elastic(2)
    });
    failing.all_do(2, 0);
    failing.stream_lost(1);
    failing.exited(1, ProcessEnd::Signal(9));
    failing.standby(0, 1);
    failing.ready(0);
    no_room(&mut failing, 1);
    failing.leave(0, 1, LeaveReason::Finished);
    assert!(
        failing.ending().reason.ends_with(
            "; the state after 1 step could not be kept (no space left): --resume begins at the first step again"
        ),
        "{}",
        failing.ending().reason
    );
    // And one that has ended, whose last stream breaks
    no_room(&mut sim, 1);
    for sim in [sim, failing] {
        let told = |text: &&str| text.contains("training goes on");
        assert!(!sim.warnings().iter().any(told), "{:?}", sim.warnings());
    }
}

#[test]
fn the_epoch_of_the_status_is_the_one_of_the_reason() {
    let mut sim = Sim::new(config(1, true));
    assert_eq!(sim.state().epoch_shown(), 0);
    sim.join(0);
    sim.ready(0);
    for (step, reason, epoch) in [
        (None, "training epoch 1 of 2", 1),
        (Some(0), "training epoch 1 of 2", 1),
        (Some(1), "evaluating after epoch 1 of 2", 1),
    ] {
        step.map(|step| sim.progress(0, step));
        assert_eq!(
            (sim.reason.as_str(), sim.state().epoch_shown()),
            (reason, epoch)
        );
    }
    sim.happen(Event::Evaluated {
        step: 2,
        problem: None,
        map_bits: None,
    });
    assert_eq!(
        (sim.reason.as_str(), sim.state().epoch_shown()),
        ("training epoch 2 of 2", 2)
    );
}

#[test]
fn events_survive_their_record() {
    let events = [
        Event::Started,
        Event::Progress {
            worker: WorkerId::local(0),
            generation: 7,
            report: report(3),
        },
        Event::Exited {
            worker: WorkerId::local(0),
            end: ProcessEnd::Signal(9),
            log: vec!["x".to_owned()],
        },
    ];
    for event in events {
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(
            serde_json::from_str::<Event>(&line).unwrap(),
            event,
            "{line}"
        );
    }
}

#[test]
fn every_timeout_is_derived_from_the_one_that_people_set() {
    let timeouts = Timeouts::from_fault_timeout(Millis(20_000));
    assert_eq!(timeouts.heartbeat_interval, Millis(4000));
    assert_eq!(timeouts.join, Millis(240_000));
    assert!(timeouts.collective > timeouts.stop);
    assert_eq!(Millis(1500).to_string(), "1.5 s");
}
