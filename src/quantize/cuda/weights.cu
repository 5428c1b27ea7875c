#include <algorithm>

#include "core/cuda_launch.cuh"
#include "core/half.cuh"
#include "gemm/alignment.h"
#include "quantize/cuda/weight.cuh"
#include "quantize/cuda/weights.h"

namespace octavo {
namespace {

using cuda::Rows;
using cuda::rows_of;
using cuda::to_float;

constexpr int kThreads = 256;
constexpr std::int64_t kMaxK = 1 << 26;  // that a grid's second dimension reaches
constexpr unsigned kInfinity = 0x7f800000;

// These kernels write weights, which others take for constant: they never let a dependent start early (core/ptx.cuh).
constexpr cuda::LaunchOptions kWritesWeights = {.dependent = false};

struct Format {
  bool symmetric;
  float qmin, qmax;
  DType scale_dtype;
};

struct ScaleZero {
  float scale;
  float zero_point;
};

// Both ends include 0. `largest` is the largest magnitude as bits, where a NaN or Inf is above all others.
struct Extremes {
  float lo = 0;
  float hi = 0;
  unsigned largest = 0;

  __device__ void add(float value) {
    lo = fminf(lo, value);
    hi = fmaxf(hi, value);
    largest = max(largest, __float_as_uint(value) & 0x7fffffffu);
  }
  __device__ void add(const Extremes& other) {
    lo = fminf(lo, other.lo);
    hi = fmaxf(hi, other.hi);
    largest = max(largest, other.largest);
  }
};

// Of all threads' extremes, in every thread.
__device__ Extremes over_block(Extremes mine) {
  __shared__ Extremes of_warp[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2) {
    Extremes other;
    other.lo = __shfl_xor_sync(0xffffffffu, mine.lo, offset);
    other.hi = __shfl_xor_sync(0xffffffffu, mine.hi, offset);
    other.largest = __shfl_xor_sync(0xffffffffu, mine.largest, offset);
    mine.add(other);
  }
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
  __syncthreads();
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) mine.add(of_warp[warp]);
  return mine;
}

// quantize/scale.cpp's scale_of(), step by step.
__device__ float round_scale(float scale, DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      return fmaxf(__half2float(__float2half_rn(scale)), 0x1p-24f);
    case DType::kBFloat16:
      return fmaxf(__bfloat162float(__float2bfloat16_rn(scale)), 0x1p-126f);
    default:
      return fmaxf(scale, 0x1p-126f);
  }
}

__device__ ScaleZero scale_of(const Extremes& e, const Format& format) {
  if (e.largest >= kInfinity) return {__uint_as_float(0x7fc00000u), 0};
  if (e.largest == 0) return {1, 0};
  if (format.symmetric) return {round_scale(__fdiv_rn(__uint_as_float(e.largest), format.qmax), format.scale_dtype), 0};
  const float span = __fsub_rn(__fdiv_rn(e.hi, format.qmax), __fdiv_rn(e.lo, format.qmax));
  const float scale = round_scale(span, format.scale_dtype);
  return {scale, fminf(fmaxf(rintf(__fdiv_rn(-e.lo, scale)), 0.0f), format.qmax)};
}

// NaN, of a slice that is not finite, becomes 0.
__device__ std::uint8_t quantize_one(float w, const ScaleZero& s, const Format& format) {
  const float q = rintf(__fadd_rn(__fdiv_rn(w, s.scale), s.zero_point));
  if (!(fabsf(s.scale) < INFINITY)) return 0;
  return static_cast<std::uint8_t>(static_cast<int>(fminf(fmaxf(q, format.qmin), format.qmax)));
}

// One block a slice: a row, or a group of one.
template <class T>
__global__ void __launch_bounds__(kThreads)
    quantize_slices(Rows<const T> w, Rows<std::uint8_t> q, Rows<float> scale, Rows<std::uint8_t> zero_point, Format format,
                    std::int64_t K, std::int64_t groups, std::int64_t length) {
  const std::int64_t n = blockIdx.x / groups;
  const std::int64_t g = blockIdx.x % groups;
  const std::int64_t begin = g * length;
  const std::int64_t end = min(begin + length, K);
  Extremes extremes;
  for (std::int64_t k = begin + threadIdx.x; k < end; k += blockDim.x) extremes.add(to_float(w(n)[k]));
  const ScaleZero s = scale_of(over_block(extremes), format);
  if (threadIdx.x == 0) {
    scale(n)[g] = s.scale;
    if (!format.symmetric) zero_point(n)[g] = static_cast<std::uint8_t>(s.zero_point);
  }
  for (std::int64_t k = begin + threadIdx.x; k < end; k += blockDim.x) q(n)[k] = quantize_one(to_float(w(n)[k]), s, format);
}

// Per tensor, in three steps, of which the scale's own word carries the largest magnitude from the first to the second.
__global__ void clear(float* scale) { *scale = 0; }

template <class T>
__global__ void __launch_bounds__(kThreads) find_largest(Rows<const T> w, std::int64_t K, float* scale) {
  Extremes extremes;
  for (std::int64_t k = threadIdx.x; k < K; k += kThreads) extremes.add(to_float(w(blockIdx.x)[k]));
  extremes = over_block(extremes);
  if (threadIdx.x == 0) atomicMax(reinterpret_cast<unsigned*>(scale), extremes.largest);
}

