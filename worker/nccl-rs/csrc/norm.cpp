#include "norm.hpp"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "micro_batches.hpp"
#include "norm_planes.hpp"
#include "norm_rows.hpp"
#include "wide.hpp"

namespace nrs {
namespace {

using norms::Bfloat16;
using norms::Channels;
using norms::Extent;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// A stretch of one group: small enough to stay near, and to be added up in float; more groups make no other sums,
// whatever the number of threads.
struct Stretch {
  int64_t group;
  int64_t place;  // of its first element
  Extent extent;
};

constexpr int64_t kElements = 1 << 16;

// Elements of a channel of a group, spread evenly, of which about its mean is made.
constexpr int64_t kTaken = 16;

// Of each group: what normalises it, `[C]` each.
enum Row : int64_t { kMean, kScale, kOffset, kInverse, kSlope, kLevel, kRowsOfStatistics };

// Whether a batch lies plane by plane, and not with channels last.
bool is_planar(const at::Tensor& x) {
  return !x.is_contiguous(at::MemoryFormat::ChannelsLast);
}

at::MemoryFormat format_of(const at::Tensor& x) {
  return is_planar(x) ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast;
}

// A batch, cut into stretches.
struct Batch {
  Batch(const at::Tensor& x, at::IntArrayRef sizes)
      : channels(x.size(1)), width(is_planar(x) ? x.size(2) * x.size(3) : 1) {
    const int64_t row = channels * width;
    const int64_t most = std::clamp<int64_t>(kElements / row, width > 1 ? 1 : 16, 512);
    const int64_t rows_of_sample = x.size(2) * x.size(3) / width;
    int64_t first = 0;
    for (size_t group = 0; group < sizes.size(); ++group) {
      const int64_t end = first + sizes[group] * rows_of_sample;
      counts.push_back((end - first) * width);
      for (; first < end; first += std::min(most, end - first)) {
        const Extent extent{std::min(most, end - first), channels, width};
        stretches.push_back({static_cast<int64_t>(group), first * row, extent});
      }
    }
  }

  // Two sums a channel over each stretch, added up in their order by `take(group, channel, sum, sum)`.
  template <class Sum, class Take>
  void sums(const Sum& sum, const Take& take) const {
    const auto partial = at::zeros({count(), 2, channels}, at::kFloat);
    float* const sums = partial.data_ptr<float>();
    each([&](const Stretch& stretch, int64_t index) {
      float* const own = sums + index * 2 * channels;
      sum(stretch, own, own + channels);
    });
    std::vector<double> total(counts.size() * 2 * channels);
    for (int64_t index = 0; index < count(); ++index) {
      double* const of_group = total.data() + stretches[index].group * 2 * channels;
      for (int64_t c = 0; c < 2 * channels; ++c) {
        of_group[c] += sums[index * 2 * channels + c];
      }
    }
    for (size_t group = 0; group < counts.size(); ++group) {
      const double* const of_group = total.data() + group * 2 * channels;
      for (int64_t c = 0; c < channels; ++c) {
        take(group, c, of_group[c], of_group[channels + c]);
      }
    }
  }

  // Calls `body(stretch, index)` for each, on as many threads as libtorch has.
  template <class F>
  void each(const F& body) const {
    at::parallel_for(0, count(), 1, [&](int64_t from, int64_t to) {
      for (int64_t index = from; index < to; ++index) {
        body(stretches[index], index);
      }
    });
  }

  int64_t count() const {
    return static_cast<int64_t>(stretches.size());
  }

  int64_t channels;
  int64_t width;
  // Elements of a channel in each group.
  std::vector<int64_t> counts;
  std::vector<Stretch> stretches;
};

template <class T>
T* data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.defined() ? tensor.data_ptr() : nullptr);
}

// `[groups, kRowsOfStatistics, C]`.
struct Statistics {
  explicit Statistics(const at::Tensor& tensor)
      : values(tensor.data_ptr<float>()), channels(tensor.size(2)) {}

  float* row(size_t group, Row row) const {
    return values + (static_cast<int64_t>(group) * kRowsOfStatistics + row) * channels;
  }

  Channels of(int64_t group) const {
    return {row(group, kMean), row(group, kScale), row(group, kOffset)};
  }

  float* values;
  int64_t channels;
};

