//! What can be asked of a run's state.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Config, Deadline, Effect, Evaluation, Millis, Opening, Phase, Reason, State, progress, restart,
    schedule,
};
use crate::membership::{Group, Roster, WorkerId};
use crate::plan::PlanError;
use crate::run_plan::RunPlan;
use crate::shares::Shares;

impl State {
    /// A run that has not begun. Its first event is [`Event::Started`].
    ///
    /// # Errors
    /// The first of [`RunShape::mistakes`].
    pub fn new(config: Config) -> Result<Self, PlanError> {
        let plan = RunPlan::new(config.shape, config.workers)?;
        let mut roster = Roster::new(config.workers, config.local);
        let (mut phase, mut steps_done) = (Phase::Waiting, config.begins_at_step);
        let mut evaluated = BTreeSet::new();
        let mut longest_step = Millis(0);
        if let Some(adopted) = &config.adopted {
            roster.adopt(&adopted.members, adopted.steps_done);
            steps_done = adopted.steps_done;
            longest_step = adopted.usual_step;
            evaluated.extend(adopted.evaluated.iter().copied());
            phase = Phase::Regrouping {
                cause: "the coordinator was started again".to_owned(),
            };
        }
        Ok(Self {
            plan,
            roster,
            generation: config.last_generation,
            phase,
            steps_done,
            reports: progress::Reports::default(),
            evaluations: BTreeMap::new(),
            evaluated,
            maps: config.maps.clone(),
            checkpointed: config.from_checkpoint.then_some(config.begins_at_step),
            opening: Opening::default(),
            stop: None,
            boundary: None,
            losses: restart::Losses::before(&config.losses),
            unseen_deaths: Vec::new(),
            shares: Shares::even(0),
            forward_parts: config.forward_parts.max(1),
            checkpoint_problem: None,
            handovers: 0,
            passed_over_in_a_row: 0,
            standstills: 0,
            witness: None,
            explained: false,
            unexplained: 0,
            waited_until: None,
            last_commit: None,
            longest_step,
            deadlines: schedule::Schedule::default(),
            config,
        })
    }

    /// What is fixed.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the run is.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Its workers.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The generation that workers may speak for, if one is live.
    #[must_use]
    pub fn live_generation(&self) -> Option<u64> {
        match self.phase {
            Phase::Waiting | Phase::Over(_) => None,
            // Checkpoints and scores that are under way may still come in.
            Phase::Ending { .. } => {
                (self.generation > self.config.last_generation).then_some(self.generation)
            }
            _ => Some(self.generation),
        }
    }

    /// The highest generation number used; 0: none yet.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Steps that at least one rank has applied.
    #[must_use]
    pub fn steps_done(&self) -> u64 {
        self.steps_done
    }

    /// Steps that every member holds: no later generation can make them void.
    #[must_use]
    pub fn steps_held_by_all(&self) -> u64 {
        match self.phase {
            Phase::Ending { .. } | Phase::Over(_) => self.steps_done,
            _ => self.roster.least_held().unwrap_or(0),
        }
    }

    /// Steps of the whole run.
    #[must_use]
    pub fn total_steps(&self) -> u64 {
        self.plan.total_steps()
    }

