// RMSNorm and SiLU · up, quantized per token in the same pass. A thread block takes a row. What stands in it is computed
// from pieces of kPiece neighbours, thread t those of number t, t + T, t + 2T …, T a power of two, as the order of a sum of
// squares wants it (quantize/formulas.h). Rows of up to 8 pieces a thread (float32: 4) are read once and stay in registers;
// longer ones, and those that 16-byte accesses cannot take, are computed again each time they are needed.
#include <algorithm>

#include "core/cuda_launch.cuh"
#include "core/half.cuh"
#include "core/ptx.cuh"
#include "core/rows.cuh"
#include "quantize/cuda/fused.h"
#include "quantize/cuda/rounding.cuh"
#include "quantize/formulas.h"

namespace octavo {
namespace {

using cuda::Element;
using cuda::Rows;
using cuda::rows_of;
using formulas::kPiece;

constexpr int kMaxThreads = 512, kSlowThreads = 256;

// --- Pieces -------------------------------------------------------------------------------------------------------------

// As it lies in memory.
template <class T>
struct Piece {
  static constexpr int kVectors = kPiece * sizeof(T) / 16;
  uint4 v[kVectors];

  __device__ static Piece load(const T* row, int index) {
    Piece p;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) p.v[i] = reinterpret_cast<const uint4*>(row)[index * kVectors + i];
    return p;
  }
  __device__ void store(T* row, int index) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) reinterpret_cast<uint4*>(row)[index * kVectors + i] = v[i];
  }

  __device__ void widen(float (&x)[kPiece]) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const unsigned words[4] = {v[i].x, v[i].y, v[i].z, v[i].w};
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        if constexpr (sizeof(T) == 4) {
          x[i * 4 + w] = Element<T>::value(words[w]);
        } else {
          x[2 * w] = Element<T>::value(words[w] & 0xffff);
          x[2 * w + 1] = Element<T>::value(words[w] >> 16);
        }
      }
    }
  }
};

// Rounded sums of two pieces.
template <class T>
__device__ Piece<T> add(const Piece<T>& a, const Piece<T>& b) {
  float x[kPiece], y[kPiece];
  a.widen(x);
  b.widen(y);
  Piece<T> sum;
  auto* out = reinterpret_cast<T*>(sum.v);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) out[i] = cuda::round_to<T>(exact::add(x[i], y[i]));
  return sum;
}

// s[0] + s[kCount / 2], and so on: halves to halves, until one is left.
template <int kCount>
__device__ float sum_of_halves(float (&s)[kCount]) {
  if constexpr (kCount == 1) {
    return s[0];
  } else {
    float sums[kCount / 2];
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) sums[i] = exact::add(s[i], s[i + kCount / 2]);
    return sum_of_halves(sums);
  }
}

__device__ unsigned magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

template <int kWarps>
__device__ float sum_over_warps(const float* of_thread) {
  float s[kWarps];
#pragma unroll
  for (int w = 0; w < kWarps; ++w) s[w] = of_thread[w * 32 + threadIdx.x % 32];
  return sum_of_halves(s);
}

// Of all threads' values, thread by thread in the order of formulas.h, for all of them.
__device__ float sum_of_block(float mine) {
  __shared__ float of_thread[kMaxThreads];
  of_thread[threadIdx.x] = mine;
  __syncthreads();
  float sum;
  switch (blockDim.x / 32) {
    case 1:
      sum = sum_over_warps<1>(of_thread);
      break;
    case 2:
      sum = sum_over_warps<2>(of_thread);
      break;
    case 4:
      sum = sum_over_warps<4>(of_thread);
      break;
    case 8:
      sum = sum_over_warps<8>(of_thread);
      break;
    default:
      sum = sum_over_warps<kMaxThreads / 32>(of_thread);
  }
  for (int half = 16; half > 0; half /= 2) sum = exact::add(sum, __shfl_xor_sync(~0u, sum, half));
  return sum;
}