template <class Layout, class T>
void forward(
    const Batch& batch,
    const at::Tensor& x,
    const at::Tensor& residual,
    const Statistics& statistics,
    const at::Tensor& weight,
    const at::Tensor& bias,
    const at::Tensor& means,
    const at::Tensor& variances,
    double epsilon,
    bool relu,
    const at::Tensor& y) {
  const int64_t channels = batch.channels;
  const T* const from = data<T>(x);
  // Squares of differences to about the mean lose little where that is far from 0. One value alone may lie far from it.
  const T* own = from;
  for (size_t group = 0; group < batch.counts.size(); ++group) {
    const int64_t count = batch.counts[group];
    const int64_t taken = std::min(count, kTaken);
    float* const about = statistics.row(group, kMean);
    std::fill_n(about, channels, 0.0f);
    for (int64_t n = 0; n < taken; ++n) {
      const int64_t at = n * count / taken;
      const T* const place = own + at / batch.width * batch.width * channels + at % batch.width;
      for (int64_t c = 0; c < channels; ++c) {
        about[c] += norms::load(place[c * batch.width]) / static_cast<float>(taken);
      }
    }
    own += count * channels;
  }
  auto mean = means.accessor<float, 2>();
  auto variance = variances.accessor<float, 2>();
  const float* const gamma = data<float>(weight);
  const float* const beta = data<float>(bias);
  batch.sums(
      [&](const Stretch& stretch, float* sum, float* squares) {
        const T* const own = from + stretch.place;
        const float* const shift = statistics.row(stretch.group, kMean);
        run([&]() NRS_INLINED { Layout::moments(stretch.extent, own, shift, sum, squares); });
      },
      [&](size_t group, int64_t c, double sum, double squares) {
        const auto count = static_cast<double>(batch.counts[group]);
        const double centre = statistics.row(group, kMean)[c] + sum / count;
        const double own = (squares - sum * sum / count) / count;
        const double spread = own < 0.0 ? 0.0 : own;
        const double inverse = 1.0 / std::sqrt(spread + epsilon);
        const double scale = gamma[c] * inverse;
        mean[group][c] = static_cast<float>(centre);
        variance[group][c] = static_cast<float>(spread * count / (count - 1.0));
        statistics.row(group, kMean)[c] = static_cast<float>(centre);
        statistics.row(group, kInverse)[c] = static_cast<float>(inverse);
        statistics.row(group, kScale)[c] = static_cast<float>(scale);
        statistics.row(group, kOffset)[c] = static_cast<float>(beta[c] - centre * scale);
      });
  batch.each([&](const Stretch& stretch, int64_t) {
    const int64_t at = stretch.place;
    const Channels of = statistics.of(stretch.group);
    const Extent extent = stretch.extent;
    T* const to = data<T>(y) + at;
    const T* const own = from + at;
    if (residual.defined()) {
      const T* const other = data<T>(residual) + at;
      run([&]() NRS_INLINED { Layout::template apply<true, true>(extent, own, other, of, to); });
    } else {
      run([&]() NRS_INLINED {
        relu ? Layout::template apply<false, true>(extent, own, own, of, to)
             : Layout::template apply<false, false>(extent, own, own, of, to);
      });
    }
  });
}

// `y` is defined where a residual was added; then `passed` is what passes it, and with that the residual's
// gradient.
template <class Layout, class T>
void backward(
    const Batch& batch,
    const at::Tensor& dy,
    const at::Tensor& x,
    const at::Tensor& y,
    const Statistics& statistics,
    bool relu,
    const at::Tensor& passed,
    const at::Tensor& of_weight,
    const at::Tensor& of_bias,
    const at::Tensor& dx) {
  const bool again = relu && !y.defined();
  float* const weights = data<float>(of_weight);
  float* const biases = data<float>(of_bias);
  batch.sums(
      [&](const Stretch& stretch, float* sum, float* products) {
        const int64_t at = stretch.place;
        const Channels of = statistics.of(stretch.group);
        const Extent extent = stretch.extent;
        const T* const g = data<T>(dy) + at;
        const T* const own = data<T>(x) + at;
        const T* const result = y.defined() ? data<T>(y) + at : nullptr;
        T* const to = y.defined() ? data<T>(passed) + at : nullptr;
        run([&]() NRS_INLINED {
          again ? Layout::template gradient_sums<true>(extent, g, own, result, of, to, sum, products)
                : Layout::template gradient_sums<false>(extent, g, own, result, of, to, sum, products);
        });
      },
      [&](size_t group, int64_t c, double sum, double products) {
        const auto count = static_cast<double>(batch.counts[group]);
        const double inverse = statistics.row(group, kInverse)[c];
        const double scale = statistics.row(group, kScale)[c];
        weights[c] += static_cast<float>(products * inverse);
        biases[c] += static_cast<float>(sum);
        const double slope = scale * inverse * inverse * products / count;
        statistics.row(group, kSlope)[c] = static_cast<float>(slope);
        statistics.row(group, kLevel)[c] = static_cast<float>(scale * sum / count);
      });
  const T* const through = data<T>(y.defined() ? passed : dy);
  batch.each([&](const Stretch& stretch, int64_t) {
    const int64_t at = stretch.place;
    const Channels of = statistics.of(stretch.group);
    const Extent extent = stretch.extent;
    const float* const slope = statistics.row(stretch.group, kSlope);
    const float* const level = statistics.row(stretch.group, kLevel);
    const T* const g = through + at;
    const T* const own = data<T>(x) + at;
    T* const to = data<T>(dx) + at;
    run([&]() NRS_INLINED {
      again ? Layout::template gradient<true>(extent, g, own, of, slope, level, to)
            : Layout::template gradient<false>(extent, g, own, of, slope, level, to);
    });
  });
}

