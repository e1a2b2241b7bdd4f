use domain::run_plan::RunShape;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::driver::smallest_config;

fn plan(samples: u32, epochs: u32) -> RunPlan {
    let shape = RunShape {
        seed: 3,
        samples,
        val_samples: 7,
        global_batch: 6,
        epochs,
        snapshot_every_steps: Some(4),
        ..smallest_config().shape
    };
    RunPlan::new(shape, 2).unwrap()
}

const EVALUATE: Opening = Opening {
    evaluate: true,
    snapshot: false,
    finish: false,
};

/// Every sample of the small validation split.
fn all() -> Vec<u32> {
    (0..7).collect()
}

/// Everything a rank is told while it works, and that it never holds less than an epoch ahead.
fn work_through(feeder: &mut Feeder, rank: u32, from: u64) -> Vec<plan_item::Item> {
    let mut items: Vec<plan_item::Item> = Vec::new();
    let mut next_step = from;
    let ahead = u64::from(feeder.plan.steps_per_epoch());
    loop {
        for plan in feeder.top_up(rank, next_step) {
            assert!(plan.encoded_len() < proto::MAX_MESSAGE_BYTES);
            assert!(!plan.items.is_empty());
            items.extend(plan.items.into_iter().filter_map(|item| item.item));
        }
        let planned = items.iter().rev().find_map(|item| match item {
            plan_item::Item::Step(step) => Some(step.step + 1),
            _ => None,
        });
        let finished = matches!(items.last(), Some(plan_item::Item::Finish(_)));
        assert!(finished || planned.is_some_and(|planned| planned >= next_step + ahead));
        if finished && planned.is_none_or(|planned| planned <= next_step) {
            return items;
        }
        next_step += 1;
    }
}

/// Items in a word each.
fn words(items: &[plan_item::Item]) -> Vec<String> {
    let word = |item: &plan_item::Item| match item {
        plan_item::Item::Step(step) => format!("step {}", step.step),
        plan_item::Item::Evaluation(evaluation) => format!("evaluate {}", evaluation.step),
        plan_item::Item::Snapshot(snapshot) => format!("snapshot {}", snapshot.step),
        plan_item::Item::Finish(_) => "finish".to_owned(),
    };
    items.iter().map(word).collect()
}

#[test]
fn a_rank_is_told_steps_evaluations_snapshots_and_the_end_in_order() {
    // 13 samples in sixes: two steps, the second with the one sample left over.
    let mut feeder = Feeder::new(
        plan(13, 2),
        (1, Assignment::even(2)),
        0,
        Opening::default(),
        all(),
        None,
    );
    let told = words(&work_through(&mut feeder, 0, 0));
    assert_eq!(
        told,
        [
            "step 0",
            "step 1",
            "evaluate 2",
            "snapshot 2",
            "step 2",
            "step 3",
            "evaluate 4",
            "snapshot 4",
            "finish"
        ]
    );
}

#[test]
fn a_run_cut_off_in_mid_epoch_ends_with_a_snapshot_there() {
    let mut feeder = Feeder::new(
        plan(13, 2),
        (1, Assignment::even(1)),
        0,
        Opening::default(),
        all(),
        Some(3),
    );
    let told = words(&work_through(&mut feeder, 0, 0));
    assert_eq!(
        told,
        [
            "step 0",
            "step 1",
            "evaluate 2",
            "snapshot 2",
            "step 2",
            "snapshot 3",
            "finish"
        ]
    );
}

#[test]
fn a_run_cut_off_at_an_epochs_end_is_evaluated_there() {
    let mut feeder = Feeder::new(
        plan(13, 2),
        (1, Assignment::even(1)),
        0,
        Opening::default(),
        all(),
        Some(2),
    );
    let told = words(&work_through(&mut feeder, 0, 0));
    assert_eq!(
        told,
        ["step 0", "step 1", "evaluate 2", "snapshot 2", "finish"]
    );
}

#[test]
fn a_part_that_begins_at_an_epochs_end_without_figures_evaluates_first_and_writes_nothing_again() {
    let mut feeder = Feeder::new(
        plan(13, 2),
        (2, Assignment::even(1)),
        2,
        EVALUATE,
        all(),
        None,
    );
    let told = words(&work_through(&mut feeder, 0, 2));
    assert_eq!(
        told,
        [
            "evaluate 2",
            "step 2",
            "step 3",
            "evaluate 4",
            "snapshot 4",
            "finish"
        ]
    );
}

#[test]
fn survivors_score_what_lacks_its_score_and_take_the_checkpoint_that_was_owed() {
    let opening = Opening {
        snapshot: true,
        ..EVALUATE
    };
    let mut feeder = Feeder::new(
        plan(13, 2),
        (3, Assignment::even(2)),
        2,
        opening,
        vec![1, 4, 6],
        None,
    );
    let mut scored = Vec::new();
    for rank in 0..2 {
        let told = work_through(&mut feeder, rank, 2);
        assert_eq!(words(&told)[..3], ["evaluate 2", "snapshot 2", "step 2"]);
        let plan_item::Item::Evaluation(evaluation) = &told[0] else {
            panic!("it evaluates first")
        };
        scored.extend(evaluation.sample_ids.clone());
    }
    assert_eq!(scored, [1, 4, 6]);
}

