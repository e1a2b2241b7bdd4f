// What the shim has of operations that tch does not bind, or that are our own; shim.cpp has the collectives.
#include "convolution.hpp"
#include "failure.hpp"
#include "fused.hpp"
#include "norm.hpp"
#include "stacked_product.hpp"
#include "zeros.hpp"

using nrs::guarded;

extern "C" {

nrs_failure* nrs_untouched_zeros_like(const at::Tensor* like, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(nrs::untouched_zeros_like(*like)); });
}

nrs_failure* nrs_stacked_product(
    const at::Tensor* weight,
    const at::Tensor* x,
    const int64_t* sizes,
    size_t micro_batches,
    at::Tensor** out) {
  return guarded([&] {
    const at::IntArrayRef each(sizes, micro_batches);
    *out = new at::Tensor(nrs::StackedProduct::apply(*weight, *x, each));
  });
}

nrs_failure* nrs_norm(
    const at::Tensor* x,
    const at::Tensor* weight,
    const at::Tensor* bias,
    const at::Tensor* residual,
    const at::Tensor* means,
    const at::Tensor* variances,
    const int64_t* sizes,
    size_t groups,
    double epsilon,
    int relu,
    at::Tensor** out) {
  return guarded([&] {
    const auto added = residual == nullptr ? at::Tensor() : *residual;
    const at::IntArrayRef each(sizes, groups);
    *out = new at::Tensor(
        nrs::norm(*x, *weight, *bias, added, *means, *variances, each, epsilon, relu != 0));
  });
}

nrs_failure* nrs_convolution(
    const at::Tensor* x,
    const at::Tensor* weight,
    int64_t stride,
    int64_t padding,
    const int64_t* sizes,
    size_t micro_batches,
    at::Tensor** out) {
  return guarded([&] {
    const at::IntArrayRef each(sizes, micro_batches);
    const auto y = nrs::convolution(*x, *weight, stride, padding, each);
    *out = y.defined() ? new at::Tensor(y) : nullptr;
  });
}

nrs_failure* nrs_fused_sgd(
    const at::Tensor* const* tensors,
    size_t length,
    double factor,
    double rate,
    double momentum,
    double decay) {
  return guarded([&] { nrs::fused_sgd(tensors, length, factor, {rate, momentum, decay}); });
}

nrs_failure* nrs_foreach_lerp(const at::Tensor* const* tensors, size_t length, double weight) {
  return guarded([&] { nrs::foreach_lerp(tensors, length, weight); });
}

nrs_failure* nrs_fused_adamw(
    const at::Tensor* const* tensors,
    size_t length,
    double factor,
    double step,
    double rate,
    double beta1,
    double beta2,
    double epsilon,
    double decay) {
  return guarded([&] {
    nrs::fused_adamw(tensors, length, factor, {step, rate, beta1, beta2, epsilon, decay});
  });
}

}  // extern "C"
