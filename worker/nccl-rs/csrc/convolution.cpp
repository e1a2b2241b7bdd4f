#include "convolution.hpp"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace nrs {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// What is convolved with what. A patch is what one output pixel sees of `x`: `[C, k, k]`, as weights are.
struct Shape {
  Shape(at::IntArrayRef x, at::IntArrayRef weight, int64_t stride, int64_t padding, bool planar)
      : batch(x[0]),
        channels(x[1]),
        height(x[2]),
        width(x[3]),
        outputs(weight[0]),
        kernel(weight[2]),
        stride(stride),
        padding(padding),
        out_height((height + 2 * padding - kernel) / stride + 1),
        out_width((width + 2 * padding - kernel) / stride + 1),
        planar(planar) {}

  int64_t window() const {
    return kernel * kernel;
  }
  int64_t patch() const {
    return channels * window();
  }
  // Output pixels of a picture, and of the batch.
  int64_t places() const {
    return out_height * out_width;
  }
  int64_t pixels() const {
    return batch * places();
  }
  // Whether a batch of channels last is a matrix of patches already.
  bool is_matrix() const {
    return !planar && kernel == 1 && stride == 1 && padding == 0;
  }

  // Calls `body(place, input place)` for each output pixel of a picture whose window has, at a row and column of
  // the kernel, a pixel of the picture.
  template <class F>
  void each(int64_t row, int64_t column, const F& body) const {
    for (int64_t y = 0; y < out_height; ++y) {
      const int64_t from_y = y * stride - padding + row;
      if (from_y < 0 || from_y >= height) {
        continue;
      }
      for (int64_t x = 0; x < out_width; ++x) {
        const int64_t from_x = x * stride - padding + column;
        if (from_x >= 0 && from_x < width) {
          body(y * out_width + x, from_y * width + from_x);
        }
      }
    }
  }

  int64_t batch, channels, height, width, outputs, kernel, stride, padding, out_height, out_width;
  // Contiguous, and not channels last.
  bool planar;
};

// Whether a product is faster, by what both have to move: oneDNN the weights, the product the patches. Measured with MKL's
// products on processors with AVX-512, see ADR 0017.
bool is_faster(const Shape& shape) {
  if (shape.kernel == 1) {
    const int64_t moved = shape.pixels() * (shape.channels + shape.outputs);
    return 4 * shape.channels * shape.outputs >= moved;
  }
  return 2 * shape.outputs >= 3 * shape.pixels();
}

// Calls `body(channel, row, column, place in a patch)` for every weight of an output, on as many threads as libtorch has.
template <class F>
void each_weight(const Shape& shape, const F& body) {
  at::parallel_for(0, shape.channels, 16, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t row = 0; row < shape.kernel; ++row) {
        for (int64_t column = 0; column < shape.kernel; ++column) {
          body(c, row, column, (c * shape.kernel + row) * shape.kernel + column);
        }
      }
    }
  });
}

// `[patch, pixels]` of planes.
at::Tensor patches_of_planes(const Shape& shape, const at::Tensor& x) {
  const auto patches = at::zeros({shape.patch(), shape.pixels()}, x.options());
  const float* const from = x.data_ptr<float>();
  float* const to = patches.data_ptr<float>();
  each_weight(shape, [&](int64_t c, int64_t row, int64_t column, int64_t weight) {
    for (int64_t b = 0; b < shape.batch; ++b) {
      const float* const plane = from + (b * shape.channels + c) * shape.height * shape.width;
      float* const pixels = to + weight * shape.pixels() + b * shape.places();
      shape.each(row, column, [&](int64_t place, int64_t input) { pixels[place] = plane[input]; });
    }
  });
  return patches;
}

// The gradient of `x` by that of its patches.
at::Tensor planes_of_patches(const Shape& shape, const at::Tensor& patches) {
  const auto x =
      at::zeros({shape.batch, shape.channels, shape.height, shape.width}, patches.options());
  const float* const from = patches.data_ptr<float>();
  float* const to = x.data_ptr<float>();
  each_weight(shape, [&](int64_t c, int64_t row, int64_t column, int64_t weight) {
    for (int64_t b = 0; b < shape.batch; ++b) {
      float* const plane = to + (b * shape.channels + c) * shape.height * shape.width;
      const float* const pixels = from + weight * shape.pixels() + b * shape.places();
      shape.each(row, column, [&](int64_t place, int64_t input) { plane[input] += pixels[place]; });
    }
  });
  return x;
}

// Calls `body(first pixel of the picture, window, place of the patch)` for every output pixel, where a window lists the places
// in the picture that the pixel sees, -1 beside it.
template <class F>
void each_patch(const Shape& shape, const F& body) {
  std::vector<int64_t> windows(shape.places() * shape.window(), -1);
  for (int64_t row = 0; row < shape.kernel; ++row) {
    for (int64_t column = 0; column < shape.kernel; ++column) {
      const int64_t at = row * shape.kernel + column;
      shape.each(row, column, [&](int64_t place, int64_t input) {
        windows[place * shape.window() + at] = input;
      });
    }
  }
  at::parallel_for(0, shape.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t pixel = begin * shape.places(); pixel < end * shape.places(); ++pixel) {
      const int64_t picture = pixel / shape.places() * shape.height * shape.width;
      body(picture, windows.data() + pixel % shape.places() * shape.window(), pixel * shape.patch());
    }
  });
}

