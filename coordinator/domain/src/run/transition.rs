//! From an event or a passed deadline to its consequences.

use super::words::steps;
use super::{Deadline, Effect, Event, Measure, Millis, Phase, Source, State, StopCause, StopWish};
use crate::membership::{Process, Session};
use crate::numbers::grouped;

/// What `event` changes.
pub(super) fn apply(state: &mut State, event: &Event, now: Millis) -> Vec<Effect> {
    hear(state, event, now);
    match event {
        Event::Started => state.on_started(now),
        Event::Tick => Vec::new(),
        Event::Heartbeat {
            worker, draining, ..
        } => state.on_heartbeat(worker, *draining, now),
        Event::Standby {
            worker,
            generation,
            step,
            micro_batches,
        } => state.on_standby(worker, *generation, *step, micro_batches, now),
        Event::Launched { .. } => Vec::new(),
        Event::LaunchFailed { worker, problem } => {
            if let Some(mut member) = state.roster.get_mut(worker) {
                // It never was: there is nothing to wait for.
                member.process = Process::Elsewhere;
            }
            let reason = format!("cannot start {worker}: {problem}");
            state.fail(64, reason, Some(worker.clone()), Vec::new(), now)
        }
        Event::Joined {
            worker,
            host,
            device,
            generation,
            ..
        } => state.on_joined(worker, (host, device), *generation, now),
        Event::Ready { worker, generation } => state.on_ready(worker, *generation, now),
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
            state.on_scored(*step, *scored, *samples, now);
            Vec::new()
        }
        Event::Evaluated {
            step,
            problem,
            map_bits,
        } => {
            let mut effects = state.on_evaluated(*step, problem.as_deref());
            effects.extend(state.note_map(*step, *map_bits, now));
            effects
        }
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
                Some(problem) => state.on_no_checkpoint(*step, problem),
                None => {
                    state.on_checkpoint(*step);
                    Vec::new()
                }
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
    | Event::Standby { worker, .. }
    | Event::Heartbeat { worker, .. }
    | Event::Progress { worker, .. }
    | Event::Fault { worker, .. }
    | Event::Leaving { worker, .. }) = event
    else {
        return;
    };
    let ending = matches!(state.phase, Phase::Ending { .. } | Phase::Over(_));
    let fault = state.config.timeouts.fault;
    let steps_done = state.steps_done;
    let Some(mut member) = state.roster.get_mut(worker) else {
        return;
    };
    if member.session != Session::Open {
        return;
    }
    member.heard = now;
    member.silent = false;
    member.steps_when_heard = steps_done;
    if let Event::Heartbeat {
        collective,
        in_collective,
        ..
    } = event
        && (member.collective != *collective || member.in_collective != *in_collective)
    {
        member.collective_since = now;
        member.collective.clone_from(collective);
        member.in_collective = *in_collective;
    }
    drop(member);
    if !ending {
        state.set(Deadline::Heartbeat(worker.clone()), now.after(fault));
    }
}

impl State {
    fn on_checkpoint(&mut self, step: u64) {
        // One that is ahead of what is committed could not be gone on from.
        if step <= self.steps_done {
            self.checkpointed = self.checkpointed.max(Some(step));
            self.checkpoint_problem = None;
            self.handovers = 0;
        }
    }

    /// A run that is on its way out says in the end what became of its last checkpoint; before, people are told that it goes
    /// on without this one.
    fn on_no_checkpoint(&mut self, step: u64, problem: &str) -> Vec<Effect> {
        self.checkpoint_problem = Some(problem.to_owned());
        let is_last = step == self.total_steps()
            || self.stop.is_some()
            || self.config.stop_after.is_some_and(|after| step >= after);
        if is_last || self.is_ending() {
            return Vec::new();
        }
        let step = grouped(step);
        let text = format!("no checkpoint of step {step}, training goes on: {problem}");
        vec![Effect::Warn { text }]
    }

    pub(super) fn on_stop_asked(&mut self, by: &str, now: Millis) -> Vec<Effect> {
        let under_way = self.stop.as_ref().map(|stop| &stop.cause);
        if under_way == Some(&StopCause::Early) && !self.is_ending() {
            // The ranks are on their way out already, for another reason now.
            self.wish_to_stop(by, StopCause::Asked, now);
            if let Phase::Stopping { by: shown } = &mut self.phase {
                by.clone_into(shown);
            }
            return Vec::new();
        }
        self.stop_for(by, StopCause::Asked, now)
    }

    /// Has the ranks stop at a step boundary; a second time, ends the run at once.
    pub(super) fn stop_for(&mut self, by: &str, cause: StopCause, now: Millis) -> Vec<Effect> {
        if self.stop.is_some() && !self.is_ending() {
            let reason = format!(
                "stopped at once on a second request (by {by}): resume from the last checkpoint with --resume"
            );
            let mut effects = self.stopped(75, reason, now);
            effects.extend(self.escalate(now));
            return effects;
        }
        match &self.phase {
            Phase::Waiting => self.stop_from_disk(by, &cause, now),
            Phase::Forming if self.steps_done == self.durable_state().0 => {
                self.stop_from_disk(by, &cause, now)
            }
            Phase::Forming | Phase::Regrouping { .. } => {
                self.wish_to_stop(by, cause, now);
                self.form_if_possible(now)
            }
            Phase::Training | Phase::Evaluating { .. } | Phase::Stopping { .. } => {
                let wish = self.wish_to_stop(by, cause, now);
                self.phase = Phase::Stopping { by: by.to_owned() };
                vec![Effect::Stop {
                    reason: wish.text(),
                }]
            }
            Phase::Ending {
                measure: Measure::Released,
                ..
            } => self.escalate(now),
            Phase::Ending { .. } | Phase::Over(_) => Vec::new(),
        }
    }

    fn wish_to_stop(&mut self, by: &str, cause: StopCause, now: Millis) -> StopWish {
        let wish = StopWish {
            by: by.to_owned(),
            cause,
        };
        self.stop = Some(wish.clone());
        self.set(Deadline::Stop, now.after(self.config.timeouts.stop));
        wish
    }

    /// Nobody holds more than what is on disk.
    fn stop_from_disk(&mut self, by: &str, cause: &StopCause, now: Millis) -> Vec<Effect> {
        if *cause == StopCause::Early {
            let reason = format!(
                "finished early after {} ({by})",
                steps(self.durable_state().0)
            );
            return self.finished(reason, now);
        }
        let reason = match self.durable_state() {
            (_, Source::Seed) => format!("stopped before the first step (asked by {by})"),
            (step, _) => {
                let after = steps(step);
                format!("stopped after {after} (asked by {by}): resume with --resume")
            }
        };
        self.stopped(0, reason, now)
    }
}
