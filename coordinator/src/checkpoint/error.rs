//! Why a checkpoint cannot be written or read, in words.

use std::io;
use std::path::{Path, PathBuf};

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file that is no part of a checkpoint.
    #[error(
        "a checkpoint has no file {file:?}: send model.safetensors, optimizer.safetensors, state.json and, where there is one, ema.safetensors"
    )]
    UnknownFile {
        /// The name that came.
        file: String,
    },
    /// More bytes than a file may have.
    #[error(
        "{file} of step {step} would reach {end} bytes, over the limit of {limit}: the sender is confused"
    )]
    TooLarge {
        /// The file.
        file: String,
        /// The checkpoint's step.
        step: u64,
        /// Where the bytes would end.
        end: u64,
        /// The limit.
        limit: u64,
    },
    /// A file was not sent to its end.
    #[error(
        "{file} of step {step} was not sent to its end: send every file and its SHA-256 before the commit"
    )]
    Incomplete {
        /// The file.
        file: String,
        /// The checkpoint's step.
        step: u64,
    },
    /// What is on disk is not what was meant.
    #[error("{}: SHA-256 is {found} but should be {expected}: the file was altered or cut short", .path.display())]
    Altered {
        /// The file.
        path: PathBuf,
        /// What the sender or the manifest says.
        expected: String,
        /// What the bytes give.
        found: String,
    },
    /// A value that no training can go on from.
    #[error(
        "{}: tensor {tensor} holds {value} at element {element}: the model has diverged, go on from an earlier \
         checkpoint with a lower learning rate", .path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's name in it.
        tensor: String,
        /// Counted from 0 in row-major order.
        element: u64,
        /// The value.
        value: f64,
    },
    /// A file that is not in its format.
    #[error("{}: {problem}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The disk or a quota is full.
    #[error(
        "{}: no space: about {needed} bytes are needed and {free} are free ({errno}): free some space, or lower \
         run.keep_checkpoints; older checkpoints are untouched", .path.display()
    )]
    NoSpace {
        /// The file being written.
        path: PathBuf,
        /// An estimate of what is still to be written, in bytes.
        needed: u64,
        /// What the file system offers, in bytes.
        free: u64,
        /// `ENOSPC` or `EDQUOT`.
        errno: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// There is no committed checkpoint of this step.
    #[error("{}: there is no complete checkpoint of step {step}: `coordinator checkpoints` lists them", .path.display())]
    NoSuchCheckpoint {
        /// The step asked for.
        step: u64,
        /// Where it would be.
        path: PathBuf,
    },
    /// Anything else the operating system refuses.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl CheckpointError {
    /// The error of an attempt on `path`; `needed` is the number of bytes still to be written there.
    pub(super) fn io(action: &'static str, path: &Path, needed: u64, source: io::Error) -> Self {
        let errno = match source.kind() {
            io::ErrorKind::StorageFull => Some("ENOSPC"),
            io::ErrorKind::QuotaExceeded => Some("EDQUOT"),
            _ => None,
        };
        let path = path.to_owned();
        match errno {
            Some(errno) => {
                let free = super::disk::free_bytes(&path).unwrap_or_default();
                Self::NoSpace {
                    path,
                    needed,
                    free,
                    errno,
                    source,
                }
            }
            None => Self::Io {
                action,
                path,
                source,
            },
        }
    }
}
