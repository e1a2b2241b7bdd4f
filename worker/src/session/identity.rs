//! Who this process is, and where it looks for its coordinator.

use std::path::PathBuf;

/// Who this process is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) run_id: String,
    pub(crate) worker_id: String,
    pub(crate) host: String,
    pub(crate) device: String,
    pub(crate) device_name: String,
    pub(crate) threads: u32,
    /// Where a coordinator of this machine writes its address, which changes when it is started again.
    pub(crate) run_dir: Option<PathBuf>,
}

impl Identity {
    /// Where the run directory says that the run's coordinator is.
    pub(super) fn written_address(&self) -> Option<String> {
        let path = self.run_dir.as_ref()?.join("coordinator.json");
        let written: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
        Some(written["address"].as_str()?.to_owned())
    }
}
