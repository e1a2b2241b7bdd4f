// Zeros that take no memory until something is written to them.
#pragma once

#include <ATen/ATen.h>
#include <sys/mman.h>

#include <cstddef>

namespace nrs {

// Below this a mapping of its own is not worth it.
constexpr size_t kLeastMapping = size_t{1} << 16;

// Like `at::zeros_like`. The system hands out pages of zeros where they are first written to, so what was never written
// to, such as the optimizer's state before the first step, is not there.
inline at::Tensor untouched_zeros_like(const at::Tensor& like) {
  const size_t bytes = like.nbytes();
  if (!like.is_cpu() || bytes < kLeastMapping || !like.is_non_overlapping_and_dense()) {
    return at::zeros_like(like);
  }
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  TORCH_CHECK(data != MAP_FAILED, "out of memory: ", bytes, " bytes of zeros cannot be mapped");
  madvise(data, bytes, MADV_HUGEPAGE);
  return at::from_blob(
      data,
      like.sizes(),
      like.strides(),
      [bytes](void* mapped) { munmap(mapped, bytes); },
      like.options().requires_grad(false));
}

} // namespace nrs
