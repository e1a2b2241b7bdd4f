//! Runs that go on, if less well: without memory, with figures that are no numbers, with a rank that lags or differs.

use super::*;
use crate::shares::Shares;

/// Six micro-batches of four a step, three workers.
pub(super) fn wide() -> Config {
    let shape = RunShape {
        samples: 24 * 40,
        global_batch: 24,
        micro_batch: 4,
        ..config(3, true).shape
    };
    Config {
        shape,
        ..elastic(3)
    }
}

/// How the generations of `effects` cut and share out micro-batches.
fn begun(effects: &[Effect]) -> Vec<(Shares, u32)> {
    let of = |effect: &Effect| match effect {
        Effect::BeginGeneration(Beginning {
            assignment,
            forward_parts,
            ..
        }) => Some((assignment.shares().clone(), *forward_parts)),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

#[test]
fn without_memory_micro_batches_are_halved_until_nothing_is_left_to_halve() {
    let mut sim = Sim::training_as(Config {
        halve_when_out_of_memory: true,
        ..wide()
    });
    sim.all_do(3, 0);
    sim.fault(1, FaultClass::Memory, "no memory");
    for n in 0..3 {
        sim.standby(n, 1);
    }
    assert_eq!(begun(&sim.effects).last(), Some(&(Shares::even(3), 2)));
    assert!(
        sim.warnings()[0].contains("every micro-batch of 4 goes forward in 2 parts"),
        "{:?}",
        sim.warnings()
    );
    for n in 0..3 {
        sim.ready(n);
    }
    assert_eq!(sim.decided(), None);

    // Parts of two samples are the smallest that batch normalisation can do with.
    sim.fault(1, FaultClass::Memory, "no memory");
    let warned = sim.warnings().pop().unwrap().to_owned();
    assert!(
        warned.ends_with("parts of 2 samples do not fit either: use a smaller data.size or model.backbone, or another device"),
        "{warned}"
    );
    assert_eq!(begun(&sim.effects).len(), 2);
}

#[test]
fn a_worker_that_goes_on_one_by_one_costs_no_half_and_nobody_is_given_up() {
    let mut sim = Sim::training_as(wide());
    sim.all_do(3, 0);
    sim.fault(1, FaultClass::MemoryOfPass, "no memory for 2 side by side");
    for n in 0..3 {
        sim.standby(n, 1);
    }
    assert_eq!(begun(&sim.effects).last(), Some(&(Shares::even(3), 1)));
    assert_eq!(
        sim.warnings(),
        ["worker-1 (rank 1) after 1 step: no memory for 2 side by side"]
    );
    for n in 0..3 {
        sim.ready(n);
    }
    // What it then has no memory for is one micro-batch.
    sim.fault(1, FaultClass::Memory, "no memory");
    assert!(
        sim.warnings()
            .pop()
            .unwrap()
            .contains("would fit with train.micro_batch = 2"),
        "{:?}",
        sim.warnings()
    );
}

#[test]
fn without_memory_a_run_that_may_not_halve_says_what_would_fit() {
    let mut sim = Sim::training_as(wide());
    sim.all_do(3, 0);
    sim.fault(1, FaultClass::Memory, "no memory");
    assert!(
        sim.warnings()[0].contains("would fit with train.micro_batch = 2"),
        "{:?}",
        sim.warnings()
    );
}

#[test]
fn a_step_that_is_not_finite_is_recorded_with_its_samples_and_the_run_goes_on() {
    let mut sim = Sim::training_as(wide());
    let over = |step| StepReport {
        passed_over: true,
        ..report(step)
    };
    for n in 0..3 {
        sim.progress_of(n, over(0));
    }
    let generation = sim.state().generation();
    let recorded = Effect::PassOver {
        generation,
        step: 0,
    };
    assert_eq!(
        sim.effects
            .iter()
            .filter(|effect| **effect == recorded)
            .count(),
        1
    );
    let samples = sim.state().plan.epoch_plan(0).samples_of_step(0).to_vec();
    assert!(sim.warnings()[0].ends_with(&format!("its samples: {samples:?}")));
    sim.all_do(3, 1);
    assert_eq!((sim.decided(), sim.state().steps_done()), (None, 2));
}

#[test]
fn steps_that_are_not_finite_one_after_the_other_end_the_run() {
    let mut sim = Sim::training_as(wide());
    for step in 0..11 {
        assert_eq!(sim.decided(), None, "{step}");
        for n in 0..3 {
            let passed_over = true;
            sim.progress_of(
                n,
                StepReport {
                    passed_over,
                    ..report(step)
                },
            );
            if sim.decided().is_some() {
                break;
            }
        }
    }
    assert_eq!(sim.ending().exit_code, 65);
}

#[test]
fn a_run_does_not_finish_without_its_last_checkpoint() {
    let mut sim = Sim::training(2);
    for step in 0..4 {
        sim.all_do(2, step);
    }
    let no_room = |sim: &mut Sim| {
        let problem = Some("no space left".to_owned());
        sim.happen(Event::CheckpointEnded { step: 4, problem });
        for n in 0..2 {
            sim.leave(n, 4, LeaveReason::Finished);
        }
    };
    no_room(&mut sim);
    assert!(sim.warnings().iter().any(|text| text.ends_with(
        "the checkpoint of step 4 is not in place: no space left; it is handed over again every 5 s"
    )));
    let again = |sim: &mut Sim| {
        for n in 0..2 {
            sim.standby(n, 4);
        }
        while matches!(sim.state().phase(), Phase::Regrouping { .. }) {
            assert!(sim.state().deadlines().contains_key(&Deadline::Handover));
            for n in 0..2 {
                sim.beat(n, "", false);
            }
            sim.pass(1_000);
        }
        for n in 0..2 {
            sim.ready(n);
        }
    };
    for _ in 0..3 {
        again(&mut sim);
        no_room(&mut sim);
        assert_eq!(sim.decided(), None);
    }

    // Then there is room.
    again(&mut sim);
    sim.checkpointed(4);
    for n in 0..2 {
        sim.leave(n, 4, LeaveReason::Finished);
    }
    assert_eq!(
        (sim.ending().kind, sim.ending().exit_code),
        (EndKind::Finished, 0)
    );
}

#[test]
fn a_stop_whose_checkpoint_is_not_in_place_says_so() {
    let mut sim = Sim::training(2);
    sim.all_do(2, 0);
    sim.happen(Event::StopAsked {
        by: "me".to_owned(),
    });
    let problem = Some("no space left".to_owned());
    sim.happen(Event::CheckpointEnded { step: 1, problem });
    for n in 0..2 {
        sim.leave(n, 1, LeaveReason::Stopped);
    }
    assert_eq!(sim.ending().exit_code, 75);
    assert!(
        sim.ending()
            .reason
            .ends_with("(no space left): --resume begins at the first step again")
    );
}

/// All workers report steps at these paces.
fn at_paces(sim: &mut Sim, steps: std::ops::Range<u64>, paces: [u64; 3]) {
    for step in steps {
        for (n, pace) in (0..).zip(paces) {
            sim.progress_of(
                n,
                StepReport {
                    pace,
                    ..report(step)
                },
            );
        }
    }
}

#[test]
fn a_straggler_is_named_once() {
    let mut sim = Sim::training_as(wide());
    at_paces(&mut sim, 0..35, [100, 110, 350]);
    assert_eq!(
        sim.warnings(),
        [
            "worker-2 (rank 2) is a straggler: a sample's forward pass takes it 3.1 times as long as the others; look at \
          what else its machine does; train.balance = \"speed\" would give it fewer micro-batches"
        ]
    );
    assert_eq!(begun(&sim.effects).len(), 1, "and nothing else is done");
}

#[test]
fn by_speed_a_straggler_is_given_fewer_micro_batches_at_the_next_boundary() {
    let mut sim = Sim::training_as(Config {
        balance: true,
        ..wide()
    });
    at_paces(&mut sim, 0..10, [100, 100, 400]);
    let asked: Vec<_> = sim
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Regroup {
                at_boundary,
                reason,
                ..
            } => Some((*at_boundary, reason.as_str())),
            _ => None,
        })
        .collect();
    let reason = "micro-batches are shared out anew, [3, 2, 1] by rank instead of [2, 2, 2]: a step then takes 50 % of the time";
    assert_eq!(asked, [(true, reason)]);
    for n in 0..3 {
        sim.standby(n, 10);
    }
    let (shares, _) = begun(&sim.effects).pop().unwrap();
    assert_eq!(shares.weights(), [3, 2, 1]);

    // What suits is kept.
    for n in 0..3 {
        sim.ready(n);
    }
    at_paces(&mut sim, 10..38, [100, 100, 400]);
    assert_eq!(begun(&sim.effects).len(), 2);
}