    /// The epoch under way, from 1; after an epoch's last step still that epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        match self.steps_done {
            0 => 1,
            done => self.plan.epoch_of(done - 1) + 1,
        }
    }

    /// The epoch that is being trained or evaluated, from 1, as the reason names it; 0 before training begins.
    #[must_use]
    pub fn epoch_shown(&self) -> u32 {
        match self.phase {
            Phase::Training => self.epoch_at_work(),
            Phase::Evaluating { epoch, .. } => epoch + 1,
            _ if self.steps_done == 0 => 0,
            _ => self.epoch(),
        }
    }

    /// The newest evaluation that has no figures yet.
    #[must_use]
    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.evaluations.values().next_back()
    }

    /// All deadlines that run.
    #[must_use]
    pub fn deadlines(&self) -> &BTreeMap<Deadline, Millis> {
        self.deadlines.by_name()
    }

    /// When a worker counts as lost unless it is heard from; nothing while nobody waits for its heartbeats.
    #[must_use]
    pub fn heartbeat_due(&self, worker: &WorkerId) -> Option<Millis> {
        let deadline = Deadline::Heartbeat(worker.clone());
        self.deadlines.by_name().get(&deadline).copied()
    }

    /// All but [`State::heartbeat_due`] of every worker.
    pub fn deadlines_but_heartbeats(&self) -> impl Iterator<Item = (&Deadline, Millis)> {
        self.deadlines.but_heartbeats()
    }

    /// When the run wants to be woken, and for which deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(&Deadline, Millis)> {
        self.deadlines.next()
    }

    /// Why things stand as they do.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let epochs = self.plan.shape().epochs;
        let silent = || self.roster.crowd(Group::Silent);
        match &self.phase {
            Phase::Waiting => Reason::WaitingForWorkers {
                wanted: self.config.workers,
                joined: self.roster.joined(),
                missing: self.roster.crowd(Group::Missing),
                setting_up: self.roster.crowd(Group::SettingUp),
            },
            Phase::Regrouping { cause, .. } => Reason::Regrouping {
                cause: cause.clone(),
                generation: self.generation,
                inside: self.roster.crowd(Group::Inside),
                // No more than `config.workers` and its spares.
                here: self.roster.group(Group::StandingBy).len() as u32,
                fewest: self.fewest() as u32,
            },
            Phase::Forming => Reason::Forming {
                generation: self.generation,
                wanted: self.world_size(),
                missing: self.roster.crowd(Group::Unready),
            },
            Phase::Training => Reason::Training {
                epoch: self.epoch_at_work(),
                epochs,
                silent: silent(),
            },
            Phase::Evaluating { epoch, .. } => Reason::Evaluating {
                epoch: epoch + 1,
                epochs,
                silent: silent(),
            },
            Phase::Stopping { by } => Reason::Stopping {
                by: by.clone(),
                missing: self.roster.crowd(Group::Staying),
            },
            Phase::Ending { ending, measure } => {
                let waiting = self.roster.crowd(Group::Present);
                let figures = "computing the figures of the last evaluation";
                let measure = if waiting.is_empty() {
                    figures
                } else {
                    measure.text()
                };
                Reason::Ending {
                    ending: ending.reason.clone(),
                    waiting,
                    measure,
                }
            }
            Phase::Over(ending) => Reason::Over {
                ending: ending.reason.clone(),
            },
        }
    }

    /// The epoch of the next step, from 1.
    pub(super) fn epoch_at_work(&self) -> u32 {
        (self.plan.epoch_of(self.steps_done) + 1).min(self.plan.shape().epochs)
    }

    pub(super) fn is_live(&self, generation: u64) -> bool {
        generation == self.generation
            && !matches!(
                self.phase,
                Phase::Waiting | Phase::Ending { .. } | Phase::Over(_)
            )
    }

    pub(super) fn set(&mut self, deadline: Deadline, at: Millis) {
        self.deadlines.set(deadline, at);
    }

    /// All members have their state.
    pub(super) fn begin_training(&mut self, now: Millis) -> Vec<Effect> {
        self.deadlines.remove(&Deadline::Forming);
        self.set(Deadline::Progress, now.after(self.progress_timeout()));
        for worker in self.roster.which(|member| member.is_member()) {
            if let Some(mut member) = self.roster.get_mut(&worker) {
                member.suspect = false;
            }
        }
        self.witness = None;
        self.explained = false;
        let Some(stop) = self.stop.clone() else {
            self.phase = Phase::Training;
            return self.ask_for_a_boundary();
        };
        self.phase = Phase::Stopping {
            by: stop.by.clone(),
        };
        if self.opening.finish {
            return Vec::new();
        }
        vec![Effect::Stop {
            reason: stop.text(),
        }]
    }

    /// The steps of which no rank that comes back has to tell: what its lost predecessor had on record. That one rank has told of
    /// more since says nothing of what the others trained on.
    #[must_use]
    pub fn steps_on_record(&self) -> u64 {
        let adopted = self.config.adopted.as_ref();
        adopted.map_or(self.steps_done, |adopted| adopted.steps_done)
    }

    /// Whether a member may still speak for `generation` although it is not the newest: it was left behind there, and
    /// stood by when its coordinator was lost.
    pub(super) fn was_left_behind_in(&self, worker: &WorkerId, generation: u64) -> bool {
        let rank = self.roster.get(worker).and_then(|member| member.rank);
        let (Some(adopted), Some(rank)) = (&self.config.adopted, rank) else {
            return false;
        };
        let since = adopted.since.get(rank as usize);
        let since = since.copied().unwrap_or(adopted.previous);
        since != 0 && (since..=adopted.previous).contains(&generation)
    }

    pub(super) fn is_member(&self, worker: &WorkerId) -> bool {
        self.roster
            .get(worker)
            .is_some_and(|member| member.is_member())
    }

    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. } | Phase::Over(_))
    }
}