class Norm final : public torch::autograd::Function<Norm> {
 public:
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& x,
      const at::Tensor& weight,
      const at::Tensor& bias,
      const std::optional<at::Tensor>& added,
      const at::Tensor& means,
      const at::Tensor& variances,
      at::IntArrayRef sizes,
      double epsilon,
      bool relu) {
    const at::Tensor residual = added.value_or(at::Tensor());
    const Batch batch(x, sizes);
    const auto groups = static_cast<int64_t>(sizes.size());
    const auto kept = at::empty({groups, kRowsOfStatistics, batch.channels}, at::kFloat);
    const auto y = at::empty_like(x);
    const bool wide = x.scalar_type() == at::kFloat;
    const auto compute = is_planar(x)
        ? wide ? &nrs::forward<norms::Planes, float> : &nrs::forward<norms::Planes, Bfloat16>
        : wide ? &nrs::forward<norms::Rows, float> : &nrs::forward<norms::Rows, Bfloat16>;
    compute(
        batch, x, residual, Statistics(kept), weight, bias, means, variances, epsilon, relu, y);
    context->save_for_backward({x, kept, residual.defined() ? y : at::Tensor()});
    context->saved_data["sizes"] = sizes.vec();
    context->saved_data["relu"] = relu;
    return y;
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "a norm has no gradients of gradients");
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &kept = saved[1], &y = saved[2];
    const bool relu = context->saved_data["relu"].toBool();
    const auto sizes = context->saved_data["sizes"].toIntVector();
    const auto dy = gradients[0].contiguous(format_of(x));
    const Batch batch(x, sizes);
    const auto of_weight = at::zeros({batch.channels}, at::kFloat);
    const auto of_bias = at::zeros({batch.channels}, at::kFloat);
    const auto dx = at::empty_like(x);
    const auto passed = y.defined() ? at::empty_like(x) : dy;
    const bool wide = x.scalar_type() == at::kFloat;
    const auto compute = is_planar(x)
        ? wide ? &nrs::backward<norms::Planes, float> : &nrs::backward<norms::Planes, Bfloat16>
        : wide ? &nrs::backward<norms::Rows, float> : &nrs::backward<norms::Rows, Bfloat16>;
    compute(batch, dy, x, y, Statistics(kept), relu, passed, of_weight, of_bias, dx);
    const at::Tensor none;
    return {dx, of_weight, of_bias, y.defined() ? passed : none, none, none, none, none, none};
  }
};

}  // namespace

at::Tensor norm(
    const at::Tensor& x,
    const at::Tensor& weight,
    const at::Tensor& bias,
    const at::Tensor& residual,
    const at::Tensor& means,
    const at::Tensor& variances,
    at::IntArrayRef sizes,
    double epsilon,
    bool relu) {
  TORCH_CHECK(x.dim() == 4 && x.device().is_cpu() && x.is_contiguous(format_of(x)),
      "a batch to be normalised is neither contiguous nor channels last on the CPU");
  TORCH_CHECK(x.numel() > 0, "a batch to be normalised is empty");
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16,
      "a batch to be normalised is ", x.scalar_type());
  TORCH_CHECK(relu || !residual.defined(), "what is added to a normalised batch goes through a ReLU");
  TORCH_CHECK(!residual.defined() || (residual.sizes() == x.sizes() &&
          residual.scalar_type() == x.scalar_type() && residual.device().is_cpu() &&
          residual.is_contiguous(format_of(x))),
      "what is added to a normalised batch is not like it");
  const auto groups = static_cast<int64_t>(sizes.size());
  require_micro_batches(sizes, x.size(0));
  for (const auto& tensor : {weight, bias}) {
    TORCH_CHECK(tensor.scalar_type() == at::kFloat && tensor.device().is_cpu() &&
            tensor.is_contiguous() && tensor.sizes() == at::IntArrayRef({x.size(1)}),
        "weight or bias of a norm do not fit its channels");
  }
  for (const auto& tensor : {means, variances}) {
    TORCH_CHECK(tensor.scalar_type() == at::kFloat && tensor.device().is_cpu() &&
            tensor.sizes() == at::IntArrayRef({groups, x.size(1)}),
        "the place for a norm's statistics does not fit");
  }
  const auto added = residual.defined() ? std::optional(residual) : std::nullopt;
  return Norm::apply(x, weight, bias, added, means, variances, sizes, epsilon, relu);
}

}  // namespace nrs
