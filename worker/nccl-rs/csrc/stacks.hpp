// Where a thread of this process is, without stopping it from outside: a signal makes the thread
// itself write down its return addresses.
//
// Why not a debugger: none is installed where a run hangs, and attaching one needs rights that
// containers do not give. A thread that the system does not let run cannot answer, and is said to be
// so after a bounded wait.
#pragma once

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>

#include "failure.hpp"

namespace nrs {

constexpr int kMostFrames = 128;

// One question at a time. The handler touches nothing else.
struct StackRequest {
  // The thread that is asked; negative while it answers; 0: none, so a late signal does nothing.
  std::atomic<int64_t> thread{0};
  void* frames[kMostFrames];
  int count = 0;
  sem_t done;
};

inline StackRequest& stack_request() {
  static StackRequest request;
  return request;
}

// A real-time signal that neither libtorch nor NCCL nor Rust's runtimes use.
inline int stack_signal() {
  return SIGRTMIN + 7;
}

// The calling thread runs no handler any more but that of its own stack; other threads of the process do. Returns an
// error number.
inline int leave_signals_to_others() {
  sigset_t others;
  sigfillset(&others);
  sigdelset(&others, stack_signal());
  return pthread_sigmask(SIG_BLOCK, &others, nullptr);
}

// Async-signal-safe: atomics, gettid, sem_post, and backtrace, whose libgcc was loaded beforehand.
inline void answer_with_stack(int) {
  const int before = errno;
  StackRequest& request = stack_request();
  int64_t self = ::syscall(SYS_gettid);
  const int64_t asked = self;
  if (request.thread.compare_exchange_strong(self, -asked)) {
    request.count = ::backtrace(request.frames, kMostFrames);
    ::sem_post(&request.done);
  }
  errno = before;
}

// Writes the return addresses of a thread, innermost first, and returns how many.
inline size_t thread_stack(
    int64_t thread,
    std::chrono::milliseconds timeout,
    uint64_t* frames,
    size_t capacity) {
  static std::mutex one_at_a_time;
  std::lock_guard<std::mutex> lock(one_at_a_time);
  StackRequest& request = stack_request();
  static const bool ready = [&request] {
    void* none[1];
    ::backtrace(none, 1);  // loads what it needs; in a handler that would allocate
    ::sem_init(&request.done, 0, 0);
    struct sigaction action = {};
    action.sa_handler = answer_with_stack;
    action.sa_flags = SA_RESTART;
    ::sigfillset(&action.sa_mask);
    return ::sigaction(stack_signal(), &action, nullptr) == 0;
  }();
  TORCH_CHECK(ready, "no handler for the signal could be installed: ", std::strerror(errno));
  request.thread.store(thread);
  if (::syscall(SYS_tgkill, ::getpid(), thread, stack_signal()) != 0) {
    const int problem = errno;
    request.thread.store(0);
    TORCH_CHECK(false, "it has ended meanwhile, or cannot be asked: ", std::strerror(problem));
  }
  timespec until = {};
  ::clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += timeout.count() / 1000;
  until.tv_nsec += (timeout.count() % 1000) * 1000000;
  until.tv_sec += until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  int waited;
  while ((waited = ::sem_timedwait(&request.done, &until)) != 0 && errno == EINTR) {
  }
  if (waited != 0) {
    int64_t unanswered = thread;
    if (request.thread.compare_exchange_strong(unanswered, 0)) {
      throw Refusal(kTorch, "it did not answer: the system does not let it run, or it blocks signals");
    }
    // It is writing at this moment.
    while (::sem_wait(&request.done) != 0 && errno == EINTR) {
    }
  }
  request.thread.store(0);
  const size_t count = std::min(capacity, static_cast<size_t>(request.count));
  for (size_t index = 0; index < count; ++index) {
    frames[index] = reinterpret_cast<uint64_t>(request.frames[index]);
  }
  return count;
}

// The name of the function that an address lies in, as far as its library exports names, and the
// library; an empty name where none is near.
inline void symbol_of(uint64_t address, std::string& name, std::string& library) {
  Dl_info info = {};
  // A return address may lie just beyond its function.
  if (::dladdr(reinterpret_cast<void*>(address - 1), &info) == 0) {
    return;
  }
  if (info.dli_fname != nullptr) {
    const char* slash = std::strrchr(info.dli_fname, '/');
    library = slash != nullptr ? slash + 1 : info.dli_fname;
  }
  if (info.dli_sname != nullptr) {
    int status = 0;
    char* readable = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
    name = status == 0 && readable != nullptr ? readable : info.dli_sname;
    std::free(readable);
  }
}

}  // namespace nrs
