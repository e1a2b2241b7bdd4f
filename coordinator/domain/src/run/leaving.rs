//! Ranks that have come to an end of their work: the plan's, a stop's, or their process's.

use super::event::LeaveReason;
use super::restart::LossClass;
use super::words::{counted, resumes, steps};
use super::{Deadline, Effect, Millis, Phase, State, StopCause};
use crate::membership::{Group, Member, Names, Session, WorkerId};
use crate::numbers::grouped;

impl State {
    pub(super) fn on_leaving(
        &mut self,
        worker: &WorkerId,
        generation: u64,
        step: u64,
        reason: LeaveReason,
        now: Millis,
    ) -> Vec<Effect> {
        if generation != 0 && !self.is_live(generation) {
            return Vec::new();
        }
        if matches!(self.phase, Phase::Regrouping { .. }) && reason != LeaveReason::Signalled {
            // Said before it heard that its generation is over; it stands by next.
            return Vec::new();
        }
        if reason == LeaveReason::Signalled && self.stop.is_none() && !self.is_ending() {
            return self.on_drained(worker, step, now);
        }
        let Some(mut member) = self.roster.get_mut(worker) else {
            return Vec::new();
        };
        member.leaving = Some((reason, step));
        drop(member);
        self.ranks_get_on(now);
        let left = self.roster.group(Group::Leaving);
        // Those before it have left after the same step, or the run would be ending: one of them stands for all.
        let other = left.iter().find(|other| *other != worker);
        let other = other.and_then(|other| Some((other, self.roster.get(other)?.leaving?.1)));
        if let Some((other, other_step)) = other.filter(|(_, other_step)| *other_step != step) {
            let text = format!(
                "{worker} left after {} but {other} after {}: \
                 ranks did not agree on where to stop; resume from the last checkpoint",
                steps(step),
                grouped(other_step)
            );
            return self.fail(1, text, Some(worker.clone()), Vec::new(), now);
        }
        if left.len() as u64 == u64::from(self.world_size()) {
            self.all_left(step, now)
        } else {
            Vec::new()
        }
    }

    /// A worker says whether its process was told to end. In a step it says so to the other ranks as well, in what they sum;
    /// in an evaluation they sum nothing, so they are asked to come to a boundary before its end.
    pub(super) fn on_heartbeat(
        &mut self,
        worker: &WorkerId,
        draining: bool,
        now: Millis,
    ) -> Vec<Effect> {
        let ending = self.is_ending();
        let Some(mut member) = self.roster.get_mut(worker).filter(|_| draining) else {
            return Vec::new();
        };
        let told_before = std::mem::replace(&mut member.draining, true);
        if told_before || member.session != Session::Open || ending {
            return Vec::new();
        }
        let has_a_rank = member.is_member();
        drop(member);
        let until = now.after(self.config.timeouts.grace);
        self.set(Deadline::Drain(worker.clone()), until);
        if has_a_rank {
            self.let_the_draining_go()
        } else {
            Vec::new()
        }
    }

    /// A worker that was told to end has not come to a boundary in the time that it has: whoever told it to will kill it soon,
    /// and then its peers would find out by themselves. Where nobody else is to go on, or a checkpoint is on its way, it is
    /// what it holds that must come into safety, for as long as it lives.
    pub(super) fn on_grace_expired(&mut self, worker: &WorkerId, now: Millis) -> Vec<Effect> {
        let open = |member: &&Member| member.session == Session::Open;
        let Some(member) = self.roster.get(worker).filter(open) else {
            return Vec::new();
        };
        let others_hold = !member.is_member() || !self.roster.group(Group::GoingOn).is_empty();
        let on_the_way = self.stop.is_some() || self.deadlines.awaits_checkpoint();
        if member.leaving.is_some() || !others_hold || on_the_way || self.is_first_start() {
            let again = now.after(self.config.timeouts.fault);
            self.set(Deadline::Drain(worker.clone()), again);
            return Vec::new();
        }
        let text = format!(
            "{} was told to end and came to no boundary within {} (fault.grace)",
            self.name(worker),
            self.config.timeouts.grace
        );
        self.give_up_on(worker, LossClass::Preemption, text, now)
    }

    pub(super) fn was_told_to_end(&self, worker: &WorkerId) -> bool {
        self.roster
            .get(worker)
            .is_some_and(|member| member.draining)
    }

