//! Summing gradients over all ranks while the backward pass still runs.

use std::sync::Arc;

use tch::Tensor;

use crate::buckets::{BucketSizes, Layout, assign_buckets};
use crate::error::{Error, Result};
use crate::ffi;
use crate::group::{ProcessGroup, Shared, element_size};

/// c10d's gradient reducer, the one inside PyTorch's `DistributedDataParallel`, with three
/// differences that follow from what a step is here.
///
/// It *sums* (the loss is weighted by samples already, and ranks may hold different numbers of
/// them); its bucket layout depends on the parameters and [`BucketSizes`] alone, so that runs
/// repeat to the bit; and whether a backward pass reduces is said by the call, not by a mode.
///
/// Every parameter's gradient is a view into a bucket; micro-batches add up there. A step is:
/// [`Reducer::zero_gradients`]; [`Reducer::accumulate`] for all micro-batches but
/// the last; [`Reducer::backward`] for the last, or [`Reducer::backward_zero`] where there is none.
/// Then the sums over all ranks are read from [`Reducer::sums`], and [`Reducer::require_whole`] is
/// asked. Do not set or detach a gradient by other means.
///
/// After an error of [`Reducer::backward`] or [`Reducer::backward_zero`] other than a refusal the
/// group is over. What this rank has computed itself may still be whole: then [`Reducer::keep`]
/// hands it to the next reducer. Through shared memory that is so until all ranks' sums are there,
/// otherwise until the reduction began.
#[derive(Debug)]
pub struct Reducer {
    // Declared, and so dropped, before the group it works on.
    handle: ffi::Reducer,
    group: Arc<Shared>,
    parameter_count: usize,
}

/// Where the sums of a part of one parameter's gradient are after a reduction.
///
/// Not to be written to: other ranks may read the same memory.
#[derive(Debug)]
pub struct Stretch {
    /// The parameter's place in the list of parameters.
    pub parameter: usize,
    /// The first element, counted as the parameter's lie in memory.
    pub from: usize,
    /// `[length]`, contiguous.
    pub sums: Tensor,
}

/// What more a reducer may be given.
#[derive(Debug, Default)]
pub struct ReducerOptions<'a> {
    /// It begins with the gradients that an earlier reducer kept, if they are still there and laid
    /// out alike: [`Reducer::has_resumed`] tells.
    pub kept: Option<&'a KeptGradients>,
    /// A small tensor that every reduction sums over all ranks as well, in place. Through shared
    /// memory a rank comes by all sums, these and the gradients', or by none.
    pub beside: Option<&'a Tensor>,
}

/// A rank's own gradients, between two reducers.
///
/// Those in shared memory lie where they were, and are gone once another reducer was made there, or
/// [`release_unused_memory`](crate::release_unused_memory) gave it back.
#[derive(Debug)]
pub struct KeptGradients(ffi::Kept);

impl Reducer {
    /// Makes a reducer for `parameters`, whose gradients it replaces with views of its
    /// buckets. All ranks give the same parameters in the same order, and the same sizes.
    ///
    /// # Errors
    /// A refusal that names the parameter's index; [`Error::OutOfMemory`] or [`Error::Torch`] when
    /// the buckets cannot be made.
    pub fn new(group: &ProcessGroup, parameters: &[Tensor], sizes: BucketSizes) -> Result<Self> {
        Self::with_options(group, parameters, sizes, ReducerOptions::default())
    }

    /// As [`Reducer::new`], with more to it.
    ///
    /// # Errors
    /// As for [`Reducer::new`]; for what is beside the gradients as for
    /// [`ProcessGroup::all_reduce`].
    pub fn with_options(
        group: &ProcessGroup,
        parameters: &[Tensor],
        sizes: BucketSizes,
        options: ReducerOptions<'_>,
    ) -> Result<Self> {
        let ReducerOptions { kept, beside } = options;
        if let Some(beside) = beside {
            group.check(beside, "reducer", "what is summed beside gradients")?;
        }
        let group = Arc::clone(group.shared());
        check_parameters(parameters, &group)?;
        let layouts: Vec<Layout> = parameters
            .iter()
            .map(|parameter| Layout {
                bytes: parameter
                    .numel()
                    .saturating_mul(element_size(parameter.kind())),
                class: parameter.kind() as u64,
            })
            .collect();
        let buckets = assign_buckets(&layouts, sizes);
        let kept = kept.map(|kept| &kept.0);
        let handle = ffi::Reducer::new(&group.handle, parameters, &buckets, kept, beside)
            .map_err(|failure| group.error("creating the reducer", failure))?;
        Ok(Self {
            handle,
            group,
            parameter_count: parameters.len(),
        })
    }

    /// Whether it began with the gradients that an earlier reducer kept, and not with none.
    pub fn has_resumed(&self) -> bool {
        self.handle.has_resumed()
    }

