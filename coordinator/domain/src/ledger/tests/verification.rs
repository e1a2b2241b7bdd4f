//! What verification finds in a ledger: of a run that goes on, of one that is over, of one that came back broken.

use super::*;

#[test]
fn a_finished_run_holds_the_split_exactly_once_in_each_epoch() {
    let mut ledger = six_steps_done();
    ledger
        .begin_generation(2, 3, members(2), Shares::even(2))
        .unwrap();
    ledger.commit_through(2, 7).unwrap();
    let verification = ledger.verify(&plan());
    assert!(verification.holds());
    let [first, second] = &verification.epochs[..] else {
        panic!("two epochs")
    };
    assert_eq!(
        (first.state, second.state),
        (EpochState::Complete, EpochState::Complete)
    );
    assert_eq!(
        first.stretches,
        [
            EpochStretch {
                generation: 1,
                steps: steps(0, 2)
            },
            EpochStretch {
                generation: 2,
                steps: steps(3, 3)
            },
        ]
    );
    assert_eq!(
        first.void,
        [EpochStretch {
            generation: 1,
            steps: steps(3, 3)
        }]
    );
    assert_eq!(
        second.stretches,
        [EpochStretch {
            generation: 2,
            steps: steps(4, 7)
        }]
    );
    assert_eq!(
        second.void,
        [EpochStretch {
            generation: 1,
            steps: steps(4, 5)
        }]
    );
    assert_eq!((second.samples_trained, second.samples_missing), (15, 0));
}

#[test]
fn an_epoch_not_yet_over_is_in_progress() {
    let verification = six_steps_done().verify(&plan());
    assert!(verification.holds());
    assert_eq!(verification.epochs[1].state, EpochState::InProgress);
    assert_eq!(verification.epochs[1].samples_missing, 7);
    assert_eq!(Ledger::new().verify(&plan()).epochs, []);
}

/// A ledger as it might come back from a broken store.
fn stored(generations: &serde_json::Value) -> Ledger {
    serde_json::from_value(
        serde_json::json!({"generations": generations, "void": [], "skipped": []}),
    )
    .unwrap()
}

#[test]
fn a_step_in_two_generations_is_found_in_a_stored_ledger() {
    let ledger = stored(&serde_json::json!([
        {"number": 1, "begins_at_step": 0, "members": ["a"], "committed": {"first": 0, "last": 2}},
        {"number": 2, "begins_at_step": 2, "members": ["b"], "committed": {"first": 2, "last": 3}},
    ]));
    let verification = ledger.verify(&plan());
    assert!(!verification.holds());
    assert_eq!(verification.epochs[0].state, EpochState::Broken);
    assert_eq!(verification.epochs[0].samples_repeated, 4);
    assert_eq!(
        verification.defects,
        [Defect::Overlap {
            generation: 2,
            step: 2
        }]
    );
}

#[test]
fn a_step_in_no_generation_is_found_in_a_stored_ledger() {
    let ledger = stored(&serde_json::json!([
        {"number": 4, "begins_at_step": 0, "members": ["a"], "committed": {"first": 0, "last": 0}},
        {"number": 4, "begins_at_step": 2, "members": ["b"], "committed": {"first": 2, "last": 900}},
    ]));
    let verification = ledger.verify(&plan());
    assert!(!verification.holds());
    let texts: Vec<_> = verification
        .defects
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        texts,
        [
            "generation 4 follows generation 4: the ledger's numbers do not grow",
            "steps 1 to 1 were committed by no generation although later ones were",
            "generation 4 committed step 900, but the run has only 8 steps: is this ledger of another run?",
        ]
    );
}

#[test]
fn a_sample_skipped_in_a_step_that_never_held_it_is_found() {
    let mut ledger = six_steps_done();
    let elsewhere = plan().epoch_plan(0).samples_of_step(1)[0];
    ledger.skip(1, 0, elsewhere, "cut off").unwrap();
    assert_eq!(
        ledger.verify(&plan()).defects,
        [Defect::SkippedElsewhere {
            step: 0,
            sample: elsewhere
        }]
    );
}
