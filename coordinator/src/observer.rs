//! What a run shows to whoever watches it: events as they come, and the newest status.

use std::path::PathBuf;
use std::time::Duration;

use proto::v1::Status;
use tokio::sync::{broadcast, mpsc, watch};

use crate::evaluation::Metrics;

/// Events that a slow receiver may fall behind by; then it is told how many it missed.
const EVENT_CAPACITY: usize = 4096;

/// Something worth a line, in the order in which it happened.
#[derive(Debug, Clone)]
pub enum RunEvent {
    /// The sentence that says what the run is doing or waiting for has changed.
    Reason(String),
    /// A worker process was started here.
    Launched {
        /// Its id.
        worker_id: String,
        /// Its process id.
        pid: u32,
        /// `cpu` or `cuda:K`.
        device: String,
        /// Where its output goes.
        log: PathBuf,
    },
    /// A worker opened its session.
    Joined {
        /// Its id.
        worker_id: String,
        /// Where it runs.
        host: String,
        /// `cpu` or `cuda:K`.
        device: String,
        /// The device as its driver calls it.
        device_name: String,
        /// How many have joined with it.
        joined: u32,
        /// How many the run wants.
        wanted: u32,
    },
    /// A generation was announced to its members.
    GenerationFormed {
        /// Its number.
        number: u64,
        /// The workers' ids by rank.
        members: Vec<String>,
        /// The first step it will commit.
        begins_at_step: u64,
        /// How many workers the run wants.
        wanted: u32,
    },
    /// A rank's state is in place.
    Ready {
        /// Its id.
        worker_id: String,
        /// Its rank.
        rank: u32,
        /// What the weights started from, in words.
        initial_state: String,
        /// Number of trainable values.
        parameters: u64,
    },
    /// A step was committed.
    Step {
        /// Its number, from 0 over the run.
        step: u64,
        /// Its epoch, from 0.
        epoch: u32,
        /// Mean loss over the step's samples.
        loss: f64,
        /// All ranks' images per second, over the last steps.
        images_per_second: f64,
        /// Fraction of the step's time spent waiting for data, mean over the ranks that reported so far.
        data_wait: f64,
    },
    /// Scores of the validation split are coming in.
    EvaluationBegan {
        /// The epoch that has ended, from 0.
        epoch: u32,
        /// Samples to score.
        samples: u32,
    },
    /// Some scores have come in.
    Scored {
        /// The epoch that has ended, from 0.
        epoch: u32,
        /// Samples scored or skipped so far.
        scored: u32,
        /// Samples to score.
        samples: u32,
    },
    /// The figures of an epoch.
    Evaluated {
        /// The epoch that has ended, from 0.
        epoch: u32,
        /// Steps committed before.
        step: u64,
        /// The figures.
        metrics: Box<Metrics>,
        /// From the first score to the figures.
        duration: Duration,
        /// Whether the mAP is the best of the run so far.
        best: bool,
    },
    /// A checkpoint is in place.
    CheckpointCommitted {
        /// Steps committed before it.
        step: u64,
        /// Its folder.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A checkpoint could not be written; training goes on.
    CheckpointProblem {
        /// Steps committed before it.
        step: u64,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A sample that could not be read was left out.
    SampleSkipped {
        /// `train` or `val`.
        split: &'static str,
        /// Its position in the split.
        sample: u32,
        /// Names the file.
        reason: String,
    },
    /// Odd, but the run goes on.
    Warning(String),
    /// The last lines of a worker's log, shown when the worker failed.
    WorkerLog {
        /// Its id.
        worker_id: String,
        /// The lines, oldest first.
        lines: Vec<String>,
    },
    /// A worker's session is over and, if it was started here, its process has ended.
    Left {
        /// Its id.
        worker_id: String,
        /// How, in words.
        how: String,
    },
    /// The run is over.
    Ended {
        /// The process's exit code.
        exit_code: u8,
        /// How it ended, in one sentence.
        reason: String,
    },
}

/// What one rank says of the time that one step took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTime {
    /// The step's number, from 0 over the run.
    pub step: u64,
    /// Wall time of the step in this rank, µs.
    pub micros: u64,
    /// Of it, waiting for decoded pictures, µs.
    pub data_wait_micros: u64,
}

/// The sending side, held by the run; make the receivers before handing it over.
#[derive(Debug, Clone)]
pub struct Observer {
    events: broadcast::Sender<RunEvent>,
    status: watch::Sender<Status>,
    /// Only who asks for it gets this: it is one message a rank and step.
    step_times: Option<mpsc::UnboundedSender<StepTime>>,
}

impl Default for Observer {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer {
    /// An observer nobody watches yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            events: broadcast::Sender::new(EVENT_CAPACITY),
            status: watch::Sender::new(Status::default()),
            step_times: None,
        }
    }

    /// The same, which also tells what every rank reports of every step. Nothing is dropped, so for short runs only.
    #[must_use]
    pub fn with_step_times() -> (Self, mpsc::UnboundedReceiver<StepTime>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let observer = Self {
            step_times: Some(sender),
            ..Self::new()
        };
        (observer, receiver)
    }

    /// All events from now on. A receiver that falls behind gets `Lagged` with the number it missed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<RunEvent> {
        self.events.subscribe()
    }

    /// The newest status; the same view that gRPC answers with.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Tells everyone who listens; nobody listening is fine.
    pub(crate) fn tell(&self, event: RunEvent) {
        let _ = self.events.send(event);
    }

    /// Tells who has asked for it.
    pub(crate) fn step_time(&self, time: StepTime) {
        if let Some(receiver) = &self.step_times {
            let _ = receiver.send(time);
        }
    }

    /// Puts the newest status in place.
    pub(crate) fn show(&self, status: Status) {
        self.status.send_replace(status);
    }
}
