//! A committed checkpoint on its way from the disk to a worker.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::error::CheckpointError;
use super::manifest::{FileEntry, Manifest};

/// A piece of a checkpoint's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// One of [`super::FILES`].
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
    /// Opened at once, so that a checkpoint that retention removes meanwhile is still read to its end.
    files: std::vec::IntoIter<(FileEntry, File, PathBuf)>,
    current: Option<(FileEntry, File, PathBuf)>,
    offset: u64,
}

impl Reader {
    pub(super) fn new(
        folder: &std::path::Path,
        manifest: Manifest,
    ) -> Result<Self, CheckpointError> {
        let open = |entry: FileEntry| {
            let path = folder.join(&entry.name);
            let file =
                File::open(&path).map_err(|error| CheckpointError::io("open", &path, 0, error))?;
            Ok((entry, file, path))
        };
        let files = manifest
            .files
            .into_iter()
            .map(open)
            .collect::<Result<Vec<_>, CheckpointError>>()?;
        Ok(Self {
            files: files.into_iter(),
            current: None,
            offset: 0,
        })
    }
}

impl Iterator for Reader {
    type Item = Result<Chunk, CheckpointError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.current.is_none() {
            self.current = Some(self.files.next()?);
            self.offset = 0;
        }
        let (entry, file, path) = self.current.as_ref()?;
        let offset = self.offset;
        let length = (entry.bytes - offset).min(proto::CHUNK_BYTES as u64);
        // At most half a MiB.
        let mut data = vec![0; length as usize];
        if let Err(error) = file.read_exact_at(&mut data, offset) {
            let error = CheckpointError::io("read", path, 0, error);
            // The rest would be a file with a hole.
            self.files = Vec::new().into_iter();
            self.current = None;
            return Some(Err(error));
        }
        let last = offset + length == entry.bytes;
        let chunk = Chunk {
            file: entry.name.clone(),
            offset,
            data,
            sha256: last.then(|| unhex(&entry.sha256)),
        };
        self.offset += length;
        if last {
            self.current = None;
        }
        Some(Ok(chunk))
    }
}

/// Bytes from hexadecimal; what is not hexadecimal is no SHA-256 and will match none.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
