// Activations to int8. Rows are read once and kept in registers between their largest magnitude and their rounding; groups,
// and rows that 16-byte accesses cannot take, are read twice.
#include <algorithm>

#include "core/cuda_launch.cuh"
#include "core/half.cuh"
#include "core/ptx.cuh"
#include "quantize/cuda/activations.h"
#include "quantize/cuda/rounding.cuh"

namespace octavo {
namespace {

using cuda::Element;
using cuda::lowest_bytes;

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

template <class T, class Round>
__device__ void store(std::int8_t* q, std::int64_t index, uint4 v, const Round& round) {
  const auto at = [&](unsigned bits) { return round(Element<T>::value(bits)); };
  if constexpr (sizeof(T) == 4) {
    reinterpret_cast<unsigned*>(q)[index] = lowest_bytes(at(v.x), at(v.y), at(v.z), at(v.w));
  } else {
    const auto four = [&](unsigned a, unsigned b) {
      return lowest_bytes(at(a & 0xffff), at(a >> 16), at(b & 0xffff), at(b >> 16));
    };
    reinterpret_cast<uint2*>(q)[index] = {four(v.x, v.y), four(v.z, v.w)};
  }
}

// The next kernel may start once all that every thread has written is there for it.
__device__ __forceinline__ void tell_when_written() {
  __threadfence();
  __syncthreads();
  ptx::launch_dependents();
}

// Writes the scale that a thread block's largest magnitude gives, of each thread's `largest`, and calls store_all(round); of
// a block with a NaN or Inf all values are 0.
template <class T, class StoreAll>
__device__ __forceinline__ void store_dynamic(unsigned largest, float* scale, const StoreAll& store_all) {
  largest = cuda::largest_of_block(largest);
  const bool finite = largest < Element<T>::kInfinity;
  const cuda::DynamicRounding<T> rounding(finite ? Element<T>::value(largest) : 0.0f);
  if (threadIdx.x == 0) *scale = finite ? rounding.scale() : __uint_as_float(cuda::kNaN);
  if (finite) {
    rounding.with(store_all);
  } else {
    store_all([](float) { return 0u; });
  }
}

// A thread block a row of up to kVectors times 16 bytes a thread. kStatic: the scale is read, else it is written.
template <class T, int kVectors, bool kStatic>
__global__ void __launch_bounds__(1024)
    quantize_rows(const char* x, std::int64_t x_stride, std::int8_t* q, std::int64_t q_stride, char* scale,
                  std::int64_t scale_stride, int vectors, ReadBy read_by) {
  const auto* in = reinterpret_cast<const uint4*>(x + blockIdx.x * x_stride);
  std::int8_t* out = q + blockIdx.x * q_stride;
  auto* s = reinterpret_cast<float*>(scale + blockIdx.x * scale_stride);
  if (read_by == ReadBy::kNextKernel) ptx::launch_dependents();
  ptx::wait_for_predecessor();
  uint4 v[kVectors];
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int index = static_cast<int>(threadIdx.x + i * blockDim.x);
    v[i] = index < vectors ? in[index] : uint4{};
  }
  const auto store_all = [&](const auto& round) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int index = static_cast<int>(threadIdx.x + i * blockDim.x);
      if (index >= vectors) break;
      store<T>(out, index, v[i], round);
    }
  };
  if constexpr (kStatic) {
    cuda::StaticRounding(*s).with(store_all);
  } else {
    unsigned largest = 0;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) largest = max(largest, magnitude<T>(v[i]));
    store_dynamic<T>(largest, s, store_all);
  }
  if (read_by == ReadBy::kAnyone) tell_when_written();
}

// A thread block a slice: a row, or a group of one.
template <class T, bool kStatic>
__global__ void __launch_bounds__(256)
    quantize_slices(const char* x, std::int64_t x_stride, std::int8_t* q, std::int64_t q_stride, char* scale,
                    std::int64_t scale_stride, std::int64_t K, std::int64_t groups, std::int64_t length, ReadBy read_by) {
  const std::int64_t m = blockIdx.x / groups, g = blockIdx.x % groups;
  const std::int64_t count = min(length, K - g * length);
  const auto* in = reinterpret_cast<const typename Element<T>::Bits*>(x + m * x_stride) + g * length;
  std::int8_t* out = q + m * q_stride + g * length;
  auto* s = reinterpret_cast<float*>(scale + m * scale_stride) + g;
  constexpr unsigned kMagnitude = sizeof(T) == 4 ? 0x7fffffffu : 0x7fffu;
  if (read_by == ReadBy::kNextKernel) ptx::launch_dependents();
  ptx::wait_for_predecessor();
  const auto store_all = [&](const auto& round) {
    for (std::int64_t k = threadIdx.x; k < count; k += blockDim.x) {
      out[k] = static_cast<std::int8_t>(round(Element<T>::value(in[k])));
    }
  };
  if constexpr (kStatic) {
    cuda::StaticRounding(*s).with(store_all);
  } else {
    unsigned largest = 0;
    for (std::int64_t k = threadIdx.x; k < count; k += blockDim.x) largest = max(largest, in[k] & kMagnitude);
    store_dynamic<T>(largest, s, store_all);
  }
  if (read_by == ReadBy::kAnyone) tell_when_written();
}

