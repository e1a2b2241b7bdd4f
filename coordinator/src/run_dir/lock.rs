//! Who may use a run directory: one coordinator at a time, by a lock on a file in it.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Address, RunDirError, refused, state_of};

/// How long a lock may outlive its coordinator. A child that it was starting when it was killed shares the lock until its
/// exec, some milliseconds later.
const OUTLIVED: Duration = Duration::from_secs(3);
/// How often it is asked for meanwhile: no call waits for a lock and for a time.
const AGAIN: Duration = Duration::from_millis(5);

/// Locks a run directory, `path`, until the file is closed.
///
/// # Errors
/// [`RunDirError::InUse`], [`RunDirError::Stopped`], or what the operating system refuses.
pub(super) fn take(path: &Path) -> Result<File, RunDirError> {
    let name = path.join(".lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(refused("open", &name))?;
    let give_up = Instant::now() + OUTLIVED;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::Error(source)) => return Err(refused("lock", &name)(source)),
            Err(TryLockError::WouldBlock) => {}
        }
        let pid = Address::read(path).ok().map(|address| address.pid);
        match pid.map(|pid| (pid, state_of(pid))) {
            Some((_, None | Some('Z' | 'X'))) if Instant::now() < give_up => sleep(AGAIN),
            Some((pid, Some('T'))) => {
                let path = path.to_owned();
                return Err(RunDirError::Stopped { path, pid });
            }
            _ => {
                let path = path.to_owned();
                return Err(RunDirError::InUse { path, pid });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_lock_that_outlives_its_coordinator_is_waited_for_and_one_of_a_living_coordinator_is_not() {
        // Given a lock in the hands of a child alone
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let lock = take(path).unwrap();
        let mut child = Command::new("sleep")
            .arg("0.3")
            .stdin(lock)
            .spawn()
            .unwrap();
        let says = |pid: u32| {
            let address =
                serde_json::json!({ "address": "http://127.0.0.1:1", "pid": pid, "run_id": "a" });
            std::fs::write(path.join(super::super::ADDRESS), address.to_string()).unwrap();
        };

        // When its coordinator lives, it is in use, which is said at once
        says(std::process::id());
        let began = Instant::now();
        let refused = take(path);
        assert!(
            matches!(refused, Err(RunDirError::InUse { .. })),
            "{refused:?}"
        );
        assert!(began.elapsed() < Duration::from_millis(200));

        // When it is dead, the child is waited for
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        says(dead.id());
        take(path).unwrap();
        assert!(child.try_wait().unwrap().is_some() || child.wait().is_ok());
    }
}
