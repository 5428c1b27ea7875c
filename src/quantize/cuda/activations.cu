// Activations to int8. Rows are read once and kept in registers between their largest magnitude and their rounding; groups,
// and rows that 16-byte accesses cannot take, are read twice.
#include <algorithm>

#include "core/cuda_launch.cuh"
#include "core/half.cuh"
#include "core/ptx.cuh"
#include "quantize/cuda/activations.h"

namespace octavo {
namespace {

// Magnitudes are compared as bits, in which a NaN or Inf is larger than any number.
template <class T>
struct Element;
template <>
struct Element<float> {
  using Bits = unsigned;
  static constexpr unsigned kInfinity = 0x7f800000;
  static constexpr bool kDivides = true;
  __device__ static float value(unsigned bits) { return __uint_as_float(bits); }
};
template <>
struct Element<__half> {
  using Bits = unsigned short;
  static constexpr unsigned kInfinity = 0x7c00;
  static constexpr bool kDivides = false;
  __device__ static float value(unsigned bits) { return __half2float(__ushort_as_half(static_cast<Bits>(bits))); }
};
template <>
struct Element<__nv_bfloat16> {
  using Bits = unsigned short;
  static constexpr unsigned kInfinity = 0x7f80;
  static constexpr bool kDivides = false;
  __device__ static float value(unsigned bits) { return __uint_as_float(bits << 16); }
};

// The largest of a thread block's values, for all its threads.
__device__ unsigned largest_of_block(unsigned largest) {
  __shared__ unsigned of_warp[32];
  for (int offset = 16; offset > 0; offset /= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, offset));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = largest;
  __syncthreads();
  largest = threadIdx.x % 32 < blockDim.x / 32 ? of_warp[threadIdx.x % 32] : 0;
  for (int offset = 16; offset > 0; offset /= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, offset));
  return largest;
}

// x / scale to the nearest integer, as numbers whose lowest byte it is.
class Rounding {
 public:
  __device__ explicit Rounding(float absmax) {
    scale_ = absmax == 0 ? 1.0f : fmaxf(__fdiv_rn(absmax, 127.0f), 0x1p-126f);
    reciprocal_ = __fdiv_rn(1.0f, scale_);
  }

  __device__ float scale() const { return scale_; }

  // The quotient of a 16-bit value by one correction of x · (1/s) with its exact remainder (Markstein, 1990), which rounds
  // correctly where reciprocal and remainder stay normal numbers; other values are divided. No quotient is above 127.
  template <class T>
  __device__ unsigned operator()(float x) const {
    float quotient;
    if (!Element<T>::kDivides && scale_ >= 0x1p-60f && scale_ <= 0x1p60f) {
      const float estimate = __fmul_rn(x, reciprocal_);
      quotient = __fmaf_rn(__fmaf_rn(-estimate, scale_, x), reciprocal_, estimate);
    } else {
      quotient = __fdiv_rn(x, scale_);
    }
    return __float_as_uint(__fadd_rn(quotient, 0x1.8p23f));  // whose last bit is worth 1
  }

 private:
  float scale_, reciprocal_;
};

template <class T>
__device__ unsigned magnitude(uint4 v) {
  const unsigned words[4] = {v.x, v.y, v.z, v.w};
  unsigned largest = 0;
  if constexpr (sizeof(T) == 4) {
    for (const unsigned word : words) largest = max(largest, word & 0x7fffffffu);
    return largest;
  } else {
    for (const unsigned word : words) largest = __vmaxu2(largest, word & 0x7fff7fffu);
    return max(largest & 0xffff, largest >> 16);
  }
}

__device__ unsigned lowest_bytes(unsigned a, unsigned b, unsigned c, unsigned d) {
  return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

template <class T>
__device__ void store(std::int8_t* q, std::int64_t index, uint4 v, const Rounding& round) {
  const auto at = [&](unsigned bits) { return round.template operator()<T>(Element<T>::value(bits)); };
  if constexpr (sizeof(T) == 4) {
    reinterpret_cast<unsigned*>(q)[index] = lowest_bytes(at(v.x), at(v.y), at(v.z), at(v.w));
  } else {
    const auto four = [&](unsigned a, unsigned b) {
      return lowest_bytes(at(a & 0xffff), at(a >> 16), at(b & 0xffff), at(b >> 16));
    };
    reinterpret_cast<uint2*>(q)[index] = {four(v.x, v.y), four(v.z, v.w)};
  }
}

// A thread block a row of up to kVectors times 16 bytes a thread.
template <class T, int kVectors>
__global__ void __launch_bounds__(1024)
    quantize_rows(const char* x, std::int64_t x_stride, std::int8_t* q, std::int64_t q_stride, char* scale,
                  std::int64_t scale_stride, int vectors) {
  const auto* in = reinterpret_cast<const uint4*>(x + blockIdx.x * x_stride);
  std::int8_t* out = q + blockIdx.x * q_stride;
  auto* s = reinterpret_cast<float*>(scale + blockIdx.x * scale_stride);
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
  uint4 v[kVectors];
  unsigned largest = 0;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int index = static_cast<int>(threadIdx.x + i * blockDim.x);
    v[i] = index < vectors ? in[index] : uint4{};
  }
#pragma unroll
  for (int i = 0; i < kVectors; ++i) largest = max(largest, magnitude<T>(v[i]));
  largest = largest_of_block(largest);
  const bool finite = largest < Element<T>::kInfinity;
  const Rounding round(Element<T>::value(largest));
  if (threadIdx.x == 0) *s = finite ? round.scale() : __uint_as_float(0x7fc00000u);
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int index = static_cast<int>(threadIdx.x + i * blockDim.x);
    if (index >= vectors) break;
    store<T>(out, index, finite ? v[i] : uint4{}, finite ? round : Rounding(0));
  }
}

