//! Workers that somebody else starts, as a cluster does.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::worker;

/// A worker process that ends with its handle, however the test ends.
pub(crate) struct External(Child);

impl External {
    /// `worker join`, quiet unless `with` says otherwise.
    pub(crate) fn join(address: &str, name: &str, with: impl FnOnce(&mut Command)) -> Self {
        let mut join = Command::new(worker());
        join.args(["join", "--coordinator", address, "--worker-id", name])
            .env_remove("OMP_NUM_THREADS")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        with(&mut join);
        Self(join.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for its end; its exit code and what it has said on a stderr that was piped.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let code = self.0.wait().unwrap().code();
        let said = self.0.stderr.take().map(std::io::read_to_string);
        (code, said.map(Result::unwrap).unwrap_or_default())
    }
}

impl Drop for External {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the coordinator of a run that serves listens.
pub(crate) fn address(run_dir: &Path) -> String {
    let text = std::fs::read_to_string(run_dir.join("coordinator.json")).unwrap();
    let written: serde_json::Value = serde_json::from_str(&text).unwrap();
    written["address"].as_str().unwrap().to_owned()
}
