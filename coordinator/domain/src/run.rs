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

use crate::membership::{Roster, WorkerId};
use crate::run_plan::{RunPlan, RunShape};
use crate::shares::Shares;

mod adopted;
mod again;
mod balance;
mod deadlines;
mod early;
mod effect;
mod ending;
mod event;
mod forming;
mod handover;
mod hang;
mod joining;
mod leaving;
mod memory;
mod progress;
mod reason;
mod recovery;
mod replace;
mod restart;
mod schedule;
mod state;
mod timing;
mod transition;
mod words;

pub use adopted::Adopted;
pub use early::{Maps, verdict as early_stopping_verdict};
pub use effect::{Beginning, Effect};
pub use ending::{EndKind, Ending, Measure};
pub use event::{Event, FaultClass, LeaveReason, ProcessEnd, StepReport};
pub use forming::{Opening, Source};
pub use progress::Evaluation;
pub use reason::Reason;
pub use restart::{BUDGET_WINDOW, Budgets, LossClass};
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

/// What is fixed for this process's part of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// How many workers the run wants.
    pub workers: u32,
    /// An elastic run goes on with no fewer.
    pub min_workers: u32,
    /// Whether it goes on with fewer than it wants.
    pub world: World,
    /// Whether faster ranks are given more micro-batches.
    #[serde(default)]
    pub balance: bool,
    /// Whether micro-batches are halved when memory runs out, or else the run stops.
    #[serde(default)]
    pub halve_when_out_of_memory: bool,
    /// How many failures it survives.
    pub budgets: Budgets,
    /// The failures before this part that still count, and how long ago each was: a coordinator that was lost saw them.
    #[serde(default)]
    pub losses: Vec<(LossClass, Millis)>,
    /// Into how many parts the coordinator that was lost had micro-batches cut; 0 and 1: into none.
    #[serde(default)]
    pub forward_parts: u32,
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
    /// That workers of a coordinator which was lost before its first generation stood may be alive: the launcher tells who
    /// is not.
    #[serde(default)]
    pub left_waiting: bool,
    /// The mAP of every evaluation before this part.
    #[serde(default)]
    pub maps: Maps,
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
    /// What the evaluations of the lineage reached.
    maps: Maps,
    /// The newest checkpoint that is in place.
    checkpointed: Option<u64>,
    /// What the newest generation does before its first step.
    opening: Opening,
    /// That the run is to stop, and why.
    stop: Option<StopWish>,
    /// That members were asked to leave at the next step boundary.
    boundary: Option<String>,
    losses: restart::Losses,
    /// Members that had ended when this coordinator was started, in words: not counted yet.
    unseen_deaths: Vec<String>,
    /// How the newest generation shares out micro-batches.
    shares: Shares,
    /// Into how many parts micro-batches are cut, because they did not fit the memory of a device.
    forward_parts: u32,
    /// Why the newest checkpoint is not in place, if it is not.
    checkpoint_problem: Option<String>,
    /// How often the last checkpoint was handed over again.
    handovers: u32,
    /// Steps in a row that changed nothing.
    passed_over_in_a_row: u32,
    /// Times in a row that ranks were found not to get on and none stood out.
    standstills: u32,
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
    deadlines: schedule::Schedule,
}

/// That a run is to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StopWish {
    /// Who asked.
    by: String,
    cause: StopCause,
}

/// What a run's stop means for how it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum StopCause {
    /// Someone asked: the run is stopped, and can be resumed.
    Asked,
    /// Training on brings nothing (`train.early_stopping`): the run is finished.
    Early,
    /// It cannot go on, and why.
    Failure(String),
}

impl StopWish {
    /// For a sentence.
    fn text(&self) -> String {
        match &self.cause {
            StopCause::Failure(failure) => failure.clone(),
            StopCause::Early => self.by.clone(),
            StopCause::Asked => format!("asked by {}", self.by),
        }
    }
}

/// The decision: what the run makes of `event` at the time `now`.
///
/// Deadlines that are over by `now` count as having passed before anything else happens later, so a driver that wakes
/// late loses nothing.
#[must_use]
pub fn step(mut state: State, event: &Event, now: Millis) -> (State, Vec<Effect>, Reason) {
    let mut effects = transition::apply(&mut state, event, now);
    while let Some(deadline) = deadlines::next_expired(&state, now) {
        effects.extend(deadlines::expire(&mut state, &deadline, now));
    }
    effects.extend(state.restart(now));
    state.close_if_done(&mut effects);
    let reason = state.reason();
    (state, effects, reason)
}

#[cfg(test)]
mod tests;
