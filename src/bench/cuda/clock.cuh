// How fast an SM's clock runs, and numbers that look random.
#pragma once

#include "bench/cuda/loops.h"

namespace octavo::bench {

__device__ __forceinline__ std::uint64_t nanoseconds() {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

__device__ __forceinline__ std::uint64_t cycles() {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %%clock64;" : "=l"(now));
  return now;
}

// Made before a loop and told after it, by all threads of a CTA: some warps of it may have run ahead of others.
class Stopwatch {
 public:
  __device__ __forceinline__ Stopwatch() {
    __syncthreads();
    cycles_ = cycles();
    nanoseconds_ = nanoseconds();
  }
  __device__ __forceinline__ void tell(Clock* clock) const {
    __syncthreads();
    if (blockIdx.x != 0 || threadIdx.x != 0) return;
    *clock = {cycles() - cycles_, nanoseconds() - nanoseconds_};
  }

 private:
  std::uint64_t cycles_, nanoseconds_;
};

// Bits of a number's place (the finalizer of MurmurHash3).
__device__ __forceinline__ std::uint32_t random_bits(std::uint32_t place) {
  std::uint32_t h = place * 0x9e3779b9u + 1;
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  return h ^ h >> 16;
}

// Two 16-bit floating-point numbers of random signs and mantissas, from 1 to 2; or, with Bits::kInt8, four integers.
enum class Bits { kInt8, kFloat16, kBFloat16 };
template <Bits kBits>
__device__ __forceinline__ std::uint32_t random_operands(std::uint32_t place) {
  const std::uint32_t bits = random_bits(place);
  if constexpr (kBits == Bits::kFloat16) return (bits & 0x83ff83ffu) | 0x3c003c00u;
  if constexpr (kBits == Bits::kBFloat16) return (bits & 0x807f807fu) | 0x3f803f80u;
  return bits;
}

// What no sums come to. They are compared with it so that they cannot be left out.
template <class T>
constexpr T kNever = 0x5bd1e995;

}  // namespace octavo::bench
