// Where addresses are limited (`ulimit -v`), the last of them are not for tensors.
#pragma once

#include <c10/core/CPUAllocator.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>

namespace nrs {

// The most addresses that this process may have, in bytes; 0 where there is no limit.
inline size_t address_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return 0;
  }
  return limit.rlim_cur;
}

// libtorch's own allocator, which refuses a tensor that would take the last addresses. They are for what must be mapped beside
// tensors, first of all the code that oneDNN makes for every new shape: where that fails once in the middle of making several,
// oneDNN keeps the failure in its cache of primitives, and it "could not create a primitive" of that shape ever after, however
// much has been freed since. A tensor that is refused leaves nothing behind.
class SparingAllocator final : public c10::Allocator {
 public:
  // For a process that may have so many bytes of addresses and can say how many it has. Its larger tensors lie in mappings of their own
  // from here on: in a heap that one small block at its end keeps from shrinking, what was freed would be holes.
  static void install(size_t limit) {
    ::mallopt(M_MMAP_THRESHOLD, kMappedFrom);
    ::mallopt(M_TRIM_THRESHOLD, kMappedFrom);
    static SparingAllocator* const allocator = make(limit);
    if (allocator != nullptr) {
      c10::SetCPUAllocator(allocator);
    }
  }

  c10::DataPtr allocate(size_t size) override {
    if (size < kSmall) {
      return plain_.allocate(size);
    }
    const size_t before = addresses();
    c10::DataPtr data = plain_.allocate(size);
    const size_t after = addresses();
    // What lies in a hole of the heap takes no new ones.
    if (after > before && after + kSpared > limit_) {
      data.clear();
      ::malloc_trim(0);
      // The words by which running out of memory is known.
      TORCH_CHECK(
          false,
          "DefaultCPUAllocator: not enough memory: a tensor of ", size, " bytes would take the last ", kSpared,
          " bytes of the addresses that ulimit -v allows");
    }
    return data;
  }

  c10::DeleterFnPtr raw_deleter() const override {
    return plain_.raw_deleter();
  }

  void copy_data(void* to, const void* from, size_t size) const override {
    plain_.copy_data(to, from, size);
  }

 private:
  static constexpr size_t kSpared = size_t{64} << 20;
  // Tensors below it go unasked: each question is a read of a file.
  static constexpr size_t kSmall = size_t{1} << 16;
  static constexpr int kMappedFrom = 1 << 20;

  SparingAllocator(c10::Allocator& plain, size_t limit, int statm) : plain_(plain), limit_(limit), statm_(statm) {}

  static SparingAllocator* make(size_t limit) {
    const int statm = ::open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    return statm < 0 ? nullptr : new SparingAllocator(*c10::GetCPUAllocator(), limit, statm);
  }

  size_t addresses() const {
    char text[64];
    const ssize_t length = ::pread(statm_, text, sizeof text - 1, 0);
    if (length <= 0) {
      return 0;
    }
    text[length] = '\0';
    return std::strtoull(text, nullptr, 10) * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  }

  c10::Allocator& plain_;
  const size_t limit_;
  const int statm_;
};

} // namespace nrs
