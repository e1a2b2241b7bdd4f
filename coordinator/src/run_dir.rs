//! The run directory: who may use it, and where in it everything is.

use std::fs::File;
use std::path::{Path, PathBuf};

/// Why a run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Nothing yet.
    #[error("{0}")]
    Other(String),
}

/// A run directory held by this process; the lock goes when it is dropped or the process ends.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// The directory itself, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.toml`: the config this run was started with.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// `coordinator.json`: where the coordinator listens, and its pid.
    #[must_use]
    pub fn address(&self) -> PathBuf {
        self.path.join("coordinator.json")
    }

    /// `run.redb`: generations, ledger and history.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join("run.redb")
    }

    /// `events.jsonl`.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    /// `logs/`.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// `checkpoints/`.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// `summary.json`.
    #[must_use]
    pub fn summary(&self) -> PathBuf {
        self.path.join("summary.json")
    }
}
