// The floating-point types of operands in device code, and their roundings: core/half.h for kernels.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "octavo/tensor.h"

namespace octavo::cuda {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

// Magnitudes are compared as bits, in which a NaN or Inf is larger than any number.
template <class T>
struct Element;
template <>
struct Element<float> {
  using Bits = unsigned;
  static constexpr unsigned kInfinity = 0x7f800000;
  __device__ static float value(unsigned bits) { return __uint_as_float(bits); }
};
template <>
struct Element<__half> {
  using Bits = unsigned short;
  static constexpr unsigned kInfinity = 0x7c00;
  __device__ static float value(unsigned bits) { return __half2float(__ushort_as_half(static_cast<Bits>(bits))); }
};
template <>
struct Element<__nv_bfloat16> {
  using Bits = unsigned short;
  static constexpr unsigned kInfinity = 0x7f80;
  __device__ static float value(unsigned bits) { return __uint_as_float(bits << 16); }
};

// One rounding, to nearest even.
template <class T>
__device__ __forceinline__ T round_to(float value) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(value);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(value);
  } else {
    return value;
  }
}

// One rounding of a double: to 16 bits by way of a float that is rounded to odd (Boldo and Melquiond, 2008).
template <class T>
__device__ __forceinline__ T round_double_to(double value) {
  if constexpr (std::is_same_v<T, float>) {
    return __double2float_rn(value);
  } else {
    const float cut = __double2float_rz(value);
    const bool exact = static_cast<double>(cut) == value || value != value;
    return round_to<T>(exact ? cut : __uint_as_float(__float_as_uint(cut) | 1u));
  }
}

// Calls f with a value of the CUDA type that float32, float16 or bfloat16 stands for.
template <class F>
void visit_cuda_float(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat16:
      return f(__half{});
    case DType::kBFloat16:
      return f(__nv_bfloat16{});
    default:
      return f(float{});
  }
}

}  // namespace octavo::cuda
