//! What a run does about the loss of a worker: its generation is over, those who are left go on in the next one, and
//! whoever can be replaced is.
//!
//! The first fault in causal order is what people are told. Peers of a dead rank report failed collectives: they are
//! witnesses, and the cause is whoever is then found to be gone.

use super::event::{FaultClass, ProcessEnd};
use super::restart::LossClass;
use super::words::steps;
use super::{Deadline, Effect, Millis, Phase, State, StopCause};
use crate::membership::{Group, Member, Place, Process, Session, WorkerId};

/// Failed collectives in a row that nobody's death explains, before the first to report them is taken for the cause.
const UNEXPLAINED: u32 = 3;

impl State {
    pub(super) fn on_fault(
        &mut self,
        worker: &WorkerId,
        generation: u64,
        step: u64,
        class: FaultClass,
        message: &str,
        now: Millis,
    ) -> Vec<Effect> {
        if self.is_ending() || (generation != 0 && generation != self.generation) {
            return Vec::new();
        }
        let who = self.name(worker);
        let after = if generation == 0 || message.starts_with("after ") {
            String::new()
        } else {
            format!(" after {}", steps(step))
        };
        let text = format!("{who}{after}: {message}");
        match class {
            FaultClass::Collective if !self.is_member(worker) => Vec::new(),
            FaultClass::Collective => {
                self.witness.get_or_insert_with(|| worker.clone());
                let noticed = format!("{who} reports a failed collective{after}: {message}");
                self.regroup(noticed, now)
            }
            // Trying again ends the same way.
            FaultClass::Data => self.fail(65, text, Some(worker.clone()), Vec::new(), now),
            FaultClass::Config => self.fail(64, text, Some(worker.clone()), Vec::new(), now),
            FaultClass::Numeric => {
                // The figures are sums over all ranks: any sample of the step may have spoiled them.
                let text = format!("{text}; its samples: {:?}", self.samples_of(step));
                self.fail(65, text, Some(worker.clone()), Vec::new(), now)
            }
            FaultClass::Internal | FaultClass::Memory | FaultClass::Restart
                if self.is_first_start() =>
            {
                let code = if class == FaultClass::Internal { 1 } else { 75 };
                self.fail(code, text, Some(worker.clone()), Vec::new(), now)
            }
            FaultClass::Internal => self.give_up_on(worker, LossClass::Crash, text, now),
            FaultClass::Restart => self.on_begins_again(worker, text, now),
            FaultClass::Memory => self.on_out_of_memory(worker, text, now),
            FaultClass::MemoryOfPass if !self.is_member(worker) => Vec::new(),
            FaultClass::MemoryOfPass => self.on_passes_too_wide(text, now),
        }
    }

    /// Nothing more is heard of a worker; what is known of its process. `None`: it had no session that was open.
    pub(super) fn end_session(&mut self, worker: &WorkerId) -> Option<Process> {
        let mut member = self.roster.get_mut(worker)?;
        if member.session != Session::Open {
            return None;
        }
        member.session = Session::Lost;
        let process = member.process.clone();
        drop(member);
        self.deadlines.remove(&Deadline::Heartbeat(worker.clone()));
        self.deadlines.remove(&Deadline::Drain(worker.clone()));
        Some(process)
    }

    pub(super) fn on_stream_lost(
        &mut self,
        worker: &WorkerId,
        detail: &str,
        now: Millis,
    ) -> Vec<Effect> {
        let Some(process) = self.end_session(worker) else {
            return Vec::new();
        };
        let elsewhere = process == Process::Elsewhere;
        let wanted_again = matches!(self.phase, Phase::Regrouping { .. });
        let leaves = |member: &Member| member.leaving.is_some();
        // It has done its part, unless its generation was over before all had.
        let left = self.roster.get(worker).is_some_and(leaves) && !wanted_again;
        if self.is_ending() {
            return Vec::new();
        }
        if elsewhere && self.is_first_start() {
            self.roster.forget(worker);
            return vec![Effect::Warn {
                text: format!("{worker} went before the run began: {detail}"),
            }];
        }
        let text = format!(
            "{} was lost {}: {detail}",
            self.name(worker),
            self.place(worker)
        );
        let mut effects = Vec::new();
        if !left {
            effects.extend(self.lose(worker, text.clone(), now));
        }
        if elsewhere {
            // Its stream was all that was known of it.
            let (class, cause) = self.verdict(worker, LossClass::Crash, &text);
            effects.push(Effect::Warn { text });
            effects.extend(self.replace(worker, class, cause, now));
            self.roster.forget(worker);
        } else if !left {
            let exit = Deadline::Exit(worker.clone());
            self.set(exit, now.after(self.config.timeouts.fault));
        }
        effects.extend(self.form_if_possible(now));
        effects
    }

