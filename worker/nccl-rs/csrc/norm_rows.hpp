// Batch normalisation's arithmetic over rows of channels, as channels last lays a batch out.
#pragma once

#include "norm_kernels.hpp"

namespace nrs::norms {

struct Rows {
  // Rows that are taken together: sums are then loaded and stored once for all of them.
  static constexpr int64_t kRows = 4;

  template <class T, int64_t R>
  static NRS_INLINE void moments_of_rows(
      int64_t channels,
      const T* __restrict x,
      const float* __restrict shift,
      float* __restrict sum,
      float* __restrict squares) {
    for (int64_t c = 0; c < channels; ++c) {
      float s = 0.0f;
      float q = 0.0f;
      for (int64_t r = 0; r < R; ++r) {
        const float d = load(x[r * channels + c]) - shift[c];
        s += d;
        q += d * d;
      }
      sum[c] += s;
      squares[c] += q;
    }
  }

  // Adds each channel's `x - shift` and its square to `sum` and `squares`.
  template <class T>
  static NRS_INLINE void moments(
      Extent extent, const T* x, const float* shift, float* sum, float* squares) {
    const int64_t channels = extent.channels;
    int64_t row = 0;
    for (; row + kRows <= extent.rows; row += kRows) {
      moments_of_rows<T, kRows>(channels, x + row * channels, shift, sum, squares);
    }
    for (; row < extent.rows; ++row) {
      moments_of_rows<T, 1>(channels, x + row * channels, shift, sum, squares);
    }
  }

  // `y = x * scale + offset`, plus the row of `residual` if RESIDUAL, and 0 where that is below if RELU.
  template <bool RESIDUAL, bool RELU, class T>
  static NRS_INLINE void apply(
      Extent extent,
      const T* __restrict x,
      const T* __restrict residual,
      Channels channels,
      T* __restrict y) {
    const float* __restrict scale = channels.scale;
    const float* __restrict offset = channels.offset;
    for (int64_t row = 0; row < extent.rows; ++row) {
      const int64_t at = row * extent.channels;
      for (int64_t c = 0; c < extent.channels; ++c) {
        float value = load(x[at + c]) * scale[c] + offset[c];
        if (RESIDUAL) {
          value += load(residual[at + c]);
        }
        store(y[at + c], RELU ? relu_of(value) : value);
      }
    }
  }

  template <bool RELU, class T, int64_t R>
  static NRS_INLINE void gradient_sums_of_rows(
      int64_t width,
      const T* __restrict dy,
      const T* __restrict x,
      Channels channels,
      float* __restrict sum,
      float* __restrict products) {
    const float* __restrict mean = channels.mean;
    const float* __restrict scale = channels.scale;
    const float* __restrict offset = channels.offset;
    for (int64_t c = 0; c < width; ++c) {
      float s = 0.0f;
      float p = 0.0f;
      for (int64_t r = 0; r < R; ++r) {
        const float input = load(x[r * width + c]);
        float g = load(dy[r * width + c]);
        if (RELU) {
          g = let_pass(g, input * scale[c] + offset[c]);
        }
        s += g;
        p += g * (input - mean[c]);
      }
      sum[c] += s;
      products[c] += p;
    }
  }

  // Adds up for each channel the gradient, as far as it passes the ReLU over `x * scale + offset` if RELU, and its product
  // with `x - mean`. Where `y` is given it is the result of a ReLU instead, and the gradient goes through `passed`, a few
  // rows at a time so that they are still near.
  template <bool RELU, class T>
  static NRS_INLINE void gradient_sums(
      Extent extent,
      const T* dy,
      const T* x,
      const T* y,
      Channels channels,
      T* passed,
      float* sum,
      float* products) {
    const int64_t width = extent.channels;
    int64_t rows = kRows;
    for (int64_t row = 0; row < extent.rows; row += rows) {
      const int64_t at = row * width;
      rows = row + kRows <= extent.rows ? kRows : 1;
      const T* through = dy + at;
      if (y != nullptr) {
        pass(rows * width, dy + at, y + at, passed + at);
        through = passed + at;
      }
      if (rows == kRows) {
        gradient_sums_of_rows<RELU, T, kRows>(width, through, x + at, channels, sum, products);
      } else {
        gradient_sums_of_rows<RELU, T, 1>(width, through, x + at, channels, sum, products);
      }
    }
  }

  // `dx = scale * dy - (x - mean) * slope - level`, of what passes the ReLU over `x * scale + offset` if RELU.
  template <bool RELU, class T>
  static NRS_INLINE void gradient(
      Extent extent,
      const T* __restrict dy,
      const T* __restrict x,
      Channels channels,
      const float* __restrict slope,
      const float* __restrict level,
      T* __restrict dx) {
    const float* __restrict mean = channels.mean;
    const float* __restrict scale = channels.scale;
    const float* __restrict offset = channels.offset;
    for (int64_t row = 0; row < extent.rows; ++row) {
      const int64_t at = row * extent.channels;
      for (int64_t c = 0; c < extent.channels; ++c) {
        const float input = load(x[at + c]);
        float g = load(dy[at + c]);
        if (RELU) {
          g = let_pass(g, input * scale[c] + offset[c]);
        }
        store(dx[at + c], g * scale[c] - (input - mean[c]) * slope[c] - level[c]);
      }
    }
  }
};

}  // namespace nrs::norms
