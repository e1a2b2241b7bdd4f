// Where the gradients of weights are wanted, for operations that can compute them there.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <unordered_map>
#include <utility>
#include <vector>

namespace nrs {

// While it lives, operations whose backward pass runs on this thread may add a parameter's gradient to its part of a
// bucket themselves, where the reducer would have to copy it, or autograd to add it. Each part is given away once: a
// parameter that is used twice has two gradients, and autograd adds the second.
class GradientPlaces {
 public:
  // Places of the parameters' sizes and strides. What is in them counts unless they are `empty`; then it is also what the
  // parameters have of gradients.
  GradientPlaces(
      const std::vector<at::Tensor>& parameters, const std::vector<at::Tensor>& places, bool empty)
      : empty_(empty), before_(std::exchange(current(), this)) {
    for (size_t index = 0; index < parameters.size(); ++index) {
      const auto& parameter = parameters[index];
      if (parameter.is_cpu() && parameter.is_contiguous()) {
        free_.emplace(parameter.data_ptr(), Place{&parameter, &places[index]});
      }
    }
  }
  ~GradientPlaces() {
    current() = before_;
  }
  GradientPlaces(const GradientPlaces&) = delete;
  GradientPlaces& operator=(const GradientPlaces&) = delete;

  // The gradient of `weight`: `multiply(sum, beta)` adds it to `beta` times a tensor of these sizes.
  template <class Multiply>
  static at::Tensor add(const at::Tensor& weight, at::IntArrayRef sizes, const Multiply& multiply) {
    auto* const places = current();
    if (places != nullptr && weight.is_contiguous()) {
      const auto found = places->free_.find(weight.data_ptr());
      // Another size is a part of the parameter, whose gradient autograd puts among zeros.
      if (found != places->free_.end() && found->second.memory->numel() == weight.numel()) {
        const Place place = found->second;
        places->free_.erase(found);
        multiply(place.memory->view(sizes), places->empty_ ? 0 : 1);
        // Autograd is given what was there as well, so it finds nothing to add it to.
        place.parameter->mutable_grad().reset();
        return place.memory->view(weight.sizes());
      }
    }
    const auto gradient = at::empty(sizes, weight.options().requires_grad(false));
    multiply(gradient, 0);
    return gradient.view(weight.sizes());
  }

 private:
  struct Place {
    const at::Tensor* parameter;
    const at::Tensor* memory;
  };

  static GradientPlaces*& current() {
    thread_local GradientPlaces* places = nullptr;
    return places;
  }

  const bool empty_;
  GradientPlaces* const before_;
  std::unordered_map<void*, Place> free_;
};

}  // namespace nrs
