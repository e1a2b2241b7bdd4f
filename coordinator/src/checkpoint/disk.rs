//! The few things that are done to the disk, each one system call or two, each with an error that names its path.
//! Tests stop the process before any one of them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::error::CheckpointError;

type Result<T> = std::result::Result<T, CheckpointError>;

pub(super) fn create_dir(path: &Path) -> Result<()> {
    attempt("create the folder", path, 0, || fs::create_dir_all(path))
}

pub(super) fn create_file(path: &Path) -> Result<File> {
    attempt("create", path, 0, || {
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
    })
}

/// `needed`: bytes still to come, this piece included.
pub(super) fn write_at(
    file: &File,
    path: &Path,
    offset: u64,
    bytes: &[u8],
    needed: u64,
) -> Result<()> {
    attempt("write", path, needed, || file.write_all_at(bytes, offset))
}

pub(super) fn sync_file(file: &File, path: &Path) -> Result<()> {
    attempt("flush", path, 0, || file.sync_all())
}

/// Makes the names in a folder durable.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    attempt("flush the folder", path, 0, || File::open(path)?.sync_all())
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    attempt("rename to", to, 0, || fs::rename(from, to))
}

/// Puts `new` in the place of `old`, which lies where `new` was afterwards. Where the file system cannot swap, `old`
/// is away for a moment.
pub(super) fn swap(new: &Path, old: &Path, aside: &Path) -> Result<()> {
    let swapped = attempt("swap with", old, 0, || {
        Ok(renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE)?)
    });
    match swapped {
        Ok(()) => Ok(()),
        Err(CheckpointError::Io { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            rename(old, aside)?;
            rename(new, old)?;
            rename(aside, new)
        }
        Err(error) => Err(error),
    }
}

/// Makes the symbolic link `link` point to `target`, whatever it pointed to before, in one step.
pub(super) fn point(link: &Path, target: &Path) -> Result<()> {
    let name = link.file_name().unwrap_or_default().to_string_lossy();
    let new = link.with_file_name(format!(".{name}.new"));
    remove_file(&new)?;
    attempt("create the link", &new, 0, || symlink(target, &new))?;
    rename(&new, link)
}

/// Removes a file or link; that it is not there is fine.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    absent_is_fine(attempt("remove", path, 0, || fs::remove_file(path)))
}

/// Removes a folder with all that is in it; that it is not there is fine.
pub(super) fn remove_dir(path: &Path) -> Result<()> {
    absent_is_fine(attempt("remove the folder", path, 0, || {
        fs::remove_dir_all(path)
    }))
}

/// What an unprivileged process may still write, in bytes.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let folder = path
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("."));
    let space = rustix::fs::statvfs(folder)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

fn absent_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(CheckpointError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}

fn attempt<T>(
    action: &'static str,
    path: &Path,
    needed: u64,
    call: impl FnOnce() -> io::Result<T>,
) -> Result<T> {
    #[cfg(test)]
    fault::point();
    call().map_err(|source| CheckpointError::io(action, path, needed, source))
}

/// Ends the process, as a kill would, before the call on the disk that a test chose.
#[cfg(test)]
pub(super) mod fault {
    use std::sync::atomic::{AtomicI64, Ordering};

    /// Calls left; negative: no end is planned.
    static LEFT: AtomicI64 = AtomicI64::new(-1);

    /// Exit code of a process that was ended here.
    pub(crate) const EXIT: i32 = 99;

    pub(crate) fn end_before_call(number: i64) {
        LEFT.store(number, Ordering::SeqCst);
    }

    pub(super) fn point() {
        if LEFT.load(Ordering::SeqCst) >= 0 && LEFT.fetch_sub(1, Ordering::SeqCst) == 0 {
            std::process::exit(EXIT);
        }
    }
}
