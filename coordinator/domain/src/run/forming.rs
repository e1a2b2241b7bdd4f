//! When a generation may begin, with whom, from which step, and where its ranks take their state from.

use serde::{Deserialize, Serialize};

use super::{Beginning, Deadline, Effect, Millis, Phase, State, World};
use crate::assignment::{Assignment, FirstStep};
use crate::membership::{Group, Place, WorkerId};

/// Where the ranks of a new generation take their state from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The seed, and the weights that the config names.
    Seed,
    /// The checkpoint of the step at which the generation begins.
    Checkpoint,
    /// These ranks of it, ascending, who hold the state; everyone else receives it from them.
    Peers(Vec<u32>),
}

/// What a generation does before its first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Opening {
    /// The evaluation that is due where it begins.
    pub evaluate: bool,
    /// A checkpoint of the state it begins with.
    pub snapshot: bool,
    /// Nothing further: it only hands over what it holds.
    pub finish: bool,
}

/// A generation that may begin.
struct Formation {
    members: Vec<WorkerId>,
    begins_at_step: u64,
    source: Source,
}

impl State {
    /// Begins the next generation if it may begin.
    pub(super) fn form_if_possible(&mut self, now: Millis) -> Vec<Effect> {
        let mut effects = Vec::new();
        if matches!(self.phase, Phase::Regrouping { .. }) && self.state_is_lost() {
            effects = self.go_on_from_disk(now);
        }
        let formation = match self.phase {
            Phase::Waiting => self.first_formation(now),
            // Between two tries the disk is given time to become free.
            Phase::Regrouping { .. } if self.deadlines.runs(&Deadline::Handover) => None,
            Phase::Regrouping { .. } => self.next_formation(),
            _ => None,
        };
        let Some(formation) = formation else {
            return effects;
        };
        if matches!(formation.source, Source::Peers(_)) && !self.unseen_deaths.is_empty() {
            effects.extend(self.charge_unseen_deaths(now));
            // That may have been one too many: then those who hold the state come together to hand it over.
            effects.extend(self.form_if_possible(now));
            return effects;
        }
        let blamed = self.blame(now);
        effects.extend(if blamed.is_empty() {
            self.form(formation, now)
        } else {
            blamed
        });
        effects
    }

    /// Nobody holds a state: all workers that are wanted, or, once that was waited for, as many as the run can do with.
    fn first_formation(&self, now: Millis) -> Option<Formation> {
        let wanted = self.config.workers as usize;
        let here = self.roster.group(Group::StandingBy);
        let waited = self.waited_until.is_some_and(|until| until <= now);
        let enough = here.len() >= wanted || (waited && here.len() >= self.fewest());
        let (begins_at_step, source) = self.durable_state();
        enough.then(|| Formation {
            members: here.iter().take(wanted).cloned().collect(),
            begins_at_step,
            source,
        })
    }

    /// All survivors have left their generation and none holds the state: it died before anyone had received it.
    fn state_is_lost(&self) -> bool {
        self.roster.group(Group::Hopeful).is_empty()
    }

    /// Survivors hold a state: all of them have left the old generation, and there are enough of them together with
    /// those who wait to come in.
    fn next_formation(&self) -> Option<Formation> {
        if !self.roster.group(Group::Inside).is_empty() {
            return None;
        }
        let survivors = self.roster.group(Group::Members);
        let holds = |worker: &WorkerId| {
            let member = self.roster.get(worker)?;
            match member.place {
                Place::Standby { holds } if !member.suspect => holds,
                _ => None,
            }
        };
        let begins_at_step = survivors.iter().filter_map(holds).max()?;
        let mut members: Vec<_> = survivors.iter().cloned().collect();
        if self.stop.is_none() {
            let room = (self.config.workers as usize).saturating_sub(members.len());
            let newcomers = self.roster.group(Group::Newcomers);
            members.extend(newcomers.iter().take(room).cloned());
            members.sort();
            if members.len() < self.fewest() {
                return None;
            }
        }
        let ranks = (0u32..).zip(&members);
        let holders = ranks
            .filter(|(_, worker)| holds(worker) == Some(begins_at_step))
            .map(|(rank, _)| rank)
            .collect();
        Some(Formation {
            members,
            begins_at_step,
            source: Source::Peers(holders),
        })
    }

