// Sums of float gradients and optimizers' updates on the CPU, each in one pass over memory.
#pragma once

#include <ATen/ATen.h>

#include <vector>

namespace nrs {

// Lists of equal length: parameters, gradients, then one of each kind of state.
using UpdateLists = std::vector<std::vector<at::Tensor>>;

// What `torch.optim.SGD` is told, without dampening.
struct SgdRule {
  double rate;
  double momentum;
  double decay;
};

// What `torch.optim.AdamW` is told. `step` counts from 1.
struct AdamWRule {
  double step;
  double rate;
  double beta1;
  double beta2;
  double epsilon;
  double decay;
};

// Whether the updates below may be asked for: all is float, contiguous and on the CPU.
bool can_update(const UpdateLists& lists);

// `factor` times the gradients, which are only read, go into parameters and momentum buffers.
void update_sgd(const UpdateLists& lists, double factor, const SgdRule& rule);

// The same with first and second moments.
void update_adamw(const UpdateLists& lists, double factor, const AdamWRule& rule);

// Puts the sums of `addends`, at least two, in their order, and answers the sum of their squares.
double sum_floats(int64_t count, const std::vector<const float*>& addends, float* into);

// The sum of all elements' squares.
double sum_of_squares(const at::Tensor& tensor);

}  // namespace nrs
