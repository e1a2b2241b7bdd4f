// What the forms of batch normalisation's arithmetic have in common. Each knows one way in which a batch may lie in memory
// and has the same functions for it; a call does one stretch of a batch and knows nothing of tensors. Element types are
// float and bfloat16; sums and products are in float.
#pragma once

#include <cstdint>
#include <cstring>

#include "wide.hpp"

namespace nrs::norms {

// A stretch of a batch: `[rows, channels, width]` as it lies in memory, with a width of 1 where channels are last.
struct Extent {
  int64_t rows;
  int64_t channels;
  int64_t width;
};

// bfloat16 as memory has it.
struct Bfloat16 {
  uint16_t bits;
};

// Of each channel, `[channels]`: `y = x * scale + offset`, and what the gradient needs beside it.
struct Channels {
  const float* mean;
  const float* scale;
  const float* offset;
};

NRS_INLINE float load(const float& value) {
  return value;
}

NRS_INLINE float load(const Bfloat16& value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

NRS_INLINE void store(float& place, float value) {
  place = value;
}

// To the nearest, halves to even; what is no number stays none.
NRS_INLINE void store(Bfloat16& place, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  place.bits = static_cast<uint16_t>(value == value ? rounded : 0x7FC0u);
}

// Both keep what is no number, as libtorch's do.
NRS_INLINE float relu_of(float value) {
  return value < 0.0f ? 0.0f : value;
}

// `value <= 0 ? 0 : gradient`, by bits: compilers make jumps of the other form in longer loops.
NRS_INLINE float let_pass(float gradient, float value) {
  uint32_t bits;
  std::memcpy(&bits, &gradient, sizeof bits);
  bits &= static_cast<uint32_t>(value <= 0.0f) - 1u;
  std::memcpy(&gradient, &bits, sizeof bits);
  return gradient;
}

// `passed` is `dy` where a ReLU whose result was `y` let something pass, and 0 elsewhere.
template <class T>
NRS_INLINE void pass(
    int64_t count, const T* __restrict dy, const T* __restrict y, T* __restrict passed) {
  for (int64_t at = 0; at < count; ++at) {
    store(passed[at], let_pass(load(dy[at]), load(y[at])));
  }
}

}  // namespace nrs::norms
