//! Evaluations: figures that are awaited, and those that end a run early.

use super::*;

pub(super) fn evaluate(sim: &mut Sim, step: u64) {
    evaluate_to(sim, step, None);
}

/// All samples are scored and their figures are there; what came of that.
fn evaluate_to(sim: &mut Sim, step: u64, map: Option<f64>) -> Vec<Effect> {
    sim.happen(Event::Scored {
        step,
        scored: VAL,
        samples: VAL,
    });
    sim.happen(Event::Evaluated {
        step,
        problem: None,
        map_bits: map.map(f64::to_bits),
    })
}

#[test]
fn scores_and_figures_that_are_heard_before_the_commit_of_their_step_count() {
    for figures_too in [false, true] {
        // Given ranks whose scores overtake what they report of the step, and perhaps the figures do too
        let mut sim = Sim::training(2);
        sim.all_do(2, 0);
        sim.all_do(2, 1);
        evaluate(&mut sim, 2);
        sim.all_do(2, 2);
        sim.happen(Event::Scored {
            step: 4,
            scored: VAL,
            samples: VAL,
        });
        if figures_too {
            evaluate(&mut sim, 4);
        }
        sim.all_do(2, 3);

        // When the run comes to its end
        sim.checkpointed(4);
        sim.leave(0, 4, LeaveReason::Finished);
        sim.leave(1, 4, LeaveReason::Finished);
        sim.all_go(2);
        assert_eq!(sim.is_over(), figures_too, "{}", sim.reason);
        if !figures_too {
            evaluate(&mut sim, 4);
        }

        // Then it has waited for the figures that were still to come, and misses none
        assert!(sim.is_over());
        assert_eq!(sim.warnings(), Vec::<&str>::new());
    }
}

#[test]
fn a_run_whose_map_gets_no_better_asks_all_ranks_to_stop_and_is_finished() {
    // Given a run whose second evaluation has no better mAP
    let (mut sim, effects) = no_better();

    // Then its ranks are asked to stop, in words that say why
    assert_eq!(effects, [Effect::Stop { reason: WHY.into() }]);
    let shown = format!("stopping (asked by {WHY})");
    assert!(sim.reason.starts_with(&shown), "{}", sim.reason);

    // And it is finished, although an evaluation was begun meanwhile that nobody waits for
    sim.all_do(2, 4);
    sim.all_do(2, 5);
    sim.all_do(2, 6);
    sim.checkpointed(7);
    sim.leave(0, 7, LeaveReason::Stopped);
    sim.leave(1, 7, LeaveReason::Stopped);
    let reason = format!("finished early after 7 of 8 steps ({WHY})");
    assert_eq!(
        (sim.ending().kind, sim.ending().exit_code),
        (EndKind::Finished, 0)
    );
    assert_eq!(sim.ending().reason, reason);
    assert_eq!(sim.warnings(), Vec::<&str>::new());
}

#[test]
fn a_person_who_asks_for_a_stop_while_the_run_ends_early_has_it_stopped_and_not_cut_off() {
    let (mut sim, _) = no_better();
    let asked = Event::StopAsked {
        by: "SIGINT".into(),
    };
    assert_eq!(sim.happen(asked.clone()), []);
    assert!(sim.reason.starts_with("stopping (asked by SIGINT)"));
    sim.checkpointed(4);
    sim.leave(0, 4, LeaveReason::Stopped);
    sim.leave(1, 4, LeaveReason::Stopped);
    assert_eq!(
        (sim.ending().kind, sim.ending().exit_code),
        (EndKind::Stopped, 0)
    );

    // and a second request is the second
    let (mut sim, _) = no_better();
    sim.happen(asked.clone());
    sim.happen(asked);
    assert_eq!(sim.ending().exit_code, 75);
}

#[test]
fn figures_that_a_resumed_run_finds_to_be_one_too_many_without_a_better_one_finish_it() {
    // Its coordinator was killed when it had all scores, and its workers with it.
    let mut config = config(2, true);
    config.shape.epochs = 4;
    config.shape.early_stopping = Some(1);
    (config.begins_at_step, config.from_checkpoint) = (4, true);
    config.maps = [(2, 0.25_f64.to_bits())].into();
    let mut sim = Sim::new(config);
    evaluate_to(&mut sim, 4, Some(0.25));
    let reason = format!("finished early after 4 steps ({WHY})");
    assert_eq!(
        (sim.ending().kind, sim.ending().reason.as_str()),
        (EndKind::Finished, reason.as_str())
    );
}

