// From an integer sum to an output on the GPU, with the CPU's bits: gemm/epilogue.h in device code.
#pragma once

#include <cstdint>

#include "core/half.cuh"
#include "gemm/arguments.h"

namespace octavo::cuda {

struct Epilogue {
  const float* w_scale;  // nullptr: alpha
  const float* x_scale;  // nullptr: none
  bool per_channel;      // one w_scale a channel, or one in all
  bool per_token;        // one x_scale a row, or one in all
  float alpha;
  const void* bias;  // nullptr: none
  DType bias_dtype;
};

inline Epilogue epilogue_of(const Arguments& a) {
  return {static_cast<const float*>(a.w.scale.data),
          static_cast<const float*>(a.x_scale.data),
          a.w.scale.rows > 1,
          a.x_scale.rows > 1,
          a.alpha,
          a.bias.data,
          a.bias.dtype};
}

#if defined(__CUDACC__)

__device__ __forceinline__ float w_scale_at(const Epilogue& e, std::int64_t n) {
  if (e.w_scale == nullptr) return e.alpha;
  return e.w_scale[e.per_channel ? n : 0];
}

__device__ __forceinline__ float x_scale_at(const Epilogue& e, std::int64_t m) {
  if (e.x_scale == nullptr) return 1.0f;
  return e.x_scale[e.per_token ? m : 0];
}

// Only where there is one.
__device__ __forceinline__ float bias_at(const Epilogue& e, std::int64_t n) {
  switch (e.bias_dtype) {
    case DType::kFloat16:
      return to_float(static_cast<const __half*>(e.bias)[n]);
    case DType::kBFloat16:
      return to_float(static_cast<const __nv_bfloat16*>(e.bias)[n]);
    default:
      return static_cast<const float*>(e.bias)[n];
  }
}

// float(acc) · s_w[n], · s_x[m], each step rounded to float32. A multiplication by 1 changes no bit.
__device__ __forceinline__ float scale_sum(std::int32_t acc, float w_scale, float x_scale) {
  return __fmul_rn(__fmul_rn(__int2float_rn(acc), w_scale), x_scale);
}

// Element [m, n] of y. For std::int32_t it is the sum itself.
template <class Out>
__device__ __forceinline__ Out output_of(const Epilogue& e, std::int64_t m, std::int64_t n, std::int32_t acc) {
  if constexpr (std::is_same_v<Out, std::int32_t>) {
    return acc;
  } else {
    float t = scale_sum(acc, w_scale_at(e, n), x_scale_at(e, m));
    if (e.bias != nullptr) t = __fadd_rn(t, bias_at(e, n));
    return round_to<Out>(t);
  }
}

#endif

// Calls f with a value of the CUDA type that an output's dtype stands for.
template <class F>
void visit_output(DType dtype, F&& f) {
  if (dtype == DType::kInt32) return f(std::int32_t{});
  return visit_cuda_float(dtype, f);
}

}  // namespace octavo::cuda
