//! Time as the domain knows it: what `now` is, which deadlines there are, and how long each is.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::membership::WorkerId;
use crate::numbers::grouped;

/// Milliseconds since the coordinator began to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// This long after.
    #[must_use]
    pub fn after(self, duration: Millis) -> Self {
        Self(self.0.saturating_add(duration.0))
    }

    /// How long since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Millis) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for Millis {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms.is_multiple_of(1000) => write!(f, "{} s", ms / 1000),
            ms => write!(f, "{}.{} s", ms / 1000, ms % 1000 / 100),
        }
    }
}

/// Something that is waited for only so long. Every wait of a run has one of these names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// Until all workers have joined and set up.
    Join,
    /// Until all ranks are ready.
    Forming,
    /// Until a worker is heard from again.
    Heartbeat(WorkerId),
    /// Until all members have left a generation that is over.
    Regroup,
    /// Until the next step is committed, more samples of an evaluation are scored, or a rank has left.
    Progress,
    /// Until a lost worker's process has ended.
    Exit(WorkerId),
    /// Until a lost worker is started again.
    Respawn(WorkerId),
    /// Until a worker that was started again has set up.
    Arrival(WorkerId),
    /// Until the last checkpoint is handed over again.
    Handover,
    /// Until a worker that was told to end has come to a boundary and left.
    Drain(WorkerId),
    /// Until all ranks have stopped and left.
    Stop,
    /// Until the figures of the last evaluation are known.
    Evaluation,
    /// Until more of a checkpoint has come in.
    Checkpoint(u64),
    /// Until released workers have left by themselves.
    Release,
    /// Until workers have followed SIGTERM.
    Terminate,
    /// Until killed workers are gone.
    Kill,
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join => f.write_str("workers must join"),
            Self::Forming => f.write_str("ranks must be ready"),
            Self::Heartbeat(worker) => write!(f, "heartbeat of {worker}"),
            Self::Regroup => f.write_str("ranks must leave their generation"),
            Self::Progress => f.write_str("ranks must get on"),
            Self::Exit(worker) => write!(f, "process of {worker} must end"),
            Self::Respawn(worker) => write!(f, "{worker} is started again"),
            Self::Arrival(worker) => write!(f, "{worker} must set up"),
            Self::Handover => f.write_str("the last checkpoint is handed over again"),
            Self::Drain(worker) => write!(f, "{worker} was told to end and must leave"),
            Self::Stop => f.write_str("ranks must stop"),
            Self::Evaluation => f.write_str("figures of the evaluation"),
            Self::Checkpoint(step) => write!(f, "checkpoint of step {}", grouped(*step)),
            Self::Release => f.write_str("workers must leave"),
            Self::Terminate => f.write_str("workers must follow SIGTERM"),
            Self::Kill => f.write_str("killed workers must be gone"),
        }
    }
}

/// `fault.grace` unless it is set.
const DEFAULT_GRACE: Millis = Millis(25_000);

fn no_end() -> Millis {
    Millis(u64::MAX)
}

/// How long each deadline is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// `fault.timeout`.
    pub fault: Millis,
    /// How often workers send heartbeats: a fifth of `fault.timeout`, so that one lost beat is no silence.
    pub heartbeat_interval: Millis,
    /// [`Deadline::Join`]: processes start and load libtorch, all on the same cores.
    pub join: Millis,
    /// [`Deadline::Regroup`] of workers that have to find a coordinator that was started again.
    pub rejoin: Millis,
    /// How long workers look for a coordinator that was lost before they end: it is their lifeline only in the long run.
    pub reconnect: Millis,
    /// [`Deadline::Forming`]: models are built, checkpoints and weights read.
    pub forming: Millis,
    /// [`Deadline::Progress`] before any step's time is known; a step may take as long as it takes.
    pub progress: Millis,
    /// [`Deadline::Drain`]: `fault.grace`. Records from before it was a setting had none.
    #[serde(default = "no_end")]
    pub grace: Millis,
    /// [`Deadline::Stop`]: a step, then a snapshot. A second request does not wait for it.
    pub stop: Millis,
    /// [`Deadline::Evaluation`]: scores are all there, only figures are computed.
    pub evaluation: Millis,
    /// [`Deadline::Checkpoint`].
    pub checkpoint: Millis,
    /// [`Deadline::Release`].
    pub release: Millis,
    /// [`Deadline::Terminate`].
    pub terminate: Millis,
    /// [`Deadline::Kill`].
    pub kill: Millis,
    /// How long a collective may take: long enough that slow evaluation or a checkpoint never trips it, since dead
    /// peers are found by their broken connections and not by this.
    pub collective: Millis,
}

impl Timeouts {
    /// Whether there is an end to [`Timeouts::grace`]. In records from before, who died when told to end had crashed.
    pub(super) fn has_grace(&self) -> bool {
        self.grace != no_end()
    }

    /// All from the one timeout that people set; whoever is told to end has the time that Kubernetes gives by default (30 s),
    /// less some for its process to end.
    #[must_use]
    pub fn from_fault_timeout(fault: Millis) -> Self {
        let times = |factor: u64| Millis(fault.0.saturating_mul(factor));
        let at_least = |seconds: u64, timeout: Millis| timeout.max(Millis(seconds * 1000));
        Self {
            fault,
            heartbeat_interval: Millis((fault.0 / 5).max(20)),
            join: at_least(60, times(12)),
            rejoin: at_least(10, times(2)),
            reconnect: at_least(60, times(12)),
            forming: at_least(120, times(24)),
            progress: at_least(60, times(12)),
            grace: DEFAULT_GRACE,
            stop: at_least(600, times(120)),
            evaluation: at_least(30, times(6)),
            checkpoint: at_least(120, times(24)),
            // Together at least 10 s lie between an end and SIGKILL.
            release: at_least(5, times(1)),
            terminate: at_least(5, times(1)),
            kill: at_least(2, times(1)),
            collective: at_least(1800, times(360)),
        }
    }
}
