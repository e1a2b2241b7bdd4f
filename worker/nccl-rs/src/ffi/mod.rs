//! The middle storey: each symbol of [`crate::sys`] as a call that returns a result, and handles
//! that free themselves. All reasoning about C++ pointers, threads and exceptions is here.
//!
//! Arguments used throughout:
//! - *Exceptions*: every exported function runs its body inside `guarded` (`csrc/failure.hpp`),
//!   which catches all kinds, so none unwinds into Rust; callbacks catch panics (see [`store`]).
//! - *Tensors*: `Tensor::as_ptr` is a valid `at::Tensor*` as long as the borrowed `Tensor` lives.
//!   The shim copies the `at::Tensor` (a counted reference) if it keeps it beyond the call.

pub(crate) mod fused;
mod reducer;
mod store;
pub(crate) mod upload;

use std::ffi::{CStr, CString};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::time::Duration;

use tch::Tensor;

use crate::sys;
pub(crate) use reducer::{Kept, Reducer};
pub(crate) use store::Adapter;

/// Gives the calling thread a table of descriptors of its own, a copy of what the process has open now. From here on it
/// may only use descriptors that were open before, or that it opens itself. It takes no signals of the process any more:
/// their handlers write to descriptors, which here are others or none, so that such a signal would be lost.
pub(crate) fn own_descriptors() -> std::io::Result<()> {
    // SAFETY: changes the calling thread's mask of signals and nothing else.
    match unsafe { sys::nrs_leave_signals_to_others() } {
        0 => {}
        problem => return Err(std::io::Error::from_raw_os_error(problem)),
    }
    // SAFETY: takes a flag and touches no memory of this process. That no descriptor of others is used on this thread is
    // seen to by `crate::lifeline`, the only caller, whose thread uses standard input and nothing else.
    if unsafe { sys::unshare(sys::CLONE_FILES) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Has all descriptors but the first three closed when another program is executed in this process's place. Rust's are so
/// from the beginning; those that libraries opened are not: sockets to peers, who would take them for a rank that lives.
pub(crate) fn close_on_exec() -> std::io::Result<()> {
    let flags = sys::CLOSE_RANGE_CLOEXEC;
    // SAFETY: close_range(2) takes three unsigned ints and touches no memory of this process. With this flag it closes no
    // descriptor now.
    if unsafe { sys::syscall(sys::CLOSE_RANGE, 3_u32, u32::MAX, flags) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// A C++ exception in words.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) detail: i64,
    pub(crate) message: String,
}

/// Turns what an exported function returned into a result, and frees it.
fn check(failure: *mut sys::Failure) -> Result<(), Failure> {
    let Some(failure) = NonNull::new(failure) else {
        return Ok(());
    };
    // SAFETY: a non-null return is a `Failure` allocated by the shim for us alone; `message` is
    // NUL-terminated and lives until `nrs_failure_free`, which is called once, after the copy.
    unsafe {
        let raw = failure.as_ref();
        let copied = Failure {
            code: raw.code,
            detail: raw.detail,
            message: CStr::from_ptr(raw.message).to_string_lossy().into_owned(),
        };
        sys::nrs_failure_free(failure.as_ptr());
        Err(copied)
    }
}

fn tensor_pointer(tensor: &Tensor) -> *const sys::CTensor {
    tensor.as_ptr().cast()
}

/// Takes over an `at::Tensor*` that the shim allocated.
fn tensor_from(pointer: *mut sys::CTensor) -> Tensor {
    // SAFETY: only called with the `out` of a successful call, which the shim made with
    // `new at::Tensor`; tch frees it with `delete`, as it does its own.
    unsafe { Tensor::from_ptr(pointer.cast()) }
}

/// Milliseconds for C++, at most what its clocks can add up without overflow.
pub(crate) fn milliseconds(timeout: Duration) -> i64 {
    const YEAR: i64 = 365 * 24 * 3600 * 1000;
    i64::try_from(timeout.as_millis()).unwrap_or(YEAR).min(YEAR)
}

/// A rank or world size for C++. Groups are far smaller than `i32::MAX`; the safe face checks.
fn int(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Loads the shared library whose file has these bytes, and with it libtorch's CUDA libraries.
pub(crate) fn load_cuda(library: &'static [u8]) -> Result<(), Failure> {
    // SAFETY: the shim copies the bytes, which build.rs made: loading them runs libtorch's own initialisers and no other
    // code. Called once (src/cuda.rs), before any other call into CUDA.
    check(unsafe { sys::nrs_load_cuda(library.as_ptr(), library.len()) })
}

/// Whether the tensor has the plain layout, neither sparse nor opaque.
pub(crate) fn is_strided(tensor: &Tensor) -> bool {
    // SAFETY: a valid tensor pointer (see the module), read only during the call, no exceptions.
    unsafe { sys::nrs_tensor_is_strided(tensor_pointer(tensor)) != 0 }
}

/// Whether backward puts a gradient into this tensor: a leaf that requires one.
pub(crate) fn is_leaf_with_gradient(tensor: &Tensor) -> bool {
    // SAFETY: as for `is_strided`.
    unsafe { sys::nrs_tensor_is_leaf_with_gradient(tensor_pointer(tensor)) != 0 }
}

/// The same number for two handles of the same tensor (not merely of the same memory).
pub(crate) fn identity(tensor: &Tensor) -> usize {
    // SAFETY: as for `is_strided`.
    unsafe { sys::nrs_tensor_identity(tensor_pointer(tensor)) }
}

/// The most return addresses that [`thread_stack`] gives: the shim's own limit.
const FRAMES: usize = 128;

/// The return addresses of a thread of this process, innermost first.
pub(crate) fn thread_stack(thread: i64, timeout: Duration) -> Result<Vec<u64>, Failure> {
    let (mut frames, mut count) = ([0u64; FRAMES], 0);
    // SAFETY: `frames` has room for `FRAMES` words, which the shim is told, and both outlive the call. The signal that
    // the shim sends is handled by code that is async-signal-safe and ends before the call does (`csrc/stacks.hpp`).
    check(unsafe {
        sys::nrs_thread_stack(
            thread,
            milliseconds(timeout),
            frames.as_mut_ptr(),
            FRAMES,
            &raw mut count,
        )
    })?;
    Ok(frames[..count.min(FRAMES)].to_vec())
}

/// Gives what allocators keep for later back to the system and the devices.
pub(crate) fn release_unused_memory() -> Result<(), Failure> {
    // SAFETY: takes nothing; both allocators lock what they change.
    check(unsafe { sys::nrs_release_unused_memory() })
}

/// The function that exports an address, and its library; empty where unknown.
pub(crate) fn symbol(address: u64) -> (String, String) {
    let (mut name, mut library) = ([0u8; 1024], [0u8; 256]);
    // SAFETY: the sizes told are those of the buffers, which outlive the call; the shim ends what it writes with NUL.
    let found = check(unsafe {
        sys::nrs_symbol(
            address,
            name.as_mut_ptr().cast(),
            name.len(),
            library.as_mut_ptr().cast(),
            library.len(),
        )
    });
    if found.is_err() {
        return Default::default();
    }
    let text = |bytes: &[u8]| {
        let text = CStr::from_bytes_until_nul(bytes).unwrap_or_default();
        text.to_string_lossy().into_owned()
    };
    (text(&name), text(&library))
}

/// A process group. Freeing it ends its collectives first, so it takes bounded time.
#[derive(Debug)]
pub(crate) struct Group(NonNull<sys::Group>);

// SAFETY: the shim's group may be used and freed on any thread: starting a collective takes the
// group's mutex, aborting touches only a mutex-guarded list of sockets or NCCL's own thread-safe
// abort, and nothing in it is bound to the thread that made it.
unsafe impl Send for Group {}
// SAFETY: as above; every exported function that takes a shared group locks what it changes.
unsafe impl Sync for Group {}

impl Group {
    pub(crate) fn gloo(
        store: &Arc<Adapter>,
        rank: usize,
        world_size: usize,
        timeout: Duration,
        host: &str,
        share: bool,
    ) -> Result<Self, Failure> {
        let host = c_string(host);
        let mut out = null_mut();
        // SAFETY: the callbacks are a static; `into_raw` gives the shim one counted reference to
        // the adapter, which it drops by callback, also when it fails; `host` outlives the call.
        check(unsafe {
            sys::nrs_group_gloo(
                &raw const store::CALLBACKS,
                Adapter::into_raw(store),
                int(rank),
                int(world_size),
                milliseconds(timeout),
                host.as_ptr(),
                i32::from(share),
                &raw mut out,
            )
        })?;
        Ok(Self(non_null(out)))
    }

    pub(crate) fn nccl(
        store: &Arc<Adapter>,
        rank: usize,
        world_size: usize,
        timeout: Duration,
        device: usize,
    ) -> Result<Self, Failure> {
        let mut out = null_mut();
        // SAFETY: as for `gloo`.
        check(unsafe {
            sys::nrs_group_nccl(
                &raw const store::CALLBACKS,
                Adapter::into_raw(store),
                int(rank),
                int(world_size),
                milliseconds(timeout),
                int(device),
                &raw mut out,
            )
        })?;
        Ok(Self(non_null(out)))
    }

    /// Lets reducers made from now on send gradients as bfloat16.
    pub(crate) fn compress(&mut self) {
        // SAFETY: valid group, and nobody else has it, as it is borrowed mutably.
        unsafe { sys::nrs_group_compress(self.0.as_ptr()) }
    }

    pub(crate) fn abort(&self, reason: &str) -> Result<(), Failure> {
        let reason = c_string(reason);
        // SAFETY: the group is valid until `Drop`; abort is thread-safe; the shim copies `reason`.
        check(unsafe { sys::nrs_group_abort(self.0.as_ptr(), reason.as_ptr()) })
    }

    pub(crate) fn all_reduce(&self, tensor: &Tensor, op: i32) -> Result<Work, Failure> {
        // SAFETY: valid group and tensor (see the module); the shim keeps its own reference to the
        // tensor for as long as the collective writes to it.
        Work::launch(|out| unsafe {
            sys::nrs_all_reduce(self.0.as_ptr(), tensor_pointer(tensor), op, out)
        })
    }

    pub(crate) fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<Work, Failure> {
        // SAFETY: as for `all_reduce`.
        Work::launch(|out| unsafe {
            sys::nrs_broadcast(self.0.as_ptr(), tensor_pointer(tensor), int(root), out)
        })
    }

    pub(crate) fn all_gather(&self, output: &Tensor, input: &Tensor) -> Result<Work, Failure> {
        // SAFETY: as for `all_reduce`, for both tensors.
        Work::launch(|out| unsafe {
            sys::nrs_all_gather(
                self.0.as_ptr(),
                tensor_pointer(output),
                tensor_pointer(input),
                out,
            )
        })
    }

    pub(crate) fn barrier(&self) -> Result<Work, Failure> {
        // SAFETY: valid group.
        Work::launch(|out| unsafe { sys::nrs_barrier(self.0.as_ptr(), out) })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the one and only free; no borrow of the handle is left. The shim severs the
        // connections first, so joining Gloo's threads cannot wait for a peer. A failure to free
        // has been caught and has nobody to tell: the group is gone either way.
        let _ = check(unsafe { sys::nrs_group_free(self.0.as_ptr()) });
    }
}

/// A collective under way. Holds its tensors; may outlive its group.
#[derive(Debug)]
pub(crate) struct Work(NonNull<sys::Work>);

// SAFETY: c10d's work is reference counted atomically and waited for under its own mutex; nothing
// in it is bound to a thread. Not Sync: nothing needs it.
unsafe impl Send for Work {}

impl Work {
    fn launch(
        start: impl FnOnce(*mut *mut sys::Work) -> *mut sys::Failure,
    ) -> Result<Self, Failure> {
        let mut out = null_mut();
        check(start(&raw mut out))?;
        Ok(Self(non_null(out)))
    }

    pub(crate) fn wait(&self) -> Result<(), Failure> {
        // SAFETY: valid until `Drop`; blocks this thread only.
        check(unsafe { sys::nrs_work_wait(self.0.as_ptr()) })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // SAFETY: the one and only free; it gives up a reference and waits for nothing.
        let _ = check(unsafe { sys::nrs_work_free(self.0.as_ptr()) });
    }
}

fn non_null<T>(pointer: *mut T) -> NonNull<T> {
    NonNull::new(pointer).expect("the shim writes `out` whenever it returns success")
}

/// Text for C++; inner NULs, which no caller needs, are left out.
fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).expect("all NULs were removed")
}
