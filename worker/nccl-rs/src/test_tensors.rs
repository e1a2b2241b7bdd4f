//! What unit tests of operations compute with.

use tch::{Device, Kind, Tensor};

/// A batch as it is laid out in one way.
pub(crate) type Layout = fn(&Tensor) -> Tensor;

/// Both ways.
pub(crate) const LAYOUTS: [Layout; 2] = [Tensor::contiguous, channels_last];

/// `[B, C, H, W]`, laid out with channels last.
pub(crate) fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Numbers without a pattern, of mean 0 and variance 1, that depend on `seed` alone: libtorch's generator is shared with
/// tests that run beside this one.
pub(crate) fn noise(size: &[i64], seed: f64) -> Tensor {
    let places = Tensor::arange(size.iter().product::<i64>(), (Kind::Double, Device::Cpu));
    let far = (places * 78.233 + seed * 12.9898).sin() * 43758.5453;
    let uniform = &far - far.floor() - 0.5;
    (uniform * 12f64.sqrt()).to_kind(Kind::Float).view(size)
}
