// What src/sys.rs declares. Each function lends its arguments to the C++ beside it and turns
// exceptions into values; no other file exports anything.

#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>

#include "cuda_library.hpp"
#include "failure.hpp"
#include "group.hpp"
#include "kept_memory.hpp"
#include "reducer.hpp"
#include "stacks.hpp"
#include "store.hpp"
#include "upload.hpp"

using nrs::guarded;

// c10d's NCCL group ends the whole process on an error unless told otherwise, by environment
// variables that it reads when a group is made. They are set before `main`, while the process has
// one thread: setenv beside another thread's getenv is undefined. What the user set stays.
__attribute__((constructor)) static void keep_nccl_from_ending_the_process() {
  ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2", 0);  // clean up only
  ::setenv("TORCH_NCCL_ENABLE_MONITORING", "0", 0);
  ::setenv("TORCH_NCCL_RETHROW_CUDA_ERRORS", "0", 0);
  ::setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "0", 0);
  ::setenv("NCCL_NVLS_ENABLE", "0", 0);  // does not survive forming groups again in one process
}

extern "C" {

void nrs_failure_free(nrs_failure* failure) {
  nrs::free_failure(failure);
}

void nrs_buffer_write(void* buffer, const uint8_t* data, size_t size) {
  try {
    static_cast<std::string*>(buffer)->assign(reinterpret_cast<const char*>(data), size);
  } catch (...) {
    // Without memory the buffer stays empty; what reads it will say what is missing.
  }
}

nrs_failure* nrs_load_cuda(const uint8_t* library, size_t size) {
  return guarded([&] { nrs::load_cuda(library, size); });
}

int32_t nrs_tensor_is_strided(const at::Tensor* tensor) {
  return tensor->layout() == c10::Layout::Strided;
}

int32_t nrs_tensor_is_leaf_with_gradient(const at::Tensor* tensor) {
  return tensor->is_leaf() && tensor->requires_grad();
}

size_t nrs_tensor_identity(const at::Tensor* tensor) {
  return reinterpret_cast<size_t>(tensor->unsafeGetTensorImpl());
}

nrs_failure* nrs_thread_stack(
    int64_t thread,
    int64_t timeout_ms,
    uint64_t* frames,
    size_t capacity,
    size_t* count) {
  return guarded([&] {
    *count = nrs::thread_stack(thread, std::chrono::milliseconds(timeout_ms), frames, capacity);
  });
}

int nrs_leave_signals_to_others() {
  return nrs::leave_signals_to_others();
}

void nrs_keep_memory() {
  nrs::keep_memory();
}

nrs_failure* nrs_release_unused_memory() {
  return guarded([] {
    nrs::KeptSegments::of_process().release();
    nrs::release_memory();
    if (nrs::loaded_make_nccl() != nullptr && at::hasCUDA()) {
      at::accelerator::emptyCache();
    }
  });
}

// What float32 means on CUDA: products of 10 bits of mantissa (TF32) summed in float32, or of all 23.
void nrs_allow_tf32(int32_t allow) {
  at::globalContext().setAllowTF32CuBLAS(allow != 0);
  at::globalContext().setAllowTF32CuDNN(allow != 0);
}

nrs_failure* nrs_symbol(
    uint64_t address,
    char* name,
    size_t name_size,
    char* library,
    size_t library_size) {
  return guarded([&] {
    std::string found;
    std::string in;
    nrs::symbol_of(address, found, in);
    std::snprintf(name, name_size, "%s", found.c_str());
    std::snprintf(library, library_size, "%s", in.c_str());
  });
}

nrs_failure* nrs_group_gloo(
    const nrs_store_callbacks* callbacks,
    void* store,
    int32_t rank,
    int32_t world_size,
    int64_t timeout_ms,
    const char* host,
    int32_t share,
    nrs_group** out) {
  return guarded([&] {
    *out = nrs::make_gloo(
        callbacks,
        store,
        rank,
        world_size,
        std::chrono::milliseconds(timeout_ms),
        host,
        share != 0);
  });
}

nrs_failure* nrs_group_nccl(
    const nrs_store_callbacks* callbacks,
    void* store,
    int32_t rank,
    int32_t world_size,
    int64_t timeout_ms,
    int32_t device,
    nrs_group** out) {
  return guarded([&] {
    nrs::MakeNccl* make = nrs::loaded_make_nccl();
    if (make == nullptr) {
      callbacks->drop(store);
      throw nrs::Refusal(nrs::kTorch, "CUDA is not loaded");
    }
    *out = make(callbacks, store, rank, world_size, std::chrono::milliseconds(timeout_ms), device);
  });
}

nrs_failure* nrs_group_abort(nrs_group* group, const char* reason) {
  return guarded([&] { nrs::abort(*group, reason); });
}

nrs_failure* nrs_group_free(nrs_group* group) {
  return guarded([&] {
    nrs::release(std::unique_ptr<nrs_group>(group));
  });
}

nrs_failure* nrs_all_reduce(nrs_group* group, const at::Tensor* tensor, int32_t op, nrs_work** out) {
  return guarded([&] { *out = nrs::all_reduce(*group, *tensor, op); });
}

nrs_failure* nrs_broadcast(nrs_group* group, const at::Tensor* tensor, int32_t root, nrs_work** out) {
  return guarded([&] { *out = nrs::broadcast(*group, *tensor, root); });
}

nrs_failure* nrs_all_gather(
    nrs_group* group,
    const at::Tensor* output,
    const at::Tensor* input,
    nrs_work** out) {
  return guarded([&] { *out = nrs::all_gather(*group, *output, *input); });
}

nrs_failure* nrs_barrier(nrs_group* group, nrs_work** out) {
  return guarded([&] { *out = nrs::barrier(*group); });
}

nrs_failure* nrs_work_wait(nrs_work* work) {
  return guarded([&] { nrs::wait(*work); });
}

nrs_failure* nrs_work_free(nrs_work* work) {
  return guarded([&] { delete work; });
}

nrs_failure* nrs_reducer_new(
    nrs_group* group,
    const at::Tensor* const* parameters,
    size_t parameter_count,
    const size_t* members,
    const size_t* lengths,
    size_t bucket_count,
    const nrs_kept* kept,
    const at::Tensor* beside,
    nrs_reducer** out) {
  return guarded([&] {
    std::vector<at::Tensor> tensors;
    tensors.reserve(parameter_count);
    for (size_t index = 0; index < parameter_count; ++index) {
      tensors.push_back(*parameters[index]);
    }
    std::vector<std::vector<size_t>> layout;
    layout.reserve(bucket_count);
    for (size_t bucket = 0; bucket < bucket_count; ++bucket) {
      layout.emplace_back(members, members + lengths[bucket]);
      members += lengths[bucket];
    }
    const at::Tensor none;
    *out = nrs::make_reducer(
        group, std::move(tensors), layout, kept, beside == nullptr ? none : *beside);
  });
}

void nrs_group_compress(nrs_group* group) {
  group->compress = true;
}

int32_t nrs_reducer_is_shared(const nrs_reducer* reducer) {
  return reducer->shared != nullptr;
}

int32_t nrs_reducer_has_resumed(const nrs_reducer* reducer) {
  return reducer->resumed;
}

nrs_failure* nrs_reducer_keep(const nrs_reducer* reducer, nrs_kept** out) {
  return guarded([&] { *out = nrs::keep(*reducer); });
}

nrs_failure* nrs_kept_free(nrs_kept* kept) {
  return guarded([&] { delete kept; });
}

nrs_failure* nrs_reducer_backward(nrs_reducer* reducer, const at::Tensor* loss, int32_t reduce) {
  return guarded([&] { nrs::backward(*reducer, *loss, reduce != 0); });
}

nrs_failure* nrs_reducer_backward_zero(nrs_reducer* reducer) {
  return guarded([&] { nrs::backward_zero(*reducer); });
}

nrs_failure* nrs_reducer_zero(nrs_reducer* reducer) {
  return guarded([&] { nrs::zero(*reducer); });
}

nrs_failure* nrs_reducer_gradient(nrs_reducer* reducer, size_t index, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(reducer->gradients.at(index)); });
}

