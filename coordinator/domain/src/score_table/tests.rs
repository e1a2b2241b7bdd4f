use proptest::prelude::*;

use super::*;

#[test]
fn a_sample_that_comes_twice_counts_once_and_the_first_scores_stay() {
    let mut table = ScoreTable::new(2, 2);
    assert_eq!(table.insert(1, &[0.1, 0.2]), Ok(Inserted::New));
    assert_eq!(table.insert(1, &[0.9, 0.9]), Ok(Inserted::Repeated));
    assert_eq!(table.insert(0, &[0.3, 0.4]), Ok(Inserted::New));
    let scored = table.finish(&Labels::new(2, 2)).unwrap();
    assert_eq!(scored.matrix().as_slice(), [0.3, 0.4, 0.1, 0.2]);
}

#[test]
fn figures_wait_for_the_last_sample() {
    let mut table = ScoreTable::new(3, 1);
    table.insert(0, &[1.0]).unwrap();
    assert_eq!(table.unscored(), [1, 2]);
    assert_eq!(
        table.finish(&Labels::new(3, 1)).unwrap_err().to_string(),
        "2 of 3 samples have no score yet, sample 1 is the first: assign them to a rank before computing figures"
    );
    table.insert(2, &[1.0]).unwrap();
    table.skip(1).unwrap();
    assert!(table.is_complete());
}

#[test]
fn a_skipped_sample_is_in_no_figure() {
    // Given three samples, the middle one unreadable
    let mut table = ScoreTable::new(3, 2);
    table.insert(0, &[1.0, 2.0]).unwrap();
    table.skip(1).unwrap();
    table.insert(2, &[3.0, 4.0]).unwrap();
    assert_eq!(table.insert(1, &[9.0, 9.0]), Ok(Inserted::Repeated));
    assert_eq!(table.skip(0), Ok(Inserted::Repeated));

    // Then scores and labels are of the other two
    let labels = Labels::from_lists(2, &[vec![0], vec![0, 1], vec![1]]).unwrap();
    let scored = table.finish(&labels).unwrap();
    assert_eq!(scored.sample_ids(), [0, 2]);
    assert_eq!(scored.matrix().as_slice(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(
        scored.labels(),
        &Labels::from_lists(2, &[vec![0], vec![1]]).unwrap()
    );
    assert_eq!((table.scored_count(), table.skipped_count()), (2, 1));
    assert_eq!(table.skipped(), [1]);
}

#[test]
fn scores_that_cannot_be_taken_change_nothing() {
    let mut table = ScoreTable::new(2, 2);
    let before = table.clone();
    assert_eq!(
        table.insert(2, &[0.0; 2]).unwrap_err(),
        ScoreError::NoSuchSample {
            sample: 2,
            samples: 2
        }
    );
    assert!(matches!(
        table.insert(0, &[0.0; 3]),
        Err(ScoreError::WrongShape { found: 3, .. })
    ));
    assert_eq!(
        table.insert(0, &[0.0, f32::NAN]).unwrap_err(),
        ScoreError::NotANumber {
            sample: 0,
            class: 1
        }
    );
    assert!(table.skip(7).is_err());
    assert_eq!(table, before);
    let error = ScoreTable::new(0, 2)
        .finish(&Labels::new(1, 2))
        .unwrap_err();
    assert!(matches!(error, ScoreError::LabelsDiffer { .. }));
}

proptest! {
    #[test]
    fn labels_are_what_was_put_in(
        classes in 1u32..200,
        lists in proptest::collection::vec(proptest::collection::btree_set(0u32..200, 0..9), 0..9),
    ) {
        let lists: Vec<Vec<u32>> = lists
            .into_iter()
            .map(|list| list.into_iter().filter(|class| *class < classes).collect())
            .collect();
        let labels = Labels::from_lists(classes, &lists).unwrap();
        prop_assert_eq!(labels.samples() as usize, lists.len());
        for (sample, list) in (0..).zip(&lists) {
            prop_assert_eq!(&labels.of(sample).collect::<Vec<_>>(), list);
            for class in 0..classes + 70 {
                prop_assert_eq!(labels.contains(sample, class), list.contains(&class));
            }
        }
        for (class, support) in (0..).zip(labels.support()) {
            let expected = lists.iter().filter(|list| list.contains(&class)).count();
            prop_assert_eq!(support as usize, expected);
        }
        prop_assert!(!labels.contains(labels.samples(), 0));
        prop_assert!(Labels::from_lists(classes, &[[classes]]).is_err());
    }
}
