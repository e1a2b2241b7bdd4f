//! A short run, served like any other, whose every figure is noted.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data::coco::Dataset;
use domain::run_plan::RunPlan;
use proto::v1::{Phase, TrainSpec};
use tokio::sync::{broadcast, mpsc};

use super::memory;
use super::picked::picked;
use crate::config::Config;
use crate::observer::{Observer, RunEvent, StepTime};
use crate::run::{self, Launch, Membership, RunError, RunSetup, Shutdown};
use crate::run_dir::{RunDir, RunDirError};

/// Steps at the beginning that are not counted: in them memory is first taken and kernels are chosen.
pub(crate) const WARM_UP: u32 = 2;

/// How often a worker's memory is looked at between events.
const LOOK: Duration = Duration::from_millis(100);

/// What a short run does.
#[derive(Debug, Clone)]
pub(crate) struct Leg<'a> {
    /// Of the whole run, placement recorded.
    pub(crate) config: &'a Config,
    /// Of the whole run.
    pub(crate) dataset: &'a Dataset,
    /// Of the whole run.
    pub(crate) plan: &'a RunPlan,
    /// As in a real run, or fewer of the same.
    pub(crate) launch: Launch,
    /// Samples in a step.
    pub(crate) global_batch: u32,
    /// Steps, all of them.
    pub(crate) steps: u32,
    /// A checkpoint is written after so many of them; another one at the end.
    pub(crate) checkpoint_after: Option<u32>,
    /// Validation samples of the one evaluation at the end.
    pub(crate) val_samples: u32,
}

/// What was seen of a short run. Times are seconds since it began.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Observed {
    /// When each step was committed.
    pub(crate) commits: BTreeMap<u64, f64>,
    /// What ranks said of their steps.
    pub(crate) step_times: Vec<StepTime>,
    /// When the figures of the evaluation were known, and of how many rows.
    pub(crate) evaluated: Option<(f64, u32)>,
    /// By the steps before it: when a checkpoint was in place, and its bytes.
    pub(crate) checkpoints: BTreeMap<u64, (f64, u64)>,
    /// Most memory of each worker.
    pub(crate) worker_memory: BTreeMap<String, u64>,
    /// Of the fullest CUDA device at the evaluation's end.
    pub(crate) device_memory: Option<(u64, u64)>,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// It could not be served.
    #[error("the probe could not be run: {0}")]
    Run(#[from] RunError),
    /// The folder for it.
    #[error("the probe could not be run: {0}")]
    Folder(#[from] RunDirError),
    /// The system refuses a socket.
    #[error("the probe could not be run: {0}")]
    Socket(#[from] std::io::Error),
    /// It failed as the real run would have.
    #[error("the probe failed, and so would the run: {reason}")]
    Failed {
        /// The process's exit code.
        exit_code: u8,
        /// What happened.
        reason: String,
    },
    /// Someone stopped it.
    #[error("{reason}: the dry run has no figures yet, and nothing is left of it; start it again")]
    Stopped {
        /// Who.
        reason: String,
    },
    /// It came to its end without being seen.
    #[error("the probe ended and {missing} was not seen: start it again with more --probe-steps")]
    NotSeen {
        /// What there is no figure of.
        missing: &'static str,
    },
}

impl ProbeError {
    /// The process's exit code: that of a start that fails in the same way.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Run(error) => error.exit_code(),
            Self::Failed { exit_code, .. } => *exit_code,
            Self::Folder(_) | Self::Socket(_) | Self::Stopped { .. } | Self::NotSeen { .. } => 75,
        }
    }
}

/// Runs it in `folder`, which is the caller's to remove; `tell` hears every event.
pub(crate) async fn run(
    leg: Leg<'_>,
    (folder, run_id): (&Path, String),
    listener: TcpListener,
    shutdown: mpsc::Receiver<Shutdown>,
    tell: impl Fn(&RunEvent),
) -> Result<Observed, ProbeError> {
    let run_dir = RunDir::create(folder)?;
    run_dir.write_config(&leg.config.to_toml())?;
    run_dir.write_address(listener.local_addr()?, &run_id)?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (observer, mut step_times) = Observer::with_step_times();
    let events = observer.events();
    let setup = setup(&leg, run_id, &run_dir)?;
    let rows = setup.shape.evaluation_rows();
    let served = Box::pin(run::serve(setup, listener, shutdown, observer));
    let (outcome, mut observed) = tokio::join!(served, watch(events, rows, tell));
    let outcome = outcome?;
    match outcome.status.phase() {
        Phase::Finished if outcome.exit_code == 0 => {}
        Phase::Stopped if outcome.exit_code == 0 => {
            let reason = outcome.reason;
            return Err(ProbeError::Stopped { reason });
        }
        _ => {
            // There is nothing to resume.
            let reason = outcome.reason.trim_end_matches("; resume with --resume");
            return Err(ProbeError::Failed {
                exit_code: outcome.exit_code.max(1),
                reason: reason.to_owned(),
            });
        }
    }
    while let Ok(time) = step_times.try_recv() {
        observed.step_times.push(time);
    }
    Ok(observed)
}

