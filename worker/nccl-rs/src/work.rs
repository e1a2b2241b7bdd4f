//! Collectives under way.

use std::sync::Arc;

use tch::Tensor;

use crate::error::Result;
use crate::ffi;
use crate::group::Shared;

/// A collective under way; its tensors belong to it until [`Work::wait`] returns.
///
/// Dropping it without waiting lets the collective run on unobserved.
#[must_use = "a collective is done, and its failure known, only once it was waited for"]
#[derive(Debug)]
pub struct Work {
    handle: ffi::Work,
    operation: &'static str,
    group: Arc<Shared>,
}

impl Work {
    pub(crate) fn new(handle: ffi::Work, operation: &'static str, group: Arc<Shared>) -> Self {
        Self {
            handle,
            operation,
            group,
        }
    }

    /// Blocks until the collective is done, on CUDA also on the device: after `Ok` the result is
    /// there and may be read by host and device.
    ///
    /// # Errors
    /// [`Error::Collective`] when a peer died, hung beyond the timeout, or disagreed;
    /// [`Error::Aborted`] when this process aborted or dropped the group.
    pub fn wait(self) -> Result<()> {
        self.handle
            .wait()
            .map_err(|failure| self.group.error(self.operation, failure))
    }
}

/// An all-gather under way.
#[must_use = "an all-gather's result is there only once it was waited for"]
#[derive(Debug)]
pub struct Gathering {
    work: Work,
    output: Tensor,
}

impl Gathering {
    pub(crate) fn new(work: Work, output: Tensor) -> Self {
        Self { work, output }
    }

    /// Blocks until the result is there: `[world_size, ...]`, one entry a rank.
    ///
    /// # Errors
    /// As for [`Work::wait`].
    pub fn wait(self) -> Result<Tensor> {
        self.work.wait()?;
        Ok(self.output)
    }
}
