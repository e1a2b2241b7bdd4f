//! The run directory: who may use it, and where in it everything is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod lock;

/// Why a run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Another process uses it.
    #[error(
        "{}: a coordinator is running here already{}: `coordinator stop --run-dir {}` ends it, or choose another \
         --run-dir", .path.display(), .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), .path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other coordinator's process id, if it said so.
        pid: Option<u32>,
    },
    /// Another process uses it, and was stopped: it answers nobody.
    #[error(
        "{}: a coordinator is running here already (pid {pid}), and its process was stopped: kill -CONT {pid} lets it go on, \
         or kill -KILL {pid} ends it and --resume goes on with its run", .path.display()
    )]
    Stopped {
        /// The directory.
        path: PathBuf,
        /// The other coordinator's process id.
        pid: u32,
    },
    /// It holds a run and none was to be resumed.
    #[error(
        "{}: a run is here already ({state}): go on with it by --resume, or choose another --run-dir", .path.display()
    )]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// How that run stands, in words.
        state: String,
    },
    /// There is nothing to resume.
    #[error(
        "{}: there is no run to resume here ({missing} is missing): leave out --resume, or check --run-dir",
        .path.display()
    )]
    NothingToResume {
        /// The directory.
        path: PathBuf,
        /// The file that a run would have.
        missing: &'static str,
    },
    /// No coordinator has said here where it listens.
    #[error("{}: no coordinator has written its address here ({problem}): check --run-dir, or give --address", .path.display())]
    NoAddress {
        /// `coordinator.json`.
        path: PathBuf,
        /// Why it is of no use.
        problem: String,
    },
    /// Anything the operating system refuses.
    #[error("{}: cannot {action} ({source}): {}", .path.display(), advice(.source))]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Whether there is no room, which passes, and not a mistake, which does not.
pub(crate) fn is_full(problem: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(problem.kind(), StorageFull | QuotaExceeded)
}

fn advice(problem: &io::Error) -> &'static str {
    if is_full(problem) {
        "make room on this disk and start again with --resume"
    } else {
        "choose another --run-dir"
    }
}

/// `coordinator.json`: where the coordinator of a run listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// `http://HOST:PORT`.
    pub address: String,
    /// The coordinator's process id.
    pub pid: u32,
    /// The run's name, kept by resumes.
    pub run_id: String,
}

/// A run directory held by this process; the lock goes when it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    lock: File,
}

impl Drop for RunDir {
    /// Closing is not enough: a child process that is just being started shares the descriptor until its exec.
    fn drop(&mut self) {
        // Fails only where locks do not work at all; then the end of the process releases it.
        let _ = self.lock.unlock();
    }
}

impl RunDir {
    /// Takes a directory for a new run, made if it is not there.
    ///
    /// # Errors
    /// [`RunDirError::InUse`], [`RunDirError::Occupied`], or what the operating system refuses.
    pub fn create(path: &Path) -> Result<Self, RunDirError> {
        let run_dir = Self::lock(path)?;
        if is_occupied(&run_dir.path) {
            return Err(RunDirError::Occupied {
                state: run_dir.state(),
                path: path.to_owned(),
            });
        }
        Ok(run_dir)
    }

    /// Takes the directory of an earlier run, with that run's name.
    ///
    /// # Errors
    /// [`RunDirError::InUse`], [`RunDirError::NothingToResume`], or what the operating system refuses.
    pub fn resume(path: &Path) -> Result<(Self, String), RunDirError> {
        if !has_begun(path) {
            return Err(RunDirError::NothingToResume {
                path: path.to_owned(),
                missing: CONFIG,
            });
        }
        let run_dir = Self::lock(path)?;
        let address = Address::read(path).map_err(|_| RunDirError::NothingToResume {
            path: path.to_owned(),
            missing: ADDRESS,
        })?;
        Ok((run_dir, address.run_id))
    }

    fn lock(path: &Path) -> Result<Self, RunDirError> {
        fs::create_dir_all(path).map_err(refused("make the run directory", path))?;
        let path = path
            .canonicalize()
            .map_err(refused("find the run directory", path))?;
        let lock = lock::take(&path)?;
        Ok(Self { path, lock })
    }

    /// Records the checked config.
    ///
    /// # Errors
    /// [`RunDirError::Io`].
    pub fn write_config(&self, toml: &str) -> Result<(), RunDirError> {
        let about = "# The config of this run; `coordinator start --resume` reads it again. Do not edit.\n\n";
        replace(&self.config(), &format!("{about}{toml}"))
    }

    /// Says where this coordinator listens.
    ///
    /// # Errors
    /// [`RunDirError::Io`].
    pub fn write_address(&self, address: SocketAddr, run_id: &str) -> Result<Address, RunDirError> {
        let written = Address {
            address: format!("http://{address}"),
            pid: std::process::id(),
            run_id: run_id.to_owned(),
        };
        let text = serde_json::to_string(&written).expect("text and a number are always JSON");
        replace(&self.path.join(ADDRESS), &format!("{text}\n"))?;
        Ok(written)
    }

    /// Writes `summary.json`.
    ///
    /// # Errors
    /// [`RunDirError::Io`].
    pub fn write_summary(&self, summary: &serde_json::Value) -> Result<(), RunDirError> {
        replace(&self.summary(), &format!("{summary:#}\n"))
    }

