// Outputs of a row of y, side by side, on their way there.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/half.cuh"

namespace octavo::cuda {

inline constexpr int kOutputs = 8;  // that a thread stores at a time

// The first `count` of them, sixteen bytes at a time where all are there and y is aligned for it.
template <class T>
__device__ __forceinline__ void store_outputs(T* y, const T (&v)[kOutputs], int count, bool vectors) {
  if (vectors && count == kOutputs) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(v) / sizeof(uint4)); ++i) {
      uint4 bits;
      memcpy(&bits, reinterpret_cast<const char*>(v) + i * sizeof(bits), sizeof(bits));
      reinterpret_cast<uint4*>(y)[i] = bits;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    if (i < count) y[i] = v[i];
  }
}

// The same, each rounded once to y's type.
template <class T>
__device__ __forceinline__ void round_and_store(T* y, const float (&t)[kOutputs], int count, bool vectors) {
  alignas(uint4) T v[kOutputs];
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) v[i] = round_to<T>(t[i]);
  store_outputs(y, v, count, vectors);
}

// To columns n, n + 1 … of a row of float16, bfloat16 or float32.
__device__ __forceinline__ void round_and_store(char* row, std::int64_t n, DType dtype, const float (&t)[kOutputs],
                                                int count, bool vectors) {
  switch (dtype) {
    case DType::kFloat16:
      return round_and_store(reinterpret_cast<__half*>(row) + n, t, count, vectors);
    case DType::kBFloat16:
      return round_and_store(reinterpret_cast<__nv_bfloat16*>(row) + n, t, count, vectors);
    default:
      return store_outputs(reinterpret_cast<float*>(row) + n, t, count, vectors);
  }
}

}  // namespace octavo::cuda
