// The part of the shim that needs CUDA's libraries of libtorch, as a library of its own: see
// cuda_library.hpp.

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "cuda_library.hpp"
#include "group.hpp"
#include "store.hpp"

// A process group over NCCL. Exceptions go to the caller, which is C++ of the same compiler.
extern "C" __attribute__((visibility("default"))) nrs_group* nrs_make_nccl(
    const nrs_store_callbacks* callbacks,
    void* state,
    int rank,
    int size,
    std::chrono::milliseconds timeout,
    int device) {
  c10::intrusive_ptr<c10d::Store> store =
      c10::make_intrusive<nrs::RustStore>(callbacks, state, timeout, nullptr);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);

  auto group = std::make_unique<nrs_group>();
  group->health = std::make_shared<nrs::Health>();
  group->device = at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device));
  group->backend = backend;
  group->timeout = timeout;
  group->group = nrs::wrap(
      store, rank, size, group->device, c10d::ProcessGroup::BackendType::NCCL, group->backend);
  // Otherwise the communicators would be built by the first collective, and that step would need
  // the store.
  group->backend->eagerConnectSingleDevice(group->device);
  return group.release();
}
