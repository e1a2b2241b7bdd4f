//! `coordinator ledger`: which samples a run has trained on, under which generations, and whether that is each of them
//! exactly once.

use serde_json::json;

use domain::ledger::{EpochState, EpochStretch, EpochVerification};

use super::failure::DATA;
use super::{Failure, LedgerArgs, OK, USAGE};
use crate::ledger_record::{Check, LedgerRecord};
use crate::terminal::answer;

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
    let mut value = json!({
        "run_id": record.run_id,
        "samples": record.shape.samples,
        "epochs": record.shape.epochs,
        "steps_done": ledger.steps_done(),
        "generations": ledger.generations(),
        "void": ledger.void(),
        "skipped": ledger.skipped(),
        "passed_over": record.passed_over(),
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
        "run {} · {} steps",
        record.run_id,
        ledger.steps_done()
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
    lines.push(if check.holds() {
        "holds: every sample of every complete epoch was trained on exactly once".to_owned()
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
    format!(
        "  epoch {:>3}       {state} · {} samples trained, {} skipped, {} missing, {} repeated · by generation {}{void}",
        epoch.epoch + 1,
        epoch.samples_trained,
        epoch.samples_skipped,
        epoch.samples_missing,
        epoch.samples_repeated,
        stretches(&epoch.stretches),
    )
}
