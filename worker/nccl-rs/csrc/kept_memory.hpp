// Memory that the process keeps for its next allocations, and room set aside for when there is none left.
#pragma once

#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>

namespace nrs {

inline bool addresses_are_limited() {
  rlimit limit{};
  return getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

// Whether the system counts addresses as if they were memory (`vm.overcommit_memory = 2`).
inline bool addresses_are_counted() {
  std::ifstream file("/proc/sys/vm/overcommit_memory");
  int mode = 0;
  return file >> mode && mode == 2;
}

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
    if (!addresses_are_limited()) {
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

// Makes the end of the heap ready to be taken in large pages, where the system gives them on request: fewer misses of
// the translation cache, and fewer pages to give back when the process is killed. Only addresses, and no memory, are taken.
inline void ask_for_large_pages() {
  constexpr size_t kRoom = size_t{4} << 30;
  constexpr size_t kPage = 4096;
  if (addresses_are_limited() || addresses_are_counted()) {
    return;
  }
  if (void* const room = std::malloc(kRoom)) {
    const auto first = (reinterpret_cast<uintptr_t>(room) + kPage - 1) & ~(kPage - 1);
    ::madvise(reinterpret_cast<void*>(first), kRoom - kPage, MADV_HUGEPAGE);
    std::free(room);
  }
}

// Without this glibc takes every block above 32 MB fresh from the system and gives it back at once, and
// each step touches all of its pages for the first time.
inline void keep_memory() {
  Reserve::of_process().set_aside();
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, -1);  // never
  ask_for_large_pages();
}

inline void release_memory() {
  Reserve::of_process().release();
  ::malloc_trim(0);
}

} // namespace nrs
