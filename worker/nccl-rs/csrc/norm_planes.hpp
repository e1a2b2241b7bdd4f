// Batch normalisation's arithmetic over planes, one a channel of each sample, as a contiguous batch lies.
#pragma once

#include <algorithm>

#include "norm_kernels.hpp"

namespace nrs::norms {

struct Planes {
  // Partial sums, so that vectors of them are added: too many for a compiler to write a loop over them out.
  static constexpr int64_t kLanes = 32;
  // Elements of a lane that are taken together, as rows are.
  static constexpr int64_t kTogether = 4;

  // Calls `body(channel, place)` with the place of each plane.
  template <class F>
  static NRS_INLINE void each(Extent extent, const F& body) {
    for (int64_t row = 0; row < extent.rows; ++row) {
      for (int64_t c = 0; c < extent.channels; ++c) {
        body(c, (row * extent.channels + c) * extent.width);
      }
    }
  }

  // The sum of so many lanes.
  template <int64_t COUNT>
  static NRS_INLINE float fold(float* lanes) {
    for (int64_t lane = 0; lane < COUNT / 2; ++lane) {
      lanes[lane] += lanes[lane + COUNT / 2];
    }
    if constexpr (COUNT > 2) {
      return fold<COUNT / 2>(lanes);
    }
    return lanes[0];
  }

  // Adds to both sums of each channel what `body(channel, place, sum, sum)` adds for each element of its planes. `before` is
  // called with the place of each plane first.
  template <class Before, class F>
  static NRS_INLINE void add_up(
      Extent extent, float* sums, float* others, const Before& before, const F& body) {
    const int64_t width = extent.width;
    for (int64_t c = 0; c < extent.channels; ++c) {
      float own[kLanes] = {};
      float other[kLanes] = {};
      for (int64_t row = 0; row < extent.rows; ++row) {
        const int64_t place = (row * extent.channels + c) * width;
        before(place);
        int64_t at = 0;
        for (; at + kTogether * kLanes <= width; at += kTogether * kLanes) {
          for (int64_t lane = 0; lane < kLanes; ++lane) {
            float s = 0.0f;
            float o = 0.0f;
            for (int64_t n = 0; n < kTogether; ++n) {
              body(c, place + at + n * kLanes + lane, s, o);
            }
            own[lane] += s;
            other[lane] += o;
          }
        }
        for (; at < width; at += kLanes) {
          const int64_t lanes = std::min(kLanes, width - at);
          for (int64_t lane = 0; lane < lanes; ++lane) {
            body(c, place + at + lane, own[lane], other[lane]);
          }
        }
      }
      sums[c] += fold<kLanes>(own);
      others[c] += fold<kLanes>(other);
    }
  }

  // Adds each channel's `x - shift` and its square to `sum` and `squares`.
  template <class T>
  static NRS_INLINE void moments(
      Extent extent, const T* x, const float* shift, float* sum, float* squares) {
    const auto nothing = [](int64_t) NRS_INLINED {};
    add_up(extent, sum, squares, nothing, [&](int64_t c, int64_t at, float& s, float& q) NRS_INLINED {
      const float d = load(x[at]) - shift[c];
      s += d;
      q += d * d;
    });
  }

  // `y = x * scale + offset`, plus `residual` if RESIDUAL, and 0 where that is below if RELU.
  template <bool RESIDUAL, bool RELU, class T>
  static NRS_INLINE void apply(
      Extent extent, const T* x, const T* residual, Channels channels, T* y) {
    each(extent, [&](int64_t c, int64_t place) NRS_INLINED {
      const T* __restrict own = x + place;
      const T* __restrict added = residual + place;
      T* __restrict out = y + place;
      const float scale = channels.scale[c];
      const float offset = channels.offset[c];
      for (int64_t at = 0; at < extent.width; ++at) {
        float value = load(own[at]) * scale + offset;
        if (RESIDUAL) {
          value += load(added[at]);
        }
        store(out[at], RELU ? relu_of(value) : value);
      }
    });
  }

  // Adds up for each channel the gradient, as far as it passes the ReLU over `x * scale + offset` if RELU, and its product
  // with `x - mean`. Where `y` is given it is the result of a ReLU instead, and the gradient goes through `passed`.
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
    const T* const through = y == nullptr ? dy : passed;
    const auto before = [&](int64_t place) NRS_INLINED {
      if (y != nullptr) {
        pass(extent.width, dy + place, y + place, passed + place);
      }
    };
    add_up(extent, sum, products, before, [&](int64_t c, int64_t at, float& s, float& p) NRS_INLINED {
      const float input = load(x[at]);
      float g = load(through[at]);
      if (RELU) {
        g = let_pass(g, input * channels.scale[c] + channels.offset[c]);
      }
      s += g;
      p += g * (input - channels.mean[c]);
    });
  }

  // `dx = scale * dy - (x - mean) * slope - level`, of what passes the ReLU over `x * scale + offset` if RELU.
  template <bool RELU, class T>
  static NRS_INLINE void gradient(
      Extent extent,
      const T* dy,
      const T* x,
      Channels channels,
      const float* slopes,
      const float* levels,
      T* dx) {
    each(extent, [&](int64_t c, int64_t place) NRS_INLINED {
      const T* __restrict through = dy + place;
      const T* __restrict own = x + place;
      T* __restrict out = dx + place;
      const float mean = channels.mean[c];
      const float scale = channels.scale[c];
      const float offset = channels.offset[c];
      const float slope = slopes[c];
      const float level = levels[c];
      for (int64_t at = 0; at < extent.width; ++at) {
        const float input = load(own[at]);
        float g = load(through[at]);
        if (RELU) {
          g = let_pass(g, input * scale + offset);
        }
        store(out[at], g * scale - (input - mean) * slope - level);
      }
    });
  }
};

}  // namespace nrs::norms
