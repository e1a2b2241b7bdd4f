//! Sums over NCCL, where this machine has devices for it; a process of its own, since CUDA's libraries are large.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;

use nccl_rs::{NcclOptions, ProcessGroup};
use tch::Device;

use support::{PATIENCE, on_ranks};

#[test]
fn all_reduce_over_nccl_gives_the_exact_sum() {
    if let Some(reason) = nccl_rs::nccl_unavailable_reason() {
        println!("skipped: {reason}");
        return;
    }
    // A rank for each device; of one alone at least that nothing is changed.
    let devices = usize::try_from(tch::Cuda::device_count()).unwrap();
    on_ranks(
        "all_reduce_over_nccl_gives_the_exact_sum",
        devices,
        |rank| {
            let options = NcclOptions {
                timeout: PATIENCE,
                device: rank.rank,
                compress_gradients: false,
            };
            let store = Arc::new(rank.store.with_prefix("g1"));
            let group = ProcessGroup::nccl(store, rank.rank, rank.world_size, options).unwrap();
            support::exact_sums(&group, &rank, Device::Cuda(rank.rank));
        },
    );
}