// --- What a row is ------------------------------------------------------------------------------------------------------

// x, or x + residual, normalized. After prepare() a thread may ask for its elements.
template <class T, bool kAdd>
struct RmsNorm {
  // kTwoEachOfMany: up to how many pieces a thread has two, where there are many rows.
  static constexpr int kBytes = sizeof(T), kTwoEachOfMany = 0;
  Rows<const T> x, residual;
  Rows<T> sum;
  const T* weight;
  float reciprocal_of_K, eps;

  // y of the thread's pieces; what lies beyond `pieces` is 0.
  template <int kPieces>
  __device__ void compute(float (&y)[kPieces][kPiece], std::int64_t m, int pieces) const {
    constexpr bool kEarly = sizeof(T) == 2;  // weights wait in registers, of which float32 leaves too few
    Piece<T> in[kPieces] = {}, w[kPieces];
    const auto each = [&](const auto& body) {
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const int index = static_cast<int>(threadIdx.x + i * blockDim.x);
        if (index < pieces) body(i, index);
      }
    };
    each([&](int i, int index) { in[i] = Piece<T>::load(x(m), index); });
    const auto load_weights = [&] { each([&](int i, int index) { w[i] = Piece<T>::load(weight, index); }); };
    if constexpr (kAdd) {
      Piece<T> other[kPieces];
      each([&](int i, int index) { other[i] = Piece<T>::load(residual(m), index); });
      if constexpr (kEarly) load_weights();
      each([&](int i, int index) { (in[i] = add(in[i], other[i])).store(sum(m), index); });
    } else if constexpr (kEarly) {
      load_weights();
    }
    float squares[kPieces];
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      in[i].widen(y[i]);
      squares[i] = formulas::sum_of_squares(y[i]);
    }
    const float factor = formulas::rms_factor(sum_of_block(sum_of_halves(squares)), reciprocal_of_K, eps);
    if constexpr (!kEarly) load_weights();
    each([&](int i, int) {
      float weights[kPiece];
      w[i].widen(weights);
#pragma unroll
      for (int e = 0; e < kPiece; ++e) y[i][e] = formulas::normalized(y[i][e], factor, weights[e]);
    });
  }

  // The same element by element, for rows of any length and address: prepare() once, then at().
  float factor;
  __device__ float element(std::int64_t m, std::int64_t k) const {
    return cuda::to_float(kAdd ? sum(m)[k] : x(m)[k]);  // what the thread wrote itself
  }
  __device__ void prepare(std::int64_t m, std::int64_t K) {
    const auto squares_of_piece = [&](std::int64_t first) {
      float piece[kPiece];
      for (int i = 0; i < kPiece; ++i) {
        const std::int64_t k = first + i;
        if (kAdd && k < K) {
          sum(m)[k] = cuda::round_to<T>(exact::add(cuda::to_float(x(m)[k]), cuda::to_float(residual(m)[k])));
        }
        piece[i] = k < K ? element(m, k) : 0.0f;
      }
      return formulas::sum_of_squares(piece);
    };
    // A thread's n pieces (as many for all, a power of two) in the order of their numbers' mirrored bits: there, halves
    // that are to be added stand side by side, and sums of equal size meet as the ones of a binary counter do.
    int bits = 0;
    while ((std::int64_t{kPiece} * blockDim.x << bits) < K) ++bits;
    float waiting[32];
    float total = 0;
    for (unsigned n = 0; n < 1u << bits; ++n) {
      const std::int64_t index = bits == 0 ? 0 : __brev(n) >> (32 - bits);
      total = squares_of_piece((threadIdx.x + index * blockDim.x) * kPiece);
      int size = 0;
      for (; n >> size & 1; ++size) total = exact::add(waiting[size], total);
      waiting[size] = total;
    }
    factor = formulas::rms_factor(sum_of_block(total), reciprocal_of_K, eps);
  }
  __device__ float at(std::int64_t m, std::int64_t k) const {
    return formulas::normalized(element(m, k), factor, cuda::to_float(weight[k]));
  }
};

