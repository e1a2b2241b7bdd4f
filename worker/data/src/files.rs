//! Picture files on disk: the check at start-up, and the pictures of a folder.

use crate::coco::Split;
use std::path::{Path, PathBuf};

/// What to do with a picture that is missing or unreadable (`data.on_bad_image`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnBadImage {
    /// End with an error that names the file and the image id.
    #[default]
    Error,
    /// Leave the sample out, count and list it.
    Skip,
}

/// A picture that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadImage {
    /// Sample id.
    pub sample: u32,
    /// `images[].id`.
    pub image_id: u64,
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// What a check of a split's files found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileReport {
    /// Files looked at.
    pub checked: u64,
    /// Files taken as good from the cache, without being opened.
    pub cached: u64,
    /// Bad pictures by sample id, all of them.
    pub bad: Vec<BadImage>,
}

/// How to check files.
#[derive(Clone, Debug)]
pub struct CheckOptions<'a> {
    /// Whether a bad picture is an error.
    pub on_bad_image: OnBadImage,
    /// Threads to use, at least 1.
    pub threads: usize,
    /// File that remembers good pictures by path, size and time of change.
    pub cache: Option<&'a Path>,
}

/// Checks presence, header and end marker of every picture of a split.
///
/// # Errors
/// [`BadFiles`] when pictures are bad and `on_bad_image` is [`OnBadImage::Error`].
pub fn check_files(split: &Split, options: &CheckOptions<'_>) -> Result<FileReport, BadFiles> {
    let _ = (split, options);
    todo!()
}

/// Bad pictures of a split: displays the first ones, how many there are, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} of {} pictures are bad", .report.bad.len(), .report.checked)]
pub struct BadFiles {
    /// Name of the split.
    pub split: String,
    /// The annotation file that lists the pictures.
    pub annotation_file: PathBuf,
    /// What was found.
    pub report: FileReport,
}

/// The pictures of a folder by name, for prediction: `.jpg` and `.jpeg` in any case; hidden files and folders are passed over.
///
/// # Errors
/// When the folder cannot be read.
pub fn list_images(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let _ = dir;
    todo!()
}
