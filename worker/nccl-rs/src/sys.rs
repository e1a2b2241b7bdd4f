//! The lowest storey: the symbols that `csrc/shim.cpp` exports, declared word for word.
//!
//! What holds for all of them: no C++ exception leaves them; a returned [`Failure`] is owned by the
//! caller until it is given to [`nrs_failure_free`]; every `out` is written only on success.

use std::ffi::{c_char, c_void};

/// `at::Tensor`: what tch's pointers to `C_tensor` point to.
#[repr(C)]
pub(crate) struct CTensor {
    _private: [u8; 0],
}

/// A process group of the shim.
#[repr(C)]
pub(crate) struct Group {
    _private: [u8; 0],
}

/// A collective under way.
#[repr(C)]
pub(crate) struct Work {
    _private: [u8; 0],
}

/// A gradient reducer of the shim.
#[repr(C)]
pub(crate) struct Reducer {
    _private: [u8; 0],
}

/// Kept gradients of the shim.
#[repr(C)]
pub(crate) struct Kept {
    _private: [u8; 0],
}

/// A stream of a CUDA device beside the current one.
#[repr(C)]
pub(crate) struct SideStream {
    _private: [u8; 0],
}

/// A C++ exception, caught and put into words.
#[repr(C)]
pub(crate) struct Failure {
    /// One of the `CODE_` constants; or 2, a store callback returned an error, or 4, a collective
    /// that was under way failed: to the caller both mean that a collective failed.
    pub(crate) code: i32,
    /// The parameter's index for [`CODE_MISSING_GRADIENT`].
    pub(crate) detail: i64,
    /// NUL-terminated, not necessarily UTF-8, never null.
    pub(crate) message: *mut c_char,
}

/// Anything libtorch threw that has no code of its own.
pub(crate) const CODE_TORCH: i32 = 1;
/// An allocator gave up.
pub(crate) const CODE_OUT_OF_MEMORY: i32 = 3;
/// The group had ended before the call; or was aborted by this process during it.
pub(crate) const CODE_ABORTED: i32 = 5;
/// A parameter that the loss does not depend on.
pub(crate) const CODE_MISSING_GRADIENT: i32 = 6;
/// Backward ended without reducing every bucket.
pub(crate) const CODE_UNFINISHED: i32 = 7;

/// Bytes lent for the duration of one call.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    pub(crate) data: *const u8,
    pub(crate) size: usize,
}

/// How the shim's `c10d::Store` calls back. Each function but the last two returns 0, or 1 after
/// writing its message to `error`; `out` and `error` buffers are the shim's and are filled by
/// [`nrs_buffer_write`].
#[repr(C)]
pub(crate) struct StoreCallbacks {
    pub(crate) set: extern "C" fn(*mut c_void, Bytes, Bytes, *mut c_void) -> i32,
    pub(crate) get: extern "C" fn(*mut c_void, Bytes, i64, *mut c_void, *mut c_void) -> i32,
    pub(crate) add: extern "C" fn(*mut c_void, Bytes, i64, *mut i64, *mut c_void) -> i32,
    pub(crate) check: extern "C" fn(*mut c_void, *const Bytes, usize, *mut i32, *mut c_void) -> i32,
    pub(crate) wait: extern "C" fn(*mut c_void, *const Bytes, usize, i64, *mut c_void) -> i32,
    pub(crate) compare_set:
        extern "C" fn(*mut c_void, Bytes, Bytes, Bytes, *mut c_void, *mut c_void) -> i32,
    pub(crate) delete_key: extern "C" fn(*mut c_void, Bytes, *mut i32, *mut c_void) -> i32,
    pub(crate) num_keys: extern "C" fn(*mut c_void, *mut i64, *mut c_void) -> i32,
    pub(crate) clone: extern "C" fn(*mut c_void) -> *mut c_void,
    pub(crate) drop: extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    pub(crate) fn nrs_failure_free(failure: *mut Failure);
    pub(crate) fn nrs_buffer_write(buffer: *mut c_void, data: *const u8, size: usize);