// Where 16-byte loads and stores of as many values fit.
bool vectorizes(const MatrixView& x, const MutableMatrixView& q) {
  const int values = 16 / (bits_of(x.dtype) / 8);
  return x.cols % values == 0 && reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.stride % 16 == 0 &&
         reinterpret_cast<std::uintptr_t>(q.data) % static_cast<std::uintptr_t>(values) == 0 && q.stride % values == 0;
}

// The scales of slices, or the one that all have. Const where kStatic.
struct Scales {
  char* data;
  std::int64_t stride;
  std::int64_t groups;
};

// Few rows are spread over as many threads as there are, many over as few as still have enough on the way each.
template <class T, bool kStatic>
bool quantize_whole_rows(const MatrixView& x, const MutableMatrixView& q, const Scales& scale, Stream stream,
                         ReadBy read_by) {
  constexpr std::int64_t kManyRows = 512, kMaxThreads = 1024, kEnoughThreads = 256;
  const std::int64_t vectors = row_bytes(x.dtype, x.cols) / 16;
  const auto launch = [&](auto kernel, int per_thread) {
    const std::int64_t threads = std::max<std::int64_t>((vectors + per_thread * 32 - 1) / (per_thread * 32), 1) * 32;
    cuda::launch(kernel, dim3(static_cast<unsigned>(x.rows)), dim3(static_cast<unsigned>(threads)), 0, stream, {},
                 static_cast<const char*>(x.data), x.stride, static_cast<std::int8_t*>(q.data), q.stride, scale.data,
                 scale.stride, static_cast<int>(vectors), read_by);
    return true;
  };
  const std::int64_t most = x.rows >= kManyRows ? kEnoughThreads : kMaxThreads;
  if (vectors <= most) return launch(quantize_rows<T, 1, kStatic>, 1);
  if (vectors <= 2 * most) return launch(quantize_rows<T, 2, kStatic>, 2);
  if (vectors <= 4 * most) return launch(quantize_rows<T, 4, kStatic>, 4);
  if (vectors <= 8 * kMaxThreads) return launch(quantize_rows<T, 8, kStatic>, 8);
  return false;
}

template <bool kStatic>
void quantize(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q, const Scales& scale, Stream stream,
              ReadBy read_by) {
  const std::int64_t length = group_size > 0 ? group_size : x.cols;
  cuda::visit_cuda_float(x.dtype, [&](auto type) {
    using T = decltype(type);
    if (scale.groups == 1 && vectorizes(x, q) && quantize_whole_rows<T, kStatic>(x, q, scale, stream, read_by)) return;
    const std::int64_t threads = std::clamp<std::int64_t>((std::min(length, x.cols) + 31) / 32 * 32, 32, 256);
    cuda::launch(quantize_slices<T, kStatic>, dim3(static_cast<unsigned>(x.rows * scale.groups)),
                 dim3(static_cast<unsigned>(threads)), 0, stream, {}, static_cast<const char*>(x.data), x.stride,
                 static_cast<std::int8_t*>(q.data), q.stride, scale.data, scale.stride, x.cols, scale.groups, length,
                 read_by);
  });
}

}  // namespace

void cuda_quantize_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                             const MutableMatrixView& scale, Stream stream, ReadBy read_by) {
  quantize<false>(x, group_size, q, {static_cast<char*>(scale.data), scale.stride, scale.cols}, stream, read_by);
}

void cuda_quantize_static(const MatrixView& x, const MatrixView& scale, const MutableMatrixView& q, Stream stream,
                          ReadBy read_by) {
  quantize<true>(x, kPerChannel, q, {static_cast<char*>(const_cast<void*>(scale.data)), 0, 1}, stream, read_by);
}

}  // namespace octavo
