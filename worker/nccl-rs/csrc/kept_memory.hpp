// Memory that the process keeps for its next allocations, and room set aside for when there is none left.
#pragma once

#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <atomic>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace nrs {

// Where addresses are limited (`ulimit -v`), a heap that has grown up to the limit and been freed again serves further
// tensors, but nothing that must be mapped, such as the code that oneDNN makes for every new shape: after one failure
// nothing would ever fit. So much is set aside for that; it is no memory, only addresses.
class Reserve {
 public:
  static Reserve& of_process() {
    static Reserve reserve;
    return reserve;
  }

  // Does nothing where addresses are not limited.
  void set_aside() {
    rlimit limit{};
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
      return;
    }
    void* fresh = mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fresh != MAP_FAILED) {
      free_mapping(mapping_.exchange(fresh));
    }
  }

  void release() {
    free_mapping(mapping_.exchange(nullptr));
  }

 private:
  static constexpr size_t kBytes = size_t{64} << 20;

  static void free_mapping(void* mapping) {
    if (mapping != nullptr) {
      munmap(mapping, kBytes);
    }
  }

  std::atomic<void*> mapping_{nullptr};
};

// Without this glibc takes every block above 32 MB fresh from the system and gives it back at once, and
// each step touches all of its pages for the first time.
inline void keep_memory() {
  Reserve::of_process().set_aside();
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, -1);
  constexpr size_t kRoom = size_t{4} << 30;
  if (void* room = std::malloc(kRoom)) {
    const auto page = reinterpret_cast<uintptr_t>(room) & ~uintptr_t{4095};
    ::madvise(reinterpret_cast<void*>(page + 4096), kRoom - 8192, MADV_HUGEPAGE);
    std::free(room);
  }
}

inline void release_memory() {
  Reserve::of_process().release();
  ::malloc_trim(0);
}

} // namespace nrs
