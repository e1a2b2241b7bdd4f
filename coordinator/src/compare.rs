//! `coordinator compare`: several runs beside each other, those that differ only in their seed as one side, and what their
//! figures allow to be said.
//!
//! ```text
//! run directories -> run (config.toml, summary.json, scores/) -> sides -> judged (domain::comparison) -> text | JSON
//! ```
//!
//! Must not know: how a run is served. It reads what a run has left, whether its coordinator is still there or not.

mod cost;
mod judged;
mod run;
mod sides;
mod text;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use cost::SideCost;
pub use judged::{ClassDifference, GroupDifference, Pair, compare};
pub use run::RunFigures;
pub use sides::{CurvePoint, Difference, Side};
pub use text::text;

/// Why runs cannot be compared. Texts say what to do.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A folder is not a run's.
    #[error("{}: {problem}", .path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// What is missing, and what to do.
        problem: String,
    },
    /// Something that a run has left cannot be understood.
    #[error("{}: cannot be read ({problem}): read it with the version that wrote it", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The runs are of different classes.
    #[error(
        "{first} and {second} have other classes than each other: runs can be compared only on one data set's classes"
    )]
    OtherClasses {
        /// A run.
        first: String,
        /// Another.
        second: String,
    },
}

/// How to compare.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often the images are drawn again.
    pub replicates: u32,
    /// Threads that compute them.
    pub threads: usize,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Of this structure: 1.
    pub format: u32,
    /// The experiments, in the order given.
    pub sides: Vec<Side>,
    /// Keys of the config in which they differ, beside `run.seed`.
    pub differs: Vec<Difference>,
    /// Keys that say where or how fast, not what, in which runs differ.
    pub differs_in_place: Vec<Difference>,
    /// Every two of them.
    pub pairs: Vec<Pair>,
    /// What the reader should know of these runs before believing anything.
    pub notes: Vec<String>,
}

/// The run directories meant by `paths`: each a run's, or a folder of runs by seed (`seed-0`, `seed-1`, …).
///
/// # Errors
/// [`CompareError::NoRun`] for a folder that is neither.
pub fn run_dirs(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CompareError> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in paths {
        if path.join("config.toml").exists() {
            found.push(path.clone());
            continue;
        }
        let seeds = crate::seed_dirs::existing(path);
        if seeds.is_empty() {
            return Err(CompareError::NoRun {
                path: path.clone(),
                problem: "there is no run here (config.toml is missing), nor folders seed-0, seed-1, … with runs: name run \
                          directories"
                    .to_owned(),
            });
        }
        found.extend(seeds.into_iter().map(|(_, path)| path));
    }
    Ok(found)
}

/// A path as a person would write it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
