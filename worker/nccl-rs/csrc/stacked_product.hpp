// Products of many weights with few rows each, whose backward pass is told what form to compute.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "gradient_places.hpp"

namespace nrs {

// `W x^T` for each of K weights: `[K, o, i]` and `[K, B, i]` to `[K, o, B]`. With few rows autograd's own
// form of the gradient of `x`, `W^T dy`, takes libtorch twice as long on a CPU as `(dy^T W)^T`.
class StackedProduct final : public torch::autograd::Function<StackedProduct> {
 public:
  static at::Tensor forward(
      torch::autograd::AutogradContext* context,
      const at::Tensor& weight,
      const at::Tensor& x) {
    context->save_for_backward({weight, x});
    return at::bmm(weight, x.transpose(1, 2));
  }

  static torch::autograd::tensor_list backward(
      torch::autograd::AutogradContext* context,
      torch::autograd::tensor_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto rows = gradients[0].transpose(1, 2).contiguous();  // [K, B, o]
    at::Tensor of_weight;
    at::Tensor of_x;
    if (context->needs_input_grad(0)) {
      of_weight = GradientPlaces::take(saved[0], saved[0].sizes());
      at::bmm_out(of_weight, rows.transpose(1, 2), saved[1].contiguous());
    }
    if (context->needs_input_grad(1)) {
      of_x = at::bmm(rows, saved[0]);
    }
    return {of_weight, of_x};
  }
};

}  // namespace nrs
