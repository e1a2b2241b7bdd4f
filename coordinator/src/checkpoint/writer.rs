//! A checkpoint on its way from a worker to the disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use super::error::CheckpointError;
use super::manifest::Manifest;
use super::verify::{hex, inspect};
use super::{AVERAGE, Checkpoints, Committed, FILES, disk};

/// The largest file taken: far above the largest model with its optimizer state, far below any disk worth the name.
const MAX_FILE_BYTES: u64 = 64 << 30;

/// A checkpoint being written. Dropped without [`Writer::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct Writer {
    checkpoints: Checkpoints,
    folder: PathBuf,
    generation: u64,
    step: u64,
    files: BTreeMap<&'static str, Incoming>,
    /// Bytes of the newest committed checkpoint, which this one will be about as large as.
    estimate: u64,
    written: u64,
}

#[derive(Debug)]
struct Incoming {
    file: File,
    path: PathBuf,
    sha256: Option<String>,
}

impl Writer {
    pub(super) fn new(
        checkpoints: Checkpoints,
        folder: PathBuf,
        generation: u64,
        step: u64,
        estimate: u64,
    ) -> Result<Self, CheckpointError> {
        disk::create_dir(&folder)?;
        Ok(Self {
            checkpoints,
            folder,
            generation,
            step,
            files: BTreeMap::new(),
            estimate,
            written: 0,
        })
    }

    /// Writes `bytes` at `offset`; writing the same range again changes nothing.
    ///
    /// # Errors
    /// [`CheckpointError`] for a name that is not in [`FILES`], a range over the size limit, or a full disk.
    pub fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> Result<(), CheckpointError> {
        let length = bytes.len() as u64;
        let end = offset.saturating_add(length);
        let name = known(file)?;
        if end > MAX_FILE_BYTES {
            let file = file.to_owned();
            return Err(CheckpointError::TooLarge {
                file,
                step: self.step,
                end,
                limit: MAX_FILE_BYTES,
            });
        }
        let needed = self.estimate.saturating_sub(self.written).max(length);
        let incoming = self.incoming(name)?;
        disk::write_at(&incoming.file, &incoming.path, offset, bytes, needed)?;
        self.written += length;
        Ok(())
    }

    /// Says that `file` is complete and has this SHA-256.
    ///
    /// # Errors
    /// [`CheckpointError`] for a name that is not in [`FILES`].
    pub fn end_file(&mut self, file: &str, sha256: &[u8]) -> Result<(), CheckpointError> {
        let name = known(file)?;
        self.incoming(name)?.sha256 = Some(hex(sha256));
        Ok(())
    }

    /// Verifies everything, makes the checkpoint visible, moves the pointers and removes what is no longer kept.
    /// Committing what is already there (the same step of the same generation) changes nothing.
    ///
    /// # Errors
    /// [`CheckpointError`]: an absent or altered file, a value that is not finite, a full disk. Older checkpoints and
    /// `last` are as they were then.
    pub fn commit(self, map: Option<f64>) -> Result<Committed, CheckpointError> {
        let mut entries = Vec::new();
        let average = self.files.contains_key(AVERAGE).then_some(AVERAGE);
        for name in FILES.into_iter().chain(average) {
            let incomplete = || CheckpointError::Incomplete {
                file: name.to_owned(),
                step: self.step,
            };
            let incoming = self.files.get(name).ok_or_else(incomplete)?;
            let expected = incoming.sha256.clone().ok_or_else(incomplete)?;
            disk::sync_file(&incoming.file, &incoming.path)?;
            let entry = inspect(&incoming.path, name)?;
            if entry.sha256 != expected {
                let (path, found) = (incoming.path.clone(), entry.sha256);
                return Err(CheckpointError::Altered {
                    path,
                    expected,
                    found,
                });
            }
            entries.push(entry);
        }
        let manifest = Manifest::new(self.step, self.generation, entries, map);
        self.checkpoints.publish(&manifest, &self.folder)
    }

    #[cfg(test)]
    pub(super) fn folder_for_tests(&self) -> &std::path::Path {
        &self.folder
    }

    /// The file of that name, made when its first bytes come.
    fn incoming(&mut self, name: &'static str) -> Result<&mut Incoming, CheckpointError> {
        if !self.files.contains_key(name) {
            let path = self.folder.join(name);
            let file = disk::create_file(&path)?;
            self.files.insert(
                name,
                Incoming {
                    file,
                    path,
                    sha256: None,
                },
            );
        }
        Ok(self
            .files
            .get_mut(name)
            .expect("it was put there if it was not"))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After a commit there is nothing there; otherwise what stays is swept at the next start.
        if let Err(error) = disk::remove_dir(&self.folder) {
            tracing::warn!(%error, "an unfinished checkpoint stays until the next start");
        }
    }
}

/// The name as a constant, so that nothing outside the folder can be named.
fn known(file: &str) -> Result<&'static str, CheckpointError> {
    FILES
        .into_iter()
        .chain([AVERAGE])
        .find(|name| *name == file)
        .ok_or_else(|| CheckpointError::UnknownFile {
            file: file.chars().take(100).collect(),
        })
}
