//! `coordinator checkpoints`: what a run directory holds, whether or not its coordinator is running.

use std::num::NonZeroU32;

use serde_json::json;

use super::failure::DATA;
use super::{CheckpointsArgs, Failure, OK, USAGE};
use crate::checkpoint::{Checkpoints, Entry};
use crate::terminal::{answer, figures};

pub(super) fn checkpoints(args: &CheckpointsArgs) -> Result<u8, Failure> {
    let root = args.run_dir.join("checkpoints");
    if !root.is_dir() {
        let sentence = format!(
            "{}: no run has written checkpoints here: check --run-dir",
            root.display()
        );
        return Err(Failure::new(USAGE, sentence));
    }
    let checkpoints = Checkpoints::read_only(root, NonZeroU32::MIN);
    let mut damaged = Vec::new();
    for entry in checkpoints.list()? {
        let verified = args.verify.then(|| checkpoints.verify(entry.step));
        if let Some(Err(problem)) = &verified {
            damaged.push(problem.to_string());
        }
        let verified = verified.map(|result| result.is_ok());
        answer(&if args.json {
            json_line(&entry, verified)
        } else {
            line(&entry, verified)
        });
    }
    match &damaged[..] {
        [] => Ok(OK),
        problems => Err(Failure::new(DATA, problems.join("\n"))),
    }
}

fn line(entry: &Entry, verified: Option<bool>) -> String {
    let map = entry.map.map_or_else(
        || "not evaluated".into(),
        |map| format!("mAP {}", figures::percent(Some(map))),
    );
    let marks = [(entry.last, "last"), (entry.best, "best")]
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| name);
    let verified = verified.map(|good| if good { "verified" } else { "damaged" });
    let marks: Vec<_> = marks.chain(verified).collect();
    format!(
        "step {:>8}  {:>14}  {:>9}  {}  {}",
        figures::grouped(entry.step),
        map,
        figures::bytes(entry.bytes),
        entry.path.display(),
        marks.join(", ")
    )
    .trim_end()
    .to_owned()
}

fn json_line(entry: &Entry, verified: Option<bool>) -> String {
    json!({
        "step": entry.step,
        "generation": entry.generation,
        "path": entry.path,
        "bytes": entry.bytes,
        "map": entry.map,
        "last": entry.last,
        "best": entry.best,
        "verified": verified,
    })
    .to_string()
}