size_t nrs_reducer_stretches(const nrs_reducer* reducer) {
  return reducer->sums.size();
}

nrs_failure* nrs_reducer_stretch(
    nrs_reducer* reducer,
    size_t index,
    size_t* parameter,
    int64_t* from,
    at::Tensor** out) {
  return guarded([&] {
    const nrs::Stretch& stretch = reducer->sums.at(index);
    *parameter = stretch.parameter;
    *from = stretch.from;
    *out = new at::Tensor(stretch.sums);
  });
}

size_t nrs_reducer_flat_sums(const nrs_reducer* reducer) {
  return reducer->flat_sums.size();
}

nrs_failure* nrs_reducer_flat_sum(nrs_reducer* reducer, size_t index, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(reducer->flat_sums.at(index)); });
}

nrs_failure* nrs_reducer_norm(const nrs_reducer* reducer, double* out) {
  return guarded([&] { *out = nrs::norm_of_sums(*reducer); });
}

nrs_failure* nrs_reducer_require_whole(const nrs_reducer* reducer) {
  return guarded([&] {
    if (reducer->shared) {
      reducer->shared->require_whole();
    }
  });
}

nrs_failure* nrs_numbers_of(
    const uint8_t* bytes,
    const int64_t* sizes,
    size_t dimensions,
    const at::Tensor* like,
    at::Tensor** out) {
  return guarded([&] {
    *out = new at::Tensor(nrs::numbers_of(bytes, at::IntArrayRef(sizes, dimensions), *like));
  });
}

nrs_failure* nrs_side_stream_new(int32_t device, nrs_side_stream** out) {
  return guarded([&] {
    *out = new nrs_side_stream(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device)));
  });
}

nrs_failure* nrs_side_stream_enter(nrs_side_stream* stream) {
  return guarded([&] { stream->enter(); });
}

nrs_failure* nrs_side_stream_leave(nrs_side_stream* stream) {
  return guarded([&] { stream->leave(); });
}

nrs_failure* nrs_side_stream_hand_over(
    nrs_side_stream* stream,
    const at::Tensor* const* tensors,
    size_t count) {
  return guarded([&] { stream->hand_over(tensors, count); });
}

nrs_failure* nrs_side_stream_free(nrs_side_stream* stream) {
  return guarded([&] { delete stream; });
}

nrs_failure* nrs_reducer_free(nrs_reducer* reducer) {
  return guarded([&] {
    nrs::detach_gradients(*reducer);
    delete reducer;
  });
}
}