    pub(crate) fn nrs_load_cuda(library: *const u8, size: usize) -> *mut Failure;
    pub(crate) fn nrs_tensor_is_strided(tensor: *const CTensor) -> i32;
    pub(crate) fn nrs_tensor_is_leaf_with_gradient(tensor: *const CTensor) -> i32;
    pub(crate) fn nrs_tensor_identity(tensor: *const CTensor) -> usize;

    pub(crate) fn nrs_leave_signals_to_others() -> i32;
    pub(crate) fn nrs_thread_stack(
        thread: i64,
        timeout_ms: i64,
        frames: *mut u64,
        capacity: usize,
        count: *mut usize,
    ) -> *mut Failure;
    pub(crate) fn nrs_release_unused_memory() -> *mut Failure;
    pub(crate) fn nrs_symbol(
        address: u64,
        name: *mut c_char,
        name_size: usize,
        library: *mut c_char,
        library_size: usize,
    ) -> *mut Failure;

    pub(crate) fn nrs_group_gloo(
        callbacks: *const StoreCallbacks,
        store: *mut c_void,
        rank: i32,
        world_size: i32,
        timeout_ms: i64,
        host: *const c_char,
        share: i32,
        out: *mut *mut Group,
    ) -> *mut Failure;
    pub(crate) fn nrs_group_nccl(
        callbacks: *const StoreCallbacks,
        store: *mut c_void,
        rank: i32,
        world_size: i32,
        timeout_ms: i64,
        device: i32,
        out: *mut *mut Group,
    ) -> *mut Failure;
    pub(crate) fn nrs_group_abort(group: *mut Group, reason: *const c_char) -> *mut Failure;
    pub(crate) fn nrs_group_free(group: *mut Group) -> *mut Failure;

    pub(crate) fn nrs_all_reduce(
        group: *mut Group,
        tensor: *const CTensor,
        op: i32,
        out: *mut *mut Work,
    ) -> *mut Failure;
    pub(crate) fn nrs_broadcast(
        group: *mut Group,
        tensor: *const CTensor,
        root: i32,
        out: *mut *mut Work,
    ) -> *mut Failure;
    pub(crate) fn nrs_all_gather(
        group: *mut Group,
        output: *const CTensor,
        input: *const CTensor,
        out: *mut *mut Work,
    ) -> *mut Failure;
    pub(crate) fn nrs_barrier(group: *mut Group, out: *mut *mut Work) -> *mut Failure;
    pub(crate) fn nrs_work_wait(work: *mut Work) -> *mut Failure;
    pub(crate) fn nrs_work_free(work: *mut Work) -> *mut Failure;

