//! Serves one run from an open listener to its end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::run::{Budgets, Event, State, World};
use domain::run_plan::{RunPlan, RunShape};
use proto::v1::{RunSpec, Status, Welcome};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::checkpoint::{CheckpointError, Entry};
use crate::driver::{Driver, Parts, Recorder, mailbox};
use crate::evaluation::scores_folder::ScoresFolder;
use crate::evaluation::{Evaluated, Evaluations, labels_of};
use crate::further::TrainSide;
use crate::grpc::rendezvous::Rendezvous;
use crate::grpc::{self, Context};
use crate::launch::local::{LocalSpec, LocalWorkers};
use crate::observer::{Observer, RunEvent};
use crate::report::Board;
use crate::scoring;
use crate::store::StoreError;

mod left;
mod open;

use left::{in_place, settle};
use open::open;

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
    /// `fault.grace`: how long a worker that was told to end may take to leave.
    pub grace: Duration,
    /// What the run does while it has fewer workers than it wants, and how many failures it survives.
    pub membership: Membership,
    /// Whether this goes on with an earlier run: if its coordinator was lost, workers of it may be training still, and
    /// are taken over.
    pub adopt: bool,
    /// Where to go on, if not at the beginning.
    pub resume: Option<ResumePoint>,
    /// `--stop-after`: end with a checkpoint once this many steps of the run are committed.
    pub stop_after: Option<u64>,
    /// Where workers come from.
    pub launch: Launch,
}

/// How a run takes the loss of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// `train.world`.
    pub world: World,
    /// `run.min_workers`: an elastic run goes on with no fewer.
    pub min_workers: u32,
    /// `train.balance = "speed"`.
    pub balance: bool,
    /// `train.on_out_of_memory = "halve"`.
    pub halve_when_out_of_memory: bool,
    /// `fault.crashes`, `fault.hangs`, `fault.preemptions`, `fault.out_of_memory`: within an hour.
    pub budgets: Budgets,
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

/// A request to end, from outside the protocol. Of signals the first stops the run with a checkpoint; a second one ends
/// it at once, resumable from the last checkpoint there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shutdown {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// Picture files that cannot be used were found: the run fails, in these words.
    BadPictures(String),
}

impl Shutdown {
    /// What it is to the run.
    pub(crate) fn into_event(self) -> Event {
        let stop = |by: &str| Event::StopAsked { by: by.to_owned() };
        match self {
            Self::Interrupt => stop("Ctrl-C"),
            Self::Terminate => stop("SIGTERM"),
            Self::BadPictures(problem) => Event::BadData { problem },
        }
    }
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
    /// The checkpoints that are in place, by step.
    pub checkpoints: Vec<Entry>,
    /// Mean loss of each epoch that was trained to its end: (epoch from 0, loss).
    pub epoch_losses: Vec<(u32, f64)>,
    /// Images trained on by this process.
    pub images: u64,
    /// Fraction of this process's steps that ranks waited for data; nothing before the first.
    pub data_wait: Option<f64>,
    /// Wall time from the first step's begin to the last step's end, evaluation included.
    pub training: Duration,
}

/// Why a run could not be served at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The setup contradicts itself.
    #[error(transparent)]
    Plan(#[from] domain::plan::PlanError),
    /// The data set contradicts itself.
    #[error("the validation split contradicts its classes: {0}")]
    Labels(#[from] domain::labels::NoSuchLabel),
    /// The run's durable record.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The checkpoints' folder.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
    /// A file or socket.
    #[error("{what}: {problem}")]
    Io {
        /// What was attempted, with its path or address, and what to do.
        what: String,
        /// What the operating system says.
        problem: std::io::Error,
    },
    /// What should not happen.
    #[error("{0}: this is a bug of the coordinator")]
    Internal(String),
}

impl RunError {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { problem, .. } if crate::run_dir::is_full(problem) => 75,
            Self::Checkpoints(CheckpointError::Io { .. } | CheckpointError::NoSpace { .. })
            | Self::Store(StoreError::Write { .. }) => 75,
            Self::Plan(_) | Self::Io { .. } | Self::Store(_) | Self::Checkpoints(_) => 64,
            Self::Labels(_) => 65,
            Self::Internal(_) => 1,
        }
    }
}

