//! What reports and new generations change in the lineage, and what they cannot change.

mod properties;
mod verification;

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
fn what_was_passed_over_is_counted_beside_what_was_trained_and_goes_with_its_step() {
    let plan = plan();
    let mut ledger = six_steps_done();
    ledger.pass_over(1, 5).unwrap();
    let passed_over = |ledger: &Ledger| {
        let epoch = ledger.verify(&plan).epochs[1].clone();
        (
            epoch.steps_passed_over,
            epoch.samples_passed_over,
            epoch.samples_trained,
        )
    };
    assert_eq!(passed_over(&ledger), (1, 4, 8));
    assert!(ledger.verify(&plan).holds());

    // A sample of it that was left out was not trained on in the first place
    let sample = plan.epoch_plan(1).samples_of_step(1)[2];
    ledger
        .skip(1, 5, sample, "000000000042.jpg is cut off")
        .unwrap();
    assert_eq!(passed_over(&ledger), (1, 3, 7));

    ledger
        .begin_generation(2, 5, members(2), Shares::even(2))
        .unwrap();
    ledger.commit(2, 5).unwrap();
    assert_eq!(passed_over(&ledger), (0, 0, 8));
}
