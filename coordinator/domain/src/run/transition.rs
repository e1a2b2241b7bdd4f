//! From an event or a passed deadline to its consequences.

use super::{Deadline, Effect, Event, Measure, Millis, Phase, State};
use crate::membership::{JoinRefusal, Names, Session, WorkerId};

/// What `event` changes.
pub(super) fn apply(state: &mut State, event: &Event, now: Millis) -> Vec<Effect> {
    hear(state, event, now);
    match event {
        Event::Started => state.on_started(now),
        Event::Tick | Event::Heartbeat { .. } => Vec::new(),
        Event::Launched { .. } => Vec::new(),
        Event::LaunchFailed { worker, problem } => {
            if let Some(member) = state.roster.get_mut(worker) {
                // It never was: there is nothing to wait for.
                member.process = crate::membership::Process::Elsewhere;
            }
            let reason = format!("cannot start {worker}: {problem}");
            state.fail(64, reason, Some(worker.clone()), Vec::new(), now)
        }
        Event::Joined { worker, .. } => state.on_joined(worker, now),
        Event::Ready { worker, generation } => state.on_ready(worker, *generation),
        Event::Progress {
            worker,
            generation,
            report,
        } => state.on_progress(worker, *generation, report, now),
        Event::Scored {
            step,
            scored,
            samples,
        } => {
            state.on_scored(*step, *scored, *samples);
            Vec::new()
        }
        Event::Evaluated { step, problem } => state.on_evaluated(*step, problem.as_deref()),
        Event::CheckpointBegan { step } => {
            if !matches!(state.phase, Phase::Over(_)) {
                state.set(
                    Deadline::Checkpoint(*step),
                    now.after(state.config.timeouts.checkpoint),
                );
            }
            Vec::new()
        }
        Event::CheckpointEnded { step, problem } => {
            state.deadlines.remove(&Deadline::Checkpoint(*step));
            match problem {
                Some(problem) => {
                    let text = format!("no checkpoint of step {step}, training goes on: {problem}");
                    vec![Effect::Warn { text }]
                }
                None => Vec::new(),
            }
        }
        Event::Fault {
            worker,
            generation,
            step,
            class,
            message,
        } => state.on_fault(worker, *generation, *step, *class, message, now),
        Event::Leaving {
            worker,
            generation,
            step,
            reason,
        } => state.on_leaving(worker, *generation, *step, *reason, now),
        Event::StreamLost { worker, detail } => state.on_stream_lost(worker, detail, now),
        Event::Exited { worker, end, log } => state.on_exited(worker, *end, log, now),
        Event::StopAsked { by } => state.on_stop_asked(by, now),
        Event::SnapshotAsked => match state.phase {
            Phase::Training | Phase::Evaluating { .. } => vec![Effect::TakeSnapshot],
            _ => Vec::new(),
        },
        Event::BadData { problem } => state.fail(65, problem.clone(), None, Vec::new(), now),
        Event::Broken { problem } => state.fail(75, problem.clone(), None, Vec::new(), now),
    }
}

/// Notes the sign of life in every message of a worker.
fn hear(state: &mut State, event: &Event, now: Millis) {
    let (Event::Ready { worker, .. }
    | Event::Heartbeat { worker }
    | Event::Progress { worker, .. }
    | Event::Fault { worker, .. }
    | Event::Leaving { worker, .. }) = event
    else {
        return;
    };
    let ending = matches!(state.phase, Phase::Ending { .. } | Phase::Over(_));
    let fault = state.config.timeouts.fault;
    if let Some(member) = state.roster.get_mut(worker)
        && member.session == Session::Open
    {
        member.heard = now;
        member.silent = false;
        if !ending {
            state.set(Deadline::Heartbeat(worker.clone()), now.after(fault));
        }
    }
}

/// The earliest deadline that is over.
pub(super) fn next_expired(state: &State, now: Millis) -> Option<Deadline> {
    state
        .next_deadline()
        .filter(|(_, at)| *at <= now)
        .map(|(deadline, _)| deadline.clone())
}