// A thread block a slice: a row, or a group of one.
template <class T>
__global__ void __launch_bounds__(256)
    quantize_slices(const char* x, std::int64_t x_stride, std::int8_t* q, std::int64_t q_stride, char* scale,
                    std::int64_t scale_stride, std::int64_t K, std::int64_t groups, std::int64_t length) {
  const std::int64_t m = blockIdx.x / groups, g = blockIdx.x % groups;
  const std::int64_t count = min(length, K - g * length);
  const auto* in = reinterpret_cast<const typename Element<T>::Bits*>(x + m * x_stride) + g * length;
  std::int8_t* out = q + m * q_stride + g * length;
  auto* s = reinterpret_cast<float*>(scale + m * scale_stride) + g;
  constexpr unsigned kMagnitude = sizeof(T) == 4 ? 0x7fffffffu : 0x7fffu;
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
  unsigned largest = 0;
  for (std::int64_t k = threadIdx.x; k < count; k += blockDim.x) largest = max(largest, in[k] & kMagnitude);
  largest = largest_of_block(largest);
  const bool finite = largest < Element<T>::kInfinity;
  const Rounding round(Element<T>::value(largest));
  if (threadIdx.x == 0) *s = finite ? round.scale() : __uint_as_float(0x7fc00000u);
  for (std::int64_t k = threadIdx.x; k < count; k += blockDim.x) {
    out[k] = finite ? static_cast<std::int8_t>(round.template operator()<T>(Element<T>::value(in[k]))) : std::int8_t{0};
  }
}

// Where 16-byte loads and stores of as many values fit.
bool vectorizes(const MatrixView& x, const MutableMatrixView& q) {
  const int values = 16 / (bits_of(x.dtype) / 8);
  return x.cols % values == 0 && reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.stride % 16 == 0 &&
         reinterpret_cast<std::uintptr_t>(q.data) % static_cast<std::uintptr_t>(values) == 0 && q.stride % values == 0;
}

// Few rows are spread over as many threads as there are, many over as few as still have enough on the way each.
template <class T>
bool quantize_whole_rows(const MatrixView& x, const MutableMatrixView& q, const MutableMatrixView& scale, Stream stream) {
  constexpr std::int64_t kManyRows = 512, kMaxThreads = 1024, kEnoughThreads = 256;
  const std::int64_t vectors = row_bytes(x.dtype, x.cols) / 16;
  const auto launch = [&](auto kernel, int per_thread) {
    const std::int64_t threads = std::max<std::int64_t>((vectors + per_thread * 32 - 1) / (per_thread * 32), 1) * 32;
    cuda::launch(kernel, dim3(static_cast<unsigned>(x.rows)), dim3(static_cast<unsigned>(threads)), 0, stream, {},
                 static_cast<const char*>(x.data), x.stride, static_cast<std::int8_t*>(q.data), q.stride,
                 static_cast<char*>(scale.data), scale.stride, static_cast<int>(vectors));
    return true;
  };
  const std::int64_t most = x.rows >= kManyRows ? kEnoughThreads : kMaxThreads;
  if (vectors <= most) return launch(quantize_rows<T, 1>, 1);
  if (vectors <= 2 * most) return launch(quantize_rows<T, 2>, 2);
  if (vectors <= 4 * most) return launch(quantize_rows<T, 4>, 4);
  if (vectors <= 8 * kMaxThreads) return launch(quantize_rows<T, 8>, 8);
  return false;
}

}  // namespace

void cuda_quantize_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                             const MutableMatrixView& scale, Stream stream) {
  const std::int64_t length = group_size > 0 ? group_size : x.cols;
  const auto run = [&](auto type) {
    using T = decltype(type);
    if (scale.cols == 1 && vectorizes(x, q) && quantize_whole_rows<T>(x, q, scale, stream)) return;
    const std::int64_t threads = std::clamp<std::int64_t>((std::min(length, x.cols) + 31) / 32 * 32, 32, 256);
    cuda::launch(quantize_slices<T>, dim3(static_cast<unsigned>(x.rows * scale.cols)), dim3(static_cast<unsigned>(threads)),
                 0, stream, {}, static_cast<const char*>(x.data), x.stride, static_cast<std::int8_t*>(q.data), q.stride,
                 static_cast<char*>(scale.data), scale.stride, x.cols, scale.cols, length);
  };
  cuda::visit_cuda_float(x.dtype, run);
}

}  // namespace octavo
