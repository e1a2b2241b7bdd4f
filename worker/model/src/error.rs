//! What can go wrong in the model.

/// Why the model refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A trunk that does not exist.
    #[error("model.backbone {name:?} is unknown; choose one of {}", crate::Backbone::NAMES.join(", "))]
    UnknownBackbone {
        /// What was asked for.
        name: String,
    },
    /// A word that is no choice of the key.
    #[error("{key} {value:?} is unknown; choose one of {choices}")]
    UnknownChoice {
        /// The config key.
        key: &'static str,
        /// What was asked for.
        value: String,
        /// What there is.
        choices: &'static str,
    },
    /// Groups that do not hold every class once.
    #[error("the groups are not a division of {classes} classes: {reason}; check data.groups")]
    Groups {
        /// Number of classes.
        classes: usize,
        /// What is wrong.
        reason: String,
    },
    /// A width that cannot be.
    #[error("{key} {value} cannot be used: {reason}")]
    Width {
        /// The config key.
        key: &'static str,
        /// The value.
        value: i64,
        /// Why not.
        reason: &'static str,
    },
    /// Weights of a loss that are not one of each kind a class.
    #[error(
        "loss deepmar has {positive} positive and {negative} negative weights, one a class is wanted of each; are \
         coordinator and worker of one version"
    )]
    LossWeights {
        /// Weights where a class is shown.
        positive: usize,
        /// Weights where it is not.
        negative: usize,
    },
    /// Batch normalisation has no variance of one sample, and libtorch would write NaN without an error.
    #[error(
        "a training batch of {batch} sample has no batch statistics; give at least 2 samples (train.micro_batch)"
    )]
    BatchOfOne {
        /// Samples given.
        batch: i64,
    },
    /// Sizes of micro-batches that are not those of the batch.
    #[error(
        "micro-batches of {sizes:?} samples do not make a batch of {batch}: give one size for each, in order"
    )]
    MicroBatches {
        /// The sizes given.
        sizes: Vec<i64>,
        /// Samples given.
        batch: i64,
    },
    /// Images of another shape than `[B, 3, H, W]`.
    #[error(
        "images of shape {shape:?} cannot be used; expected [B, 3, H, W] with sides of at least 32"
    )]
    Images {
        /// The shape given.
        shape: Vec<i64>,
    },
    /// A named tensor is missing, or of another shape.
    #[error("tensor {name}: {reason}")]
    Tensor {
        /// Its name, as in files.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// libtorch failed.
    #[error("libtorch failed: {0}")]
    Torch(#[from] tch::TchError),
}

/// This crate's results.
pub type Result<T> = std::result::Result<T, ModelError>;
