use proptest::prelude::*;

use super::*;
use crate::run_plan::{RunPlan, RunShape};
use crate::shares::Shares;

/// Two epochs of four steps: 15 samples by four, the last step of three.
fn plan() -> RunPlan {
    let shape = RunShape {
        seed: 3,
        samples: 15,
        val_samples: 2,
        further_rows: 0,
        early_stopping: None,
        global_batch: 4,
        micro_batch: 2,
        epochs: 2,
        evaluate_every_epochs: 1,
        snapshot_every_steps: None,
        snapshot_every_epochs: None,
    };
    RunPlan::new(shape, 1).unwrap()
}

fn members(count: usize) -> Vec<String> {
    (0..count)
        .map(|worker| format!("worker-{worker}"))
        .collect()
}

fn steps(first: u64, last: u64) -> Stretch {
    Stretch { first, last }
}

/// Generation 1 of three members, which committed steps 0 to 5.
fn six_steps_done() -> Ledger {
    let mut ledger = Ledger::new();
    ledger
        .begin_generation(1, 0, members(3), Shares::even(3))
        .unwrap();
    ledger.commit_through(1, 5).unwrap();
    ledger
}

#[test]
fn every_ranks_report_of_a_step_is_one_commit() {
    let mut ledger = Ledger::new();
    ledger
        .begin_generation(1, 0, members(2), Shares::even(2))
        .unwrap();
    assert_eq!(ledger.commit(1, 0), Ok(Commit::Recorded(steps(0, 0))));
    assert_eq!(ledger.commit(1, 0), Ok(Commit::AlreadyRecorded));
    assert_eq!(
        ledger.commit_through(1, 3),
        Ok(Commit::Recorded(steps(1, 3)))
    );
    assert_eq!(ledger.steps_done(), 4);
}

#[test]
fn a_new_generation_voids_what_died_with_the_rank_that_was_ahead() {
    // Given steps 0 to 5 committed, the last of them only by a rank that then died
    let mut ledger = six_steps_done();

    // When the survivors go on from before step 5
    let void = ledger
        .begin_generation(2, 5, members(2), Shares::even(2))
        .unwrap();

    // Then step 5 is void and done again under the new generation
    let expected = VoidStretch {
        generation: 1,
        steps: steps(5, 5),
        voided_by: 2,
    };
    assert_eq!(void, [expected]);
    assert_eq!(ledger.void(), [expected]);
    assert_eq!(ledger.steps_done(), 5);
    assert_eq!(ledger.commit(2, 5), Ok(Commit::Recorded(steps(5, 5))));
    assert_eq!(ledger.current().unwrap().world_size(), 2);
}

#[test]
fn going_back_to_a_checkpoint_voids_several_generations() {
    let mut ledger = six_steps_done();
    ledger
        .begin_generation(2, 6, members(2), Shares::even(2))
        .unwrap();
    ledger.commit_through(2, 6).unwrap();
    ledger
        .begin_generation(5, 7, members(3), Shares::even(3))
        .unwrap();
    let void = ledger
        .begin_generation(6, 2, members(3), Shares::even(3))
        .unwrap();
    assert_eq!(
        void,
        [
            VoidStretch {
                generation: 1,
                steps: steps(2, 5),
                voided_by: 6
            },
            VoidStretch {
                generation: 2,
                steps: steps(6, 6),
                voided_by: 6
            },
        ]
    );
    assert_eq!(ledger.steps_done(), 2);
    assert_eq!(ledger.generations()[1].committed, None);
    assert!(ledger.verify(&plan()).holds());
}

#[test]
fn a_stale_generation_changes_nothing() {
    let mut ledger = six_steps_done();
    ledger
        .begin_generation(2, 6, members(2), Shares::even(2))
        .unwrap();
    let before = ledger.clone();

    let stale = LedgerError::StaleGeneration {
        generation: 1,
        current: 2,
    };
    assert_eq!(ledger.commit(1, 6).unwrap_err(), stale);
    assert_eq!(ledger.commit_through(1, 5).unwrap_err(), stale);
    assert_eq!(ledger.skip(1, 6, 0, "cut off").unwrap_err(), stale);
    assert_eq!(
        stale.to_string(),
        "generation 1 is stale, the lineage goes on in generation 2: the sender must leave and join again"
    );
    assert_eq!(ledger, before);
}

#[test]
fn reports_that_do_not_fit_the_lineage_are_refused() {
    let mut ledger = Ledger::new();
    assert!(matches!(
        ledger.commit(1, 0),
        Err(LedgerError::UnknownGeneration { .. })
    ));
    assert!(matches!(
        ledger.begin_generation(1, 1, members(1), Shares::even(1)),
        Err(LedgerError::Gap {
            generation: 1,
            step: 1,
            steps_done: 0
        })
    ));
    assert!(matches!(
        ledger.begin_generation(1, 0, vec![], Shares::even(0)),
        Err(LedgerError::NoMembers { generation: 1 })
    ));
    let mut ledger = six_steps_done();
    ledger
        .begin_generation(3, 4, members(1), Shares::even(1))
        .unwrap();
    let before = ledger.clone();
    assert!(matches!(
        ledger.begin_generation(3, 4, members(1), Shares::even(1)),
        Err(LedgerError::NumberNotGrowing {
            generation: 3,
            current: 3
        })
    ));
    assert!(matches!(
        ledger.commit(4, 4),
        Err(LedgerError::UnknownGeneration { .. })
    ));
    assert!(matches!(
        ledger.commit(3, 5),
        Err(LedgerError::Gap {
            step: 5,
            steps_done: 4,
            ..
        })
    ));
    assert!(matches!(
        ledger.commit(3, 3),
        Err(LedgerError::BeforeBeginning { step: 3, .. })
    ));
    assert_eq!(ledger, before);
}

