#include "convolution.hpp"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "gradient_places.hpp"
#include "micro_batches.hpp"

namespace nrs {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// What is convolved with what. A patch is what one output pixel sees of a picture: `[C, k, k]`, as weights are.
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
  // Output pixels of a picture.
  int64_t places() const {
    return out_height * out_width;
  }
  // From one to the next in memory.
  int64_t pixel_stride() const {
    return planar ? 1 : channels;
  }
  int64_t channel_stride() const {
    return planar ? height * width : 1;
  }
  // Whether a batch is a matrix of patches as it lies.
  bool is_matrix() const {
    return !planar && kernel == 1 && stride == 1 && padding == 0;
  }

  int64_t batch, channels, height, width, outputs, kernel, stride, padding, out_height, out_width;
  // Contiguous, and not channels last too, as what has one channel or one pixel is.
  bool planar;
};

// Whether products are faster, by what both have to move: oneDNN weights, products patches. Of planes several
// micro-batches share a pass, and each reads the weights again. Measured with MKL's products, see ADR 0017.
bool is_faster(const Shape& shape, int64_t micro_batch) {
  const int64_t pixels = micro_batch * shape.places();
  if (shape.planar) {
    return shape.outputs >= 8 * pixels;
  }
  if (shape.kernel == 1) {
    const int64_t moved = pixels * (shape.channels + shape.outputs);
    return 4 * shape.channels * shape.outputs >= moved;
  }
  return 2 * shape.outputs >= 3 * pixels;
}

// The places, in a picture's memory, of what each output pixel of a picture sees, `[places, window]`: -1 beside it.
std::vector<int64_t> windows_of(const Shape& shape) {
  std::vector<int64_t> windows;
  for (int64_t place = 0; place < shape.places(); ++place) {
    const int64_t top = place / shape.out_width * shape.stride - shape.padding;
    const int64_t left = place % shape.out_width * shape.stride - shape.padding;
    for (int64_t at = 0; at < shape.window(); ++at) {
      const int64_t y = top + at / shape.kernel;
      const int64_t x = left + at % shape.kernel;
      const bool inside = y >= 0 && y < shape.height && x >= 0 && x < shape.width;
      windows.push_back(inside ? (y * shape.width + x) * shape.pixel_stride() : -1);
    }
  }
  return windows;
}

// Calls `body(pixel, element)` for every element of a batch's patches, `[pixels, patch]`, with the pixel of the batch that it
// is, or null beside the picture; on as many threads as libtorch has.
template <class Pixel, class Element, class F>
void each_element(const Shape& shape, Pixel* batch, Element* patches, const F& body) {
  const auto windows = windows_of(shape);
  at::parallel_for(0, shape.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      Pixel* const picture = batch + b * shape.channels * shape.height * shape.width;
      Element* element = patches + b * shape.places() * shape.patch();
      for (int64_t place = 0; place < shape.places(); ++place) {
        const int64_t* const window = windows.data() + place * shape.window();
        for (int64_t c = 0; c < shape.channels; ++c) {
          Pixel* const channel = picture + c * shape.channel_stride();
          for (int64_t at = 0; at < shape.window(); ++at) {
            body(window[at] < 0 ? nullptr : channel + window[at], *element++);
          }
        }
      }
    }
  });
}

// `[pixels, patch]` of a batch ("im2col").
at::Tensor patches_of(const Shape& shape, const at::Tensor& x) {
  const auto patches = at::empty({shape.batch * shape.places(), shape.patch()}, x.options());
  each_element(
      shape,
      static_cast<const float*>(x.data_ptr<float>()),
      patches.data_ptr<float>(),
      [](const float* pixel, float& element) { element = pixel == nullptr ? 0.0f : *pixel; });
  return patches;
}

// Adds the gradient of a batch's patches to that of the batch ("col2im").
void add_patches(const Shape& shape, const at::Tensor& patches, const at::Tensor& x) {
  each_element(
      shape,
      x.data_ptr<float>(),
      static_cast<const float*>(patches.data_ptr<float>()),
      [](float* pixel, const float& element) {
        if (pixel != nullptr) {
          *pixel += element;
        }
      });
}

// A batch `[B, C, H, W]` as rows `[B * H * W, C]`: of channels last a view.
at::Tensor rows_of(const at::Tensor& batch) {
  return batch.permute({0, 2, 3, 1}).reshape({-1, batch.size(1)});
}

at::Tensor empty_batch(const Shape& shape, at::IntArrayRef size, const at::TensorOptions& options) {
  const auto format = shape.planar ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast;
  return at::empty(size, options.memory_format(format));
}

