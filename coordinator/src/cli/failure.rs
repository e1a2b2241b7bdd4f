//! One place that turns an error into an exit code and a sentence.

use std::fmt;

use data::coco::OpenError;
use data::files::BadFiles;
use data::threads::NoNumber;

use crate::checkpoint::CheckpointError;
use crate::config::Mistakes;
use crate::machine::TooFewDevices;
use crate::run::RunError;
use crate::run_dir::RunDirError;

/// Done.
pub const OK: u8 = 0;
/// Usage or config.
pub const USAGE: u8 = 64;
/// Bad data.
pub(super) const DATA: u8 = 65;
/// Something was lost; trying again may help.
pub const LOST: u8 = 75;
/// A bug.
pub const BUG: u8 = 1;

/// Why a command failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The process's exit code.
    pub exit_code: u8,
    /// What happened, where, and what to do next.
    pub sentence: String,
}

impl Failure {
    pub(crate) fn new(exit_code: u8, sentence: impl Into<String>) -> Self {
        Self {
            exit_code,
            sentence: sentence.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self::new(USAGE, mistakes.to_string())
    }
}

impl From<TooFewDevices> for Failure {
    fn from(error: TooFewDevices) -> Self {
        Self::new(USAGE, error.to_string())
    }
}

impl From<NoNumber> for Failure {
    fn from(error: NoNumber) -> Self {
        Self::new(USAGE, error.to_string())
    }
}

impl From<RunDirError> for Failure {
    fn from(error: RunDirError) -> Self {
        let exit_code = match &error {
            RunDirError::NoAddress { .. } => LOST,
            RunDirError::Io { source, .. } if crate::run_dir::is_full(source) => LOST,
            _ => USAGE,
        };
        Self::new(exit_code, error.to_string())
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let exit_code = match &error {
            OpenError::Paths(_) | OpenError::Groups(_) => USAGE,
            OpenError::Problems(_) => DATA,
        };
        Self::new(exit_code, error.to_string())
    }
}

impl From<Box<BadFiles>> for Failure {
    fn from(error: Box<BadFiles>) -> Self {
        Self::new(DATA, error.to_string())
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        let exit_code = match &error {
            CheckpointError::Io { .. } | CheckpointError::NoSpace { .. } => LOST,
            CheckpointError::NoSuchCheckpoint { .. } => USAGE,
            _ => DATA,
        };
        Self::new(exit_code, error.to_string())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::new(error.exit_code(), error.to_string())
    }
}
