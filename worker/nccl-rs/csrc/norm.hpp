// Batch normalisation in training with what follows it in a ResNet, in as few passes over memory as there can be.
#pragma once

#include <ATen/ATen.h>

namespace nrs {

// Normalises `x`, `[B, C, H, W]`, of which every `sizes[g]` samples, one group behind the other, are normalised by their
// own statistics; these go to row g of `means` and `variances`, `[groups, C]`. If `relu`, adds `residual`, like `x` and
// perhaps undefined, and puts 0 for what is below. On the CPU, contiguous or channels last, float or bfloat16; everything
// else is float.
at::Tensor norm(
    const at::Tensor& x,
    const at::Tensor& weight,
    const at::Tensor& bias,
    const at::Tensor& residual,
    const at::Tensor& means,
    const at::Tensor& variances,
    at::IntArrayRef sizes,
    double epsilon,
    bool relu);

}  // namespace nrs
