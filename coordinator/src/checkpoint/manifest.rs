//! `manifest.json`: what makes a folder a checkpoint.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::disk;
use super::error::CheckpointError;
use super::verify::inspect;
use super::{AVERAGE, FILES};

/// The file's name in a checkpoint's folder.
const NAME: &str = "manifest.json";

/// The format this version reads and writes.
const FORMAT: u32 = 1;

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

impl Manifest {
    pub(super) fn new(step: u64, generation: u64, files: Vec<FileEntry>, map: Option<f64>) -> Self {
        Self {
            format: FORMAT,
            step,
            generation,
            files,
            map: map.filter(|map| map.is_finite()),
        }
    }

    /// The manifest of a folder; the files are not looked at.
    pub(super) fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(NAME);
        let text = fs::read(&path).map_err(|error| CheckpointError::io("read", &path, 0, error))?;
        let malformed = |problem| CheckpointError::Malformed {
            path: path.clone(),
            problem,
        };
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| malformed(format!("is not a manifest: {error}")))?;
        if manifest.format != FORMAT {
            let problem = format!(
                "is of format {}, this version reads {FORMAT}: use the version that wrote it",
                manifest.format
            );
            return Err(malformed(problem));
        }
        let names = || manifest.files.iter().map(|file| file.name.as_str());
        if !names().eq(FILES) && !names().eq(FILES.into_iter().chain([AVERAGE])) {
            return Err(malformed(
                "does not list exactly the files of a checkpoint".into(),
            ));
        }
        Ok(manifest)
    }

    /// Whether the folder has a manifest at all.
    pub(super) fn exists(folder: &Path) -> bool {
        folder.join(NAME).exists()
    }

    /// Puts it into the folder, durable and in one step.
    pub(super) fn write(&self, folder: &Path) -> Result<(), CheckpointError> {
        let path = folder.join(NAME);
        let new = folder.join(format!(".{NAME}.new"));
        let text = serde_json::to_vec_pretty(self)
            .expect("a manifest holds numbers, text and finite figures only");
        disk::remove_file(&new)?;
        let file = disk::create_file(&new)?;
        disk::write_at(&file, &new, 0, &text, text.len() as u64)?;
        disk::sync_file(&file, &new)?;
        disk::rename(&new, &path)?;
        disk::sync_dir(folder)
    }

    /// Reads every file of the folder and compares.
    pub(super) fn verify(&self, folder: &Path) -> Result<(), CheckpointError> {
        for expected in &self.files {
            let path = folder.join(&expected.name);
            let found = inspect(&path, &expected.name)?;
            if found != *expected {
                return Err(CheckpointError::Altered {
                    path,
                    expected: expected.sha256.clone(),
                    found: found.sha256,
                });
            }
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}
