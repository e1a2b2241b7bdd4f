//! Operations of libtorch's that tch does not bind; the arguments of the module above apply.

use std::ptr::{null, null_mut};

use tch::Tensor;

use super::{Failure, check, tensor_from, tensor_pointer};
use crate::fused::{AdamW, Sgd};
use crate::sys;

/// One SGD update of lists that [`crate::fused`] has checked: parameters, gradients, momentum buffers.
pub(crate) fn sgd(lists: &[&[Tensor]; 3], factor: f64, rule: Sgd) -> Result<(), Failure> {
    let pointers = pointers(lists);
    // SAFETY: `pointers` holds three lists of this length, of valid tensors (see the module); the update is over, or
    // queued on a CUDA stream that keeps its own references, when the call returns.
    check(unsafe {
        sys::nrs_fused_sgd(
            pointers.as_ptr(),
            lists[0].len(),
            factor,
            rule.rate,
            rule.momentum,
            rule.decay,
        )
    })
}

/// One AdamW update of checked lists: parameters, gradients, first and second moments.
pub(crate) fn adamw(lists: &[&[Tensor]; 4], factor: f64, rule: AdamW) -> Result<(), Failure> {
    let pointers = pointers(lists);
    // SAFETY: as for `sgd`, with four lists.
    check(unsafe {
        sys::nrs_fused_adamw(
            pointers.as_ptr(),
            lists[0].len(),
            factor,
            rule.step as f64,
            rule.rate,
            rule.beta1,
            rule.beta2,
            rule.epsilon,
            rule.decay,
        )
    })
}

/// Moves averages towards other values, by two checked lists.
pub(crate) fn lerp(lists: &[&[Tensor]; 2], weight: f64) -> Result<(), Failure> {
    let pointers = pointers(lists);
    // SAFETY: as for `sgd`, with two lists.
    check(unsafe { sys::nrs_foreach_lerp(pointers.as_ptr(), lists[0].len(), weight) })
}

fn pointers(lists: &[&[Tensor]]) -> Vec<*const sys::CTensor> {
    let all = lists.iter().flat_map(|list| list.iter());
    all.map(tensor_pointer).collect()
}

/// `W xᵀ` for each of K weights.
pub(crate) fn stacked_product(
    weight: &Tensor,
    x: &Tensor,
    sizes: &[i64],
) -> Result<Tensor, Failure> {
    let mut out = null_mut();
    // SAFETY: two valid tensors (see the module), of which the shim keeps references for the backward pass; a list of this
    // length, read during the call; and a place for the pointer to a new one, which `tensor_from` owns. Sizes that do not
    // match come back as a failure.
    check(unsafe {
        sys::nrs_stacked_product(
            tensor_pointer(weight),
            tensor_pointer(x),
            sizes.as_ptr(),
            sizes.len(),
            &raw mut out,
        )
    })?;
    Ok(tensor_from(out))
}

/// Convolves by products, if that is faster.
pub(crate) fn convolution(
    x: &Tensor,
    weight: &Tensor,
    stride: i64,
    padding: i64,
    sizes: &[i64],
) -> Result<Option<Tensor>, Failure> {
    let mut out = null_mut();
    // SAFETY: two valid tensors (see the module), which the shim checks before it reads their memory and of which it keeps
    // references for the backward pass; a list of this length, read during the call; and a place for the pointer to a new
    // one or null.
    check(unsafe {
        sys::nrs_convolution(
            tensor_pointer(x),
            tensor_pointer(weight),
            stride,
            padding,
            sizes.as_ptr(),
            sizes.len(),
            &raw mut out,
        )
    })?;
    Ok((!out.is_null()).then(|| tensor_from(out)))
}

/// Normalises groups of samples, and what follows.
pub(crate) fn norm(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    [means, variances]: [&Tensor; 2],
    sizes: &[i64],
    epsilon: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor, Failure> {
    let residual = residual.map_or_else(null, tensor_pointer);
    let mut out = null_mut();
    // SAFETY: valid tensors (see the module), of which the shim keeps references for the backward pass and which it
    // checks before it reads their memory, and null for one that there is not; a list of this length, read during the
    // call; and a place for the pointer to a new tensor, which `tensor_from` owns.
    check(unsafe {
        sys::nrs_norm(
            tensor_pointer(x),
            tensor_pointer(weight),
            tensor_pointer(bias),
            residual,
            tensor_pointer(means),
            tensor_pointer(variances),
            sizes.as_ptr(),
            sizes.len(),
            epsilon,
            relu.into(),
            &raw mut out,
        )
    })?;
    Ok(tensor_from(out))
}

/// Zeros of a tensor's shape, strides, kind and device.
pub(crate) fn untouched_zeros_like(like: &Tensor) -> Result<Tensor, Failure> {
    let mut out = null_mut();
    // SAFETY: a valid tensor (see the module), and a place for the pointer to a new one, which `tensor_from` owns.
    check(unsafe { sys::nrs_untouched_zeros_like(tensor_pointer(like), &raw mut out) })?;
    Ok(tensor_from(out))
}

/// Whether float32 products on CUDA may be TF32.
pub(crate) fn allow_tf32(allow: bool) {
    // SAFETY: sets two flags of libtorch's global context; without CUDA nobody reads them.
    unsafe { sys::nrs_allow_tf32(i32::from(allow)) }
}

/// Lets the process keep memory that it frees.
pub(crate) fn keep_memory() {
    // SAFETY: sets two parameters of glibc's allocator, which takes its own lock for it.
    unsafe { sys::nrs_keep_memory() }
}