__global__ void make_scale(float* scale, Format format) {
  Extremes extremes;
  extremes.largest = __float_as_uint(*scale);
  *scale = scale_of(extremes, format).scale;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    quantize_rows(Rows<const T> w, Rows<std::uint8_t> q, const float* scale, Format format, std::int64_t K) {
  const ScaleZero s = {*scale, 0};
  for (std::int64_t k = threadIdx.x; k < K; k += kThreads) {
    q(blockIdx.x)[k] = quantize_one(to_float(w(blockIdx.x)[k]), s, format);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    dequantize_elements(cuda::Weight w, Rows<T> out, std::int64_t N, std::int64_t K) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= N * K) return;
  const std::int64_t n = i / K;
  const std::int64_t k = i % K;
  out(n)[k] = cuda::round_to<T>(__fmul_rn(w.centered(n, k), w.scale_at(n, k)));
}

// The same to 16 bits, eight neighbours along K a thread, which share a scale: as fast as the memory is.
constexpr int kEight = 8;

template <class T>
__global__ void __launch_bounds__(kThreads) dequantize_eights(cuda::Weight w, Rows<T> out, int K) {
  const int k = static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * kEight;
  if (k >= K) return;
  const std::int64_t n = blockIdx.x;
  const bool nibbles = w.storage == DType::kInt4 || w.storage == DType::kUInt4;
  const std::uint8_t* from = w.q(n) + (nibbles ? k / 2 : k);
  const std::int64_t parameters = w.per_tensor ? 0 : n, group = k / static_cast<int>(w.length);
  const float scale = w.scale.at(parameters, group);
  const bool symmetric = w.storage == DType::kInt8 || w.storage == DType::kInt4;
  const int zero = symmetric ? (nibbles ? 8 : 0) : w.zero_point(parameters)[group];
  std::uint64_t packed;
  if (nibbles) {
    packed = *reinterpret_cast<const std::uint32_t*>(from);
  } else {
    packed = *reinterpret_cast<const std::uint64_t*>(from);
  }
  __align__(16) T values[kEight];
#pragma unroll
  for (int i = 0; i < kEight; ++i) {
    int q = static_cast<int>(nibbles ? packed >> (4 * i) & 15 : packed >> (8 * i) & 255);
    if (w.storage == DType::kInt8) q = static_cast<std::int8_t>(q);
    values[i] = cuda::round_to<T>(__fmul_rn(static_cast<float>(q - zero), scale));
  }
  *reinterpret_cast<uint4*>(&out(n)[k]) = *reinterpret_cast<const uint4*>(values);
}

bool by_eights(const QuantizedWeight& w, const MutableMatrixView& out) {
  if (out.dtype == DType::kFloat32 || out.empty() || out.cols % kEight != 0 || out.cols > kMaxK) return false;
  if (w.format.group_size > 0 && w.format.group_size % kEight != 0) return false;
  return alignment_of(out) == 16 && alignment_of(w.q) >= row_bytes(w.q.dtype, kEight);
}

}  // namespace

void cuda_quantize(const MatrixView& w, DType scale_dtype, const MutableQuantizedWeight& out, Stream stream) {
  const Format format = {out.format.symmetric, static_cast<float>(out.format.qmin()), static_cast<float>(out.format.qmax()),
                         scale_dtype};
  const auto q = rows_of<std::uint8_t>(out.q);
  const auto scale = rows_of<float>(out.scale);
  const auto rows = static_cast<unsigned>(w.rows);
  cuda::visit_cuda_float(w.dtype, [&](auto type) {
    using T = decltype(type);
    const auto from = rows_of<const T>(w);
    if (out.format.group_size == kPerTensor) {
      cuda::launch(clear, 1, 1, 0, stream, kWritesWeights, scale.data);
      if (!w.empty()) cuda::launch(find_largest<T>, rows, kThreads, 0, stream, kWritesWeights, from, w.cols, scale.data);
      cuda::launch(make_scale, 1, 1, 0, stream, kWritesWeights, scale.data, format);
      if (!w.empty())
        cuda::launch(quantize_rows<T>, rows, kThreads, 0, stream, kWritesWeights, from, q, scale.data, format, w.cols);
      return;
    }
    const std::int64_t groups = out.scale.cols;
    const std::int64_t length = out.format.group_size > 0 ? out.format.group_size : w.cols;
    const auto threads =
        static_cast<unsigned>(std::clamp<std::int64_t>((std::min(length, w.cols) + 31) / 32 * 32, 32, kThreads));
    cuda::launch(quantize_slices<T>, static_cast<unsigned>(w.rows * groups), threads, 0, stream, kWritesWeights, from, q,
                 scale, rows_of<std::uint8_t>(out.zero_point), format, w.cols, groups, length);
  });
}

void cuda_dequantize(const QuantizedWeight& w, const MutableMatrixView& out, Stream stream) {
  cuda::visit_cuda_float(out.dtype, [&](auto type) {
    using T = decltype(type);
    if constexpr (sizeof(T) == 2) {
      if (by_eights(w, out)) {
        const dim3 grid(static_cast<unsigned>(out.rows), cuda::blocks_for(out.cols / kEight, kThreads));
        return cuda::launch(dequantize_eights<T>, grid, kThreads, 0, stream, kWritesWeights, cuda::weight_of(w),
                            rows_of<T>(out), static_cast<int>(out.cols));
      }
    }
    cuda::launch(dequantize_elements<T>, cuda::blocks_for(out.rows * out.cols, kThreads), kThreads, 0, stream,
                 kWritesWeights, cuda::weight_of(w), rows_of<T>(out), out.rows, out.cols);
  });
}

}  // namespace octavo
