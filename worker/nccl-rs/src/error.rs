//! What can go wrong in a collective, told so that the caller can act on it.

use std::time::Duration;

use tch::{Device, Kind};

use crate::store::StoreError;

/// This crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call of this crate failed.
///
/// After [`Error::Collective`], [`Error::Aborted`], [`Error::OutOfMemory`] or
/// [`Error::UnfinishedReduction`] the group is over: drop it with its reducer, and form a new one
/// of the ranks that are left. All other variants refuse a call before any peer noticed it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A peer died, hung, left or disagreed while a collective ran.
    #[error(
        "{operation} failed on rank {rank} of {world_size}: {message}; form a new group of the ranks that are left"
    )]
    Collective {
        /// The collective that noticed it.
        operation: &'static str,
        /// The rank that noticed it.
        rank: usize,
        /// The group's number of ranks.
        world_size: usize,
        /// What c10d said.
        message: String,
    },
    /// The group had been aborted, by this process or because an earlier collective failed.
    #[error(
        "{operation} refused on rank {rank} of {world_size}: the process group was aborted ({reason}); form a new one"
    )]
    Aborted {
        /// The collective that was asked for.
        operation: &'static str,
        /// This process's rank.
        rank: usize,
        /// The group's number of ranks.
        world_size: usize,
        /// The first failure of this group, or who aborted it.
        reason: String,
    },
    /// The ranks of a new group did not find each other.
    #[error("rank {rank} of {world_size} could not form a {backend} process group: {source}")]
    Rendezvous {
        /// `gloo` or `nccl`.
        backend: &'static str,
        /// This process's rank.
        rank: usize,
        /// The group's number of ranks.
        world_size: usize,
        /// What the store answered.
        source: StoreError,
    },
    /// A new group could not be formed for another reason than the store.
    #[error("rank {rank} of {world_size} could not form a {backend} process group: {message}")]
    Creation {
        /// `gloo` or `nccl`.
        backend: &'static str,
        /// This process's rank.
        rank: usize,
        /// The group's number of ranks.
        world_size: usize,
        /// What c10d said.
        message: String,
    },
    /// This build or this machine has no CUDA.
    #[error("the nccl backend is not available: {reason}; use gloo, which trains on cpu")]
    NcclUnavailable {
        /// What is missing.
        reason: &'static str,
    },
    /// A rank at or beyond the world size.
    #[error("rank {rank} does not exist in a group of {world_size}; ranks count from 0")]
    NoSuchRank {
        /// The rank given.
        rank: usize,
        /// The group's number of ranks.
        world_size: usize,
    },
    /// A timeout of zero, or too long to count in milliseconds.
    #[error("a timeout of {timeout:?} cannot be used; give at least one millisecond")]
    InvalidTimeout {
        /// The timeout given.
        timeout: Duration,
    },
    /// A tensor without any content, not even an empty shape.
    #[error("{what} is an undefined tensor; give one that holds values")]
    UndefinedTensor {
        /// Which tensor.
        what: String,
    },
    /// A sparse or otherwise opaque tensor.
    #[error("{what} is not a dense tensor; collectives take dense ones only")]
    NotDense {
        /// Which tensor.
        what: String,
    },
    /// A tensor whose elements do not lie in one row.
    #[error("{what} is not contiguous; call contiguous() first")]
    NotContiguous {
        /// Which tensor.
        what: String,
    },
    /// A tensor on another device than the group's.
    #[error("{what} is on {found:?}, but the process group works on {expected:?}")]
    WrongDevice {
        /// Which tensor.
        what: String,
        /// The group's device.
        expected: Device,
        /// The tensor's device.
        found: Device,
    },
    /// A tensor of a number type that the operation cannot handle.
    #[error("{what} is of kind {kind:?}, which {operation} does not take")]
    UnsupportedKind {
        /// Which tensor.
        what: String,
        /// The tensor's number type.
        kind: Kind,
        /// The operation.
        operation: &'static str,
    },
    /// A reducer without parameters.
    #[error("a reducer needs at least one parameter")]
    NoParameters,
    /// A parameter that no gradient will ever reach.
    #[error(
        "parameter {index} is not a leaf that requires a gradient; leave frozen parameters out"
    )]
    NotAParameter {
        /// Its place in the list given to the reducer.
        index: usize,
    },
    /// The same parameter twice.
    #[error(
        "parameter {index} is the same tensor as parameter {first}; give shared parameters once"
    )]
    DuplicateParameter {
        /// Its place in the list given to the reducer.
        index: usize,
        /// Where it was before.
        first: usize,
    },
    /// A loss that cannot be differentiated: not one number, or without a graph.
    #[error("the loss cannot be differentiated: {reason}")]
    InvalidLoss {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The loss does not depend on a parameter, so its bucket would never be reduced.
    #[error(
        "parameter {index} gets no gradient from this loss; freeze it, or make it take part in the forward pass"
    )]
    ParameterWithoutGradient {
        /// Its place in the list given to the reducer.
        index: usize,
    },
    /// Backward ended, but not every bucket was reduced.
    #[error(
        "the backward pass ended before every gradient was reduced on rank {rank} of {world_size}; the loss must depend on every parameter, each step"
    )]
    UnfinishedReduction {
        /// This process's rank.
        rank: usize,
        /// The group's number of ranks.
        world_size: usize,
    },
    /// The device, or the machine, has no memory left.
    #[error("out of memory in {operation}: {message}")]
    OutOfMemory {
        /// What was being done.
        operation: &'static str,
        /// What the allocator said.
        message: String,
    },
    /// The backward pass itself failed, outside any collective.
    #[error("{operation} failed: {message}")]
    Torch {
        /// What was being done.
        operation: &'static str,
        /// What libtorch said.
        message: String,
    },
}
