use proptest::prelude::*;

use super::*;
use crate::run_plan::{Item, RunShape};

fn shape() -> RunShape {
    RunShape {
        seed: 5,
        samples: 10,
        val_samples: 4,
        further_rows: 0,
        early_stopping: None,
        global_batch: 4,
        micro_batch: 2,
        epochs: 3,
        evaluate_every_epochs: 2,
        snapshot_every_steps: None,
        snapshot_every_epochs: Some(1),
    }
}

fn keep(newest: u32) -> NonZeroU32 {
    NonZeroU32::new(newest).unwrap()
}

/// Steps of 2 s, of which 4 % is waiting; a worker by itself takes 1 s.
fn measured() -> Measured {
    Measured {
        start: 3.0,
        steps: vec![2.0; 8],
        images_per_step: 4,
        data_wait: 0.04,
        alone: Some(1.0),
        evaluation: 1.0,
        rows: 2,
        checkpoint: 0.5,
        checkpoint_written: 1.5,
        checkpoint_bytes: 100,
    }
}

#[test]
fn the_course_of_a_run_is_that_of_its_plan() {
    let plan = RunPlan::new(shape(), 2).unwrap();
    let course = Course::of(&plan, keep(1), None);
    assert_eq!(
        course,
        Course {
            steps: 9,
            images: 30,
            evaluations: 2,
            checkpoints: 3,
            checkpoints_at_once: 3,
        }
    );

    // One that stops earlier has what lies before, and a checkpoint of where it stopped
    let stopped = Course::of(&plan, keep(1), Some(4));
    assert_eq!(
        (
            stopped.steps,
            stopped.images,
            stopped.evaluations,
            stopped.checkpoints
        ),
        (4, 14, 0, 2)
    );
    assert_eq!(Course::of(&plan, keep(1), Some(3)).checkpoints, 1);
    assert_eq!(Course::of(&plan, keep(1), Some(99)), course);
}

#[test]
fn a_run_is_its_start_its_steps_its_evaluations_and_its_checkpoints() {
    let plan = RunPlan::new(shape(), 2).unwrap();
    let course = Course::of(&plan, keep(1), None);

    let estimate = estimate(&course, 10, 4, &measured()).unwrap();

    // 30 images are 7.5 steps of 2 s; 4 rows take 2 s; the last of three checkpoints is waited for
    assert_eq!(estimate.run.mean, 3.0 + 15.0 + 2.0 * 2.0 + 2.0 * 0.5 + 1.5);
    assert_eq!(estimate.epoch.mean, 5.0);
    assert_eq!(estimate.images_per_second.mean, 2.0);
    let of_steps = |share: f64| share / estimate.shares.steps();
    assert!((of_steps(estimate.shares.input) - 0.04).abs() < 1e-12);
    assert!((of_steps(estimate.shares.compute) - 0.5).abs() < 1e-12);
    assert!((of_steps(estimate.shares.communication) - 0.46).abs() < 1e-12);
    assert_eq!(estimate.bottleneck, Bottleneck::Compute);
}

#[test]
fn each_part_of_a_run_can_be_its_bottleneck() {
    let plan = RunPlan::new(shape(), 2).unwrap();
    let course = Course::of(&plan, keep(1), None);
    let found = |change: &dyn Fn(&mut Measured)| {
        let mut measured = measured();
        change(&mut measured);
        estimate(&course, 10, 4, &measured).unwrap().bottleneck
    };
    assert_eq!(found(&|_| {}), Bottleneck::Compute);
    // A wait beyond chance means that decoding sets the pace, though computing takes more of a step.
    assert_eq!(found(&|m| m.data_wait = 0.06), Bottleneck::Input);
    assert_eq!(found(&|m| m.alone = Some(0.9)), Bottleneck::Communication);
    assert_eq!(found(&|m| m.alone = None), Bottleneck::Compute);
    assert_eq!(found(&|m| m.evaluation = 20.0), Bottleneck::Evaluation);
    assert_eq!(
        found(&|m| m.checkpoint_written = 20.0),
        Bottleneck::Checkpoints
    );
    assert_eq!(found(&|m| m.start = 40.0), Bottleneck::Start);
}

