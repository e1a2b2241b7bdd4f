use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn shape(samples: u32, global_batch: u32, micro_batch: u32) -> EpochShape {
    EpochShape::new(samples, global_batch, micro_batch, 2).unwrap()
}

/// The sizes of an epoch's micro-batches, step by step.
fn sizes(samples: u32, global_batch: u32, micro_batch: u32) -> Vec<Vec<u32>> {
    shape(samples, global_batch, micro_batch)
        .steps()
        .map(|step| {
            step.micro_batches
                .iter()
                .map(|range| range.end - range.start)
                .collect()
        })
        .collect()
}

#[rstest]
#[case::whole_steps(12, 6, 2, vec![vec![2, 2, 2], vec![2, 2, 2]])]
#[case::a_shorter_last_step(15, 6, 3, vec![vec![3, 3], vec![3, 3], vec![3]])]
#[case::a_shorter_last_micro_batch(11, 6, 3, vec![vec![3, 3], vec![3, 2]])]
#[case::one_left_over_joins_its_neighbour(10, 6, 3, vec![vec![3, 3], vec![4]])]
#[case::one_left_over_joins_the_step_before(13, 6, 3, vec![vec![3, 3], vec![3, 4]])]
#[case::one_left_over_from_steps_of_one_micro_batch(5, 2, 2, vec![vec![2], vec![3]])]
#[case::a_split_smaller_than_a_micro_batch(3, 8, 4, vec![vec![3]])]
#[case::a_split_smaller_than_a_step(7, 8, 2, vec![vec![2, 2, 3]])]
#[case::a_split_of_one_more_than_a_step(9, 8, 8, vec![vec![9]])]
#[case::two_samples(2, 64, 32, vec![vec![2]])]
fn an_epoch_is_cut_into(
    #[case] samples: u32,
    #[case] global_batch: u32,
    #[case] micro_batch: u32,
    #[case] expected: Vec<Vec<u32>>,
) {
    assert_eq!(sizes(samples, global_batch, micro_batch), expected);
}

#[rstest]
#[case::micro_batch_of_one((5, 2, 1), "step 0, micro-batch 0 would be a slice of one sample (train.global_batch = 2, train.micro_batch = 1, workers = 2): batch normalisation needs at least two, set train.micro_batch to 2 or more")]
#[case::split_of_one((1, 4, 2), "step 0, micro-batch 0 would be a slice of one sample (train.global_batch = 4, workers = 2): the training split holds 1 image and batch normalisation needs at least two, add images to the split")]
#[case::split_of_none((0, 4, 2), "the training split holds no image: check the annotation file and the image folder of this split")]
#[case::micro_batch_above_global_batch((9, 4, 8), "train.micro_batch = 8 is larger than train.global_batch = 4: lower train.micro_batch or raise train.global_batch to a multiple of it")]
#[case::not_a_multiple((99, 10, 4), "train.global_batch = 10 is not a multiple of train.micro_batch = 4: set train.global_batch to 8 or another multiple, or train.micro_batch to a divisor of 10")]
#[case::no_global_batch((9, 0, 4), "train.global_batch is 0: set it to at least 1")]
#[case::no_micro_batch((9, 4, 0), "train.micro_batch is 0: set it to at least 1")]
fn figures_that_are_no_epoch_are_refused(#[case] figures: (u32, u32, u32), #[case] text: &str) {
    let (samples, global_batch, micro_batch) = figures;
    let error = EpochShape::new(samples, global_batch, micro_batch, 2).unwrap_err();
    assert_eq!(error.to_string(), text);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let texts: Vec<_> = EpochShape::mistakes(0, 0, 0, 1)
        .iter()
        .map(|mistake| mistake.to_string())
        .collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
}

#[rstest]
#[case(6, 1, &[6])]
#[case(6, 2, &[3, 3])]
#[case(6, 4, &[2, 2, 1, 1])]
#[case::spares(2, 4, &[1, 1, 0, 0])]
#[case::nothing_to_do(0, 2, &[0, 0])]
#[case::nobody(3, 0, &[])]
fn micro_batches_go_to_ranks(
    #[case] count: usize,
    #[case] world_size: u32,
    #[case] expected: &[usize],
) {
    let lengths: Vec<_> = assign(count, world_size)
        .iter()
        .map(ExactSizeIterator::len)
        .collect();
    assert_eq!(lengths, expected);
}

#[test]
fn a_rank_gets_the_micro_batches_of_its_part_of_the_step() {
    // Given an epoch of 13 samples in steps of 6, micro-batches of 2, the second epoch of a run
    let epoch = EpochPlan::new(shape(13, 6, 2), 7, 1);
    assert_eq!(epoch.first_step(), 2);
    let order = permutation(7, 1, 13);

    // When the second of two ranks asks for its work
    let steps = epoch.rank_steps(2..4, 1, &Assignment::even(2)).unwrap();

    // Then it has the third micro-batch of each step, the last one with the sample left over
    assert_eq!(
        steps,
        [
            RankStep {
                step: 2,
                epoch: 1,
                micro_batches: vec![MicroBatch {
                    index: 2,
                    sample_ids: order[4..6].to_vec()
                }],
                samples_in_step: 6,
            },
            RankStep {
                step: 3,
                epoch: 1,
                micro_batches: vec![MicroBatch {
                    index: 2,
                    sample_ids: order[10..13].to_vec()
                }],
                samples_in_step: 7,
            },
        ]
    );
}

