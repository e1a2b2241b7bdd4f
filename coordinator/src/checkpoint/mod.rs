//! Checkpoints on disk: complete and verifiable, or invisible.
//!
//! A checkpoint is written into `.step-NNNNNNNN-K.partial`, verified, given a `manifest.json`, flushed, and renamed to
//! `step-NNNNNNNN`; only then do the pointers `last`, `best` and `best-map-0.6123` move, and only then may an older one
//! go. Every function here blocks: call it from a blocking task.
//!
//! Must not know: gRPC, what a generation means, or why a checkpoint is taken.

mod disk;
mod error;
mod manifest;
mod pointers;
mod reader;
mod verify;
mod writer;

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use disk::free_bytes;
pub use error::CheckpointError;
pub use manifest::{FileEntry, Manifest};
pub use reader::{Chunk, Reader};
pub use writer::Writer;

/// The files a checkpoint consists of, in the order they are streamed.
pub const FILES: [&str; 3] = ["model.safetensors", "optimizer.safetensors", "state.json"];

/// The average of the weights, after the others in the checkpoints of a run that keeps one.
pub const AVERAGE: &str = "ema.safetensors";

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

/// The checkpoints of one run directory. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    root: PathBuf,
    keep: NonZeroU32,
    /// Held while names in `root` change.
    lock: Arc<Mutex<()>>,
    /// Makes the folders of unfinished writes distinct.
    attempts: Arc<AtomicU64>,
}

impl Checkpoints {
    /// Opens `<run-dir>/checkpoints`, made if it is not there, removes what an interrupted write left behind and puts
    /// the pointers right. `keep` of the newest stay, beside the best. For the one process that holds the run directory.
    ///
    /// # Errors
    /// [`CheckpointError`] naming the path.
    pub fn open(root: impl Into<PathBuf>, keep: NonZeroU32) -> Result<Self, CheckpointError> {
        let checkpoints = Self::read_only(root, keep);
        let lock = checkpoints.lock();
        disk::create_dir(&checkpoints.root)?;
        pointers::sweep(&checkpoints.root)?;
        pointers::put_right(&checkpoints.root, keep)?;
        drop(lock);
        Ok(checkpoints)
    }

    /// Looks at checkpoints that another process may be writing: nothing is swept.
    #[must_use]
    pub fn read_only(root: impl Into<PathBuf>, keep: NonZeroU32) -> Self {
        Self {
            root: root.into(),
            keep,
            lock: Arc::default(),
            attempts: Arc::default(),
        }
    }

    /// Starts writing the checkpoint of `step`.
    ///
    /// # Errors
    /// [`CheckpointError`] naming the path.
    pub fn begin(&self, generation: u64, step: u64) -> Result<Writer, CheckpointError> {
        let estimate = pointers::scan(&self.root)?
            .last()
            .map_or(0, |entry| entry.bytes);
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        let folder = self
            .root
            .join(format!(".{}-{attempt}.partial", folder_name(step)));
        Writer::new(self.clone(), folder, generation, step, estimate)
    }

