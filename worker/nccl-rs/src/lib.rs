//! Process groups and the gradient reducer of libtorch's c10d behind a safe API.
//!
//! One job: let one process take part in collectives with its peers, over Gloo on CPU or NCCL on
//! CUDA, and turn everything that can go wrong there (a dead peer, a hung one, an unreachable
//! store, a C++ exception of any kind) into an [`Error`]. It is the only crate with `unsafe` code.
//!
//! So that a collective that hangs can be looked into, it also tells where the process's threads are ([`stacks`]), and
//! so that a death is known at once it can tie a socket to the process's life ([`Lifeline`]). And
//! since it is the room for unsafe code, it lends what tch does not bind of libtorch ([`fused`], [`stacked_product`],
//! [`norm()`], [`numbers_of`], [`SideStream`], [`allow_tf32`]).
//!
//! It must not know the network protocol by which ranks find each other (that is behind [`Store`]),
//! nor models, optimizers, plans, generations or configuration.
//!
//! Three storeys: `sys` declares the raw symbols of the C++ shim in `csrc/`; `ffi` makes calls that
//! return results and argues for their safety; [`ProcessGroup`], [`Work`] and [`Reducer`] are the
//! safe face.
//!
//! # Linking
//! This crate needs `LIBTORCH` at build time, and its own tests find libtorch through rpath. Cargo
//! gives link arguments only to the package that asks for them, so a binary that depends on this
//! crate needs a build script of its own:
//! ```ignore
//! // build.rs of a package with `nccl-rs` among its dependencies
//! fn main() {
//!     let lib_dir = std::env::var("DEP_NCCL_RS_SHIM_LIB_DIR").expect("nccl-rs is a dependency");
//!     println!("cargo:rustc-link-arg=-Wl,-rpath,{lib_dir}");
//! }
//! ```

mod buckets;
mod convolution;
mod cuda;
mod error;
#[allow(unsafe_code)]
mod ffi;
pub mod fused;
mod group;
mod lifeline;
mod norm;
mod reducer;
mod stacked_product;
mod stacks;
mod store;
#[allow(unsafe_code)]
mod sys;
mod tensor;
#[cfg(test)]
mod test_tensors;
mod upload;
mod work;

pub use buckets::{BucketSizes, Layout, assign_buckets};
pub use convolution::convolution;
pub use cuda::{load_cuda, nccl_unavailable_reason};
pub use error::{Error, Result};
pub use group::{GlooOptions, NcclOptions, ProcessGroup, ReduceOp};
pub use lifeline::{FAREWELL, Lifeline};
pub use norm::norm;
pub use reducer::{KeptGradients, Reducer, ReducerOptions, Stretch};
pub use stacked_product::stacked_product;
pub use stacks::{ThreadStack, stacks};
pub use store::{Store, StoreError};
pub use upload::{SideStream, numbers_of};
pub use work::{Gathering, Work};

/// Gives memory that allocators keep for later back to the system and the devices: after memory ran out, so that less of
/// it may fit.
pub fn release_unused_memory() {
    // What cannot be given back is simply not there.
    let _ = ffi::release_unused_memory();
}

/// Has everything that this process has open closed, but for standard input and output, when it executes another program in
/// its place (`exec`).
///
/// # Errors
/// When the system does not know the call (Linux before 5.11).
pub fn close_on_exec() -> std::io::Result<()> {
    ffi::close_on_exec()
}

/// Whether products of float32 on CUDA may be rounded to TF32 (10 bits of mantissa) before they are summed: several times
/// faster on devices since Ampere. For this process; without CUDA it does nothing.
pub fn allow_tf32(allow: bool) {
    ffi::fused::allow_tf32(allow);
}

/// Lets this process keep memory that it frees for its next allocations, as far as it was at once: a training step then
/// needs no page for the first time but in the first step, which saves a fifth of the heads' time on a CPU. Pages are large ones
/// where the system gives them.
/// [`release_unused_memory`] still gives it back.
pub fn keep_memory() {
    ffi::fused::keep_memory();
}

/// Zeros of a tensor's shape, strides, kind and device. On the CPU large ones take no memory until something is written
/// to them: the optimizer's state before the first step.
///
/// # Errors
/// When the device or the machine has no room.
pub fn untouched_zeros_like(
    tensor: &tch::Tensor,
) -> std::result::Result<tch::Tensor, tch::TchError> {
    ffi::fused::untouched_zeros_like(tensor)
        .map_err(|failure| tch::TchError::Torch(failure.message))
}