    pub(super) fn on_exited(
        &mut self,
        worker: &WorkerId,
        end: ProcessEnd,
        log: &[String],
        now: Millis,
    ) -> Vec<Effect> {
        // What fails then fails again. One that was told to end has not failed.
        let first_start = self.is_first_start() && !self.was_told_to_end(worker);
        let (who, place) = (self.name(worker), self.place(worker));
        let wanted_again = matches!(self.phase, Phase::Regrouping { .. });
        let Some(mut member) = self.roster.get_mut(worker) else {
            return Vec::new();
        };
        member.process = Process::Ended(end);
        let unwatched = matches!(end, ProcessEnd::Unseen | ProcessEnd::Known);
        if unwatched && member.session == Session::Never {
            // It was gone before this coordinator came.
            member.again = Some(now);
            let died_as_a_member = end == ProcessEnd::Unseen && member.is_member();
            drop(member);
            if died_as_a_member {
                let text = format!("{who} had ended when the coordinator was started again");
                self.unseen_deaths.push(text);
            }
            let text = format!("{who} {end}");
            let mut effects = self.lose(worker, text, now);
            effects.extend(self.form_if_possible(now));
            return effects;
        }
        let left = member.leaving.is_some_and(|(reason, _)| {
            matches!(
                reason,
                super::LeaveReason::Finished | super::LeaveReason::Stopped
            ) && !wanted_again
        });
        drop(member);
        self.deadlines.remove(&Deadline::Exit(worker.clone()));
        if left || self.is_ending() {
            return Vec::new();
        }
        let text = format!("{who} {end} {place}");
        if first_start {
            let code = match end {
                ProcessEnd::Code(64) => 64,
                ProcessEnd::Code(65) => 65,
                _ => 75,
            };
            let reason = format!("{text}: see the end of its log; resume with --resume");
            return self.fail(code, reason, Some(worker.clone()), log.to_vec(), now);
        }
        if let ProcessEnd::Code(code @ (64 | 65)) = end {
            let reason = format!("{text}: see the end of its log");
            return self.fail(code as u8, reason, Some(worker.clone()), log.to_vec(), now);
        }
        let looks_like = match end {
            // Told to end before there was anything to leave, or for the second time.
            ProcessEnd::Signal(15) | ProcessEnd::Code(0 | 143) => LossClass::Preemption,
            _ => LossClass::Crash,
        };
        let (class, cause) = self.verdict(worker, looks_like, &text);
        let mut effects = Vec::new();
        if cause == text {
            // Else people were told why it was given up, and this is what came of it.
            effects.push(Effect::Warn { text: text.clone() });
        }
        if self.end_session(worker).is_some() {
            effects.push(Effect::Close {
                worker: worker.clone(),
            });
        }
        effects.extend(self.lose(worker, text, now));
        if let Phase::Regrouping { cause: shown } = &mut self.phase {
            // Now it is known what became of it.
            shown.clone_from(&cause);
        }
        effects.extend(self.replace(worker, class, cause, now));
        effects.extend(self.form_if_possible(now));
        effects
    }

    /// A worker that lives but cannot be counted on: it is told so, let go, and ended.
    pub(super) fn give_up_on(
        &mut self,
        worker: &WorkerId,
        class: LossClass,
        text: String,
        now: Millis,
    ) -> Vec<Effect> {
        let Some(mut member) = self.roster.get_mut(worker) else {
            return Vec::new();
        };
        member.verdict = Some((class, text.clone()));
        let elsewhere = member.process == Process::Elsewhere;
        let in_order = class == LossClass::Preemption && member.leaving.is_some();
        drop(member);
        let mut effects = vec![Effect::Warn { text: text.clone() }];
        if self.end_session(worker).is_some() {
            effects.push(Effect::Release {
                worker: worker.clone(),
                reason: format!("the run goes on without this worker: {text}"),
                exit_code: if in_order { 0 } else { 75 },
            });
            effects.push(Effect::Close {
                worker: worker.clone(),
            });
        }
        if !elsewhere {
            if class == LossClass::Hang {
                // It hears nothing.
                effects.push(Effect::Kill {
                    worker: worker.clone(),
                });
            }
            let exit = Deadline::Exit(worker.clone());
            self.set(exit, now.after(self.config.timeouts.kill));
        }
        effects.extend(self.lose(worker, text.clone(), now));
        if elsewhere {
            effects.extend(self.replace(worker, class, text, now));
            self.roster.forget(worker);
        }
        effects.extend(self.form_if_possible(now));
        effects
    }