template <class T>
struct SiluMul {
  static constexpr int kBytes = sizeof(T), kTwoEachOfMany = 512;
  Rows<const T> gate, up;

  template <int kPieces>
  __device__ void compute(float (&y)[kPieces][kPiece], std::int64_t m, int pieces) const {
    Piece<T> g[kPieces] = {}, u[kPieces] = {};
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int index = static_cast<int>(threadIdx.x + i * blockDim.x);
      if (index >= pieces) continue;
      g[i] = Piece<T>::load(gate(m), index);
      u[i] = Piece<T>::load(up(m), index);
    }
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      float factors[kPiece];
      g[i].widen(y[i]);
      u[i].widen(factors);
#pragma unroll
      for (int e = 0; e < kPiece; ++e) y[i][e] = exact::mul(formulas::silu(y[i][e]), factors[e]);
    }
  }

  __device__ void prepare(std::int64_t, std::int64_t) const {}
  __device__ float at(std::int64_t m, std::int64_t k) const {
    return exact::mul(formulas::silu(cuda::to_float(gate(m)[k])), cuda::to_float(up(m)[k]));
  }
};

// --- Kernels ------------------------------------------------------------------------------------------------------------

template <int kPieces, class Row>
__global__ void __launch_bounds__(kMaxThreads, kPieces* Row::kBytes < 16 ? 2 : 1)
    quantize_pieces(const Row row, const Rows<std::int8_t> q, const Rows<float> scale, int pieces) {
  const std::int64_t m = blockIdx.x;
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
  float y[kPieces][kPiece];
  row.compute(y, m, pieces);
  unsigned largest = 0;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
#pragma unroll
    for (int e = 0; e < kPiece; ++e) largest = max(largest, magnitude(y[i][e]));
  }
  largest = cuda::largest_of_block(largest);
  const bool finite = largest < Element<float>::kInfinity;
  const float s = finite ? cuda::activation_scale(__uint_as_float(largest)) : 1.0f, reciprocal = exact::div(1.0f, s);
  if (threadIdx.x == 0) *scale(m) = finite ? s : __uint_as_float(cuda::kNaN);
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int index = static_cast<int>(threadIdx.x + i * blockDim.x);
    if (index >= pieces) break;
    const auto four = [&](int e) {
      const auto at = [&](int k) { return formulas::quantized(y[i][k], reciprocal); };
      return cuda::lowest_bytes(at(e), at(e + 1), at(e + 2), at(e + 3));
    };
    reinterpret_cast<uint2*>(q(m))[index] = finite ? uint2{four(0), four(4)} : uint2{};
  }
}

// Threads keep to their pieces here too, so that they read what they have written themselves.
template <class Row>
__global__ void __launch_bounds__(kSlowThreads)
    quantize_elements(Row row, const Rows<std::int8_t> q, const Rows<float> scale, std::int64_t K) {
  const std::int64_t m = blockIdx.x;
  const auto each = [&](const auto& body) {
    for (std::int64_t first = threadIdx.x * kPiece; first < K; first += blockDim.x * kPiece) {
      for (std::int64_t k = first; k < min(first + kPiece, K); ++k) body(k);
    }
  };
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
  row.prepare(m, K);
  unsigned largest = 0;
  each([&](std::int64_t k) { largest = max(largest, magnitude(row.at(m, k))); });
  largest = cuda::largest_of_block(largest);
  const bool finite = largest < Element<float>::kInfinity;
  const float s = finite ? cuda::activation_scale(__uint_as_float(largest)) : 1.0f, reciprocal = exact::div(1.0f, s);
  if (threadIdx.x == 0) *scale(m) = finite ? s : __uint_as_float(cuda::kNaN);
  each([&](std::int64_t k) {
    q(m)[k] = finite ? static_cast<std::int8_t>(formulas::quantized(row.at(m, k), reciprocal)) : std::int8_t{0};
  });
}

