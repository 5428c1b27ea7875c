// What kernels that quantize activations share: a block's largest magnitude, and rounding.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "core/exact.h"

namespace octavo::cuda {

inline constexpr unsigned kNaN = 0x7fc00000u;

// The largest of a thread block's values, for all its threads.
__device__ __forceinline__ unsigned largest_of_block(unsigned largest) {
  __shared__ unsigned of_warp[32];
  for (int offset = 16; offset > 0; offset /= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, offset));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = largest;
  __syncthreads();
  largest = threadIdx.x % 32 < blockDim.x / 32 ? of_warp[threadIdx.x % 32] : 0;
  for (int offset = 16; offset > 0; offset /= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, offset));
  return largest;
}

// A number of at most 2^22 to the nearest integer, as bits whose lowest byte it is.
__device__ __forceinline__ unsigned nearest(float x) { return exact::bits(exact::add(x, 0x1.8p23f)); }

// x / scale, correctly rounded where it does not round to 0 as an integer: an estimate x · (1/s), corrected with its exact
// remainder. That is right if the estimate was less than one unit in the last place off and 1/s is the rounded reciprocal
// (Markstein, 1990), so once an estimate has been corrected it is right the second time. With 16-bit x and the scale that
// their largest magnitude gives, the first time is enough (tested for every value).
template <int kCorrections>
struct Quotient {
  __device__ explicit Quotient(float s) : Quotient(s, exact::div(1.0f, s)) {}
  __device__ Quotient(float s, float reciprocal_of_s) : scale(s), reciprocal(reciprocal_of_s) {}

  // Whether no step of a correction leaves the normal numbers; else x has to be divided.
  __device__ bool corrects() const { return scale >= 0x1p-60f && scale <= 0x1p60f; }

  __device__ float corrected(float x) const {
    float q = exact::mul(x, reciprocal);
#pragma unroll
    for (int i = 0; i < kCorrections; ++i) q = exact::fma(exact::fma(-q, scale, x), reciprocal, q);
    return q;
  }
  __device__ float divided(float x) const { return exact::div(x, scale); }

  float scale, reciprocal;
};

// The symmetric int8 scale of values up to absmax.
__device__ __forceinline__ float activation_scale(float absmax) {
  return absmax == 0 ? 1.0f : fmaxf(exact::div(absmax, 127.0f), 0x1p-126f);
}

// Rounding of values that are widened from a T with the scale that their largest magnitude gives; no quotient is above 127.
template <class T>
class DynamicRounding {
 public:
  __device__ explicit DynamicRounding(float absmax) : quotient_(activation_scale(absmax)) {}

  __device__ float scale() const { return quotient_.scale; }

  // Calls body(round), once: how x is rounded is decided for all of them, which branches at each would slow down.
  template <class Body>
  __device__ void with(const Body& body) const {
    if (quotient_.corrects()) {
      body([this](float x) { return nearest(quotient_.corrected(x)); });
    } else {
      body([this](float x) { return nearest(quotient_.divided(x)); });
    }
  }

 private:
  Quotient<sizeof(T) == 4 ? 2 : 1> quotient_;
};

// Rounding with a given scale: what is out of range saturates, and a NaN is 0. Where quotients are corrected, x is brought
// into range before, so that no infinity meets a correction.
class StaticRounding {
 public:
  __device__ explicit StaticRounding(float scale)
      : quotient_(scale), lowest_(exact::mul(scale, -128.0f)), highest_(exact::mul(scale, 127.0f)) {}

  template <class Body>
  __device__ void with(const Body& body) const {
    if (quotient_.corrects()) {
      body([this](float x) { return nearest(quotient_.corrected(x == x ? fminf(fmaxf(x, lowest_), highest_) : 0.0f)); });
    } else {
      body([this](float x) {
        const float quotient = quotient_.divided(x);
        return nearest(quotient == quotient ? fminf(fmaxf(quotient, -128.0f), 127.0f) : 0.0f);
      });
    }
  }

 private:
  Quotient<2> quotient_;
  float lowest_, highest_;
};

__device__ __forceinline__ unsigned lowest_bytes(unsigned a, unsigned b, unsigned c, unsigned d) {
  return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

}  // namespace octavo::cuda