    /// A worker is no member any more; the generation is over if it was one.
    pub(super) fn lose(&mut self, worker: &WorkerId, text: String, now: Millis) -> Vec<Effect> {
        let generation = self.generation;
        let Some(mut member) = self.roster.get_mut(worker) else {
            return Vec::new();
        };
        let was_member = member.is_member();
        if let Some(rank) = member.rank.take() {
            member.rank_when_lost = Some(rank);
            member.generation_when_lost = Some(generation);
        }
        member.place = Place::SettingUp;
        member.leaving = None;
        drop(member);
        self.deadlines.remove(&Deadline::Arrival(worker.clone()));
        if !was_member {
            return Vec::new();
        }
        self.explained = true;
        self.regroup(text, now)
    }

    /// Ends the generation: everyone in it leaves its process group at once and says where it stands.
    pub(super) fn regroup(&mut self, cause: String, now: Millis) -> Vec<Effect> {
        if let Phase::Regrouping { .. } = self.phase {
            return self.wait_for_anybody(now);
        }
        if !self.is_live(self.generation) {
            return Vec::new();
        }
        self.begin_regrouping(cause.clone(), now);
        let workers = self.roster.which(|member| {
            member.is_member()
                && member.session == Session::Open
                && member.place == Place::InGeneration
        });
        // Those who left and went are no members of what follows.
        self.roster.drop_the_gone(now);
        let mut effects = Vec::new();
        if !workers.is_empty() {
            effects.push(Effect::Regroup {
                workers,
                at_boundary: false,
                reason: cause,
            });
        }
        effects.extend(self.wait_for_anybody(now));
        effects
    }

    /// The generation does nothing any more, and its members have so long to leave it.
    pub(super) fn begin_regrouping(&mut self, cause: String, now: Millis) {
        self.reports.clear();
        for deadline in [Deadline::Forming, Deadline::Progress] {
            self.deadlines.remove(&deadline);
        }
        self.set(Deadline::Regroup, now.after(self.time_to_leave()));
        self.phase = Phase::Regrouping { cause };
    }

    /// With the last member the state is gone: the run goes on from what is on disk.
    fn wait_for_anybody(&mut self, now: Millis) -> Vec<Effect> {
        if !self.roster.group(Group::Members).is_empty() {
            return Vec::new();
        }
        self.go_on_from_disk(now)
    }

    /// Nobody holds the run's state any more.
    pub(super) fn go_on_from_disk(&mut self, now: Millis) -> Vec<Effect> {
        self.roster.assign_ranks(&[], 0);
        self.unseen_deaths.clear();
        if let Some(stop) = self.stop.take() {
            let done = self.steps_done;
            let safe = self.durable_state().0 == done;
            if safe && stop.cause == StopCause::Early {
                let reason = format!("finished early after {} ({})", steps(done), stop.text());
                return self.finished(reason, now);
            }
            if safe && stop.cause == StopCause::Asked {
                let reason = format!(
                    "stopped after {} ({}): resume with --resume",
                    steps(done),
                    stop.text()
                );
                return self.stopped(0, reason, now);
            }
            let reason = format!(
                "{}, and nobody is left who holds the state: resume from the last checkpoint with --resume",
                stop.text()
            );
            return self.stopped(75, reason, now);
        }
        self.phase = Phase::Waiting;
        self.boundary = None;
        self.deadlines.remove(&Deadline::Regroup);
        self.await_workers(now);
        Vec::new()
    }

    /// What a worker's loss counts as, and its first cause: what was decided about it, or what it looks like.
    fn verdict(
        &mut self,
        worker: &WorkerId,
        looks_like: LossClass,
        text: &str,
    ) -> (LossClass, String) {
        let Some(mut member) = self.roster.get_mut(worker) else {
            return (looks_like, text.to_owned());
        };
        let looks_like = if member.draining && self.config.timeouts.has_grace() {
            // Whoever told it to end did not wait for it.
            LossClass::Preemption
        } else {
            looks_like
        };
        let decided = member.verdict.take();
        decided.unwrap_or_else(|| (looks_like, text.to_owned()))
    }

    /// Whether no generation of this part has begun: what fails now fails for reasons that a restart does not mend.
    pub(super) fn is_first_start(&self) -> bool {
        self.generation == self.config.last_generation && self.config.adopted.is_none()
    }

    /// A generation forms although nobody was lost. Whoever began it three times in a row is the cause.
    pub(super) fn blame(&mut self, now: Millis) -> Vec<Effect> {
        let witness = self.witness.take();
        if std::mem::take(&mut self.explained) {
            self.unexplained = 0;
            return Vec::new();
        }
        let Some(witness) = witness else {
            return Vec::new();
        };
        self.unexplained += 1;
        if self.unexplained < UNEXPLAINED {
            return Vec::new();
        }
        self.unexplained = 0;
        let text = format!(
            "{} reported a failed collective {UNEXPLAINED} times in a row and all its peers are alive: \
             it cannot reach one of them",
            self.name(&witness)
        );
        self.give_up_on(&witness, LossClass::Crash, text, now)
    }
}