/// What a passed deadline changes. It no longer runs afterwards.
pub(super) fn expire(state: &mut State, deadline: &Deadline, now: Millis) -> Vec<Effect> {
    state.deadlines.remove(deadline);
    let timeouts = state.config.timeouts;
    match deadline {
        Deadline::Join => {
            let missing = state.roster.which(|member| member.session != Session::Open);
            let reason = format!(
                "{} did not join within {}: see the log of each",
                Names(&missing),
                timeouts.join
            );
            state.fail(75, reason, missing.into_iter().next(), Vec::new(), now)
        }
        Deadline::Forming => {
            let missing = state.roster.which(|member| !member.ready);
            let reason = format!(
                "{} did not become ready in generation {} within {}: see the log of each",
                Names(&missing),
                state.generation,
                timeouts.forming
            );
            state.fail(75, reason, missing.into_iter().next(), Vec::new(), now)
        }
        // Unreachable is not dead: this alone ends nothing.
        Deadline::Heartbeat(worker) => {
            if let Some(member) = state.roster.get_mut(worker) {
                member.silent = true;
            }
            let text = format!(
                "nothing is heard from {worker} for {}, but its connection stands: waiting on",
                timeouts.fault
            );
            vec![Effect::Warn { text }]
        }
        Deadline::Cause => state.convict_the_likeliest(now),
        Deadline::Stop => {
            let missing = state.roster.which(|member| member.leaving.is_none());
            let reason = format!(
                "stopped without a new checkpoint: {} did not come to a step boundary within {}; \
                 resume with --resume",
                Names(&missing),
                timeouts.stop
            );
            state.stopped(75, reason, now)
        }
        Deadline::Evaluation => {
            let steps: Vec<_> = std::mem::take(&mut state.evaluations).into_keys().collect();
            steps
                .into_iter()
                .map(|step| Effect::Warn {
                    text: format!(
                        "the evaluation after step {step} has no figures after {}",
                        timeouts.evaluation
                    ),
                })
                .collect()
        }
        Deadline::Checkpoint(step) => {
            let text = format!(
                "the checkpoint of step {step} has not come in whole within {}: \
                 look at the disk and at rank 0's connection",
                timeouts.checkpoint
            );
            vec![Effect::Warn { text }]
        }
        Deadline::Release | Deadline::Terminate => state.escalate(now),
        Deadline::Kill => {
            let left = state.roster.which(|member| !member.is_gone());
            let text = format!(
                "{} could not be ended: end what is left by hand",
                Names(&left)
            );
            vec![Effect::Warn { text }]
        }
    }
}

impl State {
    fn on_started(&mut self, now: Millis) -> Vec<Effect> {
        if !self.config.local || self.phase != Phase::Waiting {
            return Vec::new();
        }
        self.set(Deadline::Join, now.after(self.config.timeouts.join));
        (0..self.config.workers)
            .map(|index| Effect::Launch {
                worker: WorkerId::local(index),
                index,
            })
            .collect()
    }

    fn on_joined(&mut self, worker: &WorkerId, now: Millis) -> Vec<Effect> {
        let admitted = match self.phase {
            Phase::Waiting => self.roster.join(worker, now),
            Phase::Ending { .. } | Phase::Over(_) => Err(JoinRefusal::Ending),
            _ => match self.roster.get(worker) {
                Some(member) if member.session == Session::Open => {
                    Err(JoinRefusal::NameTaken(worker.clone()))
                }
                _ => Err(JoinRefusal::Begun(self.generation, worker.clone())),
            },
        };
        if let Err(refusal) = admitted {
            let (reason, exit_code) = (refusal.to_string(), refusal.exit_code());
            return vec![Effect::Refuse {
                worker: worker.clone(),
                reason,
                exit_code,
            }];
        }
        self.set(
            Deadline::Heartbeat(worker.clone()),
            now.after(self.config.timeouts.fault),
        );
        let mut effects = vec![Effect::Welcome {
            worker: worker.clone(),
        }];
        if self.roster.is_complete() {
            effects.push(self.form(now));
        }
        effects
    }

    /// Begins the next generation with everyone who is here.
    fn form(&mut self, now: Millis) -> Effect {
        let begins_at_step = self.config.begins_at_step;
        self.generation += 1;
        self.phase = Phase::Forming;
        self.reports.clear();
        self.deadlines.remove(&Deadline::Join);
        self.set(Deadline::Forming, now.after(self.config.timeouts.forming));
        Effect::BeginGeneration {
            number: self.generation,
            members: self.roster.assign_ranks(begins_at_step),
            begins_at_step,
            from_checkpoint: self.config.from_checkpoint,
        }
    }

    fn on_ready(&mut self, worker: &WorkerId, generation: u64) -> Vec<Effect> {
        if !self.is_live(generation) {
            return Vec::new();
        }
        if let Some(member) = self.roster.get_mut(worker) {
            member.ready = true;
        }
        let all = self.roster.iter().all(|(_, member)| member.ready);
        if all && self.phase == Phase::Forming {
            self.begin_training();
            if self.config.evaluate_first {
                self.note_place(self.steps_done);
            }
        }
        Vec::new()
    }

    fn on_stop_asked(&mut self, by: &str, now: Millis) -> Vec<Effect> {
        match &self.phase {
            Phase::Waiting | Phase::Forming => {
                let done = self.steps_done;
                let reason = if done == 0 {
                    format!("stopped before the first step (asked by {by})")
                } else {
                    format!("stopped before step {done} (asked by {by}): resume with --resume")
                };
                self.stopped(0, reason, now)
            }
            Phase::Training | Phase::Evaluating { .. } => {
                self.phase = Phase::Stopping { by: by.to_owned() };
                self.set(Deadline::Stop, now.after(self.config.timeouts.stop));
                vec![Effect::Stop {
                    reason: format!("asked by {by}"),
                }]
            }
            Phase::Stopping { .. } => {
                let reason = format!(
                    "stopped at once on a second request (by {by}): resume from the last checkpoint with --resume"
                );
                let mut effects = self.stopped(75, reason, now);
                effects.extend(self.escalate(now));
                effects
            }
            Phase::Ending {
                measure: Measure::Released,
                ..
            } => self.escalate(now),
            Phase::Ending { .. } | Phase::Over(_) => Vec::new(),
        }
    }
}