    /// What this rank has added up itself since [`Reducer::zero_gradients`], every pass whole, for
    /// the next reducer to begin with. `None` where that is not what the gradients are: they are
    /// sums over ranks, or a pass was cut short.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn keep(&self) -> Result<Option<KeptGradients>> {
        let kept = self.handle.keep();
        Ok(kept
            .map_err(|failure| self.group.error("keep", failure))?
            .map(KeptGradients))
    }

    /// Whether the sums go through memory that the ranks share, see
    /// [`GlooOptions::shared_memory`](crate::GlooOptions::shared_memory).
    pub fn is_shared(&self) -> bool {
        self.handle.is_shared()
    }

    /// Begins a step: what the next pass computes replaces all gradients, instead of being added to
    /// them. Until then they hold what they held.
    ///
    /// # Errors
    /// [`Error::Torch`] when the device fails.
    pub fn zero_gradients(&self) -> Result<()> {
        self.handle
            .zero()
            .map_err(|failure| self.group.error("zero_gradients", failure))
    }

    /// Adds the loss's gradients to those there, on this rank only.
    ///
    /// # Errors
    /// [`Error::InvalidLoss`], [`Error::OutOfMemory`] or [`Error::Torch`]; the group is untouched.
    pub fn accumulate(&self, loss: &Tensor) -> Result<()> {
        check_loss(loss)?;
        self.handle
            .backward(loss, false)
            .map_err(|failure| self.group.error("accumulate", failure))
    }

    /// Adds the loss's gradients to those there, then sums over all ranks: see [`Reducer::sums`].
    /// Buckets are reduced while the rest of the backward pass runs. On return the sums
    /// are there for the host too.
    ///
    /// # Errors
    /// Before anything started: [`Error::InvalidLoss`], [`Error::ParameterWithoutGradient`] (looked
    /// for in the first pass), [`Error::Aborted`]. Later, with the group over:
    /// [`Error::Collective`], [`Error::UnfinishedReduction`], [`Error::OutOfMemory`],
    /// [`Error::Torch`].
    pub fn backward(&self, loss: &Tensor) -> Result<()> {
        check_loss(loss)?;
        self.handle
            .backward(loss, true)
            .map_err(|failure| self.group.error("backward", failure))
    }

    /// The part of a rank without a micro-batch in the step's last round: takes part in the
    /// reduction with the gradients that are there.
    ///
    /// # Errors
    /// As for [`Reducer::backward`].
    pub fn backward_zero(&self) -> Result<()> {
        self.handle
            .backward_zero()
            .map_err(|failure| self.group.error("backward_zero", failure))
    }

    /// What this rank itself has added up, in the order of the parameters: views, valid as long as
    /// the reducer. Where sums are not made in shared memory, a reduction leaves them here.
    ///
    /// # Errors
    /// [`Error::Torch`] when libtorch fails.
    pub fn gradients(&self) -> Result<Vec<Tensor>> {
        let one = |index| self.handle.gradient(index);
        (0..self.parameter_count)
            .map(one)
            .collect::<std::result::Result<_, _>>()
            .map_err(|failure| self.group.error("gradients", failure))
    }

    /// Where the sums over all ranks are after a reduction: views, valid as long as the reducer. Every
    /// element of every gradient is in one of them, and they are in the same order on all ranks.
    ///
    /// # Errors
    /// [`Error::Torch`] when libtorch fails.
    pub fn sums(&self) -> Result<Vec<Stretch>> {
        let stretches = self.handle.stretches();
        let stretches = stretches.map_err(|failure| self.group.error("sums", failure))?;
        let stretch = |(parameter, from, sums)| Stretch {
            parameter,
            from: usize::try_from(from).unwrap_or_default(),
            sums,
        };
        Ok(stretches.into_iter().map(stretch).collect())
    }

    /// [`Reducer::sums`] again, as few flat tensors, in the order of reduction: for what concerns every
    /// element alike.
    ///
    /// # Errors
    /// [`Error::Torch`] when libtorch fails.
    pub fn flat_sums(&self) -> Result<Vec<Tensor>> {
        let sums = self.handle.flat_sums();
        sums.map_err(|failure| self.group.error("flat_sums", failure))
    }

    /// The Euclidean norm of all sums as one vector, after a reduction; the same on all ranks, to the bit. On the CPU
    /// squares are added up in double precision, and through shared memory while the sums are made.
    ///
    /// # Errors
    /// [`Error::Torch`] when the device fails.
    pub fn norm(&self) -> Result<f64> {
        let norm = self.handle.norm();
        norm.map_err(|failure| self.group.error("norm", failure))
    }

    /// To be asked when [`Reducer::sums`] have been read: whether they were there all the while.
    ///
    /// # Errors
    /// [`Error::Collective`] when a rank has left the group and may have used its memory for another one's
    /// sums. What was made of them is worth nothing.
    pub fn require_whole(&self) -> Result<()> {
        let whole = self.handle.require_whole();
        whole.map_err(|failure| self.group.error("sums", failure))
    }
}

fn check_parameters(parameters: &[Tensor], group: &Shared) -> Result<()> {
    if parameters.is_empty() {
        return Err(Error::NoParameters);
    }
    let mut first_places = std::collections::HashMap::new();
    for (index, parameter) in parameters.iter().enumerate() {
        let what = || format!("parameter {index}");
        if !parameter.defined() {
            return Err(Error::UndefinedTensor { what: what() });
        }
        if !ffi::is_strided(parameter) {
            return Err(Error::NotDense { what: what() });
        }
        let found = parameter.device();
        if found != group.device {
            return Err(Error::WrongDevice {
                what: what(),
                expected: group.device,
                found,
            });
        }
        if !parameter.is_floating_point() {
            let (kind, operation) = (parameter.kind(), "a reducer");
            return Err(Error::UnsupportedKind {
                what: what(),
                kind,
                operation,
            });
        }
        if !ffi::is_leaf_with_gradient(parameter) {
            return Err(Error::NotAParameter { index });
        }
        if let Some(first) = first_places.insert(ffi::identity(parameter), index) {
            return Err(Error::DuplicateParameter { index, first });
        }
    }
    Ok(())
}

fn check_loss(loss: &Tensor) -> Result<()> {
    let refuse = |reason| Err(Error::InvalidLoss { reason });
    if !loss.defined() {
        return refuse("it is undefined");
    }
    if loss.numel() != 1 {
        return refuse("it is not a single number");
    }
    if !loss.requires_grad() {
        return refuse("it depends on no parameter; was it computed without gradients?");
    }
    Ok(())
}
