//! Named places at which a test lets a process of a run die or stop: between two instructions that matter, and not
//! wherever a signal from outside happens to hit.
//!
//! With `HGAT_FAULTS=DIR` a process that reaches the point P as WHO looks for the file `DIR/WHO.P`. If it is there, it is
//! taken away, so that nobody else meets it, and its content is done to the process: `kill` or `stop`; or, with `hang`, to the
//! thread alone, which comes no further. Without the
//! variable reaching a point costs one comparison, which is why they are in the program that ships: what is tested is
//! that one.
//!
//! This crate must not know what a point means, nor what comes of it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::{Signal, getpid, kill_process};

/// Reaches a point: `who` is a worker's id, or `coordinator`.
pub fn reach(who: &str, point: &str) {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| std::env::var_os("HGAT_FAULTS").map(PathBuf::from));
    let Some(folder) = folder else { return };
    match take(folder, who, point).as_deref() {
        Some("kill") => {
            let _ = kill_process(getpid(), Signal::KILL);
        }
        Some("stop") => {
            let _ = kill_process(getpid(), Signal::STOP);
        }
        Some("hang") => loop {
            std::thread::park();
        },
        _ => {}
    }
}

/// What is to be done here. Whoever renames the file has it for itself.
fn take(folder: &Path, who: &str, point: &str) -> Option<String> {
    let file = folder.join(format!("{who}.{point}"));
    let taken = folder.join(format!("{who}.{point}.taken"));
    std::fs::rename(file, &taken).ok()?;
    Some(std::fs::read_to_string(taken).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_met_once_and_by_whom_it_is_meant_for() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("worker-1.committed"), "kill\n").unwrap();

        assert_eq!(take(folder.path(), "worker-0", "committed"), None);
        assert_eq!(take(folder.path(), "worker-1", "reduced"), None);
        let met = take(folder.path(), "worker-1", "committed");
        assert_eq!(met.as_deref(), Some("kill"));
        assert_eq!(take(folder.path(), "worker-1", "committed"), None);
        assert!(folder.path().join("worker-1.committed.taken").exists());
    }

    #[test]
    fn without_the_variable_nothing_happens() {
        reach("worker-0", "committed");
    }
}
