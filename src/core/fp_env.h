// Floating-point mode that results are specified in: round to nearest, subnormals kept, no traps.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace octavo {

// Sets the calling thread's mode for a scope, whatever a caller (torch.set_flush_denormal, say) has set, and restores it.
class ExactFloatScope {
 public:
#if defined(__x86_64__)
  ExactFloatScope() : saved_(_mm_getcsr()) {
    if (saved_ != kExact) _mm_setcsr(kExact);
  }
  ~ExactFloatScope() {
    if (saved_ != kExact) _mm_setcsr(saved_);
  }
#else
  ExactFloatScope() {}
  ~ExactFloatScope() {}
#endif
  ExactFloatScope(const ExactFloatScope&) = delete;
  ExactFloatScope& operator=(const ExactFloatScope&) = delete;

#if defined(__x86_64__)
 private:
  static constexpr unsigned kExact = 0x1f80;  // all exceptions masked, nearest, neither FTZ nor DAZ
  unsigned saved_;
#endif
};

}  // namespace octavo
