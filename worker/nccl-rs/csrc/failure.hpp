// C++ exceptions of every kind become values here: nothing that the shim exports lets one out.
#pragma once

#include <c10/util/Exception.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <utility>

extern "C" {
// Mirrored by `Failure` in src/sys.rs.
struct nrs_failure {
  int32_t code;
  int64_t detail;
  char* message;
};
}

namespace nrs {

// Mirrored by the CODE_ constants in src/sys.rs.
enum Code : int32_t {
  kTorch = 1,
  kStore = 2,
  kOutOfMemory = 3,
  kCollective = 4,
  kAborted = 5,
  kMissingGradient = 6,
  kUnfinished = 7,
};

// What the shim itself has to say.
struct Refusal : std::exception {
  Refusal(Code code, std::string message, int64_t detail = 0)
      : code(code), detail(detail), message(std::move(message)) {}
  const char* what() const noexcept override {
    return message.c_str();
  }
  Code code;
  int64_t detail;
  std::string message;
};

// What is handed out when there is no memory to say it in.
inline nrs_failure no_memory{kOutOfMemory, 0, const_cast<char*>("there is no memory left")};

inline nrs_failure* make_failure(Code code, const char* message, int64_t detail = 0) noexcept {
  auto* failure = static_cast<nrs_failure*>(std::malloc(sizeof(nrs_failure)));
  if (failure == nullptr) {
    return &no_memory;
  }
  size_t length = std::strlen(message);
  while (length > 0 && (message[length - 1] == '\n' || message[length - 1] == ' ')) {
    --length;
  }
  failure->message = ::strndup(message, length);
  if (failure->message == nullptr) {
    std::free(failure);
    return &no_memory;
  }
  failure->code = code;
  failure->detail = detail;
  return failure;
}

inline void free_failure(nrs_failure* failure) noexcept {
  if (failure != nullptr && failure != &no_memory) {
    std::free(failure->message);
    std::free(failure);
  }
}

// libtorch's CPU allocator reports an empty machine as an ordinary error.
inline Code code_of(const c10::Error& error) noexcept {
  const char* message = error.what_without_backtrace();
  return std::strstr(message, "DefaultCPUAllocator") != nullptr ? kOutOfMemory : kTorch;
}

// The exception being handled as a value; call in a catch block.
inline nrs_failure* current_failure() noexcept {
  try {
    throw;
  } catch (const Refusal& refusal) {
    return make_failure(refusal.code, refusal.what(), refusal.detail);
  } catch (const c10::OutOfMemoryError& error) {
    return make_failure(kOutOfMemory, error.what_without_backtrace());
  } catch (const c10::DistStoreError& error) {
    return make_failure(kStore, error.what_without_backtrace());
  } catch (const c10::Error& error) {
    return make_failure(code_of(error), error.what_without_backtrace());
  } catch (const std::bad_alloc& error) {
    return make_failure(kOutOfMemory, error.what());
  } catch (const std::exception& error) {
    return make_failure(kTorch, error.what());
  } catch (...) {
    return make_failure(kTorch, "a C++ exception that says nothing about itself");
  }
}

// The text of an exception that a background thread kept.
inline std::string text_of(const std::exception_ptr& pointer) noexcept {
  try {
    std::rethrow_exception(pointer);
  } catch (...) {
    nrs_failure* failure = current_failure();
    std::string text = failure->message;
    free_failure(failure);
    return text;
  }
}

// Runs the body of an exported function.
template <typename Body>
nrs_failure* guarded(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (...) {
    return current_failure();
  }
}

}  // namespace nrs
