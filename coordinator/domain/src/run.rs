//! The run as a state machine: told what happened and what time it is, it answers with the new state, what to do, and
//! why things stand as they do.
//!
//! ```text
//! Waiting -> Forming -> Training <-> Evaluating -> Ending -> Over
//!    ^          ^  |       |             |           ^
//!    |          |  |       `-> Stopping -+-----------|
//!    |          |  `-----------------+   |           |
//!    `----- Regrouping <-------------+---'           |
//!               `------------------------------------'
//! ```
//!
//! A generation that loses a member is over: its survivors leave it ([`Phase::Regrouping`]) and the next one begins at
//! the step of the most advanced of them. With nobody left the run waits for workers again and goes on from what is on
//! disk. Generations are numbered and persisted, and every report names its own, so that a stale one changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::membership::{Place, Roster, Session, WorkerId};
use crate::plan::PlanError;
use crate::run_plan::{RunPlan, RunShape};

mod effect;
mod ending;
mod event;
mod forming;
mod progress;
mod reason;
mod recovery;
mod restart;
mod timing;

pub use effect::Effect;
pub use ending::{EndKind, Ending, Measure};
pub use event::{Event, FaultClass, LeaveReason, ProcessEnd, StepReport};
pub use forming::{Opening, Source};
pub use progress::Evaluation;
pub use reason::Reason;
pub use restart::{Budgets, LossClass};
pub use timing::{Deadline, Millis, Timeouts};

/// What a run does while it has fewer workers than it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum World {
    /// It waits: every step is done by the same number of ranks, and repeats bit for bit.
    Fixed,
    /// It goes on with those who are here.
    Elastic,
}

/// The generation that a lost coordinator has left behind, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The workers by rank. They may be training still.
    pub members: Vec<WorkerId>,
    /// The generation before it: members that have not heard of the newer one still speak for this.
    pub previous: u64,
    /// Steps that are known to be committed.
    pub steps_done: u64,
    /// The evaluations that have their figures, by the steps committed before them.
    pub evaluated: Vec<u64>,
}

/// What is fixed for this process's part of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// How many workers the run wants.
    pub workers: u32,
    /// An elastic run goes on with no fewer.
    pub min_workers: u32,
    /// Whether it goes on with fewer than it wants.
    pub world: World,
    /// How many failures it survives.
    pub budgets: Budgets,
    /// Whether the coordinator starts them itself.
    pub local: bool,
    /// What the run does and in which order.
    pub shape: RunShape,
    /// Where this part begins: steps committed before.
    pub begins_at_step: u64,
    /// Whether the state there comes from a checkpoint, or else from the seed.
    pub from_checkpoint: bool,
    /// Whether the evaluation due where this part begins is still to be done.
    pub evaluate_first: bool,
    /// The highest generation number this run has used; 0: none.
    pub last_generation: u64,
    /// That its members may be alive, and what they do.
    #[serde(default)]
    pub adopted: Option<Adopted>,
    /// End once this many steps of the run are committed.
    pub stop_after: Option<u64>,
    /// How long each deadline is.
    pub timeouts: Timeouts,
}

/// Where the run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// For workers to join.
    Waiting,
    /// A generation was announced; its ranks set up.
    Forming,
    /// The generation is over: its members leave it, and the next one begins once there are enough of them.
    Regrouping {
        /// Why it is over.
        cause: String,
        /// Since when.
        since: Millis,
    },
    /// Steps are being done.
    Training,
    /// The validation split is being scored.
    Evaluating {
        /// Steps committed before.
        step: u64,
        /// The epoch that has ended, from 0.
        epoch: u32,
    },
    /// All ranks were asked to stop.
    Stopping {
        /// Who asked.
        by: String,
    },
    /// It is decided how the run ends; workers leave.
    Ending {
        /// How.
        ending: Ending,
        /// What was done so that they leave.
        measure: Measure,
    },
    /// The run is over. Nothing changes any more.
    Over(Ending),
}

/// Everything a run's decisions rest on.
#[derive(Debug, Clone)]
pub struct State {
    config: Config,
    plan: RunPlan,
    roster: Roster,
    generation: u64,
    phase: Phase,
    /// Steps that at least one rank has applied.
    steps_done: u64,
    reports: progress::Reports,
    /// Evaluations that are due or under way, by the steps committed before them.
    evaluations: BTreeMap<u64, Evaluation>,
    /// Evaluations that have their figures, or are known to get none.
    evaluated: BTreeSet<u64>,
    /// The newest checkpoint that is in place.
    checkpointed: Option<u64>,
    /// The step whose checkpoint was due and is not in place.
    snapshot_owed: Option<u64>,
    /// Whether the newest generation only hands over its state.
    finishing: bool,
    /// Whether it evaluates before its first step.
    opens_with_evaluation: bool,
    /// That the run is to stop, and why.
    stop: Option<StopWish>,
    /// That members were asked to leave at the next step boundary.
    boundary: Option<String>,
    losses: restart::Losses,
    /// Who first reported a failed collective since the last generation began.
    witness: Option<WorkerId>,
    /// Whether someone's loss explains why the generation is over.
    explained: bool,
    /// Generations in a row that ended without an explanation.
    unexplained: u32,
    /// Until when all workers were waited for before fewer will do.
    waited_until: Option<Millis>,
    last_commit: Option<Millis>,
    longest_step: Millis,
    deadlines: BTreeMap<Deadline, Millis>,
}

/// That a run is to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StopWish {
    /// Who asked.
    by: String,
    /// That it is a failure, and which.
    failure: Option<String>,
}

