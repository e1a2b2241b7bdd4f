use proptest::prelude::*;

use super::*;

/// The definition, word for word and O(n²): every distinct score is a threshold.
fn by_definition(scores: &[f32], positive: &[bool]) -> Option<f64> {
    let total = positive.iter().filter(|positive| **positive).count();
    let mut thresholds = scores.to_vec();
    thresholds.sort_by(|a, b| b.partial_cmp(a).unwrap());
    thresholds.dedup();
    let mut recall_before = 0.0;
    let mut sum = 0.0;
    for threshold in thresholds {
        let taken = scores.iter().filter(|score| **score >= threshold).count();
        let found = scores
            .iter()
            .zip(positive)
            .filter(|(s, p)| **s >= threshold && **p)
            .count();
        let recall = found as f64 / total as f64;
        sum += (recall - recall_before) * (found as f64 / taken as f64);
        recall_before = recall;
    }
    (total > 0).then_some(sum)
}

fn labels(classes: u32, lists: &[Vec<u32>]) -> Labels {
    Labels::from_lists(classes, lists).unwrap()
}

#[test]
fn a_negative_zero_is_the_same_threshold_as_zero() {
    let ap = average_precision(&[0.0, -0.0], &[true, false]).unwrap();
    assert_eq!(ap, Some(0.5));
    assert_eq!(
        average_precision(&[-0.0, 0.0], &[true, false]).unwrap(),
        Some(0.5)
    );
}

#[test]
fn classes_without_a_positive_are_left_out_and_named() {
    // Given three samples; class 0 is ranked first, class 1 is shown by none, class 2 by all
    let scores = [0.9, 0.5, 0.1, 0.2, 0.6, 0.2, 0.1, 0.7, 0.3];
    let matrix = ScoreMatrix::new(&scores, 3, 3, Layout::SampleMajor).unwrap();
    let labels = labels(3, &[vec![0, 2], vec![2], vec![2]]);

    let figures = mean_average_precision(&matrix, &labels).unwrap();

    assert_eq!(
        figures,
        MeanAveragePrecision {
            map: Some(1.0),
            per_class: vec![Some(1.0), None, Some(1.0)],
            support: vec![1, 0, 3],
            classes_without_positive: vec![1],
            samples: 3,
            chance_map: Some((1.0 / 3.0 + 1.0) / 2.0),
        }
    );
}

#[test]
fn nothing_to_rank_has_no_figure() {
    let matrix = ScoreMatrix::new(&[], 0, 2, Layout::SampleMajor).unwrap();
    let figures = mean_average_precision(&matrix, &Labels::new(0, 2)).unwrap();
    assert_eq!((figures.map, figures.chance_map), (None, None));
    assert_eq!(figures.classes_without_positive, [0, 1]);
    let matrix = ScoreMatrix::new(&[], 3, 0, Layout::SampleMajor).unwrap();
    let figures = mean_average_precision(&matrix, &Labels::new(3, 0)).unwrap();
    assert_eq!((figures.map, figures.per_class.len()), (None, 0));
}

#[test]
fn chance_is_what_one_score_for_all_samples_reaches() {
    let scores = vec![0.25; 40];
    let labels = labels(
        4,
        &[
            vec![0],
            vec![0, 1],
            vec![],
            vec![],
            vec![3],
            vec![0],
            vec![],
            vec![],
            vec![],
            vec![0],
        ],
    );
    let matrix = ScoreMatrix::new(&scores, 10, 4, Layout::SampleMajor).unwrap();
    let figures = mean_average_precision(&matrix, &labels).unwrap();
    let (map, chance) = (figures.map.unwrap(), figures.chance_map.unwrap());
    assert!((map - chance).abs() < 1e-15);
    assert!((chance - (0.4 + 0.1 + 0.1) / 3.0).abs() < 1e-15);
}

#[test]
fn a_score_that_is_not_a_number_is_named() {
    let mut scores = vec![0.5; 3000 * 3];
    scores[2500 * 3 + 2] = f32::NAN;
    let labels = Labels::new(3000, 3);
    let rows = ScoreMatrix::new(&scores, 3000, 3, Layout::SampleMajor).unwrap();
    let error = mean_average_precision(&rows, &labels).unwrap_err();
    assert_eq!(
        error,
        ScoreError::NotANumber {
            sample: 2500,
            class: 2
        }
    );
    assert!(
        error
            .to_string()
            .starts_with("score of sample 2500, class 2 is not a number")
    );
    let columns = ScoreMatrix::new(&scores, 3000, 3, Layout::ClassMajor).unwrap();
    let error = mean_average_precision(&columns, &labels).unwrap_err();
    assert_eq!(
        error,
        ScoreError::NotANumber {
            sample: 1502,
            class: 2
        }
    );
}

