// Pixels to numbers on the device, and a stream beside the one on which the device computes.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <optional>

namespace nrs {

// `bytes`, which are only borrowed, as numbers of the kind of `like`, where `like` is. To CUDA by way of
// pinned memory, from which alone the copy is asynchronous.
inline at::Tensor numbers_of(const uint8_t* bytes, at::IntArrayRef sizes, const at::Tensor& like) {
  // Read from and nothing else: from here it is copied.
  const auto borrowed = at::from_blob(const_cast<uint8_t*>(bytes), sizes, at::kByte);
  if (like.is_cpu()) {
    return borrowed.to(like.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  }
  auto pinned = at::empty(sizes, at::TensorOptions(at::kByte).pinned_memory(true));
  pinned.copy_(borrowed);
  return pinned.to(like.device(), /*non_blocking=*/true).to(like.scalar_type());
}

}  // namespace nrs

// A stream of a CUDA device for what is made ahead of its use. By the interfaces that libtorch has for
// devices of all kinds, so that CUDA's libraries are needed only where there is one.
struct nrs_side_stream {
  explicit nrs_side_stream(c10::Device device)
      : device(device),
        guard(device.type()),
        side(guard.getStreamFromGlobalPool(device)),
        ready(device.type()) {}

  // What is queued from here on goes to the side stream.
  void enter() {
    before = guard.exchangeStream(side);
  }

  void leave() {
    if (before) {
      guard.exchangeStream(*before);
      before.reset();
      ready.record(side);
    }
  }

  // The current stream goes on when all that was queued on the side is done. The tensors' memory is
  // not given to the side stream again before the current one is through with it.
  void hand_over(const at::Tensor* const* tensors, size_t count) {
    const auto current = guard.getStream(device);
    ready.block(current);
    for (size_t index = 0; index < count; ++index) {
      tensors[index]->record_stream(current);
    }
  }

  c10::Device device;
  c10::impl::VirtualGuardImpl guard;
  c10::Stream side;
  c10::Event ready;
  // The current stream's place is taken while this is set.
  std::optional<c10::Stream> before;
};
