//! How workers come in: at the beginning, at a step boundary, or back to a coordinator that was started again.

use super::restart::LossClass;
use super::words::steps;
use super::{Deadline, Effect, Millis, Phase, State};
use crate::membership::{Group, JoinRefusal, Names, Place, Session, WorkerId};
use crate::numbers::grouped;

impl State {
    pub(super) fn on_started(&mut self, now: Millis) -> Vec<Effect> {
        if self.config.adopted.is_some() {
            // Its members try to reach this coordinator and end the micro-batches that they are in. Whoever else is here is
            // found out by the launcher.
            let wait = self.config.timeouts.rejoin.after(self.time_of_a_step());
            self.set(Deadline::Regroup, now.after(wait));
            return Vec::new();
        }
        if !self.config.local || self.phase != Phase::Waiting {
            return Vec::new();
        }
        self.await_workers(now);
        if self.config.left_waiting {
            // Those who live look for this coordinator; whoever does not is started once the launcher has told so.
            return Vec::new();
        }
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

    pub(super) fn on_join_expired(&mut self, now: Millis) -> Vec<Effect> {
        self.waited_until = Some(now);
        let effects = self.form_if_possible(now);
        if !effects.is_empty() || !self.config.local {
            return effects;
        }
        let missing = self.roster.which(|member| !member.stands_by());
        if !self.is_first_start() {
            // They have worked before: whoever does not come now is started again, within its budget.
            self.await_workers(now);
            let mut effects = Vec::new();
            for worker in missing {
                let text = format!(
                    "{worker} did not join and set up within {}: see its log",
                    self.config.timeouts.join
                );
                effects.extend(self.give_up_on(&worker, LossClass::Hang, text, now));
            }
            return effects;
        }
        let reason = format!(
            "{} did not join and set up within {}: see the log of each",
            Names(&missing),
            self.config.timeouts.join
        );
        self.fail(75, reason, missing.into_iter().next(), Vec::new(), now)
    }

    pub(super) fn on_joined(
        &mut self,
        worker: &WorkerId,
        place: (&str, &str),
        generation: u64,
        now: Millis,
    ) -> Vec<Effect> {
        let comes_back = self.roster.get(worker).is_some_and(|member| {
            member.is_member()
                && member.session == Session::Never
                && (generation == self.generation || self.was_left_behind_in(worker, generation))
                && matches!(self.phase, Phase::Regrouping { .. })
        });
        if comes_back {
            return self.on_return(worker, place, now);
        }
        let known = self.roster.get(worker);
        let given_up = known.is_some_and(|member| member.verdict.is_some());
        let executed_again = known.and_then(|member| member.executes_again.clone());
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
        self.begin_listening(worker, place, now);
        if !given_up {
            // Its connection broke, and its end was waited for: it has found its way back.
            self.deadlines.remove(&Deadline::Exit(worker.clone()));
        }
        effects.push(Effect::Welcome {
            worker: worker.clone(),
        });
        if let Some(text) = executed_again {
            effects.extend(self.charge(LossClass::Crash, text, now));
        }
        effects
    }

    /// A worker was let in, from this machine with this device; from now on it is to be heard.
    fn begin_listening(&mut self, worker: &WorkerId, (host, device): (&str, &str), now: Millis) {
        if let Some(mut member) = self.roster.get_mut(worker) {
            host.clone_into(&mut member.host);
            device.clone_into(&mut member.device);
        }
        self.set(
            Deadline::Heartbeat(worker.clone()),
            now.after(self.config.timeouts.fault),
        );
    }

    /// A member has found the coordinator that was started again. It was training all along; now it is asked to where
    /// everybody can be told the same plan.
    fn on_return(&mut self, worker: &WorkerId, place: (&str, &str), now: Millis) -> Vec<Effect> {
        self.roster.reopen(worker, now);
        self.begin_listening(worker, place, now);
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

    pub(super) fn on_standby(
        &mut self,
        worker: &WorkerId,
        generation: u64,
        step: Option<u64>,
        micro_batches: &[u32],
        now: Millis,
    ) -> Vec<Effect> {
        let left_behind = self.was_left_behind_in(worker, generation);
        let (newest, total) = (self.generation, self.total_steps());
        let Some(member) = self.roster.get(worker) else {
            return Vec::new();
        };
        if member.session != Session::Open || matches!(member.place, Place::Standby { .. }) {
            return Vec::new();
        }
        let current = generation == newest || (left_behind && member.adopted);
        let member_of_it = member.is_member() && current;
        if member.is_member() && !current {
            // Its generation is older than the one it was sent into: it will hear of that one.
            return Vec::new();
        }
        let (next, ready) = (member.next_step, member.ready);
        if let Some(step) = step.filter(|_| member_of_it && !member.adopted)
            && (step > next || (ready && step < next))
        {
            let reason = format!(
                "{} left generation {generation} after {} but had reported {}: \
                 install the same version everywhere",
                self.name(worker),
                steps(step),
                grouped(next)
            );
            return self.fail(1, reason, Some(worker.clone()), Vec::new(), now);
        }
        // What it holds is of this lineage only if it was in the newest generation.
        let holds = step.filter(|&step| member_of_it && step <= total);
        let mut adopted = false;
        if let Some(mut member) = self.roster.get_mut(worker) {
            member.place = Place::Standby { holds };
            member.leaving = None;
            member.micro_batches = micro_batches.to_vec();
            adopted = std::mem::take(&mut member.adopted);
        }
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
                    self.begin_regrouping(cause, now);
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
            && self.roster.group(Group::StandingBy).len() >= self.fewest()
        {
            let due = now.after(self.config.timeouts.join);
            self.deadlines.set_unless_running(Deadline::Join, due);
        }
        effects.extend(self.form_if_possible(now));
        effects.extend(self.ask_for_a_boundary());
        effects
    }

    /// Someone waits to come in, and there is room: the members are asked to the next boundary.
    pub(super) fn ask_for_a_boundary(&mut self) -> Vec<Effect> {
        if !matches!(self.phase, Phase::Training | Phase::Evaluating { .. })
            || self.world_size() >= self.config.workers
        {
            return Vec::new();
        }
        let waiting = self.roster.crowd(Group::Newcomers);
        if waiting.is_empty() {
            return Vec::new();
        }
        let verb = if waiting.len() == 1 { "comes" } else { "come" };
        self.meet_at_a_boundary(format!("{waiting} {verb} in"))
    }

    /// All members are asked to leave the generation at the next boundary they agree on: of steps, or of an evaluation's batches.
    pub(super) fn meet_at_a_boundary(&mut self, reason: String) -> Vec<Effect> {
        if self.boundary.is_some() {
            return Vec::new();
        }
        self.boundary = Some(reason.clone());
        vec![Effect::Regroup {
            workers: self.roster.which(|member| member.is_member()),
            at_boundary: true,
            reason,
        }]
    }

    pub(super) fn on_ready(
        &mut self,
        worker: &WorkerId,
        generation: u64,
        now: Millis,
    ) -> Vec<Effect> {
        if !self.is_live(generation) || !self.is_member(worker) {
            return Vec::new();
        }
        if let Some(mut member) = self.roster.get_mut(worker) {
            member.ready = true;
        }
        if !self.roster.group(Group::Unready).is_empty() || self.phase != Phase::Forming {
            return Vec::new();
        }
        let mut effects = self.begin_training(now);
        if self.evaluations.contains_key(&self.steps_done) || self.opening.evaluate {
            self.note_place(self.steps_done);
            effects.extend(self.let_the_draining_go());
        }
        effects
    }
}