const WHY: &str = "train.early_stopping = 1: no mAP since above the 25.00 % after epoch 1";

/// A run that stops after one evaluation without a better mAP, its second evaluation, and what came of that.
fn no_better() -> (Sim, Vec<Effect>) {
    let mut config = config(2, true);
    config.shape.epochs = 4;
    config.shape.early_stopping = Some(1);
    let mut sim = Sim::training_as(config);
    sim.all_do(2, 0);
    sim.all_do(2, 1);
    assert_eq!(evaluate_to(&mut sim, 2, Some(0.25)), []);
    sim.all_do(2, 2);
    sim.all_do(2, 3);
    let effects = evaluate_to(&mut sim, 4, Some(0.25));
    (sim, effects)
}

fn asked_to_a_boundary(effects: &[Effect]) -> Option<&str> {
    effects.iter().find_map(|effect| match effect {
        Effect::Regroup {
            workers,
            at_boundary: true,
            reason,
        } if workers.len() == 2 => Some(reason.as_str()),
        _ => None,
    })
}

fn half_scored(step: u64) -> Event {
    Event::Scored {
        step,
        scored: VAL / 2,
        samples: VAL,
    }
}

#[test]
fn ranks_come_to_a_boundary_in_an_evaluation_for_one_that_was_told_to_end() {
    // Given an evaluation of which some samples are scored, when one of its ranks is told to end
    let mut sim = Sim::training_as(elastic(2));
    sim.all_do(2, 0);
    sim.all_do(2, 1);
    sim.happen(half_scored(2));
    assert_eq!(sim.reason, "evaluating after epoch 1 of 2");
    let effects = sim.told_to_end(1);

    // Then both are asked to leave, once, and those who are left score the rest
    assert_eq!(
        asked_to_a_boundary(&effects),
        Some("worker-1 was told to end")
    );
    assert_eq!(sim.told_to_end(1), []);
    sim.checkpointed(2);
    sim.leave(1, 2, LeaveReason::Signalled);
    let next = begun(&sim.standby(0, 2)).unwrap();
    assert_eq!((next.1, next.2), (2, Source::Peers(vec![0])));
    assert!(next.3.evaluate && !next.3.snapshot, "{:?}", next.3);
    sim.ready(0);
    assert_eq!(sim.reason, "evaluating after epoch 1 of 2");
}

#[test]
fn one_that_is_told_to_end_before_an_evaluation_begins_does_not_have_to_wait_for_its_end() {
    // Its generation begins with what another one has left to score.
    let mut sim = Sim::training_as(elastic(3));
    sim.all_do(3, 0);
    sim.all_do(3, 1);
    sim.stream_lost(2);
    sim.standby(0, 2);
    assert!(begun(&sim.standby(1, 2)).unwrap().3.evaluate);
    assert_eq!(asked_to_a_boundary(&sim.told_to_end(1)), None);
    sim.ready(0);
    let effects = sim.ready(1);
    assert_eq!(
        asked_to_a_boundary(&effects),
        Some("worker-1 was told to end")
    );

    // With everything done ranks leave by themselves, and nobody is asked to another generation for it.
    let mut sim = Sim::training(2);
    (0..4).for_each(|step| sim.all_do(2, step));
    evaluate(&mut sim, 2);
    evaluate(&mut sim, 4);
    assert_eq!(sim.told_to_end(1), []);
}

#[test]
fn a_stop_in_the_last_evaluation_leaves_the_rest_of_it_to_the_run_that_goes_on() {
    for scored in [half_scored(4), Event::Tick] {
        let mut sim = Sim::training(2);
        (0..4).for_each(|step| sim.all_do(2, step));
        evaluate(&mut sim, 2);
        sim.happen(scored);
        sim.happen(Event::StopAsked {
            by: "SIGTERM".into(),
        });
        sim.checkpointed(4);
        sim.leave(0, 4, LeaveReason::Stopped);
        sim.leave(1, 4, LeaveReason::Stopped);
        assert_eq!(
            (sim.ending().kind, sim.ending().reason.as_str()),
            (
                EndKind::Stopped,
                "stopped after 4 of 4 steps (asked by SIGTERM): resume with --resume"
            )
        );
    }
}
