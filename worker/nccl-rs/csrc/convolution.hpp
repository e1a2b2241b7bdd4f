// Convolutions with few output pixels and many weights, as matrix products.
#pragma once

#include <ATen/ATen.h>

namespace nrs {

// Convolves `x`, `[B, C, H, W]`, with `weight`, `[O, C, k, k]`, without bias. Undefined where it would not be faster than
// oneDNN, which turns weights, and their gradients, into layouts of its own and back in every pass. It takes float on the
// CPU, contiguous or channels last, and answers alike. `sizes` are the samples of the micro-batches that share the pass: what
// becomes of each does not depend on the others, but for whether it is taken at all, which the largest of them decides: who
// asks with unequal ones lets one decide for another.
at::Tensor convolution(
    const at::Tensor& x,
    const at::Tensor& weight,
    int64_t stride,
    int64_t padding,
    at::IntArrayRef sizes);

}  // namespace nrs
