//! Where a worker computes, and on how many threads.

use std::num::NonZeroUsize;

use data::threads::{self, Consumer, Threads};
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

/// Threads of this worker: those that the run asks for, and for the rest what this process may use, shared out. Of other
/// workers here it knows by `HGAT_PROCESSORS` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Processors that this process may use.
    pub(crate) processors: u32,
    consumer: Consumer,
    /// What `OMP_NUM_THREADS` asks for.
    omp_threads: Option<u32>,
}

impl Budget {
    /// Looks around on this machine.
    ///
    /// # Errors
    /// [`WorkerError::Config`] if `HGAT_PROCESSORS` is no number.
    pub(crate) fn look(device: Device) -> Result<Self, WorkerError> {
        Ok(Self {
            processors: allowed()?,
            consumer: if device == Device::Cpu {
                Consumer::Processors
            } else {
                Consumer::Device
            },
            omp_threads: threads::asked(environment),
        })
    }

    /// The threads, where the run asks for so many that compute and that decode.
    pub(crate) fn threads(&self, compute: Option<u32>, decoding: Option<u32>) -> Threads {
        let compute = compute.or(self.omp_threads);
        Threads::share_out(self.processors, self.consumer, compute, decoding)
    }

    /// Says in the log what was chosen, and where it is too much what was asked for.
    pub(crate) fn tell(&self, threads: Threads) {
        let Threads { compute, decoding } = threads;
        let processors = self.processors;
        tracing::info!(compute, decoding, processors, "threads of this worker");
        if threads.all() > processors {
            tracing::warn!(
                "{compute} compute and {decoding} decoding threads take turns on {processors} processors, which is all that \
                 this process may use: lower train.threads or data.loader_threads, or leave them out"
            );
        }
    }
}

/// Processors that this process may use, see [`threads::processors`].
///
/// # Errors
/// [`WorkerError::Config`] if `HGAT_PROCESSORS` is no number.
pub(crate) fn processors() -> Result<NonZeroUsize, WorkerError> {
    let processors = usize::try_from(allowed()?).unwrap_or(1);
    Ok(NonZeroUsize::new(processors).unwrap_or(NonZeroUsize::MIN))
}

fn allowed() -> Result<u32, WorkerError> {
    threads::processors(environment).map_err(|error| WorkerError::Config(error.to_string()))
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_run_does_not_ask_for_is_what_this_machine_has() {
        let budget = Budget {
            processors: 8,
            consumer: Consumer::Processors,
            omp_threads: None,
        };
        let omp = Budget {
            omp_threads: Some(2),
            ..budget
        };
        for (budget, asked, (compute, decoding)) in [
            (budget, (None, None), (7, 1)),
            (budget, (Some(3), None), (3, 5)),
            (omp, (None, None), (2, 6)),
            (omp, (None, Some(0)), (2, 0)),
            // The run's word counts more than the environment, and more than the machine.
            (omp, (Some(9), Some(1)), (9, 1)),
        ] {
            let threads = budget.threads(asked.0, asked.1);
            assert_eq!(threads, Threads { compute, decoding }, "{asked:?}");
        }
    }
}