/// How long streams that are still open after the run's end may take to read its last words.
const DRAIN: Duration = Duration::from_secs(3);

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
    let address = address_of(&listener)?;
    let (messages, mailbox) = mailbox();
    let (live, live_seen) = watch::channel(None);
    let opened = open(&setup).await?;
    let state = State::new(opened.config)?;
    let steps_per_epoch = (state.total_steps() / u64::from(setup.shape.epochs)).max(1);
    let recorder = Recorder::open(
        &setup.run_dir.join("events.jsonl"),
        &setup.run_id,
        state.config(),
    )
    .map_err(|problem| RunError::Io {
        what: format!("cannot write events.jsonl in {}", setup.run_dir.display()),
        problem,
    })?;
    let history = Arc::new(opened.history);
    let val = labels_of(&setup.dataset.val)?;
    let sheet = scoring::sheet(setup.spec.scoring.as_ref(), val.samples());
    let train = TrainSide {
        labels: labels_of(&setup.dataset.train)?,
        plan: RunPlan::new(setup.shape, setup.launch.workers())?,
    };
    let evaluations = Evaluations::of_sheet(sheet, val, train)?;
    evaluations.have_figures(history.steps_and_maps());
    let complete = evaluations.restore(&opened.scores);
    let dataset = Arc::clone(&setup.dataset);
    let scores = Arc::new(ScoresFolder::new(&setup.run_dir, &setup.run_id, dataset));
    let rendezvous = Arc::new(Rendezvous::default());
    let timeouts = state.config().timeouts;
    let context = Arc::new(Context::new(
        setup.run_id.clone(),
        messages.clone(),
        live_seen,
        observer.status(),
        Arc::clone(&rendezvous),
        evaluations.clone(),
        Arc::clone(&scores),
        opened.checkpoints.clone(),
        Arc::clone(&history),
        Arc::clone(&setup.dataset),
        steps_per_epoch,
        setup.fault_timeout.max(Duration::from_secs(5)),
    ));
    grpc::conclude_kept(&context, state.config().last_generation, complete);
    let launcher = match &setup.launch {
        Launch::External { .. } => None,
        Launch::Local {
            worker_binary,
            devices,
            threads,
        } => {
            let spec = LocalSpec {
                binary: worker_binary.clone(),
                devices: devices.clone(),
                threads: *threads,
                run_id: setup.run_id.clone(),
                address,
                run_dir: setup.run_dir.clone(),
            };
            let mut launcher = LocalWorkers::new(spec, messages.clone());
            if state.config().adopted.is_some() || state.config().left_waiting {
                launcher.adopt();
            }
            Some(launcher)
        }
    };
    let checkpoints = opened.checkpoints.clone();
    let driver = Driver::new(Parts {
        state,
        run_id: setup.run_id.clone(),
        run_dir: setup.run_dir.clone(),
        welcome: Welcome {
            run_id: setup.run_id.clone(),
            spec: Some(setup.spec.clone()),
            heartbeat_interval_millis: timeouts.heartbeat_interval.0,
            reconnect_within_millis: timeouts.reconnect.0,
            steps_known: 0,
        },
        ledger: opened.ledger,
        store: opened.store,
        history: Arc::clone(&history),
        evaluations,
        scores: Arc::clone(&scores),
        checkpoints: opened.checkpoints,
        kept: opened.kept,
        mail: messages,
        rendezvous: Arc::clone(&rendezvous),
        live,
        launcher,
        recorder,
        observer: observer.clone(),
    });
    let (end, ended) = oneshot::channel::<()>();
    let ended = async {
        // Dropping the sender ends the server too.
        let _ = ended.await;
    };
    let (health, server) = grpc::serve(context, listener, ended)
        .await
        .map_err(|problem| RunError::Internal(format!("cannot serve reflection ({problem})")))?;
    let server = tokio::spawn(server);
    let board = Board::new(&setup.run_dir, Arc::clone(&history));
    let (driven, is_driven) = oneshot::channel();
    let board = tokio::spawn(board.follow(is_driven));
    let over = driver.run(mailbox, shutdown).await;
    drop(driven);

    // Stop accepting, tell everyone, wait until the last one has left; workers are gone by now.
    grpc::stop_serving(&health).await;
    rendezvous.close();
    drop(end);
    drain(server).await;
    if let Some(launcher) = over.launcher {
        launcher.end_all().await;
    }
    // A board that panicked has shown what it could.
    let _ = board.await;
    if let Err(problem) = settle(scores, Arc::clone(&history)).await {
        let text = format!("scores/last and scores/best do not lead where they should ({problem})");
        observer.tell(RunEvent::Warning(text));
    }
    let (mut exit_code, mut reason) = (over.ending.exit_code, over.ending.reason);
    if let Err(problem) = over.store.end().await {
        observer.tell(RunEvent::Warning(problem.to_string()));
        if exit_code == 0 {
            // Its checkpoints are good; what lacks is the record of who trained what.
            (exit_code, reason) = (
                75,
                format!("{reason}, but its record is not whole: {problem}"),
            );
        }
    }
    let evaluations = history.evaluations();
    Ok(Outcome {
        exit_code,
        reason,
        status: over.status,
        checkpoints: in_place(checkpoints, &evaluations).await,
        evaluations,
        epoch_losses: history.epoch_losses(),
        images: over.images,
        data_wait: over.data_wait,
        training: over.training,
    })
}

/// `http://HOST:PORT` that workers of this machine can reach.
fn address_of(listener: &TcpListener) -> Result<String, RunError> {
    let mut address = listener.local_addr().map_err(|problem| RunError::Io {
        what: "the listener has no address".to_owned(),
        problem,
    })?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(format!("http://{address}"))
}

/// Waits for open streams to read their last words, but not for ever.
async fn drain(mut server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>) {
    match tokio::time::timeout(DRAIN, &mut server).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(problem))) => tracing::warn!(%problem, "the server ended with an error"),
        Ok(Err(problem)) => tracing::warn!(%problem, "the server was cut off"),
        Err(_) => {
            server.abort();
            tracing::debug!("some streams were not read to their end and were cut off");
        }
    }
}
