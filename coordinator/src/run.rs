//! Serves one run from an open listener to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::run_plan::RunShape;
use proto::v1::{RunSpec, Status};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::evaluation::Evaluated;
use crate::observer::Observer;

/// Everything a run needs, checked beforehand.
#[derive(Debug, Clone)]
pub struct RunSetup {
    /// Names the run; made once per run directory and kept by resumes.
    pub run_id: String,
    /// Locked by this process.
    pub run_dir: PathBuf,
    /// The config as far as workers need it, classes and groups of the data set included.
    pub spec: RunSpec,
    /// Both splits.
    pub dataset: Arc<data::coco::Dataset>,
    /// What the run does and in which order.
    pub shape: RunShape,
    /// `run.keep_checkpoints`: how many of the newest stay, at least 1.
    pub keep_checkpoints: u32,
    /// `fault.timeout`: the one timeout for people; every other is derived from it.
    pub fault_timeout: Duration,
    /// Where to go on, if not at the beginning.
    pub resume: Option<ResumePoint>,
    /// `--stop-after`: end with a checkpoint once this many steps of the run are committed.
    pub stop_after: Option<u64>,
    /// Where workers come from.
    pub launch: Launch,
}

/// A verified checkpoint to go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumePoint {
    /// Steps committed before it.
    pub step: u64,
    /// Its folder.
    pub checkpoint: PathBuf,
}

/// Where workers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launch {
    /// Processes of this machine, started and ended by the coordinator.
    Local {
        /// Path of the `worker` binary.
        worker_binary: PathBuf,
        /// One device per worker, by number: `cpu` or `cuda:K`. Its length is the number of workers.
        devices: Vec<String>,
        /// Compute threads of each (`OMP_NUM_THREADS`).
        threads: u32,
    },
    /// Started by someone else (`worker join --coordinator …`); waited for without a deadline.
    External {
        /// How many.
        workers: u32,
    },
}

impl Launch {
    /// How many workers the run wants.
    #[must_use]
    pub fn workers(&self) -> u32 {
        match self {
            Self::Local { devices, .. } => u32::try_from(devices.len()).unwrap_or(u32::MAX),
            Self::External { workers } => *workers,
        }
    }
}

/// A request to end, from outside the protocol. The first stops the run with a checkpoint; a second one ends it at
/// once, resumable from the last checkpoint there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// How a run ended and what it reached.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// 0 finished, or stopped and resumable; otherwise as documented for the command line.
    pub exit_code: u8,
    /// How it ended, in one sentence.
    pub reason: String,
    /// The last status.
    pub status: Status,
    /// The run's evaluations, this process's and those before a resume, by step.
    pub evaluations: Vec<Evaluated>,
    /// Mean loss of each epoch that was trained to its end: (epoch from 0, loss).
    pub epoch_losses: Vec<(u32, f64)>,
    /// Images trained on by this process.
    pub images: u64,
    /// Wall time from the first step's begin to the last step's end, evaluation included.
    pub training: Duration,
}

/// Why a run could not be served at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The setup contradicts itself.
    #[error(transparent)]
    Plan(#[from] domain::plan::PlanError),
}

impl RunError {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Plan(_) => 64,
        }
    }
}

/// Serves the run until it is over; `shutdown` yields requests to end it.
///
/// A run that failed is an [`Outcome`] with its exit code. Every worker process that was started has ended when this
/// returns, whatever it returns.
///
/// # Errors
/// [`RunError`] if the run could not be served.
pub async fn serve(
    setup: RunSetup,
    listener: TcpListener,
    shutdown: mpsc::Receiver<Shutdown>,
    observer: Observer,
) -> Result<Outcome, RunError> {
    let _ = (listener, shutdown, observer);
    let _plan = domain::run_plan::RunPlan::new(setup.shape, setup.launch.workers())?;
    std::future::pending().await
}