/// The real run, but for its length and what it reads.
fn setup(leg: &Leg<'_>, run_id: String, run_dir: &RunDir) -> Result<RunSetup, RunError> {
    let mut config = leg.config.clone();
    config.train.epochs = 1;
    config.train.global_batch = leg.global_batch;
    config.train.early_stopping = None;
    config.run.evaluate_every_epochs = 1;
    config.run.snapshot_every_epochs = None;
    config.run.snapshot_every_steps = leg.checkpoint_after.map(u64::from);
    // As large a part of an evaluation as in the real one.
    let (val, of_val) = (
        u64::from(leg.val_samples),
        leg.dataset.val.samples.len().max(1) as u64,
    );
    let figures = u64::from(config.run.train_figures_samples) * val;
    config.run.train_figures_samples =
        u32::try_from(figures.div_ceil(of_val).max(2)).unwrap_or(u32::MAX);
    // Decoded pictures are written as in the first epoch, and are gone afterwards.
    config.data.cache = config.data.cache.map(|_| run_dir.path().join("decoded"));
    let train = leg.steps as usize * leg.global_batch as usize;
    let dataset = picked(leg.dataset, leg.plan, train, leg.val_samples as usize);
    let shape = config.run_shape(&dataset);
    let plan = RunPlan::new(shape, leg.launch.workers())?;
    let mut spec = config.run_spec(&dataset, &plan);
    spec.train = leg
        .config
        .run_spec(leg.dataset, leg.plan)
        .train
        .map(|train| TrainSpec {
            global_batch: leg.global_batch,
            // A frozen trunk takes less than what most epochs will do.
            freeze_trunk_epochs: 0,
            ..train
        });
    let membership = leg.config.membership();
    Ok(RunSetup {
        run_id,
        run_dir: run_dir.path().to_owned(),
        spec,
        dataset: Arc::new(dataset),
        shape,
        keep_checkpoints: config.run.keep_checkpoints.get(),
        fault_timeout: config.fault.timeout,
        grace: config.fault.grace,
        membership: Membership {
            min_workers: membership.min_workers.min(leg.launch.workers()),
            ..membership
        },
        adopt: false,
        resume: None,
        stop_after: None,
        launch: leg.launch.clone(),
    })
}

/// Notes what happens and when, until there will be no more.
async fn watch(
    mut events: broadcast::Receiver<RunEvent>,
    rows: u32,
    tell: impl Fn(&RunEvent),
) -> Observed {
    use broadcast::error::RecvError;
    let began = Instant::now();
    let mut observed = Observed::default();
    let mut processes: BTreeMap<String, u32> = BTreeMap::new();
    let mut look = tokio::time::interval(LOOK);
    loop {
        let event = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => Some(event),
                Err(RecvError::Lagged(_)) => None,
                Err(RecvError::Closed) => return observed,
            },
            _ = look.tick() => None,
        };
        let now = began.elapsed().as_secs_f64();
        for (worker, pid) in &processes {
            if let Some(peak) = memory::peak_of(*pid) {
                let most = observed.worker_memory.entry(worker.clone()).or_default();
                *most = peak.max(*most);
            }
        }
        let Some(event) = event else { continue };
        tell(&event);
        match event {
            RunEvent::Launched { worker_id, pid, .. } => {
                processes.insert(worker_id, pid);
            }
            RunEvent::Step { step, .. } => {
                observed.commits.entry(step).or_insert(now);
            }
            RunEvent::Evaluated { .. } => {
                observed.evaluated = Some((now, rows));
                let asked = tokio::task::spawn_blocking(memory::device_memory);
                observed.device_memory = asked.await.unwrap_or_default();
            }
            RunEvent::CheckpointCommitted { step, bytes, .. } => {
                observed.checkpoints.insert(step, (now, bytes));
            }
            _ => {}
        }
    }
}
