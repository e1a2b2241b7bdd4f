// The arithmetic of sums of gradients and of optimizers' updates, over stretches of float elements. What becomes of an
// element does not depend on where in a stretch it lies: loops differ in nothing but how many they take at a time, and are
// compiled so that no product is fused with a sum.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "wide.hpp"

namespace nrs::elements {

// Elements that stay in the nearest cache.
constexpr int64_t kNear = 2048;

// Partial sums of squares, so that vectors of them are added.
constexpr int64_t kLanes = 16;

// In double: squares of floats are exact there, and do not overflow.
NRS_INLINE double squares(int64_t count, const float* __restrict values) {
  double lanes[kLanes] = {};
  int64_t at = 0;
  for (; at + kLanes <= count; at += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const double value = values[at + lane];
      lanes[lane] += value * value;
    }
  }
  for (; at < count; ++at) {
    const double value = values[at];
    lanes[at % kLanes] += value * value;
  }
  double sum = 0.0;
  for (const double lane : lanes) {
    sum += lane;
  }
  return sum;
}

// Puts the sums of `addends`, at least two, in their order, and answers the sum of their squares.
NRS_INLINE double sums(
    int64_t count, const float* const* addends, int64_t how_many, float* __restrict into) {
  double of_squares = 0.0;
  for (int64_t from = 0; from < count; from += kNear) {
    const int64_t length = std::min(kNear, count - from);
    float* __restrict out = into + from;
    const float* __restrict first = addends[0] + from;
    const float* __restrict second = addends[1] + from;
    for (int64_t at = 0; at < length; ++at) {
      out[at] = first[at] + second[at];
    }
    for (int64_t addend = 2; addend < how_many; ++addend) {
      const float* __restrict more = addends[addend] + from;
      for (int64_t at = 0; at < length; ++at) {
        out[at] += more[at];
      }
    }
    of_squares += squares(length, out);
  }
  return of_squares;
}

// As `torch.optim.SGD` without dampening: `buffer = momentum * buffer + (gradient + decay * value)`,
// `value -= rate * buffer`.
struct Sgd {
  float rate;
  float momentum;
  float decay;

  NRS_INLINE void update(
      int64_t count,
      float factor,
      const float* __restrict gradients,
      float* __restrict values,
      float* __restrict buffers) const {
    for (int64_t at = 0; at < count; ++at) {
      const float value = values[at];
      const float gradient = gradients[at] * factor + decay * value;
      const float buffer = momentum * buffers[at] + gradient;
      buffers[at] = buffer;
      values[at] = value - rate * buffer;
    }
  }
};

// As `torch.optim.AdamW`, with what is the same for all elements beforehand: `kept = 1 - rate * decay`,
// `rate = rate / (1 - beta1^step)`, `root = 1 / sqrt(1 - beta2^step)`.
struct AdamW {
  float rate;
  float kept;
  float root;
  float epsilon;
  float beta1;
  float rest1;  // 1 - beta1, as rounded once
  float beta2;
  float rest2;

  NRS_INLINE void update(
      int64_t count,
      float factor,
      const float* __restrict gradients,
      float* __restrict values,
      float* __restrict means,
      float* __restrict squares) const {
    for (int64_t at = 0; at < count; ++at) {
      const float gradient = gradients[at] * factor;
      const float mean = beta1 * means[at] + rest1 * gradient;
      const float square = beta2 * squares[at] + rest2 * gradient * gradient;
      means[at] = mean;
      squares[at] = square;
      values[at] = values[at] * kept - rate * mean / (std::sqrt(square) * root + epsilon);
    }
  }
};

}  // namespace nrs::elements
