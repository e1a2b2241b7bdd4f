// CUDA's libraries of libtorch, loaded only where a process asks for them: they take a third of a second
// and some 350 MB, which no worker on CPUs should pay for.
//
// What refers to them lies in a small library (nccl.cpp) that the program carries within itself; loading
// it loads them. libtorch learns of CUDA as they are loaded, and asks once: so this must come before
// anything that may ask whether there is a device.
#pragma once

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>

#include "failure.hpp"
#include "store.hpp"

struct nrs_group;

namespace nrs {

using MakeNccl = nrs_group*(
    const nrs_store_callbacks* callbacks,
    void* state,
    int rank,
    int size,
    std::chrono::milliseconds timeout,
    int device);

inline MakeNccl*& loaded_make_nccl() {
  static MakeNccl* make = nullptr;
  return make;
}

// Loads the library whose file has these bytes. Once in a process.
inline void load_cuda(const uint8_t* bytes, size_t size) {
  const auto refuse = [](const std::string& what, const char* why) {
    throw Refusal(kTorch, what + ": " + (why == nullptr ? "unknown" : why));
  };
  // No file system: nothing has to be installed beside the program, and nothing is left behind.
  const int file = ::memfd_create("nccl_rs_cuda", MFD_CLOEXEC);
  if (file < 0) {
    refuse("no memory file for CUDA's part of this program", std::strerror(errno));
  }
  for (size_t written = 0; written < size;) {
    const ssize_t count = ::write(file, bytes + written, size - written);
    if (count <= 0) {
      const int problem = errno;
      ::close(file);
      refuse("CUDA's part of this program cannot be written to memory", std::strerror(problem));
    }
    written += static_cast<size_t>(count);
  }
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  const char* problem = library == nullptr ? ::dlerror() : nullptr;
  ::close(file);
  if (library == nullptr) {
    refuse("libtorch's CUDA libraries cannot be loaded", problem);
  }
  loaded_make_nccl() = reinterpret_cast<MakeNccl*>(::dlsym(library, "nrs_make_nccl"));
  if (loaded_make_nccl() == nullptr) {
    refuse("CUDA's part of this program lacks its function", ::dlerror());
  }
}

}  // namespace nrs