#[test]
fn a_spare_rank_takes_part_with_nothing() {
    let epoch = EpochPlan::new(shape(8, 4, 2), 0, 0);
    let steps = epoch.rank_steps(0..2, 2, &Assignment::even(3)).unwrap();
    assert_eq!(steps.len(), 2);
    assert!(
        steps
            .iter()
            .all(|step| step.micro_batches.is_empty() && step.samples_in_step == 4)
    );
}

#[test]
fn questions_without_an_answer_are_refused() {
    let epoch = EpochPlan::new(shape(8, 4, 2), 0, 3);
    assert_eq!(
        epoch
            .rank_steps(6..7, 2, &Assignment::even(2))
            .unwrap_err()
            .to_string(),
        "rank 2 does not exist in a world of 2: ask for a lower rank"
    );
    assert_eq!(
        epoch
            .rank_steps(7..9, 0, &Assignment::even(2))
            .unwrap_err()
            .to_string(),
        "steps 7..9 are not all in 6..8: ask for a stretch inside"
    );
    assert!(epoch.samples_of_step(2).is_empty());
}

#[test]
fn ranks_that_remain_share_the_samples_still_without_a_score() {
    let unscored = [3, 4, 9, 11, 12];
    assert_eq!(unscored[share(5, 2, 0)], [3, 4, 9]);
    assert_eq!(unscored[share(5, 2, 1)], [11, 12]);
    assert_eq!((share(0, 2, 0), share(0, 2, 1)), (0..0, 0..0));
    assert_eq!(share(5, 2, 2), 0..0, "no such rank");
}

/// All ranks' shares.
fn assign(count: usize, world_size: u32) -> Vec<Range<usize>> {
    (0..world_size)
        .map(|rank| share(count, world_size, rank))
        .collect()
}

/// Figures that make an epoch, with micro-batches of two or more.
fn figures() -> impl Strategy<Value = (u32, u32, u32)> {
    (2u32..400, 1u32..9, 2u32..9)
        .prop_map(|(samples, m, micro_batch)| (samples, m * micro_batch, micro_batch))
}

proptest! {
    #[test]
    fn an_epoch_holds_every_sample_exactly_once_at_any_world_size(
        (samples, global_batch, micro_batch) in figures(),
        world_size in 1u32..12,
        seed: u64,
        epoch in 0u32..5,
    ) {
        let shape = shape(samples, global_batch, micro_batch);
        let plan = EpochPlan::new(shape, seed, epoch);
        let first = plan.first_step();
        let steps = first..first + u64::from(shape.steps_per_epoch());
        let mut seen = Vec::new();
        for rank in 0..world_size {
            for step in plan.rank_steps(steps.clone(), rank, &Assignment::even(world_size)).unwrap() {
                seen.extend(step.micro_batches.into_iter().flat_map(|batch| batch.sample_ids));
            }
        }
        seen.sort_unstable();
        prop_assert!(seen.into_iter().eq(0..samples));
    }

    #[test]
    fn no_micro_batch_is_one_sample_and_none_is_larger_than_one_more(
        (samples, global_batch, micro_batch) in figures(),
    ) {
        let mut next = 0;
        for step in shape(samples, global_batch, micro_batch).steps() {
            prop_assert!(!step.micro_batches.is_empty());
            prop_assert!(step.micro_batches.len() as u32 <= global_batch / micro_batch);
            prop_assert!(step.samples() <= global_batch + 1);
            for range in step.micro_batches {
                prop_assert_eq!(range.start, next);
                next = range.end;
                let size = range.end - range.start;
                prop_assert!((2..=micro_batch + 1).contains(&size), "{}", size);
            }
        }
        prop_assert_eq!(next, samples);
    }

    #[test]
    fn micro_batches_are_the_same_whatever_the_world_size(
        (samples, global_batch, micro_batch) in figures(),
        world_size in 2u32..12,
        seed: u64,
    ) {
        let shape = shape(samples, global_batch, micro_batch);
        let plan = EpochPlan::new(shape, seed, 0);
        let steps = 0..u64::from(shape.steps_per_epoch());
        let alone = plan.rank_steps(steps.clone(), 0, &Assignment::even(1)).unwrap();
        let ranks: Vec<_> = (0..world_size)
            .map(|rank| plan.rank_steps(steps.clone(), rank, &Assignment::even(world_size)).unwrap())
            .collect();
        for (at, step) in alone.iter().enumerate() {
            // In the order of ranks, together they are the step of a single rank.
            let together: Vec<_> =
                ranks.iter().flat_map(|steps| steps[at].micro_batches.clone()).collect();
            prop_assert_eq!(&together, &step.micro_batches);
            prop_assert!(ranks.iter().all(|r| r[at].samples_in_step == step.samples_in_step));
        }
    }

    #[test]
    fn ranges_touch_and_differ_by_at_most_one(count in 0usize..300, world_size in 1u32..40) {
        let ranges = assign(count, world_size);
        prop_assert_eq!(ranges.len(), world_size as usize);
        let mut next = 0;
        for range in &ranges {
            prop_assert_eq!(range.start, next);
            next = range.end;
        }
        prop_assert_eq!(next, count);
        let lengths = ranges.iter().map(ExactSizeIterator::len);
        prop_assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1);
        for (rank, range) in (0u32..).zip(&ranges) {
            let scored = share_of_evaluation(count as u32, world_size, rank);
            prop_assert_eq!((scored.start as usize, scored.end as usize), (range.start, range.end));
        }
    }
}
