//! `workers.json`: the worker processes of a run on this machine, so that a coordinator which is started again knows
//! which of them live. A process id alone would not do, since numbers are used again: the time of its start tells.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use domain::membership::WorkerId;
use serde::{Deserialize, Serialize};

/// A process, told from any other that may ever have its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// In ticks since the machine was started, as `/proc/PID/stat` has it.
    started: u64,
}

impl Process {
    /// The process of this number, if there is one.
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before may hold anything, spaces and brackets included.
        let fields = &stat[stat.rfind(')')? + 1..];
        let mut fields = fields.split_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Self { pid, started })
    }

    /// Whether it still runs.
    pub(super) fn lives(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
}

/// The last process of each worker.
#[derive(Debug)]
pub(super) struct Processes {
    path: PathBuf,
    known: BTreeMap<String, Process>,
    /// Whether the file lacks something, because it could not be written.
    behind: bool,
}

impl Processes {
    /// What an earlier coordinator has noted in this run directory; nothing if there is none.
    pub(super) fn read(run_dir: &Path) -> Self {
        let path = run_dir.join("workers.json");
        let text = fs::read(&path).unwrap_or_default();
        let known = serde_json::from_slice(&text).unwrap_or_default();
        Self {
            path,
            known,
            behind: false,
        }
    }

    /// Notes that a worker has this process now.
    pub(super) fn note(&mut self, worker: &WorkerId, pid: u32) {
        if let Some(process) = Process::of(pid) {
            self.known.insert(worker.to_string(), process);
        }
        self.write();
    }

    /// Forgets a worker's process that was seen to end: the next coordinator is not to take it for one that nobody saw.
    pub(super) fn forget(&mut self, worker: &WorkerId) {
        let known = self.known.get(worker.as_str());
        // In its place another one may have been started already.
        if known.is_some_and(|process| !process.lives()) {
            self.known.remove(worker.as_str());
            self.write();
        }
    }

    /// Writes what could not be written before.
    pub(super) fn catch_up(&mut self) {
        if self.behind {
            self.write();
        }
    }

    fn write(&mut self) {
        let text = serde_json::to_vec(&self.known).unwrap_or_default();
        let written = replace(&self.path, &text).or_else(|_| overwrite(&self.path, &text));
        self.behind = written.is_err();
        if let Err(problem) = written {
            tracing::warn!(path = %self.path.display(), %problem, "worker processes are not recorded");
        }
    }

    /// Whether any of them still runs.
    pub(super) fn any_lives(&self) -> bool {
        self.known.values().any(Process::lives)
    }

    /// A worker's last process, unless it was seen to end.
    pub(super) fn noted(&self, worker: &WorkerId) -> Option<Process> {
        self.known.get(worker.as_str()).copied()
    }
}

/// Room in the file, in steps of so many bytes, of which this many are free for numbers that grow and workers that come.
const ROOM: usize = 4096;
const SPARE: usize = 512;

/// Puts a new file in the place of the old one. It ends in spaces, so that there is room to write over it.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let next = path.with_extension("json.new");
    let written = fs::write(
        &next,
        padded(text, (text.len() + SPARE).next_multiple_of(ROOM)),
    )
    .and_then(|()| fs::rename(&next, path));
    if written.is_err() {
        let _ = fs::remove_file(&next);
    }
    written
}

/// Writes over the file where it lies, which takes no room on a full disk: a coordinator that comes after this one must
/// know of every process that lives. In one call, so that being killed does not cut it short.
fn overwrite(path: &Path, text: &[u8]) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let room = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if text.len() > room {
        return Err(io::ErrorKind::StorageFull.into());
    }
    file.write_all_at(&padded(text, room), 0)
}

fn padded(text: &[u8], length: usize) -> Vec<u8> {
    let mut padded = text.to_vec();
    padded.resize(length, b' ');
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_and_a_number_that_was_used_again_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let worker = WorkerId::local(0);
        let mut processes = Processes::read(dir.path());
        assert_eq!(processes.noted(&worker), None);
        processes.note(&worker, std::process::id());

        let found = Processes::read(dir.path()).noted(&worker).unwrap();
        assert_eq!(found.pid, std::process::id());
        let other = Process {
            started: found.started + 1,
            ..found
        };
        assert!(found.lives() && !other.lives());
    }

    #[test]
    fn a_process_that_was_seen_to_end_is_not_left_for_one_that_nobody_saw() {
        let dir = tempfile::tempdir().unwrap();
        let (here, gone) = (WorkerId::local(0), WorkerId::local(1));
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let mut processes = Processes::read(dir.path());
        processes.note(&here, std::process::id());
        processes.note(&gone, child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        let left = Processes::read(dir.path());
        assert!(left.noted(&gone).is_some_and(|process| !process.lives()));

        // When its end is told, and that of one whose place was taken already
        processes.forget(&gone);
        processes.forget(&here);

        let left = Processes::read(dir.path());
        assert_eq!(left.noted(&gone), None);
        assert!(left.noted(&here).is_some());
    }

    #[test]
    fn where_there_is_no_room_for_a_new_file_the_old_one_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (WorkerId::local(0), WorkerId::local(1));
        let mut processes = Processes::read(dir.path());
        processes.note(&first, std::process::id());

        // Given that no new file can be made
        fs::create_dir(dir.path().join("workers.json.new")).unwrap();

        processes.note(&second, std::process::id());
        processes.known.remove(first.as_str());
        processes.note(&second, std::process::id());

        assert!(!processes.behind);
        let found = Processes::read(dir.path());
        assert!(found.noted(&first).is_none() && found.noted(&second).is_some());
        assert_eq!(fs::metadata(&found.path).unwrap().len() as usize, ROOM);
    }
}
