// Optimizer updates in one pass over all parameters: on the CPU our own, elsewhere operations of
// libtorch's that tch does not bind, since they take several lists of tensors.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <utility>
#include <vector>

#include "update.hpp"

namespace nrs {

// Lists of equal length, one behind the other, as vectors.
inline UpdateLists lists_of(
    const at::Tensor* const* tensors,
    size_t lists,
    size_t length) {
  UpdateLists out(lists);
  for (auto& list : out) {
    for (size_t index = 0; index < length; ++index) {
      list.push_back(**tensors++);
    }
  }
  return out;
}

// The lists with gradients multiplied by `factor`. They themselves stay as they are: others may read them.
inline UpdateLists multiplied(UpdateLists lists, double factor) {
  if (factor != 1.0) {
    lists[1] = at::_foreach_mul(lists[1], factor);
  }
  return lists;
}

// `tensors`: parameters, gradients, momentum buffers.
inline void fused_sgd(
    const at::Tensor* const* tensors, size_t length, double factor, const SgdRule& rule) {
  at::NoGradGuard no_grad;
  auto lists = lists_of(tensors, 3, length);
  if (can_update(lists)) {
    update_sgd(lists, factor, rule);
    return;
  }
  lists = multiplied(std::move(lists), factor);
  // Without momentum libtorch wants no buffers.
  at::_fused_sgd_(
      lists[0],
      lists[1],
      rule.momentum == 0.0 ? std::vector<at::Tensor>{} : lists[2],
      rule.decay,
      rule.momentum,
      rule.rate,
      /*dampening=*/0.0,
      /*nesterov=*/false,
      /*maximize=*/false,
      /*is_first_step=*/false);
}

// `tensors`: parameters, gradients, first and second moments.
inline void fused_adamw(
    const at::Tensor* const* tensors, size_t length, double factor, const AdamWRule& rule) {
  at::NoGradGuard no_grad;
  auto lists = lists_of(tensors, 4, length);
  if (can_update(lists)) {
    update_adamw(lists, factor, rule);
    return;
  }
  lists = multiplied(std::move(lists), factor);
  const std::vector<at::Tensor> steps(
      length, at::full({}, rule.step, lists[0].at(0).options().dtype(at::kFloat)));
  at::_fused_adamw_(
      lists[0],
      lists[1],
      lists[2],
      lists[3],
      /*max_exp_avg_sqs=*/{},
      steps,
      rule.rate,
      rule.beta1,
      rule.beta2,
      rule.decay,
      rule.epsilon,
      /*amsgrad=*/false,
      /*maximize=*/false);
}

// `tensors`: averages, and what each moves towards by `weight`.
inline void foreach_lerp(const at::Tensor* const* tensors, size_t length, double weight) {
  at::NoGradGuard no_grad;
  const auto lists = lists_of(tensors, 2, length);
  at::_foreach_lerp_(lists[0], lists[1], weight);
}

}  // namespace nrs
