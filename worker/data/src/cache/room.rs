//! How many bytes a cache holds, agreed upon by all processes that share it: a number in a file, changed under its lock.
//!
//! ```text
//! take: total + new, part-PID-N of that length, locked     keep: part to its place, total - what lay there
//!                                                          give_up: part removed, total - new
//! ```
//! Each is one step under the account's lock. A part counts from its first moment, so counting anew while others write
//! misses nothing; and since a writer's lock goes with it, however it ends, a part that can be locked was left behind.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The file with the number.
const TOTAL: &str = "total";
/// How names of files begin that are being written.
const PART: &str = "part-";

/// Room for pictures.
#[derive(Debug)]
pub(super) struct Room {
    folder: PathBuf,
    limit: u64,
    /// Of the next part.
    number: AtomicU64,
}

/// A picture that is being written, and the room that was taken for it.
#[derive(Debug)]
pub(super) struct Part {
    /// Locked as long as it is open.
    pub(super) file: File,
    path: PathBuf,
    bytes: u64,
}

impl Room {
    /// Opens the account of a folder, counting what lies there when it has none. Removes what killed processes have left.
    pub(super) fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        let room = Self {
            folder: folder.to_owned(),
            limit,
            number: AtomicU64::new(0),
        };
        let mut account = room.account()?;
        let known = account.read();
        let total = match known {
            // Who was killed had taken room for its part.
            Some(total) => total.saturating_sub(clear_away(folder)?.gone),
            // New, or cut while it was written.
            None => count(folder)?,
        };
        if known != Some(total) {
            account.write(total)?;
        }
        Ok(room)
    }

    /// Takes room for a picture of `new` bytes that is to lie at `place`, and begins its file; `None` when there is none.
    /// Taken before the bytes are written, and all of it whatever the picture replaces, so that whoever is killed in
    /// between leaves the number too high and never too low.
    pub(super) fn take(&self, place: &Path, new: u64) -> io::Result<Option<Part>> {
        let mut account = self.account()?;
        let total = self.total(&mut account)?;
        let old = length(place);
        if total.saturating_sub(old).saturating_add(new) > self.limit && new > old {
            return Ok(None);
        }
        account.write(total.saturating_add(new))?;
        let begun = self.begin(new);
        if begun.is_err() {
            account.write(total)?;
        }
        begun.map(Some)
    }

    /// Puts a part that was written in its place. After an error it is still there, to be given up.
    pub(super) fn keep(&self, part: &Part, place: &Path) -> io::Result<()> {
        let mut account = self.account()?;
        // What lies there now: another process may have been faster with the same picture.
        let (total, old) = (self.total(&mut account)?, length(place));
        match fs::rename(&part.path, place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                place.parent().map_or(Ok(()), fs::create_dir_all)?;
                fs::rename(&part.path, place)?;
            }
            other => other?,
        }
        account.write(total.saturating_sub(old))
    }

    /// Removes a part that could not be written, and gives its room back.
    pub(super) fn give_up(&self, part: &Part) -> io::Result<()> {
        let mut account = self.account()?;
        let total = self.total(&mut account)?;
        fs::remove_file(&part.path)?;
        account.write(total.saturating_sub(part.bytes))
    }

    /// Counts anew, and removes what killed processes have left. Gives the bytes.
    pub(super) fn recount(&self) -> io::Result<u64> {
        let mut account = self.account()?;
        let total = count(&self.folder)?;
        account.write(total)?;
        Ok(total)
    }

    /// The account's number, or what lies in the folder if that was lost.
    fn total(&self, account: &mut Account) -> io::Result<u64> {
        account.read().map_or_else(|| count(&self.folder), Ok)
    }

    /// A part's file, of its full length at once. Called under the account's lock, so nobody takes it for one left behind.
    fn begin(&self, bytes: u64) -> io::Result<Part> {
        let (file, path) = loop {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let name = format!("{PART}{}-{number}", std::process::id());
            let path = self.folder.join(name);
            match File::create_new(&path) {
                Ok(file) => break (file, path),
                // Of another room in this process, or of a process with the same number on another machine.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        if let Err(error) = file.lock().and_then(|()| file.set_len(bytes)) {
            // It would only take room.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Part { file, path, bytes })
    }

    /// Locked until it is dropped. Opened each time, for a lock belongs to an open file and must keep threads apart, too.
    fn account(&self) -> io::Result<Account> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.folder.join(TOTAL))?;
        file.lock()?;
        Ok(Account(file))
    }
}

/// The number in the file, in 20 digits so that it is always overwritten whole.
struct Account(File);

impl Account {
    fn read(&mut self) -> Option<u64> {
        let mut text = String::new();
        self.0.rewind().ok()?;
        self.0.read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    fn write(&mut self, total: u64) -> io::Result<()> {
        self.0.rewind()?;
        self.0.write_all(format!("{total:020}\n").as_bytes())
    }
}

/// Bytes of a file; 0 if there is none.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Bytes of all pictures in a folder, and of those being written; parts that were left behind are removed.
fn count(folder: &Path) -> io::Result<u64> {
    let mut bytes = clear_away(folder)?.written;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            for entry in fs::read_dir(entry.path())? {
                bytes += entry?.metadata().map_or(0, |metadata| metadata.len());
            }
        }
    }
    Ok(bytes)
}

/// Bytes of parts.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    /// Of those that were left behind, and have been removed.
    gone: u64,
    /// Of those that are being written.
    written: u64,
}

/// Removes the parts whose writers are gone.
fn clear_away(folder: &Path) -> io::Result<Parts> {
    let mut parts = Parts::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(PART.as_bytes()) {
            continue;
        }
        let path = entry.path();
        let bytes = length(&path);
        let opened = File::options().read(true).write(true).open(&path);
        if opened.is_ok_and(|file| file.try_lock().is_ok()) && fs::remove_file(&path).is_ok() {
            parts.gone += bytes;
        } else {
            parts.written += bytes;
        }
    }
    Ok(parts)
}
