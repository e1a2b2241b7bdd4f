//! CUDA's libraries are not there until they are asked for; a process of its own for this test, since libtorch learns of
//! them once.

use std::fs;

/// Whether this process has a library of that name mapped.
fn mapped(library: &str) -> bool {
    fs::read_to_string("/proc/self/maps")
        .is_ok_and(|maps| maps.lines().any(|line| line.contains(library)))
}

#[test]
fn cuda_is_loaded_when_it_is_asked_for_and_libtorch_learns_of_it() {
    assert!(!mapped("libtorch_cuda.so"));
    match nccl_rs::load_cuda() {
        Err(reason) => {
            println!("without CUDA: {reason}");
            assert!(reason.contains("without cuda"), "{reason}");
        }
        Ok(()) => {
            assert!(mapped("libtorch_cuda.so"));
            // What stands in for CUDA where there is none throws here.
            assert!(tch::utils::version_cudnn() > 0);
            nccl_rs::load_cuda().unwrap();
            let devices = tch::Cuda::device_count();
            assert_eq!(nccl_rs::nccl_unavailable_reason().is_none(), devices > 0);
        }
    }
}
