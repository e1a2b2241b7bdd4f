//! How a run ends: what is decided, and the order in which workers are let go, told to go, and made to go.

use serde::{Deserialize, Serialize};

use super::schedule::Schedule;
use super::words::{counted, steps};
use super::{Deadline, Effect, Millis, Phase, State};
use crate::membership::{Group, Process, Session, WorkerId};
use crate::numbers::grouped;

/// In which of three ways a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndKind {
    /// The plan was done, or as much of it as is of use (`train.early_stopping`).
    Finished,
    /// It was stopped and can be resumed.
    Stopped,
    /// It could not go on.
    Failed,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// In which way.
    pub kind: EndKind,
    /// The coordinator's exit code: 0 done or resumable, 64 usage, 65 bad data, 75 try again, 1 a bug.
    pub exit_code: u8,
    /// One sentence: what happened, to whom, and what to do next.
    pub reason: String,
    /// The worker that is the cause, if one is.
    pub culprit: Option<WorkerId>,
    /// The last lines of the culprit's log, as far as known.
    pub log: Vec<String>,
    /// Steps committed.
    pub step: u64,
}

/// What has been done so that workers leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// They were released.
    Released,
    /// Their processes got SIGTERM, their sessions were closed.
    Terminated,
    /// Their processes got SIGKILL.
    Killed,
}

impl Measure {
    /// For the reason's "waiting for worker-1, …".
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Released => "which was released",
            Self::Terminated => "which was sent SIGTERM",
            Self::Killed => "which was sent SIGKILL",
        }
    }
}

impl State {
    /// Ends the run as a failure of `culprit`, or of nobody in particular.
    pub(super) fn fail(
        &mut self,
        exit_code: u8,
        reason: String,
        culprit: Option<WorkerId>,
        log: Vec<String>,
        now: Millis,
    ) -> Vec<Effect> {
        let step = self.steps_done;
        self.begin_ending(
            Ending {
                kind: EndKind::Failed,
                exit_code,
                reason,
                culprit,
                log,
                step,
            },
            now,
        )
    }

    /// Ends the run as finished.
    pub(super) fn finished(&mut self, reason: String, now: Millis) -> Vec<Effect> {
        let step = self.steps_done;
        self.begin_ending(
            Ending {
                kind: EndKind::Finished,
                exit_code: 0,
                reason,
                culprit: None,
                log: Vec::new(),
                step,
            },
            now,
        )
    }

    /// Ends the run as stopped.
    pub(super) fn stopped(&mut self, exit_code: u8, reason: String, now: Millis) -> Vec<Effect> {
        let step = self.steps_done;
        let ending = Ending {
            kind: EndKind::Stopped,
            exit_code,
            reason,
            culprit: None,
            log: Vec::new(),
            step,
        };
        self.begin_ending(ending, now)
    }

    /// Fixes how the run ends and releases everyone. What was decided first stays.
    pub(super) fn begin_ending(&mut self, ending: Ending, now: Millis) -> Vec<Effect> {
        if self.is_ending() {
            return Vec::new();
        }
        let code_of_others = if ending.kind == EndKind::Failed {
            75
        } else {
            ending.exit_code
        };
        let mut effects = Vec::new();
        for (worker, member) in self.roster.iter() {
            if member.session == Session::Open {
                let exit_code = if ending.culprit.as_ref() == Some(worker) {
                    ending.exit_code
                } else {
                    code_of_others
                };
                let reason = ending.reason.clone();
                effects.push(Effect::Release {
                    worker: worker.clone(),
                    reason,
                    exit_code,
                });
            } else if member.process == Process::Here {
                // Nothing can be said to a process without a session.
                effects.push(Effect::Terminate {
                    worker: worker.clone(),
                });
            }
        }
        self.deadlines
            .retain(|deadline| matches!(deadline, Deadline::Checkpoint(_)));
        self.set(Deadline::Release, now.after(self.config.timeouts.release));
        self.phase = Phase::Ending {
            ending,
            measure: Measure::Released,
        };
        self.await_figures(now, &mut effects);
        effects
    }

    /// Sharpens the measure against those that are still here.
    pub(super) fn escalate(&mut self, now: Millis) -> Vec<Effect> {
        let timeouts = self.config.timeouts;
        let Phase::Ending { measure, .. } = &mut self.phase else {
            return Vec::new();
        };
        let mut effects = Vec::new();
        let (next, deadline, wait) = match measure {
            Measure::Released => (Measure::Terminated, Deadline::Terminate, timeouts.terminate),
            Measure::Terminated => (Measure::Killed, Deadline::Kill, timeouts.kill),
            Measure::Killed => return Vec::new(),
        };
        *measure = next;
        self.deadlines.remove(&Deadline::Release);
        self.deadlines.remove(&Deadline::Terminate);
        self.set(deadline, now.after(wait));
        for (worker, member) in self.roster.iter().filter(|(_, member)| !member.is_gone()) {
            let worker = worker.clone();
            match (&member.process, next) {
                (Process::Here, Measure::Terminated) => effects.push(Effect::Terminate { worker }),
                (Process::Here, _) => effects.push(Effect::Kill { worker }),
                (_, _) => effects.push(Effect::Close { worker }),
            }
        }
        effects
    }

    /// Whether the last evaluation's figures are still to come although its scores are all here, or were due.
    fn await_figures(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let Phase::Ending { ending, .. } = &self.phase else {
            return;
        };
        let kind = ending.kind;
        let all_are_wanted = kind == EndKind::Finished && ending.step == self.total_steps();
        self.evaluations.retain(|step, evaluation| {
            let complete = evaluation.samples > 0 && evaluation.scored == evaluation.samples;
            if !complete && all_are_wanted {
                let (scored, samples) = (evaluation.scored, evaluation.samples);
                let text = format!(
                    "the evaluation after {} has no figures: {} of {} were scored",
                    steps(*step),
                    grouped(scored.into()),
                    counted(samples.into(), "sample")
                );
                effects.push(Effect::Warn { text });
            }
            complete && kind != EndKind::Failed
        });
        if !self.evaluations.is_empty() {
            self.set(
                Deadline::Evaluation,
                now.after(self.config.timeouts.evaluation),
            );
        }
    }

    /// Closes the run once nobody and nothing is waited for.
    pub(super) fn close_if_done(&mut self, effects: &mut Vec<Effect>) {
        let Phase::Ending { ending, measure } = &self.phase else {
            return;
        };
        // A killed process is not waited for beyond its deadline: it hangs in the kernel.
        let given_up = *measure == Measure::Killed && !self.deadlines.runs(&Deadline::Kill);
        let alone = self.roster.group(Group::Present).is_empty() || given_up;
        if !alone || !self.evaluations.is_empty() {
            return;
        }
        let ending = ending.clone();
        self.deadlines = Schedule::default();
        effects.push(Effect::End(ending.clone()));
        self.phase = Phase::Over(ending);
    }
}
