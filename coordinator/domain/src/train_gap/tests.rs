//! Sides of one kind and of different ones.

use super::*;
use crate::average_precision::mean_average_precision;

type Side = (Vec<f32>, Labels);

/// Scores and labels: every class is in one picture of `every`, and with `noise` of 0 ranked first.
fn side((samples, classes): (u32, u32), every: usize, noise: f32, seed: u64) -> Side {
    let mut random = Random(seed);
    let mut labels = Labels::new(samples, classes);
    let mut scores = Vec::new();
    for sample in 0..samples {
        for class in 0..classes {
            let positive = random.below(every) == 0;
            if positive {
                labels.insert(sample, class).unwrap();
            }
            let wobble = random.below(1 << 20) as f32 / (1 << 20) as f32;
            scores.push(f32::from(u8::from(positive)) + noise * wobble);
        }
    }
    (scores, labels)
}

fn matrix((scores, labels): &Side) -> ScoreMatrix<'_> {
    let (samples, classes) = (labels.samples(), labels.classes());
    ScoreMatrix::new(scores, samples, classes, Layout::SampleMajor).unwrap()
}

fn gap_of(train: &Side, val: &Side) -> Gap {
    let found = gap((&matrix(train), &train.1), (&matrix(val), &val.1), 7);
    let found = found.unwrap().unwrap();
    assert!(found.low <= found.high);
    found
}

#[test]
fn sides_of_one_kind_are_no_defect_at_any_sizes() {
    // At 2,000 and 500 pictures of which 3.7 % show a class, AP of the smaller side is higher by itself: an interval
    // around the difference alone would be below 0 nearly every time.
    for (train, val) in [(400, 100), (100, 400), (200, 200)] {
        let defects = (0..40).filter(|&seed| {
            let train = side((train, 12), 27, 3.0, seed);
            let val = side((val, 12), 27, 3.0, 1000 + seed);
            gap_of(&train, &val).is_a_defect()
        });
        // One in forty is expected: of 40 there are five or more once in three hundred such tests.
        let defects = defects.count();
        assert!(defects <= 4, "{train} and {val} pictures: {defects} of 40");
    }
}

#[test]
fn the_difference_is_that_of_the_exact_figures() {
    let (train, val) = (side((300, 1), 4, 2.0, 1), side((200, 1), 4, 2.0, 2));
    let map = |side: &Side| {
        let exact = mean_average_precision(&matrix(side), &side.1).unwrap();
        exact.map.unwrap()
    };
    let found = gap_of(&train, &val).difference;
    assert!((found - (map(&train) - map(&val))).abs() < 1e-12);
}

#[test]
fn training_scores_without_meaning_are_a_defect_and_those_of_validation_are_none() {
    for (train, val) in [(2000, 500), (500, 2000)] {
        let (good, bad) = (side((val, 6), 27, 0.5, 1), side((train, 6), 27, 50.0, 2));
        let found = gap_of(&bad, &good);
        assert!(found.is_a_defect(), "{found:?}");
        assert!(found.text().contains("more than noise"));
        assert!(!gap_of(&good, &bad).is_a_defect());
    }
}

#[test]
fn a_difference_of_few_pictures_is_noise() {
    let found = gap_of(&side((12, 1), 3, 3.0, 3), &side((12, 1), 3, 3.0, 4));
    assert!(found.high - found.low > 0.1, "{found:?}");
}

#[test]
fn what_chance_makes_of_a_proportion_is_known() {
    // All scores are equal, so AP is the share of positives: that of 800 pictures with a quarter shared out to two sides
    // differs with a standard error of sqrt(.25 * .75 * (1/400 + 1/400)) = 0.0306, and 95 % is 1.96 of that.
    let mut flat = side((400, 1), 4, 0.0, 5);
    flat.0.fill(1.0);
    let share = f64::from(flat.1.support()[0]) / 400.0;
    let found = gap_of(&flat, &flat);
    let half = (found.high - found.low) / 2.0;
    let expected = 1.96 * (share * (1.0 - share) / 200.0).sqrt();
    assert!(
        (half - expected).abs() < 0.2 * expected,
        "{half} {expected}"
    );
    assert_eq!(found.difference, 0.0);
}

#[test]
fn classes_that_one_side_does_not_show_do_not_count() {
    let scores = [1.0, 0.0, 0.0, 1.0];
    let matrix = ScoreMatrix::new(&scores, 2, 2, Layout::SampleMajor).unwrap();
    let first = Labels::from_lists(2, &[vec![0u32], vec![]]).unwrap();
    let second = Labels::from_lists(2, &[vec![1u32], vec![]]).unwrap();
    assert_eq!(gap((&matrix, &first), (&matrix, &second), 0).unwrap(), None);
}