    pub(crate) fn nrs_reducer_new(
        group: *mut Group,
        parameters: *const *const CTensor,
        parameter_count: usize,
        members: *const usize,
        lengths: *const usize,
        bucket_count: usize,
        kept: *const Kept,
        beside: *const CTensor,
        out: *mut *mut Reducer,
    ) -> *mut Failure;
    pub(crate) fn nrs_reducer_has_resumed(reducer: *const Reducer) -> i32;
    pub(crate) fn nrs_reducer_keep(reducer: *const Reducer, out: *mut *mut Kept) -> *mut Failure;
    pub(crate) fn nrs_kept_free(kept: *mut Kept) -> *mut Failure;
    pub(crate) fn nrs_stacked_product(
        weight: *const CTensor,
        x: *const CTensor,
        sizes: *const i64,
        micro_batches: usize,
        out: *mut *mut CTensor,
    ) -> *mut Failure;
    pub(crate) fn nrs_convolution(
        x: *const CTensor,
        weight: *const CTensor,
        stride: i64,
        padding: i64,
        sizes: *const i64,
        micro_batches: usize,
        out: *mut *mut CTensor,
    ) -> *mut Failure;
    pub(crate) fn nrs_norm(
        x: *const CTensor,
        weight: *const CTensor,
        bias: *const CTensor,
        residual: *const CTensor,
        means: *const CTensor,
        variances: *const CTensor,
        sizes: *const i64,
        groups: usize,
        epsilon: f64,
        relu: i32,
        out: *mut *mut CTensor,
    ) -> *mut Failure;
    pub(crate) fn nrs_fused_sgd(
        tensors: *const *const CTensor,
        length: usize,
        factor: f64,
        rate: f64,
        momentum: f64,
        decay: f64,
    ) -> *mut Failure;
    pub(crate) fn nrs_foreach_lerp(
        tensors: *const *const CTensor,
        length: usize,
        weight: f64,
    ) -> *mut Failure;
    pub(crate) fn nrs_fused_adamw(
        tensors: *const *const CTensor,
        length: usize,
        factor: f64,
        step: f64,
        rate: f64,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        decay: f64,
    ) -> *mut Failure;
    pub(crate) fn nrs_keep_memory();
    pub(crate) fn nrs_untouched_zeros_like(
        like: *const CTensor,
        out: *mut *mut CTensor,
    ) -> *mut Failure;
    pub(crate) fn nrs_numbers_of(
        bytes: *const u8,
        sizes: *const i64,
        dimensions: usize,
        like: *const CTensor,
        out: *mut *mut CTensor,
    ) -> *mut Failure;
    pub(crate) fn nrs_side_stream_new(device: i32, out: *mut *mut SideStream) -> *mut Failure;
    pub(crate) fn nrs_side_stream_enter(stream: *mut SideStream) -> *mut Failure;
    pub(crate) fn nrs_side_stream_leave(stream: *mut SideStream) -> *mut Failure;
    pub(crate) fn nrs_side_stream_hand_over(
        stream: *mut SideStream,
        tensors: *const *const CTensor,
        count: usize,
    ) -> *mut Failure;
    pub(crate) fn nrs_side_stream_free(stream: *mut SideStream) -> *mut Failure;
    pub(crate) fn nrs_allow_tf32(allow: i32);
    pub(crate) fn nrs_group_compress(group: *mut Group);
    pub(crate) fn nrs_reducer_is_shared(reducer: *const Reducer) -> i32;
    pub(crate) fn nrs_reducer_backward(
        reducer: *mut Reducer,
        loss: *const CTensor,
        reduce: i32,
    ) -> *mut Failure;
    pub(crate) fn nrs_reducer_backward_zero(reducer: *mut Reducer) -> *mut Failure;
    pub(crate) fn nrs_reducer_zero(reducer: *mut Reducer) -> *mut Failure;
    pub(crate) fn nrs_reducer_gradient(
        reducer: *mut Reducer,
        index: usize,
        out: *mut *mut CTensor,
    ) -> *mut Failure;
    pub(crate) fn nrs_reducer_stretches(reducer: *const Reducer) -> usize;
    pub(crate) fn nrs_reducer_stretch(
        reducer: *mut Reducer,
        index: usize,
        parameter: *mut usize,
        from: *mut i64,
        out: *mut *mut CTensor,
    ) -> *mut Failure;
    pub(crate) fn nrs_reducer_flat_sums(reducer: *const Reducer) -> usize;
    pub(crate) fn nrs_reducer_flat_sum(
        reducer: *mut Reducer,
        index: usize,
        out: *mut *mut CTensor,
    ) -> *mut Failure;
    pub(crate) fn nrs_reducer_norm(reducer: *const Reducer, out: *mut f64) -> *mut Failure;
    pub(crate) fn nrs_reducer_require_whole(reducer: *const Reducer) -> *mut Failure;
    pub(crate) fn nrs_reducer_free(reducer: *mut Reducer) -> *mut Failure;
}

/// glibc's, for a thread's own table of descriptors.
pub(crate) const CLONE_FILES: i32 = 0x400;
/// For descriptors that end with the program: by number, as glibc knows the call only since 2.34.
pub(crate) const CLOSE_RANGE: i64 = 436;
pub(crate) const CLOSE_RANGE_CLOEXEC: u32 = 4;

unsafe extern "C" {
    pub(crate) fn unshare(flags: i32) -> i32;
    pub(crate) fn syscall(number: i64, ...) -> i64;
}
