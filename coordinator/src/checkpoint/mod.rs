//! Checkpoints on disk: complete and verifiable, or invisible.
//!
//! A checkpoint is written into `.step-NNNNNNNN.partial`, verified, given a `manifest.json`, flushed, and renamed to
//! `step-NNNNNNNN`; only then do the pointers `last` and `best` move, and only then may an older one go. Every
//! function here blocks: call it from a blocking task.
//!
//! Must not know: gRPC, generations' meaning, or why a checkpoint is taken.

use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The files a checkpoint consists of, in the order they are streamed.
pub const FILES: [&str; 3] = ["model.safetensors", "optimizer.safetensors", "state.json"];

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Nothing yet.
    #[error("{0}")]
    Other(String),
}

/// `manifest.json`: what a complete checkpoint consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// 1.
    pub format: u32,
    /// Steps of the run committed before it.
    pub step: u64,
    /// The generation that wrote it.
    pub generation: u64,
    /// Every file but the manifest.
    pub files: Vec<FileEntry>,
    /// Validation mAP of exactly this state, 0..1.
    pub map: Option<f64>,
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// One of [`FILES`].
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content in lower-case hexadecimal.
    pub sha256: String,
}

/// A committed checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Steps of the run committed before it.
    pub step: u64,
    /// The generation that wrote it.
    pub generation: u64,
    /// Its folder.
    pub path: PathBuf,
    /// Of all its files.
    pub bytes: u64,
    /// Validation mAP of exactly this state, 0..1.
    pub map: Option<f64>,
    /// Whether `last` points here.
    pub last: bool,
    /// Whether `best` points here.
    pub best: bool,
}

/// What a commit did.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// The checkpoint's folder.
    pub path: PathBuf,
    /// Of all its files.
    pub bytes: u64,
    /// Where `best` points now, and its mAP.
    pub best: Option<(PathBuf, f64)>,
    /// Older checkpoints that were removed after the commit.
    pub removed: Vec<PathBuf>,
}

/// What was found on disk when looking for a checkpoint to go on from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovery {
    /// The newest one that verifies.
    pub checkpoint: Option<Entry>,
    /// Newer ones that do not: one sentence each, saying what is wrong and where they were moved.
    pub damaged: Vec<String>,
}

/// The checkpoints of one run directory.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    root: PathBuf,
    keep: NonZeroU32,
}

impl Checkpoints {
    /// Opens `<run-dir>/checkpoints`, made if it is not there, and removes what an interrupted write left behind.
    ///
    /// # Errors
    /// [`CheckpointError`] naming the path.
    pub fn open(root: impl Into<PathBuf>, keep: NonZeroU32) -> Result<Self, CheckpointError> {
        let _ = (root.into(), keep);
        todo!()
    }

    /// Starts writing the checkpoint of `step`. What an earlier attempt at it left unfinished is dropped.
    ///
    /// # Errors
    /// [`CheckpointError`] naming the path.
    pub fn begin(&self, generation: u64, step: u64) -> Result<Writer, CheckpointError> {
        let _ = (generation, step, &self.root, self.keep);
        todo!()
    }

    /// The committed checkpoints, by step. A folder without a readable manifest is not one.
    ///
    /// # Errors
    /// [`CheckpointError`] when the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, CheckpointError> {
        todo!()
    }

    /// The files of one checkpoint, to be read in chunks.
    ///
    /// # Errors
    /// [`CheckpointError`] when there is no such checkpoint.
    pub fn reader(&self, step: u64) -> Result<Reader, CheckpointError> {
        let _ = step;
        todo!()
    }

    /// The newest checkpoint whose files all match its manifest; newer ones that do not are moved aside and `last`
    /// and `best` point to what is left.
    ///
    /// # Errors
    /// [`CheckpointError`] when the folder cannot be read.
    pub fn recover(&self) -> Result<Recovery, CheckpointError> {
        todo!()
    }

    /// Records the mAP of a checkpoint that was committed before its evaluation was done, and moves `best`.
    ///
    /// # Errors
    /// [`CheckpointError`] when there is no such checkpoint, or it cannot be written.
    pub fn set_map(&self, step: u64, map: f64) -> Result<(), CheckpointError> {
        let _ = (step, map);
        todo!()
    }

    /// A warning when the disk has less than twice `estimate` bytes free.
    #[must_use]
    pub fn space_warning(&self, estimate: u64) -> Option<String> {
        let _ = estimate;
        todo!()
    }
}

/// A checkpoint being written. Dropped without [`Writer::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct Writer {
    _root: PathBuf,
}

impl Writer {
    /// Writes `bytes` at `offset`; writing the same range again changes nothing.
    ///
    /// # Errors
    /// [`CheckpointError`] for a name that is not in [`FILES`], a range over the size limit, or a full disk.
    pub fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> Result<(), CheckpointError> {
        let _ = (file, offset, bytes);
        todo!()
    }

    /// Says that `file` is complete and has this SHA-256.
    ///
    /// # Errors
    /// [`CheckpointError`] for a name that is not in [`FILES`].
    pub fn end_file(&mut self, file: &str, sha256: &[u8]) -> Result<(), CheckpointError> {
        let _ = (file, sha256);
        todo!()
    }

    /// Verifies everything, makes the checkpoint visible, moves the pointers and removes what is no longer kept.
    /// Committing what is already there (the same step of the same generation) changes nothing.
    ///
    /// # Errors
    /// [`CheckpointError`]: an absent or altered file, a value that is not finite, a full disk. Nothing is visible then.
    pub fn commit(self, map: Option<f64>) -> Result<Committed, CheckpointError> {
        let _ = map;
        todo!()
    }
}

/// A piece of a checkpoint's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// One of [`FILES`].
    pub file: String,
    /// Where the piece belongs.
    pub offset: u64,
    /// The piece, at most [`proto::CHUNK_BYTES`].
    pub data: Vec<u8>,
    /// With a file's last piece: its SHA-256.
    pub sha256: Option<Vec<u8>>,
}

/// Reads a committed checkpoint from its first file to its last.
#[derive(Debug)]
pub struct Reader {
    _root: PathBuf,
}

impl Iterator for Reader {
    type Item = Result<Chunk, CheckpointError>;

    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}
