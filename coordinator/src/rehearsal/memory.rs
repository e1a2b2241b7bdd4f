//! What memory processes had at most, and what the machine has.

use std::fs;
use std::process::Command;

use crate::terminal::figures::bytes;

/// Of what is free, so much may be planned with: the rest is for decoded pictures beyond the probe's and for the page cache
/// that keeps reading fast.
const PLANNED: f64 = 0.9;

/// The machine's memory in bytes, `None` where the system does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MachineMemory {
    /// In all, or what this control group may use.
    pub(crate) limit: Option<u64>,
    /// What could be had before the probe began.
    pub(crate) available: Option<u64>,
}

impl MachineMemory {
    /// As it is now.
    pub(crate) fn look() -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let group = fs::read_to_string("/sys/fs/cgroup/memory.max").unwrap_or_default();
        let allowed: Option<u64> = group.trim().parse().ok();
        let least = |known: Option<u64>| [known, allowed].into_iter().flatten().min();
        Self {
            limit: least(field(&text, "MemTotal:")),
            available: least(field(&text, "MemAvailable:")),
        }
    }

    /// Said where processes of `needed` bytes hardly fit.
    pub(crate) fn warning(&self, needed: u64) -> Option<String> {
        let available = self.available?;
        (needed as f64 > PLANNED * available as f64).then(|| {
            format!(
                "the processes take {} of the {} that were free: they will be killed when it is all used; lower \
                 train.micro_batch or --workers, or free memory",
                bytes(needed),
                bytes(available)
            )
        })
    }
}

/// The most memory that a process of this machine has had so far, in bytes; `None` once it is gone.
pub(crate) fn peak_of(pid: u32) -> Option<u64> {
    field(
        &fs::read_to_string(format!("/proc/{pid}/status")).ok()?,
        "VmHWM:",
    )
}

/// The same of this process.
pub(crate) fn peak_of_this_process() -> u64 {
    peak_of(std::process::id()).unwrap_or_default()
}

/// A line such as `VmHWM:    1234 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Bytes in use and in all of the CUDA device that is fullest, as the driver's own tool says; `None` without it.
pub(crate) fn device_memory() -> Option<(u64, u64)> {
    let output = Command::new("nvidia-smi")
        .args([
            "--query-gpu=memory.used,memory.total",
            "--format=csv,noheader,nounits",
        ])
        .output()
        .ok()?;
    fullest(&String::from_utf8_lossy(&output.stdout))
}

fn fullest(table: &str) -> Option<(u64, u64)> {
    let mebibytes = |text: &str| Some(text.trim().parse::<u64>().ok()? << 20);
    let row = |line: &str| {
        let (used, total) = line.split_once(',')?;
        Some((mebibytes(used)?, mebibytes(total)?))
    };
    table.lines().filter_map(row).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_what_the_system_says() {
        let status = "Name:\tworker\nVmPeak:\t 9 kB\nVmHWM:\t  117504 kB\n";
        assert_eq!(field(status, "VmHWM:"), Some(117_504 * 1024));
        assert_eq!(field(status, "VmRSS:"), None);
        assert!(peak_of_this_process() > 1 << 20);
        assert_eq!(
            fullest("1024, 81559\n40960, 81559\n"),
            Some((40_960 << 20, 81_559 << 20))
        );
        assert_eq!(fullest("No devices were found\n"), None);
    }

    #[test]
    fn processes_that_hardly_fit_are_warned_of() {
        let machine = MachineMemory {
            limit: Some(100_000_000),
            available: Some(50_000_000),
        };
        assert_eq!(machine.warning(45_000_000), None);
        let warning = machine.warning(46_000_000).unwrap();
        assert!(warning.contains("take 46.0 MB of the 50.0 MB"), "{warning}");
        assert_eq!(MachineMemory::default().warning(u64::MAX), None);
    }
}
