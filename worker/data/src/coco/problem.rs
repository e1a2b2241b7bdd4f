//! What can be wrong with a data set, in words for the person who has to mend it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Mistakes listed per file; the rest is only counted.
pub const LISTED_PER_FILE: usize = 20;

/// One mistake in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The annotation file.
    pub file: PathBuf,
    /// Id, key, value and what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.text)
    }
}

/// Mistakes of the annotation files: the first ones of each file, and how many there are altogether.
///
/// Displays as one line per mistake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// At most [`LISTED_PER_FILE`] per file.
    pub listed: Vec<Problem>,
    /// All of them.
    pub total: u64,
}

impl Problems {
    pub(super) fn extend(&mut self, other: Self) {
        self.listed.extend(other.listed);
        self.total += other.total;
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.listed.as_slice()
            && self.total == 1
        {
            return only.fmt(f);
        }
        write!(f, "the annotations hold {} mistakes:", self.total)?;
        for problem in &self.listed {
            write!(f, "\n  {problem}")?;
        }
        match self.total.saturating_sub(self.listed.len() as u64) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Gathers the mistakes of one file.
#[derive(Debug)]
pub(super) struct Collector {
    file: PathBuf,
    problems: Problems,
}

impl Collector {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            problems: Problems::default(),
        }
    }

    /// `text` is only made while there is room for it: a broken file may have a million mistakes.
    pub(super) fn add(&mut self, text: impl FnOnce() -> String) {
        self.problems.total += 1;
        if self.problems.listed.len() < LISTED_PER_FILE {
            self.problems.listed.push(Problem {
                file: self.file.clone(),
                text: text(),
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.total == 0
    }

    pub(super) fn into_problems(self) -> Problems {
        self.problems
    }
}

/// Why a data set cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The paths do not name a data set: a matter of configuration.
    #[error("{0}")]
    Paths(String),
    /// `data.groups` does not fit the classes: a matter of configuration. One text per mistake.
    #[error("data.groups: {}", .0.join("; "))]
    Groups(Vec<String>),
    /// The files hold mistakes: bad data.
    #[error("{0}")]
    Problems(Problems),
}
