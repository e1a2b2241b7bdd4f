//! `coordinator ledger`: which samples a run has trained on, under which generations, and whether that is each of them
//! exactly once.

use serde_json::json;

use domain::ledger::{EpochState, EpochStretch, EpochVerification};

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
        "run {} · {}",
        record.run_id,
        count(ledger.steps_done(), "step", "steps")
    )];
    for generation in ledger.generations() {
        let steps = generation.committed.map_or_else(
            || "no step".to_owned(),
            |steps| format!("steps {} to {}", steps.first, steps.last),
        );
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
            "  passed over     step {}, not finite, on samples {:?}",
            step.step, step.samples
        ));
    }
    for void in ledger.void() {
        lines.push(format!(
            "  void            steps {} to {} of generation {}, done again by generation {}",
            void.steps.first, void.steps.last, void.generation, void.voided_by
        ));
    }
    lines.join("\n")
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
    lines.extend(defects.iter().map(|defect| format!("  defect: {defect}")));
    for mismatch in &check.first_contradicting {
        lines.push(format!(
            "  defect: rank {} of generation {} says it trained on other samples in step {}",
            mismatch.rank, mismatch.generation, mismatch.step
        ));
    }
    lines.push(format!(
        "  reports         {} confirmed by the ranks' own digests, {} without a report, {} contradicting",
        check.ranks_confirmed, check.ranks_unreported, check.ranks_contradicting
    ));
    let PassedOver { steps, samples } = passed_over(check);
    lines.push(if check.holds() {
        let but = match steps {
            0 => String::new(),
            _ => format!(
                "; {} of them in {} without effect, since loss or gradient was not finite",
                grouped(samples),
                count(steps, "step", "steps")
            ),
        };
        format!("holds: every sample of every complete epoch was trained on exactly once{but}")
    } else {
        "does NOT hold".to_owned()
    });
    lines.join("\n")
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
            .map(|one| format!("{}: {}-{}", one.generation, one.steps.first, one.steps.last))
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
            epoch.samples_passed_over,
            count(steps.into(), "step", "steps")
        ),
    };
    format!(
        "  epoch {:>3}       {state} · {} trained{passed_over}, {} skipped, {} missing, {} repeated · by generation \
         {}{void}",
        epoch.epoch + 1,
        count(epoch.samples_trained.into(), "sample", "samples"),
        epoch.samples_skipped,
        epoch.samples_missing,
        epoch.samples_repeated,
        stretches(&epoch.stretches),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::ledger::Ledger;
    use domain::run_plan::RunShape;
    use domain::shares::Shares;

    use super::*;

    #[test]
    fn what_was_passed_over_is_told_beside_what_was_trained() {
        // Given two epochs of two steps of four samples, of which the third was passed over
        let shape: RunShape = serde_json::from_value(json!({
            "seed": 1, "samples": 8, "val_samples": 2, "global_batch": 4, "micro_batch": 2, "epochs": 2,
            "evaluate_every_epochs": 1, "snapshot_every_steps": null, "snapshot_every_epochs": 1
        }))
        .unwrap();
        let mut ledger = Ledger::new();
        ledger
            .begin_generation(1, 0, vec!["worker-0".to_owned()], Shares::even(1))
            .unwrap();
        ledger.commit_through(1, 3).unwrap();
        ledger.pass_over(1, 2).unwrap();
        let record = LedgerRecord {
            run_id: "a".to_owned(),
            shape,
            ledger,
            digests: BTreeMap::new(),
        };
        let check = record.check().unwrap();

        // Then the record holds as before, and says so
        assert!(check.holds());
        let text = verdict(&check);
        for part in [
            "epoch   1       complete · 8 samples trained, 0 skipped",
            "epoch   2       complete · 8 samples trained (4 of them passed over in 1 step), 0 skipped",
            "trained on exactly once; 4 of them in 1 step without effect, since loss or gradient was not finite",
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