#[test]
fn a_replica_that_differs_takes_the_state_of_the_others_and_is_shut_out_in_the_end() {
    differs_again_and_again("state hash", hash_differs);
    differs_again_and_again("loss", |step, differs| StepReport {
        loss_bits: u64::from(differs),
        ..report(step)
    });
}

fn hash_differs(step: u64, differs: bool) -> StepReport {
    StepReport {
        state_hash: Some(if differs { "bb" } else { "aa" }.to_owned()),
        ..report(step)
    }
}

/// Worker 0 reports something else than the two others, three times.
fn differ_three_times(sim: &mut Sim, report: impl Fn(u64, bool) -> StepReport) {
    for offence in 0..3u64 {
        sim.progress_of(2, report(offence, false));
        sim.progress_of(0, report(offence, true));
        sim.progress_of(1, report(offence, false));
        if offence == 2 {
            break;
        }
        sim.standby(0, offence + 1);
        sim.standby(1, offence + 1);
        let next = super::begun(&sim.standby(2, offence + 1)).unwrap();
        assert_eq!(next.2, Source::Peers(vec![1, 2]), "worker-0 receives");
        for n in 0..3 {
            sim.ready(n);
        }
    }
}

/// What comes of it in a run that can do with two.
fn differs_again_and_again(what: &str, report: impl Fn(u64, bool) -> StepReport) {
    let mut sim = Sim::training_as(elastic(3));
    differ_three_times(&mut sim, report);
    assert_eq!(
        sim.warnings()[0],
        format!(
            "replicas differ after 1 step: the {what} of worker-0 is not that of worker-1 and worker-2: \
             it takes the state from them"
        )
    );
    assert!(
        sim.warnings()[2]
            .ends_with("3 times now: worker-0 is shut out, look at its device, cpu of here")
    );

    // It is not started again, and the others go on without it
    assert_eq!(launched(&sim.exited(0, ProcessEnd::Signal(9))), [""; 0]);
    sim.standby(1, 3);
    let next = super::begun(&sim.standby(2, 3)).unwrap();
    assert_eq!((next.1, next.2), (3, Source::Peers(vec![0, 1])));
    sim.ready(1);
    sim.ready(2);
    for n in [1, 2] {
        assert_eq!(launched(&sim.progress(n, 3)), [""; 0]);
    }
    assert_eq!(sim.decided(), None);
}

