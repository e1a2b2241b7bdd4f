//! Whatever is reported, in any order and from anyone, the chain stays whole.

use proptest::prelude::*;

use super::*;

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
