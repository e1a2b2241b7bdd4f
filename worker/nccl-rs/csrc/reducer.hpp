// The gradient reducer: c10d's own, made to sum, with buckets that stay as they were given.
#pragma once

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <unordered_set>
#include <utility>
#include <vector>

#include "gradient_places.hpp"
#include "group.hpp"
#include "shared_sum.hpp"
#include "sum_hook.hpp"

namespace nrs {

class FixedReducer final : public c10d::Reducer {
 public:
  FixedReducer(
      const std::vector<at::Tensor>& parameters,
      std::vector<std::vector<size_t>> buckets,
      const c10::intrusive_ptr<c10d::ProcessGroup>& group)
      : c10d::Reducer(
            parameters,
            std::move(buckets),
            group,
            std::vector<bool>(parameters.size(), false),
            c10d::kDefaultBucketBytesCap,
            /*find_unused_parameters=*/false,
            /*gradient_as_bucket_view=*/true,
            /*param_names=*/{},
            c10d::kDefaultFirstBucketBytes,
            /*skip_all_reduce_unused_params=*/false,
            /*use_python_reducer=*/false,
            /*bucket_bytes_cap_list=*/{}) {
    // The reducer collects, for ever, the order in which gradients became ready, to rebuild its
    // buckets by it. They are never rebuilt here: the layout decides the order of additions.
    has_rebuilt_bucket_ = true;
  }

  bool finished() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return !require_finalize_;
  }
};

// Where the sums of a part of a parameter's gradient are: flat, from an element of its memory on.
struct Stretch {
  size_t parameter;
  int64_t from;
  at::Tensor sums;
};

}  // namespace nrs

extern "C" {

struct nrs_reducer {
  nrs_group* group;
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> flat;  // the buckets, each one flat tensor
  std::vector<at::Tensor> gradients;  // the parameters' parts of the buckets
  std::vector<at::Tensor> flat_sums;  // where sums are after a reduction, bucket by bucket
  std::vector<nrs::Stretch> sums;  // the same by parameter
  at::Tensor beside;  // summed with every reduction; may be undefined
  std::unique_ptr<nrs::SharedSum> shared;  // null: the group's own all-reduce
  std::unique_ptr<nrs::FixedReducer> reducer;
  nrs::SumHook* hook;  // owned by `reducer`
  bool graph_checked = false;
  // Whether nothing was added up yet: what is in the buckets is to be written over.
  bool empty = true;
  // Whether the buckets hold what this rank computed itself, whole: neither sums nor half a pass.
  bool own = false;
  bool resumed = false;  // it began with kept gradients
  bool reduced = false;  // all sums of a step were there
};

// A rank's own gradients, kept from one reducer to the next.
struct nrs_kept {
  std::vector<at::Tensor> flat;  // the buckets; none if they still lie where they were
  nrs::SharedPlace place;
};

}

