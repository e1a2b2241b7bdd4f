//! `coordinator ledger`: which samples a run has trained on, under which generations, and whether that is each of them
//! exactly once.

use serde_json::json;

use domain::ledger::{EpochState, EpochStretch, EpochVerification, Stretch};

use super::failure::DATA;
use super::{Failure, LedgerArgs, OK, USAGE};
use crate::ledger_record::{Check, LedgerRecord};
use crate::terminal::answer;
use crate::terminal::figures::{count, grouped};

pub(super) fn ledger(args: &LedgerArgs) -> Result<u8, Failure> {
    let record = LedgerRecord::read(&args.run_dir)
        .map_err(|problem| Failure::new(USAGE, problem.to_string()))?;
    let check = record
        .check()
        .map_err(|problem| Failure::new(DATA, format!("the record is of no run: {problem}")))?;
    if args.json {
        answer(&as_json(&record, &check));
    } else if !args.verify {
        answer(&as_text(&record));
    }
    if !args.json {
        answer(&verdict(&check));
    }
    if check.holds() {
        return Ok(OK);
    }
    Err(Failure::new(
        DATA,
        "the ledger does not hold: keep the run directory and report this as a bug",
    ))
}

fn as_json(record: &LedgerRecord, check: &Check) -> String {
    let ledger = &record.ledger;
    let passed_over = passed_over(check);
    let mut value = json!({
        "run_id": record.run_id,
        "samples": record.shape.samples,
        "epochs": record.shape.epochs,
        "steps_done": ledger.steps_done(),
        "generations": ledger.generations(),
        "void": ledger.void(),
        "skipped": ledger.skipped(),
        "passed_over": record.passed_over(),
        "steps_passed_over": passed_over.steps,
        "samples_passed_over": passed_over.samples,
        "check": check,
        "holds": check.holds(),
    });
    value["defects"] = check
        .verification
        .defects
        .iter()
        .map(ToString::to_string)
        .collect();
    value.to_string()
}

fn as_text(record: &LedgerRecord) -> String {
    let ledger = &record.ledger;
    let mut lines = vec![format!(
        "run {} · {} (step 1 is the first; --json, like all records, numbers them from 0)",
        record.run_id,
        count(ledger.steps_done(), "step", "steps")
    )];
    for generation in ledger.generations() {
        let steps = generation
            .committed
            .map_or_else(|| "no step".to_owned(), |steps| numbered(&steps));
        lines.push(format!(
            "  generation {:>3}  {} · {} of {}",
            generation.number,
            steps,
            generation.world_size(),
            generation.members.join(", ")
        ));
    }
    for step in record.passed_over() {
        lines.push(format!(
            "  passed over     step {}, whose loss or gradient was not finite, on samples {:?}",
            grouped(step.step + 1),
            step.samples
        ));
    }
    for void in ledger.void() {
        lines.push(format!(
            "  void            {} of generation {}, done again by generation {}",
            numbered(&void.steps),
            void.generation,
            void.voided_by
        ));
    }
    lines.join("\n")
}

/// A stretch as people count steps: the first is step 1, so that the last is as many as were done by then.
fn numbered(steps: &Stretch) -> String {
    match (steps.first + 1, steps.last.saturating_add(1)) {
        (first, last) if first == last => format!("step {}", grouped(first)),
        (first, last) => format!("steps {} to {}", grouped(first), grouped(last)),
    }
}

/// What was passed over in all epochs.
struct PassedOver {
    steps: u64,
    samples: u64,
}

fn passed_over(check: &Check) -> PassedOver {
    let mut all = PassedOver {
        steps: 0,
        samples: 0,
    };
    for epoch in &check.verification.epochs {
        all.steps += u64::from(epoch.steps_passed_over);
        all.samples += u64::from(epoch.samples_passed_over);
    }
    all
}

