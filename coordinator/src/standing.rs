//! Whether a run is under way, has ended, or was cut off, as its directory tells without its coordinator.

use std::fs::{File, TryLockError};
use std::path::Path;

use serde_json::Value;

use crate::ledger_record::database;
use crate::store::is_served;

/// How a run stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Standing {
    /// It came to an end, which `summary.json` describes.
    Ended(Value),
    /// Its coordinator serves it.
    UnderWay,
    /// Its coordinator was lost.
    CutOff,
}

impl Standing {
    /// Whoever serves a run holds the lock of its directory, and who ends in order says so in the store: `served` is what
    /// that says.
    pub(crate) fn of(run_dir: &Path, served: bool) -> Self {
        if !served {
            // A run that ended before it wrote its summary has lost no step.
            return summary(run_dir).map_or(Self::CutOff, Self::Ended);
        }
        if is_in_use(run_dir) {
            Self::UnderWay
        } else {
            Self::CutOff
        }
    }
}

/// What `summary.json` says of a run whose last part has ended in order and whose coordinator has left. A part that was
/// killed leaves the summary of the part before it.
pub(crate) fn ended(run_dir: &Path) -> Option<Value> {
    let summary = summary(run_dir).filter(|_| !is_in_use(run_dir))?;
    let database = database(&run_dir.join("run.redb")).ok()?;
    (!is_served(&*database).ok()?).then_some(summary)
}

/// Whether a coordinator is here.
pub(crate) fn is_in_use(run_dir: &Path) -> bool {
    // The lock goes with the file at once: nothing is begun here.
    let lock = File::open(run_dir.join(".lock"));
    lock.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn summary(run_dir: &Path) -> Option<Value> {
    let text = std::fs::read(run_dir.join("summary.json")).ok()?;
    serde_json::from_slice(&text).ok()
}