    /// Has the ranks meet for those of them whose process was told to end, unless they all leave anyway.
    pub(super) fn let_the_draining_go(&mut self) -> Vec<Effect> {
        let under_way = match self.phase {
            // With all scores here the ranks are at its end.
            Phase::Evaluating { step, .. } => {
                step < self.total_steps() || self.scores_are_missing(step)
            }
            // The step's commit, with which an evaluation begins, may not be known yet.
            Phase::Training => self.steps_done < self.total_steps(),
            _ => false,
        };
        let draining = |member: &Member| member.is_member() && member.draining;
        let draining = self.roster.which(draining);
        if !under_way || draining.is_empty() {
            return Vec::new();
        }
        let verb = if draining.len() == 1 { "was" } else { "were" };
        self.meet_at_a_boundary(format!("{} {verb} told to end", Names(&draining)))
    }

    /// A worker was told to end from outside and has come to a boundary; the others are there too.
    fn on_drained(&mut self, worker: &WorkerId, step: u64, now: Millis) -> Vec<Effect> {
        let who = self.name(worker);
        let after = steps(step);
        let text = format!("{who} was told to end by a signal from outside after {after}");
        if let Some(mut member) = self.roster.get_mut(worker) {
            member.leaving = Some((LeaveReason::Signalled, step));
        }
        self.give_up_on(worker, LossClass::Preemption, text, now)
    }

    fn all_left(&mut self, step: u64, now: Millis) -> Vec<Effect> {
        let total = self.total_steps();
        let epochs = self.plan.shape().epochs;
        let done = step == total && self.steps_done == total && !self.opening.finish;
        if done && !(self.all_stopped() && self.scores_are_missing(total)) {
            if self.checkpointed != Some(total) {
                return self.hand_over_again(now);
            }
            let epochs = counted(epochs.into(), "epoch");
            let reason = format!("finished: {}, {epochs}", steps(total));
            return self.finished(reason, now);
        }
        let cause = self.stop.as_ref().map(|stop| &stop.cause);
        let safe = self.checkpointed.unwrap_or(0);
        let problem = self
            .checkpoint_problem
            .as_deref()
            .unwrap_or("it never came in whole");
        if let Some(StopCause::Failure(failure)) = cause {
            let after = steps(step);
            let state = if safe == step {
                format!("the state after {after} was handed over")
            } else {
                format!(
                    "the state after {after} could not be kept ({problem}): {}",
                    resumes(safe)
                )
            };
            return self.stopped(75, format!("{failure}; {state}"), now);
        }
        let of_all = format!("{} of {}", grouped(step), steps(total));
        let by = match (&self.stop, self.config.stop_after) {
            (Some(stop), _) => stop.text(),
            (_, Some(stop_after)) if step >= stop_after => {
                format!("--stop-after {stop_after}")
            }
            _ if self.all_stopped() && self.others_go_on() => return self.hand_on(step, now),
            _ if self.all_stopped() => "every worker was told to end".to_owned(),
            _ => {
                let reason = format!(
                    "all ranks left after {of_all} though nobody asked them to: \
                     this is a bug of the worker; resume with --resume"
                );
                return self.fail(1, reason, None, Vec::new(), now);
            }
        };
        if safe != step {
            let reason = format!(
                "stopped after {of_all} ({by}), but its checkpoint is not in place ({problem}): {}",
                resumes(safe)
            );
            return self.stopped(75, reason, now);
        }
        if cause == Some(&StopCause::Early) {
            let reason = format!("finished early after {of_all} ({by})");
            return self.finished(reason, now);
        }
        self.stopped(
            0,
            format!("stopped after {of_all} ({by}): resume with --resume"),
            now,
        )
    }

    /// Every rank was told to end by a signal, but workers that are no ranks yet were not: they go on from the checkpoint
    /// that the ranks have handed over.
    fn hand_on(&mut self, step: u64, now: Millis) -> Vec<Effect> {
        let mut effects = Vec::new();
        let leaving: Vec<WorkerId> = self.roster.group(Group::Leaving).iter().cloned().collect();
        for worker in leaving {
            effects.extend(self.on_drained(&worker, step, now));
        }
        effects
    }

    /// Whether there are workers that were not told to end: here, or about to be started again.
    fn others_go_on(&self) -> bool {
        let mut workers = self.roster.iter().map(|(_, member)| member);
        workers
            .any(|member| member.leaving.is_none() && (!member.is_gone() || member.again.is_some()))
    }

    /// Whether the evaluation of the state after `step` steps was cut short.
    fn scores_are_missing(&self, step: u64) -> bool {
        let evaluation = self.evaluations.get(&step);
        evaluation.is_some_and(|evaluation| evaluation.scored < evaluation.samples)
    }

    fn all_stopped(&self) -> bool {
        self.roster
            .iter()
            .filter_map(|(_, member)| member.leaving)
            .all(|(reason, _)| reason == LeaveReason::Stopped)
    }
}