#[test]
fn shapes_that_differ_are_refused() {
    assert!(ScoreMatrix::new(&[0.0; 5], 2, 3, Layout::SampleMajor).is_err());
    let scores = [0.0; 6];
    let matrix = ScoreMatrix::new(&scores, 2, 3, Layout::SampleMajor).unwrap();
    let error = mean_average_precision(&matrix, &Labels::new(3, 2)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "scores are 2 × 3 (samples × classes) but labels are 3 × 2: check that both are of the same split and class list"
    );
    assert!(average_precision(&[0.0; 3], &[true; 2]).is_err());
}

/// Scores with many ties and every special value, and labels of any prevalence.
fn ranked(samples: std::ops::Range<usize>) -> impl Strategy<Value = (Vec<f32>, Vec<bool>)> {
    let score = prop_oneof![
        (-3i8..4).prop_map(|n| f32::from(n) * 0.5),
        Just(-0.0f32),
        Just(f32::INFINITY),
        Just(f32::NEG_INFINITY),
        any::<f32>().prop_filter("a number", |score| !score.is_nan()),
    ];
    (samples, 0.0f64..1.0).prop_flat_map(move |(samples, prevalence)| {
        (
            proptest::collection::vec(score.clone(), samples),
            proptest::collection::vec(proptest::bool::weighted(prevalence), samples),
        )
    })
}

proptest! {
    /// A coordinator that takes a run over reads the figures of those before it.
    #[test]
    fn figures_come_back_from_json_to_the_bit(map in 0.0..1.0_f64) {
        for map in [map, 0.112_359_778_330_845_11] {
            let text = serde_json::to_string(&map).unwrap();
            let back: f64 = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back.to_bits(), map.to_bits(), "{}", text);
        }
    }

    #[test]
    fn it_is_the_definition((scores, positive) in ranked(0..60)) {
        let fast = average_precision(&scores, &positive).unwrap();
        match (fast, by_definition(&scores, &positive)) {
            (Some(fast), Some(slow)) => prop_assert!((fast - slow).abs() < 1e-12),
            (fast, slow) => prop_assert_eq!(fast, slow),
        }
    }

    #[test]
    fn the_order_of_samples_and_of_memory_changes_no_bit(
        (scores, positive) in ranked(3000..3000 + 1),
        shift in 0usize..3000,
    ) {
        // Given 3,000 samples, enough for the radix sort, as columns of two classes
        let list: Vec<Vec<u32>> =
            positive.iter().map(|positive| if *positive { vec![0] } else { vec![1] }).collect();
        let columns = [scores.clone(), scores.clone()].concat();
        let by_class = ScoreMatrix::new(&columns, 3000, 2, Layout::ClassMajor).unwrap();
        let there = mean_average_precision(&by_class, &labels(2, &list)).unwrap();

        // When they come as rows and in another order
        let mut rows: Vec<f32> = scores.iter().flat_map(|score| [*score; 2]).collect();
        let mut list = list;
        rows.rotate_left(2 * shift);
        list.rotate_left(shift);
        let by_sample = ScoreMatrix::new(&rows, 3000, 2, Layout::SampleMajor).unwrap();
        let here = mean_average_precision(&by_sample, &labels(2, &list)).unwrap();

        // Then
        prop_assert_eq!(here, there);
    }
}

#[test]
fn the_radix_sort_sorts_as_any_other() {
    // Given many blocks of classes over enough samples for the radix sort, scores all distinct
    let (samples, classes) = (2000u32, 37u32);
    let scores: Vec<f32> = (0..samples * classes)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 * 1e-3 - 8000.0)
        .collect();
    let lists: Vec<Vec<u32>> = (0..samples)
        .map(|sample| vec![sample % 37, sample.wrapping_mul(48271) % 36])
        .collect();
    let labels = labels(classes, &lists);
    let matrix = ScoreMatrix::new(&scores, samples, classes, Layout::SampleMajor).unwrap();
    let figures = mean_average_precision(&matrix, &labels).unwrap();
    for class in 0..classes {
        let column: Vec<f32> = scores
            .iter()
            .skip(class as usize)
            .step_by(classes as usize)
            .copied()
            .collect();
        let positive: Vec<bool> = (0..samples)
            .map(|sample| labels.contains(sample, class))
            .collect();
        let slow = by_definition(&column, &positive).unwrap();
        let fast = figures.per_class[class as usize].unwrap();
        assert!(
            (fast - slow).abs() < 1e-12,
            "class {class}: {fast} and {slow}"
        );
    }
}
