//! Zeros that are not there until they are written to.

#![allow(clippy::unwrap_used, reason = "tests")]

use nccl_rs::untouched_zeros_like;
use tch::{Device, Kind, Tensor};

/// Resident memory of the mapping in which a tensor lies, in KiB.
fn resident(tensor: &Tensor) -> u64 {
    let address = tensor.data_ptr() as u64;
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        let first = line.split(' ').next().unwrap();
        if let Some((from, to)) = first.split_once('-') {
            let at = |text| u64::from_str_radix(text, 16).unwrap();
            inside = (at(from)..at(to)).contains(&address);
        } else if inside && first == "Rss:" {
            return line.split_whitespace().nth(1).unwrap().parse().unwrap();
        }
    }
    unreachable!("the tensor lies somewhere");
}

#[test]
fn large_zeros_take_no_memory_until_they_are_written_to() {
    let like = Tensor::ones([64, 256, 32, 32], (Kind::Float, Device::Cpu));
    let like = like.permute([0, 3, 1, 2]).set_requires_grad(true);
    let zeros = untouched_zeros_like(&like).unwrap();
    // A neighbour's pages may share the mapping.
    let before = resident(&zeros);
    assert!(before < 1024, "{before} KiB of 65,536");

    assert_eq!((zeros.size(), zeros.stride()), (like.size(), like.stride()));
    assert!(!zeros.requires_grad());
    assert_eq!(zeros.abs().max().double_value(&[]), 0.0);

    let _ = zeros.shallow_clone().fill_(1.0);
    assert_eq!(zeros.min().double_value(&[]), 1.0);
    let after = resident(&zeros);
    assert!(after >= 65_000, "{after} KiB of 65,536");
}

#[test]
fn small_ones_and_such_with_gaps_are_zeros_too() {
    let small = Tensor::ones([3, 5], (Kind::Double, Device::Cpu));
    let gaps = Tensor::ones([512, 512], (Kind::Float, Device::Cpu)).slice(1, 0, 256, 2);
    for like in [small, gaps] {
        let zeros = untouched_zeros_like(&like).unwrap();
        assert_eq!((zeros.size(), zeros.kind()), (like.size(), like.kind()));
        assert_eq!(zeros.abs().sum(None).double_value(&[]), 0.0);
    }
}
