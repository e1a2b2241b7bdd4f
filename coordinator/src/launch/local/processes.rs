//! `workers.json`: the worker processes of a run on this machine, so that a coordinator which is started again knows
//! which of them live. A process id alone would not do, since numbers are used again: the time of its start tells.

use std::collections::BTreeMap;
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
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
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
        let text = std::fs::read(&path).unwrap_or_default();
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

    /// Writes what could not be written before.
    pub(super) fn catch_up(&mut self) {
        if self.behind {
            self.write();
        }
    }

    fn write(&mut self) {
        let text = serde_json::to_vec(&self.known).unwrap_or_default();
        let next = self.path.with_extension("json.new");
        let written = std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, &self.path));
        self.behind = written.is_err();
        if let Err(problem) = written {
            let _ = std::fs::remove_file(&next);
            tracing::warn!(path = %self.path.display(), %problem, "worker processes are not recorded");
        }
    }

    /// Whether any of them still runs.
    pub(super) fn any_lives(&self) -> bool {
        self.known.values().any(Process::lives)
    }

    /// A worker's process, if it still runs.
    pub(super) fn living(&self, worker: &WorkerId) -> Option<Process> {
        let process = self.known.get(worker.as_str())?;
        process.lives().then_some(*process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_and_a_number_that_was_used_again_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let worker = WorkerId::local(0);
        let mut processes = Processes::read(dir.path());
        assert_eq!(processes.living(&worker), None);
        processes.note(&worker, std::process::id());

        let found = Processes::read(dir.path()).living(&worker).unwrap();
        assert_eq!(found.pid, std::process::id());
        let other = Process {
            started: found.started + 1,
            ..found
        };
        assert!(found.lives() && !other.lives());
    }
}
