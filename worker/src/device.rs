//! Where a worker computes.

use tch::Device;

use crate::error::WorkerError;

/// The device of that name: `cpu`, `cuda` (the first) or `cuda:N`.
///
/// # Errors
/// When the name is none, or the machine has no such device.
pub(crate) fn parse(name: &str) -> Result<Device, WorkerError> {
    if name == "cpu" {
        return Ok(Device::Cpu);
    }
    let index = match name {
        "cuda" => Some(0),
        _ => name
            .strip_prefix("cuda:")
            .and_then(|index| index.parse::<usize>().ok()),
    };
    let Some(index) = index else {
        return Err(WorkerError::Config(format!(
            "--device {name:?} is unknown; give cpu, or cuda:0, cuda:1, …"
        )));
    };
    // Why not is told below.
    let _ = nccl_rs::load_cuda();
    let count = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if index >= count {
        let reason = nccl_rs::nccl_unavailable_reason()
            .map_or_else(String::new, |reason| format!(" ({reason})"));
        return Err(WorkerError::Config(format!(
            "--device {name}: this machine has {count} CUDA devices{reason}; give another, or --device cpu"
        )));
    }
    Ok(Device::Cuda(index))
}

/// The device's name for people.
pub(crate) fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("CUDA device {index}"),
        _ => processor().unwrap_or_else(|| "CPU".to_owned()),
    }
}

/// Compute threads that this process was given.
pub(crate) fn threads() -> u32 {
    u32::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// This machine's name.
pub(crate) fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |h| h.trim().to_owned())
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
