// Optimizer updates in one pass over all parameters: operations of libtorch's own that tch does not
// bind, since they take several lists of tensors.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <vector>

namespace nrs {

// Lists of equal length, one behind the other, as vectors.
inline std::vector<std::vector<at::Tensor>> lists_of(
    const at::Tensor* const* tensors,
    size_t lists,
    size_t length) {
  std::vector<std::vector<at::Tensor>> out(lists);
  for (auto& list : out) {
    for (size_t index = 0; index < length; ++index) {
      list.push_back(**tensors++);
    }
  }
  return out;
}

// Elements whose gradients are multiplied at a time: the products stay in a core's cache.
constexpr int64_t kProducts = 1 << 17;

// Calls `update` with the lists, the second of which are gradients, multiplied by `factor`. They themselves
// stay as they are: others may read them.
template <typename Update>
void with_products(const std::vector<std::vector<at::Tensor>>& lists, double factor, Update&& update) {
  if (factor == 1.0) {
    update(lists);
    return;
  }
  const auto& gradients = lists[1];
  at::Tensor products;
  std::vector<std::vector<at::Tensor>> stretch(lists.size(), std::vector<at::Tensor>(1));
  for (size_t index = 0; index < gradients.size(); ++index) {
    const int64_t elements = gradients[index].numel();
    if (!products.defined() || products.scalar_type() != gradients[index].scalar_type()) {
      products = at::empty({kProducts}, gradients[index].options());
    }
    for (int64_t from = 0; from < elements; from += kProducts) {
      const int64_t length = std::min(kProducts, elements - from);
      for (size_t list = 0; list < lists.size(); ++list) {
        stretch[list][0] = lists[list][index].view({-1}).narrow(0, from, length);
      }
      auto product = products.narrow(0, 0, length);
      at::mul_out(product, stretch[1][0], factor);
      stretch[1][0] = product;
      update(stretch);
    }
  }
}

// `tensors`: parameters, gradients, momentum buffers.
inline void fused_sgd(
    const at::Tensor* const* tensors,
    size_t length,
    double factor,
    double rate,
    double momentum,
    double decay) {
  at::NoGradGuard no_grad;
  with_products(lists_of(tensors, 3, length), factor, [&](const auto& lists) {
    at::_fused_sgd_(
        lists[0],
        lists[1],
        lists[2],
        decay,
        momentum,
        rate,
        /*dampening=*/0.0,
        /*nesterov=*/false,
        /*maximize=*/false,
        /*is_first_step=*/false);
  });
}

// `tensors`: parameters, gradients, first and second moments. `step` counts from 1.
inline void fused_adamw(
    const at::Tensor* const* tensors,
    size_t length,
    double factor,
    double step,
    double rate,
    double beta1,
    double beta2,
    double epsilon,
    double decay) {
  at::NoGradGuard no_grad;
  with_products(lists_of(tensors, 4, length), factor, [&](const auto& lists) {
    const std::vector<at::Tensor> steps(
        lists[0].size(), at::full({}, step, lists[0].at(0).options().dtype(at::kFloat)));
    at::_fused_adamw_(
        lists[0],
        lists[1],
        lists[2],
        lists[3],
        /*max_exp_avg_sqs=*/{},
        steps,
        rate,
        beta1,
        beta2,
        decay,
        epsilon,
        /*amsgrad=*/false,
        /*maximize=*/false);
  });
}

// `tensors`: averages, and what each moves towards by `weight`.
inline void foreach_lerp(const at::Tensor* const* tensors, size_t length, double weight) {
  at::NoGradGuard no_grad;
  const auto lists = lists_of(tensors, 2, length);
  at::_foreach_lerp_(lists[0], lists[1], weight);
}

}  // namespace nrs
