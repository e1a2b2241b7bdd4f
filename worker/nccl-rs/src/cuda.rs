//! CUDA is loaded where it is asked for: its libraries cost every process a third of a second and some 350 MB.

use std::sync::OnceLock;

use crate::ffi;

/// The part of the shim that needs CUDA; none if libtorch has no CUDA.
#[cfg(cuda)]
const LIBRARY: Option<&[u8]> = Some(include_bytes!(concat!(
    env!("OUT_DIR"),
    "/libnccl_rs_cuda.so"
)));
#[cfg(not(cuda))]
const LIBRARY: Option<&[u8]> = None;

/// Loads libtorch's CUDA libraries into this process, once. libtorch asks for them one time only, so this comes before
/// any other question about devices; without it, and on a CPU, a process has none.
///
/// # Errors
/// Why there is no CUDA here, in words that continue a sentence.
pub fn load_cuda() -> Result<(), &'static str> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let library = LIBRARY.ok_or("this program was built against a libtorch without cuda")?;
        ffi::load_cuda(library).map_err(|failure| failure.message)
    });
    loaded.as_ref().copied().map_err(String::as_str)
}

/// Why [`ProcessGroup::nccl`](crate::ProcessGroup::nccl) cannot work in this process, or `None` where it can.
pub fn nccl_unavailable_reason() -> Option<&'static str> {
    match load_cuda() {
        Err(reason) => Some(reason),
        Ok(()) if tch::Cuda::device_count() < 1 => {
            Some("this machine has no cuda device, or no driver for it")
        }
        Ok(()) => None,
    }
}
