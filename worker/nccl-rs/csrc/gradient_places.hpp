// Where the gradients of weights are wanted, for operations that can compute them there.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <unordered_map>
#include <utility>
#include <vector>

namespace nrs {

// While it lives, operations whose backward pass runs on this thread may write a parameter's gradient to its part of a
// bucket, where the reducer would have to copy it. Each part is given away once: a parameter that is used twice has two
// gradients, and their sum is made by autograd.
class GradientPlaces {
 public:
  // Parameters that lie in memory one after the other; the places are of their sizes and strides.
  GradientPlaces(const std::vector<at::Tensor>& parameters, const std::vector<at::Tensor>& places)
      : before_(std::exchange(current(), this)) {
    for (size_t index = 0; index < parameters.size(); ++index) {
      const auto& parameter = parameters[index];
      if (parameter.is_cpu() && parameter.is_contiguous()) {
        free_.emplace(parameter.data_ptr(), &places[index]);
      }
    }
  }
  ~GradientPlaces() {
    current() = before_;
  }
  GradientPlaces(const GradientPlaces&) = delete;
  GradientPlaces& operator=(const GradientPlaces&) = delete;

  // A tensor of these sizes to write the gradient of `weight` to: its place, where it has one, or new.
  static at::Tensor take(const at::Tensor& weight, at::IntArrayRef sizes) {
    auto* const places = current();
    if (places != nullptr && weight.is_contiguous()) {
      const auto found = places->free_.find(weight.data_ptr());
      // Another size is a part of the parameter, whose gradient autograd puts among zeros.
      if (found != places->free_.end() && found->second->numel() == weight.numel()) {
        const auto place = found->second->view(sizes);
        places->free_.erase(found);
        return place;
      }
    }
    return at::empty(sizes, weight.options().requires_grad(false));
  }

 private:
  static GradientPlaces*& current() {
    thread_local GradientPlaces* places = nullptr;
    return places;
  }

  GradientPlaces* const before_;
  std::unordered_map<void*, const at::Tensor*> free_;
};

}  // namespace nrs
