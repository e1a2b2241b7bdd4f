// Products of many weights with few rows each, whose backward pass is told what form to compute.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "gradient_places.hpp"
#include "micro_batches.hpp"

namespace nrs {

// What each of K weights makes of its rows, `W x`: `[K, o, i]` and `[K, B, i]` to `[B, K, o]`. With few rows autograd's own
// form of the gradient of `x`, `W^T dy`, takes libtorch twice as long on a CPU as `(dy^T W)^T`.
//
// What becomes of a row does not depend on other micro-batches, of as many rows as `sizes` says, though it does on its
// own: a product adds in an order that depends on the number of its rows.
class StackedProduct final : public torch::autograd::Function<StackedProduct> {
 public:
  static at::Tensor forward(
      torch::autograd::AutogradContext* context,
      const at::Tensor& weight,
      const at::Tensor& x,
      at::IntArrayRef sizes) {
    TORCH_CHECK(weight.dim() == 3 && x.dim() == 3, "weights of ", weight.sizes(), " and rows of ", x.sizes());
    require_micro_batches(sizes, x.size(1));
    context->save_for_backward({weight, x});
    context->saved_data["sizes"] = sizes.vec();
    const auto y = at::empty({x.size(1), weight.size(0), weight.size(1)}, x.options().requires_grad(false));
    each_micro_batch(sizes, [&](int64_t first, int64_t size) {
      const auto rows = x.narrow(1, first, size).contiguous().transpose(1, 2);
      y.narrow(0, first, size).copy_(at::bmm(weight, rows).permute({2, 0, 1}));
    });
    return y;
  }

  static torch::autograd::tensor_list backward(
      torch::autograd::AutogradContext* context,
      torch::autograd::tensor_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto &weight = saved[0], &x = saved[1];
    const auto rows = gradients[0].transpose(0, 1).contiguous();  // [K, B, o]
    at::Tensor of_weight;
    at::Tensor of_x;
    if (context->needs_input_grad(0)) {
      of_weight = GradientPlaces::add(weight, weight.sizes(), [&](const at::Tensor& sum, double beta) {
        sum.baddbmm_(rows.transpose(1, 2), x.contiguous(), beta);
      });
    }
    if (context->needs_input_grad(1)) {
      const auto sizes = context->saved_data["sizes"].toIntVector();
      of_x = at::empty(x.sizes(), rows.options());
      each_micro_batch(sizes, [&](int64_t first, int64_t size) {
        of_x.narrow(1, first, size).copy_(at::bmm(rows.narrow(1, first, size).contiguous(), weight));
      });
    }
    return {of_weight, of_x, at::Tensor()};
  }
};

}  // namespace nrs
