//! How many bytes a cache holds, agreed upon by all processes that share it: a number in a file, changed under its lock.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The file with the number.
const TOTAL: &str = "total";
/// How names of files begin that are being written.
pub(super) const PART: &str = "part-";
/// A file that has been written to for so long was left behind by a process that was killed.
const LEFT_BEHIND: Duration = Duration::from_secs(600);

/// Room for pictures.
#[derive(Debug)]
pub(super) struct Room {
    folder: PathBuf,
    limit: u64,
}

impl Room {
    /// Opens the account of a folder, counting what lies there when it has none.
    pub(super) fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        let folder = folder.to_owned();
        let room = Self { folder, limit };
        let mut account = room.account()?;
        // New, or cut while it was written.
        if account.read().is_none() {
            account.write(count(&room.folder)?)?;
        }
        Ok(room)
    }

    /// Takes room for `new` bytes in place of `old` ones; false when there is none. Taken before the bytes are written,
    /// so that whoever is killed in between leaves the number too high and never too low.
    pub(super) fn take(&self, new: u64, old: u64) -> io::Result<bool> {
        let mut account = self.account()?;
        let total = account.read().unwrap_or(0).saturating_sub(old) + new;
        if total > self.limit && new > old {
            return Ok(false);
        }
        account.write(total)?;
        Ok(true)
    }

    /// Counts anew, and removes what killed processes have left. Gives the bytes.
    pub(super) fn recount(&self) -> io::Result<u64> {
        let mut account = self.account()?;
        let total = count(&self.folder)?;
        account.write(total)?;
        Ok(total)
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

/// Bytes of all pictures in a folder; parts that were left behind are removed.
fn count(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            for entry in fs::read_dir(entry.path())? {
                // Others may be replacing it right now.
                bytes += entry?.metadata().map_or(0, |metadata| metadata.len());
            }
        } else if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PART.as_bytes())
        {
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            let age = written.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
            if age.is_ok_and(|age| age > LEFT_BEHIND) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
    Ok(bytes)
}
