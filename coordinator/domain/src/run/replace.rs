//! Whether and when a lost worker is started again, and what becomes of a run that may not go on doing so.

use super::restart::{LossClass, pause};
use super::{Deadline, Effect, Millis, Phase, State, StopCause, StopWish};
use crate::membership::{Group, Process, WorkerId};

impl State {
    /// Notes the failure in its class's budget: a process of this machine is started again, or the run ends. Without a worker
    /// beyond those wanted the run has all that it needs, so that one's failure costs nothing.
    pub(super) fn replace(
        &mut self,
        worker: &WorkerId,
        class: LossClass,
        text: String,
        now: Millis,
    ) -> Vec<Effect> {
        let lost = self.roster.get(worker);
        if lost.is_some_and(|member| self.roster.is_surplus(member)) {
            return Vec::new();
        }
        let shut_out = lost.is_some_and(|member| member.quarantined);
        let mut effects = self.charge(class, text.clone(), now);
        if shut_out {
            // A process started again would be on the same device. From elsewhere another worker may come.
            let out = self.roster.which(|member| member.quarantined).len();
            let left = (self.config.workers as usize).saturating_sub(out);
            if self.config.local && left < self.fewest() {
                let failure = format!(
                    "{text}; {left} workers are left, which are too few: resume without that device"
                );
                effects.extend(self.give_up(failure, now));
            }
            return effects;
        }
        if effects.contains(&Effect::Loss { class })
            && let Some(mut member) = self.roster.get_mut(worker)
            && member.process != Process::Elsewhere
        {
            member.losses_in_a_row += 1;
            member.again = Some(now.after(pause(member.losses_in_a_row)));
        }
        effects
    }

    /// Workers that were found to have ended when this coordinator was started count as crashed once it is known that
    /// others hold the state. Where nobody does, the machine was lost or everything was ended at once, which says nothing of
    /// a worker.
    pub(super) fn charge_unseen_deaths(&mut self, now: Millis) -> Vec<Effect> {
        let mut effects = Vec::new();
        for text in std::mem::take(&mut self.unseen_deaths) {
            effects.push(Effect::Warn {
                text: format!("{text}, which counts as a crash"),
            });
            effects.extend(self.charge(LossClass::Crash, text, now));
        }
        effects
    }

    /// Notes a failure in its class's budget; ends the run where that is used up.
    pub(super) fn charge(&mut self, class: LossClass, text: String, now: Millis) -> Vec<Effect> {
        let budgets = self.config.budgets;
        match self.losses.note(class, &budgets, now) {
            Ok(()) => vec![Effect::Loss { class }],
            Err(budget) => {
                let advice = match class {
                    LossClass::Memory => {
                        "lower train.micro_batch or data.size, or give workers more memory"
                    }
                    _ => "look for the cause, then resume with --resume",
                };
                let allows = match budget {
                    0 => "none of this kind".to_owned(),
                    1 => "1 of this kind an hour and it is used up".to_owned(),
                    budget => format!("{budget} of this kind an hour and they are used up"),
                };
                let failure = format!("{text}; {} allows {allows}: {advice}", class.key());
                self.give_up(failure, now)
            }
        }
    }

    /// Ends the run with a checkpoint if anybody still holds its state.
    fn give_up(&mut self, failure: String, now: Millis) -> Vec<Effect> {
        if self.roster.group(Group::Members).is_empty() {
            return self.stopped(75, failure, now);
        }
        if self.stop.is_some() {
            // It is on its way out already: those who are left hand over what they hold.
            return Vec::new();
        }
        self.set(Deadline::Stop, now.after(self.config.timeouts.stop));
        self.stop = Some(StopWish {
            by: String::new(),
            cause: StopCause::Failure(failure.clone()),
        });
        if matches!(self.phase, Phase::Training | Phase::Evaluating { .. }) {
            self.phase = Phase::Stopping {
                by: "the coordinator".to_owned(),
            };
            return vec![Effect::Stop { reason: failure }];
        }
        self.form_if_possible(now)
    }

    /// Starts processes whose pause is over.
    pub(super) fn restart(&mut self, now: Millis) -> Vec<Effect> {
        if self.is_ending() || self.stop.is_some() {
            return Vec::new();
        }
        let mut effects = Vec::new();
        let waiting: Vec<_> = self
            .roster
            .group(Group::Restarting)
            .iter()
            .filter_map(|worker| {
                let member = self.roster.get(worker)?;
                Some((worker.clone(), member.index?, member.again?))
            })
            .collect();
        // Loading libtorch takes seconds of processor time that the survivors' next step needs.
        let survivors_first = self.config.world == super::World::Elastic
            && self.world_size() as usize >= self.fewest()
            && (self.last_commit.is_none() || matches!(self.phase, Phase::Regrouping { .. }));
        for (worker, index, mut at) in waiting {
            if survivors_first {
                at = at.after(self.config.timeouts.fault);
            }
            if at > now {
                self.set(Deadline::Respawn(worker), at);
                continue;
            }
            self.roster.expect(&worker);
            self.deadlines.remove(&Deadline::Respawn(worker.clone()));
            let arrival = now.after(self.config.timeouts.join);
            self.set(Deadline::Arrival(worker.clone()), arrival);
            effects.push(Effect::Launch { worker, index });
        }
        effects
    }
}
