//! The folders of one experiment's runs: `seed-0`, `seed-1`, … in the folder given by `--run-dir`.

use std::path::{Path, PathBuf};

use crate::run_dir::has_begun;

/// The run directory of a seed.
#[must_use]
pub(crate) fn of(folder: &Path, seed: u64) -> PathBuf {
    folder.join(format!("seed-{seed}"))
}

/// The seeds that have begun, ascending, each with its run directory.
#[must_use]
pub(crate) fn existing(folder: &Path) -> Vec<(u64, PathBuf)> {
    let seed = |path: &PathBuf| {
        path.file_name()?
            .to_str()?
            .strip_prefix("seed-")?
            .parse::<u64>()
            .ok()
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| has_begun(path))
        .filter_map(|path| Some((seed(&path)?, path)))
        .collect();
    found.sort();
    found
}