template <class View>
bool is_aligned(const View& m, std::int64_t bytes) {
  return m.data == nullptr || (reinterpret_cast<std::uintptr_t>(m.data) % static_cast<std::uintptr_t>(bytes) == 0 &&
                               (m.rows <= 1 || m.stride % bytes == 0));
}

// Few rows are spread over many threads; many rows over few, for each of which reductions and divisions cost the same, but
// with so many as Row's arithmetic still keeps busy.
template <class Row>
void quantize(const Row& row, const MutableMatrixView& q, const MutableMatrixView& scale, bool aligned, Stream stream) {
  const auto launch = [&](auto kernel, int threads, auto length) {
    cuda::launch(kernel, dim3(static_cast<unsigned>(q.rows)), dim3(static_cast<unsigned>(threads)), 0, stream, {}, row,
                 rows_of<std::int8_t>(q), rows_of<float>(scale), length);
  };
  constexpr std::int64_t kManyRows = 512;
  constexpr int kMost = Row::kBytes == 2 ? 8 : 4;  // pieces a thread, for which registers suffice
  const std::int64_t pieces = q.cols / kPiece;
  if (!aligned || q.cols % kPiece != 0 || !is_aligned(q, kPiece) || pieces > kMost * kMaxThreads) {
    return launch(quantize_elements<Row>, kSlowThreads, q.cols);
  }
  const auto enough = [&](std::int64_t per_thread) {
    int threads = 32;
    while (threads * per_thread < pieces) threads *= 2;
    return threads;
  };
  const int count = static_cast<int>(pieces);
  const bool many = q.rows >= kManyRows;
  if (!many && pieces <= kMaxThreads) return launch(quantize_pieces<1, Row>, enough(1), count);
  if (pieces <= (many ? Row::kTwoEachOfMany : 2 * kMaxThreads)) return launch(quantize_pieces<2, Row>, enough(2), count);
  if (kMost == 4 || pieces <= 4 * kMaxThreads) return launch(quantize_pieces<4, Row>, enough(4), count);
  return launch(quantize_pieces<kMost, Row>, enough(kMost), count);
}

}  // namespace

void cuda_rms_norm_quantize(const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                            const MutableMatrixView& sum, const MutableMatrixView& q, const MutableMatrixView& scale,
                            Stream stream) {
  const bool aligned = is_aligned(x, 16) && is_aligned(residual, 16) && is_aligned(sum, 16) && is_aligned(weight, 16);
  cuda::visit_cuda_float(x.dtype, [&](auto type) {
    using T = decltype(type);
    const auto run = [&](auto row) { quantize(row, q, scale, aligned, stream); };
    const Rows<const T> in = rows_of<const T>(x), other = rows_of<const T>(residual);
    const auto* w = static_cast<const T*>(weight.data);
    const float reciprocal_of_K = 1.0f / static_cast<float>(x.cols);
    if (residual.data == nullptr) return run(RmsNorm<T, false>{in, other, rows_of<T>(sum), w, reciprocal_of_K, eps, 0});
    run(RmsNorm<T, true>{in, other, rows_of<T>(sum), w, reciprocal_of_K, eps, 0});
  });
}

void cuda_silu_mul_quantize(const MatrixView& gate, const MatrixView& up, const MutableMatrixView& q,
                            const MutableMatrixView& scale, Stream stream) {
  const bool aligned = is_aligned(gate, 16) && is_aligned(up, 16);
  cuda::visit_cuda_float(gate.dtype, [&](auto type) {
    using T = decltype(type);
    quantize(SiluMul<T>{rows_of<const T>(gate), rows_of<const T>(up)}, q, scale, aligned, stream);
  });
}

}  // namespace octavo
