//! What can happen to a run. Events are recorded as they come, so they hold everything a decision rests on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::membership::WorkerId;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The coordinator serves; the run begins.
    Started,
    /// Nothing but time passing: a deadline may be over.
    Tick,
    /// A worker process was started here.
    Launched {
        /// Which.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
    },
    /// A worker process could not be started.
    LaunchFailed {
        /// Which.
        worker: WorkerId,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A worker opened its session.
    Joined {
        /// Which.
        worker: WorkerId,
        /// Where it runs.
        host: String,
        /// Its process id there.
        pid: u32,
        /// `cpu` or `cuda:K`.
        device: String,
        /// The generation it is in already: it comes back to a coordinator that was started again. 0: none.
        #[serde(default, skip_serializing_if = "is_zero")]
        generation: u64,
    },
    /// A rank's process group stands and its state is in place.
    Ready {
        /// Which.
        worker: WorkerId,
        /// In which generation.
        generation: u64,
    },
    /// A worker has set up and is in no process group: it waits for the next generation.
    Standby {
        /// Which.
        worker: WorkerId,
        /// The generation it was in; 0: none.
        generation: u64,
        /// The committed steps whose state it holds; `None`: it holds none, it has just come or was still receiving it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<u64>,
        /// The micro-batches of the step after these whose gradients it has, by their numbers in the step and in the order
        /// in which it added them up.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        micro_batches: Vec<u32>,
    },
    /// A sign of life.
    Heartbeat {
        /// Whose.
        worker: WorkerId,
        /// The collective it last entered; empty: none.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        collective: String,
        /// Whether it is still in it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        in_collective: bool,
        /// Whether its process was told to end.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        draining: bool,
    },
    /// A rank applied a step.
    Progress {
        /// Which.
        worker: WorkerId,
        /// In which generation.
        generation: u64,
        /// What it reports.
        report: StepReport,
    },
    /// Scores of the validation split came in.
    Scored {
        /// Steps committed before the evaluation.
        step: u64,
        /// Samples scored or skipped so far.
        scored: u32,
        /// Samples of the split.
        samples: u32,
    },
    /// The figures of an evaluation are known.
    Evaluated {
        /// Steps committed before it.
        step: u64,
        /// Whether there are figures, or why not.
        problem: Option<String>,
        /// The mAP, as the bits of a float64.
        #[serde(default)]
        map_bits: Option<u64>,
    },
    /// The bytes of a checkpoint began to come in, or go on to.
    CheckpointBegan {
        /// Steps committed before it.
        step: u64,
    },
    /// A checkpoint is in place, or why it is not.
    CheckpointEnded {
        /// Steps committed before it.
        step: u64,
        /// What is wrong and what to do.
        problem: Option<String>,
    },
    /// A worker cannot go on by itself.
    Fault {
        /// Which.
        worker: WorkerId,
        /// In which generation; 0 before the first.
        generation: u64,
        /// At which step.
        step: u64,
        /// Of what kind.
        class: FaultClass,
        /// What, where, what to do next.
        message: String,
    },
    /// A worker has come to an end of its work and waits for its release.
    Leaving {
        /// Which.
        worker: WorkerId,
        /// In which generation; 0 before the first.
        generation: u64,
        /// Steps committed so far.
        step: u64,
        /// Why.
        reason: LeaveReason,
    },
    /// A worker's stream ended or broke.
    StreamLost {
        /// Whose.
        worker: WorkerId,
        /// What the transport says.
        detail: String,
    },
    /// A worker process that was started here has ended.
    Exited {
        /// Which.
        worker: WorkerId,
        /// How.
        end: ProcessEnd,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// Someone wants the run to stop with a checkpoint.
    StopAsked {
        /// Who or what, for the reason's "asked by …".
        by: String,
    },
    /// Someone wants a checkpoint now.
    SnapshotAsked,
    /// The data set cannot be trained on.
    BadData {
        /// What, where, what to do next.
        problem: String,
    },
    /// The coordinator itself cannot go on.
    Broken {
        /// What, where, what to do next.
        problem: String,
    },
}

/// One rank's report of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step's number in the run, from 0.
    pub step: u64,
    /// The bits of the mean loss over all ranks' samples: equal on all ranks, and JSON has no NaN.
    pub loss_bits: u64,
    /// All ranks' samples.
    pub samples_in_step: u32,
    /// Digest of the sample ids this rank decoded and applied.
    pub samples_digest: u64,
    /// Hash of the state in hexadecimal, at the steps at which replicas are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_hash: Option<String>,
    /// Nanoseconds that this rank's forward passes took per sample; 0: it had none. Its other passes wait for peers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pace: u64,
    /// The loss or the gradient was not finite: the step changed nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passed_over: bool,
}

/// What kind of fault a worker reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultClass {
    /// A collective failed: most likely a peer died, and the peer is the cause.
    Collective,
    /// An image cannot be read.
    Data,
    /// The loss or a gradient is not finite.
    Numeric,
    /// Out of memory.
    Memory,
    /// Out of memory for several micro-batches side by side; the worker does them one by one from here on.
    MemoryOfPass,
    /// This worker cannot do what the config asks for.
    Config,
    /// A bug.
    Internal,
    /// It cannot go on as it is, and its process executes itself again.
    Restart,
}

/// Why a worker leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// It reached the plan's end.
    Finished,
    /// A stop was asked for and all ranks agreed on the step.
    Stopped,
    /// Its process was told to end.
    Signalled,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessEnd {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Somehow, while nobody watched it: its coordinator was another one.
    Unseen,
    /// Before this coordinator was started, and an earlier one saw how and has counted it; or it never was.
    Known,
}

impl fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit status {code}"),
            Self::Unseen => {
                f.write_str("ended; how, only the coordinator that had started it could know")
            }
            Self::Known => f.write_str("ended before this coordinator was started"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "was killed by signal {signal} ({name})"),
                None => write!(f, "was killed by signal {signal}"),
            },
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The signals that end processes in practice, by their numbers on Linux.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        _ => return None,
    })
}
