//! What can be wrong with a data set, in words for the person who has to mend it.

use std::path::PathBuf;

/// One mistake in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The annotation file.
    pub file: PathBuf,
    /// Id, key, value and what to do.
    pub text: String,
}

/// Mistakes of the annotation files: the first ones of each file, and how many there are altogether.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// At most 20 per file.
    pub listed: Vec<Problem>,
    /// All of them.
    pub total: u64,
}

/// Why a data set cannot be opened. Displays as one line per mistake.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The paths do not name a data set (usage).
    #[error("{0}")]
    Paths(String),
    /// The files hold mistakes (bad data).
    #[error("{} mistakes", .0.total)]
    Problems(Problems),
}