    /// The committed checkpoints, by step. A folder without a readable manifest is not one.
    ///
    /// # Errors
    /// [`CheckpointError`] when the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, CheckpointError> {
        pointers::scan(&self.root)
    }

    /// The files of one checkpoint, to be read in chunks.
    ///
    /// # Errors
    /// [`CheckpointError`] when there is no such checkpoint.
    pub fn reader(&self, step: u64) -> Result<Reader, CheckpointError> {
        let (folder, manifest) = self.committed(step)?;
        Reader::new(&folder, manifest)
    }

    /// Reads every file of a checkpoint and compares it with the manifest.
    ///
    /// # Errors
    /// [`CheckpointError`] naming the file that does not match.
    pub fn verify(&self, step: u64) -> Result<(), CheckpointError> {
        let (folder, manifest) = self.committed(step)?;
        manifest.verify(&folder)
    }

    /// The newest checkpoint whose files all match its manifest; newer ones that do not are moved aside, and the
    /// pointers then lead to what is left.
    ///
    /// # Errors
    /// [`CheckpointError`] when the folder cannot be read.
    pub fn recover(&self) -> Result<Recovery, CheckpointError> {
        let _lock = self.lock();
        let mut recovery = Recovery::default();
        for (step, folder) in pointers::folders(&self.root)?.into_iter().rev() {
            let checked = Manifest::read(&folder).and_then(|manifest| manifest.verify(&folder));
            let Err(problem) = checked else {
                recovery.checkpoint = pointers::scan(&self.root)?
                    .into_iter()
                    .find(|entry| entry.step == step);
                break;
            };
            let aside = pointers::free_name(&folder, "damaged");
            disk::rename(&folder, &aside)?;
            recovery.damaged.push(format!(
                "{problem}; this checkpoint is passed over and now {}",
                aside.display()
            ));
        }
        if !recovery.damaged.is_empty() {
            disk::sync_dir(&self.root)?;
            pointers::put_right(&self.root, self.keep)?;
            // The flags of the entry found may have changed with the pointers.
            let step = recovery.checkpoint.as_ref().map(|entry| entry.step);
            recovery.checkpoint = pointers::scan(&self.root)?
                .into_iter()
                .find(|entry| Some(entry.step) == step);
        }
        Ok(recovery)
    }

    /// Records the mAP of a checkpoint that was committed before its evaluation was done, and moves `best`; says where
    /// that leads now.
    ///
    /// # Errors
    /// [`CheckpointError`] when there is no such checkpoint, or it cannot be written.
    pub fn set_map(&self, step: u64, map: f64) -> Result<Option<(PathBuf, f64)>, CheckpointError> {
        let _lock = self.lock();
        let (folder, manifest) = self.committed(step)?;
        if manifest.map != Some(map) {
            Manifest::new(step, manifest.generation, manifest.files, Some(map)).write(&folder)?;
            pointers::put_right(&self.root, self.keep)?;
        }
        self.best()
    }

    /// Gives checkpoints the mAP that `maps` knows of their steps, where a coordinator was killed between the two.
    ///
    /// # Errors
    /// [`CheckpointError`] when a manifest cannot be written.
    pub(crate) fn catch_up(&self, maps: &[(u64, Option<f64>)]) -> Result<(), CheckpointError> {
        for entry in self.list()?.iter().filter(|entry| entry.map.is_none()) {
            let known = maps.iter().find(|(step, _)| *step == entry.step);
            if let Some(map) = known.and_then(|(_, map)| *map) {
                self.set_map(entry.step, map)?;
            }
        }
        Ok(())
    }

    /// A warning when the disk has less than twice `estimate` bytes free, so that a run is told at its start.
    #[must_use]
    pub fn space_warning(&self, estimate: u64) -> Option<String> {
        let free = disk::free_bytes(&self.root).ok()?;
        (free < estimate.saturating_mul(2)).then(|| {
            format!(
                "{}: {} free, and each checkpoint takes about {}: checkpoints may fail, training goes on then",
                self.root.display(),
                megabytes(free),
                megabytes(estimate)
            )
        })
    }

    /// Makes a complete, verified folder visible as the checkpoint of its manifest.
    fn publish(&self, manifest: &Manifest, partial: &Path) -> Result<Committed, CheckpointError> {
        let _lock = self.lock();
        let folder = self.root.join(folder_name(manifest.step));
        let there = Manifest::read(&folder).ok();
        let again = there.is_some_and(|there| {
            (there.generation, &there.files) == (manifest.generation, &manifest.files)
                && there.verify(&folder).is_ok()
        });
        if !again {
            manifest.write(partial)?;
            crate::reach("checkpoint-written");
            if folder.exists() {
                disk::swap(
                    partial,
                    &folder,
                    &pointers::replaced_name(&self.root, manifest.step),
                )?;
            } else {
                disk::rename(partial, &folder)?;
            }
            disk::sync_dir(&self.root)?;
            crate::reach("checkpoint-in-place");
        }
        let retention = pointers::put_right(&self.root, self.keep)?;
        let removed = pointers::remove(&self.root, &retention.remove);
        Ok(Committed {
            bytes: manifest.bytes(),
            best: self.best()?,
            path: folder,
            removed,
        })
    }

    /// Where `best` leads, and its mAP.
    fn best(&self) -> Result<Option<(PathBuf, f64)>, CheckpointError> {
        let entries = pointers::scan(&self.root)?;
        let best = entries.into_iter().find(|entry| entry.best);
        Ok(best.and_then(|best| Some((best.path, best.map?))))
    }

    fn committed(&self, step: u64) -> Result<(PathBuf, Manifest), CheckpointError> {
        let folder = self.root.join(folder_name(step));
        match Manifest::read(&folder) {
            Err(CheckpointError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Err(CheckpointError::NoSuchCheckpoint { step, path: folder })
            }
            other => Ok((folder, other?)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // It guards names on disk, which are right at every moment.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `step-NNNNNNNN`.
fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// For people.
fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// The folders and files of a directory.
fn children(root: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let read = |error| CheckpointError::io("read the folder", root, 0, error);
    match fs::read_dir(root) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()).map_err(read))
            .collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(read(error)),
    }
}

#[cfg(test)]
mod tests;