#[test]
fn a_run_that_cannot_do_without_the_one_that_is_shut_out_ends_with_a_checkpoint() {
    let mut sim = Sim::training_as(Config {
        min_workers: 3,
        ..elastic(3)
    });
    differ_three_times(&mut sim, hash_differs);
    sim.exited(0, ProcessEnd::Signal(9));

    // The two that are left are fewer than the run may go on with; they hand over what they hold
    sim.standby(1, 3);
    let next = super::begun(&sim.standby(2, 3)).unwrap();
    assert_eq!((next.1, next.3.snapshot, next.3.finish), (3, true, true));
    for n in [1, 2] {
        sim.ready(n);
    }
    sim.checkpointed(3);
    for n in [1, 2] {
        sim.leave(n, 3, LeaveReason::Finished);
    }
    let ending = sim.ending();
    assert_eq!((ending.kind, ending.exit_code), (EndKind::Stopped, 75));
    assert!(
        ending.reason.contains(
            "worker-0 is shut out, look at its device, cpu of here; 2 workers are left, which are too few: resume without \
             that device; the state after 3 steps was handed over"
        ),
        "{}",
        ending.reason
    );
}

#[test]
fn two_replicas_that_differ_cannot_tell_who_is_right() {
    let mut sim = Sim::training(2);
    for (n, hash) in [(0, "aa"), (1, "bb")] {
        sim.progress_of(
            n,
            StepReport {
                state_hash: Some(hash.to_owned()),
                ..report(0)
            },
        );
    }
    assert_eq!(sim.ending().exit_code, 1);
}