    /// Fewer members than this form no generation.
    pub(super) fn fewest(&self) -> usize {
        match self.config.world {
            World::Fixed => self.config.workers as usize,
            World::Elastic => self.config.min_workers.clamp(1, self.config.workers) as usize,
        }
    }

    /// Where the run stands on disk.
    pub(super) fn durable_state(&self) -> (u64, Source) {
        match self.checkpointed {
            Some(step) => (step, Source::Checkpoint),
            None => (0, Source::Seed),
        }
    }

    fn form(&mut self, formation: Formation, now: Millis) -> Vec<Effect> {
        let Formation {
            members,
            begins_at_step,
            source,
        } = formation;
        self.generation += 1;
        self.phase = Phase::Forming;
        self.last_commit = None;
        self.standstills = 0;
        self.boundary = None;
        self.waited_until = None;
        self.reports.clear();
        self.deadlines.remove(&Deadline::Join);
        self.deadlines.remove(&Deadline::Regroup);
        self.deadlines.remove(&Deadline::Handover);
        self.set(Deadline::Forming, now.after(self.config.timeouts.forming));
        let done = self.micro_batches_done(&members, &source);
        self.roster.assign_ranks(&members, begins_at_step);
        // What was done beyond is void, and done again.
        self.steps_done = begins_at_step;
        self.evaluations.retain(|step, _| *step <= begins_at_step);
        self.evaluated.retain(|step| *step <= begins_at_step);
        self.maps.retain(|step, _| *step <= begins_at_step);
        let opening = Opening {
            evaluate: self.evaluation_is_due(begins_at_step),
            snapshot: self.snapshot_is_due(begins_at_step) || self.stop.is_some(),
            finish: self.stop.is_some(),
        };
        self.opening = opening;
        self.shares = self.next_shares(&members);
        let first = self.first_step(begins_at_step, &done);
        let assignment = Assignment::new(self.shares.clone(), first);
        vec![Effect::BeginGeneration(Beginning {
            number: self.generation,
            members,
            begins_at_step,
            source,
            opening,
            assignment,
            forward_parts: self.forward_parts,
        })]
    }

    /// By rank, what members have done of the step that comes next.
    fn micro_batches_done(&self, members: &[WorkerId], source: &Source) -> Vec<Vec<u32>> {
        let mut done = vec![Vec::new(); members.len()];
        let Source::Peers(holders) = source else {
            return done;
        };
        // Whoever takes the state from others has done its part with another one.
        for &rank in holders {
            let member = members.get(rank as usize).map(|id| self.roster.get(id));
            if let (Some(Some(member)), Some(mine)) = (member, done.get_mut(rank as usize)) {
                mine.clone_from(&member.micro_batches);
            }
        }
        done
    }

    /// How the first step is shared out where parts of it are done. A fixed world adds up in the same order whatever
    /// happens, so it shares out as ever: with the same ranks, each finds what it has done among what it is handed.
    fn first_step(&self, begins_at_step: u64, done: &[Vec<u32>]) -> Option<FirstStep> {
        if self.config.world == World::Fixed || self.stop.is_some() {
            return None;
        }
        let shape = self.plan.epoch_shape();
        let step = shape.step(self.plan.step_in_epoch(begins_at_step))?;
        let done: Vec<&[u32]> = done.iter().map(Vec::as_slice).collect();
        let count = u32::try_from(step.micro_batches.len()).ok()?;
        FirstStep::sharing(begins_at_step, count, &self.shares, &done)
    }

    /// Whether a checkpoint was due since the newest one that is in place: it may have been lost with who was sending it.
    fn snapshot_is_due(&self, steps_done: u64) -> bool {
        let newest = self.checkpointed.unwrap_or(0);
        let mut since = (newest + 1..=steps_done).rev();
        since.any(|step| self.plan.has_snapshot(step))
    }

    /// Whether the state after `steps_done` steps is to be evaluated and some samples lack their scores.
    fn evaluation_is_due(&self, steps_done: u64) -> bool {
        if self.stop.is_some() {
            return false;
        }
        match self.evaluations.get(&steps_done) {
            Some(evaluation) => evaluation.scored < evaluation.samples,
            None => {
                self.plan.evaluated_epoch(steps_done).is_some()
                    && !self.evaluated.contains(&steps_done)
                    && (steps_done != self.config.begins_at_step || self.config.evaluate_first)
            }
        }
    }
}