/// What was found, epoch by epoch.
fn verdict(check: &Check) -> String {
    let mut lines: Vec<_> = check.verification.epochs.iter().map(epoch).collect();
    let defects = &check.verification.defects;
    if !defects.is_empty() {
        lines.push("  defects         as in --json, with steps numbered from 0:".to_owned());
    }
    lines.extend(defects.iter().map(|defect| format!("  defect: {defect}")));
    for mismatch in &check.first_contradicting {
        lines.push(format!(
            "  defect: rank {} of generation {} says it trained on other samples in step {}",
            mismatch.rank,
            mismatch.generation,
            grouped(mismatch.step + 1)
        ));
    }
    lines.push(format!(
        "  reports         {} confirmed by the ranks' own digests, {} without a report, {} contradicting",
        grouped(check.ranks_confirmed),
        grouped(check.ranks_unreported),
        grouped(check.ranks_contradicting)
    ));
    lines.push(if check.holds() {
        holds(check)
    } else {
        "does NOT hold".to_owned()
    });
    lines.join("\n")
}

/// What was verified, and what could not be yet.
fn holds(check: &Check) -> String {
    let epochs = &check.verification.epochs;
    let committed: u64 = epochs.iter().map(|e| u64::from(e.committed_steps)).sum();
    if committed == 0 {
        return "nothing to check: no step is committed yet".to_owned();
    }
    let complete = |epoch: &&EpochVerification| epoch.state == EpochState::Complete;
    let completed = epochs.iter().filter(complete).count() as u64;
    let begun = epochs
        .iter()
        .find(|epoch| epoch.state == EpochState::InProgress && epoch.committed_steps > 0);
    let once = match completed {
        0 => "no epoch is complete, so that every sample was trained on is not verified".to_owned(),
        1 => "every sample of the one complete epoch was trained on exactly once".to_owned(),
        _ => format!(
            "every sample of every complete epoch ({} of them) was trained on exactly once",
            grouped(completed)
        ),
    };
    let PassedOver { steps, samples } = passed_over(check);
    let but = match steps {
        0 => String::new(),
        _ => format!(
            "; {} of them in {} without effect, since loss or gradient was not finite",
            grouped(samples),
            count(steps, "step", "steps")
        ),
    };
    let so_far = begun.map_or_else(String::new, |epoch| {
        format!(
            "; in the {} of {} of epoch {} no sample was trained on twice",
            grouped(epoch.committed_steps.into()),
            count(epoch.steps.into(), "step", "steps"),
            epoch.epoch + 1
        )
    });
    match completed {
        0 => format!("holds so far: {once}{so_far}{but}"),
        _ => format!("holds: {once}{but}{so_far}"),
    }
}

