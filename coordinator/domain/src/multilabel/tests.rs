use rstest::rstest;

use super::*;
use crate::scores::Layout;

fn close(found: MultilabelFigures, expected: [f64; 6]) {
    let MultilabelFigures {
        cp,
        cr,
        cf1,
        op,
        or,
        of1,
        mean_class_f1: _,
    } = found;
    let found = [cp, cr, cf1, op, or, of1].map(Option::unwrap);
    for (name, (found, expected)) in ["CP", "CR", "CF1", "OP", "OR", "OF1"]
        .iter()
        .zip(found.into_iter().zip(expected))
    {
        assert!(
            (found - expected).abs() < 1e-15,
            "{name}: {found}, expected {expected}"
        );
    }
}

/// Four samples of four classes; class 3 has no positive.
const SCORES: [f32; 16] = [
    2.0, -1.0, 0.0, -3.0, //
    1.0, 3.0, -2.0, 0.5, //
    -1.0, -0.5, -2.0, -4.0, //
    0.1, 0.2, -0.1, -0.2,
];

fn labels() -> Labels {
    Labels::from_lists(4, &[vec![0, 2], vec![1], vec![0, 1], vec![1, 2]]).unwrap()
}

#[rstest]
#[case::rows(Layout::SampleMajor)]
#[case::columns(Layout::ClassMajor)]
fn a_label_is_predicted_from_one_half_on(#[case] layout: Layout) {
    // Given in either layout
    let scores: Vec<f32> = match layout {
        Layout::SampleMajor => SCORES.to_vec(),
        Layout::ClassMajor => (0..4)
            .flat_map(|class| SCORES.iter().skip(class).step_by(4).copied())
            .collect(),
    };
    let matrix = ScoreMatrix::new(&scores, 4, 4, layout).unwrap();

    // Then predicted are {0, 2}, {0, 1, 3}, {} and {0, 1}: a logit of exactly 0 counts
    let figures = at_threshold(&matrix, &labels()).unwrap();
    let cp = (1.0 / 3.0 + 1.0 + 1.0) / 3.0;
    let cr = (1.0 / 2.0 + 2.0 / 3.0 + 1.0 / 2.0) / 3.0;
    let (op, or) = (4.0 / 7.0, 4.0 / 7.0);
    close(
        figures,
        [cp, cr, 2.0 * cp * cr / (cp + cr), op, or, 4.0 / 7.0],
    );
    // F1 of the classes: 2·1/(3+2), 2·2/(2+3), 2·1/(1+2)
    let f1 = (0.4 + 0.8 + 2.0 / 3.0) / 3.0;
    assert!((figures.mean_class_f1.unwrap() - f1).abs() < 1e-15);
    assert!(figures.mean_class_f1 < figures.cf1);
}

#[test]
fn of_the_top_two_only_those_that_reach_one_half_may_be_asked_for() {
    let matrix = ScoreMatrix::new(&SCORES, 4, 4, Layout::SampleMajor).unwrap();
    // Predicted are {0, 2}, {1, 0}, {} and {1, 0}: the third sample has no score from 0 on.
    let figures = top_k_at_threshold(&matrix, &labels(), 2).unwrap();
    assert_eq!((figures.op, figures.or), (Some(4.0 / 6.0), Some(4.0 / 7.0)));
    let all = top_k(&matrix, &labels(), 2).unwrap();
    assert!(figures.or < all.or);
}

#[test]
fn the_top_two_are_predicted_however_low() {
    let matrix = ScoreMatrix::new(&SCORES, 4, 4, Layout::SampleMajor).unwrap();
    // Predicted are {0, 2}, {1, 0}, {1, 0} and {1, 0}.
    let figures = top_k(&matrix, &labels(), 2).unwrap();
    let (cp, cr) = ((2.0 / 4.0 + 1.0 + 1.0) / 3.0, (1.0 + 1.0 + 1.0 / 2.0) / 3.0);
    let (op, or) = (6.0 / 8.0, 6.0 / 7.0);
    close(
        figures,
        [
            cp,
            cr,
            2.0 * cp * cr / (cp + cr),
            op,
            or,
            2.0 * op * or / (op + or),
        ],
    );
}

#[test]
fn of_equal_scores_the_lower_class_is_in_the_top() {
    let scores = [0.5, 0.7, 0.5, 0.5, 0.5];
    let matrix = ScoreMatrix::new(&scores, 1, 5, Layout::SampleMajor).unwrap();
    let hit = |class| {
        let labels = Labels::from_lists(5, &[vec![class]]).unwrap();
        top_k(&matrix, &labels, 3).unwrap().or.unwrap()
    };
    assert_eq!([0, 1, 2, 3, 4].map(hit), [1.0, 1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn of_equal_scores_the_higher_class_is_the_one_that_a_later_one_displaces() {
    let matrix = ScoreMatrix::new(&[0.5, 0.5, 0.5, 0.7], 1, 4, Layout::SampleMajor).unwrap();
    let labels = Labels::from_lists(4, &[vec![0, 1, 3]]).unwrap();
    assert_eq!(top_k(&matrix, &labels, 3).unwrap().or, Some(1.0));
}

#[test]
fn with_fewer_classes_than_the_top_all_are_predicted() {
    let matrix = ScoreMatrix::new(&[-1.0, -2.0], 1, 2, Layout::SampleMajor).unwrap();
    let labels = Labels::from_lists(2, &[vec![1]]).unwrap();
    let figures = top_k(&matrix, &labels, 3).unwrap();
    assert_eq!((figures.op, figures.or), (Some(0.5), Some(1.0)));
    assert_eq!(top_k(&matrix, &labels, 0).unwrap().or, Some(0.0));
}

#[test]
fn false_alarms_in_a_class_without_a_positive_lower_op_and_leave_cp() {
    let labels = Labels::from_lists(2, &[vec![0], vec![0]]).unwrap();
    let quiet = ScoreMatrix::new(&[1.0, -1.0, 1.0, -1.0], 2, 2, Layout::SampleMajor).unwrap();
    let alarm = ScoreMatrix::new(&[1.0, 1.0, 1.0, 1.0], 2, 2, Layout::SampleMajor).unwrap();
    let (quiet, alarm) = (
        at_threshold(&quiet, &labels).unwrap(),
        at_threshold(&alarm, &labels).unwrap(),
    );
    assert_eq!((quiet.cp, quiet.op), (Some(1.0), Some(1.0)));
    assert_eq!((alarm.cp, alarm.op), (Some(1.0), Some(0.5)));
}

#[test]
fn a_model_that_predicts_nothing_gets_zeros_and_a_split_without_labels_no_figures() {
    let matrix = ScoreMatrix::new(&[-1.0, -1.0], 1, 2, Layout::SampleMajor).unwrap();
    let labels = Labels::from_lists(2, &[vec![0]]).unwrap();
    close(at_threshold(&matrix, &labels).unwrap(), [0.0; 6]);
    assert_eq!(
        at_threshold(&matrix, &Labels::new(1, 2)).unwrap(),
        MultilabelFigures::default()
    );
    assert_eq!(MultilabelFigures::default().cp, None);
}
