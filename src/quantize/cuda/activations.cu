#include <algorithm>

#include "core/cuda_launch.cuh"
#include "core/half.cuh"
#include "core/ptx.cuh"
#include "quantize/cuda/activations.h"

namespace octavo {
namespace {

using cuda::to_float;

constexpr int kMaxThreads = 256;
constexpr unsigned kInfinity = 0x7f800000;

// One thread block a slice: a row, or a group of one. Magnitudes are compared as bits, where a NaN or Inf is the largest.
template <class T>
__global__ void __launch_bounds__(kMaxThreads)
    quantize_slices(const char* x, std::int64_t x_stride, char* q, std::int64_t q_stride, char* scale,
                    std::int64_t scale_stride, std::int64_t K, std::int64_t groups, std::int64_t length) {
  __shared__ unsigned of_warp[kMaxThreads / 32];
  const std::int64_t m = blockIdx.x / groups;
  const std::int64_t g = blockIdx.x % groups;
  const std::int64_t begin = g * length;
  const std::int64_t count = min(length, K - begin);
  const T* in = reinterpret_cast<const T*>(x + m * x_stride) + begin;
  auto* out = reinterpret_cast<std::int8_t*>(q + m * q_stride) + begin;
  auto* s = reinterpret_cast<float*>(scale + m * scale_stride) + g;

  ptx::wait_for_predecessor();
  ptx::launch_dependents();
  unsigned largest = 0;
  for (std::int64_t k = threadIdx.x; k < count; k += blockDim.x) {
    largest = max(largest, __float_as_uint(to_float(in[k])) & 0x7fffffffu);
  }
  for (int offset = 16; offset > 0; offset /= 2) largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = largest;
  __syncthreads();
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) largest = max(largest, of_warp[warp]);

  if (largest >= kInfinity) {
    if (threadIdx.x == 0) *s = __uint_as_float(0x7fc00000u);
    for (std::int64_t k = threadIdx.x; k < count; k += blockDim.x) out[k] = 0;
    return;
  }
  const float absmax = __uint_as_float(largest);
  const float step = absmax == 0 ? 1.0f : fmaxf(__fdiv_rn(absmax, 127.0f), 0x1p-126f);
  if (threadIdx.x == 0) *s = step;
  for (std::int64_t k = threadIdx.x; k < count; k += blockDim.x) {
    const float value = rintf(__fdiv_rn(to_float(in[k]), step));
    out[k] = static_cast<std::int8_t>(fminf(fmaxf(value, -128.0f), 127.0f));
  }
}

}  // namespace

void cuda_quantize_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                             const MutableMatrixView& scale, Stream stream) {
  const std::int64_t length = group_size > 0 ? group_size : x.cols;
  const std::int64_t threads = std::clamp<std::int64_t>((std::min(length, x.cols) + 31) / 32 * 32, 32, kMaxThreads);
  cuda::visit_cuda_float(x.dtype, [&](auto type) {
    cuda::launch(quantize_slices<decltype(type)>, dim3(static_cast<unsigned>(x.rows * scale.cols)),
                 dim3(static_cast<unsigned>(threads)), 0, stream, {}, static_cast<const char*>(x.data), x.stride,
                 static_cast<char*>(q.data), q.stride, static_cast<char*>(scale.data), scale.stride, x.cols, scale.cols,
                 length);
  });
}

}  // namespace octavo
