//! A file that remembers which pictures were good, by path, size and time of change, so that a restart looks at no content.
//!
//! One line per picture: size, nanoseconds since 1970, path. Whatever cannot be read in it is checked again.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

const FIRST_LINE: &str = "pictures found whole, version 1";

/// Size and time of change of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    changed: u128,
}

impl Stamp {
    /// `None` where the file system keeps no time.
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        let changed = metadata
            .modified()
            .ok()?
            .duration_since(UNIX_EPOCH)
            .ok()?
            .as_nanos();
        Some(Self {
            size: metadata.len(),
            changed,
        })
    }
}

/// Pictures known to be good.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<String, Stamp>);

impl Memory {
    pub(super) fn load(file: &Path) -> Self {
        let Ok(text) = std::fs::read_to_string(file) else {
            return Self::default();
        };
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Self::default();
        }
        let parse = |line: &str| {
            let (size, rest) = line.split_once(' ')?;
            let (changed, path) = rest.split_once(' ')?;
            Some((
                path.to_owned(),
                Stamp {
                    size: size.parse().ok()?,
                    changed: changed.parse().ok()?,
                },
            ))
        };
        Self(lines.filter_map(parse).collect())
    }

    pub(super) fn knows(&self, path: &Path, stamp: Stamp) -> bool {
        path.to_str()
            .is_some_and(|path| self.0.get(path) == Some(&stamp))
    }

    pub(super) fn add(&mut self, path: &Path, stamp: Stamp) {
        // A path that does not fit on a line is simply checked every time.
        if let Some(path) = path.to_str().filter(|path| !path.contains(['\n', '\r'])) {
            self.0.insert(path.to_owned(), stamp);
        }
    }

    /// Replaces the file as a whole, so that a reader or a crash never sees half of it.
    pub(super) fn save(&self, file: &Path) -> io::Result<()> {
        let mut unfinished = file.as_os_str().to_owned();
        unfinished.push(format!(".{}.tmp", std::process::id()));
        let write = || -> io::Result<()> {
            let mut out = BufWriter::new(File::create(&unfinished)?);
            writeln!(out, "{FIRST_LINE}")?;
            for (path, Stamp { size, changed }) in &self.0 {
                writeln!(out, "{size} {changed} {path}")?;
            }
            out.into_inner()
                .map_err(io::IntoInnerError::into_error)?
                .sync_all()?;
            std::fs::rename(&unfinished, file)
        };
        write().inspect_err(|_| {
            let _ = std::fs::remove_file(&unfinished);
        })
    }
}