// The product of rows with a matrix, micro-batch by micro-batch: what becomes of one depends on no other, not even in the
// last bit, which would be so of one product of all.
at::Tensor product(
    const at::Tensor& rows,
    const at::Tensor& matrix,
    at::IntArrayRef sizes,
    int64_t places,
    at::Tensor out) {
  each_micro_batch(sizes, [&](int64_t first, int64_t size) {
    auto part = out.narrow(0, first * places, size * places);
    at::mm_out(part, rows.narrow(0, first * places, size * places), matrix);
  });
  return out;
}

at::Tensor product(
    const at::Tensor& rows, const at::Tensor& matrix, at::IntArrayRef sizes, int64_t places) {
  return product(
      rows, matrix, sizes, places, at::empty({rows.size(0), matrix.size(1)}, rows.options()));
}

// The same into a batch of this size.
at::Tensor product_as_batch(
    const Shape& shape,
    const at::Tensor& rows,
    const at::Tensor& matrix,
    at::IntArrayRef sizes,
    at::IntArrayRef size) {
  auto batch = empty_batch(shape, size, rows.options());
  if (shape.planar) {
    const auto found = product(rows, matrix, sizes, shape.places());
    batch.copy_(found.view({size[0], size[2], size[3], size[1]}).permute({0, 3, 1, 2}));
  } else {
    product(rows, matrix, sizes, shape.places(), batch.permute({0, 2, 3, 1}).view({-1, size[1]}));
  }
  return batch;
}

class Convolution final : public torch::autograd::Function<Convolution> {
 public:
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& x,
      const at::Tensor& weight,
      int64_t stride,
      int64_t padding,
      at::IntArrayRef sizes,
      bool planar) {
    const Shape shape(x.sizes(), weight.sizes(), stride, padding, planar);
    const auto patches = shape.is_matrix() ? rows_of(x) : patches_of(shape, x);
    context->save_for_backward({patches, weight});
    context->saved_data["shape"] = x.sizes().vec();
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    context->saved_data["sizes"] = sizes.vec();
    context->saved_data["planar"] = planar;
    const auto kernels = weight.view({shape.outputs, shape.patch()});
    return product_as_batch(
        shape,
        patches,
        kernels.t(),
        sizes,
        {shape.batch, shape.outputs, shape.out_height, shape.out_width});
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "a convolution by products has no gradients of gradients");
    const auto saved = context->get_saved_variables();
    const auto &patches = saved[0], &weight = saved[1];
    const bool planar = context->saved_data["planar"].toBool();
    const auto size = context->saved_data["shape"].toIntVector();
    const auto sizes = context->saved_data["sizes"].toIntVector();
    const int64_t stride = context->saved_data["stride"].toInt();
    const Shape shape(
        size, weight.sizes(), stride, context->saved_data["padding"].toInt(), planar);
    const auto dy = rows_of(gradients[0]);
    at::Tensor dx, dw;
    if (context->needs_input_grad(1)) {
      dw = GradientPlaces::add(
          weight, {shape.outputs, shape.patch()}, [&](const at::Tensor& sum, double beta) {
            sum.addmm_(dy.t(), patches, beta);
          });
    }
    if (context->needs_input_grad(0)) {
      const auto kernels = weight.view({shape.outputs, shape.patch()});
      if (shape.is_matrix()) {
        dx = product_as_batch(shape, dy, kernels, sizes, size);
      } else {
        dx = empty_batch(shape, size, dy.options()).zero_();
        add_patches(shape, product(dy, kernels, sizes, shape.places()), dx);
      }
    }
    const at::Tensor none;
    return {dx, dw, none, none, none, none};
  }
};

}  // namespace

at::Tensor convolution(
    const at::Tensor& x,
    const at::Tensor& weight,
    int64_t stride,
    int64_t padding,
    at::IntArrayRef sizes) {
  TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && x.size(1) == weight.size(1) &&
          weight.size(2) == weight.size(3) && stride > 0 && padding >= 0 &&
          x.size(2) + 2 * padding >= weight.size(2) && x.size(3) + 2 * padding >= weight.size(3),
      "a batch of ", x.sizes(), " cannot be convolved with ", weight.sizes());
  require_micro_batches(sizes, x.size(0));
  const bool last = x.is_contiguous(at::MemoryFormat::ChannelsLast);
  const bool lies = (last || x.is_contiguous()) && weight.is_contiguous();
  if (!lies || x.numel() == 0 || !x.device().is_cpu() || !weight.device().is_cpu() ||
      x.scalar_type() != at::kFloat || weight.scalar_type() != at::kFloat) {
    return {};
  }
  const Shape shape(x.sizes(), weight.sizes(), stride, padding, !last);
  if (!is_faster(shape, *std::max_element(sizes.begin(), sizes.end()))) {
    return {};
  }
  return Convolution::apply(x, weight, stride, padding, sizes, !last);
}

}  // namespace nrs