#[test]
fn a_skipped_sample_is_accounted_for_once_and_goes_with_its_step() {
    // Given a sample of step 5 that cannot be read
    let plan = plan();
    let sample = plan.epoch_plan(1).samples_of_step(1)[2];
    let mut ledger = six_steps_done();
    assert_eq!(
        ledger.skip(1, 5, sample, "000000000042.jpg is cut off"),
        Ok(true)
    );
    assert_eq!(
        ledger.skip(1, 5, sample, "000000000042.jpg is cut off"),
        Ok(false)
    );
    let epoch = &ledger.verify(&plan).epochs[1];
    assert_eq!((epoch.samples_trained, epoch.samples_skipped), (7, 1));

    // When the step becomes void, so does the record; the step done again brings it back
    ledger
        .begin_generation(2, 5, members(2), Shares::even(2))
        .unwrap();
    assert_eq!(ledger.skipped(), []);
    ledger.commit(2, 5).unwrap();
    ledger
        .skip(2, 5, sample, "000000000042.jpg is cut off")
        .unwrap();
    assert_eq!(ledger.skipped()[0].generation, 2);
    assert!(ledger.verify(&plan).holds());
}

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

/// What may reach a ledger, in any order and from anyone.
#[derive(Debug, Clone)]
enum Report {
    Begin { ahead: u64, at: u64 },
    Commit { behind: u64, step: u64 },
    CommitThrough { behind: u64, step: u64 },
    Skip { behind: u64, step: u64, sample: u32 },
}

fn report() -> impl Strategy<Value = Report> {
    prop_oneof![
        (0u64..3, 0u64..9).prop_map(|(ahead, at)| Report::Begin { ahead, at }),
        (0u64..2, 0u64..8).prop_map(|(behind, step)| Report::Commit { behind, step }),
        (0u64..2, 0u64..8).prop_map(|(behind, step)| Report::CommitThrough { behind, step }),
        (0u64..2, 0u64..8, 0u32..15).prop_map(|(behind, step, sample)| Report::Skip {
            behind,
            step,
            sample
        }),
    ]
}

proptest! {
    #[test]
    fn whatever_is_reported_no_sample_is_lost_or_taken_twice(
        reports in proptest::collection::vec(report(), 0..60),
    ) {
        let plan = plan();
        let mut ledger = Ledger::new();
        ledger.begin_generation(1, 0, members(2), Shares::even(2)).unwrap();
        for report in reports {
            let before = ledger.clone();
            let current = ledger.current().unwrap().number;
            let refused = match report {
                Report::Begin { ahead, at } => {
                    ledger.begin_generation(current + ahead, at, members(2), Shares::even(2)).is_err()
                }
                Report::Commit { behind, step } => {
                    ledger.commit(current.saturating_sub(behind), step).is_err()
                }
                Report::CommitThrough { behind, step } => {
                    ledger.commit_through(current.saturating_sub(behind), step).is_err()
                }
                // A worker only ever skips a sample that its step holds.
                Report::Skip { behind, step, sample } => {
                    let drawn = plan.epoch_plan(plan.epoch_of(step));
                    let ids = drawn.samples_of_step(plan.step_in_epoch(step));
                    let sample = ids[sample as usize % ids.len()];
                    ledger.skip(current.saturating_sub(behind), step, sample, "cut off").is_err()
                }
            };
            // A refused report changes nothing, and the chain is whole after every one of them.
            prop_assert!(!refused || ledger == before);
            let verification = ledger.verify(&plan);
            prop_assert!(verification.holds(), "{:?}", verification);
            let committed: u32 = verification.epochs.iter().map(|epoch| epoch.committed_steps).sum();
            prop_assert_eq!(u64::from(committed), ledger.steps_done());
            // It survives being stored.
            let text = serde_json::to_string(&ledger).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Ledger>(&text).unwrap(), &ledger);
        }
        // Once the faults stop, the run can be finished and holds every epoch.
        let number = ledger.current().unwrap().number + 1;
        ledger.begin_generation(number, ledger.steps_done(), members(3), Shares::even(3)).unwrap();
        if ledger.steps_done() < 8 {
            ledger.commit_through(number, 7).unwrap();
        }
        let verification = ledger.verify(&plan);
        prop_assert!(verification.epochs.iter().all(|epoch| epoch.state == EpochState::Complete));
    }

    #[test]
    fn steps_reported_before_a_generation_and_voided_by_it_are_all_remembered(
        first in 1u64..8, second in 0u64..8, third in 0u64..8,
    ) {
        let mut ledger = Ledger::new();
        ledger.begin_generation(1, 0, members(1), Shares::even(1)).unwrap();
        ledger.commit_through(1, first - 1).unwrap();
        let second = second.min(first);
        ledger.begin_generation(2, second, members(1), Shares::even(1)).unwrap();
        ledger.commit_through(2, second).unwrap();
        let third = third.min(second + 1);
        ledger.begin_generation(3, third, members(1), Shares::even(1)).unwrap();
        let counted: u64 = ledger
            .generations()
            .iter()
            .filter_map(|generation| generation.committed)
            .chain(ledger.void().iter().map(|void| void.steps))
            .map(|steps| steps.end() - steps.first)
            .sum();
        prop_assert_eq!(counted, first + 1);
    }
}
