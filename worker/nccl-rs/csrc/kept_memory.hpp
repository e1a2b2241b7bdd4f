// Memory that the process keeps for its next allocations.
#pragma once

#include <malloc.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>

#include "last_addresses.hpp"

namespace nrs {

// Whether the system counts addresses as if they were memory (`vm.overcommit_memory = 2`).
inline bool addresses_are_counted() {
  std::ifstream file("/proc/sys/vm/overcommit_memory");
  int mode = 0;
  return file >> mode && mode == 2;
}

// Makes the end of the heap ready to be taken in large pages, where the system gives them on request: fewer misses of
// the translation cache, and fewer pages to give back when the process is killed. Only addresses, and no memory, are taken.
inline void ask_for_large_pages() {
  constexpr size_t kRoom = size_t{4} << 30;
  constexpr size_t kPage = 4096;
  if (addresses_are_counted()) {
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
  if (const size_t limit = address_limit(); limit != 0) {
    SparingAllocator::install(limit);
    return;
  }
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, -1);  // never
  ask_for_large_pages();
}

inline void release_memory() {
  ::malloc_trim(0);
}

} // namespace nrs
