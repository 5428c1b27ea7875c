// float32 arithmetic that is rounded operation by operation, in code that the CPU and the GPU share: nothing is contracted,
// so both give the same bits. (On the CPU that takes -ffp-contract=off, which the build sets.)
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define OCTAVO_HOST_DEVICE __host__ __device__ __forceinline__
#else
// In a function for an instruction set it becomes a part of that function, with its vectors and its fused multiply-add.
#define OCTAVO_HOST_DEVICE __attribute__((always_inline)) inline
#endif

namespace octavo::exact {

// min(): b where a is NaN. reciprocal(): of a number from 2^-125 to 2^126, else anything.
#if defined(__CUDA_ARCH__)
__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ float div(float a, float b) { return __fdiv_rn(a, b); }
__device__ __forceinline__ float min(float a, float b) { return fminf(a, b); }
// One Newton step from the processor's estimate rounds correctly (tested for every significand); __frcp_rn does the same,
// but asks before whether its operand and result are normal.
__device__ __forceinline__ float reciprocal(float a) {
  float estimate;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(estimate) : "f"(a));
  return __fmaf_rn(__fmaf_rn(-a, estimate, 1.0f), estimate, estimate);
}
__device__ __forceinline__ float sqrt(float a) { return __fsqrt_rn(a); }
__device__ __forceinline__ std::uint32_t bits(float a) { return __float_as_uint(a); }
__device__ __forceinline__ float from_bits(std::uint32_t a) { return __uint_as_float(a); }
#else
OCTAVO_HOST_DEVICE float add(float a, float b) { return a + b; }
OCTAVO_HOST_DEVICE float mul(float a, float b) { return a * b; }
OCTAVO_HOST_DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
OCTAVO_HOST_DEVICE float div(float a, float b) { return a / b; }
OCTAVO_HOST_DEVICE float min(float a, float b) { return a < b ? a : b; }
OCTAVO_HOST_DEVICE float reciprocal(float a) { return 1.0f / a; }
OCTAVO_HOST_DEVICE float sqrt(float a) { return std::sqrt(a); }
OCTAVO_HOST_DEVICE std::uint32_t bits(float a) { return std::bit_cast<std::uint32_t>(a); }
OCTAVO_HOST_DEVICE float from_bits(std::uint32_t a) { return std::bit_cast<float>(a); }
#endif

}  // namespace octavo::exact
