//! What this process has really trained on, for tests that trust neither the plan nor the coordinator's record of it:
//! with `HGAT_WITNESS=DIR` every micro-batch that goes into a step, and every step that is applied, adds a line to
//! `DIR/<pid>.jsonl`.
//!
//! The samples of a step are noted before its all-reduce: a rank may die when its share is in the others' sums and
//! before it applies the step itself.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Where a rank is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    pub(crate) generation: u64,
    pub(crate) step: u64,
    pub(crate) rank: usize,
}

/// Notes the samples of a micro-batch that go into a step.
pub(crate) fn uses(place: Place, samples: &[u32]) {
    note(place, &format!("\"samples\":{samples:?}"));
}

/// Notes the samples whose gradients are still there from a generation in which the step was begun.
pub(crate) fn keeps(place: Place, samples: &[u32]) {
    note(place, &format!("\"samples\":{samples:?},\"kept\":true"));
}

/// Notes that this rank has applied a step.
pub(crate) fn applied(place: Place) {
    note(place, "\"applied\":true");
}

fn note(place: Place, what: &str) {
    static FILE: OnceLock<Option<Mutex<File>>> = OnceLock::new();
    let Some(file) = FILE.get_or_init(open) else {
        return;
    };
    let Place {
        generation,
        step,
        rank,
    } = place;
    let line = format!("{{\"generation\":{generation},\"step\":{step},\"rank\":{rank},{what}}}\n");
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    // A test that finds a line missing fails, which is all that could be done here.
    let _ = file.write_all(line.as_bytes());
}

fn open() -> Option<Mutex<File>> {
    let folder = std::env::var_os("HGAT_WITNESS")?;
    let path = std::path::Path::new(&folder).join(format!("{}.jsonl", std::process::id()));
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .ok()
        .map(Mutex::new)
}
