//! What a decision wants done. The driver carries effects out in order and decides nothing.

use serde::Serialize;

use super::ending::Ending;
use super::forming::{Opening, Source};
use super::restart::LossClass;
use crate::assignment::Assignment;
use crate::membership::WorkerId;

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Start a worker process here.
    Launch {
        /// Which.
        worker: WorkerId,
        /// Its number, which chooses its device.
        index: u32,
    },
    /// Answer a worker's Join.
    Welcome {
        /// Which.
        worker: WorkerId,
    },
    /// Turn a worker away and close its session.
    Refuse {
        /// Which.
        worker: WorkerId,
        /// Why, and what to do.
        reason: String,
        /// The exit code it ends with.
        exit_code: u8,
    },
    /// Make the generation durable, then announce it to its members and hand out their plans. It must be on disk
    /// before anyone hears of it, so that its number is never used again.
    BeginGeneration(Beginning),
    /// Tell members that their generation is over: they leave its process group and say where they stand.
    Regroup {
        /// Whom.
        workers: Vec<WorkerId>,
        /// At the next step boundary that all ranks agree on, or else at once.
        at_boundary: bool,
        /// Why.
        reason: String,
    },
    /// Record a committed step.
    Commit {
        /// By which generation.
        generation: u64,
        /// The step's number in the run.
        step: u64,
        /// Who reported it first.
        worker: WorkerId,
    },
    /// Record that a committed step changed nothing, because its loss or gradient was not finite.
    PassOver {
        /// By which generation.
        generation: u64,
        /// The step's number in the run.
        step: u64,
    },
    /// Ask all ranks to stop at the next step boundary, with a snapshot.
    Stop {
        /// Why.
        reason: String,
    },
    /// Ask all ranks for a snapshot at the next step boundary.
    TakeSnapshot,
    /// Let a worker go.
    Release {
        /// Which.
        worker: WorkerId,
        /// Why.
        reason: String,
        /// The exit code it ends with.
        exit_code: u8,
    },
    /// Close a session.
    Close {
        /// Whose.
        worker: WorkerId,
    },
    /// Tell a worker process that was started here to end.
    Terminate {
        /// Which.
        worker: WorkerId,
    },
    /// End a worker process that was started here.
    Kill {
        /// Which.
        worker: WorkerId,
    },
    /// Record that a budget has less left for the next hour, also if this coordinator is lost.
    Loss {
        /// Which budget.
        class: LossClass,
    },
    /// Tell people of something odd; the run goes on.
    Warn {
        /// What.
        text: String,
    },
    /// The run is over.
    End(Ending),
}

/// How a generation begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Beginning {
    /// Its number.
    pub number: u64,
    /// The workers by rank.
    pub members: Vec<WorkerId>,
    /// All ranks hold the state after this many steps; what was committed beyond is void.
    pub begins_at_step: u64,
    /// Where they take it from.
    pub source: Source,
    /// What comes before the first step.
    pub opening: Opening,
    /// How micro-batches are handed out. Flat: where nothing was kept it reads as it did before anything could be.
    #[serde(flatten)]
    pub assignment: Assignment,
    /// Into how many parts, each with a forward pass of its own, every micro-batch is cut.
    pub forward_parts: u32,
}