    /// What `summary.json` says, if a run ended here.
    #[must_use]
    pub fn read_summary(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&fs::read(self.summary()).ok()?).ok()
    }

    fn state(&self) -> String {
        let summary = self.read_summary().unwrap_or_default();
        let ended = summary["ended"]
            .as_str()
            .unwrap_or("cut off before its end");
        match summary["map"].as_f64() {
            Some(map) => format!("{ended}, mAP {:.2} %", 100.0 * map),
            None => ended.to_owned(),
        }
    }

    /// The directory itself, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.toml`: the config this run was started with.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// `run.redb`: generations, ledger and history.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// `checkpoints/`.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// `image-files.cache`: pictures that were found to be good.
    #[must_use]
    pub fn image_cache(&self) -> PathBuf {
        self.path.join("image-files.cache")
    }

    /// `summary.json`.
    #[must_use]
    pub fn summary(&self) -> PathBuf {
        self.path.join("summary.json")
    }
}

impl Address {
    /// Reads `coordinator.json` of a run directory.
    ///
    /// # Errors
    /// [`RunDirError::NoAddress`].
    pub fn read(run_dir: &Path) -> Result<Self, RunDirError> {
        let path = run_dir.join(ADDRESS);
        let no_address = |problem: String| RunDirError::NoAddress {
            path: path.clone(),
            problem,
        };
        let text = fs::read(&path).map_err(|error| no_address(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| no_address(error.to_string()))
    }
}

/// Whether the system has the process as stopped, as far as it is one of this machine.
pub(crate) fn is_stopped(pid: u32) -> bool {
    state_of(pid) == Some('T')
}

/// The letter that `/proc` has for the state of a process of this machine; nothing where there is none.
fn state_of(pid: u32) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state?.trim().chars().next()
}

/// Whether a run has begun in this directory: there is something to resume.
pub(crate) fn has_begun(run_dir: &Path) -> bool {
    run_dir.join(CONFIG).exists()
}

/// Whether a new run is refused in this directory.
pub(crate) fn is_occupied(run_dir: &Path) -> bool {
    has_begun(run_dir) || run_dir.join(STORE).exists()
}

const CONFIG: &str = "config.toml";
const STORE: &str = "run.redb";
const ADDRESS: &str = "coordinator.json";

/// Writes a file in one step: whoever reads it sees the old text or the new one.
fn replace(path: &Path, text: &str) -> Result<(), RunDirError> {
    replace_bytes(path, text.as_bytes())
}

/// Writes a file in one step: whoever reads it sees the old content or the new one.
pub(crate) fn replace_bytes(path: &Path, content: &[u8]) -> Result<(), RunDirError> {
    write_whole(path, content).map_err(refused("write", path))
}

/// What became of an attempt, as the operating system says it.
fn refused(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunDirError + use<> {
    let path = path.to_owned();
    move |source| RunDirError::Io {
        action,
        path,
        source,
    }
}

/// Whether a file of this name is one that [`write_whole`], or another that makes files as it does, has not finished.
pub(crate) fn is_half_written(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".new")
}

/// [`replace_bytes`] with the system's own error. Nothing is left of a file that could not be written.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| {
        // On a full disk half a file would lie there for good.
        let _ = fs::remove_file(&new);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_serves_one_coordinator_at_a_time_and_holds_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs/a");
        assert!(matches!(
            RunDir::resume(&path),
            Err(RunDirError::NothingToResume {
                missing: CONFIG,
                ..
            })
        ));

        // Given a run in it
        let run_dir = RunDir::create(&path).unwrap();
        run_dir.write_config("[train]\n").unwrap();
        let address = run_dir
            .write_address("127.0.0.1:7000".parse().unwrap(), "abc")
            .unwrap();

        // Then another coordinator is refused, and its pid is named
        let refused = RunDir::create(&path).unwrap_err().to_string();
        assert!(
            refused.contains(&format!(
                "running here already (pid {})",
                std::process::id()
            )),
            "{refused}"
        );
        assert_eq!(Address::read(&path).unwrap(), address);

        // When it has ended, the directory is only for going on with it
        run_dir
            .write_summary(&serde_json::json!({ "ended": "finished", "map": 0.618 }))
            .unwrap();
        drop(run_dir);
        let refused = RunDir::create(&path).unwrap_err().to_string();
        assert!(
            refused.contains(
                "a run is here already (finished, mAP 61.80 %): go on with it by --resume"
            ),
            "{refused}"
        );
        assert_eq!(RunDir::resume(&path).unwrap().1, "abc");
    }

    #[test]
    fn of_a_coordinator_that_was_stopped_it_is_said_how_to_wake_or_end_it() {
        // Given a directory in use, by a process that is stopped as far as it says
        let folder = tempfile::tempdir().unwrap();
        let used = RunDir::create(folder.path()).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id();
        let address =
            serde_json::json!({ "address": "http://127.0.0.1:1", "pid": pid, "run_id": "a" });
        fs::write(folder.path().join(ADDRESS), address.to_string()).unwrap();
        let process = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
        while !is_stopped(pid) {
            std::thread::yield_now();
        }

        let refused = RunDir::create(folder.path()).unwrap_err().to_string();

        child.kill().unwrap();
        child.wait().unwrap();
        drop(used);
        assert!(
            refused.contains(&format!(
                "its process was stopped: kill -CONT {pid} lets it go on"
            )),
            "{refused}"
        );
        assert!(!refused.contains("coordinator stop"), "{refused}");
    }

    #[test]
    fn an_address_that_is_not_there_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let text = Address::read(folder.path()).unwrap_err().to_string();
        assert!(
            text.contains("coordinator.json: no coordinator has written its address here"),
            "{text}"
        );
    }
}
