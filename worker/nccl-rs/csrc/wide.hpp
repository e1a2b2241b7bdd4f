// Runs loops as compiled for the vector instructions that nearly every x86 of today has, where the processor has them,
// while the program itself is built for all of them.
#pragma once

#define NRS_INLINE inline __attribute__((always_inline))
#define NRS_INLINED __attribute__((always_inline))

#if defined(__x86_64__)
#define NRS_WIDE __attribute__((target("avx2,fma")))
#else
#define NRS_WIDE
#endif

namespace nrs {

#if defined(__x86_64__)
inline bool is_wide() {
  static const bool wide = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return wide;
}
#else
inline bool is_wide() {
  return false;
}
#endif

template <class F>
NRS_WIDE void run_wide(const F& body) {
  body();
}

// Calls a body that is inlined here, and with it all that it calls: `[&]() NRS_INLINED { … }`.
template <class F>
void run(const F& body) {
  is_wide() ? run_wide(body) : body();
}

}  // namespace nrs