#[test]
fn a_quarter_of_few_steps_is_one_of_them() {
    assert_eq!(spread(&[]), None);
    let of = |figures: &[f64]| {
        let Spread { low, mean, high } = spread(figures).unwrap();
        (low, mean, high)
    };
    assert_eq!(of(&[3.0]), (3.0, 3.0, 3.0));
    assert_eq!(of(&[4.0, 1.0, 2.0, 1.0]), (1.0, 2.0, 4.0));
    assert_eq!(of(&[1.0, 3.0, 5.0, 7.0, 9.0]), (2.0, 5.0, 8.0));
}

#[test]
fn nothing_measured_is_nothing_known() {
    let plan = RunPlan::new(shape(), 2).unwrap();
    let course = Course::of(&plan, keep(1), None);
    for empty in [
        Measured {
            steps: vec![],
            ..measured()
        },
        Measured {
            steps: vec![0.0],
            ..measured()
        },
        Measured {
            images_per_step: 0,
            ..measured()
        },
        Measured {
            rows: 0,
            ..measured()
        },
    ] {
        assert_eq!(estimate(&course, 10, 4, &empty), None, "{empty:?}");
    }
}

proptest! {
    #[test]
    fn the_course_counts_what_the_plan_lists(
        samples in 2u32..60,
        micro_batches in 1u32..5,
        epochs in 1u32..5,
        every in 1u32..4,
        by_steps in proptest::option::of(1u64..7),
        by_epochs in proptest::option::of(1u32..4),
        newest in 1u32..4,
    ) {
        let shape = RunShape {
            samples, global_batch: 2 * micro_batches, epochs, evaluate_every_epochs: every,
            snapshot_every_steps: by_steps, snapshot_every_epochs: by_epochs, ..shape()
        };
        let plan = RunPlan::new(shape, 2).unwrap();
        let course = Course::of(&plan, keep(newest), None);
        let count = |wanted: fn(&Item) -> bool| plan.items_from(0).filter(wanted).count() as u64;
        prop_assert_eq!(course.steps, count(|item| matches!(item, Item::Step(_))));
        prop_assert_eq!(course.evaluations, count(|item| matches!(item, Item::Evaluate { .. })));
        prop_assert_eq!(course.checkpoints, count(|item| matches!(item, Item::Snapshot { .. })));
        prop_assert_eq!(course.images, u64::from(samples) * u64::from(epochs));
    }

    #[test]
    fn shares_add_up_and_the_likely_lies_between_the_ends(
        steps in proptest::collection::vec(0.001f64..100.0, 1..20),
        data_wait in 0.0f64..1.5,
        alone in proptest::option::of(0.0f64..200.0),
        (start, evaluation, checkpoint, written) in (0.0f64..100.0, 0.0f64..100.0, -1.0f64..10.0, 0.0f64..10.0),
        rows in 1u32..1000,
    ) {
        let plan = RunPlan::new(shape(), 2).unwrap();
        let course = Course::of(&plan, keep(2), None);
        let probe = Measured {
            start, steps, data_wait, alone, evaluation, rows, checkpoint,
            checkpoint_written: written, ..measured()
        };
        let estimate = estimate(&course, 10, 4, &probe).unwrap();
        let shares = estimate.shares;
        let parts = [Bottleneck::Start, Bottleneck::Input, Bottleneck::Compute, Bottleneck::Communication,
            Bottleneck::Evaluation, Bottleneck::Checkpoints];
        let sum: f64 = parts.iter().map(|part| shares.of(*part)).sum();
        prop_assert!((sum - 1.0).abs() < 1e-9, "{}", sum);
        prop_assert!(parts.iter().all(|part| shares.of(*part) >= -1e-12), "{:?}", shares);
        for spread in [estimate.step, estimate.images_per_second, estimate.epoch, estimate.evaluation,
            estimate.checkpoint, estimate.run] {
            prop_assert!(spread.low <= spread.mean * (1.0 + 1e-12), "{:?}", spread);
            prop_assert!(spread.mean <= spread.high * (1.0 + 1e-12), "{:?}", spread);
        }
    }

    #[test]
    fn a_run_of_more_images_takes_longer_and_its_epoch_does_not(epochs in 1u32..9) {
        let of = |epochs: u32| {
            let plan = RunPlan::new(RunShape { epochs, ..shape() }, 2).unwrap();
            estimate(&Course::of(&plan, keep(2), None), 10, 4, &measured()).unwrap()
        };
        let (shorter, longer) = (of(epochs), of(epochs + 1));
        prop_assert!(shorter.run.mean < longer.run.mean);
        prop_assert_eq!(shorter.epoch, longer.epoch);
    }
}
