//! Picture files on disk: the check at start-up, and the pictures of a folder.

mod check;
mod memory;
mod shared;

pub use check::{BadFiles, CheckOptions, FileReport, check_files};
pub use shared::{SharedPictures, shared_pictures};

use std::fmt;
use std::io;
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

impl fmt::Display for BadImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (image id {}): {}",
            self.path.display(),
            self.image_id,
            self.reason
        )
    }
}

/// An I/O error on a picture in a few words, without the path.
pub(crate) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "the file is missing".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

/// The pictures directly in a folder, in byte order of their names, for prediction.
///
/// A picture is what its suffix says, in upper or lower case; PNG and its like are listed too, so that they end in an
/// error that names them instead of being lost. Hidden files (`.DS_Store`, `._x.jpg`), other files and folders are
/// passed over.
///
/// # Errors
/// When the folder cannot be read.
pub fn list_images(dir: &Path) -> io::Result<Vec<PathBuf>> {
    const SUFFIXES: [&str; 12] = [
        "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic",
    ];
    let mut images = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let suffix = path
            .extension()
            .and_then(|suffix| suffix.to_str())
            .unwrap_or_default();
        // A broken link is kept: it is a picture that cannot be read, and says so.
        if !hidden && SUFFIXES.iter().any(|s| s.eq_ignore_ascii_case(suffix)) && !path.is_dir() {
            images.push(path);
        }
    }
    images.sort_unstable();
    Ok(images)
}
