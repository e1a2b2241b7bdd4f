//! Workers that live and do nothing. Being out of sight alone is no death: steps that need a worker and are committed
//! show that it lives.

use super::restart::LossClass;
use super::{Deadline, Effect, Millis, Phase, State};
use crate::membership::{Crowd, Group, Session, WorkerId};

/// So often in a row ranks may be found not to get on, none of them standing out, before they are taken to hang: ten minutes at
/// least, and a hundred times as long as the longest step took. A storage that all of them read from may be away for a while.
const STANDSTILLS: u32 = 10;
/// The same where it is not known how long steps take: kernels may be chosen and caches filled in the first.
const STANDSTILLS_AT_FIRST: u32 = 30;

impl State {
    /// Those who have not left the generation in time are in the way of those who have.
    pub(super) fn give_up_on_those_inside(&mut self, now: Millis) -> Vec<Effect> {
        if self.deadlines.awaits_checkpoint() {
            // At a boundary rank 0 waits for its answer before it leaves. What hangs in that has a deadline of its own.
            self.set(Deadline::Regroup, now.after(self.config.timeouts.fault));
            return Vec::new();
        }
        let inside = self.roster.which(|member| member.is_inside());
        let timeout = self.time_to_leave();
        let cause = match &self.phase {
            Phase::Regrouping { cause, .. } => cause.clone(),
            _ => String::new(),
        };
        let mut effects = Vec::new();
        for worker in inside {
            let text = format!(
                "{} did not leave its process group within {timeout} ({cause})",
                self.name(&worker)
            );
            let text = match self.roster.get(&worker).map(|member| member.session) {
                Some(Session::Never) => {
                    format!("{} did not come back ({cause})", self.name(&worker))
                }
                _ => text,
            };
            effects.extend(self.give_up_on(&worker, LossClass::Hang, text, now));
        }
        effects
    }

    /// How long members may take to leave a generation that is over: each ends the micro-batch that it is in, which is no
    /// more than a step. Whoever cannot be heard is given up earlier.
    pub(super) fn time_to_leave(&self) -> Millis {
        self.config.timeouts.fault.after(self.time_of_a_step())
    }

    /// How long a step has taken so far, as far as that is waited for.
    pub(super) fn time_of_a_step(&self) -> Millis {
        self.longest_step.min(self.config.timeouts.progress)
    }

    /// Nothing was heard of a worker for too long. That alone is no death: while steps that need it are committed, it
    /// lives and only the way to it is broken.
    pub(super) fn on_silence(&mut self, worker: &WorkerId, now: Millis) -> Vec<Effect> {
        let timeout = self.config.timeouts.fault;
        let steps_done = self.steps_done;
        let first_start = self.is_first_start();
        let Some(mut member) = self.roster.get_mut(worker) else {
            return Vec::new();
        };
        if first_start {
            // Joining has its own deadline; from the first generation on it is this one that counts.
            member.silent = true;
            drop(member);
            self.set(Deadline::Heartbeat(worker.clone()), now.after(timeout));
            return Vec::new();
        }
        let works = member.is_member() && steps_done > member.steps_when_heard + 1;
        let warned = std::mem::replace(&mut member.silent, true);
        if works {
            member.steps_when_heard = steps_done;
            drop(member);
            self.set(Deadline::Heartbeat(worker.clone()), now.after(timeout));
            if warned {
                return Vec::new();
            }
            let text = format!(
                "nothing is heard from {worker} for {timeout}, but it takes part in the steps that are done: going on"
            );
            return vec![Effect::Warn { text }];
        }
        let doing = member.doing(now);
        drop(member);
        let others = self.what_others_wait_for(worker);
        let text = format!(
            "{} hangs: nothing was heard from it for {timeout}; {doing}{others}",
            self.name(worker)
        );
        self.give_up_on(worker, LossClass::Hang, text, now)
    }

    /// No step was committed, no sample scored and nobody left for too long, although everyone sends heartbeats.
    pub(super) fn on_standstill(&mut self, now: Millis) -> Vec<Effect> {
        let nothing_came = match self.phase {
            Phase::Training => "no step was committed",
            Phase::Evaluating { .. } => "no sample was scored",
            Phase::Stopping { .. } => "no rank came to its end",
            // Other waits have their own deadlines.
            _ => return Vec::new(),
        };
        let timeout = self.progress_timeout();
        self.set(Deadline::Progress, now.after(timeout));
        if self.deadlines.awaits_checkpoint() {
            // Rank 0 waits for its answer, and the others for rank 0.
            return Vec::new();
        }
        let outside = self
            .roster
            .which(|member| member.is_member() && !member.waits_for_others());
        if outside.len() > self.world_size() as usize / 2 {
            // Nobody waits for anybody: steps are slow, which is no fault. For how long they may be is known once there were some.
            let known = self.longest_step > Millis(0);
            let patience = if known {
                STANDSTILLS
            } else {
                STANDSTILLS_AT_FIRST
            };
            self.standstills += 1;
            let text = format!("{nothing_came} for {timeout}; no worker stands out");
            if self.standstills < patience {
                return vec![Effect::Warn { text }];
            }
            // Whoever does not hang leaves, with what it holds.
            let text =
                format!("{text}, {patience} times in a row: all are to leave the generation");
            self.explained = true;
            let mut effects = vec![Effect::Warn { text: text.clone() }];
            effects.extend(self.regroup(text, now));
            // What they are in the middle of takes long.
            self.set(Deadline::Regroup, now.after(timeout));
            return effects;
        }
        if outside.is_empty() {
            let text = format!("{nothing_came} for {timeout} and all ranks wait for each other");
            return self.regroup(text, now);
        }
        let mut effects = Vec::new();
        for worker in outside {
            let doing = self
                .roster
                .get(&worker)
                .map(|m| m.doing(now))
                .unwrap_or_default();
            let others = self.what_others_wait_for(&worker);
            let text = format!(
                "{} hangs: {nothing_came} for {timeout}; {doing}{others}",
                self.name(&worker)
            );
            effects.extend(self.give_up_on(&worker, LossClass::Hang, text, now));
        }
        effects
    }

    fn what_others_wait_for(&self, worker: &WorkerId) -> String {
        let inside = self.roster.group(Group::InCollective);
        let others = || inside.iter().filter(|other| *other != worker);
        let Some(first) = others().next().and_then(|first| self.roster.get(first)) else {
            let left = self.roster.crowd(Group::Leaving);
            return if left.is_empty() {
                String::new()
            } else {
                format!("; {left} waited for it to leave")
            };
        };
        let count = inside.len() - usize::from(inside.contains(worker));
        let verb = if count == 1 { "waits" } else { "wait" };
        let names = Crowd::of_counted(others(), count);
        format!("; {names} {verb} in {}", first.collective)
    }
}