namespace nrs {

// Puts kept gradients into the buckets; false where they are gone or of another layout.
inline bool resume(nrs_reducer& reducer, const nrs_kept& kept) {
  if (kept.flat.empty()) {
    return reducer.shared && reducer.shared->found() == kept.place;
  }
  const bool alike = kept.flat.size() == reducer.flat.size() &&
      std::equal(kept.flat.begin(), kept.flat.end(), reducer.flat.begin(), [](const auto& a, const auto& b) {
        return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() && a.device() == b.device();
      });
  if (!alike) {
    return false;
  }
  for (size_t bucket = 0; bucket < kept.flat.size(); ++bucket) {
    reducer.flat[bucket].copy_(kept.flat[bucket]);
  }
  return true;
}

// What the next reducer may begin with, or null. Shared memory stays this process's and is found again
// there; other buckets are handed over.
inline nrs_kept* keep(const nrs_reducer& reducer) {
  if (!reducer.own || reducer.empty) {
    return nullptr;
  }
  auto kept = std::make_unique<nrs_kept>();
  if (reducer.shared) {
    kept->place = reducer.shared->place();
  } else {
    kept->flat = reducer.flat;
  }
  return kept.release();
}

// Makes the buckets, and says which part of them is whose.
inline void lay_out(nrs_reducer& reducer, const std::vector<std::vector<size_t>>& layout) {
  auto buckets = reducer.reducer->get_grad_buckets(/*return_zero_tensors=*/false);
  TORCH_CHECK(buckets.size() == layout.size(), "the reducer made another number of buckets");
  for (auto& bucket : buckets) {
    reducer.flat.push_back(bucket.getBufferRef());
  }
  if (reducer.group->share) {
    reducer.shared = SharedSum::make(*reducer.group, reducer.flat, reducer.beside);
    if (reducer.shared) {
      reducer.hook->use(*reducer.shared);
    }
  }
  reducer.gradients.resize(reducer.parameters.size());
  for (size_t bucket = 0; bucket < buckets.size(); ++bucket) {
    const at::Tensor& buffer = reducer.flat[bucket];
    const auto sums = reducer.shared ? reducer.shared->sums_of(bucket) : std::vector{buffer};
    reducer.flat_sums.insert(reducer.flat_sums.end(), sums.begin(), sums.end());
    int64_t offset = 0;
    for (const size_t index : layout[bucket]) {
      const at::Tensor& parameter = reducer.parameters[index];
      const int64_t end = offset + parameter.numel();
      // The reducer's own rule for its views.
      reducer.gradients[index] = parameter.is_non_overlapping_and_dense()
          ? buffer.as_strided(parameter.sizes(), parameter.strides(), offset)
          : buffer.narrow(0, offset, parameter.numel()).view(parameter.sizes());
      int64_t begin = 0;
      for (const auto& sum : sums) {
        const int64_t from = std::max(begin, offset);
        const int64_t to = std::min(begin + sum.numel(), end);
        if (from < to) {
          reducer.sums.push_back({index, from - offset, sum.narrow(0, from - begin, to - from)});
        }
        begin += sum.numel();
      }
      offset = end;
    }
    TORCH_CHECK(offset == buffer.numel(), "the reducer laid a bucket out in another way");
  }
}

// Lets the next pass write over what is in the buckets: then a gradient is computed there or copied
// there once, where zeros would be written, read and added to.
inline void zero(nrs_reducer& reducer) {
  for (auto& parameter : reducer.parameters) {
    parameter.mutable_grad().reset();
  }
  reducer.empty = true;
  reducer.own = true;
  if (std::exchange(reducer.reduced, false)) {
    KeptSegments::of_process().drop_gone();
  }
}

// Lets every parameter's gradient be its part of a bucket, so that passes add to it. The reducer itself
// would do so at its first reduction only, and micro-batches before that would be copied.
inline void attach_gradients(nrs_reducer& reducer) {
  for (size_t index = 0; index < reducer.parameters.size(); ++index) {
    reducer.parameters[index].mutable_grad() = reducer.gradients[index];
  }
}

// Puts what the parameters have of gradients into the buckets, and zeros for those that have none, of which there is none
// after the first pass of a step.
inline void fill_buckets(nrs_reducer& reducer) {
  at::NoGradGuard no_grad;
  for (size_t index = 0; index < reducer.parameters.size(); ++index) {
    const at::Tensor& gradient = reducer.parameters[index].grad();
    const at::Tensor& place = reducer.gradients[index];
    if (!gradient.defined()) {
      place.zero_();
    } else if (!gradient.is_alias_of(place)) {
      place.copy_(gradient);
    }
  }
  attach_gradients(reducer);
  reducer.empty = false;
}

// The norm of all gradients' sums as one vector, after a reduction.
inline double norm_of_sums(const nrs_reducer& reducer) {
  at::NoGradGuard no_grad;
  if (reducer.shared) {
    return std::sqrt(reducer.shared->squares());
  }
  if (!reducer.flat_sums.at(0).device().is_cpu()) {
    // The host waits for the device once.
    return at::linalg_vector_norm(at::stack(at::_foreach_norm(reducer.flat_sums))).item<double>();
  }
  double squares = 0.0;
  for (const auto& sums : reducer.flat_sums) {
    squares += sum_of_squares(sums);
  }
  return std::sqrt(squares);
}

// Takes the views of the buckets away from the parameters again, so that nobody is left who uses the
// buckets' memory and the next reducer may have it.
inline void detach_gradients(nrs_reducer& reducer) noexcept {
  for (auto& parameter : reducer.parameters) {
    at::Tensor& gradient = parameter.mutable_grad();
    const bool ours = gradient.defined() &&
        std::any_of(reducer.flat.begin(), reducer.flat.end(), [&](const at::Tensor& bucket) {
          return gradient.storage().unsafeGetStorageImpl() == bucket.storage().unsafeGetStorageImpl();
        });
    if (ours) {
      gradient.reset();
    }
  }
}

inline nrs_reducer* make_reducer(
    nrs_group* group,
    std::vector<at::Tensor> parameters,
    const std::vector<std::vector<size_t>>& layout,
    const nrs_kept* kept,
    at::Tensor beside) {
  group->health->require_alive();
  auto reducer = std::make_unique<nrs_reducer>();
  reducer->group = group;
  reducer->parameters = std::move(parameters);
  reducer->beside = std::move(beside);
  reducer->reducer = std::make_unique<FixedReducer>(reducer->parameters, layout, group->group);
  auto hook = std::make_unique<SumHook>(*group);
  reducer->hook = hook.get();
  reducer->reducer->register_comm_hook(std::move(hook));
  at::NoGradGuard no_grad;
  lay_out(*reducer, layout);
  zero(*reducer);
  if (kept != nullptr && resume(*reducer, *kept)) {
    reducer->resumed = true;
    reducer->empty = false;
    attach_gradients(*reducer);
  }
  return reducer.release();
}

// The first parameter that the loss does not depend on. Its bucket would wait for ever.
inline void require_gradients_for_all(const nrs_reducer& reducer, const at::Tensor& loss) {
  std::unordered_set<torch::autograd::Node*> seen;
  std::vector<torch::autograd::Node*> todo;
  const auto visit = [&](torch::autograd::Node* node) {
    if (node != nullptr && seen.insert(node).second) {
      todo.push_back(node);
    }
  };
  visit(torch::autograd::impl::gradient_edge(loss).function.get());
  while (!todo.empty()) {
    auto* node = todo.back();
    todo.pop_back();
    for (const auto& edge : node->next_edges()) {
      visit(edge.function.get());
    }
  }
  for (size_t index = 0; index < reducer.parameters.size(); ++index) {
    const auto accumulator = torch::autograd::impl::grad_accumulator(reducer.parameters[index]);
    if (seen.count(accumulator.get()) == 0) {
      throw Refusal(
          kMissingGradient, "a parameter takes no part in the loss", static_cast<int64_t>(index));
    }
  }
}

// The pass of a loss. The first of a step may write over what is in the buckets.
inline void backward_into_buckets(nrs_reducer& reducer, const at::Tensor& loss) {
  const GradientPlaces places(reducer.parameters, reducer.gradients, reducer.empty);
  torch::autograd::backward({loss}, {});
}

// Adds gradients up, on this rank only.
inline void accumulate(nrs_reducer& reducer, const at::Tensor& loss) {
  const bool own = std::exchange(reducer.own, false);
  backward_into_buckets(reducer, loss);
  fill_buckets(reducer);
  reducer.own = own;
}

// Runs a backward pass that reduces. Any failure in it ends the group: the other ranks wait for
// buckets that will not come.
template <typename Backward>
void reduce(nrs_reducer& reducer, Backward&& backward) {
  Health& health = *reducer.group->health;
  // All but sums in shared memory are made in the buckets themselves.
  const bool own = std::exchange(reducer.own, false);
  try {
    reducer.hook->begin();
    if (reducer.shared) {
      reducer.shared->begin();
    }
    reducer.reducer->prepare_for_backward({});
    backward();
    reducer.empty = false;
    if (!reducer.reducer->finished()) {
      throw Refusal(kUnfinished, "backward ended before every gradient was reduced");
    }
    reducer.hook->wait_for_host();
    if (reducer.shared) {
      reducer.own = own;
      reducer.shared->finish();
      reducer.own = false;
      reducer.reduced = true;
    } else if (reducer.beside.defined()) {
      // In memory of its own: a thread of a group that has ended may still be in it when this one goes on.
      at::NoGradGuard no_grad;
      const at::Tensor sum = reducer.beside.clone();
      std::unique_ptr<nrs_work> work(all_reduce(*reducer.group, sum, 0));
      wait(*work);
      reducer.beside.copy_(sum);
    }
  } catch (...) {
    if (reducer.shared) {
      reducer.shared->give_up();
    }
    if (health.ended() || reducer.hook->failed()) {
      health.rethrow_as_failed_collective();
    }
    health.end(text_of(std::current_exception()), false);
    throw;
  }
}

inline void backward(nrs_reducer& reducer, const at::Tensor& loss, bool reducing) {
  if (!reducing || reducer.group->health->ended()) {
    // Without peers there is nothing to reduce, but the gradients may be kept.
    accumulate(reducer, loss);
    if (reducing) {
      reducer.group->health->require_alive();
    }
    return;
  }
  if (!reducer.graph_checked) {
    require_gradients_for_all(reducer, loss);
    reducer.graph_checked = true;
  }
  reduce(reducer, [&] { backward_into_buckets(reducer, loss); });
}

// Gradients of zero for every parameter, which is what 0 times the sum of them all would give,
// without reading them.
inline void backward_zero(nrs_reducer& reducer) {
  std::vector<at::Tensor> zeros;
  zeros.reserve(reducer.parameters.size());
  for (const auto& parameter : reducer.parameters) {
    zeros.push_back(at::zeros({}, parameter.options().requires_grad(false)).expand(parameter.sizes()));
  }
  reducer.group->health->require_alive();
  if (reducer.empty) {
    fill_buckets(reducer);
  }
  reduce(reducer, [&] { torch::autograd::backward(reducer.parameters, zeros); });
}

}  // namespace nrs