fn epoch(epoch: &EpochVerification) -> String {
    let state = match epoch.state {
        EpochState::Complete => "complete",
        EpochState::InProgress => "in progress",
        EpochState::Broken => "BROKEN",
    };
    let stretches = |of: &[EpochStretch]| {
        let texts: Vec<_> = of
            .iter()
            .map(|one| format!("{} ({})", one.generation, numbered(&one.steps)))
            .collect();
        texts.join(", ")
    };
    let void = if epoch.void.is_empty() {
        String::new()
    } else {
        format!(" · void {}", stretches(&epoch.void))
    };
    let passed_over = match epoch.steps_passed_over {
        0 => String::new(),
        steps => format!(
            " ({} of them passed over in {})",
            grouped(epoch.samples_passed_over.into()),
            count(steps.into(), "step", "steps")
        ),
    };
    let by = if epoch.stretches.is_empty() {
        String::new()
    } else {
        format!(" · by generation {}", stretches(&epoch.stretches))
    };
    format!(
        "  epoch {:>3}       {state} · {} trained{passed_over}, {} skipped, {} missing, {} repeated{by}{void}",
        epoch.epoch + 1,
        count(epoch.samples_trained.into(), "sample", "samples"),
        grouped(epoch.samples_skipped.into()),
        grouped(epoch.samples_missing.into()),
        grouped(epoch.samples_repeated.into()),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::ledger::Ledger;
    use domain::run_plan::{RunPlan, RunShape};
    use domain::shares::Shares;

    use super::*;

    /// Two epochs of two steps of four samples, of which so many steps are committed.
    fn record(committed: u64) -> LedgerRecord {
        let shape: RunShape = serde_json::from_value(json!({
            "seed": 1, "samples": 8, "val_samples": 2, "global_batch": 4, "micro_batch": 2, "epochs": 2,
            "evaluate_every_epochs": 1, "snapshot_every_steps": null, "snapshot_every_epochs": 1
        }))
        .unwrap();
        let mut ledger = Ledger::new();
        ledger
            .begin_generation(1, 0, vec!["worker-0".to_owned()], Shares::even(1))
            .unwrap();
        if let Some(last) = committed.checked_sub(1) {
            ledger.commit_through(1, last).unwrap();
        }
        LedgerRecord {
            run_id: "a".to_owned(),
            shape,
            ledger,
            digests: BTreeMap::new(),
        }
    }

    #[test]
    fn what_was_verified_and_what_could_not_be_are_told_apart() {
        let last_line = |committed: u64| {
            let check = record(committed).check().unwrap();
            assert!(check.holds());
            verdict(&check).lines().last().unwrap().to_owned()
        };
        assert_eq!(
            [0, 1, 3, 4].map(last_line),
            [
                "nothing to check: no step is committed yet",
                "holds so far: no epoch is complete, so that every sample was trained on is not verified; in the 1 of 2 steps \
                 of epoch 1 no sample was trained on twice",
                "holds: every sample of the one complete epoch was trained on exactly once; in the 1 of 2 steps of epoch 2 no \
                 sample was trained on twice",
                "holds: every sample of every complete epoch (2 of them) was trained on exactly once",
            ]
        );
    }

    #[test]
    fn a_rank_that_reports_other_samples_than_the_plan_has_contradicts_it() {
        // Given two steps, of which the first was reported as planned and the second with another digest
        let mut record = record(2);
        let planned = |step: u32| {
            let plan = RunPlan::new(record.shape, 1).unwrap();
            let epoch = plan.epoch_plan(0);
            proto::samples_digest(epoch.samples_of_step(step).iter().copied())
        };
        let (first, second) = (planned(0), planned(1));
        record.digests = [((0, 0), (1, first)), ((1, 0), (1, second ^ 1))].into();

        let check = record.check().unwrap();

        assert_eq!((check.ranks_confirmed, check.ranks_contradicting), (1, 1));
        assert_eq!(check.first_contradicting[0].step, 1);
        assert!(!check.holds());
    }

    #[test]
    fn steps_are_counted_as_the_terminal_counts_them() {
        // Given three steps, the second passed over and the third void
        let mut record = record(3);
        record.ledger.pass_over(1, 1).unwrap();
        let members = vec!["worker-0".to_owned()];
        record
            .ledger
            .begin_generation(2, 2, members, Shares::even(1))
            .unwrap();

        let text = as_text(&record);
        for line in [
            "run a · 2 steps (step 1 is the first; --json, like all records, numbers them from 0)",
            "  generation   1  steps 1 to 2 · 1 of worker-0",
            "  void            step 3 of generation 1, done again by generation 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        let passed = "  passed over     step 2, whose loss or gradient was not finite, on samples ";
        assert!(text.contains(passed), "{text}");
        let value: serde_json::Value =
            serde_json::from_str(&as_json(&record, &record.check().unwrap())).unwrap();
        assert_eq!(value["generations"][0]["committed"]["last"], 1);
    }

    #[test]
    fn what_was_passed_over_is_told_beside_what_was_trained() {
        // Given a run of which the third step was passed over
        let mut record = record(4);
        record.ledger.pass_over(1, 2).unwrap();
        let check = record.check().unwrap();

        // Then the record holds as before, and says so
        assert!(check.holds());
        let text = verdict(&check);
        for part in [
            "epoch   1       complete · 8 samples trained, 0 skipped",
            "epoch   2       complete · 8 samples trained (4 of them passed over in 1 step), 0 skipped",
            "every sample of every complete epoch (2 of them) was trained on exactly once; 4 of them in 1 step without effect, since loss or gradient was not finite",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let value: serde_json::Value = serde_json::from_str(&as_json(&record, &check)).unwrap();
        assert_eq!(value["steps_passed_over"], 1);
        assert_eq!(value["samples_passed_over"], 4);
        assert_eq!(
            value["check"]["verification"]["epochs"][1]["samples_passed_over"],
            4
        );
        assert_eq!(value["holds"], true);
    }
}
