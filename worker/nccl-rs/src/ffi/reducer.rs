//! The gradient reducer, and what it leaves to the next one.

use std::ptr::{NonNull, null, null_mut};

use tch::Tensor;

use super::{Failure, Group, check, non_null, tensor_from, tensor_pointer};
use crate::sys;

/// A gradient reducer. Must be freed before its group, which [`crate::Reducer`] sees to by owning
/// a share of the group.
#[derive(Debug)]
pub(crate) struct Reducer(NonNull<sys::Reducer>);

// SAFETY: the reducer has no thread of its own and is bound to none; all calls take turns because
// the handle is not Sync (a raw pointer is not).
unsafe impl Send for Reducer {}

impl Reducer {
    pub(crate) fn new(
        group: &Group,
        parameters: &[Tensor],
        buckets: &[Vec<usize>],
        kept: Option<&Kept>,
        beside: Option<&Tensor>,
    ) -> Result<Self, Failure> {
        let pointers: Vec<_> = parameters.iter().map(tensor_pointer).collect();
        let members: Vec<usize> = buckets.iter().flatten().copied().collect();
        let lengths: Vec<usize> = buckets.iter().map(Vec::len).collect();
        let kept = kept.map_or(null(), |kept| kept.0.as_ptr().cast_const());
        let beside = beside.map_or(null(), tensor_pointer);
        let mut out = null_mut();
        // SAFETY: three arrays with their lengths (`members` holds the sum of `lengths`), read only
        // during the call, as are `kept` and `beside`, each valid or null; the shim copies the tensors'
        // references. The caller keeps the group alive for as long as the reducer.
        check(unsafe {
            sys::nrs_reducer_new(
                group.0.as_ptr(),
                pointers.as_ptr(),
                pointers.len(),
                members.as_ptr(),
                lengths.as_ptr(),
                lengths.len(),
                kept,
                beside,
                &raw mut out,
            )
        })?;
        Ok(Self(non_null(out)))
    }

    /// Whether it began with kept gradients.
    pub(crate) fn has_resumed(&self) -> bool {
        // SAFETY: valid reducer; reads what is set once, in `nrs_reducer_new`.
        unsafe { sys::nrs_reducer_has_resumed(self.0.as_ptr()) != 0 }
    }

    /// This rank's own gradients; none where they are not whole.
    pub(crate) fn keep(&self) -> Result<Option<Kept>, Failure> {
        let mut out = null_mut();
        // SAFETY: valid reducer, only read; `out` is null or allocated for us alone.
        check(unsafe { sys::nrs_reducer_keep(self.0.as_ptr(), &raw mut out) })?;
        Ok(NonNull::new(out).map(Kept))
    }

    /// Whether it sums through memory that the ranks share.
    pub(crate) fn is_shared(&self) -> bool {
        // SAFETY: valid reducer; reads a pointer that is set once, in `nrs_reducer_new`.
        unsafe { sys::nrs_reducer_is_shared(self.0.as_ptr()) != 0 }
    }

    pub(crate) fn backward(&self, loss: &Tensor, reduce: bool) -> Result<(), Failure> {
        // SAFETY: valid reducer and tensor; backward runs on this thread (and on libtorch's own for
        // CUDA) and is over when the call returns.
        check(unsafe {
            sys::nrs_reducer_backward(self.0.as_ptr(), tensor_pointer(loss), i32::from(reduce))
        })
    }

    pub(crate) fn backward_zero(&self) -> Result<(), Failure> {
        // SAFETY: as for `backward`.
        check(unsafe { sys::nrs_reducer_backward_zero(self.0.as_ptr()) })
    }

    pub(crate) fn zero(&self) -> Result<(), Failure> {
        // SAFETY: valid reducer.
        check(unsafe { sys::nrs_reducer_zero(self.0.as_ptr()) })
    }

    pub(crate) fn gradient(&self, index: usize) -> Result<Tensor, Failure> {
        let mut out = null_mut();
        // SAFETY: valid reducer; the shim checks the index.
        check(unsafe { sys::nrs_reducer_gradient(self.0.as_ptr(), index, &raw mut out) })?;
        Ok(tensor_from(out))
    }

    /// Where the sums of parts of gradients are: the parameter, the first element, and the flat tensor.
    pub(crate) fn stretches(&self) -> Result<Vec<(usize, i64, Tensor)>, Failure> {
        // SAFETY: valid reducer; reads the length of a list that is made once, in `nrs_reducer_new`.
        let count = unsafe { sys::nrs_reducer_stretches(self.0.as_ptr()) };
        let one = |index| {
            let (mut parameter, mut from, mut out) = (0, 0, null_mut());
            // SAFETY: valid reducer, and places for three results; the shim checks the index.
            check(unsafe {
                sys::nrs_reducer_stretch(
                    self.0.as_ptr(),
                    index,
                    &raw mut parameter,
                    &raw mut from,
                    &raw mut out,
                )
            })?;
            Ok((parameter, from, tensor_from(out)))
        };
        (0..count).map(one).collect()
    }

    /// The same, bucket by bucket.
    pub(crate) fn flat_sums(&self) -> Result<Vec<Tensor>, Failure> {
        // SAFETY: as for `stretches`.
        let count = unsafe { sys::nrs_reducer_flat_sums(self.0.as_ptr()) };
        let one = |index| {
            let mut out = null_mut();
            // SAFETY: valid reducer; the shim checks the index.
            check(unsafe { sys::nrs_reducer_flat_sum(self.0.as_ptr(), index, &raw mut out) })?;
            Ok(tensor_from(out))
        };
        (0..count).map(one).collect()
    }

    /// The norm of all sums as one vector.
    pub(crate) fn norm(&self) -> Result<f64, Failure> {
        let mut norm = 0.0;
        // SAFETY: valid reducer, whose sums are only read, and a place for a number.
        check(unsafe { sys::nrs_reducer_norm(self.0.as_ptr(), &raw mut norm) })?;
        Ok(norm)
    }

    /// Fails where sums that were read may not have been there any more.
    pub(crate) fn require_whole(&self) -> Result<(), Failure> {
        // SAFETY: valid reducer, only read.
        check(unsafe { sys::nrs_reducer_require_whole(self.0.as_ptr()) })
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: the one and only free, with the group still alive (see the type). c10d's
        // destructor may throw; the shim catches it.
        let _ = check(unsafe { sys::nrs_reducer_free(self.0.as_ptr()) });
    }
}

/// Gradients that outlive their reducer.
#[derive(Debug)]
pub(crate) struct Kept(NonNull<sys::Kept>);

// SAFETY: tensors, whose references are counted atomically, and two numbers; nothing in it is bound to
// a thread. Not Sync: nothing needs it.
unsafe impl Send for Kept {}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: the one and only free; reducers copy from it and keep no reference.
        let _ = check(unsafe { sys::nrs_kept_free(self.0.as_ptr()) });
    }
}
