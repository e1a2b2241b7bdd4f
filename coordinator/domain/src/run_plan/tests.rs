use proptest::prelude::*;

use super::*;
use crate::assignment::Assignment;

/// Three epochs of three steps.
fn three_by_three() -> RunShape {
    RunShape {
        seed: 5,
        samples: 10,
        val_samples: 4,
        further_rows: 0,
        early_stopping: None,
        global_batch: 4,
        micro_batch: 2,
        epochs: 3,
        evaluate_every_epochs: 1,
        snapshot_every_steps: None,
        snapshot_every_epochs: None,
    }
}

fn plan(shape: RunShape) -> RunPlan {
    RunPlan::new(shape, 2).unwrap()
}

/// One letter an item: the step's digit, E, S, or a full stop.
fn course(plan: &RunPlan, from: u64) -> String {
    plan.items_from(from)
        .map(|item| match item {
            Item::Step(step) => step.to_string(),
            Item::Evaluate { .. } => "E".to_owned(),
            Item::Snapshot { .. } => "S".to_owned(),
            Item::Finish => ".".to_owned(),
        })
        .collect()
}

#[test]
fn an_epoch_ends_with_its_evaluation_and_then_its_snapshot() {
    let shape = RunShape {
        snapshot_every_epochs: Some(1),
        ..three_by_three()
    };
    assert_eq!(course(&plan(shape), 0), "012ES345ES678ES.");
}

#[test]
fn the_last_state_is_evaluated_and_kept_whatever_the_intervals() {
    let shape = RunShape {
        evaluate_every_epochs: 2,
        snapshot_every_epochs: Some(2),
        ..three_by_three()
    };
    assert_eq!(course(&plan(shape), 0), "012345ES678ES.");
}

#[test]
fn a_snapshot_may_fall_inside_an_epoch_and_never_comes_twice() {
    let shape = RunShape {
        snapshot_every_steps: Some(2),
        snapshot_every_epochs: Some(1),
        ..three_by_three()
    };
    assert_eq!(course(&plan(shape), 0), "01S2ES3S45ES67S8ES.");
}

#[test]
fn items_tell_where_they_stand() {
    let plan = plan(three_by_three());
    let items: Vec<_> = plan.items_from(5).take(3).collect();
    assert_eq!(
        items,
        [
            Item::Step(5),
            Item::Evaluate {
                steps_done: 6,
                epoch: 1
            },
            Item::Step(6)
        ]
    );
    assert_eq!(plan.next(Item::Finish), None);
    assert_eq!(plan.item_at(9), Item::Finish);
}

#[test]
fn steps_and_epochs_turn_into_each_other() {
    let plan = plan(three_by_three());
    assert_eq!((plan.steps_per_epoch(), plan.total_steps()), (3, 9));
    assert_eq!((plan.epoch_of(5), plan.step_in_epoch(5)), (1, 2));
    assert_eq!(plan.steps_of_epoch(2), 6..9);
    assert_eq!(plan.samples_done(0), 0);
    assert_eq!(plan.samples_done(2), 8);
    assert_eq!(plan.samples_done(3), 10);
    assert_eq!(plan.samples_done(9), 30);
}

#[test]
fn a_stretch_over_an_epochs_end_takes_each_epochs_own_order() {
    let plan = plan(three_by_three());
    let steps = plan.rank_steps(2..4, 0, &Assignment::even(1)).unwrap();
    let epochs: Vec<_> = steps.iter().map(|step| (step.step, step.epoch)).collect();
    assert_eq!(epochs, [(2, 0), (3, 1)]);
    assert_eq!(
        steps[1].micro_batches[0].sample_ids,
        crate::permutation::permutation(5, 1, 10)[..2]
    );
    assert!(plan.rank_steps(8..10, 0, &Assignment::even(1)).is_err());
    assert_eq!(plan.rank_steps(4..4, 0, &Assignment::even(1)).unwrap(), []);
}

#[test]
fn every_mistake_is_told_at_once() {
    let shape = RunShape {
        micro_batch: 1,
        val_samples: 0,
        further_rows: 0,
        early_stopping: None,
        epochs: 0,
        evaluate_every_epochs: 0,
        snapshot_every_steps: Some(0),
        snapshot_every_epochs: Some(0),
        ..three_by_three()
    };
    let mistakes = shape.mistakes(8);
    assert_eq!(mistakes.len(), 6, "{mistakes:?}");
    assert!(
        mistakes[0].to_string().contains("workers = 8"),
        "{}",
        mistakes[0]
    );
    assert_eq!(RunPlan::new(shape, 8).unwrap_err(), mistakes[0]);
}

proptest! {
    #[test]
    fn a_run_cut_anywhere_goes_on_as_if_it_had_not_been(
        every_steps in proptest::option::of(1u64..7),
        every_epochs in proptest::option::of(1u32..4),
        evaluate_every_epochs in 1u32..4,
        cut in 0u64..10,
    ) {
        let plan = plan(RunShape {
            evaluate_every_epochs,
            snapshot_every_steps: every_steps,
            snapshot_every_epochs: every_epochs,
            ..three_by_three()
        });
        let whole: Vec<_> = plan.items_from(0).collect();
        let rest: Vec<_> = plan.items_from(cut).collect();
        prop_assert!(whole.ends_with(&rest));
        let steps = whole.iter().filter_map(|item| match item {
            Item::Step(step) => Some(*step),
            _ => None,
        });
        prop_assert!(steps.eq(0..9));
        let end = [
            Item::Evaluate { steps_done: 9, epoch: 2 },
            Item::Snapshot { steps_done: 9 },
            Item::Finish,
        ];
        prop_assert!(whole.ends_with(&end));
    }
}
