// The micro-batches that share a pass, one behind the other along its samples.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

namespace nrs {

// Refuses sizes that are not those of so many samples.
inline void require_micro_batches(at::IntArrayRef sizes, int64_t samples) {
  // Each first: sizes that are none could add up to anything.
  const auto possible = [&](int64_t size) { return size > 0 && size <= samples; };
  TORCH_CHECK(std::all_of(sizes.begin(), sizes.end(), possible) &&
          std::accumulate(sizes.begin(), sizes.end(), int64_t{0}) == samples,
      "micro-batches of ", sizes, " samples do not make up ", samples);
}

// Calls `body(first, size)` for each of them.
template <class F>
void each_micro_batch(at::IntArrayRef sizes, const F& body) {
  int64_t first = 0;
  for (const int64_t size : sizes) {
    body(first, size);
    first += size;
  }
}

}  // namespace nrs