// `[pixels, patch]` of channels last.
at::Tensor patches_of_rows(const Shape& shape, const at::Tensor& x) {
  const auto patches = at::empty({shape.pixels(), shape.patch()}, x.options());
  const std::vector<float> nothing(shape.channels, 0.0f);
  const float* const from = x.data_ptr<float>();
  float* const to = patches.data_ptr<float>();
  each_patch(shape, [&](int64_t picture, const int64_t* window, int64_t patch) {
    for (int64_t at = 0; at < shape.window(); ++at) {
      const float* const row =
          window[at] < 0 ? nothing.data() : from + (picture + window[at]) * shape.channels;
      float* const out = to + patch + at;
      for (int64_t c = 0; c < shape.channels; ++c) {
        out[c * shape.window()] = row[c];
      }
    }
  });
  return patches;
}

at::Tensor rows_of_patches(const Shape& shape, const at::Tensor& patches) {
  const auto rows =
      at::zeros({shape.batch, shape.height, shape.width, shape.channels}, patches.options());
  const float* const from = patches.data_ptr<float>();
  float* const to = rows.data_ptr<float>();
  each_patch(shape, [&](int64_t picture, const int64_t* window, int64_t patch) {
    for (int64_t at = 0; at < shape.window(); ++at) {
      if (window[at] < 0) {
        continue;
      }
      float* const row = to + (picture + window[at]) * shape.channels;
      const float* const in = from + patch + at;
      for (int64_t c = 0; c < shape.channels; ++c) {
        row[c] += in[c * shape.window()];
      }
    }
  });
  return rows.permute({0, 3, 1, 2});
}

class Convolution final : public torch::autograd::Function<Convolution> {
 public:
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& x,
      const at::Tensor& weight,
      int64_t stride,
      int64_t padding,
      bool planar) {
    const Shape shape(x.sizes(), weight.sizes(), stride, padding, planar);
    const auto kernels = weight.view({shape.outputs, shape.patch()});
    const auto patches = planar ? patches_of_planes(shape, x)
        : shape.is_matrix()     ? x.permute({0, 2, 3, 1}).view({shape.pixels(), shape.channels})
                                : patches_of_rows(shape, x);
    context->save_for_backward({patches, weight});
    context->saved_data["shape"] = x.sizes().vec();
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    context->saved_data["planar"] = planar;
    const std::array<int64_t, 2> size{shape.out_height, shape.out_width};
    if (planar) {
      const auto y = at::mm(kernels, patches).view({shape.outputs, shape.batch, size[0], size[1]});
      return y.transpose(0, 1).contiguous();
    }
    const auto y = at::mm(patches, kernels.t());
    return y.view({shape.batch, size[0], size[1], shape.outputs}).permute({0, 3, 1, 2});
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "a convolution as a product has no gradients of gradients");
    const auto saved = context->get_saved_variables();
    const auto &patches = saved[0], &weight = saved[1];
    const bool planar = context->saved_data["planar"].toBool();
    const auto size = context->saved_data["shape"].toIntVector();
    const Shape shape(
        size,
        weight.sizes(),
        context->saved_data["stride"].toInt(),
        context->saved_data["padding"].toInt(),
        planar);
    const auto kernels = weight.view({shape.outputs, shape.patch()});
    const bool of_weight = context->needs_input_grad(1), of_x = context->needs_input_grad(0);
    const at::Tensor none;
    at::Tensor dw, dx;
    if (planar) {
      const auto dy = gradients[0].transpose(0, 1).reshape({shape.outputs, shape.pixels()});
      dw = of_weight ? at::mm(dy, patches.t()).view(weight.sizes()) : none;
      dx = of_x ? planes_of_patches(shape, at::mm(kernels.t(), dy)) : none;
    } else {
      const auto dy = gradients[0].permute({0, 2, 3, 1}).reshape({shape.pixels(), shape.outputs});
      dw = of_weight ? at::mm(dy.t(), patches).view(weight.sizes()) : none;
      if (of_x) {
        const auto of_patches = at::mm(dy, kernels);
        dx = shape.is_matrix()
            ? of_patches.view({size[0], size[2], size[3], size[1]}).permute({0, 3, 1, 2})
            : rows_of_patches(shape, of_patches);
      }
    }
    return {dx, dw, none, none, none};
  }
};

}  // namespace

at::Tensor convolution(
    const at::Tensor& x, const at::Tensor& weight, int64_t stride, int64_t padding) {
  TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && x.size(1) == weight.size(1) &&
          weight.size(2) == weight.size(3) && stride > 0 && padding >= 0 &&
          x.size(2) + 2 * padding >= weight.size(2) && x.size(3) + 2 * padding >= weight.size(3),
      "a batch of ", x.sizes(), " cannot be convolved with ", weight.sizes());
  const bool last = x.is_contiguous(at::MemoryFormat::ChannelsLast);
  const bool lies = (last || x.is_contiguous()) && weight.is_contiguous();
  if (!lies || x.numel() == 0 || !x.device().is_cpu() || !weight.device().is_cpu() ||
      x.scalar_type() != at::kFloat || weight.scalar_type() != at::kFloat) {
    return {};
  }
  const bool planar = !last;
  if (!is_faster(Shape(x.sizes(), weight.sizes(), stride, padding, planar))) {
    return {};
  }
  return Convolution::apply(x, weight, stride, padding, planar);
}

}  // namespace nrs
