//! Uploads and the stream for them; the arguments of the module above apply.

use std::marker::PhantomData;
use std::ptr::{NonNull, null_mut};

use tch::Tensor;

use super::{Failure, check, tensor_from, tensor_pointer};
use crate::sys;

/// As many bytes as `sizes` has places, which [`crate::upload`] has checked, as numbers like `like`.
pub(crate) fn numbers_of(bytes: &[u8], sizes: &[i64], like: &Tensor) -> Result<Tensor, Failure> {
    let mut out = null_mut();
    // SAFETY: the bytes are read, and only until the call returns: from then on the shim has a copy in memory of its own
    // (pinned memory that a copy to CUDA still reads is kept by libtorch's allocator). They fill the sizes. `like` is a
    // valid tensor; `out` is a place for the pointer to a new one, which `tensor_from` owns.
    check(unsafe {
        sys::nrs_numbers_of(
            bytes.as_ptr(),
            sizes.as_ptr(),
            sizes.len(),
            tensor_pointer(like),
            &raw mut out,
        )
    })?;
    Ok(tensor_from(out))
}

/// A stream beside the current one of a CUDA device.
#[derive(Debug)]
pub(crate) struct SideStream(NonNull<sys::SideStream>);

// SAFETY: a stream and an event of CUDA, which any thread may use; all calls take turns because they need `&mut`. Between
// entering and leaving the borrow of [`Aside`], which is not Send, holds it on its thread.
unsafe impl Send for SideStream {}

impl SideStream {
    pub(crate) fn new(device: usize) -> Result<Self, Failure> {
        let mut out = null_mut();
        // A number that no device has stays one.
        let device = i32::try_from(device)
            .unwrap_or(i32::MAX)
            .min(i8::MAX.into());
        // SAFETY: a place for the pointer to a new stream, freed once by `Drop`. No such device, or no CUDA: a failure.
        check(unsafe { sys::nrs_side_stream_new(device, &raw mut out) })?;
        NonNull::new(out).map(Self).ok_or_else(|| Failure {
            code: sys::CODE_TORCH,
            detail: 0,
            message: "no stream was made".to_owned(),
        })
    }

    /// Puts this stream in the current one's place, on this thread, until what is returned is gone.
    pub(crate) fn enter(&mut self) -> Result<Aside<'_>, Failure> {
        // SAFETY: the stream is valid until `Drop`.
        check(unsafe { sys::nrs_side_stream_enter(self.0.as_ptr()) })?;
        Ok(Aside(self, PhantomData))
    }

    pub(crate) fn hand_over(&mut self, tensors: &[&Tensor]) -> Result<(), Failure> {
        let pointers: Vec<_> = tensors
            .iter()
            .map(|tensor| tensor_pointer(tensor))
            .collect();
        // SAFETY: a valid stream, and valid tensors as many as said (see the module).
        check(unsafe {
            sys::nrs_side_stream_hand_over(self.0.as_ptr(), pointers.as_ptr(), pointers.len())
        })
    }
}

impl Drop for SideStream {
    fn drop(&mut self) {
        // SAFETY: the one and only free. What is queued on the stream goes on without the handle.
        let _ = check(unsafe { sys::nrs_side_stream_free(self.0.as_ptr()) });
    }
}

/// While this is there, the side stream is the current one of its thread, which it may not leave.
pub(crate) struct Aside<'a>(&'a mut SideStream, PhantomData<*const ()>);

impl Aside<'_> {
    /// As dropping it, and says what went wrong.
    pub(crate) fn leave(self) -> Result<(), Failure> {
        // SAFETY: a valid stream. Leaving a second time, when `self` is dropped, does nothing.
        check(unsafe { sys::nrs_side_stream_leave(self.0.0.as_ptr()) })
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        // SAFETY: as in `leave`.
        let _ = check(unsafe { sys::nrs_side_stream_leave(self.0.0.as_ptr()) });
    }
}
