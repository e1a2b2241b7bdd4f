//! The refusals of a plan.

/// Why a run cannot be planned, or a question to a plan has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A count that must be at least one is zero.
    #[error("{key} is 0: set it to at least 1")]
    Zero {
        /// The config key.
        key: &'static str,
    },
    /// There is nothing to train on, or nothing to evaluate on.
    #[error(
        "the {split} split holds no image: check the annotation file and the image folder of this split"
    )]
    EmptySplit {
        /// "training" or "validation".
        split: &'static str,
    },
    /// A micro-batch does not fit into a step.
    #[error(
        "train.micro_batch = {micro_batch} is larger than train.global_batch = {global_batch}: \
         lower train.micro_batch or raise train.global_batch to a multiple of it"
    )]
    MicroBatchTooLarge {
        /// `train.global_batch`, in samples.
        global_batch: u32,
        /// `train.micro_batch`, in samples.
        micro_batch: u32,
    },
    /// A step would not be a whole number of micro-batches.
    #[error(
        "train.global_batch = {global_batch} is not a multiple of train.micro_batch = {micro_batch}: \
         set train.global_batch to {below} or another multiple, or train.micro_batch to a divisor of {global_batch}",
        below = global_batch - global_batch % micro_batch
    )]
    NotAMultiple {
        /// `train.global_batch`, in samples.
        global_batch: u32,
        /// `train.micro_batch`, in samples.
        micro_batch: u32,
    },
    /// Every micro-batch would be one sample, over which batch normalisation has no variance.
    #[error(
        "step {step}, micro-batch {slice} would be a slice of one sample \
         (train.global_batch = {global_batch}, train.micro_batch = 1, workers = {workers}): \
         batch normalisation needs at least two, set train.micro_batch to 2 or more"
    )]
    MicroBatchOfOne {
        /// `train.global_batch`, in samples.
        global_batch: u32,
        /// How many workers the run starts with.
        workers: u32,
        /// The first global step where it would happen.
        step: u64,
        /// The index of the micro-batch in that step.
        slice: u32,
    },
    /// The whole training split is one sample.
    #[error(
        "step {step}, micro-batch {slice} would be a slice of one sample \
         (train.global_batch = {global_batch}, workers = {workers}): the training split holds \
         1 image and batch normalisation needs at least two, add images to the split"
    )]
    SplitOfOne {
        /// `train.global_batch`, in samples.
        global_batch: u32,
        /// How many workers the run starts with.
        workers: u32,
        /// The first global step where it would happen.
        step: u64,
        /// The index of the micro-batch in that step.
        slice: u32,
    },
    /// A rank that this world does not have.
    #[error("rank {rank} does not exist in a world of {world_size}: ask for a lower rank")]
    NoSuchRank {
        /// The rank asked for.
        rank: u32,
        /// The world size it was asked in.
        world_size: u32,
    },
    /// A stretch of steps that reaches over the end of what is planned.
    #[error("steps {first}..{end} are not all in {from}..{to}: ask for a stretch inside")]
    StepsOutOfRange {
        /// The first step asked for.
        first: u64,
        /// One past the last step asked for.
        end: u64,
        /// The first step there is.
        from: u64,
        /// One past the last step there is.
        to: u64,
    },
}