impl StopWish {
    /// For a sentence.
    fn text(&self) -> String {
        match &self.failure {
            Some(failure) => failure.clone(),
            None => format!("asked by {}", self.by),
        }
    }
}

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
        if let Some(adopted) = &config.adopted {
            roster.adopt(&adopted.members, adopted.steps_done);
            steps_done = adopted.steps_done;
            evaluated.extend(adopted.evaluated.iter().copied());
            phase = Phase::Regrouping {
                cause: "the coordinator was started again".to_owned(),
                since: Millis(0),
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
            checkpointed: config.from_checkpoint.then_some(config.begins_at_step),
            snapshot_owed: None,
            finishing: false,
            opens_with_evaluation: false,
            stop: None,
            boundary: None,
            losses: restart::Losses::default(),
            witness: None,
            explained: false,
            unexplained: 0,
            waited_until: None,
            last_commit: None,
            longest_step: Millis(0),
            deadlines: BTreeMap::new(),
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
        let members = self
            .roster
            .iter()
            .filter(|(_, member)| member.rank.is_some());
        let held = members.map(|(_, member)| if member.ready { member.next_step } else { 0 });
        match self.phase {
            Phase::Ending { .. } | Phase::Over(_) => self.steps_done,
            _ => held.min().unwrap_or(0),
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

    /// The newest evaluation that has no figures yet.
    #[must_use]
    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.evaluations.values().next_back()
    }

    /// All deadlines that run.
    #[must_use]
    pub fn deadlines(&self) -> &BTreeMap<Deadline, Millis> {
        &self.deadlines
    }

    /// When the run wants to be woken, and for which deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(&Deadline, Millis)> {
        self.deadlines
            .iter()
            .map(|(deadline, at)| (deadline, *at))
            .min_by_key(|(_, at)| *at)
    }

    /// Why things stand as they do.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let epochs = self.plan.shape().epochs;
        let silent = || self.roster.which(|member| member.silent);
        match &self.phase {
            Phase::Waiting => Reason::WaitingForWorkers {
                wanted: self.config.workers,
                joined: self.roster.joined(),
                missing: self.roster.which(|member| member.session != Session::Open),
                setting_up: self.roster.which(|member| {
                    member.session == Session::Open && member.place == Place::SettingUp
                }),
            },
            Phase::Regrouping { cause, .. } => Reason::Regrouping {
                cause: cause.clone(),
                generation: self.generation,
                inside: self.roster.which(|member| {
                    member.rank.is_some() && !matches!(member.place, Place::Standby { .. })
                }),
                here: self.here(),
                fewest: self.fewest() as u32,
            },
            Phase::Forming => Reason::Forming {
                generation: self.generation,
                wanted: self.world_size(),
                missing: self
                    .roster
                    .which(|member| member.rank.is_some() && !member.ready),
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
                missing: self
                    .roster
                    .which(|member| member.rank.is_some() && member.leaving.is_none()),
            },
            Phase::Ending { ending, measure } => {
                let waiting = self.roster.which(|member| !member.is_gone());
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
    fn epoch_at_work(&self) -> u32 {
        (self.plan.epoch_of(self.steps_done) + 1).min(self.plan.shape().epochs)
    }

    fn is_live(&self, generation: u64) -> bool {
        generation == self.generation
            && !matches!(
                self.phase,
                Phase::Waiting | Phase::Ending { .. } | Phase::Over(_)
            )
    }

    fn set(&mut self, deadline: Deadline, at: Millis) {
        self.deadlines.insert(deadline, at);
    }

    /// All members have their state.
    fn begin_training(&mut self, now: Millis) -> Vec<Effect> {
        self.deadlines.remove(&Deadline::Forming);
        self.set(Deadline::Progress, now.after(self.progress_timeout()));
        for worker in self.roster.which(|member| member.rank.is_some()) {
            if let Some(member) = self.roster.get_mut(&worker) {
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
        if self.finishing {
            return Vec::new();
        }
        vec![Effect::Stop {
            reason: stop.text(),
        }]
    }

    /// Whether a member may still speak for `generation` although it is not the newest: it was left behind there, and
    /// stood by when its coordinator was lost.
    fn was_left_behind_in(&self, generation: u64) -> bool {
        let previous = self.config.adopted.as_ref().map(|adopted| adopted.previous);
        generation != 0 && previous == Some(generation)
    }

    fn is_member(&self, worker: &WorkerId) -> bool {
        self.roster
            .get(worker)
            .is_some_and(|member| member.rank.is_some())
    }

    fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. } | Phase::Over(_))
    }

    /// Workers that could be in the next generation.
    fn here(&self) -> u32 {
        // No more than `config.workers` and its spares.
        let here = self.roster.which(|member| {
            member.session == Session::Open && matches!(member.place, Place::Standby { .. })
        });
        here.len() as u32
    }
}

/// The decision: what the run makes of `event` at the time `now`.
///
/// Deadlines that are over by `now` count as having passed before anything else happens later, so a driver that wakes
/// late loses nothing.
#[must_use]
pub fn step(mut state: State, event: &Event, now: Millis) -> (State, Vec<Effect>, Reason) {
    let mut effects = transition::apply(&mut state, event, now);
    while let Some(deadline) = transition::next_expired(&state, now) {
        effects.extend(transition::expire(&mut state, &deadline, now));
    }
    effects.extend(state.restart(now));
    state.close_if_done(&mut effects);
    let reason = state.reason();
    (state, effects, reason)
}

mod transition;

#[cfg(test)]
mod tests;