#[test]
fn a_generation_that_only_hands_over_does_no_step() {
    let opening = Opening {
        evaluate: false,
        snapshot: true,
        finish: true,
    };
    let mut feeder = Feeder::new(
        plan(13, 2),
        (3, Assignment::even(1)),
        3,
        opening,
        all(),
        None,
    );
    assert_eq!(
        words(&work_through(&mut feeder, 0, 3)),
        ["snapshot 3", "finish"]
    );
}

#[test]
fn a_run_resumed_at_its_end_only_finishes() {
    let mut feeder = Feeder::new(
        plan(13, 2),
        (2, Assignment::even(1)),
        4,
        Opening::default(),
        all(),
        None,
    );
    assert_eq!(words(&work_through(&mut feeder, 0, 4)), ["finish"]);
}

#[test]
fn permutations_that_every_rank_has_been_handed_are_dropped() {
    let mut feeder = Feeder::new(
        plan(13, 6),
        (1, Assignment::even(3)),
        0,
        Opening::default(),
        all(),
        None,
    );
    for rank in 0..3 {
        work_through(&mut feeder, rank, 0);
        assert_eq!(
            feeder.epochs.is_empty(),
            rank == 2,
            "the slowest rank needs them"
        );
    }
    assert!(feeder.ranks_at.is_empty());
}

#[test]
fn a_big_split_comes_in_messages_below_the_limit() {
    // 100,000 samples to score by one rank, and steps of 3,000 samples.
    let shape = RunShape {
        seed: 3,
        samples: 300_000,
        val_samples: 100_000,
        global_batch: 3000,
        micro_batch: 1500,
        snapshot_every_epochs: None,
        ..smallest_config().shape
    };
    let mut feeder = Feeder::new(
        RunPlan::new(shape, 1).unwrap(),
        (1, Assignment::even(1)),
        0,
        Opening::default(),
        all(),
        None,
    );
    let items = work_through(&mut feeder, 0, 0);
    let scored: Vec<(usize, bool)> = items
        .iter()
        .filter_map(|item| match item {
            plan_item::Item::Evaluation(evaluation) => {
                Some((evaluation.sample_ids.len(), evaluation.last))
            }
            _ => None,
        })
        .collect();
    assert_eq!(scored.iter().map(|(ids, _)| ids).sum::<usize>(), 100_000);
    assert!(scored.len() > 1);
    assert!(
        scored.iter().rev().skip(1).all(|(_, last)| !last)
            && scored.last().is_some_and(|(_, last)| *last)
    );
}

proptest! {
    #[test]
    fn ranks_together_are_told_every_sample_once_an_epoch(
        samples in 2u32..60, epochs in 1u32..4, world_size in 1u32..5, cut in proptest::option::of(1u64..20),
    ) {
        let plan = plan(samples, epochs);
        let mut feeder = Feeder::new(plan, (1, Assignment::even(world_size)), 0, Opening::default(), all(), cut);
        let end = cut.map_or(plan.total_steps(), |cut| cut.min(plan.total_steps()));
        let (mut trained, mut scored) = (Vec::new(), Vec::new());
        for rank in 0..world_size {
            for item in work_through(&mut feeder, rank, 0) {
                match item {
                    plan_item::Item::Step(step) => {
                        prop_assert!(step.step < end);
                        let ids = step.micro_batches.into_iter().flat_map(|batch| batch.sample_ids);
                        trained.extend(ids.map(|id| (step.epoch, id)));
                    }
                    plan_item::Item::Evaluation(evaluation) => {
                        scored.extend(evaluation.sample_ids.into_iter().map(|id| (evaluation.step, id)));
                    }
                    _ => {}
                }
            }
        }
        trained.sort_unstable();
        scored.sort_unstable();
        let whole_epochs = end / u64::from(plan.steps_per_epoch());
        let mut expected: Vec<(u32, u32)> = Vec::new();
        for step in 0..end {
            let epoch = plan.epoch_of(step);
            let ids = plan.epoch_plan(epoch).samples_of_step(plan.step_in_epoch(step)).to_vec();
            expected.extend(ids.into_iter().map(|id| (epoch, id)));
        }
        expected.sort_unstable();
        prop_assert_eq!(trained, expected);
        let steps = u64::from(plan.steps_per_epoch());
        let to_score: Vec<_> = (1..=whole_epochs).flat_map(|e| (0..7).map(move |id| (e * steps, id))).collect();
        prop_assert_eq!(scored, to_score);
    }
}
