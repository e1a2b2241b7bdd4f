#include "update.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "update_kernels.hpp"
#include "wide.hpp"

namespace nrs {
namespace {

// Elements that one thread takes at a time.
constexpr int64_t kElements = 1 << 16;

// Calls `body(pointers, count)` for stretches of all parameters, with a pointer into each list, on as many threads as
// libtorch has.
template <size_t LISTS, class F>
void each(const UpdateLists& lists, const F& body) {
  std::vector<std::pair<size_t, int64_t>> stretches;
  for (size_t index = 0; index < lists[0].size(); ++index) {
    for (int64_t from = 0; from < lists[0][index].numel(); from += kElements) {
      stretches.emplace_back(index, from);
    }
  }
  at::parallel_for(0, static_cast<int64_t>(stretches.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t stretch = begin; stretch < end; ++stretch) {
      const auto [index, from] = stretches[stretch];
      float* pointers[LISTS];
      for (size_t list = 0; list < LISTS; ++list) {
        pointers[list] = lists[list][index].data_ptr<float>() + from;
      }
      body(pointers, std::min(kElements, lists[0][index].numel() - from));
    }
  });
}

// Whether its elements can be read one behind the other as floats.
bool is_plain(const at::Tensor& tensor) {
  return tensor.device().is_cpu() && tensor.scalar_type() == at::kFloat && tensor.is_contiguous();
}

}  // namespace

bool can_update(const UpdateLists& lists) {
  return std::all_of(lists.begin(), lists.end(), [](const auto& list) {
    return std::all_of(list.begin(), list.end(), is_plain);
  });
}

void update_sgd(const UpdateLists& lists, double factor, const SgdRule& rule) {
  const elements::Sgd sgd{
      static_cast<float>(rule.rate),
      static_cast<float>(rule.momentum),
      static_cast<float>(rule.decay)};
  const auto times = static_cast<float>(factor);
  each<3>(lists, [&](float* const* of, int64_t count) {
    run([&]() NRS_INLINED { sgd.update(count, times, of[1], of[0], of[2]); });
  });
}

void update_adamw(const UpdateLists& lists, double factor, const AdamWRule& rule) {
  const elements::AdamW adamw{
      static_cast<float>(rule.rate / (1.0 - std::pow(rule.beta1, rule.step))),
      static_cast<float>(1.0 - rule.rate * rule.decay),
      static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(rule.beta2, rule.step))),
      static_cast<float>(rule.epsilon),
      static_cast<float>(rule.beta1),
      static_cast<float>(1.0 - rule.beta1),
      static_cast<float>(rule.beta2),
      static_cast<float>(1.0 - rule.beta2)};
  const auto times = static_cast<float>(factor);
  each<4>(lists, [&](float* const* of, int64_t count) {
    run([&]() NRS_INLINED { adamw.update(count, times, of[1], of[0], of[2], of[3]); });
  });
}

double sum_floats(int64_t count, const std::vector<const float*>& addends, float* into) {
  double squares = 0.0;
  const auto how_many = static_cast<int64_t>(addends.size());
  run([&]() NRS_INLINED { squares = elements::sums(count, addends.data(), how_many, into); });
  return squares;
}

double sum_of_squares(const at::Tensor& tensor) {
  if (!is_plain(tensor)) {
    const double norm = at::linalg_vector_norm(tensor).item<double>();
    return norm * norm;
  }
  double squares = 0.0;
  run([&]() NRS_INLINED { squares = elements::squares(tensor.numel(), tensor.data_ptr<float>()); });
  return squares;
}

}  // namespace nrs
