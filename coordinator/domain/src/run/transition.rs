//! From an event or a passed deadline to its consequences.

use super::restart::LossClass;
use super::{Deadline, Effect, Event, Measure, Millis, Phase, Source, State, StopWish};
use crate::membership::{JoinRefusal, Names, Place, Process, Session, WorkerId};

/// What `event` changes.
pub(super) fn apply(state: &mut State, event: &Event, now: Millis) -> Vec<Effect> {
    hear(state, event, now);
    match event {
        Event::Started => state.on_started(now),
        Event::Tick | Event::Heartbeat { .. } => Vec::new(),
        Event::Standby {
            worker,
            generation,
            step,
        } => state.on_standby(worker, *generation, *step, now),
        Event::Launched { .. } => Vec::new(),
        Event::LaunchFailed { worker, problem } => {
            if let Some(member) = state.roster.get_mut(worker) {
                // It never was: there is nothing to wait for.
                member.process = Process::Elsewhere;
            }
            let reason = format!("cannot start {worker}: {problem}");
            state.fail(64, reason, Some(worker.clone()), Vec::new(), now)
        }
        Event::Joined {
            worker, generation, ..
        } => state.on_joined(worker, *generation, now),
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
    if let Some(member) = state.roster.get_mut(worker)
        && member.session == Session::Open
    {
        member.heard = now;
        member.silent = false;
        member.steps_when_heard = steps_done;
        if let Event::Heartbeat {
            collective,
            in_collective,
            ..
        } = event
        {
            member.collective.clone_from(collective);
            member.in_collective = *in_collective;
        }
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
        Deadline::Join => state.on_join_expired(now),
        Deadline::Forming => {
            let late = state
                .roster
                .which(|member| member.rank.is_some() && !member.ready);
            let mut effects = Vec::new();
            for worker in late {
                let text = format!(
                    "{} did not become ready in generation {} within {}: see its log",
                    state.name(&worker),
                    state.generation,
                    timeouts.forming
                );
                effects.extend(state.give_up_on(&worker, LossClass::Hang, text, now));
            }
            effects
        }
        Deadline::Heartbeat(worker) => state.on_silence(worker, now),
        Deadline::Regroup => state.give_up_on_those_inside(now),
        Deadline::Progress if !matches!(state.phase, Phase::Training) => Vec::new(),
        Deadline::Progress => state.on_standstill(now),
        Deadline::Exit(worker) => vec![Effect::Kill {
            worker: worker.clone(),
        }],
        // The restart itself follows every event.
        Deadline::Respawn(_) => Vec::new(),
        Deadline::Arrival(worker) => {
            let text = format!(
                "{worker} was started again and did not set up within {}: see its log",
                timeouts.join
            );
            state.give_up_on(worker, LossClass::Crash, text, now)
        }
        Deadline::Stop => {
            let missing = state
                .roster
                .which(|member| member.rank.is_some() && member.leaving.is_none());
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
        if self.config.adopted.is_some() {
            // Its members try to reach this coordinator. Whoever else is here is found out by the launcher.
            self.set(Deadline::Regroup, now.after(self.config.timeouts.rejoin));
            return Vec::new();
        }
        if !self.config.local || self.phase != Phase::Waiting {
            return Vec::new();
        }
        self.await_workers(now);
        (0..self.config.workers)
            .map(|index| Effect::Launch {
                worker: WorkerId::local(index),
                index,
            })
            .collect()
    }

    /// Waits for all workers, but not for ever: an elastic run then begins with those who are here.
    pub(super) fn await_workers(&mut self, now: Millis) {
        let until = now.after(self.config.timeouts.join);
        self.waited_until = None;
        self.set(Deadline::Join, until);
    }

    fn on_join_expired(&mut self, now: Millis) -> Vec<Effect> {
        self.waited_until = Some(now);
        let effects = self.form_if_possible(now);
        if !effects.is_empty() || !self.config.local {
            return effects;
        }
        let ready = |member: &crate::membership::Member| {
            member.session == Session::Open && matches!(member.place, Place::Standby { .. })
        };
        let missing = self.roster.which(|member| !ready(member));
        let reason = format!(
            "{} did not join and set up within {}: see the log of each",
            Names(&missing),
            self.config.timeouts.join
        );
        self.fail(75, reason, missing.into_iter().next(), Vec::new(), now)
    }

    fn on_joined(&mut self, worker: &WorkerId, generation: u64, now: Millis) -> Vec<Effect> {
        let comes_back = self.roster.get(worker).is_some_and(|member| {
            member.rank.is_some()
                && member.session == Session::Never
                && (generation == self.generation || self.was_left_behind_in(generation))
                && matches!(self.phase, Phase::Regrouping { .. })
        });
        if comes_back {
            return self.on_return(worker, now);
        }
        let mut effects = Vec::new();
        let admitted = if self.is_ending() {
            Err(JoinRefusal::Ending)
        } else if generation != 0 {
            Err(JoinRefusal::Stale(generation))
        } else {
            if self
                .roster
                .get(worker)
                .is_some_and(|member| member.session == Session::Never)
            {
                // A fresh process in the place of one that was a member.
                let text = format!("{} was started again meanwhile", self.name(worker));
                effects.extend(self.lose(worker, text, now));
            }
            self.roster.join(worker, now)
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
        effects.push(Effect::Welcome {
            worker: worker.clone(),
        });
        effects
    }

    /// A member has found the coordinator that was started again. It was training all along; now it is asked to where
    /// everybody can be told the same plan.
    fn on_return(&mut self, worker: &WorkerId, now: Millis) -> Vec<Effect> {
        self.roster.reopen(worker, now);
        self.set(
            Deadline::Heartbeat(worker.clone()),
            now.after(self.config.timeouts.fault),
        );
        vec![
            Effect::Welcome {
                worker: worker.clone(),
            },
            Effect::Regroup {
                workers: vec![worker.clone()],
                at_boundary: false,
                reason: "the coordinator was started again".to_owned(),
            },
        ]
    }

    fn on_standby(
        &mut self,
        worker: &WorkerId,
        generation: u64,
        step: Option<u64>,
        now: Millis,
    ) -> Vec<Effect> {
        let left_behind = self.was_left_behind_in(generation);
        let (newest, total) = (self.generation, self.total_steps());
        let Some(member) = self.roster.get_mut(worker) else {
            return Vec::new();
        };
        if member.session != Session::Open || matches!(member.place, Place::Standby { .. }) {
            return Vec::new();
        }
        let current = generation == newest || (left_behind && member.adopted);
        let member_of_it = member.rank.is_some() && current;
        if member.rank.is_some() && !current {
            // Its generation is older than the one it was sent into: it will hear of that one.
            return Vec::new();
        }
        let (next, ready) = (member.next_step, member.ready);
        if let Some(step) = step.filter(|_| member_of_it && !member.adopted)
            && (step > next || (ready && step < next))
        {
            let reason = format!(
                "{} left generation {generation} after {step} steps but had reported {next}: \
                 install the same version everywhere",
                self.name(worker)
            );
            return self.fail(1, reason, Some(worker.clone()), Vec::new(), now);
        }
        // What it holds is of this lineage only if it was in the newest generation.
        let holds = step.filter(|&step| member_of_it && step <= total);
        member.place = Place::Standby { holds };
        member.leaving = None;
        let adopted = std::mem::take(&mut member.adopted);
        self.deadlines.remove(&Deadline::Arrival(worker.clone()));
        let mut effects = Vec::new();
        if let Some(step) = holds.filter(|&step| adopted && step > self.steps_done) {
            // Its reports of them were lost with its coordinator: what it holds counts.
            self.steps_done = step;
            effects.push(Effect::Commit {
                generation: newest,
                step: step - 1,
                worker: worker.clone(),
            });
        }
        if member_of_it && self.is_live(newest) {
            match self.boundary.clone() {
                // The others come to the same boundary by themselves.
                Some(cause) if !matches!(self.phase, Phase::Regrouping { .. }) => {
                    self.explained = true;
                    self.reports.clear();
                    self.deadlines.remove(&Deadline::Progress);
                    self.set(Deadline::Regroup, now.after(self.config.timeouts.fault));
                    self.phase = Phase::Regrouping { cause, since: now };
                }
                Some(_) => {}
                None => {
                    let cause = format!("{} left the generation", self.name(worker));
                    effects.extend(self.regroup(cause, now));
                }
            }
        }
        if self.phase == Phase::Waiting
            && !self.config.local
            && self.here() as usize >= self.fewest()
        {
            let due = now.after(self.config.timeouts.join);
            self.deadlines.entry(Deadline::Join).or_insert(due);
        }
        effects.extend(self.form_if_possible(now));
        effects.extend(self.ask_for_a_boundary());
        effects
    }

    /// Someone waits to come in, and there is room: the members are asked to the next step boundary.
    pub(super) fn ask_for_a_boundary(&mut self) -> Vec<Effect> {
        if !matches!(self.phase, Phase::Training | Phase::Evaluating { .. })
            || self.boundary.is_some()
            || self.world_size() >= self.config.workers
        {
            return Vec::new();
        }
        let waiting = self.roster.which(|member| {
            member.session == Session::Open
                && member.rank.is_none()
                && matches!(member.place, Place::Standby { .. })
        });
        if waiting.is_empty() {
            return Vec::new();
        }
        let verb = if waiting.len() == 1 { "comes" } else { "come" };
        let reason = format!("{} {verb} in", Names(&waiting));
        self.boundary = Some(reason.clone());
        vec![Effect::Regroup {
            workers: self.roster.which(|member| member.rank.is_some()),
            at_boundary: true,
            reason,
        }]
    }

    fn on_ready(&mut self, worker: &WorkerId, generation: u64, now: Millis) -> Vec<Effect> {
        if !self.is_live(generation) || !self.is_member(worker) {
            return Vec::new();
        }
        if let Some(member) = self.roster.get_mut(worker) {
            member.ready = true;
        }
        let all = self
            .roster
            .iter()
            .all(|(_, member)| member.rank.is_none() || member.ready);
        if !all || self.phase != Phase::Forming {
            return Vec::new();
        }
        let effects = self.begin_training(now);
        if self.evaluations.contains_key(&self.steps_done) || self.opens_with_evaluation {
            self.note_place(self.steps_done);
        }
        effects
    }

    fn on_checkpoint(&mut self, step: u64) {
        if self.snapshot_owed.is_some_and(|owed| owed <= step) {
            self.snapshot_owed = None;
        }
        // One that is ahead of what is committed could not be gone on from.
        if step <= self.steps_done {
            self.checkpointed = self.checkpointed.max(Some(step));
        }
    }

    fn on_stop_asked(&mut self, by: &str, now: Millis) -> Vec<Effect> {
        if self.stop.is_some() && !self.is_ending() {
            let reason = format!(
                "stopped at once on a second request (by {by}): resume from the last checkpoint with --resume"
            );
            let mut effects = self.stopped(75, reason, now);
            effects.extend(self.escalate(now));
            return effects;
        }
        match &self.phase {
            Phase::Waiting => self.stop_from_disk(by, now),
            Phase::Forming if self.steps_done == self.durable_state().0 => {
                self.stop_from_disk(by, now)
            }
            Phase::Forming | Phase::Regrouping { .. } => {
                self.wish_to_stop(by, now);
                self.form_if_possible(now)
            }
            Phase::Training | Phase::Evaluating { .. } | Phase::Stopping { .. } => {
                self.wish_to_stop(by, now);
                self.phase = Phase::Stopping { by: by.to_owned() };
                vec![Effect::Stop {
                    reason: format!("asked by {by}"),
                }]
            }
            Phase::Ending {
                measure: Measure::Released,
                ..
            } => self.escalate(now),
            Phase::Ending { .. } | Phase::Over(_) => Vec::new(),
        }
    }

    fn wish_to_stop(&mut self, by: &str, now: Millis) {
        self.stop = Some(StopWish {
            by: by.to_owned(),
            failure: None,
        });
        self.set(Deadline::Stop, now.after(self.config.timeouts.stop));
    }

    /// Nobody holds more than what is on disk.
    fn stop_from_disk(&mut self, by: &str, now: Millis) -> Vec<Effect> {
        let reason = match self.durable_state() {
            (_, Source::Seed) => format!("stopped before the first step (asked by {by})"),
            (step, _) => {
                format!("stopped before step {step} (asked by {by}): resume with --resume")
            }
        };
        self.stopped(0, reason, now)
    }
}
