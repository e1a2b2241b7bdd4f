//! What the ledger refuses.

/// A report that the ledger refuses; it is then unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// A generation reported that another one has replaced.
    #[error(
        "generation {generation} is stale, the lineage goes on in generation {current}: \
         the sender must leave and join again"
    )]
    StaleGeneration {
        /// Who reported.
        generation: u64,
        /// The newest generation.
        current: u64,
    },
    /// A generation reported that never began.
    #[error("generation {generation} never began, the newest is {current:?}: begin it first")]
    UnknownGeneration {
        /// Who reported.
        generation: u64,
        /// The newest generation, if there is one.
        current: Option<u64>,
    },
    /// A generation number that does not grow.
    #[error(
        "generation {generation} cannot begin after generation {current}: \
         numbers only grow, take one above {current}"
    )]
    NumberNotGrowing {
        /// The number proposed.
        generation: u64,
        /// The newest generation.
        current: u64,
    },
    /// A generation without anyone in it.
    #[error("generation {generation} has no members: name at least one worker")]
    NoMembers {
        /// The number proposed.
        generation: u64,
    },
    /// Steps between the lineage's end and the reported one are missing.
    #[error(
        "generation {generation} reported step {step}, but the lineage is committed only up to step \
         {steps_done}: record the steps between first"
    )]
    Gap {
        /// Who reported, or wants to begin.
        generation: u64,
        /// The step reported, or to begin at.
        step: u64,
        /// How many steps are committed.
        steps_done: u64,
    },
    /// A generation reported a step from before its beginning.
    #[error(
        "generation {generation} reported step {step}, but it begins at step {begins_at_step}: \
         that step belongs to an older generation"
    )]
    BeforeBeginning {
        /// Who reported.
        generation: u64,
        /// The step reported.
        step: u64,
        /// Where the generation begins.
        begins_at_step: u64,
    },
}
